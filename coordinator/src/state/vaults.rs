//! Vaults: entered, claimed by a worker's job, forgotten.

use tresor_proto::ids::{PointId, VaultId};

use super::command::{JobSpec, VaultSpec, Work};
use super::entry::Actor;
use super::reply::{Refusal, Reply};
use super::rows::{Vault, VaultState};
use super::{State, VAULTS_MAX};

impl State {
    /// Enters a vault and queues the job that makes or claims it; answers with the job's number.
    pub(super) fn add_vault(&mut self, index: u64, actor: &Actor, spec: &VaultSpec) -> Result<Reply, Refusal> {
        check_name(&spec.name)?;
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
        let now = self.clock.now;
        self.views.vault_names.insert(spec.name.clone(), spec.vault);
        self.vaults.insert(
            spec.vault,
            Vault {
                spec: spec.clone(),
                state: VaultState::Claiming,
                findings: 0,
                catalogue: None,
                catalogue_behind: false,
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

    pub(super) fn remove_vault(&mut self, id: VaultId) -> Result<Reply, Refusal> {
        let Some(vault) = self.vaults.get(&id) else {
            return Err(Refusal::missing("vault", id));
        };
        let name = vault.spec.name.clone();
        let items: Vec<_> = self
            .items
            .iter()
            .filter(|(_, item)| item.spec.vault == id)
            .map(|(item, _)| *item)
            .collect();
        if self.items_in(id) > 0 {
            return Err(Refusal::held(format!(
                "vault {name} protects {} items: unprotect them, or protect them in another vault",
                self.items_in(id)
            )));
        }
        if self.sessions.values().any(|session| session.vault == id) {
            return Err(Refusal::held(format!("jobs run in vault {name}: cancel them or wait")));
        }
        let waiting: Vec<_> = self
            .views
            .open
            .iter()
            .filter(|job| self.jobs.get(job).is_some_and(|job| job.spec.vault == id))
            .copied()
            .collect();
        for job in waiting {
            self.cancel(job)?;
        }
        for item in items {
            let points: Vec<PointId> = self.points_of(item).collect();
            for point in points {
                self.drop_point(point);
            }
            if let Some(row) = self.items.remove(&item) {
                self.views.remove_item(item, &row);
            }
        }
        self.views.vault_names.remove(&name);
        self.vaults.remove(&id);
        Ok(Reply::Done)
    }

    pub(super) fn report_findings(&mut self, index: u64, id: VaultId, harmed: &[PointId]) -> Result<Reply, Refusal> {
        if !self.vaults.contains(&id) {
            return Err(Refusal::missing("vault", id));
        }
        Ok(Reply::Changed(self.note_findings(index, id, harmed)))
    }

    /// From here on a commit of this vault has to have looked at these findings.
    pub(super) fn note_findings(&mut self, index: u64, id: VaultId, harmed: &[PointId]) -> u64 {
        let mut count = 0;
        for id in harmed {
            if let Some(point) = self.points.get_mut(id) {
                point.harmed = true;
                count += 1;
            }
        }
        if let Some(vault) = self.vaults.get_mut(&id) {
            vault.findings = index;
        }
        count
    }

    /// The catalogue in the store no longer says everything.
    pub(super) fn catalogue_falls_behind(&mut self, id: VaultId) {
        if self.vaults.get(&id).is_some_and(|vault| !vault.catalogue_behind)
            && let Some(vault) = self.vaults.get_mut(&id)
        {
            vault.catalogue_behind = true;
        }
    }
}

/// 2–50 characters, first a letter, then letters, digits and hyphens.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let good = (2..=50).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good {
        Ok(())
    } else {
        Err(Refusal::invalid(
            "name",
            format!(
                "{:?} must have 2 to 50 characters: a letter, then letters, digits and hyphens",
                name.chars().take(60).collect::<String>()
            ),
        ))
    }
}

/// A name for people: 1–255 bytes without control characters.
pub(super) fn check_label(field: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            field,
            "must have 1 to 255 bytes and no control characters",
        ));
    }
    Ok(())
}
