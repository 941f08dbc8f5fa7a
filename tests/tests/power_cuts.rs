//! Power cuts: a store that forgets what was not yet safe, at any moment of a backup.
//!
//! A disk acknowledges nothing until it is asked to sync, and what nobody waited for becomes safe in any order or not at all. What must hold after a cut:
//! a point whose backup had returned is there, and whatever manifest the store still has names packs that the store still has. The last test takes
//! the waiting away and asserts that the same check fails: it can.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tresor_storage::backend::forgetful::Forgetful;
use tresor_storage::backend::{Backend, BackendError, Listed};
use tresor_storage::ids::PointId;
use tresor_storage::manifest::Manifest;
use tresor_storage::vault::names;
use tresor_tests::disk::Disk;
use tresor_tests::random::{Random, Replay, replayed_seed};
use tresor_tests::vault::Stage;

const SEEDS: u64 = 60;
const ROUNDS: u64 = 5;

/// Cuts the power before a chosen write, and answers nothing afterwards: the process is gone with it.
#[derive(Debug)]
struct Cut {
    store: Arc<Forgetful>,
    writes_left: AtomicU64,
    /// Says that an object is safe without waiting for it.
    is_hasty: bool,
}

impl Cut {
    fn new(store: &Arc<Forgetful>, writes_left: u64, is_hasty: bool) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            writes_left: AtomicU64::new(writes_left),
            is_hasty,
        })
    }

    fn is_cut(&self) -> bool {
        self.writes_left.load(Ordering::SeqCst) == 0
    }

    fn check(&self, operation: &'static str, name: &str) -> Result<(), BackendError> {
        if self.is_cut() {
            return Err(BackendError::Refused {
                operation,
                name: name.into(),
                source: "the power is gone".into(),
            });
        }
        Ok(())
    }

    /// Counts a write; the one that takes the last count is cut off.
    fn write(&self, operation: &'static str, name: &str) -> Result<(), BackendError> {
        self.check(operation, name)?;
        if self.writes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.store.crash();
            return self.check(operation, name);
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Cut {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        self.write("put", name)?;
        if self.is_hasty {
            let (store, owned, pieces) = (Arc::clone(&self.store), name.to_owned(), pieces.to_vec());
            drop(tokio::spawn(async move { store.create(&owned, &pieces).await }));
            // Until it shows; not until it is safe.
            while self.store.length(name).await.is_err() {
                self.check("put", name)?;
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        self.store.create(name, pieces).await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        self.check("read", name)?;
        self.store.read(name, max).await
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        self.check("read", name)?;
        self.store.read_range(name, range).await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.check("read", name)?;
        self.store.length(name).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        match self.check("list", prefix) {
            Ok(()) => self.store.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.write("delete", name)?;
        self.store.delete(name).await
    }
}

/// A history of backups with power cuts; what went wrong, if anything did.
async fn history(seed: u64, is_hasty: bool) -> Result<(), String> {
    let mut random = Random::seeded(seed);
    let store = Arc::new(Forgetful::new(seed));
    let stage = Stage::new().await;
    let calm = stage.rewrapped(Arc::clone(&store) as Arc<dyn Backend>);
    let mut disk = Disk::random(&mut random, 9 << 20);
    let mut done: Vec<(Manifest, Vec<u8>)> = Vec::new();
    for round in 0..ROUNDS {
        let cut = Cut::new(&store, 1 + random.below(6), is_hasty);
        let cut_stage = calm.rewrapped(cut.clone() as Arc<dyn Backend>);
        let parent = done.last().map(|(manifest, _)| manifest);
        let made = cut_stage.back_up(&[("vda", &disk)], parent).await;
        if !cut.is_cut() {
            // After the answer is as good a moment as any.
            store.crash();
        }
        if let Ok(outcome) = made {
            done.push((outcome.manifest, disk.bytes.clone()));
        }
        for (point, bytes) in &done {
            look(&calm, point.point, bytes)
                .await
                .map_err(|why| format!("round {round}, acknowledged point {}: {why}", point.point))?;
        }
        // A manifest that nobody was told of may be there too: then it is whole.
        let listed: Vec<_> = store.list(names::POINTS).collect().await;
        for listed in listed {
            let name = listed.unwrap().name;
            let (_, point) = names::parse_point(&name).unwrap();
            if !done.iter().any(|(manifest, _)| manifest.point == point) {
                look(&calm, point, &disk.bytes)
                    .await
                    .map_err(|why| format!("round {round}, unacknowledged point {point}: {why}"))?;
                done.push((calm.manifest(point).await.unwrap(), disk.bytes.clone()));
            }
        }
        for _ in 0..1 + random.below(4) {
            disk.scribble(&mut random);
        }
    }
    Ok(())
}

/// Restores a point with the store and the key alone.
async fn look(stage: &Stage, point: PointId, bytes: &[u8]) -> Result<(), String> {
    let manifest = stage.manifest(point).await.map_err(|error| error.chain())?;
    let (sink, outcome) = stage
        .restore(&stage.reader_without_index(), &manifest, "vda")
        .await
        .map_err(|error| format!("{error:?}"))?;
    match (outcome.damage.is_empty(), sink.bytes() == bytes) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("{:?}", outcome.damage)),
        (true, false) => Err("restored with other bytes".into()),
    }
}

#[tokio::test]
async fn no_power_cut_takes_an_acknowledged_point_or_leaves_half_a_one() {
    let seeds = replayed_seed().map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let _replay = Replay(seed);
        history(seed, false).await.unwrap();
    }
}

#[tokio::test]
async fn a_put_that_is_not_waited_for_is_found_by_the_same_check() {
    let mut found = 0;
    for seed in 0..SEEDS {
        found += u32::from(history(seed, true).await.is_err());
    }
    assert!(found > 0, "nothing was found wrong with puts that return too early");
}
