//! The folder's own ways; what every store does is in the conformance suite.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::atomic::Ordering::Relaxed;

use futures::TryStreamExt;

use super::walk::LIST_BATCH;
use super::*;

fn open(folder: &tempfile::TempDir) -> FileBackend {
    FileBackend::open(folder.path(), false).unwrap()
}

fn staged(folder: &tempfile::TempDir) -> FileBackend {
    let backend = open(folder);
    backend.root.unnamed.store(false, Relaxed);
    backend
}

async fn names(backend: &FileBackend, prefix: &str) -> Vec<String> {
    let mut listed: Vec<_> = backend
        .list(prefix)
        .map_ok(|item| item.name)
        .try_collect()
        .await
        .unwrap();
    listed.sort();
    listed
}

#[tokio::test]
async fn a_file_system_without_unnamed_files_passes_the_suite_too() {
    let folder = tempfile::tempdir().unwrap();
    crate::backend::conformance::run(Arc::new(staged(&folder))).await;
    let staging = folder.path().join(STAGING);
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0, "staged files are left");
}

#[tokio::test]
async fn what_a_killed_process_staged_is_cleared_and_what_a_living_one_stages_is_not() {
    let folder = tempfile::tempdir().unwrap();
    staged(&folder).create("a", &[]).await.unwrap();
    let staging = folder.path().join(STAGING);
    std::fs::write(staging.join("dead"), "half an obj").unwrap();
    let living = File::create(staging.join("living")).unwrap();
    rustix::fs::flock(&living, FlockOperation::LockExclusive).unwrap();
    let backend = open(&folder);
    assert!(!staging.join("dead").exists());
    assert!(staging.join("living").exists());
    assert_eq!(names(&backend, "").await, ["a"], "staged files are no objects");
}

#[tokio::test]
async fn a_root_that_is_missing_is_made_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b/c");
    assert_eq!(
        FileBackend::open(&root, false).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
    FileBackend::open(&root, true).unwrap().create("x", &[]).await.unwrap();
    assert!(root.join("x").is_file());
}

#[tokio::test]
async fn a_root_that_was_removed_is_not_an_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let backend = FileBackend::open(&root, true).unwrap();
    std::fs::remove_dir(&root).unwrap();
    std::fs::create_dir(&root).unwrap();
    let refused = |result: Result<(), BackendError>| matches!(result, Err(BackendError::Refused { .. }));
    assert!(refused(backend.length("a").await.map(drop)));
    assert!(refused(backend.read("a/b", 1).await.map(drop)));
    assert!(refused(backend.create("a", &[]).await));
    assert!(refused(backend.create("a/b", &[]).await));
    assert!(refused(backend.delete("a").await));
    assert!(refused(backend.list("a/").try_collect::<Vec<_>>().await.map(drop)));
}

#[tokio::test]
async fn an_empty_folder_goes_with_its_last_object_and_comes_back_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder);
    backend.create("packs/00/w/1", &[]).await.unwrap();
    backend.create("packs/00/w/2", &[]).await.unwrap();
    backend.delete("packs/00/w/1").await.unwrap();
    assert!(folder.path().join("packs/00/w").is_dir());
    backend.delete("packs/00/w/2").await.unwrap();
    assert!(!folder.path().join("packs/00/w").exists());
    backend.create("packs/00/w/3", &[]).await.unwrap();
    assert_eq!(names(&backend, "packs/").await, ["packs/00/w/3"]);
}

#[tokio::test]
async fn puts_and_deletes_in_one_folder_do_not_trip_over_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder);
    let tasks = (0..8).map(|task| {
        let backend = backend.clone();
        tokio::spawn(async move {
            for i in 0..50 {
                let name = format!("a/b/{task}-{i}");
                backend.create(&name, &[]).await.unwrap();
                backend.delete(&name).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert!(names(&backend, "").await.is_empty());
}

#[tokio::test]
async fn things_that_are_no_files_are_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder);
    rustix::fs::mknodat(
        CWD,
        folder.path().join("pipe"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    assert!(matches!(
        backend.read("pipe", 9).await,
        Err(BackendError::Refused { .. })
    ));
    assert!(matches!(
        backend.read("folder", 9).await,
        Err(BackendError::NotFound { .. })
    ));
    assert!(matches!(
        backend.length("folder").await,
        Err(BackendError::NotFound { .. })
    ));
    assert!(backend.delete("folder").await.is_err());
    assert!(names(&backend, "").await.is_empty());
}

#[tokio::test]
async fn a_link_to_a_folder_above_ends_a_listing_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("..", folder.path().join("loop")).unwrap();
    let backend = FileBackend::open(
        &folder.path().join("loop/").join(folder.path().file_name().unwrap()),
        false,
    )
    .unwrap();
    std::fs::remove_file(folder.path().join("loop")).unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("a/again")).unwrap();
    let listed: Result<Vec<_>, _> = backend.list("a/").try_collect().await;
    assert!(matches!(listed, Err(BackendError::Refused { .. })), "{listed:?}");
}

#[tokio::test]
async fn a_listing_of_many_objects_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..3 * LIST_BATCH + 1 {
        std::fs::create_dir_all(folder.path().join(format!("p/{}", i % 7))).unwrap();
        std::fs::write(folder.path().join(format!("p/{}/{i}", i % 7)), "x").unwrap();
    }
    assert_eq!(names(&open(&folder), "p/").await.len(), 3 * LIST_BATCH + 1);
    assert_eq!(
        names(&open(&folder), "p/3/").await.len(),
        (3 * LIST_BATCH + 1).div_ceil(7)
    );
    drop(open(&folder).list("p/"));
    let backend = open(&folder);
    let mut begun = backend.list("p/");
    begun.next().await.unwrap().unwrap();
}

#[test]
fn errors_of_the_system_mean_what_helps() {
    use crate::error::Kind;
    for (errno, kind) in [
        (Errno::NOENT, Kind::Missing),
        (Errno::ACCESS, Kind::Denied),
        (Errno::PERM, Kind::Denied),
        (Errno::ROFS, Kind::Denied),
        (Errno::NOSPC, Kind::Full),
        (Errno::DQUOT, Kind::Full),
        (Errno::TIMEDOUT, Kind::Retry),
        (Errno::IO, Kind::Invalid),
    ] {
        assert_eq!(map_errno("put", "a", errno).kind(), kind, "{errno}");
    }
}
