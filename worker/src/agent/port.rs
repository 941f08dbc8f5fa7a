//! What a worker asks of its coordinator, in the worker's words.
//!
//! The port makes one try of each call, within a deadline of its own; who calls decides whether to ask again ([`CallError::Unanswered`]). Changes are the
//! same however often they are asked for: the coordinator knows them by job and epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tresor_proto::ids::WorkerId;
use tresor_proto::ids::{Epoch, JobId};
use tresor_proto::trace::Traceparent;
use tresor_proto::v1;
use tresor_storage::Kind;
use tresor_storage::catalog::Hidden;
use tresor_storage::ids::{ItemId, PointId, SessionId, VaultId, hex, random_bytes};
use tresor_storage::index::slot::SlotSet;
use tresor_storage::keys::{Key, ObjectHash};
use tresor_storage::manifest::Consistency;
use tresor_storage::vault::claim::ListedClaim;

use super::failure::Failure;
use crate::control::Counts;
use crate::limits::{LimitsTold, SharesGiven};
use crate::slots::SlotMap;

/// One life of a worker's process, by a number that it drew. A later life ends the leases of earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life(pub [u8; 16]);

impl Life {
    /// Draws one.
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A lease: the job, and the fence of this attempt at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId {
    /// The job.
    pub job: JobId,
    /// The epoch: greater in a later lease of the job.
    pub epoch: Epoch,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.epoch)
    }
}

/// What a worker's process can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Its host.
    pub host: String,
    /// Its program and version.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Jobs that it runs at a time.
    pub permits: u32,
    /// Prefixes of the store URLs that it reaches; none: all.
    pub stores: Vec<String>,
    /// `host:port` at which other workers reach it; none: it answers for no slots of the index.
    pub serves: Option<String>,
    /// It runs no jobs.
    pub no_jobs: bool,
    /// Where it stands; may be empty.
    pub region: String,
    /// The life that used the databases of its slots last, if they are as that life left them.
    pub kept_life: Option<Life>,
}

/// A change of what concerns all work of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchUpdate {
    /// Who answers for which share of the index.
    pub slots: Option<SlotMap>,
    /// Grows when vaults were added, claimed or removed.
    pub vaults: u64,
    /// Workers that were taken out of the cluster.
    pub removed: Vec<u64>,
    /// What limits say now.
    pub limits: Option<LimitsTold>,
}

/// Changes as they come; whoever sends them may end at any time, and is asked again.
pub type WatchStream = BoxStream<'static, Result<WatchUpdate, CallError>>;

/// What a worker is told when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its name in the cluster.
    pub name: String,
    /// How long a lease lasts after its renewal was sent.
    pub lease: Duration,
    /// How often to beat.
    pub beat: Duration,
}

/// What a worker may work on now.
#[derive(Debug)]
pub enum Offer {
    /// A lease.
    Lease(Box<Lease>),
    /// One that this program cannot read: of a later version, or malformed. It is reported, so that the job goes elsewhere.
    Unreadable {
        /// The lease.
        id: LeaseId,
        /// What is wrong with it.
        failure: Failure,
    },
}

/// The right to one attempt at a job, with all that it needs.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Which.
    pub id: LeaseId,
    /// The session that was opened with it.
    pub session: SessionId,
    /// The sweep epoch when it was opened.
    pub start_epoch: u64,
    /// From 1.
    pub attempt: u32,
    /// How long it lasts after its renewal was sent.
    pub term: Duration,
    /// The vault.
    pub vault: LeaseVault,
    /// The number of the vault's newest findings.
    pub findings: u64,
    /// What to do.
    pub work: Work,
    /// The trace that it belongs to, if it was said.
    pub trace: Option<Traceparent>,
}

impl Lease {
    /// The id of its trace; may be empty.
    pub fn trace_id(&self) -> String {
        self.trace.map(|trace| trace.trace_id()).unwrap_or_default()
    }
}

