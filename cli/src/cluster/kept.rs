//! What `tresor login` keeps of a cluster, in `HOME/clusters/NAME/`: `cluster.toml` (nothing secret), `ca.crt` and `token` (mode 0600, as the folder
//! is its owner's alone).
//!
//! `cluster.toml` is written last and removed first: a login that was cut off is none.
//!
//! Coordinators come and go; whom to trust stays. So the addresses are replaced by those that the cluster itself says ([`Kept::refresh`]), and neither the
//! authority nor the token ever is. The addresses that were typed at the login stay beside them: they may be names that lead elsewhere by now, and the
//! login is found by them.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
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
/// How long addresses are taken for new.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

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
    /// Where its coordinators listen, as far as is known.
    pub(crate) addresses: Vec<Address>,
    /// As they were typed at the login.
    pub(crate) given: Vec<Address>,
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
    /// What was typed, where it is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given: Option<String>,
}

/// Held while files of a login are written.
struct Writing(#[expect(dead_code, reason = "the lock ends with it")] std::fs::File);

impl Writing {
    fn begin(folder: &Path) -> Result<Self, CliError> {
        let lock = std::fs::File::open(folder).and_then(|file| file.lock().map(|()| file));
        lock.map(Self).map_err(failed("lock", folder))
    }
}

fn read_file(folder: &Path) -> Result<File, CliError> {
    let text = read_small(&folder.join(FILE))?;
    toml::from_str(&text).map_err(|error| damaged(folder, error.message().to_owned()))
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
        let file = read_file(&folder)?;
        let parse = |text: &str| parse_addresses(text).map_err(|why| damaged(&folder, why));
        let addresses = parse(&file.addresses)?;
        let given = file.given.as_deref().map_or_else(|| Ok(addresses.clone()), parse)?;
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
            given,
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
                && kept.tried().iter().any(|address| addresses.contains(address))
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
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(failed("make", &folder))?;
        let _writing = Writing::begin(&folder)?;
        let file = File {
            cluster: self.cluster.clone(),
            addresses: list(&self.addresses),
            given: (self.given != self.addresses).then(|| list(&self.given)),
        };
        let text = toml::to_string(&file).expect("texts are TOML");
        // For good, before there is a part of the new one: no crash may leave the addresses of one login with the token of another.
        remove(&folder.join(FILE))?;
        sync(&folder)?;
        replace(&folder.join(TOKEN), &self.token.reveal())?;
        replace(&folder.join(CA), &self.ca)?;
        replace(&folder.join(FILE), &text)?;
        Ok(folder)
    }

    /// Where it is tried to reach the cluster: what was typed comes last.
    pub(crate) fn tried(&self) -> Vec<Address> {
        let others = self.given.iter().filter(|address| !self.addresses.contains(address));
        self.addresses.iter().chain(others).cloned().collect()
    }

    /// Whether nobody has looked for a day where the coordinators are.
    pub(crate) fn is_old(&self, home: &Path, now: Timestamp) -> bool {
        let written = std::fs::metadata(folder(home, &self.name).join(FILE)).and_then(|data| data.modified());
        let written = written.ok().and_then(|time| Timestamp::try_from(time).ok());
        written.is_none_or(|written| now.duration_since(written).abs() > FRESH)
    }

    /// Keeps where the coordinators are now, as the cluster said. A login that is another one by now, or none, stays as it is.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn refresh(&self, home: &Path, now: &[Address]) -> Result<(), CliError> {
        let folder = folder(home, &self.name);
        let _writing = Writing::begin(&folder)?;
        let Some(kept) = Self::load(home, &self.name)? else {
            return Ok(());
        };
        if kept.cluster != self.cluster || now.is_empty() {
            return Ok(());
        }
        let file = File {
            cluster: kept.cluster,
            addresses: list(now),
            given: (kept.given != now).then(|| list(&kept.given)),
        };
        let text = toml::to_string(&file).expect("texts are TOML");
        replace(&folder.join(FILE), &text)
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
    std::fs::rename(&beside, path).map_err(failed("write", path))?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<(), CliError> {
    let synced = std::fs::File::open(folder).and_then(|file| file.sync_all());
    synced.map_err(failed("write", folder))
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
            given: parse_addresses(addresses).unwrap(),
            ca: String::from("certificate\n"),
            token: ApiToken::random().unwrap(),
        }
    }

    fn parts(kept: &Kept) -> (String, String, String, String) {
        let Kept {
            name,
            cluster,
            addresses,
            given,
            ca,
            token,
        } = kept;
        (
            format!("{name} {cluster}"),
            format!("{} {}", list(addresses), list(given)),
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
    fn a_login_is_whole_until_it_is_none() {
        let home = tempfile::tempdir().unwrap();
        let old = kept("prod", "c1:7420");
        let folder = old.save(home.path()).unwrap();
        let new = kept("prod", "evil:7420");
        std::thread::scope(|scope| {
            let writing = Writing::begin(&folder).unwrap();
            let saving = scope.spawn(|| new.save(home.path()).unwrap());
            // Longer than it takes to write a file, where it did not wait for its turn.
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert_eq!(parts(&Kept::load(home.path(), "prod").unwrap().unwrap()), parts(&old));
            drop(writing);
            saving.join().unwrap();
        });
        assert_eq!(parts(&Kept::load(home.path(), "prod").unwrap().unwrap()), parts(&new));

        // Cut off while its parts are written: a folder where the authority is to be written.
        std::fs::create_dir(folder.join(".ca.crt.new")).unwrap();
        old.save(home.path()).unwrap_err();
        assert!(Kept::load(home.path(), "prod").unwrap().is_none());
        assert!(Kept::names(home.path()).unwrap().is_empty());
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
    fn addresses_are_replaced_and_nothing_else_of_a_login() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let prod = kept("prod", "c1:7420");
        prod.save(home).unwrap();
        let now = |text: &str| parse_addresses(text).unwrap();
        prod.refresh(home, &now("c2:7420,c3:7420")).unwrap();
        let read = Kept::load(home, "prod").unwrap().unwrap();
        assert_eq!(
            (read.ca.as_str(), &*read.token.reveal()),
            (prod.ca.as_str(), &*prod.token.reveal())
        );
        assert_eq!(list(&read.addresses), "c2:7420,c3:7420");
        assert_eq!(
            list(&read.tried()),
            "c2:7420,c3:7420,c1:7420",
            "what was typed is tried, too"
        );
        assert_eq!(Kept::find(home, &now("c1:7420")).unwrap().name, "prod");
        assert_eq!(Kept::find(home, &now("c3:7420")).unwrap().name, "prod");
        // What was typed stays what was typed.
        read.refresh(home, &now("c4:7420")).unwrap();
        assert_eq!(
            list(&Kept::load(home, "prod").unwrap().unwrap().tried()),
            "c4:7420,c1:7420"
        );

        // A login in another cluster that took the name in between is not touched, nor is one that is gone made again.
        let other = Kept {
            cluster: "cd".repeat(16),
            ..kept("prod", "d1:7420")
        };
        other.save(home).unwrap();
        prod.refresh(home, &now("c5:7420")).unwrap();
        assert_eq!(list(&Kept::load(home, "prod").unwrap().unwrap().tried()), "d1:7420");
        std::fs::remove_file(folder(home, "prod").join(FILE)).unwrap();
        prod.refresh(home, &now("c5:7420")).unwrap();
        assert!(Kept::load(home, "prod").unwrap().is_none());
    }

    #[test]
    fn addresses_are_old_after_a_day() {
        let home = tempfile::tempdir().unwrap();
        let prod = kept("prod", "c1:7420");
        prod.save(home.path()).unwrap();
        let now = Timestamp::now();
        assert!(!prod.is_old(home.path(), now));
        assert!(prod.is_old(home.path(), now + SignedDuration::from_hours(25)));
        assert!(kept("gone", "c1:7420").is_old(home.path(), now));
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
