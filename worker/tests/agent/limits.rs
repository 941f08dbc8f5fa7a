//! Limits hold on a worker at work, by the clock on the wall.

use std::collections::BTreeMap;
use std::time::Instant;

use tresor_storage::throttle::Rates;

use super::*;

const MB: u64 = 1_000_000;
const DISK: usize = 40 << 20;

/// Bytes that this process gave to the system to write, whatever it was for.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.trim().parse().unwrap()
}

/// Bytes written in a time, as if it were ten seconds.
async fn in_ten_seconds(time: Duration) -> u64 {
    let (before, began) = (written(), Instant::now());
    tokio::time::sleep(time).await;
    ((written() - before) as f64 * 10.0 / began.elapsed().as_secs_f64()) as u64
}

fn assert_within(bytes: u64, allowed: u64) {
    assert!(
        bytes.abs_diff(allowed) * 20 <= allowed,
        "{bytes} bytes in ten seconds, {allowed} are allowed"
    );
}

fn upload(of: String, rate: u64) -> BTreeMap<String, Rates> {
    let rates = Rates {
        upload: Some(rate),
        ..Rates::NONE
    };
    BTreeMap::from([(of, rates)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_backups_write_to_their_store_what_is_allowed_and_follow_a_change() {
    let cluster = Cluster::new();
    let worker = cluster.start_with("worker", |config| config.permits = 8);
    let claim = cluster.fake.enqueue(Work::Claim { make: true });
    cluster.fake.done(claim).await;
    let of = format!("store {}", cluster.fake.vault().url);
    cluster.fake.limit(upload(of.clone(), 16 * MB));
    let jobs: Vec<_> = (0..8_u8)
        .map(|number| {
            let disk = cluster.disk(&format!("{number}.img"), u64::from(number) + 1, DISK);
            cluster.fake.enqueue(cluster.backup(ItemId([number + 1; 16]), &disk))
        })
        .collect();
    // Until all have something to put.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_within(in_ten_seconds(Duration::from_secs(10)).await, 160 * MB);
    cluster.fake.limit(upload(of, 8 * MB));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_within(in_ten_seconds(Duration::from_secs(5)).await, 80 * MB);
    // Without a limit the rest is done at once.
    cluster.fake.limit(BTreeMap::new());
    for job in jobs {
        cluster.fake.done(job).await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_of_a_host_are_read_and_written_no_faster_than_its_limit() {
    let (cluster, worker) = Cluster::with_vault(Terms::default()).await;
    let disk = cluster.disk("web.img", 1, 16 << 20);
    let mut rates = upload(String::from("host hv1"), 8 << 20);
    for rates in rates.values_mut() {
        rates.download = Some(8 << 20);
    }
    cluster.fake.limit(rates);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let point = cluster.run(cluster.backup(ITEM, &disk)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1800), "{:?}", began.elapsed());
    let to = cluster.path("restored");
    let began = Instant::now();
    cluster.run(cluster.restore(point, &to)).await;
    assert!(began.elapsed() >= Duration::from_millis(1800), "{:?}", began.elapsed());
    assert!(std::fs::read(&to).unwrap() == noise(1, 16 << 20));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_nobody_answers_stops_using_what_is_shared_and_goes_on_afterwards() {
    let (cluster, worker) = Cluster::with_vault(SHORT).await;
    let of = format!("store {}", cluster.fake.vault().url);
    cluster.fake.limit(upload(of, 4 * MB));
    let disk = cluster.disk("web.img", 1, DISK);
    let job = cluster.fake.enqueue(cluster.backup(ITEM, &disk));
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.fake.go_away();
    // A lease, and what is on its way.
    tokio::time::sleep(SHORT.lease + Duration::from_millis(500)).await;
    let used = in_ten_seconds(Duration::from_secs(2)).await;
    assert!(used < MB, "{used} bytes without a share");
    cluster.fake.come_back();
    cluster.fake.limit(BTreeMap::new());
    cluster.fake.done(job).await;
    worker.stop().await;
}
