//! What each step costs, with where the number is from.

use std::fmt;

/// A cost that is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("--set {0}: must be the name of a cost of the table, =, and a number above 0")]
pub(crate) struct WrongInput(String);

/// One number of the table.
pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) source: &'static str,
    /// Whether it is another one than the table's.
    pub(crate) is_set: bool,
}

macro_rules! inputs {
    ($($name:ident = $value:expr, $unit:literal, $source:literal;)*) => {
        /// All costs.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct Inputs {
            $(pub(crate) $name: f64,)*
        }

        impl Default for Inputs {
            fn default() -> Self {
                Self { $($name: $value,)* }
            }
        }

        impl Inputs {
            /// All of them, in the order of the table.
            pub(crate) fn table(&self) -> Vec<Input> {
                let default = Self::default();
                vec![$(Input {
                    name: stringify!($name),
                    value: self.$name,
                    unit: $unit,
                    source: $source,
                    is_set: self.$name.to_bits() != default.$name.to_bits(),
                },)*]
            }

            fn get_mut(&mut self, name: &str) -> Option<&mut f64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

inputs! {
    disk_bytes_min = 1e9, "B", "assumption: allocated of the smallest disk";
    disk_bytes_max = 100e9, "B", "assumption: of the largest; in between as many per order of magnitude";
    changed_share = 0.02, "", "assumption: of the allocated bytes, since the night before; drawn between 0 and twice that for each disk";
    shared_share = 0.5, "", "assumption: of what changed, what another disk has stored already";
    stored_share = 0.22, "", "2026-11-22-full.md: bare zstd 1 of the real disks, 926 MB of 4.17 GB";
    chunk_bytes = 32768.0, "B", "profile grain-32k, its mean";
    cores = 8.0, "a worker", "assumption";
    permits = 2.0, "jobs a worker", "assumption";
    source_bytes_per_s = 2e9, "B/s a worker", "assumption: a local NVMe disk, or storage behind 25 Gbit/s";
    nic_bytes_per_s = 3.1e9, "B/s a worker", "assumption: 25 Gbit/s";
    unchanged_bytes_per_s = 2.6e9, "B/s a core", "2026-11-22-full.md: 4.87 GB read again in 0.92 s on two cores";
    cut_bytes_per_s = 3.3e9, "B/s a core", "2026-11-22-parts.md: cut and named, grain-32k, 3.1 GiB/s";
    zstd_bytes_per_s = 0.48e9, "B/s a core", "2026-11-22-full.md: bare zstd 1 of the real disks";
    seal_bytes_per_s = 2.36e9, "B/s a core", "2026-11-22-parts.md: AES-256-GCM, 2.2 GiB/s";
    lookups_per_s = 34_500.0, "ids/s an owner", "2026-11-22-index.md: known ids, 100 million entries, one thread";
    inserts_per_s = 57_500.0, "entries/s an owner", "2026-11-22-index.md: 2000 entries of a pack, synced, 100 million entries";
    question_s = 0.0002, "s of an owner", "assumption: what a question of up to 512 ids costs besides, with TLS";
    round_trip_s = 0.0005, "s", "assumption: between two machines of one place";
    store_bytes_per_s = 5e9, "B/s", "assumption: of the whole store, 40 Gbit/s";
    store_requests_per_s = 3500.0, "/s", "assumption: of the whole store; what S3 promises for puts to one prefix";
    stream_bytes_per_s = 90e6, "B/s", "assumption: of one put to an object store";
    store_latency_s = 0.03, "s", "assumption: of one request to an object store";
    requests_per_pack = 2.0, "", "ARCHITECTURE.md: put, and looked at";
    requests_per_job = 12.0, "", "assumption: header, keys, claims twice, the parent's recipe, manifest";
    log_entries_per_s = 16_706.0, "/s", "2026-11-22-coordinator.md: entries of jobs, three members, 256 clients";
    commit_s = 0.0032, "s", "2026-11-22-coordinator.md: p99 of one client";
    pass_s_per_item = 3e-7, "s", "2026-11-22-coordinator.md: 100,000 items that are all due in 30 ms";
    choice_s = 0.000_02, "s", "2026-11-22-coordinator.md: 96,000 jobs wait, 4,000 run";
    pass_every_s = 0.5, "s", "docs/control-plane.md: the leader looks twice a second";
    connections_max = 8192.0, "a process", "proto/src/tls/accept.rs";
    coordinators = 3.0, "", "assumption";
    connections_per_worker = 2.0, "", "calls, and the watch of the map";
}

impl Inputs {
    /// Takes `NAME=VALUE`.
    ///
    /// # Errors
    /// When it is not that.
    pub(crate) fn set(&mut self, text: &str) -> Result<(), WrongInput> {
        let wrong = || WrongInput(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let value: f64 = value.parse().map_err(|_| wrong())?;
        if !(value.is_finite() && value > 0.0) {
            return Err(wrong());
        }
        *self.get_mut(name).ok_or_else(wrong)? = value;
        Ok(())
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        let source = if self.is_set { "given with --set" } else { self.source };
        let shown = match value {
            value if value >= 1e6 => format!("{} million", value / 1e6),
            value => value.to_string(),
        };
        write!(f, "| `{}` | {shown} {} | {source} |", self.name, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_set_by_its_name_and_shown_as_set() {
        let mut inputs = Inputs::default();
        inputs.set("cores=4").expect("there is such a cost");
        assert!((inputs.cores - 4.0).abs() < f64::EPSILON);
        let set: Vec<&str> = inputs.table().iter().filter(|i| i.is_set).map(|i| i.name).collect();
        assert_eq!(set, ["cores"]);
        for wrong in ["cores", "cores=", "cores=0", "cores=nan", "threads=4", "cores=-1"] {
            assert_eq!(inputs.set(wrong), Err(WrongInput(wrong.to_owned())));
        }
    }
}
