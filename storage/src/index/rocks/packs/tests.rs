#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::super::{GroupPart, SlotRow, Stamp};
use super::*;
use crate::ids::{ClusterId, VaultId};
use crate::index::conformance::{location, session};
use crate::index::entry::Found;
use crate::index::slot::{SLOTS, group_of, keys_of, slot_of};

const STAMP: Stamp = Stamp {
    vault: VaultId([7; 16]),
    cluster: ClusterId(0xc1),
    claim: 3,
};
/// Slots of two groups.
const USED: [u16; 6] = [0, 1, 2, 64, 65, 66];
const PACKS_USED: u32 = 5;
const SINCE: u64 = 4;

/// The id that a pack has in a slot.
fn id_in(slot: u16, pack: u32) -> ChunkId {
    let mut id = [pack as u8; 32];
    let (from, _) = keys_of(slot..slot + 1);
    id[0] = from[0];
    id[1] = from[1] | 5;
    ChunkId(id)
}

fn place(pack: u32) -> Location {
    location(1, pack)
}

/// What the index tells of a group.
async fn told(index: &RocksIndex, group: u8) -> (u64, BTreeSet<PackId>, BTreeSet<(ChunkId, Location)>) {
    let (to, mut parts) = mpsc::channel(1);
    let reading = {
        let index = index.clone();
        tokio::spawn(async move { index.read_group(group, SlotSet::all(), 3, to).await })
    };
    let (mut slots, mut packs, mut entries) = (None, BTreeSet::new(), BTreeSet::new());
    while let Some(part) = parts.recv().await {
        match part {
            GroupPart::Slots(told) => assert_eq!(slots.replace(told), None),
            GroupPart::Packs(told) => packs.extend(told),
            GroupPart::Entries(told) => {
                assert!(told.len() <= 3);
                entries.extend(told.into_iter().map(|found| (found.id, found.location)));
            }
        }
    }
    reading.await.unwrap().unwrap();
    (slots.unwrap(), packs, entries)
}

/// A slot as a person would tell of it.
#[derive(Default, Clone)]
struct Story {
    complete: bool,
    /// Packs whose piece is in it.
    pieces: BTreeSet<u32>,
    /// Packs that somebody said to be in whole, as far as the slots go that were joined with this one.
    whole: BTreeSet<u32>,
    /// The beginning that it was begun by, or the joining it went into.
    of: u32,
}

/// One that no slot is of.
fn another(stories: &BTreeMap<u16, Story>) -> u32 {
    stories.values().map(|story| story.of + 1).max().unwrap_or(0)
}

