//! What holds after every entry.
//!
//! 1. A job runs if and only if its newest attempt has no end and its session is open, under the attempt's epoch.
//! 2. A session belongs to a running job; no two sessions belong to one job.
//! 3. A job that is done and backed up has made exactly one point, and no point was made by two jobs.
//! 4. A pinned point is in the table; so are the item of every point, the vault and the policy of every item, the vault of every open job. A vault that
//!    is being removed has no open job and protects nothing.
//! 5. An item has at most one open backup.
//! 6. A point is in the table or given up, not both.
//! 7. Epochs, sessions and jobs have numbers no greater than the index of the last entry.
//! 8. What is computed from the rows is as if computed anew. No table exceeds its bound.
//! 9. A limit of a job or a worker is of one that is there and not over.
//! 10. A slot belongs to a worker that is not removed and serves, under a grant no newer than the newest one, which began its lineage or came after it.
//! 11. A message that waits is of a channel that is there, and no channel has more of them than its bound.
//! 12. A kept log is of an attempt that is remembered; all of them are within their bounds.

use std::collections::{BTreeMap, BTreeSet};

use super::channels::{CHANNELS_MAX, WAITING_MAX};
use super::command::Work;
use super::limits::{LIMITS_MAX, LimitSubject};
use super::rows::{JobState, VaultState};
use super::views::Views;
use super::{
    ANSWERS_MAX, AUDIT_MAX, ENDED_JOBS_MAX, GIVEN_UP_MAX, ITEMS_MAX, NODES_MAX, OPEN_JOBS_MAX, POINTS_MAX, SLOTS,
    State, TOKENS_MAX, VAULTS_MAX,
};

/// Up to so many rows everything is checked after every entry; above, after every so many entries.
#[cfg(debug_assertions)]
const CHECKED_ALWAYS: usize = 200;

impl State {
    #[cfg(debug_assertions)]
    pub(super) fn assert_invariants(&self, index: u64) {
        // Slots change rarely and all of them at once: they are looked at when they do.
        let rows = self.rows_count() - self.slots.len();
        let granted = self.clock.slot_map == index;
        let due = rows <= CHECKED_ALWAYS || granted || index.is_multiple_of((rows * 8) as u64);
        if due && let Err(broken) = self.check_invariants(index) {
            panic!("after entry {index}: {broken}");
        }
    }

