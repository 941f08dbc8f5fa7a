//! What can go wrong with a store.

use tresor_proto::ids::{MemberId, hex};

/// Why a store cannot be opened, read or written. After an error of a write the store takes no further ones: open it again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. Nothing that was acknowledged is lost.
    #[error("no space left to {what}")]
    Full {
        /// `write to the log`, …
        what: &'static str,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk or the database failed.
    #[error("could not {what}")]
    Disk {
        /// `write to the log`, …
        what: &'static str,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has it open.
    #[error("the store is in use by another process")]
    Locked,
    /// There is none here.
    #[error("there is no store here")]
    Missing,
    /// There is one here already.
    #[error("there is a store of member {node} here already")]
    Exists {
        /// Whose.
        node: MemberId,
    },
    /// It was written by a program that knows another format.
    #[error("the store has format {found}, this program reads {known}")]
    Version {
        /// What the stamp says.
        found: u32,
        /// What this program writes.
        known: u32,
    },
    /// It belongs to another member.
    #[error("the store belongs to member {found}, not {expected}")]
    ForeignMember {
        /// Whose it is.
        found: MemberId,
        /// Who opened it.
        expected: MemberId,
    },
    /// It belongs to another cluster.
    #[error("the store belongs to cluster {}, not {}", hex(.found), hex(.expected))]
    ForeignCluster {
        /// Its cluster.
        found: [u8; 16],
        /// The cluster of who opened it.
        expected: [u8; 16],
    },
    /// Bytes are not what was written.
    #[error("{what} is damaged: {why}")]
    Corrupt {
        /// `entry 17 of the log`, `the vote`, …
        what: String,
        /// How that shows.
        why: &'static str,
    },
    /// The database says that its files are damaged.
    #[error("the database is damaged")]
    Damaged {
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Entries are missing in the middle.
    #[error("the log lacks entry {missing}; the next one is {next}")]
    Gap {
        /// The first that is not there.
        missing: u64,
        /// What came instead.
        next: u64,
    },
    /// Applied rows run ahead of what is known to be committed.
    #[error("rows are applied up to entry {applied}, but only {commit} is committed")]
    AppliedPastCommit {
        /// The last entry whose rows are there.
        applied: u64,
        /// The last entry known to be committed.
        commit: u64,
    },
    /// What is known to be committed is not there.
    #[error("entry {commit} is committed, but the log ends at {last}")]
    CommitPastLog {
        /// The last entry known to be committed.
        commit: u64,
        /// The last entry.
        last: u64,
    },
    /// A row or entry is larger than its bound.
    #[error("{what} has {bytes} bytes, {max} are allowed")]
    TooLarge {
        /// `a row's key`, …
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The caller's order of calls was wrong: a bug, caught before anything was written.
    #[error("refused to write: {what}")]
    Order {
        /// Which rule would be broken.
        what: &'static str,
    },
    /// An earlier write failed, so what is on the disk is unknown.
    #[error("an earlier write failed; the store must be opened again")]
    Failed,
    /// A snapshot's bytes are not what its sender read.
    #[error("the snapshot is not whole: {why}")]
    Snapshot {
        /// What differs.
        why: &'static str,
    },
}

impl StoreError {
    pub(crate) fn corrupt(what: impl Into<String>, why: &'static str) -> Self {
        Self::Corrupt { what: what.into(), why }
    }
}
