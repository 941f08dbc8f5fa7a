//! Recovery points: shown, held, removed, shown again.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tresor_proto::ids::{ItemId, PointId};
use tresor_proto::v1;

use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::kinds::Kind;
use crate::rpc::page::Page;
use crate::rpc::refused::Refused;
use crate::rpc::{convert, fields, resolve};
use crate::state::command::Command;
use crate::state::entry::{IdempotencyKey, Time};
use crate::state::{State, Subject};

/// Where a page of points goes on: by the item's name, then the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ByItem {
    name: String,
    item: ItemId,
    time: Time,
    point: PointId,
}

/// The point that is meant. Times without a zone are UTC, as all times of the wire.
pub(super) fn point_named(state: &State, name: &str) -> Result<PointId, Refused> {
    resolve::point(state, name, &TimeZone::UTC)
}

impl Services {
    /// One point.
    pub(crate) async fn get_point(&self, _: &Caller, message: v1::GetPointRequest) -> Result<v1::Point, Refused> {
        self.look(|state| point_message(state, point_named(state, &message.name)?))
            .await
    }

    /// Points of one item, the newest first; or of all items by name.
    pub(crate) async fn list_points(
        &self,
        _: &Caller,
        message: v1::ListPointsRequest,
    ) -> Result<v1::ListPointsResponse, Refused> {
        let filters = (&message.item, &message.vault, message.hidden);
        let page = Page::<ByItem>::read("points", &filters, message.page_size, &message.page_token)?;
        self.look(|state| {
            let of = match message.vault.as_str() {
                "" => None,
                name => Some(resolve::vault(state, name)?),
            };
            let only = match message.item.as_str() {
                "" => None,
                name => Some(resolve::item(state, name, &message.vault)?),
            };
            let after = page.after.as_ref();
            let items: Box<dyn Iterator<Item = ItemId>> = match only {
                Some(item) => Box::new(std::iter::once(item)),
                None => {
                    let (name, first) = after.map_or(("", ItemId([0; 16])), |after| (&after.name, after.item));
                    Box::new(state.items_by_name_from(name, first).map(|(_, id)| id))
                }
            };
            let in_vault = |item| {
                let row = state.items().get(&item);
                of.is_none_or(|of| row.is_some_and(|item| item.spec.vault == of))
            };
            let rows = items.flat_map(|item| rows_of(state, item, after, in_vault(item)));
            let (points, next_page_token) = page.fill(rows, |_, row| {
                // An item without points to show is a row, too: what is looked at has a bound.
                let id = row?;
                let point = state.points().get(&id)?;
                let shown = point.hidden.is_none() || message.hidden;
                shown.then(|| convert::point(state, id, point))
            });
            Ok(v1::ListPointsResponse {
                points,
                next_page_token,
            })
        })
        .await
    }

    /// Holds a point, whatever retention says.
    pub(crate) async fn hold_point(
        &self,
        caller: &Caller,
        message: v1::HoldPointRequest,
    ) -> Result<v1::Point, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let reason = message.reason;
        self.change_point(caller, Kind::Hold, key, &message.name, |point| Command::Hold {
            point,
            reason,
        })
        .await
    }

    /// Ends a hold.
    pub(crate) async fn release_point(
        &self,
        caller: &Caller,
        message: v1::ReleasePointRequest,
    ) -> Result<v1::Point, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        self.change_point(caller, Kind::Release, key, &message.name, |point| Command::Release {
            point,
        })
        .await
    }

    /// Hides a point: it can be shown again for a while.
    pub(crate) async fn remove_point(
        &self,
        caller: &Caller,
        message: v1::RemovePointRequest,
    ) -> Result<v1::Point, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let hide = |point| Command::HidePoints {
            points: vec![point],
            by_retention: false,
        };
        self.change_point(caller, Kind::HidePoints, key, &message.name, hide)
            .await
    }

    /// Shows a hidden point again.
    pub(crate) async fn undelete_point(
        &self,
        caller: &Caller,
        message: v1::UndeletePointRequest,
    ) -> Result<v1::Point, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        self.change_point(caller, Kind::ShowPoint, key, &message.name, |point| {
            Command::ShowPoint { point }
        })
        .await
    }

    async fn change_point(
        &self,
        caller: &Caller,
        kind: Kind,
        key: IdempotencyKey,
        name: &str,
        command: impl FnOnce(PointId) -> Command,
    ) -> Result<v1::Point, Refused> {
        let made = self
            .change(caller, kind, key, |state| Ok(command(point_named(state, name)?)))
            .await?;
        let Subject::Point(id) = made.about else {
            return Err(Refused::OtherChange);
        };
        self.handle.read(|state| point_message(state, id))
    }
}

fn point_message(state: &State, id: PointId) -> Result<v1::Point, Refused> {
    let row = state.points().get(&id).ok_or_else(|| Refused::missing("point", id))?;
    Ok(convert::point(state, id, row))
}

/// The points of an item after a key; where the key is of another item, or of none, all of them. An item without any, or of which none is wanted, has one
/// row without a point.
fn rows_of<'s>(
    state: &'s State,
    item: ItemId,
    after: Option<&ByItem>,
    wanted: bool,
) -> impl Iterator<Item = (ByItem, Option<PointId>)> + use<'s> {
    let after = after
        .filter(|after| after.item == item)
        .map(|after| (after.time, after.point));
    let (time, first) = after.unwrap_or((Time(i64::MAX), PointId([255; 16])));
    let name = convert::item_name(state, item);
    let key = move |time: Time, point: PointId| ByItem {
        name: name.clone(),
        item,
        time,
        point,
    };
    let mut points = state
        .points_up_to(item, time, first)
        .filter(move |point| after.is_none_or(|(_, last)| *point != last))
        .take(if wanted { usize::MAX } else { 0 })
        .peekable();
    // After everything of the item, so that the page after goes on with the next one.
    let none = (points.peek().is_none() && after.is_none()).then(|| (key(Time(i64::MIN), PointId([0; 16])), None));
    let rows = points.filter_map(move |id| Some((key(state.points().get(&id)?.time, id), Some(id))));
    none.into_iter().chain(rows)
}
