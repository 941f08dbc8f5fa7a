//! The families of one answer, made when somebody asks: a vault or a worker that is gone is not shown any more.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};

/// A registry that lives as long as one answer.
#[derive(Debug, Default)]
pub(super) struct Page {
    registry: Registry,
    left_out: [AtomicU64; LeftOut::ALL.len()],
}

/// Things that have series of their own, as far as there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    Vaults,
    Policies,
    Workers,
    Items,
}

impl LeftOut {
    const ALL: [Self; 4] = [Self::Vaults, Self::Policies, Self::Workers, Self::Items];

    fn word(self) -> &'static str {
        match self {
            Self::Vaults => "vaults",
            Self::Policies => "policies",
            Self::Workers => "workers",
            Self::Items => "items",
        }
    }
}

/// A number as Prometheus has all of them.
#[expect(clippy::cast_precision_loss, reason = "numbers of Prometheus are floats")]
pub(super) fn float(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or(u64::MAX) as f64
}

/// Milliseconds, also before some moment, as seconds.
#[expect(clippy::cast_precision_loss, reason = "numbers of Prometheus are floats")]
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Whether something is so.
pub(super) fn fact(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

impl Page {
    /// What goes up and down, by labels; nothing where there are no rows.
    pub(super) fn gauges<'r, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([&'r str; N], f64)>,
    ) {
        let family = GaugeVec::new(Opts::new(name, help), &labels).expect("names are constants");
        for (values, number) in rows {
            family.with_label_values(&values).set(number);
        }
        self.add(family);
    }

    /// What only goes up, by labels.
    pub(super) fn counts<'r, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([&'r str; N], f64)>,
    ) {
        let family = CounterVec::new(Opts::new(name, help), &labels).expect("names are constants");
        for (values, number) in rows {
            family.with_label_values(&values).inc_by(number);
        }
        self.add(family);
    }

    /// One number that goes up and down.
    pub(super) fn gauge(&self, name: &str, help: &str, number: f64) {
        self.gauges(name, help, [], [([], number)]);
    }

    fn add(&self, family: impl prometheus::core::Collector + 'static) {
        self.registry
            .register(Box::new(family))
            .expect("every name is used once");
    }

    /// So many of them have no series.
    pub(super) fn leave_out(&self, what: LeftOut, count: usize) {
        self.left_out[what as usize].store(count as u64, Relaxed);
    }

    /// In Prometheus' text format (version 0.0.4), with what was left out.
    pub(super) fn text(self) -> String {
        let left_out = self.left_out.each_ref().map(|count| count.load(Relaxed));
        self.gauges(
            "tresor_coordinator_series_left_out",
            "Vaults, policies, workers and items that have no series of their own, because there are too many of them.",
            ["what"],
            LeftOut::ALL
                .into_iter()
                .zip(left_out)
                .map(|(what, count)| ([what.word()], float(count))),
        );
        self.families_alone()
    }

    /// In Prometheus' text format: of a page that leaves nothing out.
    pub(super) fn families_alone(self) -> String {
        encode(&self.registry)
    }
}

/// All families of a registry, in Prometheus' text format (version 0.0.4).
pub(super) fn encode(registry: &Registry) -> String {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .expect("families without rows are left out, and all else can be written")
}
