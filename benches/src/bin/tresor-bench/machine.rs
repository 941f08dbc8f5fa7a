//! What machine this is, for the report.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

/// The machine and the moment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) system: String,
    pub(crate) file_system: String,
    /// Load average at the end: over the cores, something else ran too.
    pub(crate) load: String,
    /// The commit of the project that was measured.
    pub(crate) commit: String,
    /// UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    pub(crate) time: String,
}

/// Describes this machine and the file system of `work`. What can't be found out is empty.
pub(crate) fn describe(work: &Path) -> Machine {
    let cpuinfo = read("/proc/cpuinfo");
    let meminfo = read("/proc/meminfo");
    Machine {
        processor: field(&cpuinfo, "model name", ':'),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: field(&meminfo, "MemTotal", ':')
            .trim_end_matches(" kB")
            .parse::<u64>()
            .unwrap_or(0)
            * 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        system: field(&read("/etc/os-release"), "PRETTY_NAME", '=')
            .trim_matches('"')
            .to_owned(),
        file_system: output(Command::new("df").args(["--output=fstype"]).arg(work))
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned(),
        load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        commit: output(Command::new("git").args(["describe", "--always", "--dirty"])),
        time: output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line that begins with `key`.
fn field(text: &str, key: &str, separator: char) -> String {
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_once(separator)
        .map_or("", |(_, value)| value)
        .trim()
        .to_owned()
}

fn output(command: &mut Command) -> String {
    match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => String::new(),
    }
}
