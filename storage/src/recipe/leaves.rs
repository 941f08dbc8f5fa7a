//! The leaves of a range of a disk, stored for a recipe that somebody else writes.

use super::builder::NodeSink;
use super::node::Child;
use crate::chunk::Fingerprint;
use crate::error::Result;
use crate::ids::ChunkId;

/// Bytes of leaves that go into one recipe frame; as in a recipe that is written whole.
const BATCH_BYTES: usize = 256 << 10;

/// What a segment of a range became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeLeaf {
    /// Nothing is there.
    Hole,
    /// Its leaf was stored already.
    Stored(Child),
    /// Its leaf was stored with the range: the nodes above it have hints of their own.
    New(Child),
}

/// The leaves of a range, in order.
#[derive(Debug, Default)]
pub struct LeafRun {
    done: Vec<RangeLeaf>,
    /// Those that wait: their places in `done`, names and bytes.
    waiting: Vec<(usize, Option<Fingerprint>)>,
    batch: Vec<(ChunkId, Vec<u8>)>,
    batch_bytes: usize,
}

impl LeafRun {
    /// Of no segment yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next segment is a hole.
    pub fn push_hole(&mut self) {
        self.done.push(RangeLeaf::Hole);
    }

    /// The next segment's leaf is stored already.
    pub fn push_stored(&mut self, leaf: Child) {
        self.done.push(RangeLeaf::Stored(leaf));
    }

    /// The next segment's leaf is new.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn push_new(
        &mut self,
        id: ChunkId,
        print: Option<Fingerprint>,
        bytes: Vec<u8>,
        sink: &mut dyn NodeSink,
    ) -> Result<()> {
        if self.batch_bytes >= BATCH_BYTES {
            self.flush(sink).await?;
        }
        self.batch_bytes += bytes.len();
        self.waiting.push((self.done.len(), print));
        self.batch.push((id, bytes));
        // Replaced when it is placed.
        self.done.push(RangeLeaf::Hole);
        Ok(())
    }

    /// Places what was collected so far, however little.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn flush(&mut self, sink: &mut dyn NodeSink) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let locations = sink.place_nodes(&self.batch).await?;
        for (((place, print), (id, _)), hint) in self.waiting.drain(..).zip(&self.batch).zip(locations) {
            self.done[place] = RangeLeaf::New(Child { id: *id, hint, print });
        }
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    /// Places what is left; answers what each segment became.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn finish(mut self, sink: &mut dyn NodeSink) -> Result<Vec<RangeLeaf>> {
        self.flush(sink).await?;
        Ok(self.done)
    }
}
