//! Several workers and attempts at one vault.

use super::*;
use tresor_worker::control::catalog::read_newest_of_coordinators;

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
async fn a_state_too_large_for_one_object_is_in_parts_that_come_and_go_with_their_catalogue() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let large: &'static [u8] = Vec::leak(noise(3, (15 << 20) + 1));
    let left = async || {
        let read = read_newest_of_coordinators(&cluster.open().await).await.unwrap();
        read.map(|(id, state)| (id.index, state))
    };
    cluster.fake.set_catalogue_state(large);
    cluster.run(Work::Catalogue { index: 100 }).await;
    assert_eq!(cluster.names("catalog").len(), 3, "two parts and the catalogue");
    let (index, state) = left().await.unwrap();
    assert!(index == 100 && state == large);
    // Repeated, as after an attempt that ended between its put and its report.
    cluster.run(Work::Catalogue { index: 100 }).await;
    assert_eq!(cluster.names("catalog").len(), 3);
    assert_eq!(
        cluster.points().await.damaged_total,
        0,
        "a reader without a cluster reads it"
    );
    let job = cluster.fake.enqueue(Cluster::verify("contents"));
    cluster.fake.done(job).await;
    assert_eq!(cluster.fake.job(job).findings.unwrap().count, 0);

    cluster.fake.set_catalogue_state(b"small");
    for index in [101, 102, 103] {
        cluster.run(Work::Catalogue { index }).await;
    }
    assert_eq!(cluster.names("catalog").len(), 3, "the parts are gone with the first");

    // A set that is not whole is seen, and the catalogue before it is used; which points are hidden is known all the same.
    cluster.fake.set_catalogue_state(large);
    cluster.run(Work::Catalogue { index: 104 }).await;
    let names = cluster.names("catalog");
    let parts: Vec<_> = names
        .iter()
        .filter(|name| name.contains('.'))
        .filter(|name| name.ends_with("0001"))
        .collect();
    std::fs::remove_file(parts[0]).unwrap();
    assert_eq!(left().await, Some((103, b"small".to_vec())));
    assert_eq!(cluster.points().await.damaged_total, 1);
    // What an attempt left that broke off before its catalogue is deleted by the next one.
    let first = names.iter().find(|name| name.ends_with(".0000")).unwrap();
    std::fs::copy(first, first.replace("0068.0000", "0063.0000")).unwrap();
    assert_eq!(cluster.names("catalog").len(), 5);
    cluster.fake.set_catalogue_state(b"small");
    cluster.run(Work::Catalogue { index: 105 }).await;
    assert_eq!(left().await, Some((105, b"small".to_vec())));
    let names = cluster.names("catalog");
    assert_eq!(
        names.len(),
        4,
        "three catalogues, one with the part that is left: {names:?}"
    );
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
