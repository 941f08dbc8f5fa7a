//! What was used how much, and what is full next when there are more workers.

use tresor_coordinator::lead::placement::VAULT_JOBS_MAX;

use crate::inputs::Inputs;

/// Seconds for which something was busy, of all workers together where each has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busy {
    pub(crate) sources: f64,
    pub(crate) cores: f64,
    pub(crate) nics: f64,
    pub(crate) owners: f64,
    pub(crate) store: f64,
    pub(crate) requests: f64,
    pub(crate) log: f64,
    pub(crate) leader: f64,
    /// For which workers ran anything.
    pub(crate) workers: f64,
}

/// Of what there is only so much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Used {
    pub(crate) what: &'static str,
    /// Of all that there is.
    pub(crate) share: f64,
    /// Each worker brings its own: more workers have more of it.
    pub(crate) is_of_workers: bool,
}

/// How a night went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Usage {
    pub(crate) workers: usize,
    /// From the first look of the leader to the last point, seconds.
    pub(crate) took: f64,
    /// Bytes in the store.
    pub(crate) stored: f64,
    pub(crate) used: Vec<Used>,
}

/// What would be full with how many workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Full {
    pub(crate) what: &'static str,
    pub(crate) workers: u32,
}

impl Usage {
    pub(crate) fn new(workers: usize, took: f64, stored: f64, inputs: &Inputs, busy: &Busy) -> Self {
        let count = workers as f64;
        let own = |what, seconds: f64| Used {
            what,
            share: seconds / took / count,
            is_of_workers: true,
        };
        let shared = |what, share| Used {
            what,
            share,
            is_of_workers: false,
        };
        let coordinators = count * inputs.connections_per_worker / inputs.coordinators;
        Self {
            workers,
            took,
            stored,
            used: vec![
                own("disks' reading", busy.sources),
                own("workers' cores", busy.cores),
                own("workers' links", busy.nics),
                own("owners of slots: questions and inserts", busy.owners),
                shared("store: bytes", busy.store / took),
                shared("store: requests", busy.requests / took),
                shared("log: entries", busy.log / took),
                shared("leader: looks and choices", busy.leader / took),
                // A worker that has one job is used, so only the first of each counts.
                shared(
                    "jobs of one vault at a time",
                    busy.workers / took / VAULT_JOBS_MAX as f64,
                ),
                shared("connections of a worker", (count - 1.0) * 2.0 / inputs.connections_max),
                shared("connections of a coordinator", coordinators / inputs.connections_max),
            ],
        }
    }

    /// What was used most: more of anything else would not help.
    pub(crate) fn bottleneck(&self) -> Used {
        let most = self.used.iter().copied().max_by(|a, b| a.share.total_cmp(&b.share));
        most.expect("there are some")
    }

    /// What all workers share, and with how many it is full: each uses as much of it as now. The first to be first.
    pub(crate) fn full(&self) -> Vec<Full> {
        let shared = self.used.iter().filter(|used| !used.is_of_workers && used.share > 0.0);
        let mut full: Vec<Full> = shared
            .map(|used| Full {
                what: used.what,
                workers: (self.workers as f64 / used.share).floor().min(f64::from(u32::MAX)) as u32,
            })
            .collect();
        full.sort_by_key(|full| full.workers);
        full
    }

    /// The first of them.
    pub(crate) fn next(&self) -> Option<Full> {
        self.full().first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::night::Night;
    use crate::workload::draw;

    /// Few enough that it takes no time, and enough that the last ones do not count.
    const DISKS: u32 = 400;

    fn inputs(set: &[&str]) -> Inputs {
        let mut inputs = Inputs {
            disk_bytes_max: 10e9,
            ..Inputs::default()
        };
        for text in set {
            inputs.set(text).expect("there is such a cost");
        }
        inputs
    }

    fn night(workers: u32, inputs: &Inputs) -> Usage {
        Night::run(workers, &draw(DISKS, 1, inputs), inputs)
    }

    #[test]
    fn two_workers_are_nearly_twice_as_fast_and_ten_nearly_ten_times() {
        for set in [&["changed_share=0.02"][..], &["changed_share=1", "shared_share=0.3"]] {
            let inputs = inputs(set);
            let [one, two, ten] = [1, 2, 10].map(|workers| night(workers, &inputs).took);
            assert!(one / two >= 1.8, "{set:?}: {one} s and {two} s");
            assert!(one / ten >= 8.0, "{set:?}: {one} s and {ten} s");
        }
    }

    #[test]
    fn what_there_is_too_little_of_is_the_bottleneck() {
        for (set, what) in [
            ("source_bytes_per_s=1e8", "disks' reading"),
            ("zstd_bytes_per_s=1e6", "workers' cores"),
            ("nic_bytes_per_s=1e5", "workers' links"),
            ("lookups_per_s=50", "owners of slots: questions and inserts"),
            ("store_bytes_per_s=1e6", "store: bytes"),
            ("store_requests_per_s=5", "store: requests"),
            ("log_entries_per_s=1", "log: entries"),
            ("choice_s=0.5", "leader: looks and choices"),
        ] {
            let usage = night(4, &inputs(&[set]));
            assert_eq!(usage.bottleneck().what, what, "{set}: {:?}", usage.used);
            assert!(usage.bottleneck().share <= 1.05, "{set}: {:?}", usage.used);
        }
    }

    #[test]
    fn what_is_said_to_be_full_is_full_with_so_many_workers() {
        let inputs = inputs(&["store_bytes_per_s=2e7"]);
        let few = night(2, &inputs);
        let next = few.next().expect("something is shared");
        assert_eq!(next.what, "store: bytes");
        assert_ne!(few.bottleneck().what, next.what, "{:?}", few.used);
        let many = night(next.workers * 3 / 2 + 1, &inputs);
        assert_eq!(many.bottleneck().what, next.what, "{:?}", many.used);
        let faster = few.took / many.took;
        // As fast as so many, and not as all of them.
        assert!(
            faster < f64::from(next.workers + 1) / 2.0 * 1.05,
            "{faster} times as fast"
        );
    }

    #[test]
    fn a_seed_gives_one_night() {
        let inputs = inputs(&[]);
        assert_eq!(night(3, &inputs), night(3, &inputs));
        assert_ne!(draw(10, 1, &inputs), draw(10, 2, &inputs));
    }
}
