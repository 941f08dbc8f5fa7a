//! Who did what?

use std::collections::BTreeMap;

use serde::Serialize;
use tresor_proto::v1;
use tresor_storage::ids::hex;

use super::Head;
use super::page::{Bars, Cell, Days, Grid, Page, Part, Series, Tone};
use super::window::{Window, read};
use crate::human;
use crate::verb::shown::some;

/// Actors and actions that a chart names.
const TOP: usize = 10;

/// What kind of thing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// What is protected, and how, is another than before.
    Change,
    /// Data were taken out.
    Restore,
    /// Who may do what: tokens, and nodes that come and go.
    Access,
    /// Points were hidden or given up, by a person or as their policy says.
    Removal,
    /// Somebody looked at what is guarded.
    Look,
    /// It was asked for and not done.
    Refused,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Change,
        Self::Restore,
        Self::Access,
        Self::Removal,
        Self::Look,
        Self::Refused,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Change => "changes",
            Self::Restore => "restores",
            Self::Access => "access",
            Self::Removal => "removals",
            Self::Look => "looks",
            Self::Refused => "refused",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Change => "one",
            Self::Restore => "three",
            Self::Access => "four",
            Self::Removal => "two",
            Self::Look => "five",
            Self::Refused => "bad",
        }
    }

    /// Of an entry of the trail.
    fn of(action: &str, outcome: &str) -> Self {
        match action {
            _ if !outcome.starts_with("done") => Self::Refused,
            "start restore" | "restore by command" => Self::Restore,
            "list audit" | "back up cluster" => Self::Look,
            "remove points" | "give up points" | "remove vault" => Self::Removal,
            "create token" | "create join token" | "revoke token" | "add worker" | "remove worker"
            | "add coordinator" | "remove coordinator" | "index keys" => Self::Access,
            _ => Self::Change,
        }
    }
}

#[derive(Debug, Serialize)]
struct EntryRow {
    seq: u64,
    time: String,
    kind: Kind,
    actor: String,
    action: String,
    object: Option<String>,
    outcome: String,
    hash: String,
}

/// Entries by kind.
type Counts = BTreeMap<&'static str, u64>;

#[derive(Debug, Serialize)]
struct Named {
    name: String,
    entries: u64,
    refused: u64,
    restores: u64,
    last: String,
}

#[derive(Debug, Serialize)]
struct DayRow {
    day: String,
    #[serde(flatten)]
    kinds: Counts,
}

/// What the check of the chain found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chain {
    whole: bool,
    first: u64,
    last: u64,
    head: String,
    broken: Option<String>,
}

impl From<v1::VerifyAuditResponse> for Chain {
    fn from(verified: v1::VerifyAuditResponse) -> Self {
        Self {
            whole: verified.whole,
            first: verified.first,
            last: verified.last,
            head: hex(&verified.head),
            broken: some(verified.broken),
        }
    }
}

#[derive(Debug, Serialize)]
struct Totals {
    entries: u64,
    #[serde(flatten)]
    kinds: Counts,
    actors: u64,
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Audit {
    #[serde(flatten)]
    pub(crate) head: Head,
    chain: Chain,
    totals: Totals,
    days: Vec<DayRow>,
    actors: Vec<Named>,
    actions: Vec<Named>,
    /// The newest first.
    entries: Vec<EntryRow>,
    /// Entries of the window that are not listed.
    left_out: u64,
}

#[derive(Default)]
struct Of {
    entries: u64,
    refused: u64,
    restores: u64,
    last: String,
}

/// Entries, the newest first.
pub(crate) struct Fold {
    window: Window,
    most: usize,
    days: Vec<Counts>,
    actors: BTreeMap<String, Of>,
    actions: BTreeMap<String, Of>,
    kinds: Counts,
    entries: Vec<EntryRow>,
    seen: u64,
}

impl Fold {
    /// An empty one, that lists as many entries as `most`.
    pub(crate) fn new(window: Window, most: usize) -> Self {
        Self {
            days: vec![Counts::new(); window.days().len()],
            window,
            most,
            actors: BTreeMap::new(),
            actions: BTreeMap::new(),
            kinds: Kind::ALL.map(|kind| (kind.word(), 0)).into(),
            entries: Vec::new(),
            seen: 0,
        }
    }

