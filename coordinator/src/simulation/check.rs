//! What was told to whom, and what must follow from it.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::{Epoch, ItemId, JobId, MemberId, PointId, SessionId, WorkerId};

use super::member::Seen;
use crate::seeded::Random;
use crate::state::State;
use crate::state::command::Work;
use crate::state::rows::JobState;

/// What the outside knows: workers' own deeds, and everything that was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Manifests that are stored, and by which attempt.
    stored: BTreeMap<PointId, (JobId, Epoch)>,
    /// Completions that were acknowledged.
    completed: BTreeMap<JobId, (Epoch, PointId)>,
    /// Completions that were refused for good: the worker has deleted the manifest.
    refused: BTreeSet<PointId>,
    leases: BTreeMap<(JobId, Epoch), WorkerId>,
    /// The attempt that each session was given to.
    sessions: BTreeMap<SessionId, (JobId, Epoch)>,
    protected: BTreeSet<ItemId>,
    /// What had been acknowledged when a read was asked for.
    reads: BTreeMap<u64, (BTreeSet<ItemId>, BTreeSet<PointId>)>,
    digests: BTreeMap<u64, ([u8; 32], MemberId)>,
    /// What was found to be wrong; the first counts.
    wrong: Option<String>,
}

impl Ledger {
    fn say(&mut self, wrong: impl FnOnce() -> String) {
        self.wrong.get_or_insert_with(wrong);
    }

    /// What was found to be wrong.
    pub(super) fn wrong(&self) -> Result<(), String> {
        self.wrong.clone().map_or(Ok(()), Err)
    }

    pub(super) fn stored(&mut self, point: PointId, job: JobId, epoch: Epoch) {
        self.stored.insert(point, (job, epoch));
    }

    /// A lease has one holder, and a session is given to one attempt: what a late attempt still sends under its session must never be taken for
    /// another's.
    pub(super) fn leased(&mut self, job: JobId, epoch: Epoch, session: SessionId, worker: WorkerId) {
        let holder = *self.leases.entry((job, epoch)).or_insert(worker);
        if holder != worker {
            self.say(|| format!("job {job} was leased to workers {holder} and {worker} under epoch {epoch}"));
        }
        let given = *self.sessions.entry(session).or_insert((job, epoch));
        if given != (job, epoch) {
            self.say(|| format!("session {session} was given to jobs {given:?} and {:?}", (job, epoch)));
        }
    }

    pub(super) fn some_lease(&self, random: &mut Random) -> Option<JobId> {
        let leases: Vec<JobId> = self.leases.keys().rev().take(5).map(|(job, _)| *job).collect();
        (!leases.is_empty()).then(|| leases[random.place(leases.len())])
    }

    pub(super) fn completed(&mut self, job: JobId, epoch: Epoch, point: PointId) {
        if let Some((other, before)) = self.completed.insert(job, (epoch, point))
            && before != point
        {
            self.say(|| format!("job {job} was completed under epochs {other} and {epoch}"));
        }
    }

    pub(super) fn refused(&mut self, point: PointId) {
        self.refused.insert(point);
    }

    pub(super) fn protected(&mut self, item: ItemId) {
        self.protected.insert(item);
    }

    pub(super) fn asks_to_read(&mut self, number: u64) {
        let points = self.completed.values().map(|(_, point)| *point).collect();
        self.reads.insert(number, (self.protected.clone(), points));
    }

    /// A read sees everything that was acknowledged before it was asked for.
    pub(super) fn saw(&mut self, number: u64, seen: &Seen) {
        let Some((items, points)) = self.reads.remove(&number) else {
            return;
        };
        if let Some(item) = items.iter().find(|item| !seen.items.contains(item)) {
            self.say(|| format!("a read does not see item {item}, which was acknowledged before it"));
        }
        if let Some(point) = points.iter().find(|point| !seen.points.contains(point)) {
            self.say(|| format!("a read does not see point {point}, which was acknowledged before it: {seen:?}"));
        }
    }

    /// Members that applied the same entries have the same state.
    pub(super) fn compare(&mut self, member: MemberId, applied: u64, state: &State) {
        let digest = state.digest();
        let (other, first) = *self.digests.entry(applied).or_insert((digest, member));
        if other != digest {
            self.say(|| format!("members {first} and {member} differ after entry {applied}"));
        }
        if let Err(broken) = state.check_invariants(applied) {
            self.say(|| format!("member {member} after entry {applied}: {broken}"));
        }
    }

    /// When everything is healed and done.
    pub(super) fn at_the_end(&mut self, state: &State) -> Result<(), String> {
        self.wrong()?;
        for (job, (epoch, point)) in &self.completed {
            let row = state.jobs().get(job);
            if row.map(|row| row.state) != Some(JobState::Done { point: Some(*point) }) {
                return Err(format!(
                    "job {job} was acknowledged as done under epoch {epoch} with point {point}, and is {:?}",
                    row.map(|row| row.state)
                ));
            }
            if !state.points().contains(point) {
                return Err(format!("point {point} was acknowledged and is gone"));
            }
        }
        if let Some(item) = self.protected.iter().find(|item| !state.items().contains(item)) {
            return Err(format!("item {item} was acknowledged and is gone"));
        }
        let mut made = BTreeMap::new();
        for (id, job) in state.jobs().iter() {
            let JobState::Done { point: Some(point) } = job.state else {
                continue;
            };
            let Some(attempt) = job.attempts.last() else {
                return Err(format!("job {id} is done without an attempt"));
            };
            if let Some(other) = made.insert(point, *id) {
                return Err(format!("jobs {other} and {id} made one point"));
            }
            // The point is that of the attempt that had the lease when it was taken.
            if self.stored.get(&point) != Some(&(*id, attempt.epoch)) {
                return Err(format!(
                    "job {id} ended under epoch {}, with a point that was stored under {:?}",
                    attempt.epoch,
                    self.stored.get(&point)
                ));
            }
        }
        for (id, _) in state.points().iter() {
            if !made.contains_key(id) {
                return Err(format!("point {id} was made by no job that is done"));
            }
            if self.refused.contains(id) {
                return Err(format!("point {id} counts, and its worker was told that it does not"));
            }
        }
        let mut occurrences = BTreeSet::new();
        for (id, job) in state.jobs().iter() {
            if let (Work::Backup { item, .. }, Some(due)) = (&job.spec.work, job.spec.occurrence)
                && !occurrences.insert((*item, due))
            {
                return Err(format!("job {id} is the second for one occurrence of item {item}"));
            }
        }
        Ok(())
    }

    /// How much happened: a run in which nothing does shows nothing.
    pub(super) fn completions(&self) -> usize {
        self.completed.len()
    }
}
