//! What each store was asked, for the life of the process: a store that is opened again goes on where it was.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tresor_storage::backend::{Counters, Times, Traffic};

use super::page::{Page, float, seconds};

/// Stores that have series of their own. A vault has one, and a worker reaches tens; what is beyond is counted together, as [`OTHERS`].
const STORES_MAX: usize = 200;
/// The name of all stores that have none.
const OTHERS: &str = "others";

/// Numbers of one store.
#[derive(Debug, Default)]
struct Store {
    /// Those that are counted in now.
    open: Vec<Arc<Counters>>,
    /// What was counted in others before.
    traffic: Traffic,
    times: Times,
}

/// Numbers of all stores.
#[derive(Debug, Default)]
pub(super) struct Stores {
    stores: Mutex<BTreeMap<String, Store>>,
}

fn add(sum: &mut Traffic, more: &Traffic) {
    sum.puts += more.puts;
    sum.gets += more.gets;
    sum.heads += more.heads;
    sum.lists += more.lists;
    sum.deletes += more.deletes;
    sum.bytes_put += more.bytes_put;
    sum.bytes_got += more.bytes_got;
    sum.retries += more.retries;
    sum.abandoned += more.abandoned;
    sum.errors.missing += more.errors.missing;
    sum.errors.exists += more.errors.exists;
    sum.errors.malformed += more.errors.malformed;
    sum.errors.denied += more.errors.denied;
    sum.errors.full += more.errors.full;
    sum.errors.unavailable += more.errors.unavailable;
    sum.errors.refused += more.errors.refused;
}

fn add_times(sum: &mut Times, more: &Times) {
    sum.in_flight += more.in_flight;
    sum.put_micros += more.put_micros;
    sum.get_micros += more.get_micros;
    sum.head_micros += more.head_micros;
    sum.delete_micros += more.delete_micros;
}

impl Store {
    /// Keeps what nobody counts in any more as numbers.
    fn fold(&mut self) {
        let (traffic, times) = (&mut self.traffic, &mut self.times);
        self.open.retain(|counters| {
            if Arc::strong_count(counters) > 1 {
                return true;
            }
            add(traffic, &counters.snapshot());
            add_times(times, &counters.times());
            false
        });
    }

    fn sums(&self) -> (Traffic, Times) {
        let (mut traffic, mut times) = (self.traffic, self.times);
        for counters in &self.open {
            add(&mut traffic, &counters.snapshot());
            add_times(&mut times, &counters.times());
        }
        (traffic, times)
    }
}

