//! Asking again: by the kind of the error, a bounded number of times within a bounded time, spread by chance.
//!
//! Only [`BackendError::Unavailable`] is asked again. A put that failed that way may have happened all the same, so the answer "exists" to
//! its repetition is compared with what we put: packs by length, header and trailer (the trailer carries a hash of all before it), others whole.
//! "Exists" to a first try is never ours: names are used once.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::metered::Counters;
use super::random::{Random, scale};
use super::{Backend, BackendError, Listed};
use crate::limits;
use crate::vault::names;

/// When to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all; 1 asks once.
    pub attempts_max: u32,
    /// No try begins later than this after the first began.
    pub time_max: Duration,
    /// Upper bound of the first wait; it doubles with every try.
    pub wait_first: Duration,
    /// Upper bound of any wait.
    pub wait_max: Duration,
}

impl Default for RetryPolicy {
    /// Eight tries within four minutes: longer than a store's failover, shorter than an operator's patience.
    fn default() -> Self {
        Self {
            attempts_max: 8,
            time_max: Duration::from_secs(240),
            wait_first: Duration::from_millis(200),
            wait_max: Duration::from_secs(20),
        }
    }
}

impl RetryPolicy {
    /// Asks once.
    pub const NEVER: Self = Self {
        attempts_max: 1,
        time_max: Duration::ZERO,
        wait_first: Duration::ZERO,
        wait_max: Duration::ZERO,
    };
}

/// How long to wait before the next try, after `attempt` tries (from 1) failed and `elapsed` since the first began; `None` to give up.
///
/// Full jitter: anything from nothing to the bound, so that many clients of one store that failed together come back apart.
pub fn plan_retry(attempt: u32, elapsed: Duration, policy: &RetryPolicy, random: u64) -> Option<Duration> {
    if attempt >= policy.attempts_max {
        return None;
    }
    let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    let bound = policy.wait_first.saturating_mul(doubled).min(policy.wait_max);
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    let wait = Duration::from_nanos(scale(random, nanos.saturating_add(1)));
    (elapsed.saturating_add(wait) <= policy.time_max).then_some(wait)
}

