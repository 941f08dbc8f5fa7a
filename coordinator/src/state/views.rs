//! What is looked up often, computed from the rows: kept in step by who changes them, made anew at a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tresor_proto::ids::{ItemId, JobId, PointId, PolicyId, VaultId, WorkerId};

use super::State;
use super::command::Work;
use super::entry::{IdempotencyKey, Time};
use super::queue::Queue;
use super::rows::{Answered, Item, Job, JobState, Point};
use super::table::Table;

/// Computed from the rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Views {
    /// Items by name; two only where somebody asked for it.
    pub(super) item_names: BTreeMap<String, BTreeSet<ItemId>>,
    /// Vaults by name.
    pub(super) vault_names: BTreeMap<String, VaultId>,
    /// Policies by name.
    pub(super) policy_names: BTreeMap<String, PolicyId>,
    /// Workers that are not removed, by name.
    pub(super) worker_names: BTreeMap<String, WorkerId>,
    /// Points of each item by time, hidden ones too.
    pub(super) points_of: BTreeSet<(ItemId, Time, PointId)>,
    /// Jobs that wait or run.
    pub(super) open: BTreeSet<JobId>,
    /// Jobs that have ended, the first first.
    pub(super) ended: BTreeSet<(Time, JobId)>,
    /// The open backup of an item.
    pub(super) backup_of: BTreeMap<ItemId, JobId>,
    /// The open catalogue or claim of a vault.
    pub(super) upkeep_of: BTreeMap<(VaultId, bool), JobId>,
    /// The open restore to a place.
    pub(super) restore_to: BTreeMap<(String, String), JobId>,
    /// Open restores and verifies of a point.
    pub(super) readers_of: BTreeMap<PointId, BTreeSet<JobId>>,
    /// How many jobs of a vault wait or run.
    pub(super) open_in: BTreeMap<VaultId, u64>,
    /// Jobs that a worker runs.
    pub(super) leases_of: BTreeMap<WorkerId, BTreeSet<JobId>>,
    /// Jobs that wait, as placement asks for them, and how many run.
    pub(super) queue: Queue,
    /// Items of each vault, those included of which only points are left.
    pub(super) all_items_of: BTreeSet<(VaultId, ItemId)>,
    /// How many items of a vault are protected.
    pub(super) items_of: BTreeMap<VaultId, u64>,
    /// How many items have a policy.
    pub(super) items_under: BTreeMap<PolicyId, u64>,
    /// Points of a vault.
    pub(super) points_in: BTreeMap<VaultId, u64>,
    /// Points of a vault that damage was found under.
    pub(super) harmed_in: BTreeMap<VaultId, BTreeSet<PointId>>,
    /// Open sessions that hold a point.
    pub(super) pins: BTreeMap<PointId, u32>,
    /// Where the answer to a key and kind of change is.
    pub(super) answers: BTreeMap<(IdempotencyKey, u8), u64>,
}

/// How many points a vault has, hidden ones too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PointCounts {
    /// All.
    pub all: u64,
    /// Those that damage was found under.
    pub harmed: u64,
}

impl Views {
    /// Of all rows.
    pub(super) fn of(state: &State) -> Self {
        let mut views = Self::default();
        for (&id, item) in state.items.iter() {
            views.add_item(id, item);
        }
        for (&id, vault) in state.vaults.iter() {
            views.vault_names.insert(vault.spec.name.clone(), id);
        }
        for (&id, policy) in state.policies.iter() {
            views.policy_names.insert(policy.spec.name.clone(), id);
        }
        for (&id, worker) in state.workers.iter().filter(|(_, worker)| !worker.removed) {
            views.worker_names.insert(worker.name.clone(), id);
        }
        for (&id, point) in state.points.iter() {
            let vault = state.items.get(&point.item).map(|item| item.spec.vault);
            views.add_point(id, point, vault);
        }
        for (&id, job) in state.jobs.iter() {
            views.add_job(id, job, &state.items);
        }
        for session in state.sessions.values() {
            for &point in &session.pins {
                views.pin(point);
            }
        }
        for (&number, answer) in state.answers.iter() {
            views.answers.insert((answer.key, answer.kind), number);
        }
        views
    }

