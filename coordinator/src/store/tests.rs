use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use tresor_proto::ids::MemberId;

use super::encode::{self, keys};
use super::faulty::{Failure, Faults, Faulty};
use super::memory::{Loss, Memory};
use super::rocks::Rocks;
use super::tables::{Batch, Durability, Family, Tables, View};
use super::*;
use crate::seeded::{Random, for_seeds};

const STAMP: Stamp = Stamp {
    node: MemberId(1),
    cluster: [7; 16],
};

/// Where tables are found again.
trait Place {
    type Tables: Tables;
    fn fresh() -> Self;
    fn tables(&self) -> Self::Tables;
}

impl Place for Memory {
    type Tables = Self;
    fn fresh() -> Self {
        Self::new()
    }
    fn tables(&self) -> Self {
        self.clone()
    }
}

struct Folder(TempDir);

impl Place for Folder {
    type Tables = Rocks;
    fn fresh() -> Self {
        let folder = tempfile::tempdir().unwrap();
        drop(Rocks::create(folder.path()).unwrap());
        Self(folder)
    }
    fn tables(&self) -> Rocks {
        Rocks::open(self.0.path()).unwrap()
    }
}

macro_rules! in_both {
    ($($check:ident)*) => {
        mod in_memory {
            $(#[test] fn $check() { super::$check::<super::Memory>(); })*
        }
        mod in_rocks {
            $(#[test] fn $check() { super::$check::<super::Folder>(); })*
        }
    };
}

in_both! {
    a_new_store_is_found_again
    a_store_of_somebody_else_is_refused
    entries_are_found_again_and_a_conflicting_end_is_replaced
    entries_are_read_within_bounds_from_memory_and_disk
    what_would_break_the_order_is_refused_and_changes_nothing
    rows_and_what_is_applied_are_found_again
    compacted_entries_are_gone_and_their_end_is_known
    a_damaged_store_is_refused_with_what_is_wrong
    a_hundred_thousand_entries_are_found_again
    a_snapshot_makes_another_store_equal_while_its_sender_goes_on
    pieces_may_come_twice_but_not_in_another_order
    a_broken_snapshot_changes_nothing
    an_interrupted_snapshot_leaves_the_old_or_the_new_state
}

fn founding() -> Membership {
    Membership::founding([(MemberId(1), b"one".to_vec()), (MemberId(2), b"two".to_vec())])
}

fn create<P: Place>() -> (P, Store<P::Tables>) {
    let place = P::fresh();
    let store = Store::create(place.tables(), STAMP, founding()).unwrap();
    (place, store)
}

/// Closes and opens.
fn reopen<P: Place>(place: &P, store: Store<P::Tables>) -> Store<P::Tables> {
    drop(store);
    Store::open(place.tables(), STAMP).unwrap()
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        kind: EntryKind::Command,
        data: Bytes::from(format!("{index} of {term}")),
    }
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    indexes.map(|index| entry(index, term)).collect()
}

fn hard(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 2, commit }
}

fn position(index: u64, term: u64) -> Position {
    Position { index, term }
}

fn row(table: u8, key: &str, value: Option<&str>) -> RowChange {
    RowChange {
        table,
        key: key.into(),
        value: value.map(Into::into),
    }
}

fn rows<T: Tables>(store: &Store<T>) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    let read = |rows: &mut dyn Iterator<Item = Row>| rows.map(|row| ((row.table, row.key), row.value)).collect();
    store.read_rows(read).unwrap()
}

/// Everything that a store says of itself.
fn state<T: Tables>(store: &Store<T>) -> impl PartialEq + std::fmt::Debug + use<T> {
    let log = store
        .entries(store.first_index(), store.last_index() + 1, usize::MAX)
        .unwrap();
    (
        store.hard(),
        store.applied(),
        store.compacted(),
        store.membership().clone(),
        log,
        rows(store),
    )
}

fn a_new_store_is_found_again<P: Place>() {
    let place = P::fresh();
    assert!(matches!(
        Store::open(place.tables(), STAMP).map(drop),
        Err(StoreError::Missing)
    ));
    let store = Store::create(place.tables(), STAMP, founding()).unwrap();
    assert_eq!((store.first_index(), store.last_index()), (2, 1));
    assert_eq!(store.term(1), Some(1));
    let store = reopen(&place, store);
    assert_eq!((store.applied(), store.compacted()), (position(1, 1), position(1, 1)));
    assert_eq!(store.membership(), &founding());
    drop(store);
    assert!(matches!(
        Store::create(place.tables(), STAMP, founding()).map(drop),
        Err(StoreError::Exists { node: MemberId(1) })
    ));

    let place = P::fresh();
    let joining = Membership::joining([(MemberId(2), b"two".to_vec())]);
    let store = Store::create(place.tables(), STAMP, joining.clone()).unwrap();
    let store = reopen(&place, store);
    assert_eq!((store.first_index(), store.last_index()), (1, 0));
    assert_eq!(store.membership(), &joining);
}

