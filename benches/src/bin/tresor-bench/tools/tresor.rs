//! Tresor with its defaults: the vault `main` of a home of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{Said, Tool};
use crate::error::BenchError;
use crate::workload::{Day, Disk};

const ITEM: &str = "vms";

pub(crate) struct Tresor {
    program: PathBuf,
    version: String,
}

impl Tresor {
    pub(crate) fn new(program: &Path, version: String) -> Self {
        Self {
            program: program.to_owned(),
            version,
        }
    }

    fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(home);
        for name in ["TRESOR_HOME", "TRESOR_CLUSTER"] {
            command.env_remove(name);
        }
        command
    }
}

impl Tool for Tresor {
    fn name(&self) -> &'static str {
        "tresor"
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn settings(&self) -> &str {
        "defaults"
    }

    fn init(&self, _repository: &Path) -> Vec<Command> {
        Vec::new() // the first backup makes its vault
    }

    fn backup(&self, repository: &Path, day: &Day, _title: &str) -> Command {
        let mut command = self.command(repository);
        command.arg("backup");
        for disk in &day.disks {
            command.arg(format!("{}={}", disk.name, disk.path.display()));
        }
        command.args(["--item", ITEM, "--json"]);
        command
    }

    fn restore(&self, repository: &Path, _day: &Day, to: &Path) -> Command {
        let mut command = self.command(repository);
        command
            .args(["restore", ITEM, "--format", "raw", "--json", "--to"])
            .arg(to.join("disks"));
        command
    }

    fn restored(&self, to: &Path, disk: &Disk) -> PathBuf {
        to.join("disks").join(&disk.name).with_extension("raw")
    }

    fn store(&self, repository: &Path) -> PathBuf {
        repository.join("stores")
    }

    fn said(&self, stdout: &str) -> Result<Option<Said>, BenchError> {
        #[derive(Deserialize)]
        struct Backup {
            bytes_new: u64,
            requests: Requests,
        }
        #[derive(Deserialize)]
        struct Requests {
            put: u64,
            list: u64,
        }
        let backup: Backup = serde_json::from_str(stdout).map_err(|source| BenchError::Output {
            tool: self.name().to_owned(),
            source,
        })?;
        Ok(Some(Said {
            bytes_new: backup.bytes_new,
            puts: backup.requests.put,
            lists: backup.requests.list,
        }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_documented_report_of_a_backup_is_understood() {
        let tresor = Tresor::new(Path::new("tresor"), String::new());
        let stdout = r#"{"point":"0f","item":"vms","vault":"main","consistency":"crash","disks":[{"name":"web","size":1,"root":"aa"}],
            "bytes_read":5,"bytes_new":4,"bytes_stored":3,"chunks_new":2,"chunks_known":1,
            "requests":{"put":9,"get":8,"head":7,"list":6,"delete":0},"elapsed_ms":12}"#;
        assert_eq!(
            tresor.said(stdout).unwrap(),
            Some(Said {
                bytes_new: 4,
                puts: 9,
                lists: 6
            })
        );
        assert!(tresor.said("point 0f").is_err());
    }
}
