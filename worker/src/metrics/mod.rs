//! Numbers of a worker for Prometheus. What each means stands in `docs/metrics.md`, which a test keeps in step with what is shown here.
//!
//! Nothing is counted by the chunk: pipelines add by the segment and the frame, stores by the request, and an answer to a scrape is put together from
//! that. What a family has as labels are words of this program, URLs of stores (as many as vaults, and bounded), and nothing that grows with items.

mod attempts;
mod disks;
mod page;
mod stores;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tresor_proto::tls::SharedIdentity;
use tresor_storage::backend::Counters;

use attempts::Attempts;
pub(crate) use attempts::{Counted, DONE, LOST, STOPPED};
use disks::Disks;
use page::{Page, float};
use stores::Stores;

use crate::agent::Activity;
use crate::agent::vaults::Vaults;
use crate::slots::Slots;

/// How often the room on disks is looked at.
const LOOK: Duration = Duration::from_secs(15);
/// The loop turns at least every thirty seconds: one that did not for so long stands still.
const TURN_MAX: Duration = Duration::from_secs(120);
/// A worker that heard of no coordinator for so long is of no use now: that is how long a lease lasts.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// What is looked at when somebody asks, while the agent runs.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) vaults: Arc<Vaults>,
    pub(crate) slots: Option<Arc<Slots>>,
    pub(crate) identity: Option<SharedIdentity>,
    pub(crate) permits: u32,
    pub(crate) region: String,
    pub(crate) version: String,
}

/// Numbers of one worker.
#[derive(Default)]
pub struct Metrics {
    attempts: Attempts,
    stores: Stores,
    disks: Disks,
    beats_heard: AtomicU64,
    beats_unheard: AtomicU64,
    drained: AtomicBool,
    /// Its name, once it is registered.
    registered: Mutex<Option<String>>,
    turned: Mutex<Option<Instant>>,
    heard: Mutex<Option<Instant>>,
    sources: Mutex<Option<Sources>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn set<T>(place: &Mutex<Option<T>>, value: Option<T>) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn get<T: Clone>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// While it lives, a worker's vaults and slots are looked at.
pub(crate) struct Attached(Arc<Metrics>);

impl Drop for Attached {
    fn drop(&mut self) {
        set(&self.0.sources, None);
    }
}

impl Metrics {
    /// Counts an attempt from here on.
    pub(crate) fn begin(self: &Arc<Self>, work: &'static str, activity: &Arc<Activity>) -> Counted {
        Counted::begin(Arc::clone(self), work, Arc::clone(activity))
    }

    /// Counts what a store is asked.
    pub(crate) fn add_store(&self, url: &str, counters: &Arc<Counters>) {
        self.stores.add(url, counters);
    }

    /// Looks at these until the answer is dropped, also by a task that is aborted: what is looked at is kept open.
    pub(crate) fn attached(self: &Arc<Self>, sources: Sources) -> Attached {
        set(&self.sources, Some(sources));
        Attached(Arc::clone(self))
    }

    /// The agent's loop has turned.
    pub(crate) fn turn(&self) {
        set(&self.turned, Some(Instant::now()));
    }

    /// A coordinator knows this worker by a name; none: not any more.
    pub(crate) fn note_registered(&self, name: Option<&str>) {
        set(&self.registered, name.map(str::to_owned));
        if name.is_some() {
            set(&self.heard, Some(Instant::now()));
        }
    }

    /// A beat was answered, with whether the worker is to drain.
    pub(crate) fn note_beat(&self, drained: bool) {
        self.beats_heard.fetch_add(1, Relaxed);
        self.drained.store(drained, Relaxed);
        set(&self.heard, Some(Instant::now()));
    }

    /// A beat was not answered.
    pub(crate) fn note_no_beat(&self) {
        self.beats_unheard.fetch_add(1, Relaxed);
    }

