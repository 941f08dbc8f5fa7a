//! All processes are stopped with SIGTERM and started again, one after another, while backups go on: none fails.

use std::sync::atomic::{AtomicBool, Ordering};

use super::cluster::Cluster;
use super::program::until;

/// Machines that are backed up all the time.
const ITEMS: [&str; 2] = ["web", "db"];
/// Enough for some packs, so that stops come in the middle.
const DISK: usize = 40 << 20;

#[test]
fn a_rolling_restart_fails_no_backup() {
    let mut cluster = Cluster::start(3);
    cluster.add_worker("w1");
    cluster.add_worker("w2");
    cluster.make_vault();
    for (seed, item) in (1..).zip(ITEMS) {
        cluster.fill(item, seed, DISK);
    }
    let is_over = AtomicBool::new(false);
    let disks = ITEMS.map(|item| cluster.path(&format!("{item}.img")));
    let made: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = ITEMS
            .iter()
            .zip(&disks)
            .enumerate()
            .map(|(number, (item, disk))| {
                let (user, is_over) = (cluster.user(), &is_over);
                scope.spawn(move || {
                    let mut points = Vec::new();
                    let mut random = tresor_tests::random::Random::seeded(100 + number as u64);
                    while !is_over.load(Ordering::Relaxed) {
                        std::fs::write(disk, random.bytes(DISK)).unwrap();
                        let ran = user.run(&["backup", "--item", item], &[]);
                        assert_eq!(ran.code, 0, "{ran}");
                        points.push(ran.value()["point"].as_str().unwrap().to_owned());
                    }
                    points
                })
            })
            .collect();
        let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for name in cluster.coordinators() {
                let ended = cluster.terminate(&name);
                assert!(ended.success(), "{name}: {ended}");
                cluster.restart(&name);
                cluster.settle();
            }
            for name in cluster.workers() {
                let ended = cluster.terminate(&name);
                assert!(ended.success(), "{name}: {ended}");
                cluster.restart(&name);
                until(format!("{name} works again"), || cluster.works(&name).then_some(()));
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        let made = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        if let Err(panic) = restarted {
            std::panic::resume_unwind(panic);
        }
        made
    });
    assert!(made.len() >= ITEMS.len(), "{made:?}");
    let jobs = cluster.verb(&["job", "list"]);
    for job in jobs["jobs"].as_array().unwrap() {
        assert_eq!(job["state"], "done", "{job}");
    }
    let mut points: Vec<String> = cluster.points().into_iter().collect();
    let mut made = made;
    points.sort();
    made.sort();
    assert_eq!(points, made);
    for item in ITEMS {
        let bytes = std::fs::read(cluster.path(&format!("{item}.img"))).unwrap();
        cluster.assert_restores(item, "w2", &bytes);
    }
    cluster.assert_replicas_agree();
}
