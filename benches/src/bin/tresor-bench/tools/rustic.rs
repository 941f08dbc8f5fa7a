//! rustic, which writes restic's format.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PASSPHRASE, Tool, below};
use crate::workload::{Day, Disk};

pub(crate) struct Rustic {
    version: String,
}

impl Rustic {
    pub(crate) fn new(version: String) -> Self {
        Self { version }
    }
}

fn rustic(repository: &Path) -> Command {
    let mut command = Command::new("rustic");
    command
        .env("RUSTIC_PASSWORD", PASSPHRASE)
        .args(["--no-progress", "--no-cache", "--log-level", "warn"]);
    command.arg("--repository").arg(repository);
    command
}

impl Tool for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn settings(&self) -> &str {
        "zstd level 1, `--no-cache`, backup `--force`"
    }

    fn init(&self, repository: &Path) -> Vec<Command> {
        let mut command = rustic(repository);
        command.args(["init", "--set-compression", "1"]);
        vec![command]
    }

    fn backup(&self, repository: &Path, day: &Day, _title: &str) -> Command {
        let mut command = rustic(repository);
        command.args(["backup", "--force"]);
        command.args(day.disks.iter().map(|disk| &disk.path));
        command
    }

    fn restore(&self, repository: &Path, _day: &Day, to: &Path) -> Command {
        let mut command = rustic(repository);
        command.args(["restore", "latest"]).arg(to);
        command
    }

    fn restored(&self, to: &Path, disk: &Disk) -> PathBuf {
        below(to, &disk.path)
    }

    fn store(&self, repository: &Path) -> PathBuf {
        repository.to_owned()
    }
}
