//! Writing packs: frames in, durable and indexed packs out.
//!
//! The order that everything rests on: a pack is durably put and its trailer read back, then its pieces go into the index (durably), then they
//! may be called known by others; index segments follow the packs that they list. Who commits a manifest calls [`PackWriter::finish`] first.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinHandle;

use super::context::Vault;
use super::names;
use super::uploads::Uploads;
use crate::backend::BackendError;
use crate::buffers::{Aligned, Pool};
use crate::error::{Doing, Error, FormatError, Result};
use crate::ids::{ChunkId, Location, PackId, Writer};
use crate::index::segment::SegmentBuilder;
use crate::index::{ChunkIndex, IndexSession};
use crate::limits::PACKS_IN_FLIGHT;
use crate::pack::{FinishedPack, PACK_ROOM, PackBuilder, PiecesBuilder, Placed, TRAILER};
use crate::recipe::NodeSink;
use crate::seal::{Compressed, FrameKind, ObjectKind, compress, seal_object};
use crate::vault::VaultError;

/// What a session wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Packs put.
    pub packs: u64,
    /// Index segments put.
    pub segments: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Name of the last index segment.
    pub last_segment: Option<String>,
    /// Packs whose pieces the index did not take: it must be rebuilt before it is relied on for sweeping; nothing else is harmed.
    pub packs_not_indexed: u64,
    /// Ids of the packs that the index took.
    pub ids_indexed: u64,
}

struct StoredPack {
    id: PackId,
    length: u64,
    footer_plain: Bytes,
    ids: Vec<ChunkId>,
    indexed: bool,
}

/// Writes the packs of one session's part.
pub struct PackWriter {
    vault: Arc<Vault>,
    index: Arc<dyn ChunkIndex>,
    session: IndexSession,
    writer: Writer,
    next_pack: u32,
    next_segment: u32,
    open: Option<PackBuilder>,
    /// Packs being filled or put.
    buffers: Arc<Pool<Aligned>>,
    uploads: Arc<Uploads>,
    putting: FuturesUnordered<JoinHandle<Result<StoredPack>>>,
    segment: SegmentBuilder,
    settled: Vec<ChunkId>,
    written: Written,
}

impl std::fmt::Debug for PackWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackWriter")
            .field("writer", &self.writer)
            .field("next_pack", &self.next_pack)
            .finish_non_exhaustive()
    }
}

impl PackWriter {
    /// Begins writing as `writer`, whose part nobody else has.
    pub fn new(vault: Arc<Vault>, index: Arc<dyn ChunkIndex>, session: IndexSession, writer: Writer) -> Self {
        Self {
            vault,
            index,
            session,
            writer,
            next_pack: 0,
            next_segment: 0,
            open: None,
            buffers: Pool::new(PACK_ROOM, PACKS_IN_FLIGHT + 1),
            uploads: Arc::default(),
            putting: FuturesUnordered::new(),
            segment: SegmentBuilder::new(),
            settled: Vec::new(),
            written: Written::default(),
        }
    }

    /// Lets the packs that are being put when the writer is dropped come to their end under `uploads`; without that they end with the writer.
    #[must_use]
    pub fn with_uploads(mut self, uploads: Arc<Uploads>) -> Self {
        self.uploads = uploads;
        self
    }

    /// Who writes.
    pub fn writer(&self) -> Writer {
        self.writer
    }

    /// Seals a frame into the open pack, which is put in the background when it is full. Waits while too many packs are being put.
    ///
    /// # Errors
    /// Those of packs put meanwhile.
    pub async fn place(
        &mut self,
        kind: FrameKind,
        table: &PiecesBuilder,
        ids: &[ChunkId],
        coded: &Compressed,
    ) -> Result<Placed> {
        if self.open.as_ref().is_some_and(|pack| pack.is_full_for(ids.len())) {
            self.close_pack().await?;
        }
        if self.open.is_none() {
            let id = PackId {
                writer: self.writer,
                seq: self.next_pack,
            };
            let buffer = self.buffers.take();
            self.open = Some(PackBuilder::in_buffer(&self.vault.keyring, self.vault.id, id, buffer)?);
            self.next_pack += 1;
        }
        self.open.as_mut().expect("just opened").place(kind, table, ids, coded)
    }

    /// Puts the pack that is being filled, in the background, however little is in it: others wait for what it holds.
    ///
    /// # Errors
    /// Those of packs put meanwhile.
    pub async fn put_pack(&mut self) -> Result<()> {
        self.close_pack().await
    }