fn a_store_of_somebody_else_is_refused<P: Place>() {
    let (place, store) = create::<P>();
    drop(store);
    let open = |node, cluster| {
        let node = MemberId(node);
        Store::open(place.tables(), Stamp { node, cluster }).map(drop)
    };
    assert!(matches!(open(2, [7; 16]), Err(StoreError::ForeignMember { .. })));
    assert!(matches!(open(1, [8; 16]), Err(StoreError::ForeignCluster { .. })));
    assert!(open(1, [7; 16]).is_ok());
    let mut batch = Batch::default();
    batch.put(Family::Meta, keys::STAMP, [9, 0, 0, 0, 1, 2, 3]);
    place.tables().write(batch, Durability::Synced).unwrap();
    assert!(matches!(
        open(1, [7; 16]),
        Err(StoreError::Version { found: 9, known: 1 })
    ));
}

fn entries_are_found_again_and_a_conflicting_end_is_replaced<P: Place>() {
    let (place, mut store) = create::<P>();
    store
        .append(entries(2..=9, 1), Some(hard(1, 4)), Durability::Synced)
        .unwrap();
    store
        .append(entries(6..=7, 3), Some(hard(3, 5)), Durability::Synced)
        .unwrap();
    let expected = [entries(2..=5, 1), entries(6..=7, 3)].concat();
    for _ in 0..2 {
        assert_eq!(store.last_index(), 7);
        assert_eq!(store.entries(2, 8, usize::MAX).unwrap(), expected);
        let terms: Vec<_> = (0..10).map(|index| store.term(index)).collect();
        let some = |term| Some(term);
        assert_eq!(
            terms,
            [
                None,
                some(1),
                some(1),
                some(1),
                some(1),
                some(1),
                some(3),
                some(3),
                None,
                None
            ]
        );
        assert_eq!(store.hard(), hard(3, 5));
        assert_eq!(store.log_bytes(), store.log_bytes_after(1));
        assert!(store.log_bytes_after(5) < store.log_bytes_after(4));
        assert_eq!(store.log_bytes_after(7), 0);
        store = reopen(&place, store);
    }
}

fn entries_are_read_within_bounds_from_memory_and_disk<P: Place>() {
    let (place, mut store) = create::<P>();
    let large = |index| Entry {
        data: Bytes::from(vec![index as u8; 1 << 20]),
        ..entry(index, 1)
    };
    // Twice as much as is kept in memory.
    for index in 2..=17 {
        store
            .append(vec![large(index)], Some(hard(1, index)), Durability::Later)
            .unwrap();
        store.apply(vec![], position(index, 1), None, hard(1, index)).unwrap();
    }
    for _ in 0..2 {
        let read = |low, high, bytes| -> Vec<u64> {
            let found = store.entries(low, high, bytes).unwrap();
            assert!(found.iter().all(|entry| *entry == large(entry.index)));
            found.iter().map(|entry| entry.index).collect()
        };
        assert_eq!(read(2, 18, usize::MAX), (2..=17).collect::<Vec<_>>());
        assert_eq!(read(2, 18, 0), [2]);
        assert_eq!(read(2, 18, (2 << 20) + 64), [2, 3]);
        assert_eq!(read(2, 18, (2 << 20) + 63), [2]);
        assert_eq!(read(17, 18, 0), [17]);
        assert_eq!(read(3, 5, usize::MAX), [3, 4]);
        assert_eq!(read(8, 12, usize::MAX), [8, 9, 10, 11]);
        assert_eq!(read(5, 5, usize::MAX), Vec::<u64>::new());
        for (low, high) in [(1, 3), (2, 19), (5, 4)] {
            assert!(matches!(store.entries(low, high, 1), Err(StoreError::Order { .. })));
        }
        store = reopen(&place, store);
    }
}

