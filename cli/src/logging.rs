//! Log lines on standard error, what is kept of attempts, and spans.

use tracing::{Metadata, Span};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};
use tresor_proto::trace::{self, Traceparent};
use tresor_storage::ids::random_bytes;
use tresor_worker::agent::JobLogs;

use crate::args::LogFormat;
use crate::error::CliError;
use crate::otlp::{Endpoint, Exporting};
use crate::screen::Screen;

/// The crates whose lines a level is meant for; those of libraries need a filter.
const OURS: [&str; 5] = [
    "tresor",
    "tresor_coordinator",
    "tresor_proto",
    "tresor_storage",
    "tresor_worker",
];
/// The span of a command as a whole. People see in what they typed what it is about.
const COMMAND: &str = "command";
/// The trace that this command belongs to, as programs that start others say it.
const PARENT: &str = "TRACEPARENT";

/// The filter that a word stands for: a level for our own crates, warnings of others; anything else is a filter as it is.
fn filter(words: &str) -> String {
    match words {
        "off" | "error" => words.to_owned(),
        "warn" | "info" | "debug" | "trace" => {
            let ours = OURS.map(|name| format!("{name}={words}")).join(",");
            format!("warn,{ours}")
        }
        other => other.to_owned(),
    }
}

/// What is to be ended with the process.
#[derive(Default)]
pub(crate) struct Logging {
    exporting: Option<Exporting>,
}

impl Logging {
    /// Sends spans that were not sent yet.
    pub(crate) fn finish(self) {
        if let Some(exporting) = self.exporting {
            exporting.finish();
        }
    }
}

/// Starts logging; spans are exported as those of `service`, if they are.
///
/// # Errors
/// [`CliError::Settings`] for a filter that is none, and when spans cannot be exported.
pub(crate) fn start(
    words: &str,
    format: LogFormat,
    screen: &Screen,
    otlp: Option<&Endpoint>,
    service: &'static str,
) -> Result<Logging, CliError> {
    let filter = EnvFilter::try_new(filter(words)).map_err(|error| CliError::Settings {
        problems: vec![format!(
            "log {words:?} is neither a level (off, error, warn, info, debug, trace) nor a filter: {error}"
        )],
    })?;
    let exporting = otlp.map(|endpoint| Exporting::begin(endpoint, service)).transpose()?;
    let lines = tracing_subscriber::fmt::layer::<Registry>().with_writer(screen.clone());
    let lines = match format {
        LogFormat::Human => {
            let for_people = filter_fn(|metadata: &Metadata<'_>| !(metadata.is_span() && metadata.name() == COMMAND));
            let lines = lines.with_target(false).with_ansi(false);
            lines.with_filter(filter.and(for_people)).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let subscriber = tracing_subscriber::registry()
        .with(lines)
        .with(JobLogs::layer())
        .with(exporting.as_ref().map(Exporting::layer));
    // Fails only when a subscriber is there already, which then logs.
    let _ = subscriber.try_init();
    Ok(Logging { exporting })
}

/// The span of a command: its calls belong to one trace, that of who started it if there is one.
pub(crate) fn command(verb: &str) -> Span {
    let span = tracing::info_span!("command", verb, trace = tracing::field::Empty);
    let given = std::env::var(PARENT).ok().and_then(|text| text.parse().ok());
    match given {
        Some(parent) => trace::adopt(&span, &parent),
        // Who exports it draws its ids.
        None if trace::of(&span).is_some() => {}
        None => trace::adopt(&span, &Traceparent::new(random_bytes())),
    }
    if let Some(here) = trace::of(&span) {
        span.record("trace", here.trace_id());
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_meant_for_our_own_crates() {
        assert_eq!(
            filter("debug"),
            "warn,tresor=debug,tresor_coordinator=debug,tresor_proto=debug,tresor_storage=debug,tresor_worker=debug"
        );
        assert_eq!(filter("error"), "error");
        assert_eq!(filter("tresor_worker::nbd=trace"), "tresor_worker::nbd=trace");
    }

    #[test]
    fn a_command_is_in_one_trace() {
        tracing::subscriber::with_default(Registry::default(), || {
            let span = command("backup");
            let here = trace::of(&span).expect("a command has a trace");
            span.in_scope(|| assert_eq!(trace::current(), Some(here)));
            assert_ne!(trace::of(&command("backup")), Some(here));
        });
    }
}
