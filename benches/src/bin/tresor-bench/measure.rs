//! Runs one command and measures it: wall time, processor time, peak memory.
//!
//! Processor time is what `/proc/self/stat` gained for children that were waited for (ticks of 10 ms), which includes
//! the command's own children. Peak memory is the high-water mark of resident memory (`VmHWM`), read every 10 ms from
//! the command and everything it started, and added up: growth within the last 10 ms of a process is not seen.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{BenchError, io};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);
/// How much of what a failed command said is kept.
const STDERR_BYTES_MAX: usize = 2000;

/// What one command cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// From start until what it wrote is on disk.
    pub(crate) wall_seconds: f64,
    /// Of these, how long after its end the disk was still being written to.
    pub(crate) sync_seconds: f64,
    /// User and system time, of all its processes.
    pub(crate) cpu_seconds: f64,
    /// Peak resident memory.
    pub(crate) memory_bytes: u64,
}

/// Runs a command to its end and returns its cost and standard output.
///
/// # Errors
/// When it can't be started or ends with anything but 0; the error quotes the end of its standard error.
pub(crate) fn run(command: &mut Command) -> Result<(Cost, String), BenchError> {
    let program = Path::new(command.get_program()).to_owned();
    let mut stdout = tempfile::tempfile().map_err(io("create", Path::new("a temporary file")))?;
    let mut stderr = tempfile::tempfile().map_err(io("create", Path::new("a temporary file")))?;
    let duplicate = |file: &File| {
        file.try_clone()
            .map(Stdio::from)
            .map_err(io("duplicate", Path::new("a file")))
    };
    command
        .stdin(Stdio::null())
        .stdout(duplicate(&stdout)?)
        .stderr(duplicate(&stderr)?);

    let cpu_before = children_cpu_seconds()?;
    let start = Instant::now();
    let mut child = command.spawn().map_err(io("start", &program))?;
    let root = child.id();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (status, wall, memory_bytes) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peaks: HashMap<u32, u64> = HashMap::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                sample(root, &mut peaks);
                std::thread::park_timeout(SAMPLE_EVERY);
            }
            peaks.values().sum::<u64>()
        });
        let status = child.wait();
        let wall = start.elapsed();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        sampler.thread().unpark();
        (status, wall, sampler.join().expect("the sampler does not panic"))
    });
    let status = status.map_err(io("wait for", &program))?;
    let cpu_seconds = children_cpu_seconds()? - cpu_before;

    if !status.success() {
        let stderr = text(&mut stderr).map_err(io("read", &program))?;
        let from = stderr.ceil_char_boundary(stderr.len().saturating_sub(STDERR_BYTES_MAX));
        return Err(BenchError::Command {
            command: line(command),
            status: status.to_string(),
            stderr: stderr[from..].trim().to_owned(),
        });
    }
    let stdout = text(&mut stdout).map_err(io("read", &program))?;
    Ok((
        Cost {
            wall_seconds: wall.as_secs_f64(),
            sync_seconds: 0.0,
            cpu_seconds,
            memory_bytes,
        },
        stdout,
    ))
}

/// A command as one would type it, without its environment.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn text(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Notes the high-water mark of a process and of all it started.
fn sample(process: u32, peaks: &mut HashMap<u32, u64>) {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else {
        return;
    };
    if let Some(peak) = high_water_bytes(&status) {
        let known = peaks.entry(process).or_default();
        *known = peak.max(*known);
    }
    // Any thread may have started a child.
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return;
    };
    for thread in threads.flatten() {
        let Ok(children) = std::fs::read_to_string(thread.path().join("children")) else {
            continue;
        };
        for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
            sample(child, peaks);
        }
    }
}

/// The `VmHWM` line of `/proc/PID/status`, in bytes.
fn high_water_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// User and system time of all children waited for so far.
fn children_cpu_seconds() -> Result<f64, BenchError> {
    let path = Path::new("/proc/self/stat");
    let stat = std::fs::read_to_string(path).map_err(io("read", path))?;
    Ok(waited_ticks(&stat).unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `cutime` + `cstime` of `/proc/PID/stat` (proc(5), fields 16 and 17).
fn waited_ticks(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses, which may hold anything: count from its end.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    Some(fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn output_and_memory_of_a_command_and_of_its_children_are_seen() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "sh -c 'x=$(head -c 20000000 /dev/zero | tr \"\\0\" x); sleep 0.2; echo ${#x}'; :",
        ]);
        let (cost, stdout) = run(&mut command).unwrap();
        assert_eq!(stdout, "20000000\n");
        assert!(cost.memory_bytes > 20_000_000, "{cost:?}");
        assert!(cost.wall_seconds >= 0.2, "{cost:?}");
    }

    #[test]
    fn a_failing_command_is_an_error_that_quotes_it() {
        let error = run(Command::new("sh").args(["-c", "echo no such repository >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("no such repository"),
            "{text}"
        );
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 130 14 15";
        assert_eq!(waited_ticks(stat), Some(130 + 14));
        assert_eq!(waited_ticks(""), None);
    }
}
