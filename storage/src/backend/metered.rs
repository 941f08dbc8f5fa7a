//! Counting what a store was asked: the numbers behind metrics, costs and tests that count instead of timing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tracing::{Instrument as _, Span};

use super::{Backend, BackendError, Listed};

/// What a store was asked so far, counted as it happens. [`Counters::snapshot`] reads it.
#[derive(Debug, Default)]
pub struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_put: AtomicU64,
    bytes_got: AtomicU64,
    retries: AtomicU64,
    abandoned: AtomicU64,
    missing: AtomicU64,
    exists: AtomicU64,
    malformed: AtomicU64,
    denied: AtomicU64,
    full: AtomicU64,
    unavailable: AtomicU64,
    refused: AtomicU64,
    in_flight: AtomicU64,
    put_micros: AtomicU64,
    get_micros: AtomicU64,
    head_micros: AtomicU64,
    delete_micros: AtomicU64,
}

/// How long requests took that came to an end, and how many have not; listings are not timed, since who reads one decides how long it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Requests on their way now.
    pub in_flight: u64,
    /// Microseconds of puts, all together.
    pub put_micros: u64,
    /// Of reads.
    pub get_micros: u64,
    /// Of questions for a length.
    pub head_micros: u64,
    /// Of deletes.
    pub delete_micros: u64,
}

/// Counts of one moment; plain numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Puts that went out, repeated ones too.
    pub puts: u64,
    /// Reads of objects or ranges that went out.
    pub gets: u64,
    /// Questions for a length.
    pub heads: u64,
    /// Listings begun: one each, however many pages the store cut it into.
    pub lists: u64,
    /// Deletes that went out.
    pub deletes: u64,
    /// Bytes of puts that succeeded.
    pub bytes_put: u64,
    /// Bytes of reads that succeeded.
    pub bytes_got: u64,
    /// Requests repeated after an error.
    pub retries: u64,
    /// Requests given up before an answer: by a deadline, or because the caller stopped.
    pub abandoned: u64,
    /// Answers by what they said.
    pub errors: Errors,
}

/// Errors answered, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Errors {
    /// No such object.
    pub missing: u64,
    /// The name is taken.
    pub exists: u64,
    /// Shorter or larger than asked for.
    pub malformed: u64,
    /// No permission.
    pub denied: u64,
    /// No space.
    pub full: u64,
    /// May work later.
    pub unavailable: u64,
    /// Will not work.
    pub refused: u64,
}

impl Traffic {
    /// All requests that went out.
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.heads + self.lists + self.deletes
    }
}

impl Counters {
    /// The counts of now. Requests under way may be in one number and not yet in another.
    pub fn snapshot(&self) -> Traffic {
        Traffic {
            puts: self.puts.load(Relaxed),
            gets: self.gets.load(Relaxed),
            heads: self.heads.load(Relaxed),
            lists: self.lists.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            bytes_put: self.bytes_put.load(Relaxed),
            bytes_got: self.bytes_got.load(Relaxed),
            retries: self.retries.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            errors: Errors {
                missing: self.missing.load(Relaxed),
                exists: self.exists.load(Relaxed),
                malformed: self.malformed.load(Relaxed),
                denied: self.denied.load(Relaxed),
                full: self.full.load(Relaxed),
                unavailable: self.unavailable.load(Relaxed),
                refused: self.refused.load(Relaxed),
            },
        }
    }

    /// How long requests took.
    pub fn times(&self) -> Times {
        Times {
            in_flight: self.in_flight.load(Relaxed),
            put_micros: self.put_micros.load(Relaxed),
            get_micros: self.get_micros.load(Relaxed),
            head_micros: self.head_micros.load(Relaxed),
            delete_micros: self.delete_micros.load(Relaxed),
        }
    }

