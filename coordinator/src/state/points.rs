//! Recovery points: held, hidden, shown again, given up. Where one begins to count stands in `leases`.

use tresor_proto::ids::{PointId, VaultId};

use super::command::AdoptedPoint;
use super::reply::{Refusal, Reply};
use super::rows::{GivenUp, Item, Point};
use super::vaults::check_label;
use super::{ITEMS_MAX, POINTS_MAX, State};
use crate::state::command::ItemSpec;

/// How long a hidden point can be shown again, milliseconds: seven days, so that a weekend passes before a mistake is final.
pub const UNDO_MS: i64 = 7 * 24 * 3600 * 1000;

impl State {
    fn point(&self, id: PointId) -> Result<&Point, Refusal> {
        self.points.get(&id).ok_or_else(|| Refusal::missing("point", id))
    }

    fn vault_of(&self, point: &Point) -> Option<VaultId> {
        self.items.get(&point.item).map(|item| item.spec.vault)
    }

    fn change_point(&mut self, id: PointId, change: impl FnOnce(&mut Point)) {
        let vault = self.points.get(&id).and_then(|point| self.vault_of(point));
        if let Some(point) = self.points.get_mut(&id) {
            change(point);
        }
        if let Some(vault) = vault {
            self.catalogue_falls_behind(vault);
        }
    }

    pub(super) fn hold(&mut self, id: PointId, reason: &str) -> Result<Reply, Refusal> {
        check_label("reason", reason)?;
        self.point(id)?;
        self.change_point(id, |point| point.held = Some(reason.into()));
        Ok(Reply::Done)
    }

    pub(super) fn release(&mut self, id: PointId) -> Result<Reply, Refusal> {
        if self.point(id)?.held.is_none() {
            return Err(Refusal::held(format!("point {id} is not held")));
        }
        self.change_point(id, |point| point.held = None);
        Ok(Reply::Done)
    }

    pub(super) fn hide_points(&mut self, points: &[PointId], by_retention: bool) -> Result<Reply, Refusal> {
        let now = self.clock.now;
        if by_retention && self.clock.expiry_stopped.is_some() {
            return Err(Refusal::held(
                "the clock has stepped: nothing expires until a person confirms it",
            ));
        }
        if !by_retention {
            for &id in points {
                let point = self.point(id)?;
                if let Some(reason) = &point.held {
                    return Err(Refusal::held(format!(
                        "point {id} is held ({reason}): release it first"
                    )));
                }
            }
        }
        let mut changed = 0;
        for &id in points {
            let Some(point) = self.points.get(&id) else {
                continue;
            };
            if point.hidden.is_some() {
                continue;
            }
            // What was decided from an older state is checked again: a hold, a longer keeping or a removal may have come between.
            let kept = point.held.is_some() || point.keep_until.is_some_and(|until| until > now);
            if by_retention && (kept || self.newest_point(point.item) == Some(id)) {
                continue;
            }
            self.change_point(id, |point| point.hidden = Some(now));
            changed += 1;
        }
        Ok(Reply::Changed(changed))
    }

    pub(super) fn show_point(&mut self, id: PointId) -> Result<Reply, Refusal> {
        if self.point(id)?.hidden.is_none() {
            return Err(Refusal::held(format!("point {id} is not removed")));
        }
        self.change_point(id, |point| point.hidden = None);
        Ok(Reply::Done)
    }

    pub(super) fn give_up_points(&mut self, points: &[PointId]) -> Result<Reply, Refusal> {
        if self.clock.expiry_stopped.is_some() {
            return Err(Refusal::held(
                "the clock has stepped: nothing expires until a person confirms it",
            ));
        }
        let now = self.clock.now;
        let mut changed = 0;
        for &id in points {
            let Some(point) = self.points.get(&id) else {
                continue;
            };
            let waited = point.hidden.is_some_and(|hidden| now.since(hidden) >= UNDO_MS);
            // ◆ A pinned point is hidden at most, never given up: a session reads it, or makes its child.
            if !waited || point.held.is_some() || self.is_pinned(id) {
                continue;
            }
            let item = point.item;
            if let Some(vault) = self.vault_of(point) {
                self.given_up.insert(id, GivenUp { vault, item, at: now });
                self.catalogue_falls_behind(vault);
            }
            self.drop_point(id);
            self.drop_item_if_empty(item);
            changed += 1;
        }
        Ok(Reply::Changed(changed))
    }

    /// Takes a point out of the tables.
    pub(super) fn drop_point(&mut self, id: PointId) {
        if let Some(point) = self.points.remove(&id) {
            self.views.points_of.remove(&(point.item, point.time, id));
        }
    }

    /// Enters a point that is new to the tables.
    pub(super) fn enter_point(&mut self, id: PointId, point: Point) {
        self.views.points_of.insert((point.item, point.time, id));
        self.points.insert(id, point);
    }

    pub(super) fn adopt_points(&mut self, vault: VaultId, points: &[AdoptedPoint]) -> Result<Reply, Refusal> {
        if !self.vaults.contains(&vault) {
            return Err(Refusal::missing("vault", vault));
        }
        if self.points.len() as u64 + points.len() as u64 > POINTS_MAX {
            return Err(Refusal::Full {
                what: String::from("points"),
                max: POINTS_MAX,
            });
        }
        if self.items.len() as u64 + points.len() as u64 > ITEMS_MAX {
            return Err(Refusal::Full {
                what: String::from("items"),
                max: ITEMS_MAX,
            });
        }
        let now = self.clock.now;
        let mut adopted = 0;
        for found in points {
            // ◆ What was given up is not taken back: its chunks may be going.
            if self.points.contains(&found.point) || self.given_up.contains(&found.point) {
                continue;
            }
            match self.items.get(&found.item) {
                // An id that means an item of another vault is a lie or a copy; the point stays unknown.
                Some(item) if item.spec.vault != vault => continue,
                Some(_) => {}
                None => {
                    let item = Item {
                        spec: ItemSpec {
                            name: found.item_name.clone(),
                            vault,
                            policy: None,
                            host: String::new(),
                            worker_labels: std::collections::BTreeMap::new(),
                            labels: std::collections::BTreeMap::new(),
                            disks: Vec::new(),
                            allow_live: false,
                            allow_backing: false,
                        },
                        protected: false,
                        since: now,
                        last_occurrence: None,
                        last_success: None,
                        failures: 0,
                        last_failure: None,
                    };
                    self.views.add_item(found.item, &item);
                    self.items.insert(found.item, item);
                }
            }
            self.enter_point(
                found.point,
                Point {
                    item: found.item,
                    time: found.time,
                    keep_until: found.keep_until,
                    manifest: found.manifest,
                    consistency: found.consistency,
                    hidden: found.hidden,
                    held: None,
                    harmed: false,
                },
            );
            adopted += 1;
        }
        self.catalogue_falls_behind(vault);
        Ok(Reply::Changed(adopted))
    }
}
