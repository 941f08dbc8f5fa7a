//! Everything that may be asked of the state. Commands hold values only: what was drawn at random, computed or read from a clock was done by
//! who proposed them.
//!
//! New variants and tables are added at the end, and what an old one means never changes: logs and rows of older programs stay readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{Epoch, ItemId, JobId, MemberId, PointId, PolicyId, SessionId, TokenId, VaultId, WorkerId};

use super::channels::{ChannelSpec, SendOutcome, Telling};
use super::entry::Time;
use super::limits::{LimitRule, LimitSubject};

pub use super::admission::{ApiTokenSpec, JoinTokenSpec, WorkerFacts, WorkerSpec};

/// A request to change the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first: makes the cluster.
    Found(Founding),
    /// From here on entries of this form may be written. Proposed by a leader that knows the form and has found that every member does: one that does
    /// not stops at the first entry of it.
    RaiseVersion {
        /// The form.
        to: u16,
    },
    /// The leader's wall clock stepped by more than an hour: retention and every expiry stop.
    StopExpiry {
        /// By how much it stepped, milliseconds.
        step: i64,
    },
    /// A person looked at the clocks: expiry goes on.
    ConfirmClock,
    /// A coordinator was given a number and a certificate.
    AddMember(MemberSpec),
    /// A coordinator is gone for good; its number is refused from here on.
    RemoveMember {
        /// Its number.
        member: MemberId,
    },

    /// Enters a vault; a worker will make or claim it.
    AddVault(VaultSpec),
    /// Forgets a vault that no item uses, and what is known of its points. Its objects stay. Answers with how many points and items went while there are
    /// more: then it is to be asked again.
    RemoveVault {
        /// The vault.
        vault: VaultId,
    },
    /// Makes a policy.
    CreatePolicy {
        /// Drawn by who proposes.
        policy: PolicyId,
        /// What it says, checked.
        spec: PolicySpec,
    },
    /// Changes a policy as a whole.
    UpdatePolicy {
        /// The policy.
        policy: PolicyId,
        /// The version that was read; another now refuses. 0: whatever it is.
        version: u64,
        /// What it says, checked.
        spec: PolicySpec,
    },
    /// Removes a policy that no item uses.
    RemovePolicy {
        /// The policy.
        policy: PolicyId,
    },
    /// Protects a machine.
    Protect {
        /// Drawn by who proposes.
        item: ItemId,
        /// What it is.
        spec: ItemSpec,
        /// Also if a machine of that name is protected in another vault.
        also: bool,
    },
    /// Changes an item as a whole. Of one that is not protected any more, the policy.
    UpdateItem {
        /// The item.
        item: ItemId,
        /// The version that was read; another now refuses. 0: whatever it is.
        version: u64,
        /// What it is.
        spec: ItemSpec,
    },
    /// No more backups of it; its points stay as their retention says.
    Unprotect {
        /// The item.
        item: ItemId,
    },

    /// Keeps a point whatever retention says, until released.
    Hold {
        /// The point.
        point: PointId,
        /// Why, for people.
        reason: String,
    },
    /// Ends a hold.
    Release {
        /// The point.
        point: PointId,
    },
    /// Hides points; each can be shown again until it is finally removed.
    HidePoints {
        /// The points.
        points: Vec<PointId>,
        /// Whether retention did (else a person).
        by_retention: bool,
    },
    /// Shows a hidden point again.
    ShowPoint {
        /// The point.
        point: PointId,
    },
    /// Gives up points whose time to be shown again has passed.
    GiveUpPoints {
        /// The points.
        points: Vec<PointId>,
    },
    /// Enters points found in a vault: of a catalogue, or of a home that the cluster took over.
    AdoptPoints {
        /// The vault.
        vault: VaultId,
        /// The points, with their items' names.
        points: Vec<AdoptedPoint>,
    },

    /// Queues a job.
    Enqueue(JobSpec),
    /// Gives a queued job to a worker: opens its session.
    Lease {
        /// The job.
        job: JobId,
        /// To whom.
        worker: WorkerId,
        /// The worker's life that asked. Another one now refuses.
        life: [u8; 16],
    },
    /// The worker was not heard of in time, or has a new life.
    ExpireLease {
        /// The job.
        job: JobId,
        /// The lease.
        epoch: Epoch,
        /// When it may be tried again; none: it has failed.
        retry_at: Option<Time>,
    },
    /// The attempt is done, and its point, if it made one, counts.
    Complete(Completion),
    /// The attempt failed.
    Fail {
        /// The job.
        job: JobId,
        /// The lease.
        epoch: Epoch,
        /// Why.
        failure: Failure,
        /// When it is tried again; none: the job has failed.
        retry_at: Option<Time>,
    },
    /// Nobody wants the job any more.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// Queues a job that failed or was cancelled once more.
    Retry {
        /// The job.
        job: JobId,
    },

    /// A worker was given a number and a certificate.
    AddWorker(WorkerSpec),
    /// A worker's process has started, and says what it can do.
    Register {
        /// The worker.
        worker: WorkerId,
        /// Drawn by the process: its life.
        life: [u8; 16],
        /// What it can do.
        facts: WorkerFacts,
        /// The life that used the databases of its slots last, when they are as that one left them; none: there are none, or they are in doubt.
        kept_life: Option<[u8; 16]>,
    },
    /// A worker gets no new leases, or gets them again.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// Whether it drains.
        drained: bool,
    },
    /// A worker is gone for good; its number is refused from here on.
    RemoveWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// Gives slots of the index to workers; each grant has a new owner epoch.
    GrantSlots {
        /// The newest grant that was looked at: another one now refuses, so that nothing is granted twice for one reason.
        seen: u64,
        /// Slots and their owners.
        grants: Vec<(u16, WorkerId)>,
    },
    /// Damage was found in a vault: commits that did not look since are refused.
    ReportFindings {
        /// The vault.
        vault: VaultId,
        /// Points that it harms.
        harmed: Vec<PointId>,
    },

    /// Makes a token of a person or a program.
    CreateApiToken(ApiTokenSpec),
    /// Makes a token with which nodes join.
    CreateJoinToken(JoinTokenSpec),
    /// Ends a token of either kind.
    RevokeToken {
        /// The token.
        token: TokenId,
    },
    /// A thing that changes nothing was allowed and is worth remembering (a look at the audit trail, a control-plane backup).
    Note {
        /// What was done.
        action: String,
        /// To what.
        object: String,
    },
    /// Sets a rule of a limit; one of the same windows is replaced.
    SetLimit {
        /// What it binds.
        subject: LimitSubject,
        /// What it says, checked.
        rule: LimitRule,
    },
    /// Removes a limit, or one rule of it.
    RemoveLimit {
        /// What it binds.
        subject: LimitSubject,
        /// Of the rule; none: all rules.
        windows: Option<Vec<String>>,
    },
    /// Makes a channel of notifications.
    AddChannel(ChannelSpec),
    /// Removes a channel, and what waits for it.
    RemoveChannel {
        /// Its name.
        name: String,
    },
    /// Something is told: messages wait to be sent.
    Tell(Telling),
    /// What came of an attempt to send a message.
    NoteSent {
        /// Its number.
        message: u64,
        /// What came of it.
        outcome: SendOutcome,
    },
    /// Keeps what a worker logged of an attempt of its own.
    KeepLog {
        /// The job.
        job: JobId,
        /// The attempt's lease.
        epoch: Epoch,
        /// As the worker encoded it: at most [`LOG_BYTES_MAX`](super::logs::LOG_BYTES_MAX).
        log: Vec<u8>,
    },
}