fn what_would_break_the_order_is_refused_and_changes_nothing<P: Place>() {
    let (place, mut store) = create::<P>();
    store
        .append(entries(2..=6, 2), Some(hard(2, 4)), Durability::Synced)
        .unwrap();
    store
        .apply(vec![row(1, "a", Some("b"))], position(3, 2), None, hard(2, 4))
        .unwrap();
    let before = state(&store);
    let append = |store: &mut Store<_>, entries, hard| store.append(entries, hard, Durability::Synced);
    let apply = |store: &mut Store<_>, index, term, hard| store.apply(vec![], position(index, term), None, hard);
    let other_vote = HardState { vote: 1, ..hard(2, 4) };
    let wrong: [(&str, Result<(), StoreError>); 13] = [
        ("gap", append(&mut store, entries(8..=8, 2), None)),
        ("committed", append(&mut store, entries(4..=4, 3), None)),
        ("holes", append(&mut store, vec![entry(7, 2), entry(9, 2)], None)),
        ("terms", append(&mut store, vec![entry(7, 3), entry(8, 2)], None)),
        ("term before", append(&mut store, vec![entry(7, 1)], None)),
        ("term back", append(&mut store, vec![], Some(hard(1, 4)))),
        ("commit back", append(&mut store, vec![], Some(hard(2, 3)))),
        ("second vote", append(&mut store, vec![], Some(other_vote))),
        ("commit past log", append(&mut store, vec![], Some(hard(2, 7)))),
        ("twice", apply(&mut store, 3, 2, hard(2, 4))),
        ("uncommitted", apply(&mut store, 5, 2, hard(2, 4))),
        ("other term", apply(&mut store, 4, 1, hard(2, 4))),
        ("compact", store.compact(4)),
    ];
    for (what, result) in wrong {
        assert!(matches!(result, Err(StoreError::Order { .. })), "{what}: {result:?}");
    }
    let long = RowChange {
        table: 0,
        key: vec![0; ROW_KEY_BYTES_MAX + 1],
        value: None,
    };
    let large = RowChange {
        table: 0,
        key: vec![0; ROW_KEY_BYTES_MAX],
        value: Some(vec![0; ROW_BYTES_MAX + 1]),
    };
    for row in [long, large] {
        let result = store.apply(vec![row], position(4, 2), None, hard(2, 4));
        assert!(matches!(result, Err(StoreError::TooLarge { .. })), "{result:?}");
    }
    assert!(
        store
            .apply(vec![row(255, "", None)], position(4, 2), None, hard(2, 4))
            .is_err()
    );
    let huge = Entry {
        data: Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]),
        ..entry(7, 2)
    };
    assert!(matches!(
        append(&mut store, vec![huge], None),
        Err(StoreError::TooLarge { .. })
    ));
    assert_eq!(state(&store), before);
    assert_eq!(state(&reopen(&place, store)), before);
}

fn rows_and_what_is_applied_are_found_again<P: Place>() {
    let (place, mut store) = create::<P>();
    store
        .append(entries(2..=5, 1), Some(hard(1, 2)), Durability::Synced)
        .unwrap();
    let first = vec![row(0, "a", Some("1")), row(0, "b", Some("1")), row(254, "", Some(""))];
    store.apply(first, position(3, 1), None, hard(1, 4)).unwrap();
    let mut members = founding();
    members.voters.remove(&MemberId(2));
    members.members.remove(&MemberId(2));
    let second = vec![row(0, "a", None), row(0, "b", Some("2")), row(9, "none", None)];
    store
        .apply(second, position(4, 1), Some(members.clone()), hard(1, 4))
        .unwrap();
    let expected = BTreeMap::from([((0, b"b".to_vec()), b"2".to_vec()), ((254, vec![]), vec![])]);
    for _ in 0..2 {
        assert_eq!(rows(&store), expected);
        assert_eq!(store.applied(), position(4, 1));
        assert_eq!(store.hard(), hard(1, 4));
        assert_eq!(store.membership(), &members);
        store = reopen(&place, store);
    }
}