    /// An entry. Returns whether older ones may be in the window.
    pub(crate) fn entry(&mut self, entry: v1::AuditEntry) -> bool {
        let Some(time) = read(&entry.time) else { return true };
        if time < self.window.since {
            return false;
        }
        let Some(day) = self.window.day(time) else { return true };
        // What is only said to the trail has its own action in front.
        let (action, object) = match entry.object.split_once(": ") {
            Some((action, object)) if entry.action == "note" => (action.to_owned(), object.to_owned()),
            _ => (entry.action, entry.object),
        };
        let kind = Kind::of(&action, &entry.outcome);
        self.seen += 1;
        *self.kinds.entry(kind.word()).or_insert(0) += 1;
        *self.days[day].entry(kind.word()).or_insert(0) += 1;
        let (actors, actions) = (&mut self.actors, &mut self.actions);
        for (names, name) in [(actors, &entry.actor), (actions, &action)] {
            let of = names.entry(name.clone()).or_default();
            of.entries += 1;
            of.refused += u64::from(kind == Kind::Refused);
            of.restores += u64::from(kind == Kind::Restore);
            if of.last < entry.time {
                entry.time.clone_into(&mut of.last);
            }
        }
        if self.entries.len() < self.most {
            self.entries.push(EntryRow {
                seq: entry.seq,
                time: entry.time,
                kind,
                actor: entry.actor,
                action,
                object: some(object),
                outcome: entry.outcome,
                hash: hex(&entry.hash),
            });
        }
        true
    }

    /// All of it.
    pub(crate) fn finish(self, chain: Chain, head: Head) -> Audit {
        let named = |all: BTreeMap<String, Of>| {
            let mut rows: Vec<Named> = all
                .into_iter()
                .map(|(name, of)| Named {
                    name,
                    entries: of.entries,
                    refused: of.refused,
                    restores: of.restores,
                    last: of.last,
                })
                .collect();
            rows.sort_by(|a, b| b.entries.cmp(&a.entries).then_with(|| a.name.cmp(&b.name)));
            rows
        };
        let days = self.window.days().into_iter().zip(self.days);
        Audit {
            head,
            chain,
            totals: Totals {
                entries: self.seen,
                kinds: self.kinds,
                actors: self.actors.len() as u64,
            },
            days: days.map(|(day, kinds)| DayRow { day, kinds }).collect(),
            actors: named(self.actors),
            actions: named(self.actions),
            left_out: self.seen - self.entries.len() as u64,
            entries: self.entries,
        }
    }
}

impl Audit {
    /// Whether the trail is whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.chain.whole
    }

    fn answer(&self) -> (String, Tone) {
        let Chain { first, last, .. } = self.chain;
        match &self.chain.broken {
            None if self.chain.whole => (
                format!("The audit trail is whole, from entry {first} to entry {last}."),
                Tone::Good,
            ),
            why => (
                format!(
                    "THE AUDIT TRAIL IS BROKEN (entries {first} to {last}): {}",
                    why.as_deref().unwrap_or("no reason is given")
                ),
                Tone::Bad,
            ),
        }
    }