impl Command {
    /// The number of its kind: the variant's place, as it is encoded.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Found(_) => 0,
            Self::RaiseVersion { .. } => 1,
            Self::StopExpiry { .. } => 2,
            Self::ConfirmClock => 3,
            Self::AddMember(_) => 4,
            Self::RemoveMember { .. } => 5,
            Self::AddVault(_) => 6,
            Self::RemoveVault { .. } => 7,
            Self::CreatePolicy { .. } => 8,
            Self::UpdatePolicy { .. } => 9,
            Self::RemovePolicy { .. } => 10,
            Self::Protect { .. } => 11,
            Self::UpdateItem { .. } => 12,
            Self::Unprotect { .. } => 13,
            Self::Hold { .. } => 14,
            Self::Release { .. } => 15,
            Self::HidePoints { .. } => 16,
            Self::ShowPoint { .. } => 17,
            Self::GiveUpPoints { .. } => 18,
            Self::AdoptPoints { .. } => 19,
            Self::Enqueue(_) => 20,
            Self::Lease { .. } => 21,
            Self::ExpireLease { .. } => 22,
            Self::Complete(_) => 23,
            Self::Fail { .. } => 24,
            Self::Cancel { .. } => 25,
            Self::Retry { .. } => 26,
            Self::AddWorker(_) => 27,
            Self::Register { .. } => 28,
            Self::Drain { .. } => 29,
            Self::RemoveWorker { .. } => 30,
            Self::GrantSlots { .. } => 31,
            Self::ReportFindings { .. } => 32,
            Self::CreateApiToken(_) => 33,
            Self::CreateJoinToken(_) => 34,
            Self::RevokeToken { .. } => 35,
            Self::Note { .. } => 36,
            Self::SetLimit { .. } => 37,
            Self::RemoveLimit { .. } => 38,
            Self::AddChannel(_) => 39,
            Self::RemoveChannel { .. } => 40,
            Self::Tell(_) => 41,
            Self::NoteSent { .. } => 42,
            Self::KeepLog { .. } => 43,
        }
    }
}

