//! Rows as messages, and what messages ask for as rows. Pure.

use std::collections::BTreeMap;

use tresor_proto::ids::{ItemId, JobId, PointId, PolicyId, TokenId, VaultId, WorkerId};
use tresor_proto::v1;

use super::fields::{disk_path, format, time_text};
use super::policy::{spec_message, words};
use super::refused::{Refused, kind_text};
use super::resolve;
use super::standing::{Board, ItemStanding};
use crate::node::presence::{JobProgress, Presence};
use crate::state::command::{Consistency, Counts, DiskSpec, ItemSpec, RestoreTarget, Work};
use crate::state::rows::{
    Attempt, Audited, Item, Job, JobState, Point, Policy, Token, TokenUse, Vault, VaultState, Worker,
};
use crate::state::{State, UNDO_MS};

/// Coordinators that a node or a program is told of: as many as one takes.
pub const ADDRESSES_MAX: usize = 32;

/// Where all coordinators are, by their numbers.
pub fn coordinators(state: &State) -> Vec<String> {
    let present = state.members().values().filter(|member| !member.removed);
    let addresses = present.map(|member| member.address.clone());
    addresses.take(ADDRESSES_MAX).collect()
}

/// A vault's name; its id where it is gone.
pub fn vault_name(state: &State, id: VaultId) -> String {
    state
        .vaults()
        .get(&id)
        .map_or_else(|| id.to_string(), |vault| vault.spec.name.clone())
}

/// An item's name; its id where it is gone.
pub fn item_name(state: &State, id: ItemId) -> String {
    state
        .items()
        .get(&id)
        .map_or_else(|| id.to_string(), |item| item.spec.name.clone())
}

/// A worker's name, also of a removed one; its number where it is not known.
pub fn worker_name(state: &State, id: WorkerId) -> String {
    state
        .workers()
        .get(&id)
        .map_or_else(|| id.to_string(), |worker| worker.name.clone())
}

/// A vault.
pub fn vault(state: &State, id: VaultId, vault: &Vault) -> v1::Vault {
    let (made, claim) = match vault.state {
        VaultState::Claiming => ("being made", 0),
        VaultState::Ready(claim) => ("ready", claim.n),
        VaultState::Removing => ("being removed", 0),
    };
    v1::Vault {
        id: id.to_string(),
        name: vault.spec.name.clone(),
        url: vault.spec.url.clone(),
        region: vault.spec.region.clone(),
        profile: vault.spec.profile.clone(),
        state: made.to_owned(),
        claim,
        items: state.items_in(id),
        points: state.points_in(id).all,
        catalogue_at: time_text(vault.catalogue.map(|(put_at, _)| put_at)),
        bytes_stored: vault.bytes_stored,
    }
}

/// A policy.
pub fn policy(state: &State, id: PolicyId, policy: &Policy) -> v1::Policy {
    v1::Policy {
        id: id.to_string(),
        version: policy.version,
        spec: Some(spec_message(&policy.spec)),
        items: state.items_under(id),
        words: words(&policy.spec),
    }
}

/// An item.
pub fn item(state: &State, board: &Board<'_>, id: ItemId, item: &Item) -> v1::Item {
    let standing = board.item(state, id, item);
    let points = state.points_of(id).count() as u64;
    item_standing(state, id, item, &standing, points)
}

/// An item that has just gone, since it is neither protected nor has points.
pub fn gone_item(state: &State, board: &Board<'_>, id: ItemId, item: &Item) -> v1::Item {
    let item = Item {
        protected: false,
        ..item.clone()
    };
    let standing = board.item(state, id, &item);
    item_standing(state, id, &item, &standing, 0)
}

