//! Bounds of what is in flight to one store, and a deadline for each request.
//!
//! Permits are taken in one order (bytes, then a slot, then what the job's throttles let through), in turn, and given back when the request ends or is
//! dropped. The deadline begins when the request does, and what a body waits for throttles is added to it: waiting for a permit is our queue, not the
//! store's silence.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{Backend, BackendError, Listed};
use crate::limits;
use crate::throttle::{Pace, Waited};

/// What one store may be asked at once, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight.
    pub requests: usize,
    /// Bytes of reads in flight.
    pub read_bytes: usize,
    /// Bytes of puts in flight.
    pub put_bytes: usize,
    /// How long a store may take to answer anything.
    pub deadline: Duration,
    /// The slowest transfer that is not given up, bytes a second; the time it takes is added to the deadline.
    pub speed_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: limits::REQUESTS_IN_FLIGHT,
            read_bytes: limits::READ_FLIGHT_BYTES,
            put_bytes: limits::PACKS_IN_FLIGHT * limits::PACK_MAX,
            deadline: Duration::from_secs(30),
            speed_min: 1 << 20,
        }
    }
}

impl Limits {
    /// How long a request that moves `bytes` may take.
    pub fn time_max(&self, bytes: u64) -> Duration {
        let transfer = Duration::from_secs(bytes / self.speed_min.max(1));
        self.deadline.saturating_add(transfer)
    }
}

/// A read of unknown size is first tried with this much: small objects are read many at once, and a large one costs a second request.
const READ_FIRST: usize = 1 << 20;

/// Names that a store lists in one answer: S3, Azure and Google give a thousand or more.
const LISTED_PER_REQUEST: usize = 1000;

/// What may be in flight still.
#[derive(Debug)]
pub(super) struct Flight {
    requests: Semaphore,
    reads: Semaphore,
    puts: Semaphore,
}

impl Flight {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            requests: Semaphore::new(limits.requests.max(1)),
            reads: Semaphore::new(limits.read_bytes.clamp(1, u32::MAX as usize)),
            puts: Semaphore::new(limits.put_bytes.clamp(1, u32::MAX as usize)),
        }
    }
}

/// Keeps the store under it within [`Limits`].
pub struct Limited<B> {
    inner: B,
    limits: Limits,
    shared: Arc<Flight>,
    /// For a job with limits of its own: slow as it is told to be, it must not hold what others of the store wait for.
    own: Flight,
    pace: Pace,
}

impl<B: Backend> Limited<B> {
    /// Bounds of its own: two wrappers of one store do not know of each other.
    pub fn new(inner: B, limits: Limits) -> Self {
        Self::sharing(inner, limits, Arc::new(Flight::new(limits)), Pace::default())
    }

    /// Bounds that are shared, for a job with these throttles.
    pub(super) fn sharing(inner: B, limits: Limits, shared: Arc<Flight>, pace: Pace) -> Self {
        Self {
            inner,
            limits,
            shared,
            own: Flight::new(limits),
            pace,
        }
    }

    fn flight(&self) -> &Flight {
        match self.pace.is_own() {
            true => &self.own,
            false => &self.shared,
        }
    }

    async fn within<T>(
        &self,
        operation: &'static str,
        name: &str,
        bytes: u64,
        request: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let _slot = take(&self.flight().requests, 1, 1).await;
        let _permit = self.pace.request().await;
        self.timed(operation, name, bytes, request).await?
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        name: &str,
        bytes: u64,
        request: impl Future<Output = T> + Send,
    ) -> Result<T, BackendError> {
        let time_max = self.limits.time_max(bytes);
        let began = Instant::now();
        let waited = Arc::new(Waited::default());
        let mut request = std::pin::pin!(Arc::clone(&waited).scope(request));
        let mut deadline = began + time_max;
        loop {
            tokio::select! {
                biased;
                answer = &mut request => return Ok(answer),
                () = tokio::time::sleep_until(deadline) => {}
            }
            let later = began + time_max + waited.total();
            if later <= deadline {
                return Err(BackendError::Unavailable {
                    operation,
                    name: name.into(),
                    source: format!("no answer within {} s", time_max.as_secs_f32()).into(),
                });
            }
            deadline = later;
        }
    }

    async fn read_at_most(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let _bytes = take(&self.flight().reads, max, self.limits.read_bytes).await;
        self.within("read", name, max as u64, self.inner.read(name, max)).await
    }
}

/// Waits in turn for `count` permits of `total`; a single request larger than all of them takes all.
async fn take(permits: &Semaphore, count: usize, total: usize) -> SemaphorePermit<'_> {
    let count = count.min(total).clamp(1, u32::MAX as usize) as u32;
    permits
        .acquire_many(count)
        .await
        .expect("the semaphores are never closed")
}