/// Kinds of commands of the first form of entries. What came later is of a later form: a member of the version before would stop at it.
const FIRST_KINDS: std::ops::RangeInclusive<u8> = 0..=38;

impl Command {
    /// The form of entries that knows this command.
    pub fn form(&self) -> u16 {
        if FIRST_KINDS.contains(&self.kind()) { 1 } else { 2 }
    }
}

/// How a cluster begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Founding {
    /// Drawn; in every certificate.
    pub cluster: [u8; 16],
    /// For people.
    pub name: String,
    /// The authority's certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// The authority's key, wrapped by the cluster key.
    pub ca_key: Vec<u8>,
    /// The first coordinator.
    pub member: MemberSpec,
    /// The first administrator's token, where one was asked for.
    pub admin: Option<ApiTokenSpec>,
}

/// A coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberSpec {
    /// Its number; 0: the index of the entry.
    pub member: MemberId,
    /// For people.
    pub name: String,
    /// `host:port` where other coordinators and workers reach it.
    pub address: String,
    /// The join token that it showed, used up by this.
    pub token: Option<TokenId>,
}

/// How a vault comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VaultOrigin {
    /// It is made.
    Make,
    /// It is there, and is claimed for this cluster.
    TakeOver,
}

/// A vault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaultSpec {
    /// Drawn by who proposes, or the id of the one that is taken over.
    pub vault: VaultId,
    /// Checked: 2–50 characters.
    pub name: String,
    /// Where it is: one object_store URL without secrets.
    pub url: String,
    /// The store's region label; may be empty.
    pub region: String,
    /// How disks are cut, by the profile's name.
    pub profile: String,
    /// Whether it is made or taken over.
    pub origin: VaultOrigin,
    /// The platform's key of it, wrapped by the cluster key.
    pub key: Vec<u8>,
}

/// What a policy says. The texts were checked by who proposed them, and are read again by who schedules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicySpec {
    /// Its name.
    pub name: String,
    /// When backups are due: `daily 02:00`, …; empty: never by themselves.
    pub schedule: String,
    /// The IANA time zone of the schedule, the windows and the retention.
    pub zone: String,
    /// When backups may run: `mon-fri 20:00-06:00`, …; none: always.
    pub windows: Vec<String>,
    /// Spread of the starts, milliseconds.
    pub jitter: i64,
    /// What is kept: `last 3, daily 7, …`; empty: everything.
    pub retention: String,
    /// Greater goes first. 0 is normal.
    pub priority: i32,
    /// How late a backup may be before it counts as late, milliseconds.
    pub late_after: i64,
}

/// Where one disk is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Its name in the item.
    pub name: String,
    /// Its path on the host.
    pub path: String,
    /// `raw`, `qcow2`, …; empty: by the extension.
    pub format: String,
}

/// A protected machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemSpec {
    /// Its name.
    pub name: String,
    /// Its vault.
    pub vault: VaultId,
    /// Its policy, if it has one.
    pub policy: Option<PolicyId>,
    /// The host (a worker's name) that reaches its disks; empty: any worker that matches the labels.
    pub host: String,
    /// Labels that a worker must have.
    pub worker_labels: BTreeMap<String, String>,
    /// Labels of the item, for people.
    pub labels: BTreeMap<String, String>,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
    /// Disks may change while they are read; points are marked.
    pub allow_live: bool,
    /// Images may have backing files outside of their folder.
    pub allow_backing: bool,
}

/// How consistent a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Consistency {
    /// As after a power cut.
    Crash,
    /// File systems were frozen.
    Filesystem,
    /// Applications were, too.
    Application,
}

/// A point that was in a vault before the cluster knew it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdoptedPoint {
    /// The point.
    pub point: PointId,
    /// Its item.
    pub item: ItemId,
    /// The item's name.
    pub item_name: String,
    /// When it was made.
    pub time: Time,
    /// Until when it is to be kept.
    pub keep_until: Option<Time>,
    /// BLAKE3 of its manifest.
    pub manifest: [u8; 32],
    /// How consistent.
    pub consistency: Consistency,
    /// When it was hidden, if it was.
    pub hidden: Option<Time>,
}

