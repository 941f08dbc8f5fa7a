//! The leader is killed with `kill -9` at every stage of a backup: the backup goes on, and ends in exactly one point.
//!
//! A stage is held by stopping whoever would end it, workers or coordinators, so that the leader dies in it however fast the machine is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::Cluster;
use super::program::{until, until_just_now};
use super::replicas::store;

/// More than two packs: the first is put while the rest is read.
const DISK: usize = 72 << 20;

/// A backup on its way.
struct Backup {
    item: &'static str,
    bytes: Vec<u8>,
    job: u64,
    points_before: BTreeSet<String>,
    packs_before: usize,
}

fn begin(cluster: &Cluster, item: &'static str, seed: u64, length: usize) -> Backup {
    let bytes = cluster.fill(item, seed, length);
    let points_before = cluster.points();
    let packs_before = cluster.packs();
    Backup {
        item,
        bytes,
        job: cluster.begin_backup(item),
        points_before,
        packs_before,
    }
}

impl Backup {
    /// Waits until a worker says that it has begun: sooner than any coordinator could say it.
    fn at_lease(&self, cluster: &Cluster) {
        let name = format!("job={} ", self.job);
        until_just_now("a worker has the lease", || {
            let mut workers = cluster.workers().into_iter();
            workers.any(|worker| cluster.log(&worker).contains(&name)).then_some(())
        });
    }

    /// Waits until it has put a pack.
    fn at_packs(&self, cluster: &Cluster) {
        until_just_now("a pack is put", || (cluster.packs() > self.packs_before).then_some(()));
    }

    fn assert_no_manifest(&self, cluster: &Cluster) {
        assert_eq!(cluster.manifests(), self.points_before, "the stage is over already");
    }

    /// Waits until it has put its manifest.
    fn at_manifest(&self, cluster: &Cluster) {
        until("the manifest is put", || {
            (cluster.manifests() != self.points_before).then_some(())
        });
    }

    /// What must be true in the end, whoever died on the way.
    fn ends_in_one_point(&self, cluster: &Cluster) {
        let done = cluster.job_is(self.job, "done");
        // A new leader gives every lease a full term: no work is lost.
        assert_eq!(done.attempts.len(), 1, "{:?}", done.attempts);
        let points = cluster.points();
        let new: Vec<&String> = points.difference(&self.points_before).collect();
        assert_eq!(new, [&done.point]);
        assert_eq!(
            cluster.manifests(),
            points,
            "the store has other points than the cluster"
        );
        cluster.assert_restores(self.item, "w1", &self.bytes);
    }
}

fn a_cluster() -> Cluster {
    let mut cluster = Cluster::start(3);
    cluster.add_worker("w1");
    cluster.add_worker("w2");
    cluster.make_vault();
    // A backup whose pack belongs to an owner that has not heard so asks the coordinators for the map before its manifest is put: rightly so, and
    // no stage of these.
    cluster.slots_are_whole();
    cluster
}

/// Kills the leader; another one leads when this returns.
fn kill_leader(cluster: &mut Cluster) -> String {
    let leader = cluster.leader();
    cluster.kill(&leader);
    leader
}

/// Has it again, with all that it missed.
fn bring_back(cluster: &mut Cluster, name: &str) {
    cluster.restart(name);
    cluster.settle();
}

#[test]
fn kill_of_the_leader_before_anything_is_reported_costs_no_attempt() {
    let mut cluster = a_cluster();

    // Queued: nobody may have it yet.
    for worker in ["w1", "w2"] {
        cluster.verb(&["worker", "drain", worker]);
    }
    let backup = begin(&cluster, "web", 1, DISK);
    assert_eq!(cluster.job(backup.job).state, "queued");
    let dead = kill_leader(&mut cluster);
    for worker in ["w1", "w2"] {
        cluster.verb(&["worker", "undrain", worker]);
    }
    backup.ends_in_one_point(&cluster);
    bring_back(&mut cluster, &dead);

    // Leased, and nothing is stored.
    let backup = begin(&cluster, "web", 2, DISK);
    backup.at_lease(&cluster);
    cluster.pause_workers();
    assert_eq!(cluster.packs(), backup.packs_before, "the stage is over already");
    let dead = kill_leader(&mut cluster);
    cluster.resume_workers();
    backup.ends_in_one_point(&cluster);
    bring_back(&mut cluster, &dead);

    // Packs are being put.
    let backup = begin(&cluster, "web", 3, DISK);
    backup.at_packs(&cluster);
    cluster.pause_workers();
    backup.assert_no_manifest(&cluster);
    let dead = kill_leader(&mut cluster);
    cluster.resume_workers();
    backup.ends_in_one_point(&cluster);
    bring_back(&mut cluster, &dead);

    cluster.assert_replicas_agree();
}

#[test]
fn kill_of_the_leader_around_the_report_of_a_backup_leaves_one_point() {
    let mut cluster = a_cluster();

    // The leader has the report in its log, and no other coordinator hears of it before it dies.
    let leader = cluster.leader();
    assert_eq!(
        leader, "c1",
        "the workers would report to another one, which hands it on"
    );
    let followers = cluster.coordinators_but(&leader);
    let followers: Vec<&str> = followers.iter().map(String::as_str).collect();
    let backup = begin(&cluster, "web", 1, DISK);
    backup.at_packs(&cluster);
    cluster.pause(&followers);
    let committed = cluster.numbers(&leader).unwrap().applied();
    cluster.pause(&[&leader]);
    backup.assert_no_manifest(&cluster);
    backup.at_manifest(&cluster);
    // The report follows in milliseconds, and waits in the leader's socket. The leader believes that it leads for a second more.
    std::thread::sleep(Duration::from_millis(500));
    cluster.resume(&leader);
    std::thread::sleep(Duration::from_millis(500));
    cluster.kill(&leader);
    let in_its_log = store(&cluster.path(&leader)).last_index();
    assert!(in_its_log > committed, "the report did not get into the log");
    for follower in &followers {
        cluster.resume(follower);
    }
    backup.ends_in_one_point(&cluster);
    bring_back(&mut cluster, &leader);

    // The manifest is put, and nobody was told.
    let backup = begin(&cluster, "web", 2, DISK);
    backup.at_packs(&cluster);
    let leader = cluster.leader();
    let names = cluster.coordinators();
    cluster.pause(&names.iter().map(String::as_str).collect::<Vec<_>>());
    backup.assert_no_manifest(&cluster);
    backup.at_manifest(&cluster);
    cluster.kill(&leader);
    for name in cluster.coordinators_but(&leader) {
        cluster.resume(&name);
    }
    backup.ends_in_one_point(&cluster);
    bring_back(&mut cluster, &leader);

    // It is done.
    let backup = begin(&cluster, "web", 3, DISK);
    cluster.job_is(backup.job, "done");
    let dead = kill_leader(&mut cluster);
    backup.ends_in_one_point(&cluster);
    bring_back(&mut cluster, &dead);

    cluster.assert_replicas_agree();
}