/// What a worker has to know of a vault. The key stays in memory.
#[derive(Debug, Clone)]
pub struct LeaseVault {
    /// The vault.
    pub id: VaultId,
    /// Its name, for people.
    pub name: String,
    /// Its store.
    pub url: String,
    /// The store's region label; may be empty.
    pub region: String,
    /// The name of a profile, of a vault to be made.
    pub profile: String,
    /// The secret of the platform's key slot.
    pub key: Key,
    /// The cluster's claim; none before the vault is claimed.
    pub claim: Option<ListedClaim>,
    /// The BLAKE3 of the vault's header; none before the vault is claimed.
    pub header: Option<ObjectHash>,
}

/// What a lease is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A recovery point is made.
    Backup(BackupWork),
    /// A point's disks are written.
    Restore(RestoreWork),
    /// What is stored is proved.
    Verify(VerifyWork),
    /// The vault is made, or claimed for the cluster.
    Claim {
        /// It is made; else it is there.
        make: bool,
    },
    /// What the coordinator knows of the vault is sealed and put.
    Catalogue {
        /// The catalogue's number.
        index: u64,
    },
}

impl Work {
    /// Its word, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backup(_) => "backup",
            Self::Restore(_) => "restore",
            Self::Verify(_) => "verify",
            Self::Claim { .. } => "claim",
            Self::Catalogue { .. } => "catalogue",
        }
    }

    /// The item's name, of a backup.
    pub fn item(&self) -> Option<&str> {
        match self {
            Self::Backup(work) => Some(&work.item_name),
            _ => None,
        }
    }
}

/// A disk to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkDisk {
    /// Its name in the item.
    pub name: String,
    /// Where it is, on this host.
    pub path: String,
    /// Its format; empty: by the extension.
    pub format: String,
}

/// A worker that may read a range for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkHelper {
    /// Which.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// Where it answers, `host:port`.
    pub serves: String,
}

/// A point to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupWork {
    /// The item.
    pub item: ItemId,
    /// Its name.
    pub item_name: String,
    /// Its disks.
    pub disks: Vec<WorkDisk>,
    /// The item's newest visible point, which the session pins, with the BLAKE3 of its manifest.
    pub parent: Option<(PointId, [u8; 32])>,
    /// Findings say that the parent is harmed: nothing of it is inherited.
    pub parent_harmed: bool,
    /// Until when the point is to be kept, RFC 3339; none: by retention.
    pub keep_until: Option<String>,
    /// Disks may change while they are read; the point is marked.
    pub allow_live: bool,
    /// Images may have backing files outside of their folder.
    pub allow_backing: bool,
    /// Other workers that may read ranges of large disks.
    pub helpers: Vec<WorkHelper>,
}

/// A backup that another worker has the lease of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OthersLease {
    /// Its session.
    pub session: SessionId,
    /// The sweep in which that began.
    pub start_epoch: u64,
    /// The vault.
    pub vault: VaultId,
    /// The claim that it writes under.
    pub claim: ListedClaim,
    /// What is backed up.
    pub work: BackupWork,
}

/// Disks to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreWork {
    /// The point.
    pub point: PointId,
    /// Its item.
    pub item: ItemId,
    /// The BLAKE3 of its manifest.
    pub manifest: [u8; 32],
    /// The disk's name; empty: all disks.
    pub disk: String,
    /// A file for one disk, a folder for several.
    pub path: String,
    /// Their format; empty: by the extension.
    pub format: String,
    /// A target that is there is replaced.
    pub overwrite: bool,
    /// A target that is there is compared, and only what differs is written.
    pub in_place: bool,
}

/// What is to be proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyWork {
    /// The point; none: the vault as a whole.
    pub point: Option<PointId>,
    /// The point's item and the BLAKE3 of its manifest, where they were given.
    pub expected: Option<(ItemId, [u8; 32])>,
    /// `names`, `checks`, `contents`, `recipes` or `all`.
    pub level: String,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseProgress {
    /// The lease.
    pub id: LeaseId,
    /// What it does now, in a word.
    pub stage: &'static str,
    /// Bytes dealt with.
    pub bytes_done: u64,
    /// Of so many; 0 while not known.
    pub bytes_total: u64,
    /// Bytes put or fetched.
    pub bytes_stored: u64,
}

