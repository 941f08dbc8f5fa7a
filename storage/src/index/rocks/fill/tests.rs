#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::Stamp;
use super::*;
use crate::ids::{ClusterId, Location, VaultId};
use crate::index::conformance::{location, session};
use crate::index::entry::{Entry, decide_insert, decide_lost, decide_replace};
use crate::index::slot::{SLOTS, keys_of};
use crate::index::{Answer, ChunkIndex, Flags};

const STAMP: Stamp = Stamp {
    vault: VaultId([7; 16]),
    cluster: ClusterId(0xc1),
    claim: 3,
};

/// The `n`-th id of a slot; they ascend.
fn id_in(slot: u16, n: u32) -> ChunkId {
    let mut id = [0; 32];
    let (from, _) = keys_of(slot..slot + 1);
    id[..2].copy_from_slice(&from);
    id[2..6].copy_from_slice(&n.to_be_bytes());
    ChunkId(id)
}

fn found(id: ChunkId, seq: u32, is_lost: bool) -> Found {
    Found {
        id,
        location: location(u64::from(seq % 3), seq),
        is_lost,
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

async fn fresh() -> (TempDir, RocksIndex) {
    let dir = TempDir::new().unwrap();
    let index = RocksIndex::create(&dir.path().join("index"), STAMP).await.unwrap();
    (dir, index)
}

fn set(slots: impl IntoIterator<Item = u16>) -> SlotSet {
    slots.into_iter().collect()
}

#[tokio::test]
async fn lineage_and_life_are_there_after_a_reopen() {
    let (dir, index) = fresh().await;
    assert_eq!(index.life().await.unwrap(), None);
    index.set_life([3; 16]).await.unwrap();
    index.begin_slots(&set(0..10), 70).await.unwrap();
    index.begin_slots(&set([4095]), 80).await.unwrap();
    let syncs = index.counters().syncs;
    assert_eq!(index.complete_slots(&set(0..5), 70).await.unwrap(), set(0..5));
    assert_eq!(index.counters().syncs, syncs + 1);
    // Another grant's rebuild says nothing of this one's slots.
    assert_eq!(index.complete_slots(&SlotSet::all(), 75).await.unwrap(), set([]));
    index.drop_slots(&set([3, 8, 77])).await.unwrap();
    assert_eq!(index.counters().syncs, syncs + 3);
    let rows = index.slots();
    drop(index);
    let index = RocksIndex::open(&dir.path().join("index"), STAMP).await.unwrap();
    assert_eq!(index.slots(), rows);
    let told: Vec<_> = rows
        .iter()
        .map(|(slot, row)| (*slot, row.since, row.complete))
        .collect();
    let expected = [0, 1, 2, 4, 5, 6, 7, 9].map(|slot| (slot, 70, slot < 5));
    assert_eq!(told, [&expected[..], &[(4095, 80, false)]].concat());
    assert_eq!(index.complete(), set([0, 1, 2, 4]));
    assert_eq!(index.life().await.unwrap(), Some([3; 16]));
}

#[tokio::test]
async fn beginning_or_dropping_slots_forgets_their_entries_and_no_others() {
    let (_dir, index) = fresh().await;
    index.begin_slots(&SlotSet::all(), 1).await.unwrap();
    let slots = [0, 1, 2, 255, 256, 4094, 4095];
    let all: Vec<_> = slots
        .iter()
        .flat_map(|slot| (1..21).map(|n| (id_in(*slot, n), location(1, n))))
        .collect();
    // The outermost ids, too.
    let ends = [
        (ChunkId([0; 32]), location(1, 1)),
        (ChunkId([0xff; 32]), location(1, 1)),
    ];
    index.insert(session(1, 5), &[&all[..], &ends].concat()).await.unwrap();
    index.begin_slots(&set([1, 4095]), 2).await.unwrap();
    index.drop_slots(&set([255])).await.unwrap();
    let left: BTreeMap<_, _> = entries(&index).await;
    let kept = |id: &ChunkId| ![1, 4095, 255].contains(&slot_of(id));
    let expected: Vec<_> = all.iter().chain(&ends).map(|(id, _)| *id).filter(kept).collect();
    assert_eq!(left.len(), expected.len());
    assert!(expected.iter().all(|id| left.contains_key(id)));
    // What is inserted afterwards is there.
    index.insert(session(1, 0), &ends).await.unwrap();
    assert_eq!(
        index.locate(&[ChunkId([0xff; 32])]).await.unwrap(),
        [Some(location(1, 1))]
    );
}

#[tokio::test]
async fn a_rebuild_of_an_earlier_grant_changes_nothing() {
    let (_dir, index) = fresh().await;
    index.begin_slots(&set([5, 6, 7]), 1).await.unwrap();
    let old = index.filling(&set([5, 6, 7, 8]));
    assert_eq!(old.slots(), set([5, 6, 7]));
    index.begin_slots(&set([5]), 2).await.unwrap();
    index.drop_slots(&set([6])).await.unwrap();
    let all: Vec<_> = (5..9)
        .flat_map(|slot| (0..20).map(move |n| found(id_in(slot, n), n, false)))
        .collect();
    old.add(all[..50].to_vec()).await.unwrap();
    old.add_sorted(all).await.unwrap();
    let ids: Vec<_> = entries(&index).await.into_keys().collect();
    assert_eq!(ids, (0..20).map(|n| id_in(7, n)).collect::<Vec<_>>());
    // And complete slots are filled no more.
    index.complete_slots(&set([7]), 1).await.unwrap();
    assert_eq!(index.filling(&SlotSet::all()).slots(), set([5]));
}

#[tokio::test]
async fn files_are_taken_in_and_survive_without_a_log() {
    let (dir, index) = fresh().await;
    let path = dir.path().join("index");
    index.begin_slots(&set(0..64), 1).await.unwrap();
    let filling = index.filling(&SlotSet::all());
    let all: Vec<_> = (0..64)
        .flat_map(|slot| (0..300).map(move |n| found(id_in(slot, n), n, n % 50 == 0)))
        .collect();
    let batches = index.counters().batches_written;
    filling.add_sorted(all.clone()).await.unwrap();
    assert_eq!(
        index.counters().batches_written,
        batches,
        "no entry went the ordinary way"
    );
    let killed = dir.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap();
        assert!(!file.file_name().to_string_lossy().starts_with(FILE_PREFIX));
        std::fs::copy(file.path(), killed.join(file.file_name())).unwrap();
    }
    std::fs::write(killed.join(format!("{FILE_PREFIX}9")), b"cut").unwrap();
    let reopened = RocksIndex::open(&killed, STAMP).await.unwrap();
    assert!(!killed.join(format!("{FILE_PREFIX}9")).exists());
    let there = entries(&reopened).await;
    assert_eq!(there, entries(&index).await);
    assert_eq!(there.len(), all.len());
    for found in &all {
        let entry = there[&found.id];
        assert_eq!(
            (entry.location, entry.touch, entry.is_good()),
            (found.location, 0, !found.is_lost)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_sessions_insert_while_files_are_taken_in_wins() {
    const SLOTS_FILLED: u16 = 8;
    const EACH: u32 = 1500;
    let (_dir, index) = fresh().await;
    index.begin_slots(&set(0..SLOTS_FILLED), 1).await.unwrap();
    let mine = Location {
        frame_offset: 7,
        ..location(9, 9)
    };
    let inserting = {
        let index = index.clone();
        tokio::spawn(async move {
            let mut inserted = Vec::new();
            for round in 0..60u32 {
                let ids: Vec<_> = (0..20)
                    .map(|n| id_in((n % 8) as u16, (round * 20 + n) * 37 % EACH))
                    .collect();
                // Only what is new is stored, as a writer does.
                let answers = index.lookup(session(1, 3), &ids).await.unwrap();
                let new: Vec<_> = ids
                    .iter()
                    .zip(&answers)
                    .filter(|(_, answer)| **answer == Answer::New)
                    .map(|(id, _)| (*id, mine))
                    .collect();
                index.insert(session(1, 3), &new).await.unwrap();
                let after = index.lookup(session(1, 3), &ids).await.unwrap();
                for ((id, answer), after) in ids.iter().zip(answers).zip(after) {
                    let Answer::Known(place) = after else {
                        panic!("{id} was inserted")
                    };
                    if let Answer::Known(before) = answer {
                        assert_eq!(place, before);
                    }
                    inserted.push((*id, place));
                }
            }
            inserted
        })
    };
    let filling = index.filling(&SlotSet::all());
    for slot in 0..SLOTS_FILLED {
        let of_slot: Vec<_> = (0..EACH).map(|n| found(id_in(slot, n), n, false)).collect();
        for some in of_slot.chunks(200) {
            filling.add_sorted(some.to_vec()).await.unwrap();
        }
    }
    let inserted = inserting.await.unwrap();
    let there = entries(&index).await;
    assert_eq!(there.len(), usize::from(SLOTS_FILLED) * EACH as usize);
    for (id, place) in inserted {
        assert_eq!(there[&id].location, place, "an answer was taken back");
        assert_eq!(there[&id].touch, 3, "a touch was taken back");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Lookup(Vec<u32>, u64),
    Insert(Vec<u32>, u32, u64),
    Lose(u32, u32),
    Replace(u32, u32, u32),
    Fill(Vec<(u32, bool)>, u32),
    FillSorted(Vec<(u32, bool)>, u32),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = || proptest::collection::vec(0..24u32, 1..8);
    let fills = |range| {
        proptest::collection::btree_map(0..24u32, any::<bool>(), range)
            .prop_map(|map| map.into_iter().collect::<Vec<_>>())
    };
    prop_oneof![
        1 => Just(Step::Begin),
        3 => (ids(), 0..4u64).prop_map(|(ids, touch)| Step::Lookup(ids, touch)),
        3 => (ids(), 0..3u32, 0..4u64).prop_map(|(ids, seq, touch)| Step::Insert(ids, seq, touch)),
        2 => (0..24u32, 0..3u32).prop_map(|(id, seq)| Step::Lose(id, seq)),
        2 => (0..24u32, 0..3u32, 0..3u32).prop_map(|(id, from, to)| Step::Replace(id, from, to)),
        2 => (fills(1..8), 0..3u32).prop_map(|(ids, seq)| Step::Fill(ids, seq)),
        // Enough for a file, and few enough to be there already.
        3 => (fills(8..24), 0..3u32).prop_map(|(ids, seq)| Step::FillSorted(ids, seq)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_history_of_a_slot_that_is_filled_agrees_with_the_rules(steps in proptest::collection::vec(step(), 1..25)) {
        Runtime::new().unwrap().block_on(async {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("index");
            let mut index = RocksIndex::create(&path, STAMP).await.unwrap();
            index.begin_slots(&set([9, 11]), 1).await.unwrap();
            let mut story: BTreeMap<ChunkId, Entry> = BTreeMap::new();
            // Two slots with one between them that is not here.
            let id = |n: &u32| id_in(if *n < 12 { 9 } else { 11 }, *n);
            let at = |seq: u32| location(u64::from(seq % 3), seq);
            for (step_at, step) in steps.iter().enumerate() {
                match step {
                    Step::Begin => {
                        index.begin_slots(&set([9]), 1).await.unwrap();
                        story.retain(|id, _| slot_of(id) != 9);
                    }
                    Step::Lookup(ids, touch) => {
                        let ids: Vec<_> = ids.iter().map(id).collect();
                        let answers = index.lookup(session(1, *touch), &ids).await.unwrap();
                        for (id, answer) in ids.iter().zip(answers) {
                            let (expected, write) = crate::index::entry::answer(story.get(id).copied(), *touch);
                            assert_eq!(answer, expected);
                            story.extend(write.map(|entry| (*id, entry)));
                        }
                    }
                    Step::Insert(ids, seq, touch) => {
                        let new: Vec<_> = ids.iter().map(|n| (id(n), at(*seq))).collect();
                        index.insert(session(1, *touch), &new).await.unwrap();
                        for (id, place) in new {
                            let after = decide_insert(story.get(&id).copied(), place, *touch);
                            story.insert(id, after);
                        }
                    }
                    Step::Lose(n, seq) => {
                        index.mark_lost(&[(id(n), at(*seq))]).await.unwrap();
                        let lost = decide_lost(story.get(&id(n)).copied(), at(*seq));
                        story.extend(lost.map(|entry| (id(n), entry)));
                    }
                    Step::Replace(n, from, to) => {
                        let moved = index.replace(session(1, 0), &[(id(n), at(*from), at(*to))]).await.unwrap();
                        let after = decide_replace(story.get(&id(n)).copied(), at(*from), at(*to));
                        story.extend(after.map(|entry| (id(n), entry)));
                        let is_there = story.get(&id(n)).is_some_and(|entry| entry.is_good() && entry.location == at(*to));
                        assert_eq!(moved, [is_there]);
                    }
                    Step::Fill(ids, seq) | Step::FillSorted(ids, seq) => {
                        let all: Vec<_> = ids.iter().map(|(n, is_lost)| found(id(n), *seq, *is_lost)).collect();
                        let filling = index.filling(&SlotSet::all());
                        if matches!(step, Step::Fill(..)) {
                            filling.add(all.clone()).await.unwrap();
                        } else {
                            filling.add_sorted(all.clone()).await.unwrap();
                        }
                        for found in all {
                            let after = decide_fill(story.get(&found.id).copied(), &found);
                            story.insert(found.id, after);
                        }
                    }
                    Step::Reopen => {
                        drop(index);
                        index = RocksIndex::open(&path, STAMP).await.unwrap();
                    }
                }
                assert_eq!(entries(&index).await, story, "after step {step_at} of {steps:?}");
            }
        });
    }
}

#[tokio::test]
async fn a_replacement_that_is_repeated_is_answered_as_the_first_time() {
    let (_dir, index) = fresh().await;
    let (id, from, to) = (id_in(3, 4), location(1, 1), location(2, 2));
    index.insert(session(1, 6), &[(id, from)]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(index.replace(session(2, 9), &[(id, from, to)]).await.unwrap(), [true]);
    }
    assert_eq!(
        entries(&index).await[&id],
        Entry {
            location: to,
            touch: 6,
            flags: Flags::NONE
        }
    );
    assert_eq!(
        index
            .replace(session(2, 9), &[(id, from, location(3, 3))])
            .await
            .unwrap(),
        [false]
    );
    let stranger = crate::index::IndexSession {
        cluster: ClusterId(5),
        ..session(1, 0)
    };
    assert!(index.replace(stranger, &[(id, to, from)]).await.is_err());
    assert_eq!(SLOTS, 4096);
}
