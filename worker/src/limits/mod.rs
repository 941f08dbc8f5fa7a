//! Limits of use, as coordinators tell them, on the throttles of this worker's jobs.
//!
//! A limit of a store or a host binds several workers together. This one acts on its share of it: what it was answered last by a beat, for as long as a
//! lease lasts from when that beat was sent, and on nothing after that (the coordinator's `lead/shares` has the argument why all shares together never come
//! to more than the limit). Until a share is there transfers wait; jobs go on, and so do they once a coordinator answers again.

mod disks;
mod memory;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tresor_proto::ids::JobId;
use tresor_storage::throttle::{Pace, Rates, Throttle};

pub(crate) use disks::{paced_sink, paced_source};
pub use memory::{JOB_MEMORY, permits_within};

/// All of a limit, in the parts of which shares are.
pub const WHOLE: u32 = 1_000_000;
/// How soon to beat again while more of a limit is meant for this worker and others hold it still.
pub(crate) const PENDING_PAUSE: Duration = Duration::from_millis(250);

/// What limits say now, as far as they bind this worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitsTold {
    /// By what they are of: `store URL`, `host NAME`, `worker NUMBER`, `job NUMBER`. Of stores and hosts, for all workers together.
    pub rates: BTreeMap<String, Rates>,
    /// Another number when other jobs run under limits that workers share.
    pub jobs: u64,
}

/// The shares that a beat was answered with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharesGiven {
    /// Millionths, by what the limit is of.
    pub shares: BTreeMap<String, u32>,
    /// More is meant for this worker.
    pub is_pending: bool,
}

/// The limits of a worker.
pub(crate) struct Limits {
    state: Mutex<State>,
    /// Other jobs run under limits that are shared: a beat is due.
    pub(crate) jobs_changed: Notify,
}

struct State {
    told: LimitsTold,
    shares: BTreeMap<String, u32>,
    /// Until when they are acted on.
    until: Instant,
    worker: Arc<Throttle>,
    disks: Arc<Throttle>,
    stores: BTreeMap<String, Weak<Throttle>>,
    jobs: BTreeMap<JobId, Weak<Throttle>>,
}

/// Whether workers share a limit.
fn is_shared(of: &str) -> bool {
    of.starts_with("store ") || of.starts_with("host ")
}

/// The beginnings of a URL that a limit can be of: up to each slash, and all of it.
fn prefixes(url: &str) -> impl Iterator<Item = &str> {
    let url = url.trim_end_matches('/');
    let ends = url.match_indices('/').map(|(at, _)| at).chain([url.len()]);
    ends.map(move |end| &url[..end]).filter(|prefix| prefix.contains("://"))
}

impl Limits {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                told: LimitsTold::default(),
                shares: BTreeMap::new(),
                until: now,
                worker: Arc::default(),
                disks: Arc::default(),
                stores: BTreeMap::new(),
                jobs: BTreeMap::new(),
            }),
            jobs_changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What limits say from now on.
    pub(crate) fn take(&self, told: LimitsTold) {
        let mut state = self.state();
        let is_other = told.jobs != state.told.jobs || !told.rates.keys().eq(state.told.rates.keys());
        state.shares.retain(|of, _| told.rates.contains_key(of));
        state.told = told;
        state.apply();
        let is_shared = state.told.rates.keys().any(|of| is_shared(of));
        drop(state);
        if is_other && is_shared {
            self.jobs_changed.notify_one();
        }
    }

    /// The shares that it acts on, to be said with a beat.
    pub(crate) fn shares(&self, now: Instant) -> BTreeMap<String, u32> {
        self.expire(now);
        self.state().shares.clone()
    }

    /// A beat was answered. Says how soon the next one is due for the sake of shares, if it is.
    pub(crate) fn answered(&self, given: SharesGiven, sent: Instant, lease: Duration, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let is_other = state.shares != given.shares;
        state.shares = given.shares;
        state.until = sent + lease;
        state.apply();
        drop(state);
        self.expire(now);
        match (is_other, given.is_pending) {
            // What became free is others' as soon as that is heard.
            (true, _) => Some(now),
            (false, true) => Some(now + PENDING_PAUSE),
            (false, false) => None,
        }
    }

    /// When the shares end if no beat is answered before.
    pub(crate) fn until(&self) -> Option<Instant> {
        let state = self.state();
        (!state.shares.is_empty()).then_some(state.until)
    }

    /// Acts on no share any more when its time is over.
    pub(crate) fn expire(&self, now: Instant) {
        let mut state = self.state();
        if now >= state.until && !state.shares.is_empty() {
            tracing::warn!("shares of limits are over: no coordinator was heard of for as long as a lease lasts");
            state.shares.clear();
            state.apply();
        }
    }

    /// What the transfers of a job to a store pass.
    pub(crate) fn pace(&self, job: JobId, url: &str) -> Pace {
        let mut state = self.state();
        state.stores.retain(|_, throttle| throttle.strong_count() > 0);
        state.jobs.retain(|_, throttle| throttle.strong_count() > 0);
        let own = entry(&mut state.jobs, job);
        let stores: Vec<_> = prefixes(url)
            .map(|prefix| entry(&mut state.stores, prefix.to_owned()))
            .collect();
        let worker = Arc::clone(&state.worker);
        state.apply();
        Pace::new(own, std::iter::once(worker).chain(stores))
    }

    /// What a job reads from disks of this host, and writes to them, passes.
    pub(crate) fn disks(&self) -> Pace {
        Pace::new(Arc::default(), [Arc::clone(&self.state().disks)])
    }
}

fn entry<K: Ord>(throttles: &mut BTreeMap<K, Weak<Throttle>>, key: K) -> Arc<Throttle> {
    let kept = throttles.entry(key).or_default();
    kept.upgrade().unwrap_or_else(|| {
        let new = Arc::new(Throttle::default());
        *kept = Arc::downgrade(&new);
        new
    })
}

impl State {
    /// Sets all throttles to what was told.
    fn apply(&self) {
        let mut worker = Rates::NONE;
        let mut disks = Rates::NONE;
        for (of, rates) in &self.told.rates {
            if of.starts_with("worker ") {
                worker = worker.min(*rates);
            } else if of.starts_with("host ") {
                disks = disks.min(self.share_of(of, *rates));
            }
        }
        self.worker.set(worker);
        self.disks.set(disks);
        for (prefix, throttle) in &self.stores {
            if let Some(throttle) = throttle.upgrade() {
                let of = format!("store {prefix}");
                let rates = self.told.rates.get(&of);
                throttle.set(rates.map_or(Rates::NONE, |rates| self.share_of(&of, *rates)));
            }
        }
        for (job, throttle) in &self.jobs {
            if let Some(throttle) = throttle.upgrade() {
                let rates = self.told.rates.get(&format!("job {job}")).copied();
                throttle.set(rates.unwrap_or(Rates::NONE));
            }
        }
    }

    fn share_of(&self, of: &str, rates: Rates) -> Rates {
        let share = self.shares.get(of).copied().unwrap_or(0).min(WHOLE);
        // Rounded down: the sum of all shares is never more than the limit.
        let part = |rate: u64| u64::try_from(u128::from(rate) * u128::from(share) / u128::from(WHOLE)).unwrap_or(0);
        Rates {
            upload: rates.upload.map(part),
            download: rates.download.map(part),
            requests: rates.requests.map(part),
            // Jobs at a time are the coordinator's to count.
            concurrency: None,
        }
    }
}