/// What a beat is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// Leases of the request that go on.
    pub held: Vec<LeaseId>,
    /// Those of them that nobody wants any more.
    pub cancelled: Vec<LeaseId>,
    /// The worker gets no new leases.
    pub drained: bool,
    /// What the worker acts on of limits that it shares with others.
    pub limits: SharesGiven,
}

/// The good end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The lease.
    pub id: LeaseId,
    /// Its session.
    pub session: SessionId,
    /// What it took.
    pub counts: Counts,
    /// How long.
    pub took: Duration,
    /// What was made.
    pub outcome: Outcome,
    /// What was made in detail, as it travels: for whoever waits for the job, and for no decision.
    pub report: Option<v1::Report>,
}

/// What a good attempt leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A point that shall count.
    Point(Box<PointMade>),
    /// What a verify found.
    Findings(Findings),
    /// The vault is made or claimed.
    Claimed(Claimed),
    /// Nothing but numbers.
    Nothing,
}

/// A point whose manifest and all that it needs are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointMade {
    /// The point.
    pub point: PointId,
    /// When its disks were read, RFC 3339.
    pub time: String,
    /// The BLAKE3 of its manifest.
    pub manifest: [u8; 32],
    /// How consistent it is.
    pub consistency: Consistency,
    /// The number of the newest findings that were looked at.
    pub findings_seen: u64,
    /// Points that were found harmed on the way, on which this one does not rest.
    pub harmed: Vec<PointId>,
    /// Slots of the index whose answers it stands on.
    pub slots: SlotSet,
    /// The map under which they stand.
    pub slot_map: u64,
    /// Slots that did not take what was inserted.
    pub slots_missing: SlotSet,
}

/// What is wrong with a vault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Points that cannot be restored whole.
    pub harmed: Vec<PointId>,
    /// Objects in which something is wrong.
    pub count: u64,
    /// The first of them, a line each.
    pub what: Vec<String>,
}

/// A claim on the vault for the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The claim.
    pub claim: ListedClaim,
    /// The BLAKE3 of the vault's header.
    pub header: ObjectHash,
    /// Points that were not adopted, because their manifests cannot be read.
    pub points_unreadable: u64,
}

/// What a catalogue shall say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatalogueContent {
    /// Hidden points of the vault.
    pub hidden: BTreeMap<PointId, Hidden>,
    /// When that was so, RFC 3339.
    pub written_at: String,
    /// What the coordinator knows of the vault, as it encodes it.
    pub state: Bytes,
    /// Held points, with the reasons.
    pub held: BTreeMap<PointId, String>,
}

/// A point as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedPoint {
    /// The point.
    pub point: PointId,
    /// Its item.
    pub item: ItemId,
    /// The BLAKE3 of its manifest.
    pub manifest: [u8; 32],
    /// When it was hidden, RFC 3339; none: visible.
    pub hidden_at: Option<String>,
}

/// A point found in a vault that the cluster took over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedPoint {
    /// The point.
    pub point: PointId,
    /// Its item.
    pub item: ItemId,
    /// The item's name.
    pub item_name: String,
    /// When it was made, RFC 3339.
    pub time: String,
    /// Until when it is to be kept, RFC 3339.
    pub keep_until: Option<String>,
    /// Why it was held, if it was.
    pub held: Option<String>,
    /// The BLAKE3 of its manifest.
    pub manifest: [u8; 32],
    /// How consistent it is.
    pub consistency: Consistency,
    /// When it was hidden, RFC 3339; none: visible.
    pub hidden_at: Option<String>,
}

