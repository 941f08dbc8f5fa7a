//! What does it take? Bytes read, new and stored, by vault, item and day.
//!
//! What a store holds at this moment is not in the state of a cluster: jobs say what they put, and nothing is taken off when a point expires and its packs
//! are removed. So every number here is of what was put, and says so.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1;

use super::page::{Bars, Cell, Days, Grid, Page, Part, Series, Tone};
use super::window::{DAY, Window, read};
use super::{Head, UNKNOWN};
use crate::human;
use crate::verb::shown::some;

/// Items in the charts of the largest and of the fastest growing.
const TOP: usize = 10;
/// Vaults with a colour of their own in the chart by day; those beyond share one.
const VAULTS_SHOWN: usize = 4;
const CLASSES: [&str; VAULTS_SHOWN] = ["one", "two", "three", "four"];
/// Days that a month has here.
const MONTH: u64 = 30;

/// Sums of what jobs moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Moved {
    /// Backups that ended well.
    pub(crate) backups: u64,
    /// Bytes of disks that were read, holes left out.
    pub(crate) bytes_read: u64,
    /// Plaintext of chunks that were new.
    pub(crate) bytes_new: u64,
    /// All bytes put, by jobs of every kind and outcome.
    pub(crate) bytes_stored: u64,
}

impl Moved {
    fn add(&mut self, other: Self) {
        self.backups += other.backups;
        self.bytes_read = self.bytes_read.saturating_add(other.bytes_read);
        self.bytes_new = self.bytes_new.saturating_add(other.bytes_new);
        self.bytes_stored = self.bytes_stored.saturating_add(other.bytes_stored);
    }

    /// How many times more was read than was new.
    fn dedup(self) -> Option<f64> {
        ratio(self.bytes_read, self.bytes_new)
    }

    /// How many times more was new than was put.
    fn compression(self) -> Option<f64> {
        ratio(self.bytes_new, self.bytes_stored)
    }
}

fn ratio(of: u64, by: u64) -> Option<f64> {
    (by > 0 && of > 0).then(|| (of as f64 / by as f64 * 100.0).round() / 100.0)
}

