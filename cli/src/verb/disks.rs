//! Which disks a command line means. Pure.

use std::path::{Path, PathBuf};

use tresor_storage::vault::naming::{check_disk_name, check_item_name};

use crate::error::CliError;

/// A disk as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedDisk {
    /// Its name in the item.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Reads `PATH` or `NAME=PATH`. What is before the first `=` is a name unless it has a `/` in it: such a path needs a name in front.
fn parse_disk(text: &str) -> Result<NamedDisk, CliError> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) if !name.contains('/') => (name.to_owned(), path),
        _ => {
            let stem = Path::new(text).file_stem().and_then(|stem| stem.to_str());
            let stem =
                stem.ok_or_else(|| CliError::usage_hint(format!("{text:?} names no disk"), "write NAME=PATH"))?;
            (stem.to_owned(), text)
        }
    };
    if path.is_empty() {
        return Err(CliError::usage(format!("{text:?} has no path")));
    }
    check_disk_name(&name).map_err(|error| CliError::usage_hint(error.to_string(), "write NAME=PATH"))?;
    Ok(NamedDisk {
        name,
        path: path.into(),
    })
}

/// Reads all disks of a command line; no two have one name.
///
/// # Errors
/// [`CliError::Usage`].
pub(crate) fn parse_disks(texts: &[String]) -> Result<Vec<NamedDisk>, CliError> {
    let mut disks: Vec<NamedDisk> = Vec::with_capacity(texts.len());
    for text in texts {
        let disk = parse_disk(text)?;
        if let Some(other) = disks.iter().find(|other| other.name == disk.name) {
            let (one, two) = (other.path.display(), disk.path.display());
            return Err(CliError::usage_hint(
                format!("{one} and {two} are both named {:?}", disk.name),
                "write NAME=PATH",
            ));
        }
        disks.push(disk);
    }
    Ok(disks)
}

/// The item's name: as given, else that of the first disk.
///
/// # Errors
/// [`CliError::Usage`] for what no item can be named.
pub(crate) fn item_name(given: Option<&str>, disks: &[NamedDisk]) -> Result<String, CliError> {
    let name = given
        .or(disks.first().map(|disk| disk.name.as_str()))
        .unwrap_or_default();
    check_item_name(name).map_err(|error| CliError::usage_hint(error.to_string(), "pass --item NAME"))?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn parse(texts: &[&str]) -> Result<Vec<(String, String)>, String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let disks = parse_disks(&texts).map_err(|error| error.to_string())?;
        Ok(disks
            .into_iter()
            .map(|disk| (disk.name, disk.path.display().to_string()))
            .collect())
    }

    #[test]
    fn a_disk_is_named_by_its_stem_or_as_told() {
        for (text, name, path) in [
            ("/vm/web-03.qcow2", "web-03", "/vm/web-03.qcow2"),
            ("vda=/vm/web-03.qcow2", "vda", "/vm/web-03.qcow2"),
            ("/vm/a=b.img", "a=b", "/vm/a=b.img"),
            ("x=/vm/a=b.img", "x", "/vm/a=b.img"),
            ("/dev/sda", "sda", "/dev/sda"),
            ("web.tar.img", "web.tar", "web.tar.img"),
            (".img", ".img", ".img"),
        ] {
            assert_eq!(parse(&[text]).unwrap(), [(name.to_owned(), path.to_owned())], "{text}");
        }
    }

    #[test]
    fn what_names_no_disk_or_two_of_one_name_is_refused() {
        for texts in [
            &["/"][..],
            &["vda="],
            &["=/vm/a.img"],
            &["a/x.img", "b/x.qcow2"],
            &["a\nb=/x"],
        ] {
            assert!(parse(texts).is_err(), "{texts:?}");
        }
    }

    #[test]
    fn the_item_is_named_after_the_first_disk() {
        let disks = parse_disks(&[String::from("/vm/web.img"), String::from("/vm/data.img")]).unwrap();
        assert_eq!(item_name(None, &disks).unwrap(), "web");
        assert_eq!(item_name(Some("shop"), &disks).unwrap(), "shop");
        assert!(item_name(Some(""), &disks).is_err());
    }
}
