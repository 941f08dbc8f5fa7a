//! What every kind of [`Tables`] must do, as checks to run against fresh, empty ones.
//!
//! Each check takes tables of its own and panics with what differs. Add a check here, and to the suite, and all kinds are held to it. That a
//! crash takes nothing that was synced is checked where crashes can be made: in memory by the kind's own tests and all simulations.

use super::tables::{Batch, Durability, Family, Pair, Tables, View};

/// Makes one test of each check, for the tables that the closure returns beside what must outlive them.
#[cfg(test)]
macro_rules! tables_suite {
    ($fresh:expr) => {
        $crate::store::conformance::tables_suite!($fresh;
            families_do_not_share_keys
            a_batch_happens_in_its_order
            a_range_goes_without_its_end
            a_scan_is_bounded_and_goes_on_where_it_stopped
            a_view_stays_as_it_was
            views_read_everything_once_whatever_the_pieces
        );
    };
    ($fresh:expr; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                let (_kept, mut tables) = ($fresh)();
                $crate::store::conformance::$check(&mut tables);
            }
        )*
    };
}
#[cfg(test)]
pub(crate) use tables_suite;

fn pair(key: &[u8], value: &[u8]) -> Pair {
    (key.to_vec(), value.to_vec())
}

fn all(tables: &impl Tables, family: Family) -> Vec<Pair> {
    tables.scan(family, &[], usize::MAX).expect("tables can be read")
}

fn write(tables: &mut impl Tables, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::default();
    fill(&mut batch);
    tables.write(batch, Durability::Synced).expect("tables can be written");
}

/// A key means another thing in each family.
pub(crate) fn families_do_not_share_keys(tables: &mut impl Tables) {
    for family in Family::ALL {
        write(tables, |batch| batch.put(family, *b"key", [family as u8]));
    }
    for family in Family::ALL {
        let value = tables.get(family, b"key").expect("tables can be read");
        assert_eq!(value, Some(vec![family as u8]));
        assert_eq!(all(tables, family), [pair(b"key", &[family as u8])]);
    }
    assert_eq!(tables.get(Family::Log, b"other").expect("tables can be read"), None);
}

/// Later changes of a batch see the earlier ones.
pub(crate) fn a_batch_happens_in_its_order(tables: &mut impl Tables) {
    write(tables, |batch| {
        batch.put(Family::Log, *b"a", *b"1");
        batch.put(Family::Log, *b"b", *b"1");
        batch.put(Family::Log, *b"c", *b"1");
    });
    write(tables, |batch| {
        batch.delete_range(Family::Log, *b"a", *b"c");
        batch.put(Family::Log, *b"b", *b"2");
        batch.put(Family::Log, *b"b", *b"3");
        batch.delete(Family::Log, *b"c");
        batch.put(Family::Log, *b"d", *b"1");
        batch.delete_range(Family::Log, *b"d", *b"e");
    });
    assert_eq!(all(tables, Family::Log), [pair(b"b", b"3")]);
}

/// A range's end stays, and so does everything outside; an empty or inverted range removes nothing.
pub(crate) fn a_range_goes_without_its_end(tables: &mut impl Tables) {
    write(tables, |batch| {
        for key in [&b"a"[..], b"b", b"ba", b"bz", b"c"] {
            batch.put(Family::RowsA, key, *b"");
            batch.put(Family::RowsB, key, *b"");
        }
    });
    write(tables, |batch| batch.delete_range(Family::RowsA, *b"b", *b"c"));
    assert_eq!(all(tables, Family::RowsA), [pair(b"a", b""), pair(b"c", b"")]);
    assert_eq!(all(tables, Family::RowsB).len(), 5);
    write(tables, |batch| batch.delete_range(Family::RowsB, *b"b", *b"b"));
    assert_eq!(all(tables, Family::RowsB).len(), 5);
}

/// A scan gives at least one pair, keeps to its bound after that, and starts at its key whether or not that is there.
pub(crate) fn a_scan_is_bounded_and_goes_on_where_it_stopped(tables: &mut impl Tables) {
    write(tables, |batch| {
        for n in 0_u8..10 {
            batch.put(Family::Log, [n * 2], [0; 9]);
        }
    });
    let scan = |from: &[u8], bytes| tables.scan(Family::Log, from, bytes).expect("tables can be read");
    assert_eq!(scan(&[], 0).len(), 1);
    assert_eq!(scan(&[], 29).len(), 2);
    assert_eq!(scan(&[], 30).len(), 3);
    assert_eq!(scan(&[3], 10), [pair(&[4], &[0; 9])]);
    assert_eq!(scan(&[4], 10), [pair(&[4], &[0; 9])]);
    assert_eq!(scan(&[18, 0], 10), []);
}

/// Writes after a view was taken do not show in it.
pub(crate) fn a_view_stays_as_it_was(tables: &mut impl Tables) {
    write(tables, |batch| {
        for n in 0_u8..100 {
            batch.put(Family::RowsA, [n], [1]);
        }
    });
    let mut view = tables.view(Family::RowsA).expect("tables can be read");
    write(tables, |batch| {
        batch.delete_range(Family::RowsA, [0], [50]);
        batch.put(Family::RowsA, [60], [2]);
        batch.put(Family::RowsA, [200], [2]);
    });
    let mut later = tables.view(Family::RowsA).expect("tables can be read");
    let seen = view.next(usize::MAX).expect("views can be read");
    assert_eq!(seen.len(), 100);
    assert!(seen.iter().all(|(_, value)| *value == [1]));
    assert_eq!(later.next(usize::MAX).expect("views can be read").len(), 51);
}

/// The pieces of a view follow each other without a gap, and its end is an end.
pub(crate) fn views_read_everything_once_whatever_the_pieces(tables: &mut impl Tables) {
    write(tables, |batch| {
        for n in 0_u16..1000 {
            batch.put(Family::RowsB, n.to_be_bytes(), vec![7; usize::from(n % 13)]);
        }
    });
    let whole = all(tables, Family::RowsB);
    for bytes in [1, 20, 333, usize::MAX] {
        let mut view = tables.view(Family::RowsB).expect("tables can be read");
        let mut seen = Vec::new();
        loop {
            let piece = view.next(bytes).expect("views can be read");
            if piece.is_empty() {
                break;
            }
            let size: usize = piece.iter().map(|(key, value)| key.len() + value.len()).sum();
            assert!(
                size <= bytes || piece.len() == 1,
                "a piece of {size} bytes, not {bytes}"
            );
            seen.extend(piece);
        }
        assert!(view.next(bytes).expect("views can be read").is_empty());
        assert_eq!(seen, whole);
    }
    // A view that nobody reads to its end is no burden to who goes on.
    let mut unread = tables.view(Family::RowsB).expect("tables can be read");
    unread.next(1).expect("views can be read");
    drop(unread);
    write(tables, |batch| batch.delete_range(Family::RowsB, [0], [255]));
    assert_eq!(all(tables, Family::RowsB), []);
}