#[async_trait]
impl<B: Backend> Backend for Limited<B> {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let _bytes = take(&self.flight().puts, length, self.limits.put_bytes).await;
        self.within("put", name, length as u64, self.inner.create(name, pieces))
            .await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        match self.read_at_most(name, max.min(READ_FIRST)).await {
            // Refused without having been read: now it is known what to make room for.
            Err(BackendError::TooLarge { length, .. }) if length <= max as u64 => {
                self.read_at_most(name, length as usize).await
            }
            Err(BackendError::TooLarge { name, length, .. }) => Err(BackendError::TooLarge {
                name,
                length,
                max: max as u64,
            }),
            result => result,
        }
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let length = super::range_length(name, &range)?;
        let _bytes = take(&self.flight().reads, length, self.limits.read_bytes).await;
        self.within("read", name, length as u64, self.inner.read_range(name, range))
            .await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.within("read", name, 0, self.inner.length(name)).await
    }

    /// A slot is held while the store is asked for more, never while the caller works on what it got: a caller that reads what it lists
    /// would otherwise wait for itself.
    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        let prefix = prefix.to_owned();
        let listed = self.inner.list(&prefix);
        futures::stream::unfold(Some((listed, prefix, 0)), move |state| async move {
            let (mut listed, prefix, count) = state?;
            let _slot = take(&self.flight().requests, 1, 1).await;
            let _permit = match count % LISTED_PER_REQUEST {
                0 => Some(self.pace.request().await),
                _ => None,
            };
            match self.timed("list", &prefix, 0, listed.next()).await {
                Ok(item) => item.map(|item| (item, Some((listed, prefix, count + 1)))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.within("delete", name, 0, self.inner.delete(name)).await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures::future::join_all;

    use super::*;
    use crate::backend::faulty::{Fault, Faulty, Rule};
    use crate::backend::{Counters, Memory, Metered};

    /// Remembers how many requests, and how many bytes of reads, were in flight at most.
    #[derive(Default)]
    struct Watched {
        memory: Memory,
        now: AtomicUsize,
        most: AtomicUsize,
        bytes_now: AtomicUsize,
        bytes_most: AtomicUsize,
    }

    impl Watched {
        async fn watch(&self, bytes: usize) {
            let now = self.now.fetch_add(1, SeqCst) + 1;
            self.most.fetch_max(now, SeqCst);
            let bytes_now = self.bytes_now.fetch_add(bytes, SeqCst) + bytes;
            self.bytes_most.fetch_max(bytes_now, SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.now.fetch_sub(1, SeqCst);
            self.bytes_now.fetch_sub(bytes, SeqCst);
        }
    }

    #[async_trait]
    impl Backend for Watched {
        async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
            self.watch(pieces.iter().map(Bytes::len).sum()).await;
            self.memory.create(name, pieces).await
        }
        async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
            let bytes = self.memory.read(name, max).await?;
            self.watch(bytes.len()).await;
            Ok(bytes)
        }
        async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
            self.watch((range.end - range.start) as usize).await;
            self.memory.read_range(name, range).await
        }
        async fn length(&self, name: &str) -> Result<u64, BackendError> {
            self.watch(0).await;
            self.memory.length(name).await
        }
        fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
            self.memory.list(prefix)
        }
        async fn delete(&self, name: &str) -> Result<(), BackendError> {
            self.watch(0).await;
            self.memory.delete(name).await
        }
    }

    fn small() -> Limits {
        Limits {
            requests: 4,
            read_bytes: 1000,
            put_bytes: 500,
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_in_flight_are_bounded_and_the_bound_is_used() {
        let watched = Arc::new(Watched::default());
        watched.memory.replace("a", "x");
        let store = Limited::new(watched.clone(), small());
        for result in join_all((0..40).map(|_| store.length("a"))).await {
            result.unwrap();
        }
        assert_eq!(watched.most.load(SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_reads_and_of_puts_are_bounded() {
        let watched = Arc::new(Watched::default());
        watched.memory.replace("a", vec![0; 5000]);
        let store = Limited::new(watched.clone(), small());
        for result in join_all((0..20).map(|i| store.read_range("a", i * 10..i * 10 + 400))).await {
            result.unwrap();
        }
        assert_eq!(watched.bytes_most.load(SeqCst), 800);
        // One that is larger than the bound goes alone.
        for result in join_all((0..3).map(|_| store.read_range("a", 0..5000))).await {
            result.unwrap();
        }
        assert_eq!(watched.bytes_most.swap(0, SeqCst), 5000);

        let piece = Bytes::from(vec![0; 200]);
        let names: Vec<_> = (0..10).map(|i| format!("b/{i}")).collect();
        for result in join_all(
            names
                .iter()
                .map(|name| store.create(name, std::slice::from_ref(&piece))),
        )
        .await
        {
            result.unwrap();
        }
        assert_eq!(watched.bytes_most.load(SeqCst), 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_request_gives_its_permits_back() {
        let store = Limited::new(
            Faulty::new(Memory::new(), 1)
                .rule(Rule::call(0, Fault::Hang))
                .rule(Rule::call(1, Fault::Hang)),
            Limits { requests: 1, ..small() },
        );
        for _ in 0..2 {
            tokio::time::timeout(Duration::from_secs(1), store.read_range("a", 0..1000))
                .await
                .unwrap_err();
        }
        assert!(matches!(
            store.read_range("a", 0..1000).await,
            Err(BackendError::NotFound { .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_unavailable_after_a_time_by_size() {
        let store = Limited::new(
            Faulty::new(Memory::new(), 1).rule(Rule::always(Fault::Hang)),
            Limits::default(),
        );
        let began = tokio::time::Instant::now();
        assert!(matches!(store.length("a").await, Err(BackendError::Unavailable { .. })));
        assert_eq!(began.elapsed().as_secs(), 30);
        let began = tokio::time::Instant::now();
        let error = store.create("a", &[Bytes::from(vec![0; 8 << 20])]).await.unwrap_err();
        assert!(matches!(error, BackendError::Unavailable { operation: "put", .. }));
        assert_eq!(began.elapsed().as_secs(), 38);
        let listed: Vec<_> = store.list("a/").collect().await;
        assert!(matches!(listed.as_slice(), [Err(BackendError::Unavailable { .. })]));
    }

    #[tokio::test]
    async fn a_small_object_is_one_request_and_a_large_one_is_not_read_twice() {
        let counters = Arc::new(Counters::default());
        let memory = Memory::new();
        memory.replace("small", vec![0; READ_FIRST]);
        memory.replace("large", vec![0; READ_FIRST + 1]);
        let store = Limited::new(Metered::new(memory, counters.clone()), Limits::default());
        assert_eq!(store.read("small", usize::MAX).await.unwrap().len(), READ_FIRST);
        assert_eq!(counters.snapshot().gets, 1);
        assert_eq!(store.read("large", 2 * READ_FIRST).await.unwrap().len(), READ_FIRST + 1);
        assert_eq!(
            (counters.snapshot().gets, counters.snapshot().bytes_got),
            (3, 2 * READ_FIRST as u64 + 1)
        );
        let error = store.read("large", 10).await.unwrap_err();
        assert!(matches!(error, BackendError::TooLarge { length, max: 10, .. } if length == READ_FIRST as u64 + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_limit_is_not_given_up_and_holds_nobody_up() {
        use crate::backend::Paced;
        use crate::throttle::{Rates, Throttle};

        let rates = Rates {
            upload: Some(10_000),
            ..Rates::NONE
        };
        let (memory, limits) = (Memory::new(), Limits::default());
        let flight = Arc::new(Flight::new(limits));
        let of_job = |pace: Pace| {
            let paced = Paced::new(memory.clone(), pace.clone());
            Limited::sharing(paced, limits, Arc::clone(&flight), pace)
        };
        let slow = of_job(Pace::new(Arc::new(Throttle::new(rates)), []));
        let piece = [Bytes::from(vec![0; 10_000_000])];
        let (other, began) = (of_job(Pace::default()), Instant::now());
        let puts: Vec<String> = (0..20).map(|i| format!("slow/{i}")).collect();
        let mut slow_puts = std::pin::pin!(join_all(puts.iter().map(|name| slow.create(name, &piece))));
        tokio::select! {
            _ = &mut slow_puts => panic!("20000 s of bytes were put at once"),
            put = other.create("a", &piece) => put.unwrap(),
        }
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "another job waited for the slow one"
        );
        for put in slow_puts.await {
            put.unwrap();
        }
        assert!(began.elapsed() > Duration::from_secs(19_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_holds_no_slot_while_its_caller_works() {
        let memory = Memory::new();
        for i in 0..10 {
            memory.replace(&format!("a/{i}"), "x");
        }
        let store = Limited::new(memory, Limits { requests: 1, ..small() });
        let mut listed = store.list("a/");
        let mut count = 0;
        while let Some(item) = listed.next().await {
            store.length(&item.unwrap().name).await.unwrap();
            count += 1;
        }
        assert_eq!(count, 10);
    }
}
