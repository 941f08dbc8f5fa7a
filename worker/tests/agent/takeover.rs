//! Vaults of a home that go over to the cluster.

use super::*;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_for_a_log_that_is_an_older_state_of_itself() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, SIZE);
    cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    // What a later state of the log has put, before it was put back.
    cluster.run(Work::Catalogue { index: 1_000_000 }).await;
    let before = cluster.names("points").len();
    let packs = cluster.names("packs").len();
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    let failure = cluster.fake.failed(job).await;
    assert!(failure.message.contains("older state of itself"), "{failure:?}");
    assert_eq!(cluster.names("points").len(), before);
    assert_eq!(cluster.names("packs").len(), packs);
    worker.stop().await;
}
