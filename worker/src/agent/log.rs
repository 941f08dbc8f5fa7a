//! What is logged while an attempt runs, kept for the cluster: the lines of our crates at `info` and above, bounded, and how the attempt went.
//!
//! ```text
//! runner      makes the attempt's span ▸ Log::attach puts the log into it
//! JobLogs     a layer of the process's subscriber: an event inside such a span, however deep, is a line of its log
//! job         the attempt has ended ▸ Log::pack ▸ the runner reports it, beside the next attempts and not for long
//! ```
//! Only our own crates: what libraries log may have addresses in it that open something. Our lines hold no secrets, and that holds wherever they go. A line
//! is made only when something is logged, never by the chunk; an attempt that logs nothing costs nothing.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Span, Subscriber};
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tresor_proto::attempt_log::{self, LogError, TEXT_BYTES_MAX};
use tresor_proto::v1::{AttemptLog, LogLine};

/// The lines that an attempt begins with: what was to be done, and the first things that went wrong, which are often why others did.
pub(crate) const FIRST_LINES: usize = 64;
/// The lines that it ends with: why it ended so. Both together take at most a quarter of a megabyte of memory.
pub(crate) const LAST_LINES: usize = 192;
/// Lines of the summary.
const SUMMARY_LINES: usize = 8;
/// How the targets of our crates begin.
const OURS: &str = "tresor";

#[derive(Debug, Default)]
struct Lines {
    first: Vec<LogLine>,
    left_out: u64,
    last: VecDeque<LogLine>,
    /// Stages in the order in which they were entered first, and how long each took so far.
    stages: Vec<(&'static str, Duration)>,
    /// The stage that it is in, and since when.
    stage: Option<(&'static str, Instant)>,
}

/// What was logged of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Mutex<Lines>,
}

/// In the extensions of an attempt's span.
struct Attached(Arc<Log>);

impl Log {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Nothing under it panics half way.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what is logged inside of `span` lines of this log. Does nothing in a process without [`JobLogs`].
    pub(crate) fn attach(self: &Arc<Self>, span: &Span) {
        span.with_subscriber(|(id, subscriber)| {
            if let Some(registry) = subscriber.downcast_ref::<Registry>()
                && let Some(span) = registry.span(id)
            {
                span.extensions_mut().replace(Attached(Arc::clone(self)));
            }
        });
    }

    /// Adds a line.
    fn add(&self, level: &str, text: &str) {
        let line = LogLine {
            time_ms: jiff::Timestamp::now().as_millisecond(),
            level: level.to_owned(),
            text: plain(text),
        };
        let mut lines = self.lines();
        if lines.first.len() < FIRST_LINES {
            lines.first.push(line);
            return;
        }
        if lines.last.len() == LAST_LINES {
            lines.last.pop_front();
            lines.left_out += 1;
        }
        lines.last.push_back(line);
    }

    /// Notes that the attempt enters a stage.
    pub(crate) fn enter(&self, stage: &'static str) {
        let now = Instant::now();
        {
            let mut lines = self.lines();
            if lines.stage.is_some_and(|(before, _)| before == stage) {
                return;
            }
            lines.close_stage(now);
            lines.stage = Some((stage, now));
        }
        self.add("info", &format!("stage begins stage={stage}"));
    }