/// Why a call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answered in time, or who answered cannot yet: the same may be asked again. Whether a change was made is not known.
    #[error("no answer from a coordinator: {why}")]
    Unanswered {
        /// What was heard last.
        why: String,
    },
    /// It will not be done as asked. This try changed nothing; an earlier one of the same change may have.
    #[error("{why}")]
    Refused {
        /// What helps. [`Kind::Fenced`]: the lease, or the life, is over.
        kind: Kind,
        /// Why, for people.
        why: String,
        /// What to do, for people; may be empty.
        hint: String,
    },
    /// Slots of the index were granted anew since they answered. Nothing was changed; after they were asked again the same may be reported again, under the same lease.
    #[error("{why}")]
    Moved {
        /// Which.
        why: String,
    },
    /// The answer makes no sense to this program.
    #[error("the coordinator's answer makes no sense: {why}")]
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
}

impl CallError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unanswered { .. } | Self::Moved { .. } => Kind::Retry,
            Self::Refused { kind, .. } => *kind,
            Self::Unreadable { .. } => Kind::Unsupported,
        }
    }
}

/// A coordinator, or any of several that are as good.
#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// Says that a process has started and what it can do; its earlier lives lose their leases.
    ///
    /// # Errors
    /// As for every call: [`CallError`].
    async fn register(&self, life: Life, facts: &Facts) -> Result<Registered, CallError>;

    /// Waits at most `wait` for work. Dropped half way, a lease may have been given that nobody heard of: it runs out.
    ///
    /// # Errors
    /// Fenced, when `life` is not the worker's last.
    async fn next_lease(&self, life: Life, free: u32, wait: Duration) -> Result<Option<Offer>, CallError>;

    /// Says that the process lives and how far its leases are, which renews them; and which shares of limits it acts on, by what they are of.
    ///
    /// # Errors
    /// Fenced, when `life` is not the worker's last.
    async fn beat(
        &self,
        life: Life,
        leases: Vec<LeaseProgress>,
        shares: BTreeMap<String, u32>,
    ) -> Result<Beat, CallError>;

    /// Ends an attempt well. Its point counts when this returns well.
    ///
    /// # Errors
    /// Fenced, when the lease is over.
    async fn complete(&self, completion: &Completion) -> Result<(), CallError>;

    /// Ends an attempt that failed.
    ///
    /// # Errors
    /// Fenced, when the lease is over.
    async fn fail(&self, lease: LeaseId, failure: &Failure) -> Result<(), CallError>;

    /// Keeps what was logged of an attempt, as [`attempt_log`](tresor_proto::attempt_log) encodes it. Nothing depends on it.
    ///
    /// # Errors
    /// As for every call.
    async fn report_log(&self, lease: LeaseId, log: Vec<u8>) -> Result<(), CallError>;

    /// What the catalogue of a lease shall say.
    ///
    /// # Errors
    /// As for every call.
    async fn catalogue(&self, lease: LeaseId) -> Result<CatalogueContent, CallError>;

    /// Points of the lease's vault as the log has them: all, or `only` that one if it is there. Answered also after the lease has ended.
    ///
    /// # Errors
    /// As for every call.
    async fn points(&self, lease: LeaseId, only: Option<PointId>) -> Result<Vec<LoggedPoint>, CallError>;

    /// Enters points found in a vault that was taken over; those that are known are left. Returns how many were entered.
    ///
    /// # Errors
    /// Fenced, when the lease is over.
    async fn adopt_points(&self, lease: LeaseId, points: &[AdoptedPoint]) -> Result<u64, CallError>;

    /// What concerns all work of the process, as it changes.
    ///
    /// # Errors
    /// Fenced, when `life` is not the worker's last.
    async fn watch(&self, life: Life) -> Result<WatchStream, CallError>;

    /// What a backup is about that another worker has the lease of.
    ///
    /// # Errors
    /// Fenced, when the lease is over, or `life` is not the worker's last.
    async fn lease_of(&self, life: Life, lease: LeaseId, holder: WorkerId) -> Result<OthersLease, CallError>;

    /// All vaults that are claimed, with what opens them: for who answers for slots of the index.
    ///
    /// # Errors
    /// Fenced, when `life` is not the worker's last.
    async fn index_vaults(&self, life: Life) -> Result<Vec<LeaseVault>, CallError>;
}
