//! Packs on their way into the store.
//!
//! A pack counts for later backups once its pieces are in the index. Who stops between the put and the index leaves a pack that is paid for and that
//! nobody finds, so a stop lets what is on its way arrive, for a bounded time.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::VaultError;
use crate::error::Result;
use tracing::Instrument as _;

/// Puts that outlive who began them, until they are settled or the last handle is dropped.
#[derive(Debug, Default)]
pub struct Uploads {
    running: TaskTracker,
    stop: CancellationToken,
}

impl Uploads {
    /// Begins a put. [`VaultError::Stopped`] when it was ended before it came through.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        put: impl Future<Output = Result<T>> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let put = self.stop.clone().run_until_cancelled_owned(put);
        self.running
            .spawn(async move { put.await.unwrap_or_else(|| Err(VaultError::Stopped.into())) }.in_current_span())
    }

    /// Waits, no longer than `patience`, for the puts that are under way, and ends the others. No put goes on when this returns, and none begins.
    pub async fn settle(&self, patience: Duration) {
        self.running.close();
        if tokio::time::timeout(patience, self.running.wait()).await.is_err() {
            tracing::info!(packs = self.running.len(), "packs on their way were given up");
        }
        self.stop.cancel();
        self.running.wait().await;
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    fn is_stopped<T>(ended: std::result::Result<Result<T>, tokio::task::JoinError>) -> bool {
        matches!(ended.unwrap(), Err(Error::Vault(VaultError::Stopped)))
    }

    #[tokio::test]
    async fn what_is_on_its_way_arrives_before_the_wait_ends() {
        let uploads = Uploads::default();
        let gate = Arc::new(Semaphore::new(0));
        let inner = Arc::clone(&gate);
        let put = uploads.spawn(async move {
            inner.acquire().await.unwrap().forget();
            Ok(7)
        });
        let open = async {
            tokio::task::yield_now().await;
            gate.add_permits(1);
        };
        tokio::join!(uploads.settle(Duration::from_secs(60)), open);
        assert_eq!(put.await.unwrap().unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_that_hangs_is_ended_when_patience_is() {
        let uploads = Uploads::default();
        let put = uploads.spawn(std::future::pending::<Result<()>>());
        uploads.settle(Duration::from_secs(5)).await;
        assert!(put.is_finished() && is_stopped(put.await));
        assert!(is_stopped(uploads.spawn(std::future::pending::<Result<()>>()).await));
    }

    #[tokio::test]
    async fn puts_end_with_their_last_owner() {
        let uploads = Uploads::default();
        let put = uploads.spawn(std::future::pending::<Result<()>>());
        drop(uploads);
        assert!(is_stopped(put.await));
    }
}