    /// The log as it is reported: with `summary`, of a trace. None where it cannot be encoded, which nothing else depends on.
    pub(crate) fn pack(&self, trace: &str, mut summary: Vec<String>) -> Option<Vec<u8>> {
        let mut log = {
            let mut lines = self.lines();
            lines.close_stage(Instant::now());
            summary.extend(lines.stages_text());
            AttemptLog {
                trace: trace.to_owned(),
                first: lines.first.clone(),
                left_out: lines.left_out,
                last: lines.last.iter().cloned().collect(),
                summary: summary.iter().take(SUMMARY_LINES).map(|line| plain(line)).collect(),
            }
        };
        loop {
            match attempt_log::encode(&log) {
                Ok(packed) => return Some(packed),
                Err(LogError::TooLarge { .. }) if !(log.first.is_empty() && log.last.is_empty()) => thin(&mut log),
                Err(error) => {
                    tracing::debug!(%error, "the log of an attempt cannot be encoded");
                    return None;
                }
            }
        }
    }
}

/// Leaves out a part of the lines, from the middle: at most a third of them, so that what fits is nearly used up.
fn thin(log: &mut AttemptLog) {
    let first = log.first.len().div_ceil(4);
    let last = log.last.len().div_ceil(3);
    // Those with which it began go last: the end says why it ended.
    let (first, last) = if log.last.len() > log.first.len() {
        (0, last)
    } else {
        (first, last)
    };
    log.first.truncate(log.first.len() - first);
    log.last.drain(..last);
    log.left_out += (first + last) as u64;
}

impl Lines {
    fn close_stage(&mut self, now: Instant) {
        let Some((stage, since)) = self.stage.take() else {
            return;
        };
        let took = now.saturating_duration_since(since);
        match self.stages.iter_mut().find(|(other, _)| *other == stage) {
            Some((_, sum)) => *sum += took,
            None => self.stages.push((stage, took)),
        }
    }

    fn stages_text(&self) -> Option<String> {
        let stages = self.stages.iter();
        let texts: Vec<String> = stages
            .map(|(stage, took)| format!("{stage} {} ms", took.as_millis()))
            .collect();
        (!texts.is_empty()).then(|| format!("stages: {}", texts.join(", ")))
    }
}

/// Fit for terminals and tables: paths and names come from elsewhere.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if plain.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        plain.push(c);
    }
    plain
}

/// Makes lines of attempts' logs of what is logged inside their spans.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobLogs(());

impl JobLogs {
    /// The layer, for the subscriber of a process that runs attempts. It looks at `info` and above of our own crates, whatever others look at.
    pub fn layer<S>() -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let ours: FilterFn = FilterFn::new(is_ours as fn(&Metadata<'_>) -> bool);
        Self(()).with_filter(ours.with_max_level_hint(LevelFilter::INFO))
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.target().starts_with(OURS)
}

impl<S> Layer<S> for JobLogs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(scope) = context.event_scope(event) else {
            return;
        };
        for span in scope {
            let log = span
                .extensions()
                .get::<Attached>()
                .map(|attached| Arc::clone(&attached.0));
            if let Some(log) = log {
                let mut text = Text::default();
                event.record(&mut text);
                let level = event.metadata().level().as_str().to_ascii_lowercase();
                log.add(&level, &text.finish());
                return;
            }
        }
    }
}

