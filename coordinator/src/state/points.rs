//! Recovery points: held, hidden, shown again, given up. Where one begins to count stands in `leases`, how those of another time are taken in `adopt`.

use std::collections::BTreeMap;

use tresor_proto::ids::{PointId, VaultId};

use super::reply::{Refusal, Reply};
use super::rows::{GivenUp, Point};
use super::texts::{check_batch, check_label};
use super::{GIVEN_UP_MAX, State};

/// How long a hidden point can be shown again, milliseconds: seven days, so that a weekend passes before a mistake is final.
pub const UNDO_MS: i64 = 7 * 24 * 3600 * 1000;

impl State {
    fn point(&self, id: PointId) -> Result<&Point, Refusal> {
        self.points.get(&id).ok_or_else(|| Refusal::missing("point", id))
    }

    pub(super) fn vault_of(&self, point: &Point) -> Option<VaultId> {
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
        check_batch("points", points)?;
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
        // Of each item once: it stays the newest visible one, since retention passes it over.
        let mut newest = BTreeMap::new();
        for &id in points {
            let Some(point) = self.points.get(&id) else {
                continue;
            };
            if point.hidden.is_some() {
                continue;
            }
            let item = point.item;
            // What was decided from an older state is checked again: a hold, a longer keeping or a removal may have come between.
            let kept = point.held.is_some() || point.keep_until.is_some_and(|until| until > now);
            if by_retention && kept {
                continue;
            }
            if by_retention && *newest.entry(item).or_insert_with(|| self.newest_point(item)) == Some(id) {
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
        check_batch("points", points)?;
        if self.clock.expiry_stopped.is_some() {
            return Err(Refusal::held(
                "the clock has stepped: nothing expires until a person confirms it",
            ));
        }
        if self.given_up.len() >= GIVEN_UP_MAX {
            return Err(Refusal::Full {
                what: String::from("points that are given up"),
                max: GIVEN_UP_MAX as u64,
            });
        }
        let now = self.clock.now;
        let mut changed = 0;
        for &id in points {
            if self.given_up.len() >= GIVEN_UP_MAX {
                break;
            }
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
            let vault = self.vault_of(&point);
            self.views.remove_point(id, &point, vault);
            self.end_readers_of(id);
        }
    }

    /// Enters a point that is new to the tables.
    pub(super) fn enter_point(&mut self, id: PointId, point: Point) {
        let vault = self.vault_of(&point);
        self.views.add_point(id, &point, vault);
        self.points.insert(id, point);
    }
}