fn compacted_entries_are_gone_and_their_end_is_known<P: Place>() {
    let (place, mut store) = create::<P>();
    store
        .append(entries(2..=9, 1), Some(hard(1, 9)), Durability::Synced)
        .unwrap();
    store.apply(vec![], position(8, 1), None, hard(1, 9)).unwrap();
    store.compact(6).unwrap();
    store.compact(3).unwrap();
    let after_six = store.log_bytes();
    for _ in 0..2 {
        assert_eq!(store.compacted(), position(6, 1));
        assert_eq!((store.term(5), store.term(6), store.term(7)), (None, Some(1), Some(1)));
        assert_eq!(store.entries(7, 10, usize::MAX).unwrap(), entries(7..=9, 1));
        assert!(store.entries(6, 10, usize::MAX).is_err());
        assert_eq!(store.log_bytes(), after_six);
        store = reopen(&place, store);
    }
    store.compact(8).unwrap();
    let mut store = reopen(&place, store);
    store
        .append(entries(9..=10, 2), Some(hard(2, 9)), Durability::Synced)
        .unwrap_err();
    store
        .append(entries(10..=11, 2), Some(hard(2, 9)), Durability::Synced)
        .unwrap();
    assert_eq!(reopen(&place, store).last_index(), 11);
}

fn a_damaged_store_is_refused_with_what_is_wrong<P: Place>() {
    type Damage = fn(&mut Batch);
    type Expected = fn(&StoreError) -> bool;
    fn set<V: serde::Serialize>(batch: &mut Batch, key: &[u8], value: &V) {
        batch.put(Family::Meta, key, encode::fact(key, value));
    }
    let damages: [(&str, Damage, Expected); 16] = [
        (
            "a torn entry",
            |b| b.put(Family::Log, encode::entry_key(4), &encode::entry(&entry(4, 2))[..12]),
            |e| matches!(e, StoreError::Corrupt { what, .. } if what == "entry 4 of the log"),
        ),
        (
            "an entry of another index",
            |b| b.put(Family::Log, encode::entry_key(4), encode::entry(&entry(5, 2))),
            |e| matches!(e, StoreError::Corrupt { .. }),
        ),
        (
            "a key that is no index",
            |b| b.put(Family::Log, *b"x", *b"y"),
            |e| matches!(e, StoreError::Corrupt { .. }),
        ),
        (
            "a missing entry",
            |b| b.delete(Family::Log, encode::entry_key(4)),
            |e| matches!(e, StoreError::Gap { missing: 4, next: 5 }),
        ),
        (
            "a missing beginning",
            |b| b.delete(Family::Log, encode::entry_key(2)),
            |e| matches!(e, StoreError::Gap { missing: 2, next: 3 }),
        ),
        (
            "a missing end",
            |b| b.delete_range(Family::Log, encode::entry_key(5), encode::entry_key(9)),
            |e| matches!(e, StoreError::CommitPastLog { commit: 5, last: 4 }),
        ),
        (
            "an entry that was compacted",
            |b| b.put(Family::Log, encode::entry_key(1), encode::entry(&entry(1, 1))),
            |e| matches!(e, StoreError::Corrupt { .. }),
        ),
        (
            "a term that goes back",
            |b| b.put(Family::Log, encode::entry_key(6), encode::entry(&entry(6, 1))),
            |e| matches!(e, StoreError::Corrupt { .. }),
        ),
        (
            "more applied than committed",
            |b| set(b, keys::HARD, &hard(2, 3)),
            |e| matches!(e, StoreError::AppliedPastCommit { applied: 4, commit: 3 }),
        ),
        (
            "a vote older than the log",
            |b| set(b, keys::HARD, &hard(1, 5)),
            |e| matches!(e, StoreError::Corrupt { .. }),
        ),
        (
            "applied in another term",
            |b| set(b, keys::APPLIED, &position(4, 1)),
            |e| matches!(e, StoreError::Corrupt { .. }),
        ),
        (
            "more compacted than applied",
            |b| {
                set(b, keys::COMPACTED, &position(5, 2));
                b.delete_range(Family::Log, [], encode::entry_key(6));
            },
            |e| matches!(e, StoreError::Gap { missing: 5, .. }),
        ),
        (
            "no vote",
            |b| b.delete(Family::Meta, keys::HARD),
            |e| matches!(e, StoreError::Corrupt { what, why } if what.contains("hard") && *why == "it is missing"),
        ),
        (
            "a fact of another name",
            |b| b.put(Family::Meta, keys::SIDE, encode::fact(keys::HARD, &Side::B)),
            |e| matches!(e, StoreError::Corrupt { what, .. } if what.contains("side")),
        ),
        (
            "a membership that cannot be",
            |b| {
                let mut members = founding();
                members.learners.insert(MemberId(1));
                set(b, keys::MEMBERSHIP, &members);
            },
            |e| matches!(e, StoreError::Corrupt { what, .. } if what.contains("membership")),
        ),
        (
            "no stamp",
            |b| b.delete(Family::Meta, keys::STAMP),
            |e| matches!(e, StoreError::Missing),
        ),
    ];
    for (what, damage, expected) in damages {
        let (place, mut store) = create::<P>();
        store
            .append(entries(2..=6, 2), Some(hard(2, 5)), Durability::Synced)
            .unwrap();
        store.apply(vec![], position(4, 2), None, hard(2, 5)).unwrap();
        let store = reopen(&place, store);
        drop(store);
        let mut batch = Batch::default();
        damage(&mut batch);
        place.tables().write(batch, Durability::Synced).unwrap();
        let error = Store::open(place.tables(), STAMP).map(drop).unwrap_err();
        assert!(expected(&error), "{what}: {error:?}");
    }
}