/// An event as a text: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        self.message + &self.fields
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // As it is: within quotes a chain of causes would be hard to read.
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(error) = next {
            let _ = write!(text, ": {error}");
            next = error.source();
        }
        self.record_debug(field, &format_args!("{text}"));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use tracing::Instrument as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn within<T>(run: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(Registry::default().with(JobLogs::layer()), run)
    }

    fn read(log: &Log) -> AttemptLog {
        attempt_log::decode(&log.pack("", Vec::new()).unwrap()).unwrap()
    }

    fn texts(log: &AttemptLog) -> Vec<String> {
        let lines = log.first.iter().chain(&log.last);
        lines.map(|line| format!("{} {}", line.level, line.text)).collect()
    }

    #[test]
    fn what_is_logged_inside_of_an_attempt_is_a_line_of_its_log_and_of_no_other() {
        within(|| {
            let logs = [Arc::new(Log::default()), Arc::new(Log::default())];
            let spans = [(); 2].map(|()| tracing::info_span!("job"));
            for (log, span) in logs.iter().zip(&spans) {
                log.attach(span);
            }
            tracing::info!("outside");
            spans[0].in_scope(|| {
                tracing::info!(disk = "vda", bytes = 7, "disk is read");
                // Deeper, on another level and in a span that nobody attached anything to.
                tracing::info_span!("inner").in_scope(|| tracing::warn!("slow"));
                tracing::debug!("why");
                tracing::trace!("every detail");
                tracing::warn!(target: "hyper::client", "GET https://key:secret@store");
            });
            spans[1].in_scope(|| tracing::error!(error = %std::fmt::Error, "broken"));
            let first = read(&logs[0]);
            assert_eq!(texts(&first), ["info disk is read disk=vda bytes=7", "warn slow"]);
            let second = read(&logs[1]);
            assert_eq!(second.first.len(), 1);
            assert!(second.first[0].text.starts_with("broken error="), "{second:?}");
        });
    }

    #[tokio::test]
    async fn tasks_and_blocking_threads_of_an_attempt_log_into_it() {
        let subscriber = Registry::default().with(JobLogs::layer());
        let _here = tracing::subscriber::set_default(subscriber);
        let log = Arc::new(Log::default());
        let span = tracing::info_span!("job");
        log.attach(&span);
        async {
            // The runtime of this test has one thread, so tasks see its subscriber.
            let task = tokio::spawn(async { tracing::info!("in a task") }.in_current_span());
            task.await.unwrap();
            let here = tracing::dispatcher::get_default(Clone::clone);
            crate::blocking::blocking(move || {
                tracing::dispatcher::with_default(&here, || tracing::info!("on a thread"));
            })
            .await;
        }
        .instrument(span)
        .await;
        assert_eq!(texts(&read(&log)), ["info in a task", "info on a thread"]);
    }

    #[test]
    fn the_first_lines_and_the_last_are_kept_and_the_rest_is_counted() {
        let log = Log::default();
        for n in 0..1000 {
            log.add("info", &format!("line {n}"));
        }
        let read = read(&log);
        assert_eq!((read.first.len(), read.last.len()), (FIRST_LINES, LAST_LINES));
        assert_eq!(read.left_out, 1000 - (FIRST_LINES + LAST_LINES) as u64);
        assert_eq!(read.first[63].text, "line 63");
        assert_eq!(read.last[0].text, "line 808");
        assert_eq!(read.last[191].text, "line 999");
    }

    #[test]
    fn a_line_is_short_and_plain() {
        let log = Log::default();
        log.add("warn", &format!("a\u{1b}[2J\nb{}", "ä".repeat(2000)));
        let line = read(&log).first.remove(0).text;
        assert!(line.starts_with("a [2J bä"), "{line}");
        assert!(line.len() <= TEXT_BYTES_MAX && line.len() > TEXT_BYTES_MAX - 2);
    }

    #[test]
    fn a_log_that_is_too_large_loses_lines_from_its_middle() {
        let log = Log::default();
        // What cannot be compressed.
        let noise = |n: u64| {
            let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = || {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                format!("{x:016x}")
            };
            (0..60).map(|_| next()).collect::<String>()
        };
        for n in 0..300 {
            log.add("info", &format!("{n} {}", noise(n)));
        }
        let packed = log.pack("", vec![String::from("how it went")]).unwrap();
        assert!(packed.len() <= attempt_log::PACKED_BYTES_MAX);
        // A third of what fits is not given away.
        assert!(packed.len() > attempt_log::PACKED_BYTES_MAX / 2, "{}", packed.len());
        let read = attempt_log::decode(&packed).unwrap();
        let kept = read.first.len() + read.last.len();
        assert_eq!(read.left_out + kept as u64, 300);
        assert!(read.first[0].text.starts_with("0 "));
        assert!(read.last.last().unwrap().text.starts_with("299 "));
        assert_eq!(read.summary, ["how it went"]);
    }

    #[test]
    fn stages_are_lines_and_their_times_a_part_of_the_summary() {
        let log = Log::default();
        for stage in ["opening", "reading", "reading", "opening", "reporting"] {
            log.enter(stage);
        }
        let read = attempt_log::decode(&log.pack("ab", vec![String::from("ended: done")]).unwrap()).unwrap();
        assert_eq!(read.trace, "ab");
        assert_eq!(read.first.len(), 4);
        assert_eq!(read.first[1].text, "stage begins stage=reading");
        assert_eq!(read.summary[0], "ended: done");
        let stages = &read.summary[1];
        assert!(stages.starts_with("stages: opening "), "{stages}");
        assert_eq!(stages.matches("ms").count(), 3, "{stages}");
    }
}