fn item_standing(state: &State, id: ItemId, item: &Item, standing: &ItemStanding, points: u64) -> v1::Item {
    v1::Item {
        id: id.to_string(),
        version: item.version,
        spec: Some(item_spec_message(state, &item.spec)),
        protected: item.protected,
        state: standing.state.text().to_owned(),
        newest_point: standing.newest.map(|(point, _)| point.to_string()).unwrap_or_default(),
        newest_time: time_text(standing.newest.map(|(_, time)| time)),
        next_due: time_text(standing.next_due),
        points,
        failures: item.failures,
        last_failure: item
            .last_failure
            .as_ref()
            .map(|failed| failed.failure.message.clone())
            .unwrap_or_default(),
        late_since: time_text(standing.late_since),
        last_success: time_text(item.last_success),
    }
}

fn item_spec_message(state: &State, spec: &ItemSpec) -> v1::ItemSpec {
    let policy = spec.policy.and_then(|policy| state.policies().get(&policy));
    let disk = |disk: &DiskSpec| v1::AdminDisk {
        name: disk.name.clone(),
        path: disk.path.clone(),
        format: disk.format.clone(),
    };
    v1::ItemSpec {
        name: spec.name.clone(),
        vault: vault_name(state, spec.vault),
        policy: policy.map(|policy| policy.spec.name.clone()).unwrap_or_default(),
        host: spec.host.clone(),
        worker_labels: spec.worker_labels.clone(),
        labels: spec.labels.clone(),
        disks: spec.disks.iter().map(disk).collect(),
        allow_live: spec.allow_live,
        allow_backing: spec.allow_backing,
    }
}

/// What a message asks an item to be, in `vault`; names, labels and numbers are checked by the state.
///
/// # Errors
/// For a policy that there is not, and for paths and formats that mean nothing.
pub fn item_spec(state: &State, message: &v1::ItemSpec, vault: VaultId) -> Result<ItemSpec, Refused> {
    let disk = |disk: &v1::AdminDisk| {
        Ok(DiskSpec {
            name: disk.name.clone(),
            path: disk_path("spec.disks.path", &disk.path)?,
            format: format("spec.disks.format", &disk.format)?,
        })
    };
    Ok(ItemSpec {
        name: message.name.clone(),
        vault,
        policy: match message.policy.as_str() {
            "" => None,
            name => Some(resolve::policy(state, name)?),
        },
        host: message.host.clone(),
        worker_labels: message.worker_labels.clone(),
        labels: message.labels.clone(),
        disks: message.disks.iter().map(disk).collect::<Result<_, Refused>>()?,
        allow_live: message.allow_live,
        allow_backing: message.allow_backing,
    })
}

/// Consistency as it travels.
pub fn consistency_text(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Crash => "crash",
        Consistency::Filesystem => "filesystem",
        Consistency::Application => "application",
    }
}

/// A recovery point.
pub fn point(state: &State, id: PointId, point: &Point) -> v1::Point {
    let item = state.items().get(&point.item);
    v1::Point {
        id: id.to_string(),
        item: point.item.to_string(),
        item_name: item.map(|item| item.spec.name.clone()).unwrap_or_default(),
        vault: item.map(|item| vault_name(state, item.spec.vault)).unwrap_or_default(),
        time: point.time.to_string(),
        consistency: consistency_text(point.consistency).to_owned(),
        keep_until: time_text(point.keep_until),
        held: point.held.as_deref().unwrap_or_default().to_owned(),
        hidden_at: time_text(point.hidden),
        undo_until: time_text(point.hidden.map(|hidden| hidden.plus(UNDO_MS))),
        harmed: point.harmed,
        manifest: point.manifest.to_vec().into(),
    }
}

/// What kind of work a job does, as it travels.
pub fn work_text(work: &Work) -> &'static str {
    match work {
        Work::Backup { .. } => "backup",
        Work::Restore { .. } => "restore",
        Work::Verify { .. } => "verify",
        Work::Claim => "claim",
        Work::Catalogue => "catalogue",
    }
}

/// States of jobs, as they travel.
pub const JOB_STATES: [&str; 5] = ["queued", "running", "done", "failed", "cancelled"];

