#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Mutex;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::backend::{Backend, Counters, Memory, Metered, Traffic};
use crate::chunk::Profile;
use crate::ids::{ClusterId, PartId, SessionId, VaultId};
use crate::index::checkpoint::{KEPT, list, plan_reads, prune, write};
use crate::index::conformance::session;
use crate::index::entry::Entry;
use crate::index::rocks::Stamp;
use crate::index::segment::SegmentBuilder;
use crate::index::slot::group_of;
use crate::index::{Answer, Flags};
use crate::keys::Keyring;
use crate::limits::GRAIN;
use crate::pack::{PackBuilder, PiecesBuilder};
use crate::seal::{FrameKind, ObjectKind, compress, seal_object};

const CLUSTER: ClusterId = ClusterId(0xc1);
const STAMP: Stamp = Stamp {
    vault: VaultId([5; 16]),
    cluster: CLUSTER,
    claim: 1,
};

/// A vault in memory that counts what it is asked, an owner of all slots, and what was put.
struct World {
    dir: TempDir,
    store: Memory,
    counters: Arc<Counters>,
    vault: Arc<Vault>,
    owner: RocksIndex,
    packs: BTreeMap<PackId, Vec<(ChunkId, Location)>>,
    owners: u64,
    checkpoints: u32,
}

impl World {
    async fn new() -> Self {
        let store = Memory::new();
        let counters = Arc::new(Counters::default());
        let backend: Arc<dyn Backend> = Arc::new(Metered::new(store.clone(), Arc::clone(&counters)));
        let vault = Arc::new(Vault::new(
            STAMP.vault,
            Profile::default(),
            backend,
            Keyring::generate(),
        ));
        let dir = TempDir::new().unwrap();
        let owner = RocksIndex::create(&dir.path().join("0"), STAMP).await.unwrap();
        owner.begin_slots(&SlotSet::all(), 1).await.unwrap();
        owner.complete_slots(&SlotSet::all(), 1).await.unwrap();
        Self {
            dir,
            store,
            counters,
            vault,
            owner,
            packs: BTreeMap::new(),
            owners: 1,
            checkpoints: 0,
        }
    }

