//! What `tresor login` keeps of a cluster, in `HOME/clusters/NAME/`: `cluster.toml` (nothing secret), `ca.crt` and `token` (mode 0600, as the folder
//! is its owner's alone).
//!
//! `cluster.toml` is written last and removed first: a login that was cut off is none.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tresor_proto::token::{ApiToken, TokenError};
use tresor_storage::keys::create_secret;

use super::address::{Address, check_cluster_name, list, parse_addresses};
use super::error::ClusterError;
use crate::config::read_small;
use crate::error::CliError;

/// The folder in the home.
const FOLDER: &str = "clusters";
const FILE: &str = "cluster.toml";
const CA: &str = "ca.crt";
const TOKEN: &str = "token";

/// Takes the token out of the first line of what was typed or read.
///
/// # Errors
/// What is wrong with it, without it.
pub(crate) fn parse_token(text: &str) -> Result<ApiToken, TokenError> {
    text.lines().next().unwrap_or_default().parse()
}

/// A login.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// Under which name it is kept.
    pub(crate) name: String,
    /// The cluster's id, 32 hexadecimal digits.
    pub(crate) cluster: String,
    /// Where its coordinators listen.
    pub(crate) addresses: Vec<Address>,
    /// The certificate of its authority, PEM.
    pub(crate) ca: String,
    /// Who we are.
    pub(crate) token: ApiToken,
}

/// `cluster.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: String,
    addresses: String,
}

fn folder(home: &Path, name: &str) -> PathBuf {
    home.join(FOLDER).join(name)
}

fn damaged(path: &Path, why: impl Into<String>) -> CliError {
    CliError::from(ClusterError::Damaged {
        path: path.display().to_string(),
        why: why.into(),
    })
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { doing, path, source }
}

impl Kept {
    /// The names of all logins of a home, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn names(home: &Path) -> Result<Vec<String>, CliError> {
        let path = home.join(FOLDER);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("read", &path))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if check_cluster_name(&name).is_ok() && entry.path().join(FILE).is_file() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The login of that name; none if there is none.
    ///
    /// # Errors
    /// When it cannot be read, or others can read the token.
    pub(crate) fn load(home: &Path, name: &str) -> Result<Option<Self>, CliError> {
        let folder = folder(home, name);
        if !folder.join(FILE).is_file() {
            return Ok(None);
        }
        let text = read_small(&folder.join(FILE))?;
        let file: File = toml::from_str(&text).map_err(|error| damaged(&folder, error.message().to_owned()))?;
        let addresses = parse_addresses(&file.addresses).map_err(|why| damaged(&folder, why))?;
        let path = folder.join(TOKEN);
        let metadata = std::fs::metadata(&path).map_err(failed("read", &path))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(damaged(&folder, "can be used by others: its token is readable by them"));
        }
        let token = parse_token(&read_small(&path)?).map_err(|why| damaged(&folder, format!("is of no use: {why}")))?;
        Ok(Some(Self {
            name: name.to_owned(),
            cluster: file.cluster,
            addresses,
            ca: read_small(&folder.join(CA))?.to_string(),
            token,
        }))
    }

    /// The login of a cluster that has one of these addresses.
    ///
    /// # Errors
    /// When none has, more than one has, or it cannot be read.
    pub(crate) fn find(home: &Path, addresses: &[Address]) -> Result<Self, CliError> {
        let mut found: Vec<Self> = Vec::new();
        for name in Self::names(home)? {
            if let Some(kept) = Self::load(home, &name)?
                && kept.addresses.iter().any(|address| addresses.contains(address))
            {
                found.push(kept);
            }
        }
        match found.len() {
            0 => Err(CliError::from(ClusterError::NotKept {
                cluster: list(addresses),
            })),
            1 => Ok(found.remove(0)),
            _ => {
                let names: Vec<&str> = found.iter().map(|kept| kept.name.as_str()).collect();
                Err(CliError::usage_hint(
                    format!("{} is kept under several names: {}", list(addresses), names.join(", ")),
                    "name the one that is meant: --cluster NAME",
                ))
            }
        }
    }

    /// Keeps it, in place of what was kept under its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, home: &Path) -> Result<PathBuf, CliError> {
        let folder = folder(home, &self.name);
        let file = File {
            cluster: self.cluster.clone(),
            addresses: list(&self.addresses),
        };
        let text = toml::to_string(&file).expect("two texts are TOML");
        remove(&folder.join(FILE))?;
        replace(&folder.join(TOKEN), &self.token.reveal())?;
        replace(&folder.join(CA), &self.ca)?;
        replace(&folder.join(FILE), &text)?;
        Ok(folder)
    }

    /// Forgets the login of that name; says whether there was one.
    ///
    /// # Errors
    /// When a file of it cannot be removed.
    pub(crate) fn forget(home: &Path, name: &str) -> Result<bool, CliError> {
        let folder = folder(home, name);
        let there = folder.is_dir();
        for file in [FILE, TOKEN, CA] {
            remove(&folder.join(file))?;
        }
        match std::fs::remove_dir(&folder) {
            // What else lies in it is not ours.
            Err(error) if !there && error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &folder)(error)),
            Ok(()) => Ok(true),
        }
    }
}

