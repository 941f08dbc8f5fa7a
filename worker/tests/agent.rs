//! Agents at work for a coordinator: leases taken, lost, repeated and given back, on real stores.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cluster;

use std::path::Path;
use std::time::Duration;

use tresor_storage::Kind;
use tresor_storage::ids::{ItemId, VaultId};
use tresor_storage::keys::{Key, KeyFile};
use tresor_storage::limits::SEGMENT;
use tresor_storage::manifest::Consistency;
use tresor_worker::agent::port::{LeaseVault, Work};
use tresor_worker::agent::{self, AgentConfig, AgentError, FailureKind};
use tresor_worker::backup::{self, BackupDisk, BackupRequest, Changes, Effort, Steering};
use tresor_worker::home::{
    CreateOptions, Home, HomeKeys, MAIN, StoreConfigs, WritableVault, create_vault, open_for_writing,
};
use tresor_worker::source::{self, SourceSpec};

use cluster::coordinator::{Terms, Trouble};
use cluster::{Cluster, noise, until};

const ITEM: ItemId = ItemId([5; 16]);
const SIZE: usize = 3 * SEGMENT as usize + 5000;

/// Leases so short that a test can wait for their end.
const SHORT: Terms = Terms {
    lease: Duration::from_millis(1500),
    beat: Duration::from_millis(100),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_is_made_written_proved_catalogued_and_restored_by_leases_alone() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let claimed = cluster.fake.claimed().unwrap();
    assert_eq!((claimed.claim.number, claimed.points_unreadable), (1, 0));
    assert_eq!(
        cluster.open().await.id,
        cluster.fake.vault().id,
        "the id is the cluster's"
    );

    let disk = cluster.disk("web.img", 1, SIZE);
    let first = cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    let mut changed = noise(1, SIZE);
    changed[5000..9000].fill(7);
    std::fs::write(&disk, &changed).unwrap();
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    cluster.fake.done(job).await;
    let second = cluster.fake.point_of(job).unwrap();
    let counts = cluster.fake.job(job).counts;
    assert_eq!((counts.bytes_logical, counts.bytes_read), (SIZE as u64, SIZE as u64));
    assert!(
        counts.bytes_new > 0 && counts.bytes_new < 300_000,
        "only what changed is new: {counts:?}"
    );
    assert!(counts.bytes_stored > counts.bytes_new / 2, "{counts:?}");

    for level in ["names", "checks", "contents", "recipes", "all"] {
        let job = cluster.fake.enqueue(Cluster::verify(level));
        cluster.fake.done(job).await;
        let findings = cluster.fake.job(job).findings.unwrap();
        assert_eq!((findings.count, findings.what.as_slice()), (0, &[][..]), "{level}");
    }

    // What the catalogue says is what a reader without the cluster sees.
    cluster.fake.hide(first, "2026-05-01T00:00:00Z");
    cluster.fake.set_catalogue_state(b"rows of the cluster");
    cluster.run(Work::Catalogue { index: 900 }).await;
    let points = cluster.points().await;
    let removed: Vec<_> = points
        .points
        .iter()
        .map(|point| (point.manifest.point, point.removed_at.clone()))
        .collect();
    assert_eq!(removed.len(), 2);
    assert!(removed.contains(&(second, None)));
    assert!(removed.contains(&(first, Some(String::from("2026-05-01T00:00:00Z")))));

    for (point, bytes, name) in [(first, noise(1, SIZE), "first"), (second, changed, "second")] {
        let to = cluster.path(name);
        let job = cluster.fake.enqueue(cluster.restore(point, &to));
        cluster.fake.done(job).await;
        assert!(std::fs::read(&to).unwrap() == bytes, "{name}");
        assert_eq!(cluster.fake.job(job).counts.bytes_logical, SIZE as u64);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_making_that_is_repeated_gives_the_claim_that_is_there() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let first = cluster.fake.claimed().unwrap();
    // As after an attempt that ended between the last put and its report.
    cluster.fake.change_vault(|vault| {
        vault.claim = None;
        vault.header = None;
    });
    cluster.run(Work::Claim { make: true }).await;
    assert_eq!(cluster.fake.claimed().unwrap(), first);
    assert_eq!((cluster.names("cluster").len(), cluster.names("keys").len()), (1, 1));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_making_that_broke_off_before_its_last_put_is_made_by_the_next_attempt() {
    let cluster = Cluster::new();
    // The header is what makes it a vault: everything before is there.
    cluster.gate.hold("put", "vault.pb");
    let worker = cluster.start("worker");
    let job = cluster.fake.enqueue(Work::Claim { make: true });
    until("the header is about to be put", || cluster.gate.is_reached()).await;
    worker.kill().await;
    cluster.gate.open();
    cluster.fake.expire(job, true);
    let worker = cluster.start("worker");
    cluster.fake.done(job).await;
    let claimed = cluster.fake.claimed().unwrap();
    assert_eq!(claimed.claim.number, 2, "above what the first attempt left");
    assert_eq!(cluster.names("keys").len(), 1, "its keys are gone");
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_backup_ends_at_once_and_leaves_no_point() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "packs/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("a pack is put", || cluster.gate.is_reached()).await;
    until("its stage is said", || cluster.fake.stage(job) == Some("reading")).await;
    cluster.fake.cancel(job);
    assert_eq!(cluster.fake.failed(job).await.kind, FailureKind::Cancelled);
    cluster.gate.open();
    assert_eq!(cluster.names("points"), [""; 0]);
    // The permit is free, and the vault as usable as before.
    cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_on_without_a_coordinator_and_counts_when_its_lease_still_stands() {
    let (cluster, worker) = Cluster::with_vault(SHORT).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "packs/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("a pack is put", || cluster.gate.is_reached()).await;
    cluster.fake.go_away();
    tokio::time::sleep(SHORT.lease * 2).await;
    cluster.gate.open();
    until("the backup is at its end", || cluster.fake.calls("complete") > 1).await;
    assert_eq!(
        cluster.names("points").len(),
        1,
        "what it made is there, and counts for nobody yet"
    );
    assert_eq!(cluster.fake.points_count(), 0);
    // A new leader gives every lease a full term.
    cluster.fake.come_back();
    cluster.fake.done(job).await;
    assert_eq!(cluster.fake.job(job).attempts, 1);
    assert_eq!(cluster.names("points").len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_lost_its_lease_goes_on_and_its_commit_is_refused_and_leaves_nothing() {
    let (cluster, worker) = Cluster::with_vault(SHORT).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    // Between the manifest and the question whether it counts.
    cluster.gate.hold("put", "points/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("the manifest is about to be put", || cluster.gate.is_reached()).await;
    cluster.fake.go_away();
    tokio::time::sleep(SHORT.lease * 2).await;
    cluster.fake.expire(job, false);
    // The first beat that is heard says that the lease is over; the commit is on its way before that.
    cluster.gate.open();
    until("the commit is asked for", || cluster.fake.calls("complete") > 1).await;
    cluster.fake.come_back();
    until("the manifest is gone", || cluster.names("points").is_empty()).await;
    assert_eq!(cluster.fake.points_count(), 0);
    assert!(cluster.points().await.points.is_empty());
    assert!(
        cluster.fake.calls("points") > 0,
        "what was not answered is looked up in the log before anything is deleted"
    );

    // What it stored is garbage that the next attempt uses.
    cluster.fake.retry(job);
    cluster.fake.done(job).await;
    let counts = cluster.fake.job(job).counts;
    assert_eq!((counts.bytes_read, counts.bytes_new), (SIZE as u64, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_refused_at_once_leaves_nothing_and_is_reported() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "points/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("the manifest is about to be put", || cluster.gate.is_reached()).await;
    // Damage that the attempt has not looked at.
    cluster.fake.note_findings();
    cluster.gate.open();
    let failure = cluster.fake.failed(job).await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Fenced), "{failure}");
    assert_eq!((cluster.names("points"), cluster.fake.calls("points")), (vec![], 0));
    cluster.fake.retry(job);
    cluster.fake.done(job).await;
    assert_eq!(cluster.names("points").len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_stopped_when_a_beat_says_that_its_lease_is_over() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "packs/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("a pack is put", || cluster.gate.is_reached()).await;
    cluster.fake.expire(job, false);
    until("nobody works on it any more", || !cluster.gate.is_reached()).await;
    let failed = cluster.fake.calls("fail");
    assert_eq!(
        (failed, cluster.fake.job(job).failures.len()),
        (0, 0),
        "there is nobody to tell"
    );
    cluster.gate.open();
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_stops_when_its_lease_is_over_by_the_workers_own_clock() {
    let (cluster, worker) = Cluster::with_vault(SHORT).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let point = cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    let to = cluster.path("back.img");
    cluster.gate.hold("read", "packs/");
    let job = cluster.fake.enqueue(cluster.restore(point, &to));
    until("a pack is read", || cluster.gate.is_reached()).await;
    until("its stage is said", || cluster.fake.stage(job) == Some("writing")).await;
    let begin = std::time::Instant::now();
    cluster.fake.go_away();
    until("the restore has stopped", || !cluster.gate.is_reached()).await;
    assert!(
        begin.elapsed() < SHORT.lease,
        "before the lease was over for the coordinator"
    );
    let left: Vec<_> = std::fs::read_dir(cluster.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("back.img"))
        .collect();
    assert_eq!(left, [""; 0], "nothing of it is left");

    cluster.gate.open();
    cluster.fake.come_back();
    let failure = cluster.fake.failed(job).await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Retry), "{failure}");
    cluster.fake.done(job).await;
    assert!(std::fs::read(&to).unwrap() == noise(1, SIZE));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_whose_answer_was_lost_is_repeated_and_counts_once() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.fake.trouble("complete", Trouble::AnswerLost);
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    cluster.fake.done(job).await;
    // One of the claim, two of the backup.
    until("it is repeated", || cluster.fake.calls("complete") == 3).await;
    let point = cluster.fake.point_of(job).unwrap();
    worker.stop().await;
    assert_eq!(cluster.names("points").len(), 1);
    assert_eq!(cluster.points().await.points[0].manifest.point, point);
    assert_eq!(cluster.fake.calls("fail"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_point_stays_even_if_nobody_remembers_having_acknowledged_it() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.fake.forget_answers();
    cluster.fake.trouble("complete", Trouble::AnswerLost);
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    cluster.fake.done(job).await;
    until("the log is asked", || cluster.fake.calls("points") == 1).await;
    let next = cluster.run(cluster.backup(ItemId([6; 16]), &disk)).await.unwrap();
    worker.stop().await;
    let points = cluster.points().await;
    let there: Vec<_> = points.points.iter().map(|point| point.manifest.point).collect();
    assert!(
        there.contains(&cluster.fake.point_of(job).unwrap()) && there.contains(&next),
        "{there:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_after_an_unclear_answer_stays_when_the_log_cannot_be_asked() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.fake.forget_answers();
    cluster.fake.trouble("complete", Trouble::AnswerLost);
    for _ in 0..20 {
        cluster.fake.trouble("points", Trouble::Lost);
    }
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    cluster.fake.done(job).await;
    until("the log is asked", || cluster.fake.calls("points") >= 1).await;
    worker.stop().await;
    assert_eq!(
        cluster.names("points").len(),
        1,
        "it counts, though its worker never heard of that"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_life_of_the_worker_ends_what_the_first_one_had() {
    let (cluster, first) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "packs/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("a pack is put", || cluster.gate.is_reached()).await;
    // A copy of the machine: the same identity, another folder.
    let second = cluster.start_with("worker", |config| config.folder.push("copy"));
    until("the first process has registered again", || {
        cluster.fake.lives("worker") >= 3
    })
    .await;
    first.stop().await;
    cluster.gate.open();
    cluster.fake.done(job).await;
    assert_eq!(cluster.fake.points_count(), 1);
    assert_eq!(cluster.names("points").len(), 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_killed_is_followed_by_one_that_works_on() {
    let (cluster, first) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "points/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("the manifest is about to be put", || cluster.gate.is_reached()).await;
    first.kill().await;
    cluster.gate.open();
    // Its registration ends the leases of the first; its index is the first one's.
    let second = cluster.start("worker");
    cluster.fake.done(job).await;
    let counts = cluster.fake.job(job).counts;
    assert_eq!(
        (counts.bytes_read, counts.bytes_new),
        (SIZE as u64, 0),
        "its packs were indexed"
    );
    assert_eq!(cluster.names("points").len(), 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_gives_its_jobs_back_at_once() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "packs/");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("a pack is put", || cluster.gate.is_reached()).await;
    worker.stop().await;
    let failure = cluster.fake.failed(job).await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Retry));
    assert!(failure.message.contains("stopping"), "{failure}");
    cluster.gate.open();
    let other = cluster.start("other");
    cluster.fake.done(job).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_given_time_finishes_what_runs_and_begins_nothing() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    worker.stop().await;
    let worker = cluster.start_with("worker", |config| config.finish_time = cluster::PATIENCE);
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.gate.hold("put", "packs/");
    let running = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    until("a pack is put", || cluster.gate.is_reached()).await;
    let gate = cluster.gate.clone();
    let open = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.open();
    });
    let stopping = tokio::spawn(worker.stop());
    // The call that waits for work may still bring some: that goes back.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let late = cluster.fake.enqueue(cluster.backup(ItemId([6; 16]), &disk));
    stopping.await.unwrap();
    open.await.unwrap();
    assert!(cluster.fake.job(running).done.is_some());
    let late = cluster.fake.job(late);
    assert!(late.done.is_none() && late.waits, "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_attempts_at_one_job_never_work_at_once_in_one_worker() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let point = cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    let to = cluster.path("back.img");
    std::fs::write(&to, vec![1; SIZE]).unwrap();
    let Work::Restore(mut work) = cluster.restore(point, &to) else {
        unreachable!()
    };
    work.in_place = true;
    // Each attempt reads its manifest once.
    cluster.gate.hold("read", "points/");
    let job = cluster.fake.enqueue(Work::Restore(work));
    until("the manifest is read", || cluster.gate.is_reached()).await;
    // The coordinator gives the job anew, to the same worker, which has a permit left and hears of it before any beat says that the first is over.
    cluster.fake.lose_beats();
    cluster.fake.expire(job, true);
    until("the second attempt begins", || cluster.fake.job(job).attempts == 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        cluster.gate.most_waited(),
        1,
        "the first was stopped before the second began"
    );
    cluster.gate.open();
    cluster.fake.done(job).await;
    assert!(std::fs::read(&to).unwrap() == noise(1, SIZE));
    assert_eq!(cluster.fake.job(job).attempts, 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_a_vault_each_with_an_index_of_its_own() {
    let (cluster, first) = Cluster::with_vault(Terms::default()).await;
    let second = cluster.start("second");
    let disk = cluster.disk("web.img", 1, SIZE);
    let other = cluster.disk("db.img", 2, SIZE);
    let mut jobs = Vec::new();
    for (number, disk) in [&disk, &other, &disk, &other, &disk, &other].into_iter().enumerate() {
        let item = ItemId([number as u8; 16]);
        jobs.push((cluster.fake.enqueue(cluster.backup(item, disk)), disk));
    }
    for (job, _) in &jobs {
        cluster.fake.done(*job).await;
    }
    first.stop().await;
    // A third finds an index of nobody's, and makes one of what all of them put.
    let third = cluster.start("third");
    for (job, disk) in &jobs {
        let point = cluster.fake.point_of(*job).unwrap();
        let to = cluster.path(&format!("back-{job}"));
        cluster.run(cluster.restore(point, &to)).await;
        assert!(std::fs::read(&to).unwrap() == std::fs::read(disk).unwrap());
    }
    second.stop().await;
    let job = cluster.fake.enqueue(cluster.backup(ItemId([9; 16]), &disk));
    cluster.fake.done(job).await;
    assert_eq!(cluster.fake.job(job).counts.bytes_new, 0, "what others stored is known");
    let job = cluster.fake.enqueue(Cluster::verify("all"));
    cluster.fake.done(job).await;
    assert_eq!(cluster.fake.job(job).findings.unwrap().what, [""; 0]);
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_is_gone_costs_a_full_read_and_is_reported() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let parent = cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    let work = cluster.backup(ITEM, &disk);
    for name in cluster.names("points") {
        std::fs::write(name, "another").unwrap();
    }
    let job = cluster.fake.enqueue(work);
    cluster.fake.done(job).await;
    let row = cluster.fake.job(job);
    assert_eq!(row.harmed, [parent]);
    assert_eq!(
        (row.counts.bytes_read, row.counts.bytes_new),
        (SIZE as u64, 0),
        "its chunks are known all the same"
    );
    let point = cluster.fake.point_of(job).unwrap();
    let to = cluster.path("back.img");
    cluster.run(cluster.restore(point, &to)).await;
    assert!(std::fs::read(&to).unwrap() == noise(1, SIZE));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_verify_finds_is_reported_and_the_next_backup_heals_it() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let point = cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    let pack = cluster.names("packs").remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&pack, bytes).unwrap();

    let job = cluster.fake.enqueue(Cluster::verify("contents"));
    cluster.fake.done(job).await;
    let findings = cluster.fake.job(job).findings.unwrap();
    assert_eq!(findings.harmed, [point]);
    assert!(
        findings.count == 1 && findings.what[0].contains("packs/"),
        "{findings:?}"
    );

    let to = cluster.path("back.img");
    let job = cluster.fake.enqueue(cluster.restore(point, &to));
    let failure = cluster.fake.failed(job).await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Corrupt), "{failure}");
    assert!(
        failure.message.contains("disk vda") && failure.hint.contains("verify main"),
        "{failure:?}"
    );
    assert!(!to.exists(), "what is not whole does not appear");

    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    cluster.fake.done(job).await;
    assert!(
        cluster.fake.job(job).counts.bytes_new > 0,
        "what was lost is stored again"
    );
    let healed = cluster.fake.point_of(job).unwrap();
    cluster.run(cluster.restore(healed, &to)).await;
    assert!(std::fs::read(&to).unwrap() == noise(1, SIZE));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_was_replaced_is_restored_by_nobody() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let point = cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    let Work::Restore(mut work) = cluster.restore(point, &cluster.path("back.img")) else {
        unreachable!()
    };
    work.manifest = [3; 32];
    let failure = cluster.fake.failed(cluster.fake.enqueue(Work::Restore(work))).await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Corrupt), "{failure}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_is_not_what_the_lease_says_is_not_touched() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let right = cluster.fake.vault();
    let before = cluster.names("");
    type Change = fn(&mut LeaseVault);
    let changes: [(Kind, Change); 6] = [
        (Kind::Corrupt, |vault| vault.header = Some([1; 32])),
        (Kind::Corrupt, |vault| vault.id = VaultId([1; 16])),
        (Kind::Denied, |vault| vault.key = Key::random()),
        (Kind::Invalid, |vault| vault.claim = None),
        (Kind::Missing, |vault| vault.url.push_str("-elsewhere")),
        (Kind::Fenced, |vault| vault.claim.as_mut().unwrap().cluster.0 ^= 1),
    ];
    for (kind, change) in changes {
        cluster.fake.change_vault(change);
        let failure = cluster
            .fake
            .failed(cluster.fake.enqueue(cluster.backup(ITEM, &disk)))
            .await;
        // A folder that is not there is a wrong URL or a disk that is not mounted, by the store's own words.
        let fits =
            failure.kind == FailureKind::Of(kind) || (kind == Kind::Missing && failure.kind != FailureKind::Cancelled);
        assert!(fits, "{kind:?}: {failure:?}");
        cluster.fake.change_vault(|vault| *vault = right.clone());
    }
    assert_eq!(cluster.names(""), before);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogue_is_put_once_and_never_over_a_later_one() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    for index in [100, 101, 102, 103] {
        cluster.run(Work::Catalogue { index }).await;
    }
    assert_eq!(cluster.names("catalog").len(), 3, "the newest three stay");
    // Repeated, as after an attempt that ended between its put and its report.
    cluster.run(Work::Catalogue { index: 103 }).await;
    let late = cluster.fake.enqueue(Work::Catalogue { index: 50 });
    let failure = cluster.fake.failed(late).await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Fenced), "{failure}");
    assert!(failure.message.contains("103"), "{failure}");
    assert_eq!(cluster.names("catalog").len(), 3);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_asks_for_nothing_and_works_again_later() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.fake.drain("worker", true);
    let beats = cluster.fake.calls("beat");
    until("it was told", || cluster.fake.calls("beat") > beats + 2).await;
    until("its last call has ended", || {
        let asked = cluster.fake.calls("next_lease");
        std::thread::sleep(Duration::from_millis(500));
        cluster.fake.calls("next_lease") == asked
    })
    .await;
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.fake.job(job).attempts, 0);
    cluster.fake.drain("worker", false);
    cluster.fake.done(job).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_cannot_be_read_is_given_back() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    cluster.fake.spoil_leases();
    let failure = cluster
        .fake
        .failed(cluster.fake.enqueue(Cluster::verify("names")))
        .await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Unsupported), "{failure}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_away_from_the_beginning_is_waited_for() {
    let cluster = Cluster::new();
    cluster.fake.go_away();
    let worker = cluster.start("worker");
    until("it has asked twice", || cluster.fake.calls("register") >= 2).await;
    cluster.fake.come_back();
    cluster.run(Work::Claim { make: true }).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_never_heard_of_a_coordinator_stops_when_it_is_told_to() {
    let cluster = Cluster::new();
    cluster.fake.go_away();
    let worker = cluster.start("worker");
    until("it has asked", || cluster.fake.calls("register") >= 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_has_one_worker() {
    let cluster = Cluster::new();
    let worker = cluster.start("worker");
    until("it works", || cluster.fake.calls("beat") >= 1).await;
    let config = AgentConfig {
        host: String::from("worker"),
        ..AgentConfig::new(cluster.path("worker"))
    };
    let stores = std::sync::Arc::new(tresor_worker::home::StoreConfigs::default());
    let second = agent::run(
        config.clone(),
        cluster.fake.as_worker("worker"),
        stores.clone(),
        Default::default(),
    )
    .await;
    assert!(matches!(second, Err(AgentError::Folder { .. })), "{second:?}");
    worker.stop().await;
    let none = AgentConfig { permits: 0, ..config };
    let none = agent::run(none, cluster.fake.as_worker("worker"), stores, Default::default()).await;
    assert!(matches!(none, Err(AgentError::Permits { .. })), "{none:?}");
}

/// A home with a vault in the cluster's store, of which the cluster knows the id and the key.
async fn home_with_vault(cluster: &Cluster) -> (Home, StoreConfigs) {
    let home = Home::open(&cluster.path("home"), "backup").unwrap();
    let stores = StoreConfigs::default();
    let url = cluster.fake.vault().url;
    let created = create_vault(&home, MAIN, Some(&url), CreateOptions::default(), &stores);
    let id = Box::pin(created).await.unwrap().entry.id;
    let key = KeyFile::load(&home.key_path(id), Some(id)).unwrap().key;
    cluster.fake.change_vault(|vault| {
        vault.id = id;
        vault.key = key;
    });
    (home, stores)
}

async fn back_up_at_home(
    vault: &WritableVault,
    item: ItemId,
    disk: &Path,
) -> Result<backup::BackupOutcome, tresor_worker::WorkerError> {
    let request = BackupRequest {
        item,
        item_name: String::from("web"),
        disks: vec![BackupDisk {
            name: String::from("vda"),
            source: source::open(&SourceSpec::new(disk)).await.unwrap(),
            changes: Changes::Unknown,
        }],
        parent: None,
        time: tresor_worker::home::now(),
        keep_until: Some(String::from("2030-01-01T00:00:00Z")),
        consistency: Consistency::Crash,
        consistency_reason: String::new(),
        allow_live: false,
        effort: Effort::default(),
    };
    Box::pin(backup::run(&vault.engine, request, Steering::default())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_is_taken_over_from_a_home_with_its_points() {
    let cluster = Cluster::new();
    let (home, stores) = home_with_vault(&cluster).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let vault = open_for_writing(&home, MAIN, &HomeKeys, &stores).await.unwrap();
    let shown = back_up_at_home(&vault, ITEM, &disk).await.unwrap().manifest;
    let hidden = back_up_at_home(&vault, ItemId([6; 16]), &disk).await.unwrap().manifest;
    let removed_at = vault.control.remove(hidden.point).await.unwrap();
    let damaged = back_up_at_home(&vault, ItemId([7; 16]), &disk).await.unwrap().manifest;
    std::fs::write(cluster.path("store").join(damaged.object_name()), "damaged").unwrap();

    let worker = cluster.start("worker");
    cluster.run(Work::Claim { make: false }).await;
    let claimed = cluster.fake.claimed().unwrap();
    assert_eq!((claimed.claim.number, claimed.points_unreadable), (2, 1));
    let mut adopted = cluster.fake.adopted();
    adopted.sort_by_key(|point| point.item);
    assert_eq!(adopted.len(), 2);
    assert_eq!((adopted[0].point, adopted[0].item_name.as_str()), (shown.point, "web"));
    assert_eq!(
        (&adopted[0].time, &adopted[0].keep_until),
        (&shown.time, &shown.keep_until)
    );
    assert_eq!(adopted[0].hidden_at, None);
    assert_eq!(
        (adopted[1].point, adopted[1].hidden_at.as_ref()),
        (hidden.point, Some(&removed_at))
    );

    // The home is fenced, in the midst of what it does and for ever; the cluster goes on from its point.
    let error = back_up_at_home(&vault, ITEM, &disk).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{error}");
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    cluster.fake.done(job).await;
    let counts = cluster.fake.job(job).counts;
    assert_eq!((counts.bytes_read, counts.bytes_new), (SIZE as u64, 0));
    let to = cluster.path("back.img");
    cluster.run(cluster.restore(shown.point, &to)).await;
    assert!(std::fs::read(&to).unwrap() == noise(1, SIZE));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_that_lost_its_lease_takes_its_claim_back() {
    let cluster = Cluster::with_terms(SHORT);
    let (home, stores) = home_with_vault(&cluster).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let vault = open_for_writing(&home, MAIN, &HomeKeys, &stores).await.unwrap();
    back_up_at_home(&vault, ITEM, &disk).await.unwrap();

    let worker = cluster.start("worker");
    cluster.gate.hold("read", "points/");
    let job = cluster.fake.enqueue(Work::Claim { make: false });
    until("the points are read", || cluster.gate.is_reached()).await;
    assert_eq!(cluster.names("cluster").len(), 2);
    assert_eq!(
        back_up_at_home(&vault, ITEM, &disk).await.unwrap_err().kind(),
        Kind::Fenced
    );
    cluster.fake.go_away();
    until("the claim is taken back", || cluster.names("cluster").len() == 1).await;
    back_up_at_home(&vault, ITEM, &disk).await.unwrap();

    // The next attempt finds what the home made meanwhile.
    cluster.gate.open();
    cluster.fake.come_back();
    cluster.fake.done(job).await;
    assert_eq!(cluster.fake.adopted().len(), 2);
    assert_eq!(
        back_up_at_home(&vault, ITEM, &disk).await.unwrap_err().kind(),
        Kind::Fenced
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_with_lists_of_dead_packs_is_left_to_a_later_version() {
    let cluster = Cluster::new();
    let (home, stores) = home_with_vault(&cluster).await;
    let dead = cluster.path("store/dead");
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(dead.join("0000000000000001-0000000000000001"), "x").unwrap();
    let worker = cluster.start("worker");
    let failure = cluster
        .fake
        .failed(cluster.fake.enqueue(Work::Claim { make: false }))
        .await;
    assert_eq!(failure.kind, FailureKind::Of(Kind::Unsupported), "{failure}");
    assert_eq!(cluster.names("cluster").len(), 1, "its claim is taken back");
    open_for_writing(&home, MAIN, &HomeKeys, &stores).await.unwrap();
    worker.stop().await;
}
