//! What is told becomes what transfers pass.

use super::*;

const URL: &str = "s3://bucket/vaults/main";
const LEASE: Duration = Duration::from_secs(30);

fn upload(rate: u64) -> Rates {
    Rates {
        upload: Some(rate),
        ..Rates::NONE
    }
}

fn told(limits: &[(&str, Rates)]) -> LimitsTold {
    LimitsTold {
        rates: limits.iter().map(|(of, rates)| ((*of).to_owned(), *rates)).collect(),
        jobs: 1,
    }
}

fn given(shares: &[(&str, u32)]) -> SharesGiven {
    SharesGiven {
        shares: shares.iter().map(|(of, share)| ((*of).to_owned(), *share)).collect(),
        is_pending: false,
    }
}

/// The rates of the throttles that a store's prefixes have.
fn store(limits: &Limits, prefix: &str) -> Rates {
    limits.state().stores[prefix].upgrade().unwrap().rates()
}

#[tokio::test(start_paused = true)]
async fn a_shared_limit_lets_nothing_through_before_its_share_and_after_its_end() {
    let now = Instant::now();
    let limits = Limits::new(now);
    let _pace = limits.pace(JobId(1), URL);
    assert_eq!(store(&limits, URL), Rates::NONE);
    limits.take(told(&[("store s3://bucket", upload(1000))]));
    assert_eq!(store(&limits, "s3://bucket"), upload(0));
    assert_eq!(store(&limits, URL), Rates::NONE, "only its own throttle has it");
    let next = limits.answered(given(&[("store s3://bucket", WHOLE / 3)]), now, LEASE, now);
    assert_eq!(next, Some(now), "another share is confirmed at once");
    assert_eq!(store(&limits, "s3://bucket"), upload(333));
    limits.take(told(&[("store s3://bucket", upload(3000))]));
    assert_eq!(store(&limits, "s3://bucket"), upload(999));
    limits.expire(now + LEASE - Duration::from_millis(1));
    assert_eq!(store(&limits, "s3://bucket"), upload(999));
    limits.expire(now + LEASE);
    assert_eq!(store(&limits, "s3://bucket"), upload(0));
    assert!(limits.shares(now + LEASE).is_empty());
    limits.take(told(&[]));
    assert_eq!(store(&limits, "s3://bucket"), Rates::NONE);
}

#[tokio::test(start_paused = true)]
async fn limits_of_the_worker_and_of_a_job_are_its_own() {
    let limits = Limits::new(Instant::now());
    let _paces = [limits.pace(JobId(1), URL), limits.pace(JobId(2), URL)];
    limits.take(told(&[("worker 7", upload(500)), ("job 2", upload(20))]));
    let state = limits.state();
    assert_eq!(state.worker.rates(), upload(500));
    let job = |id| state.jobs[&JobId(id)].upgrade().unwrap().rates();
    assert_eq!((job(1), job(2)), (Rates::NONE, upload(20)));
}

#[tokio::test(start_paused = true)]
async fn of_two_limits_of_a_host_the_lower_share_counts() {
    let now = Instant::now();
    let limits = Limits::new(now);
    limits.take(told(&[("host hv1", upload(1000)), ("host w1", upload(400))]));
    limits.answered(given(&[("host hv1", WHOLE / 4), ("host w1", WHOLE)]), now, LEASE, now);
    assert_eq!(limits.state().disks.rates(), upload(250));
}

#[tokio::test(start_paused = true)]
async fn other_jobs_under_a_shared_limit_make_a_beat_due() {
    let limits = Limits::new(Instant::now());
    let mut news = told(&[("job 1", upload(1000))]);
    limits.take(news.clone());
    let due = tokio::time::timeout(Duration::from_secs(1), limits.jobs_changed.notified());
    due.await.unwrap_err();
    news.rates.insert(String::from("store s3://bucket"), upload(1));
    limits.take(news.clone());
    limits.jobs_changed.notified().await;
    news.jobs = 2;
    limits.take(news);
    limits.jobs_changed.notified().await;
}

#[test]
fn a_url_lies_below_all_of_its_beginnings() {
    assert_eq!(
        prefixes("s3://bucket/a/b").collect::<Vec<_>>(),
        ["s3://bucket", "s3://bucket/a", "s3://bucket/a/b"]
    );
    assert_eq!(
        prefixes("file:///srv/x").collect::<Vec<_>>(),
        ["file://", "file:///srv", "file:///srv/x"]
    );
}