fn a_hundred_thousand_entries_are_found_again<P: Place>() {
    const LAST: u64 = 100_001;
    let (place, mut store) = create::<P>();
    let mut at = 2;
    while at <= LAST {
        let end = (at + 999).min(LAST);
        let term = at / 20_000 + 1;
        let durability = if end == LAST {
            Durability::Synced
        } else {
            Durability::Later
        };
        store
            .append(entries(at..=end, term), Some(hard(term, end)), durability)
            .unwrap();
        at = end + 1;
    }
    store.apply(vec![], position(LAST, 5), None, hard(5, LAST)).unwrap();
    let mut store = reopen(&place, store);
    assert_eq!(store.last_index(), LAST);
    let newest = store.entries(LAST - 10, LAST + 1, usize::MAX).unwrap();
    assert_eq!(newest, entries(LAST - 10..=LAST, 5));
    let oldest = store.entries(2, 500, usize::MAX).unwrap();
    assert_eq!(oldest, entries(2..=499, 1));
    assert!((2..=LAST).all(|index| store.term(index).is_some_and(|term| (1..=5).contains(&term))));
    store.compact(90_000).unwrap();
    let store = reopen(&place, store);
    assert_eq!(store.entries(90_001, LAST + 1, usize::MAX).unwrap().len(), 10_001);
}

/// A store with rows of several pieces.
fn filled<P: Place>() -> (P, Store<P::Tables>) {
    let (place, mut store) = create::<P>();
    store
        .append(entries(2..=20, 1), Some(hard(1, 20)), Durability::Synced)
        .unwrap();
    let rows = (0..3000_u32).map(|n| RowChange {
        table: (n / 1000) as u8,
        key: n.to_be_bytes().to_vec(),
        value: Some(vec![n as u8; 1000]),
    });
    store.apply(rows.collect(), position(20, 1), None, hard(1, 20)).unwrap();
    (place, store)
}

/// An older store of another member: it has a log of its own that a snapshot makes useless.
fn behind<P: Place>() -> (P, Store<P::Tables>) {
    let (place, mut store) = create::<P>();
    store
        .append(entries(2..=5, 1), Some(hard(1, 3)), Durability::Synced)
        .unwrap();
    store
        .apply(vec![row(0, "old", Some("row"))], position(3, 1), None, hard(1, 3))
        .unwrap();
    (place, store)
}

fn pieces<V: View>(mut sent: Outgoing<V>) -> (Vec<Piece>, SnapshotEnd) {
    let mut pieces = Vec::new();
    while let Some(piece) = sent.next_piece().unwrap() {
        assert!(sent.end().is_none());
        assert!(piece.bytes.len() <= PIECE_BYTES);
        pieces.push(piece);
    }
    (pieces, sent.end().unwrap())
}

const TARGET: Position = Position { index: 20, term: 1 };

/// Loads a snapshot to its end.
fn install<T: Tables>(store: &mut Store<T>, pieces: &[Piece], end: &SnapshotEnd) -> Result<(), StoreError> {
    store.begin_load(TARGET)?;
    for piece in pieces {
        store.load(piece)?;
    }
    store.finish_load(end)?;
    let rows = store.load_back(|rows| rows.count())?;
    assert_eq!(rows as u64, end.rows);
    store.adopt(TARGET, founding(), hard(2, 20))
}