    /// Checks all of them; costs a pass over all rows.
    ///
    /// # Errors
    /// The first that does not hold, in words.
    pub fn check_invariants(&self, index: u64) -> Result<(), String> {
        let mut made = BTreeSet::new();
        let mut backups = BTreeSet::new();
        for (id, job) in self.jobs.iter() {
            let newest = job.attempts.last();
            let runs = matches!(job.state, JobState::Leased);
            let open = newest.is_some_and(|attempt| attempt.ended.is_none());
            if runs != open {
                return Err(format!(
                    "job {id} is {:?}, and its newest attempt {newest:?}",
                    job.state
                ));
            }
            if let (true, Some(attempt)) = (runs, newest) {
                match self.sessions.get(&attempt.session) {
                    Some(session) if session.job == *id && session.epoch == attempt.epoch => {}
                    other => return Err(format!("job {id} runs, and its session is {other:?}")),
                }
            }
            if job.state.is_final() != job.ended.is_some() {
                return Err(format!("job {id} is {:?} and ended at {:?}", job.state, job.ended));
            }
            if let JobState::Done { point } = job.state {
                let backs_up = matches!(job.spec.work, Work::Backup { .. });
                if backs_up != point.is_some() || point.is_some_and(|point| !made.insert(point)) {
                    return Err(format!("job {id} is done and made {point:?}"));
                }
            }
            if let (Work::Backup { item, .. }, false) = (&job.spec.work, job.state.is_final())
                && !backups.insert(*item)
            {
                return Err(format!("item {item} has two open backups"));
            }
            if !job.state.is_final()
                && self
                    .vaults
                    .get(&job.spec.vault)
                    .is_none_or(|vault| vault.state == VaultState::Removing)
            {
                return Err(format!(
                    "job {id} is open, and its vault {} is gone or going",
                    job.spec.vault
                ));
            }
            if id.0 > index || newest.is_some_and(|attempt| attempt.epoch.0 > index) {
                return Err(format!("job {id} has a number that no entry gave"));
            }
        }
        let mut jobs = BTreeSet::new();
        for (id, session) in self.sessions.iter() {
            let runs = self.jobs.get(&session.job).and_then(|job| job.running());
            if id.0 > index || session.epoch.0 > index {
                return Err(format!("session {id} has a number that no entry gave"));
            }
            if runs.is_none_or(|attempt| attempt.session != *id) || !jobs.insert(session.job) {
                return Err(format!(
                    "session {id} belongs to job {}, which does not run it",
                    session.job
                ));
            }
            if let Some(point) = session.pins.iter().find(|point| !self.points.contains(point)) {
                return Err(format!("session {id} pins {point}, which is gone"));
            }
        }
        for (id, point) in self.points.iter() {
            if !self.items.contains(&point.item) {
                return Err(format!("point {id} is of item {}, which is gone", point.item));
            }
            if self.given_up.contains(id) {
                return Err(format!("point {id} is there and given up"));
            }
        }
        for (id, item) in self.items.iter() {
            let Some(vault) = self.vaults.get(&item.spec.vault) else {
                return Err(format!("item {id} is in vault {}, which is gone", item.spec.vault));
            };
            if item.protected && vault.state == VaultState::Removing {
                return Err(format!("item {id} is protected in a vault that is being removed"));
            }
            if item.spec.policy.is_some_and(|policy| !self.policies.contains(&policy)) {
                return Err(format!("item {id} has policy {:?}, which is gone", item.spec.policy));
            }
        }
        self.check_slot_rows()?;
        for (subject, _) in self.limits.iter() {
            let is_over = match subject {
                LimitSubject::Job(id) => self.jobs.get(id).is_none_or(|job| job.state.is_final()),
                LimitSubject::Worker(id) => self.workers.get(id).is_none_or(|worker| worker.removed),
                LimitSubject::Store(_) | LimitSubject::Host(_) => false,
            };
            if is_over {
                return Err(format!("there is a limit of {subject}, which is over"));
            }
        }
        let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, parcel) in self.outbox.iter() {
            if !self.channels.contains(&parcel.channel) {
                return Err(format!(
                    "message {number} is of channel {}, which is gone",
                    parcel.channel
                ));
            }
            *waiting.entry(&parcel.channel).or_default() += 1;
        }
        if let Some((channel, count)) = waiting.into_iter().find(|(_, count)| *count > WAITING_MAX) {
            return Err(format!("{count} messages wait for channel {channel}"));
        }
        let bounds = [
            ("points", self.points.len(), POINTS_MAX as usize),
            ("points that are given up", self.given_up.len(), GIVEN_UP_MAX),
            ("items", self.items.len(), ITEMS_MAX as usize),
            ("open jobs", self.views.open.len(), OPEN_JOBS_MAX as usize),
            ("ended jobs", self.views.ended.len(), ENDED_JOBS_MAX),
            ("vaults", self.vaults.len(), VAULTS_MAX as usize),
            ("policies", self.policies.len(), VAULTS_MAX as usize),
            // Those of a lost cluster stay beside those of the one that was founded again from it.
            ("workers", self.workers.len(), 2 * NODES_MAX as usize),
            ("coordinators", self.members.len(), 2 * NODES_MAX as usize),
            ("tokens", self.tokens.len(), TOKENS_MAX as usize),
            ("audit entries", self.audit.len(), AUDIT_MAX),
            ("answers", self.answers.len(), ANSWERS_MAX),
            ("slots", self.slots.len(), usize::from(SLOTS)),
            ("limits", self.limits.len(), LIMITS_MAX),
            ("channels", self.channels.len(), CHANNELS_MAX),
        ];
        if let Some((what, there, max)) = bounds.into_iter().find(|(_, there, max)| there > max) {
            return Err(format!("there are {there} {what}, and {max} fit"));
        }
        self.check_logs()?;
        if self.marks.get(&()).is_some_and(|marks| *marks != self.clock) {
            return Err(String::from("the clock and its row differ"));
        }
        if Views::of(self) != self.views {
            return Err(String::from(
                "what is computed from the rows is not as if computed anew",
            ));
        }
        self.verify_audit().map_err(|e| e.to_string())
    }
}
