//! Limits hold on stores as they are: bytes into and out of real files and a real S3 server, by the clock on the wall.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[expect(dead_code, reason = "azure is started by another test")]
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tresor_storage::backend::{OpenStore, Secret, StoreConfig, conformance, open};
use tresor_storage::throttle::{Pace, Rates, Throttle};

const MB: u64 = 1_000_000;
const PACK: usize = 8 << 20;

/// Jobs of one store under one limit, and the limit.
fn jobs(store: &OpenStore, count: usize, rates: Rates) -> (Vec<OpenStore>, Arc<Throttle>) {
    let limit = Arc::new(Throttle::new(rates));
    let job = |_| store.throttled(Pace::new(Arc::default(), [Arc::clone(&limit)]));
    ((0..count).map(job).collect(), limit)
}

/// Every job puts packs, two at a time, and deletes them, until it is dropped.
async fn put_for_ever(job: &OpenStore, number: usize) {
    let pack = [Bytes::from(vec![1; PACK])];
    let put = |lane: usize| {
        let pack = &pack;
        async move {
            for i in 0.. {
                let name = format!("packs/{number}/{lane}/{i}");
                job.backend.create(&name, pack).await.unwrap();
                job.backend.delete(&name).await.unwrap();
            }
        }
    };
    tokio::join!(put(0), put(1));
}

/// Bytes up and down in a window of ten seconds, half a second after the limit was set.
async fn window(limit: &Throttle) -> (u64, u64) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, began) = (limit.passed(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (after, took) = (limit.passed(), began.elapsed().as_secs_f64());
    let in_ten = |bytes: u64| (bytes as f64 * 10.0 / took) as u64;
    (
        in_ten(after.upload - before.upload),
        in_ten(after.download - before.download),
    )
}

fn assert_within(bytes: u64, allowed: u64) {
    assert!(
        bytes.abs_diff(allowed) * 20 <= allowed,
        "{bytes} bytes in ten seconds, {allowed} are allowed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_jobs_put_files_at_the_limit_and_follow_it_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let store = open(&url, &StoreConfig::default()).unwrap();
    let rate = |rate| Rates {
        upload: Some(rate),
        ..Rates::NONE
    };
    let (jobs, limit) = jobs(&store, 8, rate(20 * MB));
    let work = join_all(jobs.iter().enumerate().map(|(number, job)| put_for_ever(job, number)));
    let watch = async {
        assert_within(window(&limit).await.0, 200 * MB);
        limit.set(rate(8 * MB));
        assert_within(window(&limit).await.0, 80 * MB);
    };
    tokio::select! {
        _ = work => unreachable!("they never end"),
        () = watch => {}
    }
}

#[tokio::test]
async fn a_limited_folder_keeps_to_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&format!("file://{}", folder.path().display()), &StoreConfig::default()).unwrap();
    let rates = Rates {
        upload: Some(40 * MB),
        download: Some(40 * MB),
        requests: Some(2_000_000),
        concurrency: Some(2),
    };
    let (jobs, limit) = jobs(&store, 1, rates);
    conformance::run(Arc::clone(&jobs[0].backend)).await;
    assert!(limit.passed().upload > 0 && limit.passed().download > 0);
}

#[tokio::test]
async fn a_put_that_nobody_waits_for_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&format!("file://{}", folder.path().display()), &StoreConfig::default()).unwrap();
    let rates = Rates {
        upload: Some(MB),
        ..Rates::NONE
    };
    let (jobs, _limit) = jobs(&store, 1, rates);
    let pack = [Bytes::from(vec![1; PACK])];
    let put = jobs[0].backend.create("packs/1", &pack);
    tokio::time::timeout(Duration::from_millis(300), put).await.unwrap_err();
    assert!(store.backend.length("packs/1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_and_reads_of_s3_flow_at_the_limit() {
    let Some(server) = servers::moto() else { return };
    let config = StoreConfig {
        endpoint: Some(format!("http://{}", server.address)),
        region: Some("us-east-1".into()),
        access_key_id: Some("test".into()),
        secret_access_key: Some(Secret::new("test")),
        allow_http: true,
        ..StoreConfig::default()
    };
    let store = open("s3://bucket/limited", &config).unwrap();
    let rates = Rates {
        upload: Some(8 * MB),
        download: Some(8 * MB),
        ..Rates::NONE
    };
    let (jobs, limit) = jobs(&store, 1, rates);
    let job = &jobs[0].backend;
    let bytes = Bytes::from((0..PACK).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    let began = Instant::now();
    job.create("packs/1", &[bytes.slice(..1000), bytes.slice(1000..)])
        .await
        .unwrap();
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    // It is taken in whole slices, of which there are forty a second.
    let (taken, slice) = (limit.passed().upload, 8 * MB / 40);
    assert!((PACK as u64..PACK as u64 + slice).contains(&taken), "{taken}");
    let began = Instant::now();
    assert_eq!(job.read_range("packs/1", 0..PACK as u64).await.unwrap(), bytes);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    conformance::run(Arc::clone(job)).await;
}
