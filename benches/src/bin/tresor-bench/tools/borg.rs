//! borg, with the settings that are fastest for disk images: HMAC-SHA256 (`repokey`) is a third faster than BLAKE2b where
//! the processor has SHA instructions.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PASSPHRASE, Tool, below};
use crate::workload::{Day, Disk};

pub(crate) struct Borg {
    version: String,
}

impl Borg {
    pub(crate) fn new(version: String) -> Self {
        Self { version }
    }
}

fn borg(repository: &Path) -> Command {
    let mut command = Command::new("borg");
    command.env("BORG_PASSPHRASE", PASSPHRASE);
    // Its index of chunks and its record of known repositories, made and removed with the repository.
    command.env("BORG_BASE_DIR", repository.with_extension("base"));
    command.env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
    command
}

/// `REPOSITORY::ARCHIVE`.
fn archive(repository: &Path, title: &str) -> String {
    format!("{}::{title}", repository.display())
}

impl Tool for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn settings(&self) -> &str {
        "`--encryption repokey`, create `--chunker-params fixed,4194304 --sparse --compression zstd,1 --files-cache disabled`, extract `--sparse`"
    }

    fn init(&self, repository: &Path) -> Vec<Command> {
        let mut command = borg(repository);
        command.args(["init", "--encryption", "repokey"]).arg(repository);
        vec![command]
    }

    fn backup(&self, repository: &Path, day: &Day, title: &str) -> Command {
        let mut command = borg(repository);
        command.args([
            "create",
            "--chunker-params",
            "fixed,4194304",
            "--sparse",
            "--compression",
            "zstd,1",
        ]);
        command
            .args(["--files-cache", "disabled"])
            .arg(archive(repository, title));
        command.args(day.disks.iter().map(|disk| &disk.path));
        command
    }

    fn restore(&self, repository: &Path, _day: &Day, to: &Path) -> Command {
        let mut command = borg(repository);
        command
            .current_dir(to)
            .args(["extract", "--sparse"])
            .arg(archive(repository, "day2"));
        command
    }

    fn restored(&self, to: &Path, disk: &Disk) -> PathBuf {
        below(to, &disk.path)
    }

    fn store(&self, repository: &Path) -> PathBuf {
        repository.to_owned()
    }
}
