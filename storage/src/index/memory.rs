//! The index in memory: for tests, for small vaults read once, and to compare others with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use super::entry::{self, Entry};
use super::{Answer, ChunkIndex, IndexError, IndexSession};
use crate::ids::{ChunkId, ClusterId, Location, PackId};

/// A [`ChunkIndex`] that forgets everything when dropped. About 130 bytes an entry.
///
/// It belongs to the cluster whose session asks first.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cluster: Option<ClusterId>,
    entries: BTreeMap<ChunkId, Entry>,
    damage: BTreeSet<(PackId, Option<u32>)>,
}

impl Inner {
    fn admit(&mut self, session: IndexSession) -> Result<(), IndexError> {
        let cluster = *self.cluster.get_or_insert(session.cluster);
        if cluster != session.cluster {
            return Err(IndexError::Foreign {
                index: cluster,
                session: session.cluster,
            });
        }
        Ok(())
    }

    fn insert(&mut self, entries: &[(ChunkId, Location)], touch: u64) {
        for (id, location) in entries {
            let after = entry::decide_insert(self.entries.get(id).copied(), *location, touch);
            self.entries.insert(*id, after);
        }
    }
}

impl MemoryIndex {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// All entries, by id.
    pub fn entries(&self) -> BTreeMap<ChunkId, Entry> {
        self.lock().entries.clone()
    }

    /// Inserts without a session, as a rebuild does: the first location given wins.
    pub fn load(&self, entries: &[(ChunkId, Location)]) {
        self.lock().insert(entries, 0);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

#[async_trait]
impl ChunkIndex for MemoryIndex {
    async fn lookup(&self, session: IndexSession, ids: &[ChunkId]) -> Result<Vec<Answer>, IndexError> {
        let mut inner = self.lock();
        inner.admit(session)?;
        let answer = |id: &ChunkId| {
            let existing = inner.entries.get(id).copied();
            let (answer, write) = entry::answer(existing, session.start_epoch);
            if let Some(touched) = write {
                inner.entries.insert(*id, touched);
            }
            answer
        };
        Ok(ids.iter().map(answer).collect())
    }

    async fn insert(&self, session: IndexSession, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        let mut inner = self.lock();
        inner.admit(session)?;
        inner.insert(entries, session.start_epoch);
        Ok(())
    }

    async fn mark_lost(&self, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        let mut inner = self.lock();
        for (id, location) in entries {
            if let Some(lost) = entry::decide_lost(inner.entries.get(id).copied(), *location) {
                inner.entries.insert(*id, lost);
            }
        }
        Ok(())
    }

    async fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, IndexError> {
        let inner = self.lock();
        Ok(ids
            .iter()
            .map(|id| entry::locate(inner.entries.get(id).copied()))
            .collect())
    }

    async fn add_damage(&self, pack: PackId, frame_offset: Option<u32>) -> Result<(), IndexError> {
        self.lock().damage.insert((pack, frame_offset));
        Ok(())
    }

    async fn damage(&self) -> Result<Vec<(PackId, Option<u32>)>, IndexError> {
        Ok(self.lock().damage.iter().copied().collect())
    }

    async fn count(&self) -> Result<u64, IndexError> {
        Ok(self.lock().entries.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryIndex;
    use crate::index::conformance;

    conformance::suite!(async || ((), MemoryIndex::new()));
}