/// A job's state, as it travels.
pub fn job_state_text(state: JobState) -> &'static str {
    match state {
        JobState::Queued { .. } => "queued",
        JobState::Leased => "running",
        JobState::Done { .. } => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// The item that a job is about.
pub fn item_of(state: &State, job: &Job) -> Option<ItemId> {
    match &job.spec.work {
        Work::Backup { item, .. } => Some(*item),
        Work::Restore { point, .. } | Work::Verify { point: Some(point), .. } => {
            state.points().get(point).map(|point| point.item)
        }
        Work::Verify { point: None, .. } | Work::Claim | Work::Catalogue => None,
    }
}

/// A job. `progress` is what its worker said last, where it runs.
pub fn job(state: &State, id: JobId, job: &Job, progress: Option<&JobProgress>) -> v1::Job {
    let running = job.running();
    let progress = progress.filter(|_| running.is_some()).cloned().unwrap_or_default();
    let point = match (&job.spec.work, job.state) {
        (_, JobState::Done { point: Some(made) }) => Some(made),
        (Work::Restore { point, .. }, _) => Some(*point),
        (Work::Verify { point, .. }, _) => *point,
        _ => None,
    };
    let target = match &job.spec.work {
        Work::Restore { host, target, .. } => target_text(host, target),
        _ => String::new(),
    };
    let last_failure = job.attempts.last().and_then(|attempt| attempt.failure.as_ref());
    let last_failure = job.failure.as_ref().or(last_failure);
    let why = match job.state {
        JobState::Failed | JobState::Queued { .. } => last_failure.map(|failure| failure.message.clone()),
        _ => None,
    };
    let mut counts = counts(&job.counts);
    counts.bytes_stored = counts.bytes_stored.max(progress.bytes_stored);
    let not_before = match job.state {
        JobState::Queued { not_before } => not_before,
        _ => job.spec.not_before,
    };
    let older = usize::try_from(job.attempts_made)
        .unwrap_or(0)
        .saturating_sub(job.attempts.len());
    let numbered = (older + 1..).zip(&job.attempts);
    let item = item_of(state, job);
    v1::Job {
        id: id.0,
        kind: work_text(&job.spec.work).to_owned(),
        vault: vault_name(state, job.spec.vault),
        item: item.map(|item| item_name(state, item)).unwrap_or_default(),
        item_id: item.map(|item| item.to_string()).unwrap_or_default(),
        point: point.map(|point| point.to_string()).unwrap_or_default(),
        state: job_state_text(job.state).to_owned(),
        created: job.created.to_string(),
        not_before: not_before.to_string(),
        ended: time_text(job.ended),
        why: why.unwrap_or_default(),
        priority: job.spec.priority,
        attempts: numbered
            .map(|(number, attempt)| attempt_message(state, number, attempt))
            .collect(),
        worker: running
            .map(|attempt| worker_name(state, attempt.worker))
            .unwrap_or_default(),
        stage: progress.stage,
        bytes_done: progress.bytes_done,
        bytes_total: progress.bytes_total,
        counts: Some(counts),
        target,
        cancel_requested: job.cancel_requested,
        findings: job.findings,
        // Not of the log: who shows one job adds it.
        report: None,
    }
}

fn target_text(host: &str, target: &RestoreTarget) -> String {
    format!("{host}:{}", target.path)
}

fn counts(counts: &Counts) -> v1::JobCounts {
    v1::JobCounts {
        bytes_read: counts.bytes_read,
        bytes_new: counts.bytes_new,
        bytes_stored: counts.bytes_stored,
        bytes_logical: counts.bytes_logical,
        took_ms: counts.took,
        chunks_new: counts.chunks_new,
        chunks_known: counts.chunks_known,
        segments_inherited: counts.segments_inherited,
        lookups: counts.lookups,
        packs: counts.packs,
        puts: counts.puts,
        gets: counts.gets,
        heads: counts.heads,
        lists: counts.lists,
        deletes: counts.deletes,
    }
}

pub(crate) fn attempt_message(state: &State, number: usize, attempt: &Attempt) -> v1::Attempt {
    let failure = attempt.failure.as_ref();
    v1::Attempt {
        number: u32::try_from(number).unwrap_or(u32::MAX),
        worker: worker_name(state, attempt.worker),
        epoch: attempt.epoch.0,
        started: attempt.started.to_string(),
        ended: time_text(attempt.ended),
        failure: failure.map(|failure| failure.message.clone()).unwrap_or_default(),
        kind: failure
            .map(|failure| kind_text(failure.kind).to_owned())
            .unwrap_or_default(),
        hint: failure.map(|failure| failure.hint.clone()).unwrap_or_default(),
    }
}

/// A worker's state, as it travels: `joined` before it was ever there, `silent` where it was not heard of lately.
pub fn worker_state(state: &State, presence: &Presence, id: WorkerId, worker: &Worker, now_ms: u64) -> &'static str {
    match () {
        () if worker.drained => "drained",
        () if worker.life.is_none() => "joined",
        () if presence.is_present(state, id, now_ms) => "ready",
        () => "silent",
    }
}