    async fn close_pack(&mut self) -> Result<()> {
        let Some(builder) = self.open.take() else { return Ok(()) };
        while self.putting.len() >= PACKS_IN_FLIGHT {
            self.settle_one().await?;
        }
        let pack = builder.finish()?;
        let (vault, index, session) = (Arc::clone(&self.vault), Arc::clone(&self.index), self.session);
        let buffers = Arc::clone(&self.buffers);
        self.putting.push(
            self.uploads
                .spawn(async move { put_pack(&vault, index.as_ref(), session, pack, &buffers).await }),
        );
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<()> {
        match self.putting.next().await {
            Some(ended) => self.settle(ended_put(ended)?).await,
            None => Ok(()),
        }
    }

    async fn settle(&mut self, stored: StoredPack) -> Result<()> {
        self.written.packs += 1;
        self.written.bytes += stored.length;
        self.written.packs_not_indexed += u64::from(!stored.indexed);
        if stored.indexed {
            self.written.ids_indexed += stored.ids.len() as u64;
        }
        self.settled.extend(stored.ids);
        if !self.segment.fits(stored.footer_plain.len()) {
            self.put_segment().await?;
        }
        self.segment.add(stored.id, stored.length, stored.footer_plain)?;
        Ok(())
    }

    /// Ids whose packs are durable and indexed since the last call: from now on the index answers for them.
    ///
    /// # Errors
    /// Those of packs put meanwhile.
    pub async fn take_settled(&mut self) -> Result<Vec<ChunkId>> {
        while let Some(Some(ended)) = self.putting.next().now_or_never() {
            self.settle(ended_put(ended)?).await?;
        }
        Ok(std::mem::take(&mut self.settled))
    }

    /// What was written so far, packs that are being put left out.
    pub fn written(&self) -> &Written {
        &self.written
    }

    async fn put_segment(&mut self) -> Result<()> {
        let segment = std::mem::replace(&mut self.segment, SegmentBuilder::new());
        if segment.is_empty() {
            return Ok(());
        }
        let name = names::segment(PackId {
            writer: self.writer,
            seq: self.next_segment,
        });
        let vault = &self.vault;
        let sealed = seal_object(
            &vault.keyring,
            ObjectKind::Segment,
            vault.id,
            self.writer,
            self.next_segment,
            &name,
            &segment.finish(),
        )?;
        self.next_segment += 1;
        self.written.segments += 1;
        self.written.bytes += sealed.len() as u64;
        vault
            .backend
            .create(&name, &[sealed])
            .await
            .doing(|| format!("put index segment {name}"))?;
        self.written.last_segment = Some(name);
        Ok(())
    }

    /// Puts what is left and waits for all of it: when this returns, every frame placed is durable, and the index and segments know it.
    ///
    /// # Errors
    /// The first thing that failed; nothing may then be committed.
    pub async fn finish(mut self) -> Result<Written> {
        self.close_pack().await?;
        while !self.putting.is_empty() {
            self.settle_one().await?;
        }
        self.put_segment().await?;
        Ok(self.written)
    }
}

/// What came of a put; a panic goes on in who waits for it.
fn ended_put(ended: std::result::Result<Result<StoredPack>, tokio::task::JoinError>) -> Result<StoredPack> {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

async fn put_pack(
    vault: &Vault,
    index: &dyn ChunkIndex,
    session: IndexSession,
    pack: FinishedPack,
    buffers: &Arc<Pool<Aligned>>,
) -> Result<StoredPack> {
    let doing = || format!("put pack {}", pack.id);
    let length = pack.object.len() as u64;
    // The buffer is free for the next pack as soon as the store has let go of it.
    let object = buffers.share(pack.object);
    match vault.backend.create(&pack.name, &[object]).await {
        Ok(()) => {}
        Err(BackendError::Exists { name }) => return Err(VaultError::Collision { name }).doing(doing),
        Err(error) => return Err(error).doing(doing),
    }
    // A store that lost or cut what it acknowledged is found here, before any manifest relies on it.
    let end = length - TRAILER as u64;
    let back = vault.backend.read_range(&pack.name, end..length).await.doing(doing)?;
    if back != pack.trailer.as_slice() {
        return Err(Error::from(FormatError::Checksum {
            what: "pack as the store gives it back",
        }))
        .doing(doing);
    }
    let entries: Vec<(ChunkId, Location)> = pack.footer.entries(pack.id).collect();
    let indexed = match index.insert(session, &entries).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(pack = %pack.id, %error, "index did not take a pack");
            false
        }
    };
    let ids = entries.into_iter().map(|(id, _)| id).collect();
    Ok(StoredPack {
        id: pack.id,
        length,
        footer_plain: pack.footer_plain,
        ids,
        indexed,
    })
}

#[async_trait]
impl NodeSink for PackWriter {
    async fn place_nodes(&mut self, nodes: &[(ChunkId, Vec<u8>)]) -> Result<Vec<Location>> {
        let mut table = PiecesBuilder::new(FrameKind::Recipe);
        let places: Vec<u32> = nodes.iter().map(|(_, bytes)| table.add(bytes.len())).collect();
        let mut plain = table.table();
        plain.reserve_exact(table.bytes());
        for (_, bytes) in nodes {
            plain.extend_from_slice(bytes);
        }
        let ids: Vec<ChunkId> = nodes.iter().map(|(id, _)| *id).collect();
        let placed = self
            .place(FrameKind::Recipe, &table, &ids, &compress(&plain, 3))
            .await?;
        Ok(places.into_iter().map(|place| placed.at(place)).collect())
    }
}
