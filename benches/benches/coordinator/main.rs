//! What the control plane costs: how fast three coordinators commit, how long a leader's look at everything takes, what a million points need,
//! and how long it takes until a cluster goes on after one of them is lost or was away.
//!
//! `cargo bench -p tresor-benches --bench coordinator` asks all questions, `… -- passes points` some. Coordinators are processes of their own
//! (this program again), over TLS on this machine, each with its RocksDB in the system's temporary folder, or the one that `TRESOR_BENCH_DIR`
//! names. `TRESOR_BENCH_POINTS` (1,000,000) and `TRESOR_BENCH_ENTRIES` (1,000,000) say how many points there are and how many entries a
//! coordinator misses. Answers are rows of a table.

#![expect(clippy::print_stdout, reason = "the answers are this program's output")]

mod cluster;
mod load;
mod node;
mod passes;
mod points;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

/// All questions, in the order in which they are asked.
const QUESTIONS: [(&str, fn()); 6] = [
    ("passes", passes::ask),
    ("points", points::ask),
    ("idle", cluster::idle),
    ("events", cluster::events),
    ("lost", cluster::leader_lost),
    ("behind", cluster::far_behind),
];

/// Prints one answer.
fn answer(question: &str, answer: impl Display) {
    println!("| {question} | {answer} |");
}

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(otherwise, |text| {
        text.replace('_', "")
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}

/// A new folder where coordinators may write, on a disk.
fn folder() -> tempfile::TempDir {
    let place = std::env::var_os("TRESOR_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::TempDir::new_in(place).expect("the folder can be written")
}

/// A field of a process's status, bytes.
fn status_bytes(process: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| {
        line.trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) << 10
}

/// The value below which so many percent of sorted ones are.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Milliseconds that threads of a folder of `/proc` were on a core: what counts where other programs want the same cores.
fn on_core_ms(threads: &Path) -> f64 {
    let nanoseconds = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    if let Some(one) = nanoseconds(threads).filter(|_| !threads.ends_with("task")) {
        return one / 1e6;
    }
    let all = std::fs::read_dir(threads).into_iter().flatten().flatten();
    all.filter_map(|thread| nanoseconds(&thread.path())).sum::<f64>() / 1e6
}

/// What calls of this thread took, in milliseconds: on the clock, and on a core.
struct Calls {
    clock: Vec<f64>,
    core: Vec<f64>,
}

/// Calls so often.
fn calls(count: usize, mut call: impl FnMut()) -> Calls {
    let here = Path::new("/proc/thread-self");
    let mut core = Vec::new();
    let clock = times(count, || {
        let before = on_core_ms(here);
        call();
        core.push(on_core_ms(here) - before);
    });
    core.sort_by(f64::total_cmp);
    Calls { clock, core }
}

impl Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (clock, core) = (median_and_worst(&self.clock), percentile(&self.core, 50));
        write!(f, "{clock}; {core:.2} ms on a core")
    }
}

/// Milliseconds of calls, sorted.
fn times(count: usize, mut call: impl FnMut()) -> Vec<f64> {
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            let begin = std::time::Instant::now();
            call();
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// "median (worst)" of sorted milliseconds.
fn median_and_worst(sorted: &[f64]) -> String {
    format!(
        "{:.2} ms (worst of {}: {:.2} ms)",
        percentile(sorted, 50),
        sorted.len(),
        sorted.last().copied().unwrap_or(f64::NAN)
    )
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["node", folder, address] = words[..] {
        node::run(folder.as_ref(), address);
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = words
        .iter()
        .find(|word| QUESTIONS.iter().all(|(name, _)| name != *word))
    {
        let names = QUESTIONS.map(|(name, _)| name).join(", ");
        eprintln!("no question {unknown}: there are {names}");
        return ExitCode::FAILURE;
    }
    for (name, ask) in QUESTIONS {
        if words.is_empty() || words.contains(&name) {
            ask();
        }
    }
    ExitCode::SUCCESS
}
