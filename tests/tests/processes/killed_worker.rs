//! A worker is killed with `kill -9` in the middle of a backup: the job is tried again, and ends in exactly one point.

use super::cluster::Cluster;
use super::program::until_just_now;

/// More than four packs. Two at most are on their way at once: when the third is put, the first is in the index.
const DISK: usize = 136 << 20;
const PACKS: usize = 3;

/// Kills the worker that makes a backup once it has put some packs. Returns the job and the worker.
fn kill_in_the_middle(cluster: &mut Cluster, item: &str) -> (u64, String) {
    let packs = cluster.packs();
    let points = cluster.manifests();
    let job = cluster.begin_backup(item);
    until_just_now("packs are put", || (cluster.packs() >= packs + PACKS).then_some(()));
    cluster.pause_workers();
    assert_eq!(cluster.manifests(), points, "the stage is over already");
    let worker = cluster.job(job).attempts.last().unwrap().worker.clone();
    cluster.kill(&worker);
    cluster.resume_workers();
    (job, worker)
}

#[test]
fn kill_of_a_worker_in_the_middle_of_a_backup_has_it_made_again() {
    let mut cluster = Cluster::start(3);
    cluster.add_worker("w1");
    cluster.make_vault();

    // By itself, as soon as it is started again: its new life ends the lease of the one before.
    let bytes = cluster.fill("web", 1, DISK);
    let (job, worker) = kill_in_the_middle(&mut cluster, "web");
    let begin = std::time::Instant::now();
    cluster.restart(&worker);
    let done = cluster.job_is(job, "done");
    assert_eq!(done.attempts.len(), 2, "{:?}", done.attempts);
    assert!(
        begin.elapsed().as_secs() < 25,
        "the lease of a life that is over was waited for"
    );
    let counts = done.counts.unwrap();
    assert!(
        counts.bytes_new < bytes.len() as u64,
        "what the first attempt stored was stored again: {counts:?}"
    );
    assert_eq!(cluster.manifests(), cluster.points());
    assert_eq!(cluster.points().len(), 1);
    cluster.assert_restores("web", "w1", &bytes);

    // By another one, when the lease has run out.
    cluster.add_worker("w2");
    let bytes = cluster.fill("web", 2, DISK);
    let (job, worker) = kill_in_the_middle(&mut cluster, "web");
    let other = if worker == "w1" { "w2" } else { "w1" };
    let done = cluster.job_is(job, "done");
    assert_eq!(done.attempts.len(), 2, "{:?}", done.attempts);
    assert_eq!(done.attempts[1].worker, other);
    assert_eq!(cluster.manifests(), cluster.points());
    assert_eq!(cluster.points().len(), 2);
    cluster.assert_restores("web", other, &bytes);
    cluster.assert_replicas_agree();
}
