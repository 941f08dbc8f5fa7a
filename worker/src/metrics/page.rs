//! The families of one answer, made when somebody asks: numbers live where they are counted, and what is gone is not shown any more.

use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};

/// A registry that lives as long as one answer.
#[derive(Debug, Default)]
pub(super) struct Page {
    registry: Registry,
}

/// A number as Prometheus has all of them.
#[expect(clippy::cast_precision_loss, reason = "numbers of Prometheus are floats")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// Microseconds as seconds.
pub(super) fn seconds(micros: u64) -> f64 {
    float(micros) / 1e6
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

    /// One number that only goes up.
    pub(super) fn count(&self, name: &str, help: &str, number: f64) {
        self.counts(name, help, [], [([], number)]);
    }

    /// A family that lives longer than the answer.
    pub(super) fn add(&self, family: impl prometheus::core::Collector + 'static) {
        self.registry
            .register(Box::new(family))
            .expect("every name is used once");
    }

    /// In Prometheus' text format (version 0.0.4).
    pub(super) fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("families without rows are left out, and all else can be written")
    }
}
