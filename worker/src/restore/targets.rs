//! Where each disk of a restore goes. Pure.

use std::path::{Path, PathBuf};

use crate::source::DiskFormat;

/// What there is where disks are restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// A folder.
    Folder,
    /// Anything else, or nothing.
    Other,
}

/// Where a disk goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its file.
    pub path: PathBuf,
    /// How it is written.
    pub format: DiskFormat,
}

/// Longest name of a file on every file system that matters, bytes.
const FILE_NAME_MAX: usize = 255;

/// The targets of the disks so named, in order: one disk goes to a file, unless there is a folder; several go into a folder.
pub fn plan_targets(disks: &[&str], to: &Path, there: There, format: Option<DiskFormat>) -> Vec<Target> {
    let ends_as_folder = to.as_os_str().as_encoded_bytes().ends_with(b"/");
    if disks.len() == 1 && there != There::Folder && !ends_as_folder {
        return vec![Target {
            path: to.to_owned(),
            format: format.unwrap_or_else(|| DiskFormat::of_path(to)),
        }];
    }
    let format = format.unwrap_or(DiskFormat::Raw);
    let target = |(at, name): (usize, &&str)| Target {
        path: to.join(file_name(name, format, at)),
        format,
    };
    disks.iter().enumerate().map(target).collect()
}

/// The file's name for a disk in a folder. Whoever made the backup chose the disk's name; here it may name a file of this folder and nothing else:
/// letters, digits and `-_+@ .` stay (no dot in front), all else is written `%XX`, so that no two names become one.
fn file_name(disk: &str, format: DiskFormat, at: usize) -> String {
    let mut name = String::with_capacity(disk.len() + 8);
    for (position, c) in disk.chars().enumerate() {
        let plain = c.is_alphanumeric() || matches!(c, '-' | '_' | '+' | '@' | ' ') || (c == '.' && position > 0);
        if plain {
            name.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if name.is_empty() {
        name.push('%');
    }
    let extension = format.name();
    if name.len() + 1 + extension.len() > FILE_NAME_MAX {
        // What is cut off may be what told two names apart: the disk's number does.
        let end = format!("%{at}");
        let mut length = FILE_NAME_MAX - 1 - extension.len() - end.len();
        while !name.is_char_boundary(length) {
            length -= 1;
        }
        name.truncate(length);
        name.push_str(&end);
    }
    format!("{name}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(disks: &[&str], to: &str, there: There, format: Option<DiskFormat>) -> Vec<(String, DiskFormat)> {
        let targets = plan_targets(disks, Path::new(to), there, format);
        targets
            .into_iter()
            .map(|target| (target.path.display().to_string(), target.format))
            .collect()
    }

    #[test]
    fn one_disk_goes_to_a_file_and_into_a_folder_that_is_there() {
        let to = |path: &str, format| vec![(path.to_owned(), format)];
        assert_eq!(
            paths(&["vda"], "/t/x.qcow2", There::Other, None),
            to("/t/x.qcow2", DiskFormat::Qcow2)
        );
        assert_eq!(
            paths(&["vda"], "/t/x.qcow2", There::Other, Some(DiskFormat::Raw)),
            to("/t/x.qcow2", DiskFormat::Raw)
        );
        assert_eq!(paths(&["vda"], "/t/x", There::Other, None), to("/t/x", DiskFormat::Raw));
        assert_eq!(
            paths(&["vda"], "/t", There::Folder, None),
            to("/t/vda.raw", DiskFormat::Raw)
        );
        assert_eq!(
            paths(&["vda"], "/t/", There::Other, Some(DiskFormat::Vhdx)),
            to("/t/vda.vhdx", DiskFormat::Vhdx)
        );
    }

    #[test]
    fn several_disks_go_into_a_folder() {
        let found = paths(&["vda", "vdb"], "/t/x.qcow2", There::Other, None);
        assert_eq!(
            found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
            ["/t/x.qcow2/vda.raw", "/t/x.qcow2/vdb.raw"]
        );
    }

    #[test]
    fn no_name_of_a_disk_leaves_the_folder_or_meets_another() {
        let long = "ä".repeat(127);
        let other = format!("{}x", &long[..252]);
        let slashes = "/".repeat(255);
        let names = [
            "..",
            ".",
            "a/b",
            "a%2Fb",
            "../../etc/passwd",
            "/etc/passwd",
            ".bashrc",
            "a\\b",
            "c:d",
            "",
            " ",
            &long,
            &other,
            &slashes,
        ];
        let found = paths(&names, "/t", There::Folder, None);
        let mut seen = std::collections::BTreeSet::new();
        for (path, _) in &found {
            let rest = path.strip_prefix("/t/").unwrap_or("/");
            assert!(
                !rest.contains('/') && !rest.starts_with('.') && rest.len() <= FILE_NAME_MAX && !rest.is_empty(),
                "{path}"
            );
            assert!(seen.insert(rest), "{path} twice");
        }
        assert_eq!(found[2].0, "/t/a%2Fb.raw");
        assert_eq!(found[3].0, "/t/a%252Fb.raw");
    }
}