    /// Lays it out.
    pub(crate) fn page(&self) -> Page {
        let mut facts = vec![
            ("entries", Cell::count(self.totals.entries)),
            ("actors", Cell::count(self.totals.actors)),
        ];
        for kind in Kind::ALL {
            let count = self.totals.kinds.get(kind.word()).copied().unwrap_or(0);
            let tone = if kind == Kind::Refused && count > 0 {
                Tone::Warn
            } else {
                Tone::Plain
            };
            facts.push((kind.word(), Cell::count(count).meant(tone)));
        }
        Page {
            title: "Audit report",
            answer: self.answer(),
            about: self.head.about(),
            notes: self.notes(),
            facts,
            parts: self.parts(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            format!(
                "Hash of the newest entry when the chain was checked: {}",
                self.chain.head
            ),
            String::from(
                "Access: tokens made and ended, nodes that joined or were removed. A token is shown with every call, so that there is no entry for a login. Refused: the state refused it; calls that no token or no role allowed are in the metric tresor_coordinator_requests_denied_total instead.",
            ),
            String::from("Removals by cluster are those that policies asked for."),
        ];
        notes.extend(self.head.notes.iter().cloned());
        notes
    }

    fn parts(&self) -> Vec<Part> {
        let of = |day: &DayRow, kind: Kind| day.kinds.get(kind.word()).copied().unwrap_or(0);
        let series = Kind::ALL.map(|kind| Series {
            name: kind.word().to_owned(),
            class: kind.class(),
            values: self.days.iter().map(|day| of(day, kind)).collect(),
        });
        let row = |day: &DayRow| {
            let counts = Kind::ALL.map(|kind| Cell::count(of(day, kind)));
            [Cell::text(&day.day)].into_iter().chain(counts).collect()
        };
        let bars = |title, all: &[Named], class| {
            Part::Bars(Bars {
                title,
                rows: all
                    .iter()
                    .take(TOP)
                    .map(|named| (named.name.clone(), named.entries, class))
                    .collect(),
                read: human::count,
            })
        };
        vec![
            Part::Days(Days {
                title: "Entries by day, by kind",
                days: self.days.iter().map(|day| day.day.clone()).collect(),
                series: series.into(),
                read: human::count,
                binary: false,
            }),
            Part::Numbers(Grid {
                name: "days",
                heading: "Entries by day",
                note: None,
                columns: vec![
                    "day",
                    ">changes",
                    ">restores",
                    ">access",
                    ">removals",
                    ">looks",
                    ">refused",
                ],
                rows: self.days.iter().map(row).collect(),
                left_out: 0,
            }),
            bars("Entries by actor", &self.actors, "one"),
            Part::Numbers(named_grid("actors", "Actors", "actor", &self.actors)),
            bars("Entries by action", &self.actions, "three"),
            Part::Numbers(named_grid("actions", "Actions", "action", &self.actions)),
            Part::Grid(self.entries_grid()),
        ]
    }

    fn entries_grid(&self) -> Grid {
        let row = |entry: &EntryRow| {
            let outcome = Cell::text(&entry.outcome);
            vec![
                Cell::text(entry.seq.to_string()),
                Cell::text(&entry.time),
                Cell::text(&entry.actor),
                Cell::text(&entry.action),
                match entry.kind {
                    Kind::Refused => outcome.meant(Tone::Bad),
                    _ => outcome,
                },
                Cell::text(entry.object.as_deref().unwrap_or_default()),
            ]
        };
        Grid {
            name: "entries",
            heading: "Entries, the newest first",
            note: None,
            columns: vec!["seq", "time", "actor", "action", "outcome", "object"],
            rows: self.entries.iter().map(row).collect(),
            left_out: self.left_out,
        }
    }
}

fn named_grid(name: &'static str, heading: &'static str, of: &'static str, all: &[Named]) -> Grid {
    let row = |named: &Named| {
        vec![
            Cell::text(&named.name),
            Cell::count(named.entries),
            Cell::count(named.restores),
            Cell::count(named.refused),
            Cell::text(&named.last),
        ]
    };
    Grid {
        name,
        heading,
        note: None,
        columns: vec![of, ">entries", ">restores", ">refused", "last"],
        rows: all.iter().map(row).collect(),
        left_out: 0,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::testing::{head, window};
    use super::*;

    fn entry(seq: u64, actor: &str, action: &str, outcome: &str, time: &str) -> v1::AuditEntry {
        v1::AuditEntry {
            seq,
            time: time.to_owned(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            object: format!("object {seq}"),
            outcome: outcome.to_owned(),
            hash: vec![1; 32].into(),
        }
    }

    fn chain(whole: bool) -> Chain {
        Chain::from(v1::VerifyAuditResponse {
            whole,
            first: 1,
            last: 9,
            head: vec![0xab; 32].into(),
            broken: if whole {
                String::new()
            } else {
                String::from("entry 4 is another")
            },
        })
    }

    fn report(most: usize) -> Audit {
        let mut fold = Fold::new(window(), most);
        let note = v1::AuditEntry {
            object: String::from("list audit: entries with \"a: b\""),
            ..entry(8, "alice", "note", "done", "2026-11-22T09:00:00Z")
        };
        for entry in [
            note,
            entry(7, "alice", "start restore", "done: 4", "2026-11-22T08:00:00Z"),
            entry(6, "bob", "protect item", "refused: exists", "2026-11-21T08:00:00Z"),
            entry(5, "cluster", "remove points", "done: 3", "2026-11-20T08:00:00Z"),
            entry(4, "alice", "create token", "done", "2026-11-19T08:00:00Z"),
            entry(3, "alice", "protect item", "done", "2026-11-18T08:00:00Z"),
        ] {
            assert!(fold.entry(entry));
        }
        let before = entry(2, "alice", "protect item", "done", "2026-11-01T08:00:00Z");
        assert!(!fold.entry(before), "all that comes is older than the window");
        fold.finish(chain(true), head("audit"))
    }

    #[test]
    fn entries_are_counted_by_what_they_are() {
        let report = report(usize::MAX);
        for kind in Kind::ALL {
            assert_eq!(report.totals.kinds[kind.word()], 1, "{kind:?}");
        }
        assert_eq!((report.totals.entries, report.totals.actors), (6, 3));
        let looked = &report.entries[0];
        assert_eq!(
            (looked.action.as_str(), looked.object.as_deref()),
            ("list audit", Some("entries with \"a: b\""))
        );
        let alice = &report.actors[0];
        assert_eq!((alice.name.as_str(), alice.entries, alice.restores), ("alice", 4, 1));
    }

    #[test]
    fn totals_are_the_sums_of_days_actors_and_actions() {
        let report = report(2);
        let total = report.totals.entries;
        assert_eq!(
            report.days.iter().flat_map(|day| day.kinds.values()).sum::<u64>(),
            total
        );
        assert_eq!(report.totals.kinds.values().sum::<u64>(), total);
        for named in [&report.actors, &report.actions] {
            assert_eq!(named.iter().map(|named| named.entries).sum::<u64>(), total);
        }
        assert_eq!(
            report.entries.len() as u64 + report.left_out,
            total,
            "what is not listed is counted"
        );
        for grid in report.page().grids() {
            for row in &grid.rows {
                assert_eq!(row.len(), grid.columns.len(), "{}", grid.name);
            }
        }
    }

    #[test]
    fn a_broken_trail_is_the_first_thing_told() {
        let fold = Fold::new(window(), 1);
        let report = fold.finish(chain(false), head("audit"));
        assert!(!report.is_whole());
        assert_eq!(
            report.page().answer,
            (
                String::from("THE AUDIT TRAIL IS BROKEN (entries 1 to 9): entry 4 is another"),
                Tone::Bad
            )
        );
    }

    #[test]
    fn the_text_of_a_small_report() {
        let report = report(4);
        insta::assert_snapshot!(super::super::text::draw(&report.page(), 50));
        insta::assert_snapshot!(
            "audit-csv",
            super::super::csv::draw(report.page().grids().last().unwrap())
        );
    }
}