fn a_snapshot_makes_another_store_equal_while_its_sender_goes_on<P: Place>() {
    let (_from_place, mut from) = filled::<P>();
    let (place, mut to) = behind::<P>();
    let expected = rows(&from);
    let sent = from.snapshot().unwrap();
    from.append(entries(21..=21, 1), Some(hard(1, 21)), Durability::Synced)
        .unwrap();
    from.apply(vec![row(0, "new", Some("row"))], position(21, 1), None, hard(1, 21))
        .unwrap();
    assert_eq!((sent.position(), sent.membership()), (TARGET, &founding()));
    let (pieces, end) = pieces(sent);
    assert!(pieces.len() >= 3, "{} pieces", pieces.len());
    assert_eq!(end.rows, 3000);
    install(&mut to, &pieces, &end).unwrap();
    for _ in 0..2 {
        assert_eq!(rows(&to), expected);
        assert_eq!((to.applied(), to.compacted()), (TARGET, TARGET));
        assert_eq!((to.first_index(), to.last_index()), (21, 20));
        assert_eq!(to.hard(), hard(2, 20));
        to = reopen(&place, to);
    }
    // And back: the side that counts changes each time.
    to.append(entries(21..=22, 2), Some(hard(2, 22)), Durability::Synced)
        .unwrap();
    to.apply(vec![row(7, "x", Some("y"))], position(22, 2), None, hard(2, 22))
        .unwrap();
    let expected = rows(&to);
    let (pieces, end) = self::pieces(to.snapshot().unwrap());
    from.begin_load(position(22, 2)).unwrap();
    pieces.iter().for_each(|piece| from.load(piece).unwrap());
    from.finish_load(&end).unwrap();
    from.load_back(|_| ()).unwrap();
    from.adopt(position(22, 2), founding(), hard(2, 22)).unwrap();
    assert_eq!(rows(&from), expected);
}

fn pieces_may_come_twice_but_not_in_another_order<P: Place>() {
    let (_place, from) = filled::<P>();
    let (_place, mut to) = behind::<P>();
    let (pieces, end) = pieces(from.snapshot().unwrap());
    // What was loaded before, also of another snapshot, is forgotten.
    to.begin_load(position(19, 1)).unwrap();
    to.load(&pieces[0]).unwrap();
    to.begin_load(TARGET).unwrap();
    to.load(&pieces[0]).unwrap();
    to.load(&pieces[0]).unwrap();
    assert!(matches!(to.load(&pieces[2]), Err(StoreError::Snapshot { .. })));
    to.load(&pieces[1]).unwrap();
    assert!(matches!(to.finish_load(&end), Err(StoreError::Snapshot { .. })));
    to.load(&pieces[0]).unwrap();
    pieces[2..].iter().for_each(|piece| to.load(piece).unwrap());
    to.finish_load(&end).unwrap();
    to.load(&pieces[1]).unwrap();
    // Not before it was read back.
    assert!(to.adopt(TARGET, founding(), hard(2, 20)).is_err());
    to.load_back(|_| ()).unwrap();
    assert!(to.adopt(position(19, 1), founding(), hard(2, 19)).is_err());
    to.adopt(TARGET, founding(), hard(2, 20)).unwrap();
    assert_eq!(rows(&to), rows(&from));
    // An old one does not take anything back.
    assert!(matches!(to.begin_load(TARGET), Err(StoreError::Order { .. })));
    assert!(to.load(&pieces[0]).is_err());
}

fn a_broken_snapshot_changes_nothing<P: Place>() {
    let (_place, from) = filled::<P>();
    let (place, mut to) = behind::<P>();
    let before = state(&to);
    let (whole, end) = pieces(from.snapshot().unwrap());
    type Break = fn(&mut Vec<Piece>, &mut SnapshotEnd);
    let breaks: [(&str, Break); 10] = [
        ("a flipped bit", |p, _| p[1].bytes[100] ^= 1),
        ("another digest", |_, e| e.digest[0] ^= 1),
        ("another count", |_, e| e.rows += 1),
        ("a lost piece", |p, e| {
            p.pop();
            e.pieces -= 1;
        }),
        ("a lost end", |p, _| {
            p.pop();
        }),
        ("a cut piece", |p, _| {
            p[1].bytes.pop();
        }),
        ("an empty piece", |p, _| p[1].bytes.clear()),
        ("a huge row", |p, _| p[1].bytes[..8].fill(255)),
        ("rows in another order", |p, _| {
            let (a, b) = (p[0].bytes.clone(), p[1].bytes.clone());
            p[0].bytes = b;
            p[1].bytes = a;
        }),
        ("a table that there is not", |p, _| p[0].bytes[8] = 255),
    ];
    for (what, breaks) in breaks {
        let (mut broken, mut its_end) = (whole.clone(), end);
        breaks(&mut broken, &mut its_end);
        let error = install(&mut to, &broken, &its_end).unwrap_err();
        assert!(matches!(error, StoreError::Snapshot { .. }), "{what}: {error:?}");
        to.abandon_load().unwrap();
        assert!(to.loading().is_none());
        assert_eq!(state(&to), before, "{what}");
    }
    to = reopen(&place, to);
    assert_eq!(state(&to), before);
    install(&mut to, &whole, &end).unwrap();
    assert_eq!(rows(&to), rows(&from));
}