    /// Looks at the room on disks every now and then, until `stop`.
    pub(crate) async fn look_at_disks(self: Arc<Self>, folder: std::path::PathBuf, stop: CancellationToken) {
        loop {
            let (metrics, folder) = (Arc::clone(&self), folder.clone());
            let look = tokio::task::spawn_blocking(move || metrics.look(&folder));
            tokio::select! {
                // One that hangs is waited for: a second one would hang, too.
                _ = look => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn look(&self, folder: &Path) {
        self.disks.look(folder, &self.stores.urls());
    }

    /// Whether the worker lives: its loop turns.
    ///
    /// # Errors
    /// Why it is to be started again.
    pub fn is_alive(&self) -> Result<(), String> {
        match get(&self.turned).map(|turned| turned.elapsed()) {
            Some(still) if still > TURN_MAX => Err(format!("the worker stands still since {} s", still.as_secs())),
            _ => Ok(()),
        }
    }

    /// Whether the worker is of use: a coordinator knows it and was heard of lately.
    ///
    /// # Errors
    /// Why not.
    pub fn is_ready(&self) -> Result<(), String> {
        self.is_alive()?;
        if get(&self.registered).is_none() {
            return Err(String::from("no coordinator knows this worker yet"));
        }
        match get(&self.heard).map(|heard| heard.elapsed()) {
            Some(silent) if silent <= SILENT_MAX => Ok(()),
            Some(silent) => Err(format!("no coordinator was heard of for {} s", silent.as_secs())),
            None => Err(String::from("no coordinator was heard of")),
        }
    }

    /// All numbers, in Prometheus' text format (version 0.0.4).
    pub fn text(&self) -> String {
        let page = Page::default();
        self.show_standing(&page);
        self.attempts.show(&page);
        self.stores.show(&page);
        self.disks.show(&page);
        if let Some(sources) = get(&self.sources) {
            show_index(&page, &sources);
        }
        page.text()
    }

    fn show_standing(&self, page: &Page) {
        let name = get(&self.registered);
        page.gauge(
            "tresor_worker_registered",
            "1 while a coordinator knows this worker.",
            f64::from(u8::from(name.is_some())),
        );
        page.gauge(
            "tresor_worker_drained",
            "1 while this worker is to begin no new jobs.",
            f64::from(u8::from(self.drained.load(Relaxed))),
        );
        page.counts(
            "tresor_worker_beats_total",
            "Beats by which leases are renewed, by whether a coordinator answered.",
            ["outcome"],
            [("heard", &self.beats_heard), ("unheard", &self.beats_unheard)]
                .map(|(outcome, count)| ([outcome], float(count.load(Relaxed)))),
        );
        if let Some(heard) = get(&self.heard) {
            page.gauge(
                "tresor_worker_coordinator_silent_seconds",
                "Since when no coordinator was heard of.",
                heard.elapsed().as_secs_f64(),
            );
        }
        let Some(sources) = get(&self.sources) else {
            return;
        };
        page.gauge(
            "tresor_worker_permits",
            "Jobs that this worker runs at a time.",
            f64::from(sources.permits),
        );
        if let Some(name) = name {
            page.gauges(
                "tresor_worker_info",
                "1, with the worker's name, region and program as labels.",
                ["worker", "region", "version"],
                [([name.as_str(), &sources.region, &sources.version], 1.0)],
            );
        }
        if let Some(identity) = sources.identity {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are small")]
            let ends = identity.current().validity().not_after as f64;
            page.gauge(
                "tresor_worker_certificate_end_timestamp_seconds",
                "When this worker's certificate ends.",
                ends,
            );
        }
    }
}

fn show_index(page: &Page, sources: &Sources) {
    let mut index = sources.vaults.index_numbers();
    if let Some(numbers) = sources.slots.as_ref().and_then(|slots| slots.numbers()) {
        index.add(&numbers.index);
        page.gauge(
            "tresor_worker_slots_held",
            "Slots of the index that this worker answers for.",
            float(numbers.held),
        );
        page.gauge(
            "tresor_worker_slots_filling",
            "Shares of vaults' indexes (one slot of one vault each) that are being made from the store: what is not in them yet is answered as new.",
            float(numbers.filling),
        );
        page.counts(
            "tresor_worker_slot_answers_total",
            "Ids that this worker was asked for as an owner of slots, by its answer; not_held: another one's, or its grant was another.",
            ["answer"],
            numbers.answers.map(|(answer, ids)| ([answer], float(ids))),
        );
        page.counts(
            "tresor_worker_slot_inserts_total",
            "Ids that this worker was to take as an owner of slots, by whether it did.",
            ["outcome"],
            numbers.inserts.map(|(outcome, ids)| ([outcome], float(ids))),
        );
        page.count(
            "tresor_worker_slot_calls_refused_total",
            "Calls to this worker as an owner of slots that were refused as a whole: the session was over, or of another cluster.",
            float(numbers.refused),
        );
    }
    page.gauge(
        "tresor_worker_indexes_open",
        "Databases of chunk ids that are open, one for each vault.",
        float(index.open),
    );
    page.gauge(
        "tresor_worker_index_entries",
        "Entries of the open databases, estimated.",
        float(index.entries),
    );
    page.gauges(
        "tresor_worker_index_memory_bytes",
        "Memory of the open databases: cache (bounded), memtables (bounded), tables (of open files, outside the cache).",
        ["part"],
        [
            ("cache", index.cache),
            ("memtables", index.memtables),
            ("tables", index.tables),
        ]
        .map(|(part, bytes)| ([part], float(bytes))),
    );
    page.gauge(
        "tresor_worker_index_disk_bytes",
        "Files of rows of the open databases.",
        float(index.disk),
    );
}

/// What databases of chunk ids take, together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct IndexNumbers {
    pub(crate) open: u64,
    pub(crate) entries: u64,
    pub(crate) cache: u64,
    pub(crate) memtables: u64,
    pub(crate) tables: u64,
    pub(crate) disk: u64,
}

impl IndexNumbers {
    /// Counts one more. Asks the database for what it knows by itself: no entry is read.
    pub(crate) fn count(&mut self, index: &tresor_storage::index::RocksIndex) {
        let memory = index.memory();
        self.add(&Self {
            open: 1,
            entries: index.entries_estimate(),
            cache: memory.cache,
            memtables: memory.memtables,
            tables: memory.tables,
            disk: index.disk_bytes(),
        });
    }

    fn add(&mut self, more: &Self) {
        self.open += more.open;
        self.entries += more.entries;
        self.cache += more.cache;
        self.memtables += more.memtables;
        self.tables += more.tables;
        self.disk += more.disk;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_while_a_coordinator_hears_it() {
        let metrics = Metrics::default();
        assert!(
            metrics.is_alive().is_ok(),
            "one that has not begun yet is not to be killed"
        );
        assert!(metrics.is_ready().is_err());
        metrics.turn();
        metrics.note_registered(Some("w1"));
        assert!(metrics.is_ready().is_ok());
        set(&metrics.heard, Instant::now().checked_sub(SILENT_MAX + LOOK));
        assert!(metrics.is_ready().unwrap_err().contains("no coordinator was heard of"));
        metrics.note_beat(false);
        assert!(metrics.is_ready().is_ok());
        metrics.note_registered(None);
        assert!(metrics.is_ready().is_err());
    }

    #[test]
    fn a_loop_that_stands_still_is_seen() {
        let metrics = Metrics::default();
        metrics.turn();
        assert!(metrics.is_alive().is_ok());
        // A machine that has just started has no such moment.
        if let Some(long_ago) = Instant::now().checked_sub(TURN_MAX + LOOK) {
            set(&metrics.turned, Some(long_ago));
            assert!(metrics.is_alive().unwrap_err().contains("stands still"));
        }
    }
}
