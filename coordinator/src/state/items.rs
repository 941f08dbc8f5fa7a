//! Items: protected machines.

use std::collections::BTreeSet;

use tresor_proto::ids::{ItemId, VaultId};

use super::command::ItemSpec;
use super::reply::{Refusal, Reply};
use super::rows::{Item, VaultState};
use super::texts::{check_label, check_labels, check_line, check_path};
use super::{ITEMS_MAX, State};

/// Disks of an item.
const DISKS_MAX: usize = 128;

impl State {
    fn check_policy_of(&self, spec: &ItemSpec) -> Result<(), Refusal> {
        match spec.policy {
            Some(policy) if !self.policies.contains(&policy) => Err(Refusal::missing("policy", policy)),
            _ => Ok(()),
        }
    }

    /// An item of that name in that vault which is not protected any more: the one with the newest point, if there are several (of other clusters).
    fn former_item(&self, name: &str, vault: VaultId) -> Option<ItemId> {
        self.items_named(name)
            .filter(|id| {
                self.items
                    .get(id)
                    .is_some_and(|item| item.spec.vault == vault && !item.protected)
            })
            .max_by_key(|id| {
                let newest = self.points_of(*id).next();
                newest.and_then(|point| self.points.get(&point)).map(|point| point.time)
            })
    }

    fn check_item(&self, id: ItemId, spec: &ItemSpec, also: bool) -> Result<(), Refusal> {
        check_label("name", &spec.name)?;
        let Some(vault) = self.vaults.get(&spec.vault) else {
            return Err(Refusal::missing("vault", spec.vault));
        };
        if vault.state == VaultState::Removing {
            return Err(Refusal::held(format!("vault {} is being removed", vault.spec.name)));
        }
        self.check_policy_of(spec)?;
        if spec.disks.is_empty() || spec.disks.len() > DISKS_MAX {
            return Err(Refusal::invalid("disks", format!("1 to {DISKS_MAX} are needed")));
        }
        let mut names = BTreeSet::new();
        for disk in &spec.disks {
            check_label("disks.name", &disk.name)?;
            check_path("disks.path", &disk.path)?;
            check_line("disks.format", &disk.format)?;
            if !names.insert(&disk.name) {
                return Err(Refusal::invalid("disks.name", format!("{} is there twice", disk.name)));
            }
        }
        check_line("host", &spec.host)?;
        check_labels("labels", &spec.labels)?;
        check_labels("worker_labels", &spec.worker_labels)?;
        for other in self.items_named(&spec.name).filter(|other| *other != id) {
            let Some(other) = self.items.get(&other).filter(|other| other.protected) else {
                continue;
            };
            if other.spec.vault == spec.vault {
                return Err(Refusal::Exists {
                    what: String::from("item"),
                    name: spec.name.clone(),
                    beside: format!(" in vault {}", vault.spec.name),
                });
            }
            if !also {
                let holder = self.vaults.get(&other.spec.vault);
                return Err(Refusal::Exists {
                    what: String::from("item"),
                    name: spec.name.clone(),
                    beside: format!(" in vault {}", holder.map_or("?", |vault| &vault.spec.name)),
                });
            }
        }
        Ok(())
    }

    pub(super) fn protect(&mut self, index: u64, id: ItemId, spec: &ItemSpec, also: bool) -> Result<Reply, Refusal> {
        self.check_item(id, spec, also)?;
        if self.items.contains(&id) {
            return Err(Refusal::exists("item", id));
        }
        // A machine that was protected in this vault before goes on where it was: its points and its next parent are those.
        let before = self.former_item(&spec.name, spec.vault);
        if before.is_none() && self.items.len() as u64 >= ITEMS_MAX {
            return Err(Refusal::Full {
                what: String::from("items"),
                max: ITEMS_MAX,
            });
        }
        let now = self.clock.now;
        let (id, mut item) = match before {
            Some(before) => {
                let item = self.items.get(&before).expect("views are of rows").clone();
                (before, item)
            }
            None => (
                id,
                Item {
                    spec: spec.clone(),
                    version: index,
                    protected: true,
                    since: now,
                    last_occurrence: None,
                    last_success: None,
                    failures: 0,
                    last_failure: None,
                },
            ),
        };
        item.spec = spec.clone();
        item.version = index;
        item.protected = true;
        item.since = now;
        self.set_item(id, item);
        self.catalogue_falls_behind(spec.vault);
        Ok(Reply::Item(id))
    }

    pub(super) fn update_item(
        &mut self,
        index: u64,
        id: ItemId,
        version: u64,
        spec: &ItemSpec,
    ) -> Result<Reply, Refusal> {
        let Some(before) = self.items.get(&id).cloned() else {
            return Err(Refusal::missing("item", id));
        };
        if version != 0 && version != before.version {
            return Err(Refusal::fenced(format!(
                "item {} was changed meanwhile: look at it again",
                before.spec.name
            )));
        }
        if spec.vault != before.spec.vault {
            return Err(Refusal::invalid(
                "vault",
                "an item stays in its vault: protect the machine in the other one and unprotect this item",
            ));
        }
        if before.protected {
            // A new name is asked for as when protecting; one that is there twice already was.
            self.check_item(id, spec, spec.name == before.spec.name)?;
        } else {
            // Its points go on expiring by a policy, which people must be able to change, or to take away.
            let mut policy_only = before.spec.clone();
            policy_only.policy = spec.policy;
            if policy_only != *spec {
                return Err(Refusal::held(format!(
                    "item {} is not protected: only its policy can be changed",
                    before.spec.name
                )));
            }
            self.check_policy_of(spec)?;
        }
        let mut item = before.clone();
        if spec.policy != before.spec.policy {
            item.since = self.clock.now;
        }
        item.spec = spec.clone();
        item.version = index;
        self.set_item(id, item);
        self.catalogue_falls_behind(spec.vault);
        Ok(Reply::Done)
    }

    pub(super) fn unprotect(&mut self, id: ItemId) -> Result<Reply, Refusal> {
        let Some(before) = self.items.get(&id).cloned() else {
            return Err(Refusal::missing("item", id));
        };
        if !before.protected {
            return Err(Refusal::held(format!("item {} is not protected", before.spec.name)));
        }
        if let Some(job) = self.open_backup(id) {
            self.cancel(job)?;
        }
        // The policy stays: its retention goes on for the points that are there.
        let mut item = before.clone();
        item.protected = false;
        self.set_item(id, item);
        self.catalogue_falls_behind(before.spec.vault);
        self.drop_item_if_empty(id);
        Ok(Reply::Done)
    }

    /// An item that is neither protected nor has points is forgotten.
    pub(super) fn drop_item_if_empty(&mut self, id: ItemId) {
        let empty = self.items.get(&id).is_some_and(|item| !item.protected)
            && self.points_of(id).next().is_none()
            && self.open_backup(id).is_none();
        if empty && let Some(item) = self.items.remove(&id) {
            self.views.remove_item(id, &item);
        }
    }
}
