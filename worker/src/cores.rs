//! Threads that compute: as many as cores may be used, so that cutting and compressing neither wait for each other's wake-ups nor take more.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::oneshot;

use crate::error::WorkerError;

/// Threads for work that never waits. What is given first begins first.
#[derive(Debug)]
pub(crate) struct Cores {
    threads: rayon_core::ThreadPool,
}

impl Cores {
    /// Starts that many threads, one at least.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(crate) fn new(count: usize) -> Result<Self, WorkerError> {
        let threads = rayon_core::ThreadPoolBuilder::new()
            .num_threads(count.max(1))
            .thread_name(|number| format!("tresor-core-{number}"))
            .build()
            .map_err(|error| WorkerError::Threads(error.to_string()))?;
        Ok(Self { threads })
    }

    /// Begins `call` as soon as a core is free, whether or not the future is polled. If the future is dropped the call still ends, unheard.
    ///
    /// # Panics
    /// The future panics as the call did.
    pub(crate) fn run<T, F>(&self, call: F) -> impl Future<Output = T> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (done_in, done) = oneshot::channel();
        self.threads.spawn_fifo(move || {
            // Nobody may be there to hear of it any more.
            let _ = done_in.send(catch_unwind(AssertUnwindSafe(call)));
        });
        async move {
            match done.await {
                Ok(Ok(value)) => value,
                Ok(Err(panic)) => resume_unwind(panic),
                Err(_) => unreachable!("every call is begun and answers"),
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::Cores;

    #[tokio::test]
    async fn what_is_begun_runs_without_being_polled_and_at_most_on_that_many_threads() {
        let cores = Cores::new(2).unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
        let waiting: Vec<_> = (0..32)
            .map(|_| {
                let sender = sender.clone();
                cores.run(move || {
                    let _ = sender.blocking_send(std::thread::current().name().map(str::to_owned));
                })
            })
            .collect();
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..32 {
            names.insert(receiver.recv().await.unwrap().unwrap());
        }
        assert!(names.iter().all(|name| name.starts_with("tresor-core-")), "{names:?}");
        assert!(names.len() <= 2, "{names:?}");
        for one in waiting {
            one.await;
        }
    }

    #[tokio::test]
    async fn a_panic_reaches_who_waits_and_the_thread_lives_on() {
        let cores = Cores::new(1).unwrap();
        let panicking = tokio::spawn(cores.run(|| panic!("seen")));
        assert!(panicking.await.unwrap_err().is_panic());
        assert_eq!(cores.run(|| 7).await, 7);
    }
}
