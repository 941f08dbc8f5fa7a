//! restic. Options that came with later versions are used where the installed one has them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PASSPHRASE, Tool, answer, below, help};
use crate::workload::{Day, Disk};

pub(crate) struct Restic {
    version: String,
    settings: String,
    /// `restore --sparse`: since 0.15.
    sparse: bool,
    /// `backup --no-scan`: since 0.15.
    no_scan: bool,
}

impl Restic {
    pub(crate) fn find() -> Option<Self> {
        let version = answer(Command::new("restic").arg("version"))?;
        let sparse = help(Command::new("restic").args(["restore", "--help"])).contains("--sparse");
        let no_scan = help(Command::new("restic").args(["backup", "--help"])).contains("--no-scan");
        let mut settings = String::from("repository version 2, `--compression auto --no-cache`, backup `--force`");
        if no_scan {
            settings.push_str(" `--no-scan`");
        }
        settings.push_str(if sparse {
            ", restore `--sparse`"
        } else {
            ", restore (this version has no `--sparse`)"
        });
        Some(Self {
            version,
            settings,
            sparse,
            no_scan,
        })
    }
}

fn restic(repository: &Path) -> Command {
    let mut command = Command::new("restic");
    command
        .env("RESTIC_PASSWORD", PASSPHRASE)
        .arg("--quiet")
        .arg("--no-cache")
        .arg("--repo")
        .arg(repository);
    command
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn settings(&self) -> &str {
        &self.settings
    }

    fn init(&self, repository: &Path) -> Vec<Command> {
        let mut command = restic(repository);
        command.args(["init", "--repository-version", "2"]);
        vec![command]
    }

    fn backup(&self, repository: &Path, day: &Day, _title: &str) -> Command {
        let mut command = restic(repository);
        command.args(["--compression", "auto", "backup", "--force"]);
        if self.no_scan {
            command.arg("--no-scan");
        }
        command.args(day.disks.iter().map(|disk| &disk.path));
        command
    }

    fn restore(&self, repository: &Path, _day: &Day, to: &Path) -> Command {
        let mut command = restic(repository);
        command.args(["restore", "latest"]);
        if self.sparse {
            command.arg("--sparse");
        }
        command.arg("--target").arg(to);
        command
    }

    fn restored(&self, to: &Path, disk: &Disk) -> PathBuf {
        below(to, &disk.path)
    }

    fn store(&self, repository: &Path) -> PathBuf {
        repository.to_owned()
    }
}
