//! A store in memory that counts what is read of it.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tresor_storage::backend::{Backend, BackendError, Listed, Memory};

/// A store that counts what was read of it.
#[derive(Default)]
pub(super) struct Counted {
    inner: Memory,
    reads: AtomicU64,
    lists: AtomicU64,
    pack_lists: AtomicU64,
}

impl Counted {
    /// Reads of objects, and listings.
    pub(super) fn reads(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.lists.load(Ordering::Relaxed))
    }

    /// Listings of the packs.
    pub(super) fn pack_lists(&self) -> u64 {
        self.pack_lists.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Backend for Counted {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        self.inner.create(name, pieces).await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read(name, max).await
    }

    async fn read_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes, BackendError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read_range(name, range).await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.inner.length(name).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        if prefix == "packs/" {
            self.pack_lists.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.list(prefix)
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.inner.delete(name).await
    }
}
