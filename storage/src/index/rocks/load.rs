//! Filling a new index from what the stores hold: no log, one flush at the end, and only then the stamp.

use rocksdb::FlushOptions;

use super::open::{family, trouble};
use super::options::FAMILIES;
use super::{RocksIndex, STAMP_KEY, WITNESS_KEY};
use crate::ids::{ChunkId, Location, PackId};
use crate::index::{ChunkIndex, IndexError};

/// An index being made. Dropped before [`Self::finish`], it leaves an unfinished database, which is stale.
pub struct Load {
    index: RocksIndex,
}

impl Load {
    pub(super) fn new(index: RocksIndex) -> Self {
        Self { index }
    }

    /// Adds entries, by the rule of inserts: of several locations of one id, the first added stays.
    ///
    /// # Errors
    /// When the database cannot take them.
    pub async fn add(&self, entries: Vec<(ChunkId, Location)>) -> Result<(), IndexError> {
        self.index.run(move |shared| shared.insert(&entries, 0)).await
    }

    /// Notes damage found on the way.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn add_damage(&self, pack: PackId, frame_offset: Option<u32>) -> Result<(), IndexError> {
        self.index.add_damage(pack, frame_offset).await
    }

    /// Makes all of it durable and the index whole, with the newest index segment that it was made from.
    ///
    /// # Errors
    /// When the database cannot be written; it stays unfinished.
    pub async fn finish(self, witness: Option<&str>) -> Result<RocksIndex, IndexError> {
        let witness = witness.map(str::to_owned);
        self.index
            .run(move |shared| {
                let db = &shared.opened.db;
                let tables: Vec<_> = FAMILIES.iter().map(|name| family(db, name)).collect();
                let mut flush = FlushOptions::default();
                flush.set_wait(true);
                db.flush_cfs_opt(&tables, &flush).map_err(|e| trouble("flush it", e))?;
                shared.lock().logged = true;
                if let Some(witness) = &witness {
                    shared.put_meta(WITNESS_KEY, witness.as_bytes())?;
                }
                // Last: from here it is whole.
                shared.put_meta(STAMP_KEY, &shared.stamp.encode())
            })
            .await?;
        Ok(self.index)
    }
}
