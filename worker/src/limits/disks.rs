//! Disks of a host within its limit: what is read from them, and what is written to them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tresor_storage::throttle::{Direction, Pace};

use crate::extent::Extent;
use crate::sink::{DiskSink, SinkError};
use crate::source::{DiskSource, SourceDescription, SourceError, Steadiness};

/// Reads are cut at multiples of this where they are limited: disks are read by sectors and pages.
const GRAIN: usize = 4096;

struct PacedSource {
    inner: Arc<dyn DiskSource>,
    pace: Pace,
}

/// A disk that is read as fast as the pace lets through.
pub(crate) fn paced_source(inner: Arc<dyn DiskSource>, pace: Pace) -> Arc<dyn DiskSource> {
    Arc::new(PacedSource { inner, pace })
}

#[async_trait]
impl DiskSource for PacedSource {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn description(&self) -> &SourceDescription {
        self.inner.description()
    }

    async fn allocated(&self, within: Extent) -> Result<Vec<Extent>, SourceError> {
        self.inner.allocated(within).await
    }

    async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, SourceError> {
        let _permit = self.pace.request().await;
        if self.pace.try_take(Direction::Upload, buffer.len()) {
            return self.inner.read(offset, buffer).await;
        }
        // Parts of one buffer, joined again without copying.
        let mut rest = buffer;
        let mut whole = rest.split_to(0);
        while !rest.is_empty() {
            let slice = self.pace.slice(Direction::Upload).next_multiple_of(GRAIN);
            let part = rest.split_to(slice.min(rest.len()));
            self.pace.take(Direction::Upload, part.len()).await;
            let at = offset + whole.len() as u64;
            whole.unsplit(self.inner.read(at, part).await?);
        }
        Ok(whole)
    }

    async fn finish(&self) -> Result<Steadiness, SourceError> {
        self.inner.finish().await
    }
}

struct PacedSink {
    inner: Arc<dyn DiskSink>,
    pace: Pace,
}

/// A disk that is written as fast as the pace lets through.
pub(crate) fn paced_sink(inner: Arc<dyn DiskSink>, pace: Pace) -> Arc<dyn DiskSink> {
    Arc::new(PacedSink { inner, pace })
}

#[async_trait]
impl DiskSink for PacedSink {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn is_zeroed(&self) -> bool {
        self.inner.is_zeroed()
    }

    async fn write(&self, offset: u64, data: Vec<Bytes>) -> Result<(), SinkError> {
        let _permit = self.pace.request().await;
        let length = data.iter().map(Bytes::len).sum();
        self.pace.take(Direction::Download, length).await;
        self.inner.write(offset, data).await
    }

    async fn write_runs(&self, runs: Vec<(u64, Vec<Bytes>)>) -> Result<(), SinkError> {
        let length = runs.iter().flat_map(|(_, data)| data).map(Bytes::len).sum();
        if self.pace.try_take(Direction::Download, length) {
            let _permit = self.pace.request().await;
            return self.inner.write_runs(runs).await;
        }
        for (offset, data) in runs {
            self.write(offset, data).await?;
        }
        Ok(())
    }

    async fn zero(&self, extent: Extent) -> Result<(), SinkError> {
        self.inner.zero(extent).await
    }

    async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, SinkError> {
        self.inner.read(offset, buffer).await
    }

    async fn finish(&self) -> Result<(), SinkError> {
        self.inner.finish().await
    }

    async fn abandon(&self) {
        self.inner.abandon().await;
    }
}
