//! When the index of a home, or of a worker, is believed, and what happens when it is not.
//!
//! The index says "known" instead of storing again, so an index that knows more than the store holds would lose data quietly. It knows more when
//! the store was rolled back or replaced, so it records, before it takes a pack's entries, the names of the last packs it took, and
//! all of them must still be there when it is opened. What fails that, or any other doubt, is thrown away and made anew from the vault:
//! 1. it is of another vault or claim, unfinished or damaged;
//! 2. a pack that it recorded is not in the store;
//! 3. it holds entries and records nothing;
//! 4. it could not take a pack ([`doubt`]), or its home is older than what the vault shows of it.
//!
//! Noted damage and lost entries go with it. That is sound: making it anew reads what the store has, leaves out what cannot be read, and finds
//! the rest again when it is verified or read.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tresor_storage::backend::BackendError;
use tresor_storage::ids::{ChunkId, Location, PackId};
use tresor_storage::index::rebuild::{Report, Target, rebuild};
use tresor_storage::index::rocks::Load;
use tresor_storage::index::{Answer, ChunkIndex, IndexError, IndexSession, RocksIndex, Stamp};
use tresor_storage::limits::PACKS_IN_FLIGHT;
use tresor_storage::vault::{Vault, names};
use tresor_storage::{Doing as _, Result};

use super::files;
use crate::blocking::blocking;

/// Packs that an index records as its witnesses. Those whose puts overlap may be taken in another order than they were put, and a snapshot of
/// the store may fall between them; more than these never overlap by as much.
pub(crate) const WITNESSES: usize = 8;
const _: () = assert!(WITNESSES >= 4 * PACKS_IN_FLIGHT);

/// What became of the index when a vault was opened for writing.
#[derive(Debug)]
pub enum IndexState {
    /// It is of the vault's present state.
    Kept,
    /// It was made anew from the vault.
    Rebuilt {
        /// Why.
        why: String,
        /// What was read for it.
        report: Box<Report>,
    },
}

/// The index of a home's vault, which records the last packs it took.
pub struct HomeIndex {
    index: RocksIndex,
    doubtful: PathBuf,
    witnesses: Mutex<Witnesses>,
}

impl std::fmt::Debug for HomeIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HomeIndex")
            .field("doubtful", &self.doubtful)
            .finish_non_exhaustive()
    }
}

/// The names of the last packs taken, oldest first.
#[derive(Debug, Clone, Default)]
struct Witnesses(VecDeque<String>);

impl Witnesses {
    fn parse(text: &str) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Takes a name. Returns whether it is new.
    fn add(&mut self, name: String) -> bool {
        if self.0.contains(&name) {
            return false;
        }
        self.0.push_back(name);
        while self.0.len() > WITNESSES {
            self.0.pop_front();
        }
        true
    }

    fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// Packs of entries, each once, in order.
fn packs(entries: &[(ChunkId, Location)]) -> Vec<PackId> {
    let mut packs: Vec<PackId> = entries.iter().map(|(_, location)| location.pack).collect();
    packs.dedup();
    packs
}

/// Says that the index must be made anew before it is believed again. Durable when this returns.
///
/// # Errors
/// When that cannot be written down.
pub fn doubt(marker: &Path, why: &str) -> Result<(), crate::control::ControlError> {
    files::replace(marker, why.as_bytes())
}

/// Opens the index at `path`, or makes it anew: when it is doubted, or `force` gives a reason. The marker of a doubt is `path` with `.doubtful`.
pub(crate) async fn open(
    path: &Path,
    stamp: Stamp,
    vault: &Arc<Vault>,
    force: Option<String>,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<(HomeIndex, IndexState), super::HomeError> {
    let doubtful = path.with_extension("doubtful");
    let why = match force.or_else(|| doubt_of(&doubtful)) {
        Some(why) => why,
        None => match keep(path, stamp, vault).await? {
            Ok((index, witnesses)) => {
                let witnesses = Mutex::new(witnesses);
                return Ok((
                    HomeIndex {
                        index,
                        doubtful,
                        witnesses,
                    },
                    IndexState::Kept,
                ));
            }
            Err(why) => why,
        },
    };
    tracing::info!(why, "index is made anew from the vault");
    let doing = || String::from("make the index anew from the vault");
    RocksIndex::destroy(path).await.doing(doing)?;
    let load = RocksIndex::load(path, stamp).await.doing(doing)?;
    let recording = Recording {
        load,
        last: Mutex::default(),
    };
    let mut report = rebuild(vault, &recording, progress).await.doing(doing)?;
    let Recording { load, last } = recording;
    let mut witnesses = last.into_inner();
    if let Some(segment) = report.witness.take() {
        witnesses.add(segment);
    }
    let text = witnesses.text();
    let index = load
        .finish(Some(text.as_str()).filter(|text| !text.is_empty()))
        .await
        .doing(doing)?;
    // Last: until here whoever opens it makes it anew.
    files::remove(&doubtful)?;
    let index = HomeIndex {
        index,
        doubtful,
        witnesses: Mutex::new(witnesses),
    };
    Ok((
        index,
        IndexState::Rebuilt {
            why,
            report: Box::new(report),
        },
    ))
}

/// Opens the index at `path` if it can be believed as it is.
pub(crate) async fn open_if_kept(path: &Path, stamp: Stamp, vault: &Arc<Vault>) -> Result<Option<HomeIndex>> {
    let doubtful = path.with_extension("doubtful");
    if doubt_of(&doubtful).is_some() {
        return Ok(None);
    }
    let kept = keep(path, stamp, vault).await?.ok();
    Ok(kept.map(|(index, witnesses)| HomeIndex {
        index,
        doubtful,
        witnesses: Mutex::new(witnesses),
    }))
}

/// Opens the index at `path` for a worker's slots, or makes it anew, empty, when it cannot be believed or was used last by another life than `life`: what
/// is missing in it is then brought by the rebuild of its slots.
pub(crate) async fn open_slots(
    path: &Path,
    stamp: Stamp,
    vault: &Arc<Vault>,
    life: Option<[u8; 16]>,
) -> std::result::Result<HomeIndex, super::HomeError> {
    let doing = || String::from("open the index of slots");
    let doubtful = path.with_extension("doubtful");
    let why = match doubt_of(&doubtful) {
        Some(why) => why,
        None => match keep(path, stamp, vault).await? {
            Ok((index, witnesses)) => {
                let used_by = index.life().await.doing(doing)?;
                if used_by.is_some() && used_by == life {
                    return Ok(HomeIndex {
                        index,
                        doubtful,
                        witnesses: Mutex::new(witnesses),
                    });
                }
                String::from("another life of this worker used it last: an older copy")
            }
            Err(why) => why,
        },
    };
    tracing::info!(vault = %vault.id, why, "index of slots is made anew");
    RocksIndex::destroy(path).await.doing(doing)?;
    let index = RocksIndex::create(path, stamp).await.doing(doing)?;
    files::remove(&doubtful)?;
    Ok(HomeIndex::new(index, doubtful))
}

/// Why the index is doubted, if it is.
fn doubt_of(marker: &Path) -> Option<String> {
    files::read(marker).unwrap_or_else(|_| Some(String::from("it was doubted")))
}

/// Opens what is there, or says why it must be made anew.
async fn keep(path: &Path, stamp: Stamp, vault: &Arc<Vault>) -> Result<Result<(RocksIndex, Witnesses), String>> {
    let doing = || String::from("open the index");
    let index = match RocksIndex::open(path, stamp).await {
        Ok(index) => index,
        Err(IndexError::Stale { why }) => return Ok(Err(why)),
        Err(IndexError::Malformed) => return Ok(Err(String::from("it cannot be read"))),
        Err(error) => return Err(error).doing(doing),
    };
    let witnesses = match index.witness().await {
        Ok(text) => Witnesses::parse(&text.unwrap_or_default()),
        Err(IndexError::Malformed) => return Ok(Err(String::from("it cannot be read"))),
        Err(error) => return Err(error).doing(doing),
    };
    if witnesses.0.is_empty() && index.count().await.doing(doing)? > 0 {
        return Ok(Err(String::from("it does not say which packs it has seen")));
    }
    for name in &witnesses.0 {
        match vault.backend.length(name).await {
            Ok(_) => {}
            Err(BackendError::NotFound { .. }) => {
                return Ok(Err(format!(
                    "it has seen {name}, which the store does not have: an older copy of the store?"
                )));
            }
            Err(error) => return Err(error).doing(|| format!("look for {name}, which the index has seen")),
        }
    }
    Ok(Ok((index, witnesses)))
}

/// A load that remembers the packs it took last.
struct Recording {
    load: Load,
    last: Mutex<Witnesses>,
}

#[async_trait]
impl Target for Recording {
    async fn add(&self, entries: Vec<(ChunkId, Location)>) -> Result<(), IndexError> {
        let mut last = self.last.lock().await;
        for pack in packs(&entries) {
            last.add(names::pack(pack));
        }
        Target::add(&self.load, entries).await
    }

    async fn add_damage(&self, pack: PackId) -> Result<(), IndexError> {
        Target::add_damage(&self.load, pack).await
    }
}

impl HomeIndex {
    /// Of a database that has seen no pack yet, or is only measured.
    pub(crate) fn new(index: RocksIndex, doubtful: PathBuf) -> Self {
        Self {
            index,
            doubtful,
            witnesses: Mutex::default(),
        }
    }

    /// The database, for what the port does not say.
    pub fn rocks(&self) -> &RocksIndex {
        &self.index
    }

    /// Records packs whose entries are about to come in some other way than by inserts.
    pub(crate) async fn witness(&self, packs: impl IntoIterator<Item = PackId>) -> Result<(), IndexError> {
        let mut witnesses = self.witnesses.lock().await;
        for pack in packs {
            witnesses.add(names::pack(pack));
        }
        self.index.set_witness(&witnesses.text()).await
    }

    /// As [`ChunkIndex::insert`], of packs that are whole in these groups of slots as far as those are here; of none, with no groups.
    pub(crate) async fn insert_packs(
        &self,
        session: IndexSession,
        entries: &[(ChunkId, Location)],
        groups: u64,
    ) -> Result<(), IndexError> {
        let packs: Vec<(PackId, u64)> = match groups {
            0 => Vec::new(),
            groups => packs(entries).into_iter().map(|pack| (pack, groups)).collect(),
        };
        let taken = match self.record(entries).await {
            Ok(()) => self.index.insert_packs(session, entries, &packs).await,
            Err(error) => Err(error),
        };
        self.doubt_unless(taken).await
    }

    /// Writes down that the index is to be made anew, where it did not take something.
    async fn doubt_unless(&self, taken: Result<(), IndexError>) -> Result<(), IndexError> {
        if let Err(error) = &taken {
            let (marker, why) = (self.doubtful.clone(), format!("it did not take a pack: {error}"));
            if let Err(error) = blocking(move || doubt(&marker, &why)).await {
                tracing::warn!(%error, "could not write down that the index is to be made anew");
            }
        }
        taken
    }

    async fn record(&self, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        let mut witnesses = self.witnesses.lock().await;
        let mut new = false;
        for pack in packs(entries) {
            new |= witnesses.add(names::pack(pack));
        }
        if new {
            // Held while it is written, so that an older text never follows a newer one.
            self.index.set_witness(&witnesses.text()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ChunkIndex for HomeIndex {
    async fn lookup(&self, session: IndexSession, ids: &[ChunkId]) -> Result<Vec<Answer>, IndexError> {
        self.index.lookup(session, ids).await
    }

    async fn insert(&self, session: IndexSession, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        // Recorded first: the index never holds an entry of a pack that came after its witnesses.
        let taken = match self.record(entries).await {
            Ok(()) => self.index.insert(session, entries).await,
            Err(error) => Err(error),
        };
        self.doubt_unless(taken).await
    }

    async fn mark_lost(&self, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        self.index.mark_lost(entries).await
    }

    async fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, IndexError> {
        self.index.locate(ids).await
    }

    async fn add_damage(&self, pack: PackId, frame_offset: Option<u32>) -> Result<(), IndexError> {
        self.index.add_damage(pack, frame_offset).await
    }

    async fn damage(&self) -> Result<Vec<(PackId, Option<u32>)>, IndexError> {
        self.index.damage().await
    }

    async fn count(&self) -> Result<u64, IndexError> {
        self.index.count().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_packs_are_remembered_each_once() {
        let mut witnesses = Witnesses::default();
        for n in 0..20 {
            assert!(witnesses.add(format!("packs/{n}")));
            assert!(!witnesses.add(format!("packs/{n}")));
        }
        assert_eq!(witnesses.0.len(), WITNESSES);
        assert_eq!(witnesses.0.front().map(String::as_str), Some("packs/12"));
        assert_eq!(Witnesses::parse(&witnesses.text()).0, witnesses.0);
        assert!(Witnesses::parse("").0.is_empty());
    }
}