/// How many slots of the index each worker has: counted once for many of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotCounts(BTreeMap<WorkerId, u32>);

impl SlotCounts {
    /// Counts all.
    pub fn new(state: &State) -> Self {
        let mut counts = BTreeMap::new();
        for slot in state.slots().values() {
            *counts.entry(slot.worker).or_insert(0) += 1;
        }
        Self(counts)
    }

    /// Those of a worker.
    pub fn of(&self, worker: WorkerId) -> u32 {
        self.0.get(&worker).copied().unwrap_or(0)
    }
}

/// A worker. One that this leader has not heard of at all is silent since the leader's process began, at least.
pub fn worker(
    state: &State,
    presence: &Presence,
    slots: &SlotCounts,
    id: WorkerId,
    worker: &Worker,
    now_ms: u64,
) -> v1::Worker {
    let heard = presence.heard(id);
    v1::Worker {
        id: id.0,
        name: worker.name.clone(),
        host: worker.facts.host.clone(),
        version: worker.facts.version.clone(),
        labels: worker.facts.labels.clone(),
        permits: worker.facts.permits,
        running: u32::try_from(state.leases_of(id).count()).unwrap_or(u32::MAX),
        stores: worker.facts.stores.clone(),
        state: worker_state(state, presence, id, worker, now_ms).to_owned(),
        silent_ms: heard.map_or(now_ms, |heard| now_ms.saturating_sub(heard.at)),
        clock_ms: heard.map_or(0, |heard| heard.clock_ms),
        slots: slots.of(id),
        serves: worker.facts.serves.clone(),
        region: worker.facts.region.clone(),
        no_jobs: !worker.facts.jobs,
        items: None,
        takers: None,
    }
}

/// A token, without what is secret in it: that is not here.
pub fn token(id: TokenId, token: &Token) -> v1::Token {
    let (kind, role, uses_left) = match &token.used_for {
        TokenUse::Api { role } => ("api", role, 0),
        TokenUse::Join { role, uses } => ("join", role, *uses),
    };
    v1::Token {
        id: id.to_string(),
        name: token.name.clone(),
        kind: kind.to_owned(),
        role: role.clone(),
        created: token.created.to_string(),
        expires: time_text(token.expires),
        uses_left,
        revoked: token.revoked,
    }
}

/// An entry of the audit trail. `actor` is who did it, for people.
pub fn audited(seq: u64, entry: &Audited, actor: String) -> v1::AuditEntry {
    v1::AuditEntry {
        seq,
        time: entry.time.to_string(),
        actor,
        action: entry.action.clone(),
        object: entry.object.clone(),
        outcome: entry.outcome.clone(),
        hash: entry.hash.to_vec().into(),
    }
}
