//! Vaults: entered, claimed by a worker's job, forgotten.

use std::collections::BTreeSet;

use tresor_proto::ids::{JobId, PointId, VaultId};

use super::command::{JobSpec, VaultSpec, Work};
use super::entry::Actor;
use super::jobs::waits_until;
use super::reply::{Refusal, Reply};
use super::rows::{JobState, Vault, VaultState};
use super::texts::{BATCH_MAX, LONG_LINE_MAX, check_batch, check_blob, check_line, check_long_line, check_name};
use super::{State, VAULTS_MAX};

impl State {
    /// Enters a vault and queues the job that makes or claims it; answers with the job's number.
    pub(super) fn add_vault(&mut self, index: u64, actor: &Actor, spec: &VaultSpec) -> Result<Reply, Refusal> {
        check_name(&spec.name)?;
        check_long_line("url", &spec.url, LONG_LINE_MAX)?;
        check_line("region", &spec.region)?;
        check_line("profile", &spec.profile)?;
        check_blob("key", &spec.key)?;
        if self.views.vault_names.contains_key(&spec.name) {
            return Err(Refusal::exists("vault", &spec.name));
        }
        if let Some(other) = self.vaults.get(&spec.vault) {
            return Err(Refusal::exists("vault", &other.spec.name));
        }
        if let Some(other) = self.vaults.values().find(|vault| vault.spec.url == spec.url) {
            return Err(Refusal::Exists {
                what: String::from("vault"),
                name: other.spec.name.clone(),
                beside: format!(" at {}", spec.url),
            });
        }
        if self.vaults.len() as u64 >= VAULTS_MAX {
            return Err(Refusal::Full {
                what: String::from("vaults"),
                max: VAULTS_MAX,
            });
        }
        self.check_room_for_job()?;
        self.clock.vaults = index;
        let now = self.clock.now;
        self.views.vault_names.insert(spec.name.clone(), spec.vault);
        self.vaults.insert(
            spec.vault,
            Vault {
                spec: spec.clone(),
                state: VaultState::Claiming,
                findings: 0,
                catalogue: None,
                changed: 0,
                verified: None,
                bytes_stored: 0,
                added: now,
            },
        );
        let job = JobSpec {
            vault: spec.vault,
            work: Work::Claim,
            priority: 0,
            not_before: now,
            occurrence: None,
        };
        Ok(self.queue(index, actor, &job))
    }

    /// Forgets a vault, a batch of rows with each entry: it may have millions.
    ///
    /// Its points are not given up, since its objects stay: if it is claimed again, they are found again. What was given up of it before stays so.
    pub(super) fn remove_vault(&mut self, id: VaultId) -> Result<Reply, Refusal> {
        let Some(vault) = self.vaults.get(&id) else {
            return Err(Refusal::missing("vault", id));
        };
        if vault.state != VaultState::Removing {
            let name = &vault.spec.name;
            if self.items_in(id) > 0 {
                return Err(Refusal::held(format!(
                    "vault {name} protects {} items: unprotect them, or protect them in another vault",
                    self.items_in(id)
                )));
            }
            // What only keeps the vault goes with it; what somebody asked for is theirs to cancel.
            let waiting = |job: &JobId| self.jobs.get(job).is_some_and(|job| waits_until(job.state).is_some());
            let upkeep = [true, false]
                .into_iter()
                .filter_map(|claims| self.open_upkeep(id, claims));
            let upkeep: Vec<JobId> = upkeep.filter(waiting).collect();
            let others = self.open_jobs_in(id) - upkeep.len() as u64;
            if others > 0 {
                return Err(Refusal::held(format!(
                    "{others} jobs wait or run in vault {name}: cancel them or wait"
                )));
            }
            for job in upkeep {
                self.end_job(job, JobState::Cancelled);
            }
            if let Some(vault) = self.vaults.get_mut(&id) {
                vault.state = VaultState::Removing;
            }
            self.clock.vaults = self.clock.applied;
        }
        let dropped = self.drop_rows_of(id, BATCH_MAX);
        if self.first_item_in(id).is_some() {
            return Ok(Reply::Changed(dropped));
        }
        if let Some(vault) = self.vaults.remove(&id) {
            self.views.vault_names.remove(&vault.spec.name);
        }
        self.clock.vaults = self.clock.applied;
        Ok(Reply::Done)
    }

    /// Drops items and points of a vault, at most so many; returns how many went.
    fn drop_rows_of(&mut self, id: VaultId, max: usize) -> u64 {
        let mut left = max;
        while left > 0
            && let Some(item) = self.first_item_in(id)
        {
            let points: Vec<PointId> = self.points_of(item).take(left).collect();
            left -= points.len();
            for point in points {
                self.drop_point(point);
            }
            if left > 0
                && let Some(row) = self.items.remove(&item)
            {
                self.views.remove_item(item, &row);
                left -= 1;
            }
        }
        (max - left) as u64
    }

    pub(super) fn report_findings(&mut self, index: u64, id: VaultId, harmed: &[PointId]) -> Result<Reply, Refusal> {
        check_batch("harmed", harmed)?;
        if !self.vaults.contains(&id) {
            return Err(Refusal::missing("vault", id));
        }
        Ok(Reply::Changed(self.note_findings(index, id, harmed)))
    }

    /// From here on a commit of this vault has to have looked at these findings.
    pub(super) fn note_findings(&mut self, index: u64, id: VaultId, harmed: &[PointId]) -> u64 {
        let mut count = 0;
        for &found in harmed {
            let of_vault = self.points.get(&found).and_then(|point| self.vault_of(point));
            if of_vault == Some(id)
                && let Some(point) = self.points.get_mut(&found)
            {
                count += 1;
                point.harmed = true;
                self.views.harmed_in.entry(id).or_default().insert(found);
            }
        }
        if let Some(vault) = self.vaults.get_mut(&id) {
            vault.findings = index;
        }
        self.catalogue_falls_behind(id);
        count
    }

    /// Points that a verify found whole are not harmed any more: the next backup has stored what was lost, or the store has healed.
    pub(super) fn clear_harm(&mut self, id: VaultId, looked_at: Option<PointId>, harmed: &[PointId]) {
        let still: BTreeSet<PointId> = harmed.iter().copied().collect();
        let harmed = self.views.harmed_in.get(&id).into_iter().flatten().copied();
        let whole: Vec<PointId> = harmed
            .filter(|point| looked_at.is_none_or(|looked_at| looked_at == *point) && !still.contains(point))
            .collect();
        for id_of_point in &whole {
            if let Some(point) = self.points.get_mut(id_of_point) {
                point.harmed = false;
            }
            self.views.forget_harm(id, *id_of_point);
        }
        if !whole.is_empty() {
            self.catalogue_falls_behind(id);
        }
    }

    /// The catalogue in the store no longer says everything.
    pub(super) fn catalogue_falls_behind(&mut self, id: VaultId) {
        let index = self.clock.applied;
        if self.vaults.get(&id).is_some_and(|vault| vault.changed < index)
            && let Some(vault) = self.vaults.get_mut(&id)
        {
            vault.changed = index;
        }
    }
}
