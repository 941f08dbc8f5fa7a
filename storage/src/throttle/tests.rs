//! Limits hold: in time that passes only when everybody waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const MB: u64 = 1_000_000;
const PACK: usize = 32 << 20;
const WINDOW: u64 = 10;

fn upload(rate: u64) -> Rates {
    Rates {
        upload: Some(rate),
        ..Rates::NONE
    }
}

/// Jobs that put packs, two at a time each, for ever.
fn jobs(count: usize, shared: &[Arc<Throttle>]) -> Vec<Arc<Throttle>> {
    (0..count)
        .map(|_| {
            let own = Arc::new(Throttle::default());
            let pace = Pace::new(Arc::clone(&own), shared.iter().cloned());
            for _ in 0..2 {
                put_packs(&pace);
            }
            own
        })
        .collect()
}

fn put_packs(pace: &Pace) {
    let pace = pace.clone();
    tokio::spawn(async move {
        loop {
            let _permit = pace.request().await;
            pace.take(Direction::Upload, PACK).await;
            // A store needs time for the rest of a request; meanwhile others send.
            sleep(Duration::from_millis(30)).await;
        }
    });
}

/// Bytes up in each second.
async fn seconds(throttle: &Throttle, count: u64) -> Vec<u64> {
    let mut sums = Vec::new();
    for _ in 0..count {
        let before = throttle.passed().upload;
        sleep(Duration::from_secs(1)).await;
        sums.push(throttle.passed().upload - before);
    }
    sums
}

fn assert_within(bytes: u64, allowed: u64, percent: u64) {
    let off = bytes.abs_diff(allowed);
    assert!(off * 100 <= allowed * percent, "{bytes} bytes of {allowed}");
}

#[tokio::test(start_paused = true)]
async fn eight_jobs_use_what_is_allowed_in_any_ten_seconds() {
    for rate in [MB, 20 * MB, 50 * MB, 400 * MB, 3000 * MB] {
        let store = Arc::new(Throttle::new(upload(rate)));
        let own = jobs(8, &[Arc::new(Throttle::default()), Arc::clone(&store)]);
        let sums = seconds(&store, 60).await;
        for window in sums.windows(WINDOW as usize) {
            assert_within(window.iter().sum(), rate * WINDOW, 5);
        }
        let used: Vec<u64> = own.iter().map(|job| job.passed().upload).collect();
        for bytes in &used {
            assert_within(*bytes, used.iter().sum::<u64>() / 8, 5);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_counts_within_a_second() {
    let store = Arc::new(Throttle::new(upload(50 * MB)));
    jobs(8, &[Arc::clone(&store)]);
    sleep(Duration::from_secs(20)).await;
    for rate in [5 * MB, 100 * MB, 10_000, 80 * MB] {
        store.set(upload(rate));
        sleep(Duration::from_secs(1)).await;
        let sums = seconds(&store, 10).await;
        assert_within(sums.iter().sum(), rate * 10, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_removed_frees_who_waits() {
    let store = Arc::new(Throttle::new(upload(0)));
    let pace = Pace::new(Arc::default(), [Arc::clone(&store)]);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let pace = pace.clone();
            tokio::spawn(async move { pace.take(Direction::Upload, PACK).await })
        })
        .collect();
    sleep(Duration::from_secs(3600)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    let began = Instant::now();
    store.set(Rates::NONE);
    for task in waiting {
        task.await.unwrap();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_job_with_many_requests_gets_no_more_than_one_with_few() {
    let store = Arc::new(Throttle::new(upload(50 * MB)));
    let pace = || Pace::new(Arc::default(), [Arc::clone(&store)]);
    let (many, few) = (pace(), pace());
    for _ in 0..16 {
        put_packs(&many);
    }
    for _ in 0..2 {
        put_packs(&few);
    }
    sleep(Duration::from_secs(60)).await;
    let bytes = |pace: &Pace| pace.own_passed().upload;
    assert_within(bytes(&many), bytes(&few), 5);
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_job_leaves_the_others_use() {
    let store = Arc::new(Throttle::new(upload(50 * MB)));
    let own = jobs(8, &[Arc::clone(&store)]);
    own[0].set(upload(MB));
    sleep(Duration::from_secs(1)).await;
    let before = own[0].passed().upload;
    let sums = seconds(&store, 10).await;
    assert_within(sums.iter().sum(), 500 * MB, 5);
    assert_within(own[0].passed().upload - before, 10 * MB, 5);
}

#[tokio::test(start_paused = true)]
async fn requests_of_eight_jobs_keep_to_their_number_a_second_and_at_a_time() {
    let store = Arc::new(Throttle::new(Rates {
        requests: Some(100 * 1000),
        concurrency: Some(3),
        ..Rates::NONE
    }));
    let under_way = Arc::new(std::sync::atomic::AtomicI64::new(0));
    for _ in 0..8 {
        let pace = Pace::new(Arc::default(), [Arc::clone(&store)]);
        for _ in 0..4 {
            let (pace, under_way) = (pace.clone(), Arc::clone(&under_way));
            tokio::spawn(async move {
                loop {
                    let _permit = pace.request().await;
                    let now = under_way.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                    assert!(now <= 3, "{now} at a time");
                    sleep(Duration::from_millis(5)).await;
                    under_way.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    }
    for _ in 0..5 {
        let before = store.passed().requests;
        sleep(Duration::from_secs(10)).await;
        assert_within(store.passed().requests - before, 1000, 5);
    }
    // More at a time, and as many a second as fit: 8 of 5 ms each.
    store.set(Rates {
        concurrency: Some(3),
        ..Rates::NONE
    });
    sleep(Duration::from_secs(1)).await;
    let before = store.passed().requests;
    sleep(Duration::from_secs(10)).await;
    // A timer fires a millisecond late.
    let passed = store.passed().requests - before;
    assert!((4500..=6000).contains(&passed), "{passed}");
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_has_taken_nothing_and_holds_nothing() {
    let throttle = Arc::new(Throttle::new(Rates {
        upload: Some(0),
        concurrency: Some(1),
        ..Rates::NONE
    }));
    let pace = Pace::new(Arc::clone(&throttle), []);
    let gone = timeout(Duration::from_secs(1), async {
        let _permit = pace.request().await;
        pace.take(Direction::Upload, PACK).await;
    });
    gone.await.unwrap_err();
    assert_eq!(throttle.passed().upload, 0);
    throttle.set(Rates {
        concurrency: Some(1),
        ..Rates::NONE
    });
    let _permit = timeout(Duration::from_secs(1), pace.request()).await.unwrap();
    pace.take(Direction::Upload, 1).await;
    assert_eq!(throttle.passed().upload, 1);
    timeout(Duration::from_secs(1), pace.request()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn pieces_are_sent_whole_and_in_order_at_the_rate() {
    let pace = Pace::new(Arc::new(Throttle::new(upload(MB))), []);
    let pieces: Vec<Bytes> = (0..7_u8)
        .map(|i| Bytes::from(vec![i; usize::from(i) * 100_000]))
        .collect();
    let whole = pieces.concat();
    let began = Instant::now();
    let sent: Vec<Bytes> = pace.stream(pieces).collect().await;
    assert_eq!(sent.concat(), whole);
    assert!(sent.iter().all(|slice| slice.len() <= 25_000));
    let took = began.elapsed().as_secs_f64();
    assert!((1.9..=2.15).contains(&took), "{took} s for 2.1 MB");
}