/// Work to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The vault.
    pub vault: VaultId,
    /// What.
    pub work: Work,
    /// Greater goes first. 0 is normal.
    pub priority: i32,
    /// Not before.
    pub not_before: Time,
    /// The occurrence of the item's schedule, if that is why.
    pub occurrence: Option<Time>,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Makes a point.
    Backup {
        /// Of which item.
        item: ItemId,
        /// Until when it is to be kept, if longer than by retention.
        keep_until: Option<Time>,
    },
    /// Writes a point's disks.
    Restore {
        /// Which point.
        point: PointId,
        /// On which worker (its name).
        host: String,
        /// How.
        target: RestoreTarget,
    },
    /// Proves what is stored.
    Verify {
        /// Which point; none: the vault as a whole.
        point: Option<PointId>,
        /// `names`, `checks`, `contents`, `recipes`.
        level: String,
    },
    /// Makes the vault, or claims it.
    Claim,
    /// Puts a checkpoint of what the coordinator knows of the vault.
    Catalogue,
}

/// Where and how a restore writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTarget {
    /// The disk's name; empty: all disks.
    pub disk: String,
    /// A file for one disk, a folder for several.
    pub path: String,
    /// `raw`, `qcow2`, …; empty: by the extension.
    pub format: String,
    /// An existing target is replaced.
    pub overwrite: bool,
    /// An existing target is compared, and only what differs is written.
    pub in_place: bool,
}

/// The end of a good attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The job.
    pub job: JobId,
    /// The lease.
    pub epoch: Epoch,
    /// Its session.
    pub session: SessionId,
    /// What was made.
    pub outcome: Outcome,
}

/// What a good attempt leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// A point whose manifest and all that it needs are durable.
    Backup(CommittedPoint),
    /// Nothing but numbers.
    Done {
        /// What it took.
        counts: Counts,
    },
    /// What a verify found.
    Verified {
        /// What it took.
        counts: Counts,
        /// Points that are harmed.
        harmed: Vec<PointId>,
        /// Things that are wrong, those that harm no point among them.
        findings: u64,
        /// Whether `harmed` names all that are: then what is not named is not harmed, as far as was looked.
        is_all: bool,
    },
    /// The vault is made, or claimed for this cluster.
    Claimed(VaultClaim),
}

/// A point about to count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommittedPoint {
    /// The point.
    pub point: PointId,
    /// When its disks were read.
    pub time: Time,
    /// BLAKE3 of its manifest.
    pub manifest: [u8; 32],
    /// How consistent.
    pub consistency: Consistency,
    /// Slots of the index whose answers it rests on, a bit each; empty: none but the worker's own.
    pub slots: Vec<u8>,
    /// The version of the slot map that those answers stand on.
    pub slot_map: u64,
    /// Slots that did not take what the session inserted, a bit each: they lack entries that the store has.
    pub slots_missing: Vec<u8>,
    /// The newest findings of the vault that the session has looked at.
    pub findings_seen: u64,
    /// What it took.
    pub counts: Counts,
}

/// What an attempt took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Bytes read from disks or the store.
    pub bytes_read: u64,
    /// Plaintext of new chunks, or bytes written to targets.
    pub bytes_new: u64,
    /// Bytes put.
    pub bytes_stored: u64,
    /// Size of the disks.
    pub bytes_logical: u64,
    /// How long, milliseconds.
    pub took: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// Chunks that the parent or the index had.
    pub chunks_known: u64,
    /// Segments taken over from the parent.
    pub segments_inherited: u64,
    /// Ids that the index was asked for.
    pub lookups: u64,
    /// Packs put.
    pub packs: u64,
    /// Requests to the store: puts.
    pub puts: u64,
    /// Reads of objects or ranges.
    pub gets: u64,
    /// Questions for a length.
    pub heads: u64,
    /// Listings.
    pub lists: u64,
    /// Deletes.
    pub deletes: u64,
}

/// A claim on a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultClaim {
    /// Its rank.
    pub n: u64,
    /// The cluster id that was drawn with it.
    pub cluster: u64,
    /// BLAKE3 of the vault's header.
    pub header: [u8; 32],
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What helps.
    pub kind: FailureKind,
    /// What failed, for people.
    pub message: String,
    /// What to do, for people; may be empty.
    pub hint: String,
}

/// What helps against a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// Trying again.
    Retry,
    /// A person corrects what was asked.
    Invalid,
    /// What was asked for is not there.
    Missing,
    /// Damage was found.
    Corrupt,
    /// Somebody else holds it.
    Fenced,
    /// Space is made.
    Full,
    /// Rights or keys are given.
    Denied,
    /// A defect is mended.
    Bug,
    /// The worker was lost.
    Lost,
    /// Nothing: it was cancelled.
    Cancelled,
    /// A newer program on the worker.
    Unsupported,
}
