//! Room on the file systems that this worker writes to: looked at beside everything else, since a network file system that hangs answers nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use url::Url;

use super::page::{Page, float};

/// Room of one file system, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    free: u64,
    size: u64,
}

/// The newest looks.
#[derive(Debug, Default)]
pub(super) struct Disks {
    seen: Mutex<BTreeMap<String, Room>>,
}

/// The name under which the worker's own folder is shown; stores have their URLs.
const FOLDER: &str = "worker";

fn room(path: &Path) -> Option<Room> {
    let seen = rustix::fs::statvfs(path).ok()?;
    Some(Room {
        // What a user who is not root may still write.
        free: seen.f_bavail.saturating_mul(seen.f_frsize),
        size: seen.f_blocks.saturating_mul(seen.f_frsize),
    })
}

/// Of stores that are folders, where they are.
fn folder_of(url: &str) -> Option<PathBuf> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "file")?;
    url.to_file_path().ok()
}

impl Disks {
    /// Looks again. May wait for the disks.
    pub(super) fn look(&self, folder: &Path, stores: &[String]) {
        let stores = stores.iter().filter_map(|url| Some((url.clone(), folder_of(url)?)));
        let places = stores.chain([(FOLDER.to_owned(), folder.to_owned())]);
        let seen = places.filter_map(|(name, path)| Some((name, room(&path)?))).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    pub(super) fn show(&self, page: &Page) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = |of: fn(&Room) -> u64| {
            seen.iter()
                .map(move |(place, room)| ([place.as_str()], float(of(room))))
        };
        page.gauges(
            "tresor_worker_disk_free_bytes",
            "Room left for the worker (its folder, with the index), and for stores that are folders, by the store.",
            ["place"],
            rows(|room| room.free),
        );
        page.gauges(
            "tresor_worker_disk_size_bytes",
            "Size of these file systems.",
            ["place"],
            rows(|room| room.size),
        );
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn folders_are_looked_at_and_buckets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let here = Url::from_directory_path(folder.path()).unwrap().to_string();
        let disks = Disks::default();
        disks.look(
            folder.path(),
            &[
                here.clone(),
                String::from("s3://bucket/a"),
                String::from("file:///not/there/at/all"),
            ],
        );
        let seen = disks.seen.lock().unwrap();
        assert_eq!(
            seen.keys().map(String::as_str).collect::<Vec<_>>(),
            [here.as_str(), FOLDER]
        );
        assert!(seen.values().all(|room| room.size > 0 && room.free <= room.size));
    }
}