#[derive(Debug, Serialize)]
pub(crate) struct VaultRow {
    vault: String,
    url: String,
    region: Option<String>,
    items: u64,
    points: u64,
    /// Sizes of the disks of its items, as their newest backups found them.
    bytes_logical: Option<u64>,
    /// Items of which no backup is remembered that says how large they are.
    items_of_unknown_size: u64,
    /// All bytes put by finished jobs since the cluster has the vault; nothing is taken off for what was removed.
    bytes_stored_ever: Option<u64>,
    /// In the window.
    #[serde(flatten)]
    moved: Moved,
    dedup_ratio: Option<f64>,
    compression_ratio: Option<f64>,
    bytes_stored_per_day: Option<u64>,
    bytes_stored_per_month: Option<u64>,
    days_until_full: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ItemRow {
    item: String,
    item_id: String,
    vault: String,
    bytes_logical: Option<u64>,
    #[serde(flatten)]
    moved: Moved,
    dedup_ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct DayRow {
    day: String,
    #[serde(flatten)]
    moved: Moved,
    /// By vault, those that stored something.
    vaults: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Totals {
    vaults: u64,
    items: u64,
    bytes_logical: Option<u64>,
    items_of_unknown_size: u64,
    bytes_stored_ever: Option<u64>,
    #[serde(flatten)]
    moved: Moved,
    dedup_ratio: Option<f64>,
    compression_ratio: Option<f64>,
    bytes_stored_per_day: Option<u64>,
    bytes_stored_per_month: Option<u64>,
    days_until_full: Option<u64>,
    /// What `--capacity` said.
    capacity: Option<u64>,
    /// Days that growth is worked out of: those of the window of which jobs are known.
    days_counted: Option<f64>,
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Capacity {
    #[serde(flatten)]
    pub(crate) head: Head,
    totals: Totals,
    /// By name.
    vaults: Vec<VaultRow>,
    days: Vec<DayRow>,
    /// Those that stored most in the window first.
    items: Vec<ItemRow>,
}

struct KnownVault {
    vault: v1::Vault,
    /// Whether what was put ever is known of it.
    counts: bool,
    points: u64,
    moved: Moved,
    days: Vec<u64>,
}

struct KnownItem {
    name: String,
    vault: String,
    /// With when that was.
    logical: Option<(Timestamp, u64)>,
    moved: Moved,
}

/// Vaults, then items, then jobs in any order.
pub(crate) struct Fold {
    window: Window,
    capacity: Option<u64>,
    vaults: BTreeMap<String, KnownVault>,
    items: BTreeMap<String, KnownItem>,
    days: Vec<Moved>,
    /// When the oldest job began that is known.
    oldest: Option<Timestamp>,
    /// Only jobs of these items count: the report is about some of a vault's only.
    some_items: bool,
}

impl Fold {
    /// An empty one. `some_items`: the report is about the items that it is told, and no other.
    pub(crate) fn new(window: Window, capacity: Option<u64>, some_items: bool) -> Self {
        Self {
            days: vec![Moved::default(); window.days().len()],
            window,
            capacity,
            vaults: BTreeMap::new(),
            items: BTreeMap::new(),
            oldest: None,
            some_items,
        }
    }

    /// A vault; `counts`: what was ever put into it is known.
    pub(crate) fn vault(&mut self, vault: v1::Vault, counts: bool) {
        let known = KnownVault {
            counts: counts && !self.some_items,
            points: vault.points,
            moved: Moved::default(),
            days: vec![0; self.days.len()],
            vault,
        };
        self.vaults.insert(known.vault.name.clone(), known);
    }

    /// An item.
    pub(crate) fn item(&mut self, item: v1::Item) {
        let spec = item.spec.unwrap_or_default();
        let known = KnownItem {
            name: spec.name,
            vault: spec.vault,
            logical: None,
            moved: Moved::default(),
        };
        self.items.insert(item.id, known);
    }

    /// A job.
    pub(crate) fn job(&mut self, job: &v1::Job) {
        let began = read(&job.created);
        self.oldest = match (self.oldest, began) {
            (Some(oldest), Some(began)) => Some(oldest.min(began)),
            (oldest, began) => oldest.or(began),
        };
        let Some(ended) = read(&job.ended) else { return };
        let counts = job.counts.unwrap_or_default();
        let is_good = job.kind == "backup" && job.state == "done";
        let moved = Moved {
            backups: u64::from(is_good),
            bytes_read: if is_good { counts.bytes_read } else { 0 },
            bytes_new: if is_good { counts.bytes_new } else { 0 },
            bytes_stored: counts.bytes_stored,
        };
        let in_window = self.window.day(ended);
        let item = self.items.get_mut(&job.item_id);
        if self.some_items && item.is_none() {
            return;
        }
        if let Some(item) = item {
            let is_newer = item.logical.is_none_or(|(at, _)| at < ended);
            if is_good && counts.bytes_logical > 0 && is_newer {
                item.logical = Some((ended, counts.bytes_logical));
            }
            if in_window.is_some() {
                item.moved.add(moved);
            }
        }
        let (Some(day), Some(vault)) = (in_window, self.vaults.get_mut(&job.vault)) else {
            return;
        };
        vault.moved.add(moved);
        vault.days[day] = vault.days[day].saturating_add(moved.bytes_stored);
        self.days[day].add(moved);
    }

    /// How many days of the window jobs are known of, if it is one at least: less says nothing of a day.
    fn days_counted(&self) -> Option<f64> {
        let since = self.oldest?.max(self.window.since);
        let seconds = self.window.until.duration_since(since).as_secs();
        (seconds >= DAY).then(|| seconds as f64 / DAY as f64)
    }

    /// All of it.
    pub(crate) fn finish(self, head: Head) -> Capacity {
        let days_counted = self.days_counted();
        let per_day = |moved: Moved| days_counted.map(|days| (moved.bytes_stored as f64 / days) as u64);
        let until_full = |stored: Option<u64>, per_day: Option<u64>| {
            let (capacity, stored, per_day) = (self.capacity?, stored?, per_day?);
            capacity.saturating_sub(stored).checked_div(per_day)
        };
        let sizes = |items: &mut dyn Iterator<Item = &KnownItem>| {
            let (mut sum, mut unknown, mut any) = (0_u64, 0_u64, false);
            for item in items {
                match item.logical {
                    Some((_, bytes)) => (sum, any) = (sum.saturating_add(bytes), true),
                    None => unknown += 1,
                }
            }
            (any.then_some(sum), unknown)
        };
        let vaults: Vec<VaultRow> = self
            .vaults
            .values()
            .map(|known| {
                let name = &known.vault.name;
                let mine = || self.items.values().filter(|item| item.vault == *name);
                let (bytes_logical, items_of_unknown_size) = sizes(&mut mine());
                let stored = known.counts.then_some(known.vault.bytes_stored);
                let per_day = per_day(known.moved);
                VaultRow {
                    vault: name.clone(),
                    url: human::url(&known.vault.url),
                    region: some(known.vault.region.clone()),
                    items: mine().count() as u64,
                    points: known.points,
                    bytes_logical,
                    items_of_unknown_size,
                    bytes_stored_ever: stored,
                    moved: known.moved,
                    dedup_ratio: known.moved.dedup(),
                    compression_ratio: known.moved.compression(),
                    bytes_stored_per_day: per_day,
                    bytes_stored_per_month: per_day.map(|bytes| bytes.saturating_mul(MONTH)),
                    days_until_full: until_full(stored, per_day),
                }
            })
            .collect();
        let mut moved = Moved::default();
        for vault in &vaults {
            moved.add(vault.moved);
        }
        let (bytes_logical, items_of_unknown_size) = sizes(&mut self.items.values());
        let ever: Option<Vec<u64>> = vaults.iter().map(|vault| vault.bytes_stored_ever).collect();
        let bytes_stored_ever = ever.map(|all| all.into_iter().fold(0, u64::saturating_add));
        let bytes_per_day = per_day(moved);
        let totals = Totals {
            vaults: vaults.len() as u64,
            items: self.items.len() as u64,
            bytes_logical,
            items_of_unknown_size,
            bytes_stored_ever,
            moved,
            dedup_ratio: moved.dedup(),
            compression_ratio: moved.compression(),
            bytes_stored_per_day: bytes_per_day,
            bytes_stored_per_month: bytes_per_day.map(|bytes| bytes.saturating_mul(MONTH)),
            days_until_full: until_full(bytes_stored_ever, bytes_per_day),
            capacity: self.capacity,
            days_counted: days_counted.map(|days| (days * 100.0).round() / 100.0),
        };
        let stored_on = |day: usize| {
            let vaults = self.vaults.values().filter(|known| known.days[day] > 0);
            vaults
                .map(|known| (known.vault.name.clone(), known.days[day]))
                .collect()
        };
        let names = self.window.days().into_iter().enumerate();
        let days = names.map(|(day, name)| DayRow {
            day: name,
            moved: self.days[day],
            vaults: stored_on(day),
        });
        let days = days.collect();
        let mut items: Vec<ItemRow> = self
            .items
            .into_iter()
            .map(|(item_id, known)| ItemRow {
                item: known.name,
                item_id,
                vault: known.vault,
                bytes_logical: known.logical.map(|(_, bytes)| bytes),
                moved: known.moved,
                dedup_ratio: known.moved.dedup(),
            })
            .collect();
        items.sort_by(|a, b| {
            let most = b.moved.bytes_stored.cmp(&a.moved.bytes_stored);
            most.then_with(|| (&a.item, &a.vault).cmp(&(&b.item, &b.vault)))
        });
        Capacity {
            head,
            totals,
            vaults,
            days,
            items,
        }
    }
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2} ×")
}

fn bytes(bytes: Option<u64>) -> Cell {
    Cell::of(bytes, human::size)
}

fn days(days: u64) -> String {
    human::many(usize::try_from(days).unwrap_or(usize::MAX), "day")
}

impl Capacity {
    fn answer(&self) -> (String, Tone) {
        let totals = &self.totals;
        let stored = human::size(totals.moved.bytes_stored);
        let read = human::size(totals.moved.bytes_read);
        let growth = match totals.bytes_stored_per_month {
            Some(bytes) => format!("at this rate {} a month", human::size(bytes)),
            None => String::from("too short a time to say how much that is in a month"),
        };
        let full = match (totals.days_until_full, totals.capacity) {
            (Some(left), Some(capacity)) => format!("; {} until {} were put", days(left), human::size(capacity)),
            _ => String::new(),
        };
        (
            format!("{read} of disks were read and {stored} were put into stores: {growth}{full}."),
            Tone::Plain,
        )
    }

    /// Lays it out.
    pub(crate) fn page(&self) -> Page {
        let totals = &self.totals;
        let mut facts = vec![
            ("protected disks", bytes(totals.bytes_logical)),
            ("put into stores ever", bytes(totals.bytes_stored_ever)),
            ("read in the window", bytes(Some(totals.moved.bytes_read))),
            ("new in the window", bytes(Some(totals.moved.bytes_new))),
            ("put in the window", bytes(Some(totals.moved.bytes_stored))),
            ("read ÷ new", Cell::of(totals.dedup_ratio, times)),
            ("new ÷ put", Cell::of(totals.compression_ratio, times)),
            ("put a day", bytes(totals.bytes_stored_per_day)),
            ("put a month", bytes(totals.bytes_stored_per_month)),
        ];
        if totals.capacity.is_some() {
            facts.push(("until full", Cell::of(totals.days_until_full, days)));
        }
        Page {
            title: "Capacity report",
            answer: self.answer(),
            about: self.head.about(),
            notes: self.notes(),
            facts,
            parts: self.parts(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            String::from(
                "Put: all bytes that finished jobs wrote to stores, catalogues and failed attempts that said so among them. Nothing is taken off when a point expires: what a store holds now may be less.",
            ),
            String::from(
                "Read: bytes of disks without holes, by backups that ended well. New: what of that no chunk of the vault had yet, before compression. Both count backups whose points are gone since.",
            ),
        ];
        let unknown = self.totals.items_of_unknown_size;
        if unknown > 0 {
            notes.push(format!(
                "Protected disks: sizes as the newest backup found them; of {} none is remembered, and they are left out.",
                human::many(usize::try_from(unknown).unwrap_or(usize::MAX), "item")
            ));
        }
        if self.totals.days_counted.is_none() {
            notes.push(format!(
                "Growth is {UNKNOWN}: jobs of less than a day are known in the window."
            ));
        }
        notes.extend(self.head.notes.iter().cloned());
        notes
    }

    /// Stored bytes by day, the vaults that stored most with a colour each.
    fn by_day(&self) -> Days {
        let mut largest: Vec<&VaultRow> = self.vaults.iter().collect();
        largest.sort_by(|a, b| {
            b.moved
                .bytes_stored
                .cmp(&a.moved.bytes_stored)
                .then(a.vault.cmp(&b.vault))
        });
        let of = |day: &DayRow, name: &str| day.vaults.get(name).copied().unwrap_or(0);
        let mut series: Vec<Series> = largest
            .iter()
            .zip(CLASSES)
            .map(|(vault, class)| Series {
                name: vault.vault.clone(),
                class,
                values: self.days.iter().map(|day| of(day, &vault.vault)).collect(),
            })
            .collect();
        if largest.len() > VAULTS_SHOWN {
            let others = &largest[VAULTS_SHOWN..];
            let sum = |day: &DayRow| others.iter().map(|vault| of(day, &vault.vault)).sum();
            series.push(Series {
                name: format!("{} others", others.len()),
                class: "five",
                values: self.days.iter().map(sum).collect(),
            });
        }
        Days {
            title: "Bytes put by day, by vault",
            days: self.days.iter().map(|day| day.day.clone()).collect(),
            series,
            read: human::size,
            binary: true,
        }
    }

    fn parts(&self) -> Vec<Part> {
        let name = |item: &ItemRow| match self.vaults.len() {
            0 | 1 => item.item.clone(),
            _ => format!("{} in {}", item.item, item.vault),
        };
        let growers = self.items.iter().filter(|item| item.moved.bytes_stored > 0).take(TOP);
        let growers = growers
            .map(|item| (name(item), item.moved.bytes_stored, "one"))
            .collect();
        let mut largest: Vec<_> = self
            .items
            .iter()
            .filter_map(|item| Some((name(item), item.bytes_logical?, "three")))
            .collect();
        largest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        largest.truncate(TOP);
        vec![
            Part::Days(self.by_day()),
            Part::Numbers(self.days_grid()),
            Part::Bars(Bars {
                title: "Items that put most in the window",
                rows: growers,
                read: human::size,
            }),
            Part::Bars(Bars {
                title: "Largest items by size of disks",
                rows: largest,
                read: human::size,
            }),
            Part::Grid(self.vaults_grid()),
            Part::Grid(self.items_grid()),
        ]
    }

    fn days_grid(&self) -> Grid {
        let row = |day: &DayRow| {
            let moved = day.moved;
            let sizes = [moved.bytes_read, moved.bytes_new, moved.bytes_stored].map(|size| bytes(Some(size)));
            let first = [Cell::text(&day.day), Cell::count(moved.backups)];
            first.into_iter().chain(sizes).collect()
        };
        Grid {
            name: "days",
            heading: "By day",
            note: None,
            columns: vec!["day", ">backups", ">bytes read", ">bytes new", ">bytes put"],
            rows: self.days.iter().map(row).collect(),
            left_out: 0,
        }
    }

    fn vaults_grid(&self) -> Grid {
        let row = |vault: &VaultRow| {
            vec![
                Cell::text(&vault.vault),
                Cell::count(vault.items),
                Cell::count(vault.points),
                bytes(vault.bytes_logical),
                bytes(vault.bytes_stored_ever),
                bytes(Some(vault.moved.bytes_read)),
                bytes(Some(vault.moved.bytes_new)),
                bytes(Some(vault.moved.bytes_stored)),
                Cell::of(vault.dedup_ratio, times),
                Cell::of(vault.compression_ratio, times),
                bytes(vault.bytes_stored_per_month),
                Cell::of(vault.days_until_full, days),
                Cell::text(match &vault.region {
                    Some(region) => format!("{} ({region})", vault.url),
                    None => vault.url.clone(),
                }),
            ]
        };
        let mut grid = Grid {
            name: "vaults",
            heading: "Vaults",
            note: None,
            columns: vec![
                "vault",
                ">items",
                ">points",
                ">disks",
                ">put ever",
                ">read",
                ">new",
                ">put",
                ">read/new",
                ">new/put",
                ">put a month",
                ">days left",
                "store",
            ],
            rows: self.vaults.iter().map(row).collect(),
            left_out: 0,
        };
        if self.totals.capacity.is_none() {
            let at = grid.columns.iter().position(|column| *column == ">days left");
            let at = at.expect("the column is named above");
            grid.columns.remove(at);
            for row in &mut grid.rows {
                row.remove(at);
            }
        }
        grid
    }

    fn items_grid(&self) -> Grid {
        let row = |item: &ItemRow| {
            vec![
                Cell::text(&item.item),
                Cell::text(&item.vault),
                bytes(item.bytes_logical),
                Cell::count(item.moved.backups),
                bytes(Some(item.moved.bytes_read)),
                bytes(Some(item.moved.bytes_new)),
                bytes(Some(item.moved.bytes_stored)),
                Cell::of(item.dedup_ratio, times),
            ]
        };
        Grid {
            name: "items",
            heading: "Items, those that put most first",
            note: None,
            columns: vec![
                "item",
                "vault",
                ">disks",
                ">backups",
                ">read",
                ">new",
                ">put",
                ">read/new",
            ],
            rows: self.items.iter().map(row).collect(),
            left_out: 0,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::testing::{head, item, job, window};
    use super::*;

    const GIB: u64 = 1 << 30;

    fn vault(name: &str, stored: u64) -> v1::Vault {
        v1::Vault {
            name: name.to_owned(),
            url: format!("s3://user:hunter2@bucket/{name}"),
            points: 3,
            bytes_stored: stored,
            ..v1::Vault::default()
        }
    }

    fn moved(id: u64, item: &str, state: &str, ended: &str, counts: [u64; 4]) -> v1::Job {
        let [bytes_logical, bytes_read, bytes_new, bytes_stored] = counts;
        v1::Job {
            counts: Some(v1::JobCounts {
                bytes_logical,
                bytes_read,
                bytes_new,
                bytes_stored,
                ..v1::JobCounts::default()
            }),
            ..job(id, item, state, ended)
        }
    }

    fn report(capacity: Option<u64>, some: bool, fill: impl FnOnce(&mut Fold)) -> Capacity {
        let mut fold = Fold::new(window(), capacity, some);
        fill(&mut fold);
        fold.finish(head("capacity"))
    }

    fn two_vaults(fold: &mut Fold) {
        fold.vault(vault("main", 40 * GIB), true);
        fold.vault(vault("other", 2 * GIB), true);
        fold.item(item("web", "main", "daily"));
        fold.item(item("db", "main", "daily"));
        fold.item(item("old", "other", ""));
        let jobs = [
            moved(
                1,
                "web",
                "done",
                "2026-11-10T00:00:00Z",
                [90 * GIB, 50 * GIB, 20 * GIB, 9 * GIB],
            ),
            moved(
                2,
                "web",
                "done",
                "2026-11-16T00:00:00Z",
                [100 * GIB, 8 * GIB, 4 * GIB, 2 * GIB],
            ),
            moved(3, "db", "failed", "2026-11-17T00:00:00Z", [0, 5 * GIB, 2 * GIB, GIB]),
            moved(
                4,
                "db",
                "done",
                "2026-11-18T00:00:00Z",
                [10 * GIB, 8 * GIB, 8 * GIB, 4 * GIB],
            ),
        ];
        for job in &jobs {
            fold.job(job);
        }
        // A catalogue is put, too.
        fold.job(&v1::Job {
            kind: String::from("catalogue"),
            item_id: String::new(),
            ..moved(5, "", "done", "2026-11-18T01:00:00Z", [0, 0, 0, 1])
        });
    }

    #[test]
    fn what_is_put_counts_whoever_put_it_and_what_is_read_only_where_a_point_came_of_it() {
        let report = report(None, false, two_vaults);
        let main = &report.vaults[0];
        assert_eq!(main.moved.bytes_stored, 7 * GIB + 1);
        assert_eq!((main.moved.bytes_read, main.moved.bytes_new), (16 * GIB, 12 * GIB));
        assert_eq!((main.moved.backups, main.dedup_ratio), (2, Some(1.33)));
        assert_eq!(
            main.bytes_logical,
            Some(110 * GIB),
            "sizes as the newest backups found them"
        );
        assert_eq!(main.bytes_stored_ever, Some(40 * GIB));
        assert_eq!(main.url, "s3://bucket/main");
        assert_eq!(report.vaults[1].bytes_logical, None, "unknown is not zero");
        assert_eq!(report.totals.items_of_unknown_size, 1);
        assert_eq!(report.items[0].item, "db", "who put most is first");
    }

    #[test]
    fn totals_are_the_sums_of_vaults_days_and_items() {
        let report = report(None, false, two_vaults);
        let mut of_days = Moved::default();
        let mut of_vaults = Moved::default();
        report.days.iter().for_each(|day| of_days.add(day.moved));
        report.vaults.iter().for_each(|vault| of_vaults.add(vault.moved));
        assert_eq!((of_days, of_vaults), (report.totals.moved, report.totals.moved));
        for day in &report.days {
            assert_eq!(day.vaults.values().sum::<u64>(), day.moved.bytes_stored);
        }
        let of_items: u64 = report.items.iter().map(|item| item.moved.bytes_stored).sum();
        assert_eq!(
            of_items + 1,
            report.totals.moved.bytes_stored,
            "the catalogue is of no item"
        );
        for grid in report.page().grids() {
            for row in &grid.rows {
                assert_eq!(row.len(), grid.columns.len(), "{}", grid.name);
            }
        }
    }

    #[test]
    fn growth_is_told_from_a_day_on_and_a_limit_in_days() {
        let report = report(Some(54 * GIB), false, two_vaults);
        // Seven days of window, all of them with jobs known.
        assert_eq!(report.totals.days_counted, Some(7.0));
        assert_eq!(report.vaults[0].bytes_stored_per_day, Some(GIB));
        assert_eq!(report.vaults[0].bytes_stored_per_month, Some(30 * GIB));
        assert_eq!(report.vaults[0].days_until_full, Some(14));
        assert_eq!(report.vaults[1].days_until_full, None, "it does not grow");
        let young = super::super::capacity::Fold::new(window(), None, false);
        let mut young = young;
        young.vault(vault("main", 5), true);
        young.item(item("web", "main", ""));
        young.job(&moved(1, "web", "done", "2026-11-22T08:00:00Z", [5, 5, 5, 5]));
        let young = young.finish(head("capacity"));
        assert_eq!(young.totals.bytes_stored_per_day, None);
        assert!(young.page().notes.iter().any(|note| note.contains("unknown")));
        assert!(young.page().answer.0.contains("too short a time"));
    }

    #[test]
    fn a_report_on_some_items_counts_theirs_alone() {
        let report = report(None, true, |fold| {
            fold.vault(vault("main", 40 * GIB), true);
            fold.item(item("web", "main", "daily"));
            fold.job(&moved(2, "web", "done", "2026-11-16T00:00:00Z", [8, 4, 2, 1]));
            fold.job(&moved(3, "db", "done", "2026-11-16T00:00:00Z", [80, 40, 20, 10]));
        });
        assert_eq!(report.totals.moved.bytes_stored, 1);
        assert_eq!(
            report.totals.bytes_stored_ever, None,
            "what the vault has of others is not theirs"
        );
    }

    #[test]
    fn the_text_of_a_small_report() {
        let report = report(None, false, two_vaults);
        insta::assert_snapshot!(super::super::text::draw(&report.page(), 50));
        insta::assert_snapshot!(
            "capacity-csv",
            super::super::csv::draw(report.page().grids().last().unwrap())
        );
    }
}