/// Writes a file of this user alone, durably, in place of what has its name.
fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    // Left by a login that was cut off.
    remove(&beside)?;
    create_secret(&beside, text)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::rename(&beside, path)
        .and_then(|()| std::fs::File::open(folder)?.sync_all())
        .map_err(failed("write", path))
}

fn remove(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn kept(name: &str, addresses: &str) -> Kept {
        Kept {
            name: name.to_owned(),
            cluster: "ab".repeat(16),
            addresses: parse_addresses(addresses).unwrap(),
            ca: String::from("certificate\n"),
            token: ApiToken::random().unwrap(),
        }
    }

    fn parts(kept: &Kept) -> (String, String, String, String) {
        let Kept {
            name,
            cluster,
            addresses,
            ca,
            token,
        } = kept;
        (
            format!("{name} {cluster}"),
            list(addresses),
            ca.clone(),
            token.reveal().to_string(),
        )
    }

    #[test]
    fn a_login_is_kept_for_its_owner_alone_and_read_back() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let prod = kept("prod", "c1:7420,c2:7420");
        let folder = prod.save(home).unwrap();
        assert_eq!(parts(&Kept::load(home, "prod").unwrap().unwrap()), parts(&prod));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(TOKEN))), (0o700, 0o600));
        let file = std::fs::read_to_string(folder.join(FILE)).unwrap();
        assert!(!file.contains(prod.token.reveal().as_str()), "{file}");

        let moved = kept("prod", "c3:7420");
        moved.save(home).unwrap();
        assert_eq!(parts(&Kept::load(home, "prod").unwrap().unwrap()), parts(&moved));
        assert_eq!(Kept::names(home).unwrap(), ["prod"]);

        assert!(Kept::forget(home, "prod").unwrap());
        assert!(!Kept::forget(home, "prod").unwrap());
        assert!(Kept::load(home, "prod").unwrap().is_none());
        assert!(!folder.exists());
    }

    #[test]
    fn a_login_is_found_by_any_of_its_addresses_and_not_guessed() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        kept("prod", "c1:7420,c2:7420").save(home).unwrap();
        kept("test", "t1:7420,c2:7420").save(home).unwrap();
        let find = |text: &str| Kept::find(home, &parse_addresses(text).unwrap());
        assert_eq!(find("c9:7420,c1:7420").unwrap().name, "prod");
        assert_eq!(find("t1:7420").unwrap().name, "test");
        assert_eq!(find("c2:7420").unwrap_err().failure().code().number(), 2);
        assert_eq!(find("c9:7420").unwrap_err().failure().code().number(), 5);
    }

    #[test]
    fn a_token_that_others_can_read_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let folder = kept("prod", "c1:7420").save(home.path()).unwrap();
        std::fs::set_permissions(folder.join(TOKEN), std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Kept::load(home.path(), "prod").unwrap_err();
        assert!(error.chain().contains("readable by them"), "{}", error.chain());
    }
}
