//! Where text goes: answers to standard output, everything else to standard error, and progress bars that neither of them tears apart.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::task::JoinHandle;
use tracing_subscriber::fmt::MakeWriter;
use tresor_storage::verify::{self, Phase};
use tresor_worker::progress::Progress;

use crate::exit::Code;
use crate::human;

/// How often a bar looks at its numbers.
const REFRESH: Duration = Duration::from_millis(200);
/// How far a job is that moves bytes.
const BYTES: &str =
    "{prefix} {bar:24} {percent:>3}% {bytes:>11} of {total_bytes}  {bytes_per_sec:>13}  {eta:>4} left  {wide_msg}";

/// The two streams and what they are.
#[derive(Clone)]
pub(crate) struct Screen {
    bars: MultiProgress,
    quiet: bool,
    json: bool,
    stdout_terminal: bool,
    stderr_terminal: bool,
}

/// The answer to a command: what goes to standard output, and the exit code.
#[derive(Debug)]
pub(crate) struct Answer {
    text: String,
    /// How the call ends.
    pub(crate) code: Code,
}

impl Screen {
    /// Looks at the streams of this process.
    pub(crate) fn new(quiet: bool, json: bool) -> Self {
        let stderr_terminal = io::stderr().is_terminal();
        let bars = MultiProgress::new();
        if quiet || !stderr_terminal {
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self {
            bars,
            quiet,
            json,
            stdout_terminal: io::stdout().is_terminal(),
            stderr_terminal,
        }
    }

    /// Whether a person reads the answer.
    pub(crate) fn is_terminal(&self) -> bool {
        self.stdout_terminal
    }

    /// Whether a person reads the answer as text.
    pub(crate) fn is_for_person(&self) -> bool {
        self.stdout_terminal && !self.json
    }

    /// Whether the answer is to be one JSON value.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        self.stderr_terminal && io::stdin().is_terminal()
    }

    /// The answer to a command: `value` with `--json`, else the text.
    pub(crate) fn answer(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Answer {
        let text = match (self.json, self.stdout_terminal) {
            (true, true) => serde_json::to_string_pretty(value),
            (true, false) => serde_json::to_string(value),
            (false, _) => Ok(text()),
        };
        Answer {
            text: text.expect("answers have string keys and no failing parts"),
            code: Code::Done,
        }
    }

    /// A note to the person at standard error; none with `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// Writes a line to standard error. Nobody can be told when that fails.
    pub(crate) fn say(&self, text: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    /// Shows a job's progress until the guard is dropped.
    pub(crate) fn watch(&self, name: &str, progress: Arc<Progress>) -> Watch {
        let bar = self.bars.add(ProgressBar::no_length());
        bar.set_style(style(BYTES));
        bar.set_prefix(human::plain(name));
        self.tick(bar, move |bar| {
            let now = progress.snapshot();
            if now.bytes_total > 0 {
                bar.set_length(now.bytes_total);
            }
            bar.set_position(now.bytes_done);
            if now.bytes_new > 0 || now.bytes_stored > 0 {
                bar.set_message(format!(
                    "{} new, {} moved",
                    human::size(now.bytes_new),
                    human::size(now.bytes_stored)
                ));
            }
        })
    }

    /// Shows how far verifying is until the guard is dropped.
    pub(crate) fn watch_verify(&self, name: &str, progress: Arc<verify::Progress>) -> Watch {
        let bar = self.bars.add(ProgressBar::no_length());
        bar.set_style(style(
            "{prefix} {msg} {bar:24} {percent:>3}% {bytes:>11} of {total_bytes}  {bytes_per_sec:>13}  {eta:>4} left",
        ));
        bar.set_prefix(human::plain(name));
        self.tick(bar, move |bar| {
            let now = progress.snapshot();
            let phase = match now.phase {
                Phase::Names => "listing",
                Phase::Objects => "objects",
                Phase::Recipes => "recipes",
                Phase::Harm => "harmed points",
            };
            bar.set_message(if now.findings > 0 {
                format!("{phase}, {} findings,", now.findings)
            } else {
                phase.to_owned()
            });
            if now.bytes_total > 0 {
                bar.set_length(now.bytes_total);
            }
            bar.set_position(now.bytes_done);
        })
    }

    /// Shows how far another process is, as the caller hears of it, until the guard is dropped.
    pub(crate) fn follow(&self, name: &str) -> Watch {
        let bar = self.bars.add(ProgressBar::no_length());
        bar.set_style(style("{prefix}: {wide_msg}"));
        bar.set_prefix(human::plain(name));
        Watch { bar, task: None }
    }

    /// Shows a count of objects that the caller moves, until the guard is dropped.
    pub(crate) fn count(&self, name: &str) -> Watch {
        let bar = self.bars.add(ProgressBar::no_length());
        bar.set_style(style(
            "{prefix} {bar:24} {percent:>3}% {pos:>9} of {len} objects  {per_sec:>13}  {eta:>4} left",
        ));
        bar.set_prefix(human::plain(name));
        Watch { bar, task: None }
    }

    fn tick(&self, bar: ProgressBar, mut show: impl FnMut(&ProgressBar) + Send + 'static) -> Watch {
        let shown = bar.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(REFRESH);
            loop {
                tick.tick().await;
                show(&shown);
            }
        });
        Watch { bar, task: Some(task) }
    }

    /// Prints the answer.
    ///
    /// # Errors
    /// When standard output does not take it. A reader that went away is none: it has what it wanted.
    pub(crate) fn print(&self, answer: &Answer) -> io::Result<()> {
        if answer.text.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let end = if answer.text.ends_with('\n') { "" } else { "\n" };
        match write!(stdout, "{}{end}", answer.text).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("our templates are well-formed")
        .progress_chars("━╸ ")
}

impl Answer {
    /// A text that has no JSON: scripts, pages.
    pub(crate) fn text(text: String) -> Self {
        Self { text, code: Code::Done }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }
}

/// Shows progress while it lives.
pub(crate) struct Watch {
    bar: ProgressBar,
    task: Option<JoinHandle<()>>,
}

impl Watch {
    /// So many are done, of so many.
    pub(crate) fn at(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// It does that now, and is so far.
    pub(crate) fn heard(&self, stage: &str, done: u64, total: u64) {
        self.bar.set_message(human::plain(stage));
        if total == 0 {
            return;
        }
        if self.bar.length().is_none() {
            self.bar.set_style(style(BYTES));
            self.bar.set_length(total);
            self.bar.set_position(done);
            // What was done before we looked is no measure of its speed.
            self.bar.reset_eta();
        }
        self.at(done, total);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.bar.finish_and_clear();
    }
}

/// One log line on its way to standard error.
pub(crate) struct LogLine {
    bars: MultiProgress,
    bytes: Vec<u8>,
}

impl io::Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.bars.suspend(|| {
            let _ = io::stderr().write_all(&self.bytes);
        });
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine {
            bars: self.bars.clone(),
            bytes: Vec::new(),
        }
    }
}
