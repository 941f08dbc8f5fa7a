//! What the rows of the state hold.

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{Epoch, ItemId, JobId, PointId, SessionId, VaultId, WorkerId};

use super::command::{Consistency, Counts, Failure, ItemSpec, JobSpec, PolicySpec, VaultClaim, VaultSpec, WorkerFacts};
use super::entry::{Actor, IdempotencyKey, Time};
use super::reply::Reply;
use super::subject::Subject;

/// What a cluster is for life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// In every certificate.
    pub id: [u8; 16],
    /// For people.
    pub name: String,
    /// The authority's certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// The authority's key, wrapped by the cluster key.
    pub ca_key: Vec<u8>,
    /// When it was made.
    pub created: Time,
}

/// What changes with nearly every entry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Marks {
    /// The newest entry that was applied.
    pub applied: u64,
    /// The cluster's clock.
    pub now: Time,
    /// Entries up to this form may be written.
    pub form: u16,
    /// By how much the leader's clock stepped, milliseconds, where nobody has looked at it yet: nothing expires until somebody does. As far as no clock
    /// steps ([`FOUNDED_AGAIN`](super::FOUNDED_AGAIN)) where the cluster began again.
    pub expiry_stopped: Option<i64>,
    /// The newest grant of slots.
    pub slot_map: u64,
    /// The sweep in which sessions start.
    pub sweep_epoch: u64,
    /// The number of the next audit entry.
    pub audit_next: u64,
    /// The hash of the newest audit entry.
    pub audit_head: [u8; 32],
    /// The number of the next remembered answer.
    pub answers_next: u64,
    /// The newest entry after which other vaults are claimed, or are there, than before.
    pub vaults: u64,
    /// The newest entry that removed a worker.
    pub removals: u64,
}

impl Marks {
    /// Whether a person has yet to say that the clock is right. A cluster that began again expires nothing either, but trusts its clock.
    pub fn clock_is_doubted(&self) -> bool {
        self.expiry_stopped.is_some_and(|step| step != super::FOUNDED_AGAIN)
    }
}

/// A coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// For people.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Since when.
    pub joined: Time,
    /// Gone for good: its certificate is refused.
    pub removed: bool,
}

/// How far a vault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VaultState {
    /// A worker has yet to make or claim it.
    Claiming,
    /// It is claimed for this cluster.
    Ready(VaultClaim),
    /// It is being forgotten, in pieces: whoever leads repeats [`Command::RemoveVault`](super::command::Command::RemoveVault) until it is done.
    Removing,
}

/// A vault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vault {
    /// As it was asked for.
    pub spec: VaultSpec,
    /// How far it is.
    pub state: VaultState,
    /// Its newest findings: the log index that reported them; 0: none.
    pub findings: u64,
    /// When its newest catalogue was put, and the session that put it: it says what held when that began, at the least.
    pub catalogue: Option<(Time, SessionId)>,
    /// The log index of the newest change that a catalogue is to say: points came, went, were hidden, held or renamed.
    pub changed: u64,
    /// The newest verify of all of it that ended.
    pub verified: Option<Verified>,
    /// All bytes put by finished jobs.
    pub bytes_stored: u64,
    /// Since when it is known.
    pub added: Time,
}

/// A verify of a whole vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When it ended.
    pub at: Time,
    /// Its job.
    pub job: JobId,
    /// Things that it found wrong.
    pub findings: u64,
}

impl Vault {
    /// Whether something changed since the newest catalogue began. A session's number is the log index that opened it, and who encodes for the
    /// session has applied that: so what is older is in the catalogue, and what is newer may not be.
    pub fn catalogue_is_behind(&self) -> bool {
        self.changed > self.catalogue.map_or(0, |(_, session)| session.0)
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// What it says.
    pub spec: PolicySpec,
    /// The log index that set it: another one means another text.
    pub version: u64,
    /// Since when its present schedule holds: earlier occurrences of it are never caught up, and spans of the schedule are counted from here.
    pub since: Time,
}

/// A failure and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedAt {
    /// When.
    pub time: Time,
    /// Why.
    pub failure: Failure,
    /// Of which job.
    pub job: JobId,
}

/// A protected machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub spec: ItemSpec,
    /// The log index that set it: another one means that somebody changed it.
    pub version: u64,
    /// Whether it is backed up; else only its points are left.
    pub protected: bool,
    /// Since when it is protected under its present policy. Nothing older is caught up, nor what is older than the policy's schedule:
    /// [`State::due_since`](super::State::due_since).
    pub since: Time,
    /// The newest occurrence of its schedule that became a job.
    pub last_occurrence: Option<Time>,
    /// When its last good backup ended.
    pub last_success: Option<Time>,
    /// Jobs that failed in a row.
    pub failures: u32,
    /// The last of them.
    pub last_failure: Option<FailedAt>,
}

