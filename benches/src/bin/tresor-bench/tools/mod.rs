//! What each tool is asked to do. Every one encrypts, compresses, writes to a local repository and reads all data again
//! for an unchanged disk, so that nothing rests on file times.

mod borg;
mod restic;
mod rustic;
mod tresor;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::error::BenchError;
use crate::measure;
use crate::workload::{Day, Disk};

/// The passphrase of every repository here; they live for minutes.
const PASSPHRASE: &str = "benchmark";

/// A backup tool, with its settings for the comparison.
pub(crate) trait Tool {
    /// Its command's name.
    fn name(&self) -> &'static str;

    /// What it says of its version.
    fn version(&self) -> &str;

    /// The settings, for the report.
    fn settings(&self) -> &str;

    /// Commands that make the repository, run before anything is timed.
    fn init(&self, repository: &Path) -> Vec<Command>;

    /// One backup of all disks of a day, that reads everything.
    fn backup(&self, repository: &Path, day: &Day, title: &str) -> Command;

    /// Restores the newest backup, which is of `day` and has the title `day2`, into the empty folder `to`.
    fn restore(&self, repository: &Path, day: &Day, to: &Path) -> Command;

    /// Where `restore` leaves a disk.
    fn restored(&self, to: &Path, disk: &Disk) -> PathBuf;

    /// The folder whose files are what the repository stores.
    fn store(&self, repository: &Path) -> PathBuf;

    /// What the tool itself says of a backup, from its standard output.
    fn said(&self, _stdout: &str) -> Result<Option<Said>, BenchError> {
        Ok(None)
    }
}

/// The tools of one comparison.
pub(crate) type Tools = Vec<Box<dyn Tool>>;

/// What a tool says of one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Said {
    /// Bytes of plaintext that were not known before.
    pub(crate) bytes_new: u64,
    /// Objects put.
    pub(crate) puts: u64,
    /// Lists of objects.
    pub(crate) lists: u64,
}

/// The tools of `wanted` that answer, and the names of those that don't.
pub(crate) fn installed(wanted: &[String], tresor: &Path) -> Result<(Tools, Vec<String>), BenchError> {
    let (mut tools, mut missing) = (Tools::new(), Vec::new());
    for name in wanted {
        let tool: Option<Box<dyn Tool>> = match name.as_str() {
            "tresor" => answer(Command::new(tresor).arg("--version"))
                .map(|version| Box::new(tresor::Tresor::new(tresor, version)) as Box<dyn Tool>),
            "restic" => restic::Restic::find().map(|tool| Box::new(tool) as Box<dyn Tool>),
            "borg" => answer(Command::new("borg").arg("--version"))
                .map(|version| Box::new(borg::Borg::new(version)) as Box<dyn Tool>),
            "rustic" => answer(Command::new("rustic").arg("--version"))
                .map(|version| Box::new(rustic::Rustic::new(version)) as Box<dyn Tool>),
            other => return Err(BenchError::UnknownTool(other.to_owned())),
        };
        match tool {
            Some(tool) => tools.push(tool),
            None => missing.push(name.clone()),
        }
    }
    Ok((tools, missing))
}

/// The first line that a command prints; `None` when it is not there or fails.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
}

/// Everything a command prints as help, on either stream.
fn help(command: &mut Command) -> String {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        Err(_) => String::new(),
    }
}

/// Runs a tool's `init` commands.
pub(crate) fn init(tool: &dyn Tool, repository: &Path) -> Result<(), BenchError> {
    for mut command in tool.init(repository) {
        measure::run(&mut command)?;
    }
    Ok(())
}

/// A path below `to` as tools restore it that keep absolute paths.
fn below(to: &Path, absolute: &Path) -> PathBuf {
    to.join(absolute.strip_prefix("/").unwrap_or(absolute))
}