fn an_interrupted_snapshot_leaves_the_old_or_the_new_state<P: Place>() {
    let (_place, from) = filled::<P>();
    let (pieces, end) = pieces(from.snapshot().unwrap());
    let run = |fail: Option<(u64, Failure)>| {
        let (place, old) = behind::<P>();
        let before = state(&old);
        drop(old);
        let faults = Faults::default();
        let mut store = Store::open(Faulty::new(place.tables(), faults.clone()), STAMP).unwrap();
        if let Some((nth, failure)) = fail {
            faults.fail_write(nth, failure);
        }
        let result = install(&mut store, &pieces, &end);
        if fail.is_some() {
            assert!(result.is_err());
            // A store that failed writes no more.
            let vote = hard(9, store.hard().commit);
            let result = store.append(vec![], Some(vote), Durability::Synced);
            assert!(matches!(result, Err(StoreError::Failed)));
        }
        drop(store);
        let mut store = Store::open(place.tables(), STAMP).unwrap();
        let is_new = store.applied() == TARGET;
        if is_new {
            assert_eq!(rows(&store), rows(&from));
            assert_eq!((store.hard(), store.last_index()), (hard(2, 20), 20));
        } else {
            assert_eq!(state(&store), before);
            // The next attempt does not mind what the last one left.
            install(&mut store, &pieces, &end).unwrap();
            assert_eq!(rows(&store), rows(&from));
        }
        (is_new, faults.writes())
    };
    let (_, writes) = run(None);
    // Emptied, loaded, adopted, emptied.
    assert_eq!(writes, pieces.len() as u64 + 3);
    for nth in 0..writes {
        assert_eq!(run(Some((nth, Failure::NotDone))).0, nth > writes - 2, "write {nth}");
        assert_eq!(run(Some((nth, Failure::Done))).0, nth >= writes - 2, "write {nth}");
    }
}

/// Random calls that a member might make, with crashes: what was synced is there, and what opens is whole.
#[test]
fn crashes_take_nothing_that_was_synced() {
    for_seeds(0..300, |seed| {
        let mut random = Random::seeded(seed);
        let memory = Memory::new();
        let mut store = Store::create(memory.clone(), STAMP, founding()).unwrap();
        let mut synced = (store.hard(), store.applied(), 1);
        // What rows are after each entry that was applied.
        let mut history = vec![(store.applied(), rows(&store))];
        for _ in 0..200 {
            let HardState { term, vote, commit } = store.hard();
            match random.below(10) {
                0..4 => {
                    let from = commit + 1 + random.below(store.last_index() - commit + 1);
                    let term = term + random.below(2);
                    let last = from + random.below(5);
                    let hard = HardState {
                        term,
                        vote: if term == store.hard().term {
                            vote
                        } else {
                            random.below(3)
                        },
                        commit: commit + random.below(last - commit + 1),
                    };
                    let durability = if random.one_in(2) {
                        Durability::Synced
                    } else {
                        Durability::Later
                    };
                    store
                        .append(entries(from..=last, term), Some(hard), durability)
                        .unwrap();
                    if durability == Durability::Synced {
                        synced = (hard, store.applied(), last);
                    }
                }
                4..7 if commit > store.applied().index => {
                    let index = store.applied().index + 1 + random.below(commit - store.applied().index);
                    let term = store.term(index).unwrap();
                    let key = random.below(4).to_string();
                    let row = row(0, &key, Some(&index.to_string()));
                    store
                        .apply(vec![row], position(index, term), None, store.hard())
                        .unwrap();
                    history.push((store.applied(), rows(&store)));
                }
                7 => {
                    let to =
                        store.compacted().index + random.below(store.applied().index - store.compacted().index + 1);
                    store.compact(to).unwrap();
                }
                8 => {
                    let unsynced = memory.unsynced() as u64;
                    memory.crash(Loss::AllBut(random.below(unsynced + 1) as usize));
                    store = Store::open(memory.clone(), STAMP).unwrap();
                    assert!(store.hard().term >= synced.0.term && store.hard().commit >= synced.0.commit);
                    assert!(store.last_index() >= synced.0.commit);
                    // Rows are those of the entry that they say, and of no older one than was synced.
                    assert!(store.applied().index >= synced.1.index);
                    history.retain(|(at, _)| at.index <= store.applied().index);
                    assert_eq!(history.last(), Some(&(store.applied(), rows(&store))));
                    if unsynced == 0 {
                        assert_eq!((store.hard(), store.applied(), store.last_index()), synced);
                    }
                    // What survived one crash survives the next.
                    synced = (store.hard(), store.applied(), store.last_index());
                }
                _ => {
                    let low = store.first_index() + random.below(store.last_index() + 2 - store.first_index());
                    let found = store.entries(low, store.last_index() + 1, 100).unwrap();
                    assert!(found.iter().all(|entry| store.term(entry.index) == Some(entry.term)));
                }
            }
        }
        // A disk that tears batches is noticed, or did no harm; nothing panics.
        let unsynced = memory.unsynced() as u64;
        let batches = random.below(unsynced + 1) as usize;
        let ops = random.below(4) as usize;
        memory.crash(Loss::Torn { batches, ops });
        if let Ok(store) = Store::open(memory, STAMP) {
            assert!(store.applied().index <= store.hard().commit && store.hard().commit <= store.last_index());
        }
    });
}

