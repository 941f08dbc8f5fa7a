//! Entries as bytes: read as they were written, and never more than that.

use super::samples::{Dice, KINDS};
use super::*;
use crate::state::entry::ENTRY_FORM;
use crate::state::error::{EntryError, LoadError};
use proptest::prelude::*;

#[test]
fn the_number_of_a_kind_is_the_one_that_is_encoded() {
    let mut dice = Dice(1);
    for kind in 0..KINDS {
        let command = dice.command(kind);
        assert_eq!(command.kind(), kind);
        assert_eq!(postcard::to_stdvec(&command).unwrap()[0], kind);
    }
}

#[test]
fn an_entry_of_another_form_is_named_and_not_guessed() {
    let mut bytes = Dice(1).entry(3).encode();
    assert_eq!(
        bytes[..2],
        [1, 0],
        "an old command in a form that members of the version before do not know"
    );
    for form in [0, ENTRY_FORM + 1, u16::MAX] {
        bytes[..2].copy_from_slice(&form.to_le_bytes());
        let known = ENTRY_FORM;
        assert_eq!(Entry::decode(&bytes), Err(EntryError::Form { form, known }));
    }
}

#[test]
fn an_unknown_kind_is_damage() {
    let entry = Entry {
        now: Time(0),
        actor: Actor::Cluster,
        key: None,
        command: Command::ConfirmClock,
    };
    let mut bytes = entry.encode();
    *bytes.last_mut().unwrap() = KINDS;
    assert!(matches!(Entry::decode(&bytes), Err(EntryError::Damaged { .. })));
}

#[test]
fn lengths_beyond_the_bytes_take_no_memory() {
    // A list of 2^63 points, and nothing after it.
    let entry = Entry {
        now: Time(0),
        actor: Actor::Cluster,
        key: None,
        command: Command::GiveUpPoints { points: Vec::new() },
    };
    let mut bytes = entry.encode();
    bytes.pop();
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(matches!(Entry::decode(&bytes), Err(EntryError::Damaged { .. })));
}

#[test]
fn rows_that_this_program_did_not_write_are_not_loaded() {
    let (bench, _) = Bench::ready();
    let rows: Vec<_> = bench.stored().collect();
    let load_with = |row: (u8, Vec<u8>, Vec<u8>)| State::load(rows.iter().cloned().chain([row])).unwrap_err();
    assert_eq!(load_with((20, Vec::new(), vec![1])), LoadError::Table { table: 20 });
    let policy = bench.state.policies().get(&POLICY).unwrap();
    let good = postcard::to_extend(policy, vec![1]).unwrap();
    let key = vec![0x33; 16];
    State::load(rows.iter().cloned().chain([(4, key.clone(), good.clone())])).unwrap();
    let mut later = good.clone();
    later[0] = 2;
    assert_eq!(
        load_with((4, key.clone(), later)),
        LoadError::Form { table: 4, form: 2 }
    );
    let mut longer = good.clone();
    longer.push(0);
    let broken = [
        (vec![0x33; 15], good.clone()),
        (key.clone(), Vec::new()),
        (key.clone(), good[..good.len() - 1].to_vec()),
        (key, longer),
    ];
    for (key, value) in broken {
        assert!(matches!(load_with((4, key, value)), LoadError::Row { table: 4, .. }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_entry_is_read_as_it_was_written(seed: u64, kind in 0..KINDS) {
        let entry = Dice(seed).entry(kind);
        let bytes = entry.encode();
        prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn a_cut_or_prolonged_entry_is_damage(seed: u64, kind in 0..KINDS, cut: prop::sample::Index) {
        let mut bytes = Dice(seed).entry(kind).encode();
        let cut = cut.index(bytes.len());
        let damaged = matches!(Entry::decode(&bytes[..cut]), Err(EntryError::Damaged { .. }));
        prop_assert!(damaged, "{cut} of {}", bytes.len());
        bytes.push(0);
        let damaged = matches!(Entry::decode(&bytes), Err(EntryError::Damaged { .. }));
        prop_assert!(damaged);
    }

    /// What a flipped bit makes may well be an entry (the log's own checksums are there for that); it is read and applied without harm to the process.
    #[test]
    fn a_flipped_bit_breaks_nothing(seed: u64, kind in 0..KINDS, place: prop::sample::Index, bit in 0..8u8) {
        let mut bytes = Dice(seed).entry(kind).encode();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(entry) = Entry::decode(&bytes) {
            State::default().apply(1, &entry);
        }
    }

    #[test]
    fn noise_breaks_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut form = ENTRY_FORM.to_le_bytes().to_vec();
        form.extend(&bytes);
        drop(Entry::decode(&bytes));
        drop(Entry::decode(&form));
        for table in 0..16 {
            drop(State::load([(table, bytes[..bytes.len().min(16)].to_vec(), bytes.clone())]));
        }
    }
}