    pub(super) fn add_item(&mut self, id: ItemId, item: &Item) {
        self.item_names.entry(item.spec.name.clone()).or_default().insert(id);
        self.all_items_of.insert((item.spec.vault, id));
        if item.protected {
            *self.items_of.entry(item.spec.vault).or_default() += 1;
        }
        if let Some(policy) = item.spec.policy {
            *self.items_under.entry(policy).or_default() += 1;
        }
    }

    pub(super) fn remove_item(&mut self, id: ItemId, item: &Item) {
        if let Some(ids) = self.item_names.get_mut(&item.spec.name) {
            ids.remove(&id);
            if ids.is_empty() {
                self.item_names.remove(&item.spec.name);
            }
        }
        self.all_items_of.remove(&(item.spec.vault, id));
        if item.protected {
            decrease(&mut self.items_of, item.spec.vault);
        }
        if let Some(policy) = item.spec.policy {
            decrease(&mut self.items_under, policy);
        }
    }

    pub(super) fn add_job(&mut self, id: JobId, job: &Job, items: &Table<ItemId, Item>) {
        if job.state.is_final() {
            self.ended.insert((job.ended.unwrap_or_default(), id));
            return;
        }
        self.open.insert(id);
        self.queue.add(id, job, items);
        if let Some(point) = point_read(&job.spec.work) {
            self.readers_of.entry(point).or_default().insert(id);
        }
        *self.open_in.entry(job.spec.vault).or_default() += 1;
        match &job.spec.work {
            Work::Backup { item, .. } => {
                self.backup_of.insert(*item, id);
            }
            Work::Catalogue | Work::Claim => {
                let claims = matches!(job.spec.work, Work::Claim);
                self.upkeep_of.insert((job.spec.vault, claims), id);
            }
            Work::Restore { host, target, .. } => {
                self.restore_to.insert(place(host, &target.path), id);
            }
            Work::Verify { .. } => {}
        }
        if let (JobState::Leased, Some(attempt)) = (job.state, job.attempts.last()) {
            self.leases_of.entry(attempt.worker).or_default().insert(id);
        }
    }

    pub(super) fn remove_job(&mut self, id: JobId, job: &Job, items: &Table<ItemId, Item>) {
        if job.state.is_final() {
            self.ended.remove(&(job.ended.unwrap_or_default(), id));
            return;
        }
        self.open.remove(&id);
        self.queue.remove(id, job, items);
        if let Some(point) = point_read(&job.spec.work)
            && let Some(readers) = self.readers_of.get_mut(&point)
        {
            readers.remove(&id);
            if readers.is_empty() {
                self.readers_of.remove(&point);
            }
        }
        decrease(&mut self.open_in, job.spec.vault);
        match &job.spec.work {
            Work::Backup { item, .. } => {
                self.backup_of.remove(item);
            }
            Work::Catalogue | Work::Claim => {
                let claims = matches!(job.spec.work, Work::Claim);
                self.upkeep_of.remove(&(job.spec.vault, claims));
            }
            Work::Restore { host, target, .. } => {
                self.restore_to.remove(&place(host, &target.path));
            }
            Work::Verify { .. } => {}
        }
        if let (JobState::Leased, Some(attempt)) = (job.state, job.attempts.last())
            && let Some(leases) = self.leases_of.get_mut(&attempt.worker)
        {
            leases.remove(&id);
            if leases.is_empty() {
                self.leases_of.remove(&attempt.worker);
            }
        }
    }

    pub(super) fn add_point(&mut self, id: PointId, point: &Point, vault: Option<VaultId>) {
        self.points_of.insert((point.item, point.time, id));
        if let Some(vault) = vault {
            *self.points_in.entry(vault).or_default() += 1;
            if point.harmed {
                self.harmed_in.entry(vault).or_default().insert(id);
            }
        }
    }