#[test]
fn a_full_disk_is_named_and_ends_writing() {
    let memory = Memory::new();
    let faults = Faults::default();
    let mut store = Store::create(Faulty::new(memory, faults.clone()), STAMP, founding()).unwrap();
    faults.set_full(true);
    let append = |store: &mut Store<_>| store.append(entries(2..=2, 1), None, Durability::Synced);
    assert!(matches!(append(&mut store), Err(StoreError::Full { .. })));
    assert_eq!(store.last_index(), 1);
    // Space alone does not mend it: what happened to the batch is unknown.
    faults.set_full(false);
    assert!(matches!(append(&mut store), Err(StoreError::Failed)));
}

#[test]
fn a_database_is_used_by_one_process_at_a_time() {
    let place = Folder::fresh();
    let open = place.tables();
    assert!(matches!(Rocks::open(place.0.path()).map(drop), Err(StoreError::Locked)));
    // A view that outlives the store does not keep it open for ever.
    let view = open.view(Family::Log).unwrap();
    drop(open);
    drop(view);
    Rocks::open(place.0.path()).unwrap();
    assert!(matches!(
        Rocks::create(place.0.path()).map(drop),
        Err(StoreError::Damaged { .. })
    ));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Rocks::open(empty.path()).map(drop), Err(StoreError::Missing)));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

fn write_ahead_log(folder: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut logs: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

#[test]
fn a_torn_end_of_the_databases_own_log_is_dropped() {
    let (place, mut store) = create::<Folder>();
    let store_of = |place: &Folder| Store::open(place.tables(), STAMP).unwrap();
    store
        .append(entries(2..=3, 1), Some(hard(1, 2)), Durability::Synced)
        .unwrap();
    let log = write_ahead_log(place.0.path());
    let whole = std::fs::metadata(&log).unwrap().len();
    store.append(entries(4..=5, 1), None, Durability::Synced).unwrap();
    drop(store);
    let bytes = std::fs::read(&log).unwrap();
    for length in [bytes.len() - 1, usize::try_from(whole).unwrap() + 3] {
        std::fs::write(&log, &bytes[..length]).unwrap();
        let copy = Folder(tempfile::tempdir().unwrap());
        for file in std::fs::read_dir(place.0.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.0.path().join(file.file_name())).unwrap();
        }
        assert_eq!(store_of(&copy).last_index(), 3, "{length} of {} bytes", bytes.len());
    }
    // Damage before the end is not taken for an end.
    let mut damaged = bytes.clone();
    damaged[usize::try_from(whole).unwrap() - 5] ^= 1;
    std::fs::write(&log, &damaged).unwrap();
    assert!(matches!(
        Rocks::open(place.0.path()).map(drop),
        Err(StoreError::Damaged { .. })
    ));
    std::fs::remove_file(&log).unwrap();
    assert!(matches!(
        Rocks::open(place.0.path()).map(drop),
        Err(StoreError::Damaged { .. })
    ));
}
