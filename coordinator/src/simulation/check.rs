//! What was told to whom, and what must follow from it.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::{Epoch, ItemId, JobId, MemberId, PointId, SessionId, WorkerId};

use super::member::{SLOTS, Seen, SlotView};
use crate::seeded::Random;
use crate::state::State;
use crate::state::command::Work;
use crate::state::rows::{JobState, Slot};

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
    /// Every grant that any member ever had.
    grants: BTreeMap<(u16, u64), Slot>,
    /// What a point's commit rests on: slots, and the grants under which they answered.
    resting: BTreeMap<PointId, BTreeMap<u16, u64>>,
    /// What members had when they were looked at last.
    observed: BTreeMap<MemberId, Observed>,
    /// What processes believe to own.
    owners: BTreeMap<WorkerId, OwnerView>,
    /// What lies in the databases of workers' slots: since which grant, and which inserts.
    databases: BTreeMap<(WorkerId, u16), (u64, BTreeSet<u64>)>,
    /// Inserts that were acknowledged, by slot and the grant since which their owner keeps.
    acknowledged: BTreeMap<(u16, u64), BTreeSet<u64>>,
    inserts: u64,
    pub(super) refused_for_slots: usize,
    /// What was found to be wrong; the first counts.
    wrong: Option<String>,
}

#[derive(Debug, Default)]
struct Observed {
    applied: u64,
    slot_map: u64,
    slots: BTreeMap<u16, u64>,
    points: BTreeSet<PointId>,
}

#[derive(Debug, Default)]
struct OwnerView {
    life: [u8; 16],
    view: SlotView,
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

    /// Looks at what a member has applied since it was looked at: whether every grant has an epoch of its own, and whether a point came to count that rests on
    /// a slot which had been granted anew before.
    pub(super) fn observe(&mut self, member: MemberId, state: &State) {
        let mut before = self.observed.remove(&member).unwrap_or_default();
        let marks = state.marks();
        if before.applied == marks.applied {
            self.observed.insert(member, before);
            return;
        }
        for (point, _) in state
            .points()
            .iter()
            .filter(|(point, _)| !before.points.contains(point))
        {
            for (slot, epoch) in self.resting.get(point).into_iter().flatten() {
                // What the member had before this point: an older grant than that of the answer says only that it was behind.
                let had = before.slots.get(slot).copied().unwrap_or(before.slot_map);
                if had > *epoch {
                    let wrong = format!("point {point} counts and rests on slot {slot} of grant {epoch}, after {had}");
                    self.wrong.get_or_insert(wrong);
                }
            }
        }
        if before.slot_map != marks.slot_map {
            before.slots = state
                .slots()
                .iter()
                .map(|(slot, row)| (*slot, row.owner_epoch))
                .collect();
            for (slot, row) in state.slots().iter() {
                let granted = *self.grants.entry((*slot, row.owner_epoch)).or_insert(*row);
                if granted != *row {
                    self.say(|| format!("slot {slot} was granted twice under one epoch: {granted:?} and {row:?}"));
                }
            }
        }
        before.points.extend(state.points().iter().map(|(point, _)| *point));
        (before.applied, before.slot_map) = (marks.applied, marks.slot_map);
        self.observed.insert(member, before);
    }

    /// What the point will rest on, once it counts.
    pub(super) fn rests_on(&mut self, point: PointId, slots: &BTreeMap<u16, u64>) {
        self.resting.insert(point, slots.clone());
    }

    pub(super) fn was_moved(&mut self) {
        self.refused_for_slots += 1;
    }

    /// A worker's process has ended; its databases may be lost with it.
    pub(super) fn owner_died(&mut self, worker: WorkerId, is_lost: bool) {
        self.owners.remove(&worker);
        if is_lost {
            self.databases.retain(|(of, _), _| *of != worker);
        }
    }

    /// A process learns what it owns: it keeps what its database has since the very grant that the map says, and begins afresh otherwise. Says whether
    /// it owns anything, by which it uses its databases.
    pub(super) fn owns(&mut self, worker: WorkerId, life: [u8; 16], view: &SlotView) -> bool {
        let known = self.owners.entry(worker).or_default();
        if view.version < known.view.version {
            return false;
        }
        (known.life, known.view) = (life, view.clone());
        let own = |(_, row): &(&u16, &Slot)| row.worker == worker && row.life == life;
        let own: Vec<(u16, u64)> = view
            .slots
            .iter()
            .filter(own)
            .map(|(slot, row)| (*slot, row.since))
            .collect();
        for (slot, since) in &own {
            let database = self.databases.entry((worker, *slot)).or_default();
            if database.0 != *since {
                *database = (*since, BTreeSet::new());
            }
            let there = self.acknowledged.get(&(*slot, *since));
            if there.is_some_and(|inserts| !inserts.is_subset(&database.1)) {
                self.wrong.get_or_insert_with(|| {
                    format!("worker {worker} is said to have kept slot {slot} since {since}, and has not")
                });
            }
        }
        !own.is_empty()
    }

    /// Whether the owner of a slot takes an insert of a session; it is acknowledged then.
    pub(super) fn inserts(&mut self, owner: &Slot, slot: u16, session: SessionId) -> bool {
        let Some(process) = self.owners.get(&owner.worker) else {
            return false;
        };
        let view = &process.view;
        let Some(row) = view.slots.get(&slot).filter(|row| row.owner_epoch == owner.owner_epoch) else {
            return false;
        };
        let is_over = session.0 <= view.applied && !view.open.contains(&session);
        if row.worker != owner.worker || row.life != process.life || is_over {
            return false;
        }
        self.inserts += 1;
        let database = self.databases.entry((owner.worker, slot)).or_default();
        database.1.insert(self.inserts);
        self.acknowledged
            .entry((slot, row.since))
            .or_default()
            .insert(self.inserts);
        true
    }

    /// Whether every slot is answered for by a process that runs.
    pub(super) fn all_answer(&self, state: &State) -> bool {
        let runs = |row: &Slot| {
            self.owners
                .get(&row.worker)
                .is_some_and(|process| process.life == row.life)
        };
        state.slots().len() == usize::from(SLOTS) && state.slots().values().all(runs)
    }

    /// Slots that went from one worker to another.
    pub(super) fn moves(&self) -> usize {
        let rows: Vec<(&(u16, u64), &Slot)> = self.grants.iter().collect();
        let moved = |pair: &&[(&(u16, u64), &Slot)]| pair[0].0.0 == pair[1].0.0 && pair[0].1.worker != pair[1].1.worker;
        rows.windows(2).filter(moved).count()
    }

    /// How much happened: a run in which nothing does shows nothing.
    pub(super) fn completions(&self) -> usize {
        self.completed.len()
    }
}
