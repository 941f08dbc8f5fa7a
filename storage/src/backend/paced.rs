//! Throttles before a store that cannot pace its transfers itself: what is put waits whole, what was got waits before it is handed on.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::{Backend, BackendError, Listed};
use crate::throttle::{Direction, Pace};

/// Keeps transfers of a store under it to what the throttles let through, over each whole object.
pub struct Paced<B> {
    inner: B,
    pace: Pace,
}

impl<B: Backend> Paced<B> {
    /// With the throttles of a job.
    pub fn new(inner: B, pace: Pace) -> Self {
        Self { inner, pace }
    }

    async fn got(&self, bytes: Bytes) -> Bytes {
        self.pace.of_request().take(Direction::Download, bytes.len()).await;
        bytes
    }
}

#[async_trait]
impl<B: Backend> Backend for Paced<B> {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        let length = pieces.iter().map(Bytes::len).sum();
        self.pace.of_request().take(Direction::Upload, length).await;
        self.inner.create(name, pieces).await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let bytes = self.inner.read(name, max).await?;
        Ok(self.got(bytes).await)
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let bytes = self.inner.read_range(name, range).await?;
        Ok(self.got(bytes).await)
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.inner.length(name).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        self.inner.list(prefix)
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.inner.delete(name).await
    }
}