    fn chunk(&self, n: u32) -> (Vec<u8>, ChunkId) {
        let mut bytes = vec![0; GRAIN as usize];
        blake3::Hasher::new()
            .update(&n.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        let id = self.vault.ids.chunk(&bytes);
        (bytes, id)
    }

    /// Puts a pack of these chunks; answers its footer's plaintext, too.
    async fn put(&mut self, part: u64, seq: u32, chunks: &[u32]) -> (PackId, u64, Bytes) {
        let pack = PackId {
            writer: writer(part),
            seq,
        };
        let mut builder = PackBuilder::new(&self.vault.keyring, self.vault.id, pack).unwrap();
        let mut table = PiecesBuilder::new(FrameKind::Data);
        let (bytes, ids): (Vec<_>, Vec<_>) = chunks.iter().map(|n| self.chunk(*n)).unzip();
        for chunk in &bytes {
            table.add(chunk.len());
        }
        let plain = [table.table(), bytes.concat()].concat();
        builder
            .place(FrameKind::Data, &table, &ids, &compress(&plain, 1))
            .unwrap();
        let finished = builder.finish().unwrap();
        self.packs.insert(pack, finished.footer.entries(pack).collect());
        let object = Bytes::copy_from_slice(&finished.object);
        let length = object.len() as u64;
        self.vault.backend.create(&finished.name, &[object]).await.unwrap();
        (pack, length, finished.footer_plain)
    }

    async fn insert(&self, pack: PackId) {
        self.owner
            .insert_packs(session(1, 2), &self.packs[&pack], &[(pack, u64::MAX)])
            .await
            .unwrap();
    }

    async fn put_segment(&self, seq: u32, packs: Vec<(PackId, u64, Bytes)>) {
        let writer = packs[0].0.writer;
        let name = names::segment(PackId { writer, seq });
        let mut builder = SegmentBuilder::new();
        for (pack, length, footer) in packs {
            builder.add(pack, length, footer).unwrap();
        }
        let vault = &self.vault;
        let plain = builder.finish();
        let sealed = seal_object(
            &vault.keyring,
            ObjectKind::Segment,
            vault.id,
            writer,
            seq,
            &name,
            &plain,
        )
        .unwrap();
        vault.backend.create(&name, &[sealed]).await.unwrap();
    }

    async fn checkpoint(&mut self, group: u8) -> CheckpointId {
        self.checkpoints += 1;
        let by = Writer {
            session: SessionId(self.owners),
            ..writer(77)
        };
        let written = write(&self.vault, &self.owner, group, &SlotSet::all(), by, self.checkpoints).await;
        written.unwrap().unwrap().id
    }

    async fn checkpoint_all(&mut self) {
        for group in 0..64 {
            self.checkpoint(group).await;
        }
    }

    /// A new owner of slots.
    async fn moved(&mut self, slots: &SlotSet, dead: &BTreeSet<PackId>) -> (RocksIndex, SlotReport) {
        self.owners += 1;
        let path = self.dir.path().join(self.owners.to_string());
        let index = RocksIndex::create(&path, STAMP).await.unwrap();
        index.begin_slots(slots, self.owners).await.unwrap();
        let list = PackList::list(&self.vault).await.unwrap();
        let list = PackList::decode(&list.encode()).unwrap();
        let report = rebuild_slots(
            &self.vault,
            &index,
            slots,
            &list,
            &|pack| dead.contains(&pack),
            &mut |_| (),
        )
        .await;
        assert_eq!(index.complete_slots(slots, self.owners).await.unwrap(), *slots);
        (index, report.unwrap())
    }

    fn traffic(&self) -> Traffic {
        self.counters.snapshot()
    }
}

fn writer(part: u64) -> Writer {
    Writer {
        cluster: CLUSTER,
        session: SessionId(part),
        part: PartId(part),
    }
}

async fn entries(index: &RocksIndex) -> BTreeMap<ChunkId, Entry> {
    let all = Arc::new(Mutex::new(BTreeMap::new()));
    let into = Arc::clone(&all);
    let each = move |id, entry| {
        into.lock().unwrap().insert(id, entry);
        ControlFlow::Continue(())
    };
    index.for_each(each).await.unwrap();
    std::mem::take(&mut *all.lock().unwrap())
}

/// Entries as a checkpoint tells them: no touch.
fn places(entries: BTreeMap<ChunkId, Entry>, slots: &SlotSet) -> BTreeMap<ChunkId, (Location, bool)> {
    let place = |(id, entry): (ChunkId, Entry)| (id, (entry.location, entry.flags.contains(Flags::LOST)));
    entries
        .into_iter()
        .filter(|(id, _)| slots.contains(slot_of(id)))
        .map(place)
        .collect()
}

#[tokio::test]
async fn a_move_reads_one_checkpoint_of_each_group_and_only_what_it_lacks() {
    let mut world = World::new().await;
    for part in 0..6 {
        let mut segment = Vec::new();
        for seq in 0..4 {
            let chunks: Vec<u32> = (0..40).map(|n| part as u32 * 1000 + seq * 100 + n).collect();
            segment.push(world.put(part, seq, &chunks).await);
            world.insert(segment[seq as usize].0).await;
        }
        world.put_segment(0, segment).await;
    }
    let slots: SlotSet = crate::index::slot::slots_of(7)
        .chain(crate::index::slot::slots_of(40))
        .collect();
    // Nothing but packs: segments of all.
    let (bare, report) = world.moved(&slots, &BTreeSet::new()).await;
    assert_eq!(
        (
            report.read.segments_read,
            report.read.footers_read,
            report.checkpoints_read
        ),
        (6, 0, 0)
    );
    assert_eq!((report.slots_bare, report.packs_whole), (128, 24));
    assert_eq!(
        places(entries(&bare).await, &slots),
        places(entries(&world.owner).await, &slots)
    );

    world.checkpoint_all().await;
    let before = world.traffic();
    let (index, report) = world.moved(&slots, &BTreeSet::new()).await;
    let after = world.traffic();
    assert_eq!(report.checkpoints_read, 2);
    assert_eq!(after.gets - before.gets, report.checkpoint_pieces_read);
    // Two groups and the packs.
    assert_eq!(after.lists - before.lists, 3);
    assert_eq!(
        (
            report.read.segments_read,
            report.read.footers_read,
            report.read.packs_scanned
        ),
        (0, 0, 0)
    );
    assert_eq!((report.packs_in_checkpoints, report.packs_whole), (24, 24));
    assert_eq!(
        places(entries(&index).await, &slots),
        places(entries(&world.owner).await, &slots)
    );
    assert_eq!(index.pack_count(&slots).await.unwrap(), 24);

    // Two packs more of a writer with four that are there, and their segment: it alone is read, not the older one. And one without.
    let more = vec![
        world.put(5, 4, &[9001, 9002, 9003]).await,
        world.put(5, 5, &[9004]).await,
    ];
    for (pack, ..) in &more {
        world.insert(*pack).await;
    }
    world.put_segment(1, more).await;
    let (alone, ..) = world.put(9, 0, &[9005, 9006]).await;
    world.insert(alone).await;
    let all = SlotSet::all();
    let before = world.traffic();
    let (index, report) = world.moved(&all, &BTreeSet::new()).await;
    let after = world.traffic();
    assert_eq!((report.checkpoints_read, report.slots_bare), (64, 0));
    assert_eq!(
        (
            report.read.segments_read,
            report.read.packs_in_segments,
            report.read.footers_read
        ),
        (1, 2, 1)
    );
    assert_eq!((report.packs_in_checkpoints, report.packs_whole), (24, 27));
    // Groups, packs, and the segments of two writers.
    assert_eq!(after.lists - before.lists, 64 + 1 + 2);
    assert_eq!(
        places(entries(&index).await, &all),
        places(entries(&world.owner).await, &all)
    );
    assert_eq!(report.read.findings_total, 0, "{:?}", report.read.findings);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_a_finding_and_the_next_older_one_is_read() {
    let mut world = World::new().await;
    let (first, ..) = world.put(1, 0, &(0..200).collect::<Vec<_>>()).await;
    world.insert(first).await;
    let group = group_of(slot_of(&world.chunk(3).1));
    let old = world.checkpoint(group).await;
    let (second, ..) = world.put(1, 1, &(100..300).collect::<Vec<_>>()).await;
    world.insert(second).await;
    let new = world.checkpoint(group).await;
    let slots: SlotSet = crate::index::slot::slots_of(group).collect();
    let expected = places(entries(&world.owner).await, &slots);
    type Harm = fn(&mut Vec<u8>);
    for piece in 0..3 {
        let name = names::checkpoint(new, piece);
        let whole = world.store.read(&name, usize::MAX).await.unwrap();
        let harms: [(&str, Harm); 4] = [
            ("a flipped bit", |bytes| *bytes.last_mut().unwrap() ^= 1),
            ("cut", |bytes| bytes.truncate(100)),
            ("empty", Vec::clear),
            ("missing", |bytes| *bytes = b"gone".to_vec()),
        ];
        for (harm, act) in harms {
            let mut bytes = whole.to_vec();
            act(&mut bytes);
            world.store.delete(&name).await.unwrap();
            if bytes != b"gone" {
                world.store.create(&name, &[bytes.into()]).await.unwrap();
            }
            let (index, report) = world.moved(&slots, &BTreeSet::new()).await;
            assert_eq!(report.checkpoints_read, 1, "{harm} of piece {piece}");
            // Without its head it is none, and nothing is wrong.
            let findings = u64::from((harm, piece) != ("missing", 0));
            assert_eq!(report.read.findings_total, findings, "{harm} of piece {piece}");
            assert_eq!((report.packs_in_checkpoints, report.read.footers_read), (1, 1));
            assert_eq!(
                places(entries(&index).await, &slots),
                expected,
                "{harm} of piece {piece}"
            );
            world.store.delete(&name).await.unwrap();
            world.store.create(&name, std::slice::from_ref(&whole)).await.unwrap();
        }
    }
    // A piece under another checkpoint's name is not taken for that one's.
    let (from, to) = (names::checkpoint(old, 2), names::checkpoint(new, 2));
    let bytes = world.store.read(&from, usize::MAX).await.unwrap();
    world.store.delete(&to).await.unwrap();
    world.store.create(&to, &[bytes]).await.unwrap();
    let (_, report) = world.moved(&slots, &BTreeSet::new()).await;
    assert_eq!((report.checkpoints_read, report.read.findings_total), (1, 1));
}

#[tokio::test]
async fn older_checkpoints_go_and_what_the_rest_need_stays() {
    let mut world = World::new().await;
    let (first, ..) = world.put(1, 0, &(0..100).collect::<Vec<_>>()).await;
    world.insert(first).await;
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(world.checkpoint(3).await);
    }
    // One that was broken off: its head is missing. And one that another cluster wrote.
    let broken = CheckpointId { number: 0, ..made[0] };
    let foreign = CheckpointId {
        writer: Writer {
            cluster: ClusterId(9),
            ..made[0].writer
        },
        ..made[0]
    };
    for (id, piece) in [(broken, 1), (foreign, 0)] {
        let piece = names::checkpoint(id, piece);
        world.store.create(&piece, &[Bytes::from_static(b"x")]).await.unwrap();
    }
    assert_eq!(prune(&world.vault, 3, CLUSTER).await.unwrap(), 3);
    let left = list(&world.vault, 3).await.unwrap();
    assert_eq!(left.whole, [made[3], made[2], foreign]);
    assert_eq!(left.pieces.len(), 3);
    assert_eq!(prune(&world.vault, 3, CLUSTER).await.unwrap(), 0);
    assert_eq!(plan_reads(&left.whole, 6), [(made[3], 6)]);
    assert_eq!(KEPT, 2);
    // A number is used once.
    world.checkpoints = 3;
    let by = made[3].writer;
    let again = write(&world.vault, &world.owner, 3, &SlotSet::all(), by, made[3].number).await;
    assert!(again.is_err());
}

#[tokio::test]
async fn an_index_without_complete_slots_of_a_group_writes_no_checkpoint() {
    let world = World::new().await;
    world.owner.begin_slots(&SlotSet::all(), 3).await.unwrap();
    let written = write(&world.vault, &world.owner, 1, &SlotSet::all(), writer(1), 0).await;
    assert_eq!(written.unwrap(), None);
    assert_eq!(world.traffic().puts, 0);
}

#[tokio::test]
async fn a_checkpoint_of_many_pieces_is_read_in_part() {
    let mut world = World::new().await;
    let (pack, ..) = world.put(1, 0, &[1]).await;
    let place = world.packs[&pack][0].1;
    let slots: SlotSet = crate::index::slot::slots_of(0).collect();
    world.owner.begin_slots(&SlotSet::all(), 2).await.unwrap();
    // 64 slots of 3500 entries: two pieces.
    let id = |slot: u16, n: u32| {
        let mut id = [0; 32];
        id[0] = (slot >> 4) as u8;
        id[1] = (slot << 4) as u8;
        id[2..6].copy_from_slice(&n.to_be_bytes());
        ChunkId(id)
    };
    let found = |slot, n| Found {
        id: id(slot, n),
        location: Location { place: n, ..place },
        is_lost: false,
    };
    let all: Vec<_> = (0..64)
        .flat_map(|slot| (0..3500).map(move |n| found(slot, n)))
        .collect();
    world.owner.filling(&SlotSet::all()).add_sorted(all).await.unwrap();
    world.owner.complete_slots(&SlotSet::all(), 2).await.unwrap();
    let id = world.checkpoint(0).await;
    assert_eq!(list(&world.vault, 0).await.unwrap().pieces[&id].len(), 3);
    let one: SlotSet = [63].into_iter().collect();
    let (index, report) = world.moved(&one, &BTreeSet::new()).await;
    assert_eq!((report.checkpoint_pieces_read, report.checkpoint_entries), (2, 3500));
    assert_eq!(
        places(entries(&index).await, &slots),
        places(entries(&world.owner).await, &one)
    );
    let (index, report) = world.moved(&slots, &BTreeSet::new()).await;
    assert_eq!(
        (report.checkpoint_pieces_read, report.checkpoint_entries),
        (3, 64 * 3500)
    );
    assert_eq!(
        places(entries(&index).await, &slots),
        places(entries(&world.owner).await, &slots)
    );
}

#[derive(Debug, Clone)]
enum Step {
    /// Chunks, whether the owner was told, and how long ago its writer began.
    Put(Vec<u32>, bool, u64),
    Checkpoint(u32),
    CheckpointAll,
    Lose(u32),
    Die(usize),
    Vanish(usize),
    Move(BTreeSet<u32>),
}

const CHUNKS: u32 = 24;

fn step() -> impl Strategy<Value = Step> {
    let chunks = || proptest::collection::btree_set(0..CHUNKS, 1..8);
    prop_oneof![
        5 => (chunks(), proptest::bool::weighted(0.8), 0..3u64).prop_map(|(chunks, told, part)| Step::Put(chunks.into_iter().collect(), told, part)),
        3 => (0..CHUNKS).prop_map(Step::Checkpoint),
        1 => Just(Step::CheckpointAll),
        1 => (0..CHUNKS).prop_map(Step::Lose),
        1 => (0..9usize).prop_map(Step::Die),
        1 => (0..9usize).prop_map(Step::Vanish),
        3 => chunks().prop_map(Step::Move),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Checkpoints of any age, packs nobody was told of, dead packs that lie there or are gone: what a new owner answers is true, and it knows what
    /// the old one knew.
    #[test]
    fn a_new_owner_answers_as_the_old_one_and_never_of_dead_packs(steps in proptest::collection::vec(step(), 1..16)) {
        Runtime::new().unwrap().block_on(async {
            let mut world = World::new().await;
            let mut dead = BTreeSet::new();
            let mut untold = BTreeSet::new();
            let mut seqs = [0u32; 3];
            for (at, step) in steps.iter().enumerate() {
                let when = format!("step {at} of {steps:?}");
                match step {
                    Step::Put(chunks, is_told, part) => {
                        let seq = seqs[*part as usize];
                        seqs[*part as usize] += 1;
                        let put = world.put(*part, seq, chunks).await;
                        if *is_told {
                            world.insert(put.0).await;
                        } else {
                            untold.insert(put.0);
                        }
                        if seq % 2 == 1 {
                            world.put_segment(seq / 2, vec![put]).await;
                        }
                    }
                    Step::Checkpoint(n) => {
                        let group = group_of(slot_of(&world.chunk(*n).1));
                        world.checkpoint(group).await;
                    }
                    Step::CheckpointAll => {
                        let groups: BTreeSet<u8> = (0..CHUNKS).map(|n| group_of(slot_of(&world.chunk(n).1))).collect();
                        for group in groups {
                            world.checkpoint(group).await;
                        }
                    }
                    Step::Lose(n) => {
                        let id = world.chunk(*n).1;
                        if let Some(Some(place)) = world.owner.locate(&[id]).await.unwrap().first() {
                            world.owner.mark_lost(&[(id, *place)]).await.unwrap();
                        }
                    }
                    // Only a pack without entries dies.
                    Step::Die(n) | Step::Vanish(n) => {
                        let used: BTreeSet<PackId> = entries(&world.owner).await.values().map(|entry| entry.location.pack).collect();
                        let unused: Vec<PackId> = world.packs.keys().filter(|pack| !used.contains(pack)).copied().collect();
                        if let Some(pack) = unused.get(*n % unused.len().max(1)) {
                            dead.insert(*pack);
                            if matches!(step, Step::Vanish(_)) {
                                world.store.delete(&names::pack(*pack)).await.unwrap();
                            }
                        }
                    }
                    Step::Move(chunks) => {
                        let slots: SlotSet = chunks.iter().map(|n| slot_of(&world.chunk(*n).1)).collect();
                        let (index, report) = world.moved(&slots, &dead).await;
                        assert_eq!(report.slots, slots);
                        let old = places(entries(&world.owner).await, &slots);
                        let new = places(entries(&index).await, &SlotSet::all());
                        for (id, (place, _)) in &new {
                            assert!(slots.contains(slot_of(id)), "{when}");
                            assert!(!dead.contains(&place.pack), "an entry of a dead pack after {when}");
                            assert!(world.packs[&place.pack].contains(&(*id, *place)), "{when}");
                        }
                        for (id, (place, is_lost)) in &old {
                            let (found, _) = new.get(id).unwrap_or_else(|| panic!("{id} at {place:?} was forgotten, {when}"));
                            if !is_lost {
                                let answers = index.lookup(session(2, 0), &[*id]).await.unwrap();
                                let is_good = matches!(answers[..], [Answer::Known(_)]);
                                // A second place, of a pack that the old owner was not told of or that was the second to come.
                                assert!(is_good || new[id].1 && found != place, "{when}");
                            }
                        }
                        for id in new.keys().filter(|id| !old.contains_key(id)) {
                            let by_untold = untold.iter().any(|pack| world.packs[pack].iter().any(|(of, _)| of == id));
                            assert!(by_untold, "{id} came from nowhere, {when}");
                        }
                        // What it says to be whole it has.
                        let told = index.pack_count(&slots).await.unwrap();
                        assert_eq!(told, report.packs_whole, "{when}");
                        let alive = world.packs.keys().filter(|pack| !dead.contains(*pack)).count();
                        assert_eq!(told as usize, alive, "{when}");
                    }
                }
            }
            // With fresh checkpoints of everything, a new owner has exactly what the old one had.
            let groups: BTreeSet<u8> = (0..CHUNKS).map(|n| group_of(slot_of(&world.chunk(n).1))).collect();
            for pack in untold {
                if !dead.contains(&pack) {
                    world.insert(pack).await;
                }
            }
            for group in groups {
                world.checkpoint(group).await;
            }
            let slots: SlotSet = (0..CHUNKS).map(|n| slot_of(&world.chunk(n).1)).collect();
            let (index, report) = world.moved(&slots, &dead).await;
            assert_eq!(report.read.footers_read + report.read.segments_read, 0, "{steps:?}");
            assert_eq!(places(entries(&index).await, &slots), places(entries(&world.owner).await, &slots), "{steps:?}");
        });
    }
}
