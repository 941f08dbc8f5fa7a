//! Leases that are lost, repeated, given back, and coordinators that are away.

use super::*;

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
    let is_left = || {
        std::fs::read_dir(cluster.folder.path())
            .unwrap()
            .any(|entry| entry.unwrap().file_name().into_string().unwrap().contains("back.img"))
    };
    // Its read has ended; what it wrote goes right after.
    until("nothing of it is left", || !is_left()).await;

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
    assert_eq!(failure.kind, FailureKind::Stopping);
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
