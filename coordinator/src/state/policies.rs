//! Policies: what they say was checked by who proposed it; here only their names, versions and uses count.

use tresor_proto::ids::PolicyId;

use super::command::PolicySpec;
use super::reply::{Refusal, Reply};
use super::rows::Policy;
use super::vaults::check_name;
use super::{State, VAULTS_MAX};

impl State {
    pub(super) fn create_policy(&mut self, index: u64, id: PolicyId, spec: &PolicySpec) -> Result<Reply, Refusal> {
        check_name(&spec.name)?;
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
        check_name(&spec.name)?;
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
        let new_schedule = policy.spec.schedule != spec.schedule || policy.spec.zone != spec.zone;
        self.views.policy_names.remove(&before);
        self.views.policy_names.insert(spec.name.clone(), id);
        let row = Policy {
            spec: spec.clone(),
            version: index,
        };
        self.policies.insert(id, row);
        if new_schedule {
            // Occurrences of the new schedule that lie before it was set were never missed.
            let now = self.clock.now;
            let items: Vec<_> = self
                .items
                .iter()
                .filter(|(_, item)| item.spec.policy == Some(id))
                .map(|(item, _)| *item)
                .collect();
            for item in items {
                if let Some(item) = self.items.get_mut(&item) {
                    item.since = now;
                }
            }
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
                "policy {name} protects {} items: give them another one first",
                self.items_under(id)
            )));
        }
        self.views.policy_names.remove(&name);
        self.policies.remove(&id);
        Ok(Reply::Done)
    }
}
