//! Reading pieces of a vault by their hints, with the index behind them where a hint leads nowhere.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::cache::Cache;
use super::context::Vault;
use crate::buffers::Pool;
use crate::error::{Doing, FormatError, Kind, Result};
use crate::ids::{ChunkId, Location, PackId};
use crate::index::ChunkIndex;
use crate::limits::{FRAME_CHUNKS_PLAIN_MAX, RECIPE_NODE_MAX};
use crate::pack::{PackKeys, Pieces};
use crate::recipe::NodeSource;
use crate::seal::{FRAME_OVERHEAD, FrameHeader, FrameKind};
use crate::vault::names;

/// Plaintext of opened frames kept: leaves lie many to a frame and are read in order.
const FRAMES_KEPT_BYTES: usize = 16 << 20;
/// Keys of packs kept.
const PACK_KEYS_KEPT: usize = 4096;
const _: () = assert!(RECIPE_NODE_MAX < FRAMES_KEPT_BYTES);

/// Reads chunks and recipe nodes; everything it gives was checked by tag and by name.
pub struct VaultReader {
    vault: Arc<Vault>,
    index: Option<Arc<dyn ChunkIndex>>,
    frames: Cache<(PackId, u32), Arc<Pieces>>,
    keys: Cache<PackId, Arc<PackKeys>>,
}

impl std::fmt::Debug for VaultReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultReader")
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}

impl VaultReader {
    /// Makes a reader; without an index, hints are all it has.
    pub fn new(vault: Arc<Vault>, index: Option<Arc<dyn ChunkIndex>>) -> Self {
        Self {
            vault,
            index,
            frames: Cache::new(FRAMES_KEPT_BYTES),
            keys: Cache::new(PACK_KEYS_KEPT),
        }
    }

    /// The vault.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// The keys of a pack: one small read, the first time.
    ///
    /// # Errors
    /// Those of the store; named errors when the pack's header is not its own.
    pub async fn pack_keys(&self, pack: PackId) -> Result<Arc<PackKeys>> {
        let fetch = || async {
            let vault = &self.vault;
            let keys = PackKeys::read(vault.backend.as_ref(), &vault.keyring, vault.id, pack).await;
            keys.map(Arc::new).doing(|| format!("read header of pack {pack}"))
        };
        self.keys.get(pack, |_| 1, fetch).await
    }

    /// The opened frame at a location, from the cache if it was there.
    ///
    /// # Errors
    /// Those of the store; named errors for damage.
    pub async fn frame(&self, kind: FrameKind, at: Location) -> Result<Arc<Pieces>> {
        let fetch = || async {
            if at.frame_length as usize > FRAME_CHUNKS_PLAIN_MAX + FRAME_OVERHEAD {
                let (value, max) = (u64::from(at.frame_length), FRAME_CHUNKS_PLAIN_MAX as u64);
                return Err(FormatError::TooLarge {
                    what: "frame",
                    value,
                    max,
                }
                .into());
            }
            let range = u64::from(at.frame_offset)..u64::from(at.frame_offset) + u64::from(at.frame_length);
            let name = names::pack(at.pack);
            let (keys, bytes) = futures::future::try_join(self.pack_keys(at.pack), async {
                self.vault
                    .backend
                    .read_range(&name, range)
                    .await
                    .map_err(crate::Error::from)
            })
            .await?;
            open_pieces(&keys, kind, &bytes).map(Arc::new)
        };
        let frame = self.frames.get((at.pack, at.frame_offset), |p| p.bytes(), fetch).await;
        frame.doing(|| format!("read frame at {} of pack {}", at.frame_offset, at.pack))
    }

    /// A chunk, checked against its name.
    ///
    /// # Errors
    /// When neither the hint nor the index leads to it.
    pub async fn chunk(&self, id: ChunkId, hint: Location) -> Result<Bytes> {
        self.piece(FrameKind::Data, id, hint).await
    }

    async fn piece_at(&self, kind: FrameKind, id: ChunkId, at: Location) -> Result<Bytes> {
        let piece = self.frame(kind, at).await?.at(at.place)?;
        if kind == FrameKind::Data {
            check_chunk(&self.vault, id, &piece)?;
        }
        Ok(piece)
    }

    async fn piece(&self, kind: FrameKind, id: ChunkId, hint: Location) -> Result<Bytes> {
        let first = self.piece_at(kind, id, hint).await;
        let Err(error) = first else { return first };
        match self.elsewhere(id, hint, &error).await {
            Some(other) => self.piece_at(kind, id, other).await,
            None => Err(error),
        }
    }

    /// Another place where the index has a piece whose hint failed with damage or absence.
    pub async fn elsewhere(&self, id: ChunkId, hint: Location, error: &crate::Error) -> Option<Location> {
        if !matches!(error.kind(), Kind::Missing | Kind::Corrupt) {
            return None;
        }
        let found = self.index.as_ref()?.locate(&[id]).await.ok()?;
        found.into_iter().next()?.filter(|at| *at != hint)
    }
}

/// Opens a frame of pieces and checks that it is of that kind.
///
/// # Errors
/// Named errors for damage.
pub fn open_pieces(keys: &PackKeys, kind: FrameKind, frame: &[u8]) -> Result<Pieces> {
    let (header, plain) = keys.seal.open(frame)?;
    checked_pieces(kind, frame, header, plain.into())
}

/// As [`open_pieces`], with the plaintext in a buffer of the pool, to which it returns when the last piece is dropped.
///
/// # Errors
/// As [`open_pieces`].
pub fn open_pieces_in(keys: &PackKeys, kind: FrameKind, frame: &[u8], pool: &Arc<Pool<Vec<u8>>>) -> Result<Pieces> {
    let (header, plain) = keys.seal.open_into(frame, pool.take())?;
    checked_pieces(kind, frame, header, pool.share(plain))
}

fn checked_pieces(kind: FrameKind, frame: &[u8], header: FrameHeader, plain: Bytes) -> Result<Pieces> {
    if header.kind != kind || header.length() != frame.len() {
        return Err(FormatError::Malformed {
            what: "frame",
            why: "is of another kind or length than its location says",
        }
        .into());
    }
    Ok(Pieces::parse(kind, plain)?)
}

/// Checks a chunk against its name.
///
/// # Errors
/// [`FormatError::Mismatch`].
pub fn check_chunk(vault: &Vault, id: ChunkId, plain: &[u8]) -> Result<(), FormatError> {
    let found = vault.ids.chunk(plain);
    if found == id {
        return Ok(());
    }
    Err(FormatError::Mismatch {
        what: "name of chunk",
        expected: id.to_string(),
        found: found.to_string(),
    })
}

#[async_trait]
impl NodeSource for VaultReader {
    async fn node(&self, id: ChunkId, hint: Location) -> Result<Bytes> {
        self.piece(FrameKind::Recipe, id, hint).await
    }
}
