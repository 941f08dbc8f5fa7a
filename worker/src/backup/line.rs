//! The line from segments to durable packs: frames, and the packer behind them. A backup of disks and the reading of a range both work on one.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use tresor_storage::ids::Writer;
use tresor_storage::index::{ChunkIndex, IndexSession};
use tresor_storage::vault::{PackWriter, Uploads, Vault, Written};

use super::frames::{Frames, QUEUE};
use super::packer::{Packer, Produced, Product};
use super::read::{Lane, ReadError, read_disks};
use super::segment::{BufferPool, DiskContext, KnownDamage};
use super::{BackupCounts, BackupDisk, Effort, Steering};
use crate::cores::Cores;
use crate::error::WorkerError;
use crate::source::Steadiness;

/// What all disks of a line share.
pub(super) struct Line<'a> {
    vault: &'a Arc<Vault>,
    index: &'a Arc<dyn ChunkIndex>,
    steering: &'a Steering,
    session: IndexSession,
    writer: Writer,
    effort: Effort,
    allow_live: bool,
    pub(super) damage: Arc<KnownDamage>,
    cores: Arc<Cores>,
    buffers: Arc<BufferPool>,
}

/// Damage that is known of the vault; an index that does not tell costs checks, never a backup.
async fn known_damage(index: &dyn ChunkIndex) -> KnownDamage {
    match index.damage().await {
        Ok(damage) => KnownDamage::new(damage),
        Err(error) => {
            tracing::warn!(%error, "index does not tell known damage");
            KnownDamage::default()
        }
    }
}

impl<'a> Line<'a> {
    pub(super) async fn new(
        (vault, index): (&'a Arc<Vault>, &'a Arc<dyn ChunkIndex>),
        steering: &'a Steering,
        session: IndexSession,
        writer: Writer,
        effort: Effort,
        allow_live: bool,
    ) -> Result<Self, WorkerError> {
        Ok(Self {
            vault,
            index,
            steering,
            session,
            writer,
            effort,
            allow_live,
            damage: Arc::new(known_damage(index.as_ref()).await),
            cores: Arc::new(Cores::new(effort.cores)?),
            buffers: Arc::default(),
        })
    }

    /// What the segments of a disk share.
    pub(super) fn context(
        &self,
        disk: &BackupDisk,
        parent: Option<Arc<tresor_storage::recipe::Tree>>,
    ) -> Result<Arc<DiskContext>, WorkerError> {
        let vault = self.vault;
        Ok(Arc::new(DiskContext {
            vault: Arc::clone(vault),
            index: Arc::clone(self.index),
            session: self.session,
            cutter: vault.cutter()?,
            prints: vault.fingerprinter()?,
            source: Arc::clone(&disk.source),
            disk: disk.name.clone(),
            parent,
            damage: Arc::clone(&self.damage),
            defers: !self.allow_live,
            cores: Arc::clone(&self.cores),
            buffers: Arc::clone(&self.buffers),
            progress: Arc::clone(&self.steering.progress),
        }))
    }

    /// Reads all lanes to their ends. When this returns well, everything that was made is durable.
    pub(super) async fn run(
        &self,
        lanes: &[Lane],
        products: Vec<Product>,
        uploads: &Arc<Uploads>,
        counts: &mut BackupCounts,
    ) -> Result<(Vec<Produced>, Written), WorkerError> {
        let (to_packer, from_frames) = mpsc::channel(QUEUE);
        #[expect(
            clippy::disallowed_methods,
            reason = "one list a pack, packs come of frames only, and who sends frames takes the lists before it sends more"
        )]
        let (settled_in, settled_out) = mpsc::unbounded_channel();
        let mut frames = Frames::new(
            to_packer,
            settled_out,
            Arc::clone(&self.cores),
            self.effort,
            Arc::clone(&self.steering.progress),
        );
        let pack_writer = PackWriter::new(
            Arc::clone(self.vault),
            Arc::clone(self.index),
            self.session,
            self.writer,
        );
        let packer = Packer::new(
            pack_writer.with_uploads(Arc::clone(uploads)),
            products,
            Arc::clone(&self.steering.progress),
            settled_in,
            frames.coded_buffers(),
        );
        // Dropped with this future, so that after an error or a stop nothing goes on but the packs that are being put.
        let mut packer = AbortOnDropHandle::new(tokio::spawn(packer.run(from_frames).in_current_span()));
        let read = read_disks(lanes, self.effort.cores, &mut frames, counts).await;
        counts.chunks_new += frames.chunks_new;
        counts.chunks_known += frames.chunks_known;
        counts.bytes_new += frames.bytes_new;
        drop(frames);
        match read {
            Err(ReadError::Worker(error)) => return Err(*error),
            // The packer's own error, below, says why.
            Ok(()) | Err(ReadError::PackerGone) => {}
        }
        match (&mut packer).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(WorkerError::Interrupted),
            },
        }
    }

    /// Only after the last read can one say whether what was read was one state of the disk. Answers whether it is a live one that was allowed.
    pub(super) async fn check_steady(&self, context: &DiskContext) -> Result<bool, WorkerError> {
        let steadiness = context.source.finish().await.map_err(|source| WorkerError::Source {
            disk: context.disk.clone(),
            source,
        })?;
        match steadiness {
            Steadiness::Steady => Ok(false),
            Steadiness::Changed { .. } if self.allow_live => Ok(true),
            Steadiness::Changed { why } => Err(WorkerError::Changed {
                disk: context.disk.clone(),
                why,
            }),
        }
    }
}
