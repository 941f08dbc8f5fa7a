//! Policies: what they say was checked by who proposed it; here only their names, versions and uses count.

use std::collections::BTreeSet;

use tresor_proto::ids::{ItemId, PolicyId};

use super::command::PolicySpec;
use super::entry::Time;
use super::reply::{Refusal, Reply};
use super::rows::Policy;
use super::texts::{LONG_LINE_MAX, check_line, check_long_line, check_name};
use super::{State, VAULTS_MAX};

/// Windows of a policy: one for each hour of a week.
const WINDOWS_MAX: usize = 168;

fn check_policy(spec: &PolicySpec) -> Result<(), Refusal> {
    check_name(&spec.name)?;
    check_long_line("schedule", &spec.schedule, LONG_LINE_MAX)?;
    check_line("zone", &spec.zone)?;
    if spec.windows.len() > WINDOWS_MAX {
        return Err(Refusal::invalid("windows", format!("at most {WINDOWS_MAX} fit")));
    }
    for window in &spec.windows {
        check_line("windows", window)?;
    }
    check_long_line("retention", &spec.retention, LONG_LINE_MAX)
}

impl State {
    /// Since when occurrences of its schedule count for an item; none where it has no policy.
    pub fn due_since(&self, item: ItemId) -> Option<Time> {
        let item = self.items.get(&item)?;
        let policy = self.policies.get(&item.spec.policy?)?;
        Some(item.since.max(policy.since))
    }

    pub(super) fn create_policy(&mut self, index: u64, id: PolicyId, spec: &PolicySpec) -> Result<Reply, Refusal> {
        check_policy(spec)?;
        if self.views.policy_names.contains_key(&spec.name) || self.policies.contains(&id) {
            return Err(Refusal::exists("policy", &spec.name));
        }
        if self.policies.len() as u64 >= VAULTS_MAX {
            return Err(Refusal::Full {
                what: String::from("policies"),
                max: VAULTS_MAX,
            });
        }
        self.views.policy_names.insert(spec.name.clone(), id);
        let row = Policy {
            spec: spec.clone(),
            version: index,
            since: self.clock.now,
        };
        self.policies.insert(id, row);
        Ok(Reply::Made(index))
    }

    pub(super) fn update_policy(
        &mut self,
        index: u64,
        id: PolicyId,
        version: u64,
        spec: &PolicySpec,
    ) -> Result<Reply, Refusal> {
        check_policy(spec)?;
        let Some(policy) = self.policies.get(&id) else {
            return Err(Refusal::missing("policy", id));
        };
        if version != 0 && version != policy.version {
            return Err(Refusal::fenced(format!(
                "policy {} was changed meanwhile: look at it again",
                policy.spec.name
            )));
        }
        let taken = self.views.policy_names.get(&spec.name);
        if taken.is_some_and(|other| *other != id) {
            return Err(Refusal::exists("policy", &spec.name));
        }
        let before = policy.spec.name.clone();
        // Occurrences of the new schedule that lie before it was set were never missed. It stands in the policy: its items may be a hundred thousand rows.
        let as_before = policy.spec.schedule == spec.schedule && policy.spec.zone == spec.zone;
        let since = if as_before { policy.since } else { self.clock.now };
        self.views.policy_names.remove(&before);
        self.views.policy_names.insert(spec.name.clone(), id);
        let row = Policy {
            spec: spec.clone(),
            version: index,
            since,
        };
        self.policies.insert(id, row);
        // Every vault whose items have it says it in its catalogue.
        let items = self.items.iter().filter(|(_, item)| item.spec.policy == Some(id));
        let vaults: BTreeSet<_> = items.map(|(_, item)| item.spec.vault).collect();
        for vault in vaults {
            self.catalogue_falls_behind(vault);
        }
        Ok(Reply::Made(index))
    }

    pub(super) fn remove_policy(&mut self, id: PolicyId) -> Result<Reply, Refusal> {
        let Some(policy) = self.policies.get(&id) else {
            return Err(Refusal::missing("policy", id));
        };
        let name = policy.spec.name.clone();
        if self.items_under(id) > 0 {
            return Err(Refusal::held(format!(
                "policy {name} is that of {} items: give them another one first",
                self.items_under(id)
            )));
        }
        self.views.policy_names.remove(&name);
        self.policies.remove(&id);
        Ok(Reply::Done)
    }
}