/// A recovery point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its item.
    pub item: ItemId,
    /// When its disks were read.
    pub time: Time,
    /// Until when it is to be kept whatever retention says.
    pub keep_until: Option<Time>,
    /// BLAKE3 of its manifest.
    pub manifest: [u8; 32],
    /// How consistent.
    pub consistency: Consistency,
    /// When it was hidden.
    pub hidden: Option<Time>,
    /// Why it is held, if it is.
    pub held: Option<Box<str>>,
    /// Damage was found that harms it.
    pub harmed: bool,
}

/// A point that is given up: its manifest is to be deleted before what only it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Its vault.
    pub vault: VaultId,
    /// Its item.
    pub item: ItemId,
    /// When.
    pub at: Time,
}

/// One try at a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// By whom.
    pub worker: WorkerId,
    /// The life of the worker that has it.
    pub life: [u8; 16],
    /// Its fence.
    pub epoch: Epoch,
    /// Its session.
    pub session: SessionId,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Waits, not before this.
    Queued {
        /// When it may begin.
        not_before: Time,
    },
    /// Its newest attempt runs.
    Leased,
    /// Done.
    Done {
        /// The point that it made, if it made one.
        point: Option<PointId>,
    },
    /// Failed for good.
    Failed,
    /// Nobody wants it any more.
    Cancelled,
}

impl JobState {
    /// Whether it has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed | Self::Cancelled)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What was asked.
    pub spec: JobSpec,
    /// By whom.
    pub by: Actor,
    /// When.
    pub created: Time,
    /// How far it is.
    pub state: JobState,
    /// The newest attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// How many there were in all.
    pub attempts_made: u32,
    /// Nobody wants it any more, and its attempt is to end.
    pub cancel_requested: bool,
    /// Why it failed, where no attempt of it did.
    pub failure: Option<Failure>,
    /// When it ended.
    pub ended: Option<Time>,
    /// What it took.
    pub counts: Counts,
    /// Things that its verify found wrong, those that harm no point among them.
    pub findings: u64,
}

impl Job {
    /// The attempt that runs.
    pub fn running(&self) -> Option<&Attempt> {
        match self.state {
            JobState::Leased => self.attempts.last(),
            _ => None,
        }
    }
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Since when.
    pub joined: Time,
    /// The life that registered last; none: never.
    pub life: Option<[u8; 16]>,
    /// What it can do.
    pub facts: WorkerFacts,
    /// Gets no new leases.
    pub drained: bool,
    /// Gone for good: its certificate is refused.
    pub removed: bool,
    /// The life that used the databases of its slots last, as its present life found them.
    pub kept_life: Option<[u8; 16]>,
}

/// An open session. One that has ended has no row: whatever it still sends is refused for ever, since its number is not used again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// In which vault.
    pub vault: VaultId,
    /// Of which job.
    pub job: JobId,
    /// Under which lease.
    pub epoch: Epoch,
    /// The sweep at its opening.
    pub start_epoch: u64,
    /// Points that stay meanwhile.
    pub pins: Vec<PointId>,
    /// Whether it writes.
    pub writes: bool,
}

/// A slot of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its owner.
    pub worker: WorkerId,
    /// The life of the owner that it was granted to.
    pub life: [u8; 16],
    /// The log index that granted it.
    pub owner_epoch: u64,
    /// The sweep at the grant: touches below it are not known.
    pub floor_epoch: u64,
    /// The first grant since which this worker has had the slot without a break, with a database that was whole at every restart.
    pub since: u64,
    /// A session that ended said that it lacks entries: it is granted again, to begin afresh.
    pub lacks: bool,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenUse {
    /// A person or a program.
    Api {
        /// Its role.
        role: String,
    },
    /// Nodes that join.
    Join {
        /// As what.
        role: String,
        /// How often still.
        uses: u32,
    },
}

/// A token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// For people.
    pub name: String,
    /// What for.
    pub used_for: TokenUse,
    /// Hash of the secret.
    pub hash: [u8; 32],
    /// When it was made.
    pub created: Time,
    /// Until when it is good; none: until revoked.
    pub expires: Option<Time>,
    /// Whether it was ended.
    pub revoked: bool,
}

/// An entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audited {
    /// When.
    pub time: Time,
    /// Who.
    pub actor: Actor,
    /// Did what.
    pub action: String,
    /// To what.
    pub object: String,
    /// `done`, or why it was refused.
    pub outcome: String,
    /// The hash of the entry before.
    pub previous: [u8; 32],
    /// The hash of this one.
    pub hash: [u8; 32],
}

/// The answer to a change that may be sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Its key.
    pub key: IdempotencyKey,
    /// Its kind: [`Command::kind`](super::command::Command::kind).
    pub kind: u8,
    /// When it was made.
    pub at: Time,
    /// The answer.
    pub reply: Reply,
    /// What it was about.
    pub about: Subject,
}
