//! Jobs from their lease to their end, and making a vault.

use super::*;

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
async fn a_log_that_nobody_takes_delays_no_attempt_and_no_stop() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    for _ in 0..2 {
        for _ in 0..3 {
            cluster.fake.trouble("report_log", Trouble::Lost);
        }
        cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    }
    assert_eq!(cluster.fake.points_count(), 2);
    let begun = std::time::Instant::now();
    worker.stop().await;
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_an_attempt_went_is_reported_after_its_end() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    cluster.fake.done(job).await;
    until("its log is reported", || cluster.fake.log(job).is_some()).await;
    let log = cluster.fake.log(job).unwrap();
    let stages: Vec<&str> = log.first.iter().map(|line| line.text.as_str()).collect();
    assert!(stages.contains(&"stage begins stage=reading"), "{stages:?}");
    let summary = log.summary.join("\n");
    for part in ["ended: done", "bytes: ", "requests: ", "chunks asked for: ", "stages: "] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    worker.stop().await;
}
