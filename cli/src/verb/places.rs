//! Where a cluster finds disks: `HOST:PATH`. Pure.

use std::path::Path;

use tresor_proto::v1::AdminDisk;
use tresor_worker::source::DiskFormat;

use super::disks::{NamedDisk, parse_disks};
use crate::error::CliError;

/// Disks, and the host that all of them are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed<T> {
    /// None: nobody said.
    pub(crate) host: Option<String>,
    /// What is there.
    pub(crate) there: T,
}

/// Takes `HOST:PATH` apart. What is before the first `:` is a host if it can be one's name and a path follows; a URL is none.
pub(crate) fn parse_place(text: &str) -> Result<Placed<String>, CliError> {
    let placed = |host: Option<&str>, path: &str| Placed {
        host: host.map(str::to_owned),
        there: path.to_owned(),
    };
    let Some((host, path)) = text.split_once(':') else {
        return Ok(placed(None, text));
    };
    let is_host = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    if !is_host || path.starts_with("//") {
        return Ok(placed(None, text));
    }
    if !path.starts_with('/') {
        return Err(CliError::usage_hint(
            format!("{text:?}: a path on another host begins with a slash"),
            format!("write HOST:/PATH, or ./{text} for a file of that name"),
        ));
    }
    Ok(placed(Some(host), path))
}

/// Reads the disks of a command line, `[NAME=][HOST:]PATH`; all are on one host, which `--worker` may name instead.
///
/// # Errors
/// [`CliError::Usage`].
pub(crate) fn parse_placed_disks(texts: &[String], worker: Option<&str>) -> Result<Placed<Vec<NamedDisk>>, CliError> {
    let mut host = worker.map(str::to_owned);
    let mut plain = Vec::with_capacity(texts.len());
    for text in texts {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if !name.contains(['/', ':']) => (Some(name), place),
            _ => (None, text.as_str()),
        };
        let place = parse_place(place)?;
        match (&host, place.host) {
            (Some(one), Some(other)) if *one != other => {
                return Err(CliError::usage(format!(
                    "the disks of an item are on one host, and {one} and {other} are two"
                )));
            }
            (None, Some(other)) => host = Some(other),
            _ => {}
        }
        plain.push(match name {
            Some(name) => format!("{name}={}", place.there),
            // A path with a `=` in front of its first slash is no name of a disk here: what follows the host begins with a slash.
            None => place.there,
        });
    }
    Ok(Placed {
        host,
        there: parse_disks(&plain)?,
    })
}

/// Refuses a path that is another file on another host, or none.
///
/// # Errors
/// [`CliError::Usage`].
pub(crate) fn check_absolute(path: &Path) -> Result<(), CliError> {
    if path.is_absolute() || path.to_string_lossy().contains("://") {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "{}: a path on another host begins with a slash",
        path.display()
    )))
}

/// Disks as they travel.
///
/// # Errors
/// [`CliError::Usage`] for a path that is no text.
pub(crate) fn wire_disks(disks: &[NamedDisk], format: Option<DiskFormat>) -> Result<Vec<AdminDisk>, CliError> {
    let disk = |disk: &NamedDisk| {
        let path = disk.path.to_str().ok_or_else(|| {
            CliError::usage(format!(
                "{}: a cluster only knows paths that are UTF-8",
                disk.path.display()
            ))
        })?;
        Ok(AdminDisk {
            name: disk.name.clone(),
            path: path.to_owned(),
            format: format.map(DiskFormat::name).unwrap_or_default().to_owned(),
        })
    };
    disks.iter().map(disk).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_an_absolute_path_or_a_path() {
        for (text, host, path) in [
            ("kvm-7:/vm/web.qcow2", Some("kvm-7"), "/vm/web.qcow2"),
            ("kvm-7.x.org:/vm/a:b.img", Some("kvm-7.x.org"), "/vm/a:b.img"),
            ("/vm/a:b.img", None, "/vm/a:b.img"),
            ("./a:b.img", None, "./a:b.img"),
            ("nbd://kvm-7/web", None, "nbd://kvm-7/web"),
            ("web.img", None, "web.img"),
        ] {
            let place = parse_place(text).unwrap();
            assert_eq!((place.host.as_deref(), place.there.as_str()), (host, path), "{text}");
        }
        assert!(parse_place("kvm-7:web.img").is_err());
    }

    type Disks = Vec<(String, String)>;

    fn parse(texts: &[&str], worker: Option<&str>) -> Result<(Option<String>, Disks), String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let placed = parse_placed_disks(&texts, worker).map_err(|error| error.to_string())?;
        let disk = |disk: NamedDisk| (disk.name, disk.path.display().to_string());
        Ok((placed.host, placed.there.into_iter().map(disk).collect()))
    }

    #[test]
    fn disks_have_names_a_host_and_paths() {
        let (host, disks) = parse(&["kvm-7:/vm/web.qcow2", "data=kvm-7:/vm/d.img"], None).unwrap();
        assert_eq!(host.as_deref(), Some("kvm-7"));
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(disks, [pair("web", "/vm/web.qcow2"), pair("data", "/vm/d.img")]);
        let (host, disks) = parse(&["vda=/vm/a=b.img"], Some("kvm-1")).unwrap();
        assert_eq!(
            (host.as_deref(), &disks),
            (Some("kvm-1"), &vec![pair("vda", "/vm/a=b.img")])
        );
        assert_eq!(parse(&["/vm/web.img"], None).unwrap().0, None);
    }

    #[test]
    fn an_item_is_on_one_host() {
        let error = parse(&["kvm-7:/vm/a.img", "kvm-8:/vm/b.img"], None).unwrap_err();
        assert!(error.contains("kvm-7 and kvm-8"), "{error}");
        assert!(parse(&["kvm-7:/vm/a.img"], Some("kvm-8")).is_err());
        assert!(parse(&["kvm-7:/vm/a.img"], Some("kvm-7")).is_ok());
    }

    #[test]
    fn another_hosts_path_is_absolute() {
        assert!(check_absolute(Path::new("/vm/a.img")).is_ok());
        assert!(check_absolute(Path::new("nbd://kvm-7/web")).is_ok());
        assert!(check_absolute(Path::new("a.img")).is_err());
    }
}
