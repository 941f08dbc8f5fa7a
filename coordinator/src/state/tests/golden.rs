//! What is in logs and rows that exist: entries of every kind and rows of every table as form 1 has them, and what those entries come to.
//!
//! The fixtures are never edited once something was released with them. A test that fails here says that logs or rows of an older program would be
//! read as something else, or that members of two versions would part. Then the change needs a new form ([`ENTRY_FORM`](crate::state::entry::ENTRY_FORM),
//! or the form of rows), which keeps reading the old one, and fixtures of its own. While nothing has been released, `TRESOR_WRITE_FIXTURES=1` writes
//! them anew.

use super::samples::KINDS;
use super::story::story;
use super::*;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use tresor_proto::ids::hex;

const WHAT_TO_DO: &str =
    "bytes in existing logs and rows would mean something else: this change needs a new form, see tests/golden.rs";
const TABLES: u8 = 20;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// The lines of a fixture; written first, where that was asked for.
fn fixture(name: &str, now: &str) -> Vec<String> {
    if std::env::var_os("TRESOR_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(path("")).unwrap();
        std::fs::write(path(name), now).unwrap();
    }
    let text = std::fs::read_to_string(path(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|c| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// An entry a line: its kind, and its bytes.
fn entry_lines(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let debug = format!("{:?}", entry.command);
        let kind = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        writeln!(text, "{kind} {}", hex(&entry.encode())).unwrap();
    }
    text
}

/// A row a line: its table, its key, its bytes.
fn row_lines(rows: impl IntoIterator<Item = (u8, Vec<u8>, Vec<u8>)>) -> String {
    let mut text = String::new();
    for (table, key, value) in rows {
        writeln!(text, "{table} {} {}", hex(&key), hex(&value)).unwrap();
    }
    text
}

fn compare(now: &str, before: &[String]) {
    for (now, before) in now.lines().zip(before) {
        assert_eq!(now, before, "{WHAT_TO_DO}");
    }
    assert_eq!(now.lines().count(), before.len(), "{WHAT_TO_DO}");
}

#[test]
fn entries_of_every_kind_are_encoded_as_they_were() {
    let (entries, _) = story();
    let kinds: BTreeSet<u8> = entries.iter().map(|entry| entry.command.kind()).collect();
    assert_eq!(kinds, (0..KINDS).collect());
    let now = entry_lines(&entries);
    compare(&now, &fixture("entries-1.txt", &now));
}

#[test]
fn rows_of_every_table_are_encoded_as_they_were() {
    let (_, bench) = story();
    let tables: BTreeSet<u8> = bench.stored().map(|(table, ..)| table).collect();
    assert_eq!(tables, (0..TABLES).collect());
    let now = row_lines(bench.stored());
    compare(&now, &fixture("rows-1.txt", &now));
}

/// What an entry does, what it writes into the audit trail and into jobs, is part of what it means: members of two versions have to agree.
#[test]
fn a_log_that_exists_comes_to_the_rows_that_it_came_to() {
    let (entries, bench) = story();
    let lines = fixture("entries-1.txt", &entry_lines(&entries));
    let mut state = State::default();
    let mut made = BTreeMap::new();
    for (line, index) in lines.iter().zip(1..) {
        let (_, entry) = line.split_once(' ').unwrap();
        let entry = Entry::decode(&bytes(entry)).expect(WHAT_TO_DO);
        state.apply(index, &entry);
        for RowChange { table, key, value } in state.take_changes() {
            match value {
                Some(value) => made.insert((table, key), value),
                None => made.remove(&(table, key)),
            };
        }
    }
    let rows = fixture("rows-1.txt", &row_lines(bench.stored()));
    let made = made.into_iter().map(|((table, key), value)| (table, key, value));
    compare(&row_lines(made), &rows);
}

#[test]
fn rows_that_exist_are_loaded_as_the_state_they_were() {
    let (_, bench) = story();
    let lines = fixture("rows-1.txt", &row_lines(bench.stored()));
    let rows = lines.iter().map(|line| {
        let mut parts = line.split(' ');
        let mut next = || parts.next().unwrap();
        (next().parse().unwrap(), bytes(next()), bytes(next()))
    });
    let loaded = State::load(rows).expect(WHAT_TO_DO);
    assert_eq!(loaded, bench.state, "{WHAT_TO_DO}");
    loaded.check_invariants(bench.index).unwrap();
}
