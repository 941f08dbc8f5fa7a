//! Jobs that wait, sorted as placement asks for them, and how many run: a choice for a worker looks at the first of each kind, not at all of
//! a hundred thousand.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::{ItemId, JobId, PolicyId, VaultId};

use super::State;
use super::command::Work;
use super::entry::Time;
use super::rows::{Item, Job, JobState};
use super::table::Table;

/// Where a job can be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Anywhere.
    Anywhere,
    /// By a worker of this name, or on a host of this name.
    Host(String),
    /// By the worker of this name.
    Worker(String),
}

/// What placement asks of a job besides its place: a worker that may have one job of a place and kind may have every one of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The greatest first.
    pub priority: Reverse<i32>,
    /// The vault.
    pub vault: VaultId,
    /// The policy of the item that is backed up.
    pub policy: Option<PolicyId>,
    /// Whether the policy's windows hold for it.
    pub is_scheduled: bool,
    /// What the worker's labels must be.
    pub labels: BTreeMap<String, String>,
}

/// Jobs of one kind, those that may begin first first.
type Line = BTreeSet<(Time, JobId)>;

/// Computed from jobs and items.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Queue {
    waiting: BTreeMap<Place, BTreeMap<Kind, Line>>,
    running_in: BTreeMap<VaultId, u64>,
    running_under: BTreeMap<Option<PolicyId>, u64>,
}

fn place_and_kind(job: &Job, items: &Table<ItemId, Item>) -> (Place, Kind) {
    let mut kind = Kind {
        priority: Reverse(job.spec.priority),
        vault: job.spec.vault,
        policy: None,
        is_scheduled: job.spec.occurrence.is_some(),
        labels: BTreeMap::new(),
    };
    let place = match &job.spec.work {
        Work::Backup { item, .. } => match items.get(item).map(|item| &item.spec) {
            Some(spec) => {
                kind.policy = spec.policy;
                kind.labels.clone_from(&spec.worker_labels);
                if spec.host.is_empty() {
                    Place::Anywhere
                } else {
                    Place::Host(spec.host.clone())
                }
            }
            None => Place::Anywhere,
        },
        // Its name alone: files of a restore belong on the one machine that was named.
        Work::Restore { host, .. } => Place::Worker(host.clone()),
        Work::Verify { .. } | Work::Claim | Work::Catalogue => Place::Anywhere,
    };
    (place, kind)
}

impl Queue {
    pub(super) fn add(&mut self, id: JobId, job: &Job, items: &Table<ItemId, Item>) {
        match job.state {
            JobState::Queued { not_before } => {
                let (place, kind) = place_and_kind(job, items);
                let kinds = self.waiting.entry(place).or_default();
                kinds.entry(kind).or_default().insert((not_before, id));
            }
            JobState::Leased => {
                *self.running_in.entry(job.spec.vault).or_default() += 1;
                let (_, kind) = place_and_kind(job, items);
                *self.running_under.entry(kind.policy).or_default() += 1;
            }
            JobState::Done { .. } | JobState::Failed | JobState::Cancelled => {}
        }
    }

    /// The job and its item are as they were when it was added.
    pub(super) fn remove(&mut self, id: JobId, job: &Job, items: &Table<ItemId, Item>) {
        match job.state {
            JobState::Queued { not_before } => {
                let (place, kind) = place_and_kind(job, items);
                let Some(kinds) = self.waiting.get_mut(&place) else {
                    return;
                };
                if let Some(line) = kinds.get_mut(&kind) {
                    line.remove(&(not_before, id));
                    if line.is_empty() {
                        kinds.remove(&kind);
                    }
                }
                if kinds.is_empty() {
                    self.waiting.remove(&place);
                }
            }
            JobState::Leased => {
                super::views::decrease(&mut self.running_in, job.spec.vault);
                let (_, kind) = place_and_kind(job, items);
                super::views::decrease(&mut self.running_under, kind.policy);
            }
            JobState::Done { .. } | JobState::Failed | JobState::Cancelled => {}
        }
    }
}

/// Lookups.
impl State {
    /// Jobs that wait for a worker at a place, by kind, the most urgent kinds first; of each kind by the time at which they may begin.
    pub fn waiting_at(&self, place: &Place) -> impl Iterator<Item = (&Kind, impl Iterator<Item = (Time, JobId)>)> {
        let kinds = self.views.queue.waiting.get(place);
        kinds
            .into_iter()
            .flatten()
            .map(|(kind, line)| (kind, line.iter().copied()))
    }

    /// How many jobs of a vault run.
    pub fn running_in(&self, vault: VaultId) -> u64 {
        self.views.queue.running_in.get(&vault).copied().unwrap_or(0)
    }

    /// How many backups of items with this policy run; with none, also everything that is no backup.
    pub fn running_under(&self, policy: Option<PolicyId>) -> u64 {
        self.views.queue.running_under.get(&policy).copied().unwrap_or(0)
    }

    /// Sets an item and keeps the views in step, that of its open backup too: it waits where its item says.
    pub(super) fn set_item(&mut self, id: ItemId, item: Item) {
        let job = self.open_backup(id);
        let job = job.and_then(|job| Some((job, self.jobs.get(&job)?)));
        if let Some((number, job)) = job {
            self.views.queue.remove(number, job, &self.items);
        }
        if let Some(before) = self.items.get(&id) {
            self.views.remove_item(id, before);
        }
        self.views.add_item(id, &item);
        self.items.insert(id, item);
        if let Some((number, job)) = job {
            self.views.queue.add(number, job, &self.items);
        }
    }
}
