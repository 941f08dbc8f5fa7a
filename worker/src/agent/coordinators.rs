//! Where the coordinators of a cluster are: what `cluster.json` keeps of it, and how it stays true.
//!
//! Coordinators come and go while a worker works. Every answer to a registration and to a beat says where all of them are; what is new is used at once
//! and kept, so that a worker that is started again after all that it once joined through are gone finds those that took their places.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use tresor_proto::tls::Connector;

use super::client::Channels;
use crate::control::ControlError;
use crate::home::files;

/// The file in a worker's folder.
const FILE: &str = "cluster.json";
const VERSION: u32 = 1;
/// As many addresses as a connector takes.
const ADDRESSES_MAX: usize = 32;

/// `cluster.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredCluster {
    version: u32,
    /// The cluster's name.
    pub(super) name: String,
    /// Where its coordinators are.
    pub(super) coordinators: Vec<String>,
}

impl StoredCluster {
    pub(super) fn new(name: &str, coordinators: Vec<String>) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            coordinators,
        }
    }

    /// Reads it from beside an identity.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub(super) fn load(folder: &Path) -> Result<Self, ControlError> {
        let path = folder.join(FILE);
        let text = files::read(&path)?.ok_or_else(|| files::damaged(&path, "missing beside the worker's identity"))?;
        let stored: Self = serde_json::from_str(&text).map_err(|error| files::damaged(&path, error.to_string()))?;
        if stored.version != VERSION {
            let why = format!("version {} is not known to this version", stored.version);
            return Err(files::damaged(&path, why));
        }
        Ok(stored)
    }

    /// Keeps it durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn save(&self, folder: &Path) -> Result<(), ControlError> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| files::trouble("could not write", &path, std::io::Error::other(error)))?;
        files::replace(&path, text.as_bytes())
    }
}

/// The coordinators of a worker's cluster, of which it hears in what they answer.
#[derive(Debug, Clone)]
pub struct Coordinators {
    connector: Connector,
    kept: Arc<Kept>,
}

#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    name: String,
    /// What the operator said when the worker was started: stays beside what the cluster says, since it may be the only way from here.
    given: Vec<String>,
    /// What was heard last and is in the file; nothing of it where that is not known.
    heard: Mutex<Vec<String>>,
    /// Held while the file is written: what is written last is what was heard last.
    writing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Coordinators {
    pub(super) fn new(connector: Connector, folder: &Path, name: &str, heard: Vec<String>, given: Vec<String>) -> Self {
        let kept = Kept {
            folder: folder.to_owned(),
            name: name.to_owned(),
            given,
            heard: Mutex::new(heard),
            writing: Mutex::new(()),
        };
        Self {
            connector,
            kept: Arc::new(kept),
        }
    }
}

impl Kept {
    /// What is heard, then what was given; the one that answers now before all others.
    fn all(&self, heard: &[String], connected: Option<&str>) -> Vec<String> {
        let first = connected.filter(|address| heard.iter().chain(&self.given).any(|other| other == address));
        let mut all: Vec<String> = first.map(str::to_owned).into_iter().collect();
        for address in heard.iter().chain(&self.given) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all.truncate(ADDRESSES_MAX);
        all
    }

    fn write(&self) {
        let _turn = lock(&self.writing);
        let heard = lock(&self.heard).clone();
        // An earlier writing failed in between, or wrote it.
        if heard.is_empty() {
            return;
        }
        if let Err(error) = StoredCluster::new(&self.name, heard).save(&self.folder) {
            tracing::warn!(
                error = super::failure::chain(&error),
                "could not keep where the coordinators are"
            );
            // The next answer tries again.
            lock(&self.heard).clear();
        }
    }
}

impl Channels for Coordinators {
    fn channel(&self) -> Channel {
        self.connector.channel()
    }

    fn skip(&self) {
        self.connector.skip();
    }

    fn learn(&self, coordinators: &[String]) {
        // An older coordinator says nothing.
        if coordinators.is_empty() {
            return;
        }
        let mut heard = lock(&self.kept.heard);
        if *heard == coordinators {
            return;
        }
        let all = self.kept.all(coordinators, self.connector.connected_to().as_deref());
        if let Err(error) = self.connector.set_addresses(all) {
            tracing::warn!(
                error = super::failure::chain(&error),
                "addresses of coordinators that cannot be used are not taken"
            );
            return;
        }
        *heard = coordinators.to_vec();
        drop(heard);
        tracing::info!(?coordinators, "coordinators are where the cluster says now");
        let kept = Arc::clone(&self.kept);
        // It waits for the disk. A worker that is stopped before that hears it again.
        drop(tokio::task::spawn_blocking(move || kept.write()));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_was_given_stays_behind_what_is_heard_and_who_answers_comes_first() {
        let kept = Kept {
            folder: PathBuf::new(),
            name: String::new(),
            given: texts(&["nat:1", "b:1"]),
            heard: Mutex::default(),
            writing: Mutex::default(),
        };
        let heard = texts(&["a:1", "b:1", "c:1"]);
        assert_eq!(kept.all(&heard, Some("c:1")), texts(&["c:1", "a:1", "b:1", "nat:1"]));
        assert_eq!(kept.all(&heard, Some("gone:1")), texts(&["a:1", "b:1", "c:1", "nat:1"]));
        let many: Vec<String> = (0..ADDRESSES_MAX + 1).map(|number| format!("h{number}:1")).collect();
        assert_eq!(kept.all(&many, None).len(), ADDRESSES_MAX);
    }

    #[test]
    fn what_is_kept_comes_back_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(StoredCluster::load(folder.path()).is_err());
        let stored = StoredCluster::new("prod", texts(&["a:1", "b:1"]));
        stored.save(folder.path()).unwrap();
        let read = StoredCluster::load(folder.path()).unwrap();
        assert_eq!((read.name, read.coordinators), (stored.name, stored.coordinators));
        std::fs::write(
            folder.path().join(FILE),
            "{\"version\":2,\"name\":\"x\",\"coordinators\":[]}",
        )
        .unwrap();
        assert!(StoredCluster::load(folder.path()).is_err());
    }
}