    pub(super) fn count_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    fn count_error(&self, error: &BackendError) {
        let counter = match error {
            BackendError::NotFound { .. } => &self.missing,
            BackendError::Exists { .. } => &self.exists,
            BackendError::Range { .. } | BackendError::TooLarge { .. } => &self.malformed,
            BackendError::Denied { .. } => &self.denied,
            BackendError::Full { .. } => &self.full,
            BackendError::Unavailable { .. } => &self.unavailable,
            BackendError::Refused { .. } | BackendError::Configuration { .. } => &self.refused,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// A request on its way, counted as abandoned unless it came to its end.
struct Pending<'a> {
    counters: &'a Counters,
    has_ended: bool,
}

impl<'a> Pending<'a> {
    fn begin(counters: &'a Counters) -> Self {
        counters.in_flight.fetch_add(1, Relaxed);
        Self {
            counters,
            has_ended: false,
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.counters.in_flight.fetch_sub(1, Relaxed);
        if !self.has_ended {
            self.counters.abandoned.fetch_add(1, Relaxed);
        }
    }
}

/// Counts each request that reaches the store under it.
pub struct Metered<B> {
    inner: B,
    counters: Arc<Counters>,
}

impl<B: Backend> Metered<B> {
    /// Counts into `counters`.
    pub fn new(inner: B, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }

    fn puts(&self) -> (&AtomicU64, &AtomicU64) {
        (&self.counters.puts, &self.counters.put_micros)
    }

    fn gets(&self) -> (&AtomicU64, &AtomicU64) {
        (&self.counters.gets, &self.counters.get_micros)
    }

    fn heads(&self) -> (&AtomicU64, &AtomicU64) {
        (&self.counters.heads, &self.counters.head_micros)
    }

    fn deletes(&self) -> (&AtomicU64, &AtomicU64) {
        (&self.counters.deletes, &self.counters.delete_micros)
    }

    async fn count<T>(
        &self,
        span: Span,
        (requests, micros): (&AtomicU64, &AtomicU64),
        request: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        requests.fetch_add(1, Relaxed);
        let mut pending = Pending::begin(&self.counters);
        let began = Instant::now();
        let result = request.instrument(span.clone()).await;
        pending.has_ended = true;
        micros.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        if let Err(error) = &result {
            self.counters.count_error(error);
        }
        span.record("outcome", result.as_ref().map_or_else(outcome, |_| "done"));
        result
    }
}

/// The span of a request: its kind and what it is for, never a name or an address. Where nobody looks at it, it is none.
fn span(kind: &'static str, name: &str) -> Span {
    tracing::debug_span!(
        "store",
        kind,
        class = class(name),
        bytes = tracing::field::Empty,
        outcome = tracing::field::Empty
    )
}

/// What an object is of, by its name: `packs`, `points`, …
fn class(name: &str) -> &str {
    name.split_once('/').map_or(name, |(class, _)| class)
}

/// What an error is, in a word.
fn outcome(error: &BackendError) -> &'static str {
    match error {
        BackendError::NotFound { .. } => "missing",
        BackendError::Exists { .. } => "exists",
        BackendError::Range { .. } | BackendError::TooLarge { .. } => "malformed",
        BackendError::Denied { .. } => "denied",
        BackendError::Full { .. } => "full",
        BackendError::Unavailable { .. } => "unavailable",
        BackendError::Refused { .. } | BackendError::Configuration { .. } => "refused",
    }
}

#[async_trait]
impl<B: Backend> Backend for Metered<B> {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let span = span("put", name);
        span.record("bytes", length);
        self.count(span, self.puts(), self.inner.create(name, pieces)).await?;
        self.counters.bytes_put.fetch_add(length as u64, Relaxed);
        Ok(())
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let span = span("get", name);
        let bytes = self
            .count(span.clone(), self.gets(), self.inner.read(name, max))
            .await?;
        span.record("bytes", bytes.len());
        self.counters.bytes_got.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes)
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let span = span("get", name);
        let read = self.inner.read_range(name, range);
        let bytes = self.count(span.clone(), self.gets(), read).await?;
        span.record("bytes", bytes.len());
        self.counters.bytes_got.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes)
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        let span = span("head", name);
        self.count(span, self.heads(), self.inner.length(name)).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        let mut begun = false;
        let listed = self.inner.list(prefix);
        // Counted when it is first asked for something: a listing that nobody reads sends no request.
        futures::stream::unfold(listed, move |mut listed| {
            if !std::mem::replace(&mut begun, true) {
                self.counters.lists.fetch_add(1, Relaxed);
            }
            async move {
                let item = listed.next().await?;
                if let Err(error) = &item {
                    self.counters.count_error(error);
                }
                Some((item, listed))
            }
        })
        .boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        let span = span("delete", name);
        self.count(span, self.deletes(), self.inner.delete(name)).await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::backend::Memory;
    use crate::backend::faulty::{Fault, Faulty, Rule};

    #[tokio::test]
    async fn every_request_and_byte_is_counted() {
        let counters = Arc::new(Counters::default());
        let store = Metered::new(Memory::new(), counters.clone());
        store
            .create("a/b", &[Bytes::from_static(b"one"), Bytes::from_static(b"two!")])
            .await
            .unwrap();
        store.create("a/b", &[]).await.unwrap_err();
        assert_eq!(store.read("a/b", 100).await.unwrap().len(), 7);
        store.read("a/b", 3).await.unwrap_err();
        assert_eq!(store.read_range("a/b", 1..3).await.unwrap().len(), 2);
        store.length("a/b").await.unwrap();
        store.length("a/c").await.unwrap_err();
        assert_eq!(store.list("a/").collect::<Vec<_>>().await.len(), 1);
        drop(store.list("a/"));
        store.delete("a/b").await.unwrap();
        let traffic = counters.snapshot();
        assert_eq!(
            traffic,
            Traffic {
                puts: 2,
                gets: 3,
                heads: 2,
                lists: 1,
                deletes: 1,
                bytes_put: 7,
                bytes_got: 9,
                errors: Errors {
                    missing: 1,
                    exists: 1,
                    malformed: 1,
                    ..Errors::default()
                },
                ..Traffic::default()
            }
        );
        assert_eq!(traffic.requests(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_given_up_is_counted_as_sent_and_abandoned() {
        let counters = Arc::new(Counters::default());
        let store = Metered::new(
            Faulty::new(Memory::new(), 1).rule(Rule::always(Fault::Hang)),
            counters.clone(),
        );
        tokio::time::timeout(std::time::Duration::from_secs(1), store.length("a"))
            .await
            .unwrap_err();
        let traffic = counters.snapshot();
        assert_eq!((traffic.heads, traffic.abandoned), (1, 1));
        assert_eq!(
            counters.times(),
            Times::default(),
            "what was given up took no time that means something"
        );
    }

    #[tokio::test]
    async fn a_request_is_on_its_way_until_its_end_and_takes_time() {
        let counters = Arc::new(Counters::default());
        let slow = Faulty::new(Memory::new(), 1).rule(Rule::always(Fault::Hang));
        let store = Metered::new(slow, counters.clone());
        let mut hanging = Box::pin(store.length("a"));
        assert!(futures::poll!(&mut hanging).is_pending());
        assert_eq!(counters.times().in_flight, 1);
        drop(hanging);
        assert_eq!(counters.times().in_flight, 0);
        let store = Metered::new(Memory::new(), counters.clone());
        for n in 0..1000 {
            store.create(&format!("a/{n}"), &[]).await.unwrap();
        }
        assert!(counters.times().put_micros > 0, "a thousand puts take a microsecond");
    }
}