/// What joining leaves to be known: of a group, the packs that are in all of its slots that were joined. A slot that leaves later does not
/// bring back what the others of it had alone; they are read again where somebody rebuilds.
fn join(stories: &mut BTreeMap<u16, Story>) {
    let open: BTreeSet<u32> = stories
        .values()
        .filter(|story| !story.complete)
        .map(|story| story.of)
        .collect();
    let from: BTreeSet<u32> = stories
        .values()
        .map(|story| story.of)
        .filter(|of| !open.contains(of))
        .collect();
    if from.len() < 2 {
        return;
    }
    let into = another(stories);
    for group in [0, 1] {
        let joined = |(slot, story): &(&u16, &mut Story)| group_of(**slot) == group && from.contains(&story.of);
        let whole = (0..PACKS_USED).filter(|pack| {
            stories
                .iter_mut()
                .filter(joined)
                .all(|(_, story)| story.whole.contains(pack))
        });
        let whole: BTreeSet<u32> = whole.collect();
        for (_, story) in stories.iter_mut().filter(joined) {
            story.whole.clone_from(&whole);
            story.of = into;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Begin(BTreeSet<u16>),
    Drop(BTreeSet<u16>),
    /// A pack, and the slots whose pieces the sender thinks to be here.
    Insert(u32, BTreeSet<u16>),
    Fill(u32),
    Complete,
    Join,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let slots = || proptest::sample::subsequence(USED.to_vec(), 1..=6).prop_map(|slots| slots.into_iter().collect());
    prop_oneof![
        3 => slots().prop_map(Step::Begin),
        1 => slots().prop_map(Step::Drop),
        4 => (0..PACKS_USED, slots()).prop_map(|(pack, slots)| Step::Insert(pack, slots)),
        2 => (0..PACKS_USED).prop_map(|pack| Step::Insert(pack, USED.into())),
        3 => (0..PACKS_USED).prop_map(Step::Fill),
        3 => Just(Step::Complete),
        2 => Just(Step::Join),
        1 => Just(Step::Reopen),
    ]
}

async fn take(index: &RocksIndex, stories: &mut BTreeMap<u16, Story>, step: &Step) {
    match step {
        Step::Begin(slots) => {
            index
                .begin_slots(&slots.iter().copied().collect(), SINCE)
                .await
                .unwrap();
            let of = another(stories);
            let begun = |slot: &u16| (*slot, Story { of, ..Story::default() });
            stories.extend(slots.iter().map(begun));
        }
        Step::Drop(slots) => {
            index.drop_slots(&slots.iter().copied().collect()).await.unwrap();
            stories.retain(|slot, _| !slots.contains(slot));
        }
        Step::Insert(pack, slots) => {
            // Only groups of which the sender knew all slots that are here.
            let unknown: BTreeSet<u8> = stories
                .keys()
                .filter(|slot| !slots.contains(slot))
                .map(|slot| group_of(*slot))
                .collect();
            let known = |slot: &u16| slots.contains(slot) && stories.contains_key(slot);
            let sent: Vec<u16> = USED.into_iter().filter(known).collect();
            let entries: Vec<_> = sent.iter().map(|slot| (id_in(*slot, *pack), place(*pack))).collect();
            let groups = [0, 1]
                .into_iter()
                .filter(|group| !unknown.contains(group))
                .fold(0, |all, group| all | 1 << group);
            index
                .insert_packs(session(1, 0), &entries, &[(place(*pack).pack, groups)])
                .await
                .unwrap();
            for slot in sent {
                stories.get_mut(&slot).unwrap().pieces.insert(*pack);
                if !unknown.contains(&group_of(slot)) {
                    stories.get_mut(&slot).unwrap().whole.insert(*pack);
                }
            }
        }
        Step::Fill(pack) => {
            let filling = index.filling(&SlotSet::all());
            let found = |slot| Found {
                id: id_in(slot, *pack),
                location: place(*pack),
                is_lost: false,
            };
            filling.add(USED.into_iter().map(found).collect()).await.unwrap();
            filling.add_packs(vec![place(*pack).pack]).await.unwrap();
            for story in stories.values_mut().filter(|story| !story.complete) {
                story.pieces.insert(*pack);
                story.whole.insert(*pack);
            }
        }
        Step::Complete => {
            let all: SlotSet = USED.into_iter().collect();
            let completed = index.complete_slots(&all, SINCE).await.unwrap();
            assert_eq!(completed, stories.keys().copied().collect());
            stories.values_mut().for_each(|story| story.complete = true);
        }
        Step::Join => {
            index.run(|shared| shared.join_generations_over(1)).await.unwrap();
            join(stories);
        }
        Step::Reopen => {}
    }
}

async fn compare(index: &RocksIndex, stories: &BTreeMap<u16, Story>, when: &str) {
    let rows: BTreeMap<u16, SlotRow> = index.slots().into_iter().collect();
    let expected = stories.iter().map(|(slot, story)| {
        let complete = story.complete;
        (*slot, SlotRow { since: SINCE, complete })
    });
    assert_eq!(rows, expected.collect(), "{when}");
    for group in [0, 1] {
        let (slots, packs, entries) = told(index, group).await;
        let complete: BTreeMap<u16, &Story> = stories
            .iter()
            .filter(|(slot, story)| group_of(**slot) == group && story.complete)
            .map(|(slot, story)| (*slot, story))
            .collect();
        assert_eq!(
            slots,
            complete.keys().fold(0, |all, slot| all | 1 << (slot % 64)),
            "{when}"
        );
        let whole = |pack: &u32| !complete.is_empty() && complete.values().all(|story| story.whole.contains(pack));
        let expected: BTreeSet<PackId> = (0..PACKS_USED).filter(whole).map(|pack| place(pack).pack).collect();
        assert_eq!(packs, expected, "packs of group {group} {when}");
        assert_eq!(
            index.pack_count(&SlotSet::of_group(group, u64::MAX)).await.unwrap(),
            packs.len() as u64
        );
        let pieces = complete
            .iter()
            .flat_map(|(slot, story)| story.pieces.iter().map(|pack| (id_in(*slot, *pack), place(*pack))));
        assert_eq!(entries, pieces.collect(), "entries of group {group} {when}");
        // What is said to be whole is there.
        for pack in &packs {
            for slot in complete.keys() {
                assert!(entries.contains(&(id_in(*slot, pack.seq), place(pack.seq))), "{when}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn packs_are_whole_where_every_slot_of_the_group_has_them(steps in proptest::collection::vec(step(), 1..25)) {
        Runtime::new().unwrap().block_on(async {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("index");
            let mut index = RocksIndex::create(&path, STAMP).await.unwrap();
            let mut stories = BTreeMap::new();
            for (at, step) in steps.iter().enumerate() {
                take(&index, &mut stories, step).await;
                if matches!(step, Step::Reopen) {
                    drop(index);
                    index = RocksIndex::open(&path, STAMP).await.unwrap();
                }
                compare(&index, &stories, &format!("after step {at} of {steps:?}")).await;
            }
        });
    }
}

#[tokio::test]
async fn many_grants_are_joined_so_that_an_insert_stays_a_few_rows() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("index");
    let index = RocksIndex::create(&path, STAMP).await.unwrap();
    for slot in 0..40 {
        index.begin_slots(&[slot].into_iter().collect(), 1).await.unwrap();
        index.complete_slots(&[slot].into_iter().collect(), 1).await.unwrap();
        assert!(index.shared.table().noted_in().len() <= GENERATIONS_MAX + 1);
    }
    let pack = place(3).pack;
    index
        .insert_packs(session(1, 0), &[], &[(pack, u64::MAX)])
        .await
        .unwrap();
    assert_eq!(index.pack_count(&(0..40).collect()).await.unwrap(), 1);
    drop(index);
    // What a joining that was cut off wrote is cleared, and its number used again for something else.
    let index = RocksIndex::open(&path, STAMP).await.unwrap();
    let stray = index.shared.table().next_generation + 1;
    let add = move |shared: &Shared| shared.add_packs(&mut shared.lock(), [(stray, place(9).pack, 1)]);
    index.run(add).await.unwrap();
    drop(index);
    let index = RocksIndex::open(&path, STAMP).await.unwrap();
    let stray_rows = move |shared: &Shared| Ok(Rows::new(&shared.opened.db, stray).count());
    assert_eq!(index.run(stray_rows).await.unwrap(), 0);
    let mut rows = Vec::new();
    for generation in index.shared.table().generations().into_keys() {
        rows.push(Rows::new(&index.shared.opened.db, generation).count());
    }
    assert!(rows.iter().all(|rows| *rows == 1), "{rows:?}");
}

#[tokio::test]
async fn a_log_cut_anywhere_never_has_a_pack_without_its_entries_nor_a_complete_slot_without_its_fill() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("index");
    let index = RocksIndex::create(&path, STAMP).await.unwrap();
    let slots: SlotSet = USED.into_iter().collect();
    index.begin_slots(&slots, SINCE).await.unwrap();
    let filling = index.filling(&slots);
    let found = |slot, pack| Found {
        id: id_in(slot, pack),
        location: place(pack),
        is_lost: false,
    };
    let entries = |pack| USED.into_iter().map(move |slot| found(slot, pack)).collect::<Vec<_>>();
    filling.add(entries(0)).await.unwrap();
    filling.add_packs(vec![place(0).pack]).await.unwrap();
    index.complete_slots(&slots, SINCE).await.unwrap();
    let sent: Vec<_> = USED.into_iter().map(|slot| (id_in(slot, 1), place(1))).collect();
    index
        .insert_packs(session(1, 0), &sent, &[(place(1).pack, u64::MAX)])
        .await
        .unwrap();
    let mut seen = BTreeSet::new();
    let length = std::fs::read_dir(&path)
        .unwrap()
        .map(|file| file.unwrap())
        .find(|file| file.file_name().to_string_lossy().ends_with(".log"))
        .unwrap();
    let log = length.file_name();
    let length = length.metadata().unwrap().len();
    for cut in (0..=length).step_by(23).chain([length]) {
        let killed = dir.path().join("killed");
        std::fs::create_dir(&killed).unwrap();
        for file in std::fs::read_dir(&path).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), killed.join(file.file_name())).unwrap();
        }
        let file = std::fs::OpenOptions::new().write(true).open(killed.join(&log)).unwrap();
        file.set_len(cut).unwrap();
        drop(file);
        if let Ok(index) = RocksIndex::open(&killed, STAMP).await {
            let complete = index.complete();
            for group in [0, 1] {
                let (_, packs, entries) = told(&index, group).await;
                let of_group = USED
                    .into_iter()
                    .filter(|slot| group_of(*slot) == group && complete.contains(*slot));
                for slot in of_group {
                    assert!(entries.contains(&(id_in(slot, 0), place(0))), "cut at {cut}");
                    for pack in &packs {
                        assert!(
                            entries.contains(&(id_in(slot, pack.seq), place(pack.seq))),
                            "cut at {cut}"
                        );
                    }
                }
                seen.insert((complete.len(), packs.len()));
            }
        }
        std::fs::remove_dir_all(&killed).unwrap();
    }
    assert!(seen.contains(&(6, 1)) && seen.contains(&(6, 2)), "{seen:?}");
}

#[test]
fn ids_of_this_test_are_in_their_slots() {
    for slot in USED {
        assert_eq!(slot_of(&id_in(slot, 3)), slot);
    }
    assert!(USED.iter().all(|slot| *slot < SLOTS));
}
