//! Points that were in a vault before the cluster knew it: of a catalogue, or of a home that it took over.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::VaultId;

use super::command::{AdoptedPoint, ItemSpec};
use super::entry::Time;
use super::reply::{Refusal, Reply};
use super::rows::{Item, Point, VaultState};
use super::texts::{check_batch, cleaned};
use super::{ITEMS_MAX, POINTS_MAX, State};

/// An item of which only points are known: nothing is backed up, and nothing expires, until a person says how.
fn item_of(found: &AdoptedPoint, vault: VaultId, version: u64, now: Time) -> Item {
    let name = cleaned(&found.item_name);
    Item {
        spec: ItemSpec {
            name: if name.is_empty() { found.item.to_string() } else { name },
            vault,
            policy: None,
            host: String::new(),
            worker_labels: BTreeMap::new(),
            labels: BTreeMap::new(),
            disks: Vec::new(),
            allow_live: false,
            allow_backing: false,
        },
        version,
        protected: false,
        since: now,
        last_occurrence: None,
        last_success: None,
        failures: 0,
        last_failure: None,
    }
}

impl State {
    /// Whether a point is to be taken in.
    fn is_adoptable(&self, vault: VaultId, found: &AdoptedPoint) -> bool {
        // ◆ What was given up is not taken back: its chunks may be going.
        if self.points.contains(&found.point) || self.given_up.contains(&found.point) {
            return false;
        }
        // An id that means an item of another vault is a lie or a copy; the point stays unknown.
        self.items.get(&found.item).is_none_or(|item| item.spec.vault == vault)
    }

    pub(super) fn adopt_points(&mut self, vault: VaultId, points: &[AdoptedPoint]) -> Result<Reply, Refusal> {
        check_batch("points", points)?;
        let Some(row) = self.vaults.get(&vault) else {
            return Err(Refusal::missing("vault", vault));
        };
        if row.state == VaultState::Removing {
            return Err(Refusal::held(format!("vault {} is being removed", row.spec.name)));
        }
        let adoptable = || points.iter().filter(|found| self.is_adoptable(vault, found));
        let new_points: BTreeSet<_> = adoptable().map(|found| found.point).collect();
        let new_items: BTreeSet<_> = adoptable()
            .map(|found| found.item)
            .filter(|item| !self.items.contains(item))
            .collect();
        for (what, have, come, max) in [
            ("points", self.points.len(), new_points.len(), POINTS_MAX),
            ("items", self.items.len(), new_items.len(), ITEMS_MAX),
        ] {
            if come > 0 && (have + come) as u64 > max {
                return Err(Refusal::Full {
                    what: what.to_owned(),
                    max,
                });
            }
        }
        let now = self.clock.now;
        let mut adopted = 0;
        for found in points {
            if !self.is_adoptable(vault, found) {
                continue;
            }
            if !self.items.contains(&found.item) {
                let item = item_of(found, vault, self.clock.applied, now);
                self.views.add_item(found.item, &item);
                self.items.insert(found.item, item);
            }
            let row = Point {
                item: found.item,
                // Another clock's times: a point from the future would stay the newest, and one that was hidden long ago by that clock can be
                // shown again for as long as any that is hidden now.
                time: found.time.min(now),
                hidden: found.hidden.map(|_| now),
                keep_until: found.keep_until,
                manifest: found.manifest,
                consistency: found.consistency,
                held: None,
                harmed: false,
            };
            self.enter_point(found.point, row);
            adopted += 1;
        }
        if adopted > 0 {
            self.catalogue_falls_behind(vault);
        }
        Ok(Reply::Changed(adopted))
    }
}
