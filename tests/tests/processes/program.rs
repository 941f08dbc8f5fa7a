//! The program under test: where it is, a call of it that ends, and a process of it that runs until something is done to it.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest that anything may take before a test fails: twice what the slowest step, a lease that runs out, takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Lines of a log that are shown when a test fails.
const LINES_SHOWN: usize = 80;

/// Asks again until there is an answer.
pub(crate) fn until<T>(what: impl fmt::Display, look: impl FnMut() -> Option<T>) -> T {
    asked_every(Duration::from_millis(20), what, look)
}

/// Asks again at once until there is an answer: for a stage that is over in milliseconds.
pub(crate) fn until_just_now<T>(what: impl fmt::Display, look: impl FnMut() -> Option<T>) -> T {
    asked_every(Duration::from_micros(200), what, look)
}

fn asked_every<T>(pause: Duration, what: impl fmt::Display, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "waited {} s for this: {what}",
            PATIENCE.as_secs()
        );
        std::thread::sleep(pause);
    }
}

thread_local! {
    /// What this thread starts instead of the program beside the tests.
    static OTHER: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// The program of the version before this one, where it was built; says by name what is skipped without it.
pub(crate) fn previous_or_skipped(story: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let path = target.join("previous/tresor");
    if !path.is_file() {
        eprintln!("skipped: {story} (scripts/previous.sh builds the version before this one)");
        return None;
    }
    Some(path)
}

/// Starts another program from now on, or the one beside the tests again: of this thread, processes and calls alike.
pub(crate) fn start_from_now_on(program: Option<&Path>) {
    OTHER.set(program.map(Path::to_owned));
}

/// The program: built beside the tests, unless the thread has another one.
fn program() -> PathBuf {
    if let Some(other) = OTHER.with_borrow(Clone::clone) {
        return other;
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("tresor");
    assert!(
        path.is_file(),
        "{} is not there; `cargo build --workspace --bins` makes it",
        path.display()
    );
    path
}

/// The program with a home and in no other environment; in a network namespace, where one is named.
pub(crate) fn command(home: &Path, namespace: Option<&str>, args: &[&str]) -> Command {
    let mut command = match namespace {
        None => Command::new(program()),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(program());
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRESOR_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .env("TRESOR_HOME", home)
        .env("HOME", home)
        .env("COLUMNS", "100")
        .env_remove("XDG_DATA_HOME");
    command
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ran {
    args: String,
    pub(crate) code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    pub(crate) fn new(args: &[&str], output: Output) -> Self {
        Self {
            args: args.join(" "),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The one JSON value on standard output.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no single JSON value: {error}: {self}"))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tresor {} ended with {}\nstdout: {}\nstderr: {}",
            self.args, self.code, self.stdout, self.stderr
        )
    }
}

/// A process that runs until something is done to it. Killed when it is dropped, stopped or not.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it writes is added to the log.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self {
            child: command.spawn().unwrap(),
            log: log.to_owned(),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end as it likes to.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        until(format!("{} ends after SIGTERM", self.log.display()), || {
            self.child.try_wait().unwrap()
        })
    }

    /// Is to stand still; the system answers for it as far as the network goes.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Waits until it stands still, all threads of it.
    pub(crate) fn wait_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        until_just_now("a process stands still", || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            let state = stat.rsplit_once(") ").unwrap().1.chars().next();
            (state == Some('T')).then_some(())
        });
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shows the end of a log to whoever reads the failed test.
pub(crate) fn show_log(name: &str, log: &Path) {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    #[expect(clippy::print_stderr, reason = "for whoever reads the failed test")]
    {
        eprintln!("---- the last {} of {} lines of {name}", shown.len(), lines.len());
        for line in shown {
            eprintln!("{line}");
        }
    }
}