/// The tries of one request.
pub(super) struct Tries<'a> {
    policy: &'a RetryPolicy,
    random: &'a Mutex<Random>,
    counters: Option<&'a Counters>,
    began: Instant,
    attempt: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(policy: &'a RetryPolicy, random: &'a Mutex<Random>, counters: Option<&'a Counters>) -> Self {
        Self {
            policy,
            random,
            counters,
            began: Instant::now(),
            attempt: 1,
        }
    }

    fn is_first(&self) -> bool {
        self.attempt == 1
    }

    /// Waits before the next try; gives the error back when there is to be none.
    pub(super) async fn again(&mut self, error: BackendError) -> Result<(), BackendError> {
        if !matches!(error, BackendError::Unavailable { .. }) {
            return Err(error);
        }
        let random = self.random.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(wait) = plan_retry(self.attempt, self.began.elapsed(), self.policy, random) else {
            return Err(error);
        };
        tracing::debug!(attempt = self.attempt, wait_ms = wait.as_millis() as u64, error = %chain(&error), "asking the store again");
        tokio::time::sleep(wait).await;
        self.attempt += 1;
        if let Some(counters) = self.counters {
            counters.count_retry();
        }
        Ok(())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Asks the store under it again when that may help.
pub struct Retrying<B> {
    inner: B,
    policy: RetryPolicy,
    random: Mutex<Random>,
    counters: Option<Arc<Counters>>,
}

impl<B: Backend> Retrying<B> {
    /// With jitter of its own.
    pub fn new(inner: B, policy: RetryPolicy) -> Self {
        Self {
            inner,
            policy,
            random: Mutex::new(Random::new()),
            counters: None,
        }
    }

    /// With the same waits for the same seed.
    pub fn seeded(inner: B, policy: RetryPolicy, seed: u64) -> Self {
        Self {
            inner,
            policy,
            random: Mutex::new(Random::seeded(seed)),
            counters: None,
        }
    }

    /// Counts repetitions.
    pub fn counting(mut self, counters: Arc<Counters>) -> Self {
        self.counters = Some(counters);
        self
    }

    fn tries(&self) -> Tries<'_> {
        Tries::new(&self.policy, &self.random, self.counters.as_deref())
    }

    async fn retry<T, F>(&self, mut request: impl FnMut() -> F + Send) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>> + Send,
        T: Send,
    {
        let mut tries = self.tries();
        loop {
            match request().await {
                Ok(value) => return Ok(value),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Whether the store holds what we put: a lost answer to our own put, or somebody else's object.
    async fn is_ours(&self, name: &str, pieces: &[Bytes]) -> Result<bool, BackendError> {
        let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if self.inner.length(name).await? != length {
            return Ok(false);
        }
        for range in plan_compare(name, length) {
            let stored = self.inner.read_range(name, range.clone()).await?;
            if !equals(pieces, range.start, &stored) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Bytes of a pack's header, which is in the clear.
const PACK_HEADER: u64 = 96;
/// Bytes of a pack's trailer, which ends with a hash of everything before.
const PACK_TRAILER: u64 = 64;

/// What to read of an object of that name and length to know that it is ours.
fn plan_compare(name: &str, length: u64) -> Vec<Range<u64>> {
    if name.starts_with(names::PACKS) && length >= PACK_HEADER + PACK_TRAILER {
        return vec![0..PACK_HEADER, length - PACK_TRAILER..length];
    }
    let step = limits::READ_REQUEST_MAX;
    (0..length.div_ceil(step))
        .map(|i| i * step..length.min((i + 1) * step))
        .collect()
}

/// Whether the pieces, joined, hold `bytes` at `offset`.
fn equals(pieces: &[Bytes], offset: u64, mut bytes: &[u8]) -> bool {
    let mut skip = offset;
    for piece in pieces {
        let length = piece.len() as u64;
        if skip >= length {
            skip -= length;
            continue;
        }
        // Below the length of a slice.
        let piece = &piece[skip as usize..];
        skip = 0;
        let both = piece.len().min(bytes.len());
        if piece[..both] != bytes[..both] {
            return false;
        }
        bytes = &bytes[both..];
        if bytes.is_empty() {
            return true;
        }
    }
    bytes.is_empty()
}

#[async_trait]
impl<B: Backend> Backend for Retrying<B> {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        let mut tries = self.tries();
        loop {
            let error = match self.inner.create(name, pieces).await {
                Ok(()) => return Ok(()),
                Err(error @ BackendError::Exists { .. }) if !tries.is_first() => match self.is_ours(name, pieces).await
                {
                    Ok(true) => return Ok(()),
                    Ok(false) => return Err(error),
                    // Deleted between the two questions, or a store that does not see yet what it just refused: put again, within bounds.
                    Err(source @ BackendError::NotFound { .. }) => BackendError::Unavailable {
                        operation: "put",
                        name: name.into(),
                        source: source.into(),
                    },
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tries.again(error).await?;
        }
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        self.retry(|| self.inner.read(name, max)).await
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        self.retry(|| self.inner.read_range(name, range.clone())).await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.retry(|| self.inner.length(name)).await
    }

    /// Begins again only while nothing was given out: a listing has no order, so nobody could tell what was seen already.
    /// Stores that do list in order go on by themselves where a page failed ([`super::ObjectBackend`]).
    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        let prefix = prefix.to_owned();
        enum State<'a> {
            Begin(String),
            Given(BoxStream<'a, Result<Listed, BackendError>>),
        }
        futures::stream::unfold(State::Begin(prefix), move |state| async move {
            let prefix = match state {
                State::Begin(prefix) => prefix,
                State::Given(mut listed) => return listed.next().await.map(|item| (item, State::Given(listed))),
            };
            let mut tries = self.tries();
            loop {
                let mut listed = self.inner.list(&prefix);
                match listed.next().await {
                    None => return None,
                    Some(Ok(item)) => return Some((Ok(item), State::Given(listed))),
                    Some(Err(error)) => {
                        if let Err(error) = tries.again(error).await {
                            return Some((Err(error), State::Given(futures::stream::empty().boxed())));
                        }
                    }
                }
            }
        })
        .boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.retry(|| self.inner.delete(name)).await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::backend::faulty::{Fault, Faulty, On, Rule};
    use crate::backend::{Memory, Metered};
    use proptest::prelude::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn retrying(faulty: Faulty<Memory>) -> (Retrying<Metered<Faulty<Memory>>>, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let metered = Metered::new(faulty, counters.clone());
        (
            Retrying::seeded(metered, RetryPolicy::default(), 1).counting(counters.clone()),
            counters,
        )
    }

    proptest! {
        #[test]
        fn a_plan_stays_within_its_policy(attempt in 1_u32..100, elapsed in 0_u64..400, random: u64) {
            let policy = RetryPolicy::default();
            let elapsed = Duration::from_secs(elapsed);
            if let Some(wait) = plan_retry(attempt, elapsed, &policy, random) {
                prop_assert!(attempt < policy.attempts_max);
                prop_assert!(wait <= policy.wait_max);
                prop_assert!(wait <= policy.wait_first * 2_u32.pow(attempt - 1));
                prop_assert!(elapsed + wait <= policy.time_max);
            } else {
                prop_assert!(attempt >= policy.attempts_max || elapsed + policy.wait_max > policy.time_max);
            }
        }
    }

    #[test]
    fn waits_double_up_to_their_bound_and_jitter_is_full() {
        let policy = RetryPolicy::default();
        let longest = |attempt| {
            plan_retry(attempt, Duration::ZERO, &policy, u64::MAX)
                .unwrap()
                .as_millis()
        };
        assert_eq!(
            (1..8).map(longest).collect::<Vec<_>>(),
            [200, 400, 800, 1600, 3200, 6400, 12800]
        );
        assert_eq!(plan_retry(3, Duration::ZERO, &policy, 0), Some(Duration::ZERO));
        assert_eq!(plan_retry(8, Duration::ZERO, &policy, 0), None);
        assert_eq!(plan_retry(1, Duration::ZERO, &RetryPolicy::NEVER, 0), None);
    }

    #[test]
    fn packs_are_compared_at_their_ends_and_others_whole() {
        assert_eq!(plan_compare("packs/00/w/1", 1000), [0..96, 936..1000]);
        assert_eq!(plan_compare("packs/00/w/1", 100), vec![0..100]);
        assert_eq!(plan_compare("index/w/1", 0), Vec::<Range<u64>>::new());
        let step = limits::READ_REQUEST_MAX;
        assert_eq!(plan_compare("index/w/1", step + 1), [0..step, step..step + 1]);
    }

    #[test]
    fn pieces_are_compared_over_their_joints() {
        let pieces = [bytes("abc"), Bytes::new(), bytes("defg")];
        assert!(equals(&pieces, 0, b"abcdefg"));
        assert!(equals(&pieces, 2, b"cde"));
        assert!(equals(&pieces, 3, b"defg"));
        assert!(equals(&pieces, 7, b""));
        assert!(!equals(&pieces, 2, b"cdf"));
        assert!(!equals(&pieces, 6, b"gh"));
        assert!(!equals(&pieces, 8, b"x"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_work_later_is_asked_again() {
        let memory = Memory::new();
        memory.replace("a", "x");
        let (store, counters) = retrying(
            Faulty::new(memory.clone(), 1)
                .rule(Rule::call(0, Fault::Unavailable))
                .rule(Rule::call(1, Fault::Unavailable)),
        );
        assert_eq!(store.read("a", 9).await.unwrap(), "x");
        assert_eq!((counters.snapshot().gets, counters.snapshot().retries), (3, 2));

        for fault in [Fault::Denied, Fault::NotFound, Fault::Full, Fault::Refused] {
            let (store, counters) = retrying(Faulty::new(memory.clone(), 1).rule(Rule::call(0, fault)));
            store.read("a", 9).await.unwrap_err();
            assert_eq!(counters.snapshot().gets, 1, "{fault:?} was asked again");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_is_given_up_within_the_policy() {
        let (store, counters) = retrying(Faulty::new(Memory::new(), 1).rule(Rule::always(Fault::Unavailable)));
        let began = Instant::now();
        assert!(matches!(store.length("a").await, Err(BackendError::Unavailable { .. })));
        assert_eq!(counters.snapshot().heads, 8);
        assert!(began.elapsed() <= RetryPolicy::default().time_max);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_to_our_own_put_is_success() {
        for name in ["packs/00/w/00000000", "index/w/00000000"] {
            let memory = Memory::new();
            let (store, counters) = retrying(Faulty::new(memory.clone(), 1).rule(Rule::call(0, Fault::LostAnswer)));
            let pieces = [Bytes::from(vec![1; 1000]), Bytes::from(vec![2; 1000])];
            store.create(name, &pieces).await.unwrap();
            assert_eq!(counters.snapshot().puts, 2);
            assert_eq!(memory.objects()[name].len(), 2000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exists_after_an_unclear_failure_is_told_when_the_bytes_differ() {
        let ours = Bytes::from(vec![1; 1000]);
        let mut other_end = ours.to_vec();
        other_end[999] = 2;
        let mut other_middle = ours.to_vec();
        other_middle[500] = 2;
        // Seen in a pack's header or trailer and anywhere in others; what differs only inside a pack shows in its trailer's hash.
        for (name, stored) in [
            ("packs/00/w/00000000", other_end.clone()),
            ("packs/00/w/00000000", ours[..999].to_vec()),
            ("points/i/p.pb", other_middle),
            ("points/i/p.pb", Vec::new()),
        ] {
            let memory = Memory::new();
            memory.replace(name, stored);
            let (store, _) = retrying(Faulty::new(memory, 1).rule(Rule::call(0, Fault::Unavailable)));
            let error = store.create(name, std::slice::from_ref(&ours)).await.unwrap_err();
            assert!(matches!(error, BackendError::Exists { .. }), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exists_at_the_first_try_is_not_ours_even_when_equal() {
        let memory = Memory::new();
        memory.replace("a", "x");
        let (store, counters) = retrying(Faulty::new(memory, 1));
        assert!(matches!(
            store.create("a", &[bytes("x")]).await,
            Err(BackendError::Exists { .. })
        ));
        assert_eq!(counters.snapshot().requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unclear_failure_while_comparing_is_asked_again() {
        let memory = Memory::new();
        let faulty = Faulty::new(memory, 1)
            .rule(Rule::call(0, Fault::LostAnswer))
            .rule(Rule::call(2, Fault::Unavailable));
        let (store, counters) = retrying(faulty);
        store.create("a", &[bytes("x")]).await.unwrap();
        assert_eq!(counters.snapshot().puts, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_begins_again_only_while_nothing_was_given() {
        let memory = Memory::new();
        for i in 0..5 {
            memory.replace(&format!("a/{i}"), "x");
        }
        let (store, counters) = retrying(Faulty::new(memory.clone(), 1).rule(Rule::call(0, Fault::Unavailable)));
        let listed: Vec<_> = store.list("a/").collect().await;
        assert_eq!(listed.len(), 5);
        assert!(listed.iter().all(Result::is_ok));
        assert_eq!(counters.snapshot().lists, 2);

        let (store, counters) = retrying(Faulty::new(memory, 1).rule(Rule::call(0, Fault::LostAnswer).on(On::List)));
        let listed: Vec<_> = store.list("a/").collect().await;
        assert_eq!(listed.iter().filter(|item| item.is_ok()).count(), 2);
        assert!(listed.last().unwrap().is_err(), "a listing cut short must say so");
        assert_eq!(counters.snapshot().lists, 1);
    }
}
