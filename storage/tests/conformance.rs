//! Every store and every wrapper passes one suite.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod servers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tresor_storage::Kind;
use tresor_storage::backend::faulty::{Fault, Faulty, On, Rule};
use tresor_storage::backend::forgetful::Forgetful;
use tresor_storage::backend::{
    Abilities, Backend, BackendError, FileBackend, Limited, Limits, Memory, RetryPolicy, Retrying, Secret, StoreConfig,
    conformance, open, probe,
};

const ABLE: Abilities = Abilities {
    create_only: true,
    lists_fresh: true,
    ranged_reads: true,
    deletes: true,
};

#[tokio::test]
async fn memory_keeps_to_the_port() {
    let memory = Memory::new();
    conformance::run(Arc::new(memory.clone())).await;
    assert!(memory.objects().is_empty());
    let store = open("memory://conformance", &StoreConfig::default()).unwrap();
    conformance::run(store.backend).await;
}

#[tokio::test]
async fn the_forgetful_store_keeps_to_the_port_while_nothing_crashes() {
    let store = Arc::new(Forgetful::new(1));
    conformance::run(store.clone()).await;
    assert!(store.unsafe_names().is_empty());
}

#[tokio::test]
async fn files_keep_to_the_port_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    conformance::run(Arc::new(FileBackend::open(folder.path(), false).unwrap())).await;
    let url = format!("file://{}/a%20folder/that/is/new", folder.path().display());
    let store = open(
        &url,
        &StoreConfig {
            create_root: true,
            ..StoreConfig::default()
        },
    )
    .unwrap();
    conformance::run(store.backend.clone()).await;
    assert_eq!(probe(&store.backend).await.unwrap(), ABLE);
    assert_eq!(store.counters.snapshot().retries, 0);
    let root = folder.path().join("a folder/that/is/new");
    let left: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    // First-level folders stay; no staged file, no other litter.
    assert!(
        left.iter().all(|name| name == "conformance" || name == "probe"),
        "{left:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_keeps_to_the_port() {
    let slow = Faulty::new(Memory::new(), 1).rule(Rule::always(Fault::Slow(Duration::from_secs(20))));
    conformance::run(Arc::new(Limited::new(slow, Limits::default()))).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_keeps_to_the_port_when_asked_again() {
    for seed in 0..5 {
        let faulty = Faulty::new(Memory::new(), seed)
            .rule(Rule::chance(0.2, Fault::Unavailable))
            .rule(Rule::chance(0.2, Fault::LostAnswer).on(On::Put))
            .rule(Rule::chance(0.1, Fault::LostAnswer).on(On::Delete))
            .rule(Rule::chance(0.1, Fault::LostAnswer).on(On::Read));
        let policy = RetryPolicy {
            attempts_max: 20,
            ..RetryPolicy::default()
        };
        eprintln!("seed {seed}");
        conformance::run(Arc::new(Retrying::seeded(faulty, policy, seed))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_now_and_then_keeps_to_the_port_with_deadlines() {
    let faulty = Faulty::new(Memory::new(), 1).rule(Rule::chance(0.1, Fault::Hang));
    let limits = Limits {
        deadline: Duration::from_secs(1),
        ..Limits::default()
    };
    let policy = RetryPolicy {
        attempts_max: 20,
        ..RetryPolicy::default()
    };
    conformance::run(Arc::new(Retrying::seeded(Limited::new(faulty, limits), policy, 1))).await;
}

#[tokio::test]
async fn the_suite_finds_a_store_that_lies() {
    for fault in [Fault::Flipped, Fault::Short] {
        let lying = Faulty::new(Memory::new(), 1).rule(Rule::call(5, fault).on(On::Read));
        let suite = tokio::spawn(conformance::run(Arc::new(lying)));
        assert!(suite.await.unwrap_err().is_panic(), "{fault:?} was not seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_to_the_port() {
    let Some(server) = servers::moto() else { return };
    let config = StoreConfig {
        endpoint: Some(format!("http://{}", server.address)),
        allow_http: true,
        region: Some("us-east-1".into()),
        access_key_id: Some("id".into()),
        secret_access_key: Some(Secret::new("secret")),
        ..StoreConfig::default()
    };
    remote("s3://bucket", "s3://nobucket", &config).await;
    // More than a page.
    let store = open("s3://bucket/pages", &config).unwrap();
    let names: Vec<_> = (0..1005).map(|i| format!("many/{i:04}")).collect();
    let puts = futures::stream::iter(&names)
        .map(|name| store.backend.create(name, &[]))
        .buffer_unordered(16);
    puts.try_collect::<Vec<_>>().await.unwrap();
    let mut listed: Vec<_> = store
        .backend
        .list("many/")
        .map_ok(|item| item.name)
        .try_collect()
        .await
        .unwrap();
    listed.sort();
    assert_eq!(listed, names);
    assert_eq!(store.counters.snapshot().lists, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_to_the_port() {
    let Some(server) = servers::azurite() else { return };
    let config = StoreConfig {
        endpoint: Some(format!("http://{}/{}", server.address, servers::AZURITE_ACCOUNT)),
        allow_http: true,
        access_key_id: Some(servers::AZURITE_ACCOUNT.into()),
        secret_access_key: Some(Secret::new(servers::AZURITE_KEY)),
        ..StoreConfig::default()
    };
    remote("az://container", "az://nocontainer", &config).await;
    let wrong = StoreConfig {
        secret_access_key: Some(Secret::new("d3Jvbmc=")),
        ..config
    };
    let denied = open("az://container", &wrong).unwrap().backend;
    assert!(matches!(
        denied.create("a", &[]).await,
        Err(BackendError::Denied { .. })
    ));
    assert!(matches!(denied.length("a").await, Err(BackendError::Denied { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn google_keeps_to_the_port() {
    // No stand-in speaks its XML dialect: a real bucket, with credentials in the environment.
    let Ok(url) = std::env::var("TRESOR_TEST_GS_URL") else {
        eprintln!("skipped: gcs (TRESOR_TEST_GS_URL is not set)");
        return;
    };
    let store = open(&url, &StoreConfig::default()).unwrap();
    conformance::run(store.backend.clone()).await;
    assert_eq!(probe(&store.backend).await.unwrap(), ABLE);
}

/// The suite at the root and below a prefix, a probe, and a bucket that is not there.
async fn remote(url: &str, missing: &str, config: &StoreConfig) {
    let store = open(url, config).unwrap();
    conformance::run(store.backend.clone()).await;
    let traffic = store.counters.snapshot();
    assert_eq!(
        (traffic.retries, traffic.abandoned, traffic.errors.unavailable),
        (0, 0, 0),
        "{traffic:?}"
    );

    let below = open(&format!("{url}/some/prefix"), config).unwrap();
    conformance::run(below.backend.clone()).await;
    assert_eq!(probe(&below.backend).await.unwrap(), ABLE);
    // One prefix is not seen from its neighbour, and by its own name from above.
    below.backend.create("a/b", &[Bytes::from_static(b"x")]).await.unwrap();
    let neighbour = open(&format!("{url}/some/pre"), config).unwrap();
    assert!(
        neighbour
            .backend
            .list("")
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.backend.read("some/prefix/a/b", 1).await.unwrap(), "x");
    store.backend.delete("some/prefix/a/b").await.unwrap();

    let missing = open(missing, config).unwrap().backend;
    let kind = |result: Result<(), BackendError>| {
        let error = result.expect_err("there is no such bucket");
        assert!(matches!(error, BackendError::Refused { .. }), "{error:?}");
        error.kind()
    };
    assert_eq!(kind(missing.create("a", &[]).await), Kind::Invalid);
    assert_eq!(kind(missing.read("a", 1).await.map(drop)), Kind::Invalid);
    assert_eq!(kind(missing.read_range("a", 0..1).await.map(drop)), Kind::Invalid);
    assert_eq!(kind(missing.length("a").await.map(drop)), Kind::Invalid);
    assert_eq!(
        kind(missing.list("a/").try_collect::<Vec<_>>().await.map(drop)),
        Kind::Invalid
    );
}
