//! Logs of attempts, as their workers reported them.
//!
//! Their bytes are rows on the disk alone: a log of every attempt of a hundred thousand jobs would be more than all the rest of the state. The log of
//! entries carries them to every member, snapshots carry them on, and in memory there is only which attempts have one and how large it is. So they are
//! part of what [`State::take_changes`] gives and [`State::load`] takes, and of no other list of rows: a backup of the cluster's state goes without them.
//!
//! A log goes with its attempt: when the job is forgotten, or more attempts were made than are remembered; and the oldest go when all together take more
//! than [`LOGS_BYTES_MAX`], or are more than [`LOGS_MAX`]. Attempts are numbered by the entries that granted their leases, so the lowest number is the
//! oldest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{Epoch, JobId};

use super::State;
use super::entry::Actor;
use super::error::LoadError;
use super::reply::{Refusal, Reply};
use super::table::{ROW_FORM, RowChange, RowKey as _, encode_row};

/// The number of their table. It is none of those in memory.
pub const LOGS_TABLE: u8 = 19;
/// Largest log of an attempt, as it is kept: compressed, that is some hundred lines. An entry of the log carries it, beside those that decide.
pub const LOG_BYTES_MAX: usize = 16 << 10;
/// What all logs may take: sixty thousand of a usual size of 2 KiB. A snapshot carries them, and a start reads past them.
pub const LOGS_BYTES_MAX: u64 = 128 << 20;
/// How many there may be: 30 bytes of memory each.
pub const LOGS_MAX: usize = 200_000;

/// A log on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LogRow {
    /// Whose attempt.
    job: JobId,
    /// As its worker encoded it.
    log: Vec<u8>,
}

/// Which logs there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Logs {
    /// How many bytes each has.
    sizes: BTreeMap<Epoch, u32>,
    /// All of them.
    bytes: u64,
    /// What was not collected yet.
    changes: BTreeMap<Epoch, Option<Vec<u8>>>,
}

/// What was not collected yet is no part of the value.
impl PartialEq for Logs {
    fn eq(&self, other: &Self) -> bool {
        self.sizes == other.sizes
    }
}

impl Logs {
    fn put(&mut self, epoch: Epoch, row: &LogRow) {
        self.note(epoch, row.log.len());
        self.changes.insert(epoch, Some(encode_row(row)));
    }

    fn note(&mut self, epoch: Epoch, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = self.sizes.insert(epoch, bytes).unwrap_or(0);
        self.bytes = self.bytes - u64::from(before) + u64::from(bytes);
    }

    fn remove(&mut self, epoch: Epoch) {
        if let Some(bytes) = self.sizes.remove(&epoch) {
            self.bytes -= u64::from(bytes);
            self.changes.insert(epoch, None);
        }
    }

    pub(super) fn collect_changes(&mut self, changes: &mut Vec<RowChange>) {
        for (epoch, value) in std::mem::take(&mut self.changes) {
            changes.push(RowChange {
                table: LOGS_TABLE,
                key: epoch.0.to_bytes(),
                value,
            });
        }
    }

    /// Takes note of a stored row.
    pub(super) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let (epoch, row) = read(key, value)?;
        self.note(epoch, row.log.len());
        Ok(())
    }
}

fn read(key: &[u8], value: &[u8]) -> Result<(Epoch, LogRow), LoadError> {
    let bad = |why: String| LoadError::Row { table: LOGS_TABLE, why };
    let epoch = u64::from_bytes(key).ok_or_else(|| bad(String::from("its key is none of this table")))?;
    let (form, rest) = value.split_first().ok_or_else(|| bad(String::from("it is empty")))?;
    if *form != ROW_FORM {
        return Err(LoadError::Form {
            table: LOGS_TABLE,
            form: *form,
        });
    }
    let (row, left) = postcard::take_from_bytes(rest).map_err(|error| bad(error.to_string()))?;
    match left {
        [] => Ok((Epoch(epoch), row)),
        _ => Err(bad(String::from("bytes follow it"))),
    }
}

/// Where the log of an attempt stands among the rows of a member: table and key.
pub fn place(epoch: Epoch) -> (u8, Vec<u8>) {
    (LOGS_TABLE, epoch.0.to_bytes())
}

/// The log of a row that was found at [`place`], as its worker encoded it.
///
/// # Errors
/// [`LoadError`] for a row that this program cannot read.
pub fn log_of(epoch: Epoch, row: &[u8]) -> Result<Vec<u8>, LoadError> {
    Ok(read(&epoch.0.to_bytes(), row)?.1.log)
}

impl State {
    /// Whether the log of an attempt is kept.
    pub fn has_log(&self, epoch: Epoch) -> bool {
        self.logs.sizes.contains_key(&epoch)
    }

    /// The oldest attempt whose log is kept.
    pub fn oldest_log(&self) -> Option<Epoch> {
        self.logs.sizes.keys().next().copied()
    }

    /// How many logs are kept, and how many bytes they have.
    pub fn logs_count(&self) -> (usize, u64) {
        (self.logs.sizes.len(), self.logs.bytes)
    }

    /// Keeps what a worker logged of an attempt of its own. The attempt may have ended; then how does not matter.
    pub(super) fn keep_log(&mut self, actor: &Actor, id: JobId, epoch: Epoch, log: &[u8]) -> Result<Reply, Refusal> {
        let job = self.job(id)?;
        let Some(attempt) = job.attempts.iter().find(|attempt| attempt.epoch == epoch) else {
            return Err(Refusal::missing("attempt", epoch));
        };
        Self::check_speaker(actor, attempt)?;
        if log.is_empty() || log.len() > LOG_BYTES_MAX {
            return Err(Refusal::invalid(
                "log",
                format!("has between 1 and {LOG_BYTES_MAX} bytes"),
            ));
        }
        let row = LogRow {
            job: id,
            log: log.to_vec(),
        };
        self.logs.put(epoch, &row);
        self.trim_logs();
        Ok(Reply::Done)
    }

    /// Removes the oldest while there are too many, or they are too large.
    fn trim_logs(&mut self) {
        while self.logs.bytes > LOGS_BYTES_MAX || self.logs.sizes.len() > LOGS_MAX {
            let Some(oldest) = self.oldest_log() else {
                return;
            };
            self.logs.remove(oldest);
        }
    }

    pub(super) fn drop_log(&mut self, epoch: Epoch) {
        self.logs.remove(epoch);
    }

    /// Checks what must hold of them.
    pub(super) fn check_logs(&self) -> Result<(), String> {
        let sum: u64 = self.logs.sizes.values().map(|bytes| u64::from(*bytes)).sum();
        if sum != self.logs.bytes {
            return Err(format!("logs have {sum} bytes, and {} are counted", self.logs.bytes));
        }
        if sum > LOGS_BYTES_MAX || self.logs.sizes.len() > LOGS_MAX {
            return Err(format!("{} logs with {sum} bytes are kept", self.logs.sizes.len()));
        }
        let attempts = self.jobs.values().flat_map(|job| &job.attempts);
        let known = attempts.filter(|attempt| self.has_log(attempt.epoch)).count();
        if known != self.logs.sizes.len() {
            return Err(format!(
                "{} logs are kept, and {known} attempts have one",
                self.logs.sizes.len()
            ));
        }
        Ok(())
    }
}