    pub(super) fn remove_point(&mut self, id: PointId, point: &Point, vault: Option<VaultId>) {
        self.points_of.remove(&(point.item, point.time, id));
        if let Some(vault) = vault {
            decrease(&mut self.points_in, vault);
            if point.harmed {
                self.forget_harm(vault, id);
            }
        }
    }

    pub(super) fn forget_harm(&mut self, vault: VaultId, point: PointId) {
        if let Some(harmed) = self.harmed_in.get_mut(&vault) {
            harmed.remove(&point);
            if harmed.is_empty() {
                self.harmed_in.remove(&vault);
            }
        }
    }

    pub(super) fn pin(&mut self, point: PointId) {
        *self.pins.entry(point).or_default() += 1;
    }

    pub(super) fn unpin(&mut self, point: PointId) {
        if let Some(count) = self.pins.get_mut(&point) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&point);
            }
        }
    }
}

/// The point that a job reads, if it is about one.
fn point_read(work: &Work) -> Option<PointId> {
    match work {
        Work::Restore { point, .. } | Work::Verify { point: Some(point), .. } => Some(*point),
        _ => None,
    }
}

pub(super) fn decrease<K: Ord + Copy>(counts: &mut BTreeMap<K, u64>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Where a restore writes: one path for all the ways to write it down, as far as that can be said without looking.
fn place(host: &str, path: &str) -> (String, String) {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let root = if path.starts_with('/') { "/" } else { "" };
    (
        host.to_owned(),
        format!("{root}{}", parts.collect::<Vec<_>>().join("/")),
    )
}

/// Lookups.
impl State {
    /// Items of that name.
    pub fn items_named(&self, name: &str) -> impl Iterator<Item = ItemId> + '_ {
        self.views.item_names.get(name).into_iter().flatten().copied()
    }

    /// The vault of that name.
    pub fn vault_named(&self, name: &str) -> Option<VaultId> {
        self.views.vault_names.get(name).copied()
    }

    /// The policy of that name.
    pub fn policy_named(&self, name: &str) -> Option<PolicyId> {
        self.views.policy_names.get(name).copied()
    }

    /// The worker of that name.
    pub fn worker_named(&self, name: &str) -> Option<WorkerId> {
        self.views.worker_names.get(name).copied()
    }

    /// Vaults by name.
    pub fn vaults_by_name(&self) -> impl Iterator<Item = (&str, VaultId)> {
        self.views.vault_names.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// Policies by name.
    pub fn policies_by_name(&self) -> impl Iterator<Item = (&str, PolicyId)> {
        self.views.policy_names.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// Workers that are not removed, by name.
    pub fn workers_by_name(&self) -> impl Iterator<Item = (&str, WorkerId)> {
        self.views.worker_names.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// Items by name and id, from there on; that one included.
    pub fn items_by_name_from<'s>(
        &'s self,
        name: &str,
        id: ItemId,
    ) -> impl Iterator<Item = (&'s str, ItemId)> + use<'s> {
        let rest = (Bound::Included(name.to_owned()), Bound::Unbounded);
        let mut first = Some((name.to_owned(), id));
        self.views
            .item_names
            .range(rest)
            .flat_map(|(name, ids)| ids.iter().map(|id| (name.as_str(), *id)))
            .skip_while(move |(name, id)| match &first {
                Some((first_name, first_id)) if name == first_name && id < first_id => true,
                _ => {
                    first = None;
                    false
                }
            })
    }

    /// Points of an item, the newest first, hidden ones too.
    pub fn points_of(&self, item: ItemId) -> impl DoubleEndedIterator<Item = PointId> + '_ {
        self.points_up_to(item, Time(i64::MAX), PointId([255; 16]))
    }

    /// Points of an item that are not newer than that, the newest first, hidden ones too. Points of one time come in the order of their ids.
    pub fn points_up_to(
        &self,
        item: ItemId,
        time: Time,
        point: PointId,
    ) -> impl DoubleEndedIterator<Item = PointId> + '_ {
        let first = (item, Time(i64::MIN), PointId([0; 16]));
        let last = (item, time, point);
        self.views
            .points_of
            .range(first..=last)
            .rev()
            .map(|(_, _, point)| *point)
    }

    /// How many points a vault has.
    pub fn points_in(&self, vault: VaultId) -> PointCounts {
        PointCounts {
            all: self.views.points_in.get(&vault).copied().unwrap_or_default(),
            harmed: self.views.harmed_in.get(&vault).map_or(0, |harmed| harmed.len() as u64),
        }
    }

    /// What was answered to a change of a kind, as long as that is remembered.
    pub fn answer(&self, key: &IdempotencyKey, kind: u8) -> Option<&Answered> {
        let number = self.views.answers.get(&(*key, kind))?;
        self.answers.get(number)
    }

    /// The newest visible point of an item: the parent of its next one.
    pub fn newest_point(&self, item: ItemId) -> Option<PointId> {
        self.points_of(item)
            .find(|point| self.points.get(point).is_some_and(|point| point.hidden.is_none()))
    }

    /// Jobs that wait or run.
    pub fn open_jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.views.open.iter().copied()
    }

    /// How many jobs wait or run.
    pub fn open_jobs_count(&self) -> usize {
        self.views.open.len()
    }

    /// The backup of an item that waits or runs.
    pub fn open_backup(&self, item: ItemId) -> Option<JobId> {
        self.views.backup_of.get(&item).copied()
    }

    /// The catalogue job (or, with `claims`, the claim) of a vault that waits or runs.
    pub fn open_upkeep(&self, vault: VaultId, claims: bool) -> Option<JobId> {
        self.views.upkeep_of.get(&(vault, claims)).copied()
    }

    /// The restore that waits to write to a place, or does.
    pub fn open_restore(&self, host: &str, path: &str) -> Option<JobId> {
        self.views.restore_to.get(&place(host, path)).copied()
    }

    /// How many jobs of a vault wait or run.
    pub fn open_jobs_in(&self, vault: VaultId) -> u64 {
        self.views.open_in.get(&vault).copied().unwrap_or(0)
    }

    /// Jobs that wait or run, in order, after one of them; none: all.
    pub fn open_jobs_after(&self, job: Option<JobId>) -> impl Iterator<Item = JobId> + '_ {
        let from = job.map_or(Bound::Unbounded, Bound::Excluded);
        self.views.open.range((from, Bound::Unbounded)).copied()
    }

    /// Jobs that ended then or later and are remembered, the first first.
    pub fn ended_since(&self, time: Time) -> impl Iterator<Item = (Time, JobId)> + '_ {
        self.views.ended.range((time, JobId(0))..).copied()
    }

    /// When the job ended that ended last.
    pub fn last_ended(&self) -> Option<Time> {
        self.views.ended.last().map(|(time, _)| *time)
    }

    /// Jobs that a worker runs.
    pub fn leases_of(&self, worker: WorkerId) -> impl Iterator<Item = JobId> + '_ {
        self.views.leases_of.get(&worker).into_iter().flatten().copied()
    }

    /// Every running job.
    pub fn leases(&self) -> impl Iterator<Item = JobId> + '_ {
        self.views.leases_of.values().flatten().copied()
    }

    /// An item of a vault, if it has any.
    pub(super) fn first_item_in(&self, vault: VaultId) -> Option<ItemId> {
        let from = (vault, ItemId([0; 16]));
        let (of, item) = self.views.all_items_of.range(from..).next()?;
        (*of == vault).then_some(*item)
    }

    /// How many items of a vault are protected.
    pub fn items_in(&self, vault: VaultId) -> u64 {
        self.views.items_of.get(&vault).copied().unwrap_or(0)
    }

    /// How many items have a policy.
    pub fn items_under(&self, policy: PolicyId) -> u64 {
        self.views.items_under.get(&policy).copied().unwrap_or(0)
    }

    /// Whether an open session holds a point.
    pub fn is_pinned(&self, point: PointId) -> bool {
        self.views.pins.contains_key(&point)
    }
}