impl Stores {
    fn stores(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Store>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts in these, too, for a store.
    pub(super) fn add(&self, url: &str, counters: &Arc<Counters>) {
        let mut stores = self.stores();
        let name = if stores.contains_key(url) || stores.len() < STORES_MAX {
            url
        } else {
            OTHERS
        };
        let store = stores.entry(name.to_owned()).or_default();
        store.fold();
        if !store.open.iter().any(|open| Arc::ptr_eq(open, counters)) {
            store.open.push(Arc::clone(counters));
        }
    }

    /// URLs of the stores.
    pub(super) fn urls(&self) -> Vec<String> {
        self.stores().keys().cloned().collect()
    }

    pub(super) fn show(&self, page: &Page) {
        let sums: Vec<(String, Traffic, Times)> = {
            let mut stores = self.stores();
            let sums = stores.iter_mut().map(|(url, store)| {
                store.fold();
                let (traffic, times) = store.sums();
                (url.clone(), traffic, times)
            });
            sums.collect()
        };
        let each = |of: fn(&Traffic, &Times) -> Vec<(&'static str, f64)>| {
            sums.iter().flat_map(move |(url, traffic, times)| {
                let rows = of(traffic, times).into_iter();
                rows.map(move |(word, number)| ([url.as_str(), word], number))
            })
        };
        page.counts(
            "tresor_worker_store_requests_total",
            "Requests that went out to a store, repeated ones too.",
            ["store", "operation"],
            each(|t, _| {
                let kinds = [
                    ("put", t.puts),
                    ("get", t.gets),
                    ("head", t.heads),
                    ("list", t.lists),
                    ("delete", t.deletes),
                ];
                kinds.map(|(word, number)| (word, float(number))).to_vec()
            }),
        );
        page.counts(
            "tresor_worker_store_request_seconds_total",
            "Seconds until requests were answered, those that were answered with an error too; listings are not timed.",
            ["store", "operation"],
            each(|_, t| {
                let kinds = [
                    ("put", t.put_micros),
                    ("get", t.get_micros),
                    ("head", t.head_micros),
                    ("delete", t.delete_micros),
                ];
                kinds.map(|(word, micros)| (word, seconds(micros))).to_vec()
            }),
        );
        page.counts(
            "tresor_worker_store_errors_total",
            "Requests that were answered with an error, by what it said. Missing and exists are answers as good as others: a claim is looked for, a name is taken.",
            ["store", "cause"],
            each(|t, _| {
                let e = &t.errors;
                let causes = [
                    ("missing", e.missing),
                    ("exists", e.exists),
                    ("malformed", e.malformed),
                    ("denied", e.denied),
                    ("full", e.full),
                    ("unavailable", e.unavailable),
                    ("refused", e.refused),
                    ("abandoned", t.abandoned),
                ];
                causes.map(|(word, number)| (word, float(number))).to_vec()
            }),
        );
        page.counts(
            "tresor_worker_store_bytes_total",
            "Bytes of requests that succeeded.",
            ["store", "direction"],
            each(|t, _| vec![("put", float(t.bytes_put)), ("got", float(t.bytes_got))]),
        );
        page.counts(
            "tresor_worker_store_retries_total",
            "Requests that were sent again after an error.",
            ["store"],
            sums.iter().map(|(url, t, _)| ([url.as_str()], float(t.retries))),
        );
        page.gauges(
            "tresor_worker_store_requests_in_flight",
            "Requests that wait for their answer.",
            ["store"],
            sums.iter().map(|(url, _, t)| ([url.as_str()], float(t.in_flight))),
        );
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use bytes::Bytes;
    use tresor_storage::backend::{Backend as _, Memory, Metered};

    use super::*;

    async fn put(store: &Metered<Memory>, name: &str) {
        store.create(name, &[Bytes::from_static(b"1234")]).await.unwrap();
    }

    fn number(stores: &Stores, line: &str) -> Option<String> {
        let page = Page::default();
        stores.show(&page);
        let text = page.text();
        text.lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned))
    }

    #[tokio::test]
    async fn a_store_that_is_opened_again_goes_on_counting() {
        let stores = Stores::default();
        let puts = r#"tresor_worker_store_requests_total{operation="put",store="file:///a"}"#;
        for round in 1..=3 {
            let counters = Arc::new(Counters::default());
            stores.add("file:///a", &counters);
            stores.add("file:///a", &counters);
            let store = Metered::new(Memory::new(), counters);
            put(&store, "a/b").await;
            put(&store, "a/c").await;
            assert_eq!(number(&stores, puts).unwrap(), (2 * round).to_string());
        }
        assert_eq!(number(&stores, puts).unwrap(), "6");
        let stores_open = stores.stores().values().map(|store| store.open.len()).sum::<usize>();
        assert_eq!(stores_open, 0, "what nobody counts in is kept as numbers");
    }

    #[tokio::test]
    async fn stores_beyond_the_bound_are_counted_together() {
        let stores = Stores::default();
        for n in 0..STORES_MAX + 3 {
            let counters = Arc::new(Counters::default());
            stores.add(&format!("s3://bucket-{n}"), &counters);
            put(&Metered::new(Memory::new(), counters), "a/b").await;
        }
        assert_eq!(stores.stores().len(), STORES_MAX + 1);
        let bytes = r#"tresor_worker_store_bytes_total{direction="put",store="others"}"#;
        assert_eq!(number(&stores, bytes).unwrap(), "12");
    }
}
