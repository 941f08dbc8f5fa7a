//! A large disk is read by several workers for one point, and by one alone when the others are not there after all.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tresor_storage::ids::{PartId, SessionId};
use tresor_storage::vault::names;
use tresor_tests::random::Random;

use super::cluster::Cluster;
use super::program::until_just_now;

const GIB: u64 = 1 << 30;
/// Five ranges: the two last are for others.
const DISK: u64 = 5 * GIB;
/// Written at the beginning of each GiB.
const WRITTEN: usize = 3 << 20;

/// Writes into each GiB of a sparse disk.
fn write(path: &Path, seed: u64) {
    let disk = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    disk.set_len(DISK).unwrap();
    let mut random = Random::seeded(seed);
    for at in (0..DISK).step_by(usize::try_from(GIB).unwrap()) {
        disk.write_all_at(&random.bytes(WRITTEN), at + 12_288).unwrap();
    }
}

fn assert_same(a: &Path, b: &Path) {
    let (mut a, mut b) = (File::open(a).unwrap(), File::open(b).unwrap());
    assert_eq!(a.metadata().unwrap().len(), b.metadata().unwrap().len());
    let (mut left, mut right) = (vec![0; 8 << 20], vec![0; 8 << 20]);
    for at in (0..DISK).step_by(left.len()) {
        a.read_exact(&mut left).unwrap();
        b.read_exact(&mut right).unwrap();
        assert!(left == right, "the disk is restored otherwise at {at}");
    }
}

/// Who stored packs, by session.
fn writers(cluster: &Cluster) -> BTreeSet<(SessionId, PartId)> {
    fn names_below(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => names_below(&entry.path(), found),
                false => found.push(entry.path()),
            }
        }
    }
    let store = cluster.path("store");
    let mut found = Vec::new();
    names_below(&store.join("packs"), &mut found);
    found
        .iter()
        .filter_map(|path| names::parse_pack(path.strip_prefix(&store).unwrap().to_str().unwrap()))
        .map(|pack| (pack.writer.session, pack.writer.part))
        .collect()
}

#[test]
fn a_large_disk_is_read_by_several_workers_for_one_point() {
    let mut cluster = Cluster::start(1);
    for name in ["w1", "w2", "w3"] {
        cluster.add_worker(name);
    }
    cluster.make_vault();
    // A worker that has not heard of the shares yet keeps an index of its own, and has nobody help.
    cluster.slots_are_whole();
    let disk = cluster.path("big.img");
    write(&disk, 1);
    let argument = format!("vda={}", disk.display());
    cluster.verb(&["item", "protect", "big", &argument, "--worker-label", "any=yes"]);

    let job = cluster.begin_backup("big");
    let done = cluster.job_is(job, "done");
    let by = writers(&cluster);
    let sessions: BTreeSet<SessionId> = by.iter().map(|(session, _)| *session).collect();
    assert_eq!(sessions.len(), 1, "one backup has one session: {by:?}");
    assert_eq!(by.len(), 3, "each worker stored packs of its own: {by:?}");
    let counts = done.counts.unwrap();
    assert_eq!(counts.bytes_logical, DISK);
    assert!(
        counts.bytes_new >= 5 * WRITTEN as u64,
        "all of them are counted: {counts:?}"
    );
    let restored = cluster.path("restored.img");
    let target = format!("w2:{}", restored.display());
    cluster.verb(&["restore", "big", "--to", &target]);
    assert_same(&disk, &restored);

    // When the others die, their ranges are read by the worker that has the lease.
    write(&disk, 2);
    let job = cluster.begin_backup("big");
    let standing = until_just_now("a worker has the job", || {
        let attempts = cluster.job(job).attempts;
        attempts.last().map(|attempt| attempt.worker.clone())
    });
    let others: Vec<String> = cluster.workers().into_iter().filter(|name| *name != standing).collect();
    for other in &others {
        cluster.kill(other);
    }
    let done = cluster.job_is(job, "done");
    assert_eq!(done.attempts.len(), 1, "{:?}", done.attempts);
    let log = cluster.log(&standing);
    assert!(log.contains("range was not read by another worker"), "{log}");
    std::fs::remove_file(&restored).unwrap();
    let target = format!("{standing}:{}", restored.display());
    cluster.verb(&["restore", "big", "--to", &target]);
    assert_same(&disk, &restored);
    cluster.assert_replicas_agree();
}
