//! Why a point stays, goes, or cannot be seen any more.

use tresor_proto::ids::PointId;

use super::Explanation;
use crate::rpc::admin::policies::retained;
use crate::rpc::admin::status::Seen;
use crate::rpc::convert;
use crate::rpc::refused::Refused;
use crate::schedule::plan;
use crate::state::UNDO_MS;
use crate::state::entry::Time;
use crate::state::rows::{Item, Point};

/// Why a point stays or goes.
///
/// # Errors
/// [`Refused::Missing`].
pub fn explain_point(seen: Seen<'_>, id: PointId) -> Result<Explanation, Refused> {
    let state = seen.state;
    let point = state.points().get(&id).ok_or_else(|| Refused::missing("point", id))?;
    let item = state
        .items()
        .get(&point.item)
        .ok_or_else(|| Refused::missing("item", point.item))?;
    let mut because = match point.hidden {
        Some(at) => hidden(seen, id, point, at),
        None => visible(seen, id, point, item),
    };
    if point.harmed {
        because.push(String::from(
            "Damage was found under it: it keeps no sound point from staying.",
        ));
    }
    let pinned = state.sessions().values().filter(|session| session.pins.contains(&id));
    because.extend(pinned.map(|session| {
        format!(
            "Job {} reads it, or makes its child: until that has ended it is not given up.",
            session.job
        )
    }));
    let how = if point.hidden.is_some() { "removed" } else { "visible" };
    Ok(Explanation {
        what: format!(
            "point {id} of item {} at {} ({}): {how}",
            item.spec.name,
            point.time,
            convert::consistency_text(point.consistency)
        ),
        because,
    })
}

fn hidden(seen: Seen<'_>, id: PointId, point: &Point, at: Time) -> Vec<String> {
    let until = at.plus(UNDO_MS);
    let mut because = vec![format!("It was removed at {at}.")];
    if let Some(reason) = point.held.as_deref() {
        because.push(format!("It is held ({reason}), so it is not given up."));
    }
    because.push(match until > seen.now {
        true => format!("Until {until} it can be shown again: tresor point undelete {id}"),
        false => format!("Since {until} it may be given up at any time; until then: tresor point undelete {id}"),
    });
    because.extend(stopped(seen));
    because
}

fn stopped(seen: Seen<'_>) -> Option<String> {
    seen.state.marks().expiry_stopped.map(|_| {
        String::from("The clock has stepped: nothing expires until a person has looked (tresor cluster confirm-clock).")
    })
}

fn visible(seen: Seen<'_>, id: PointId, point: &Point, item: &Item) -> Vec<String> {
    let Some(policy) = item.spec.policy.and_then(|policy| seen.state.policies().get(&policy)) else {
        let mut because = vec![String::from(
            "Its item has no policy: it stays until somebody removes it.",
        )];
        because.extend(point.held.as_deref().map(|reason| format!("It is held: {reason}.")));
        return because;
    };
    let name = &policy.spec.name;
    let plans = item.spec.policy.and_then(|policy| seen.plans.get(policy));
    let Some(Ok(ready)) = plans else {
        return vec![format!("Policy {name} cannot be followed, so every point stays.")];
    };
    let Some(retention) = &ready.retention else {
        return vec![format!(
            "Policy {name} has no retention: it stays until somebody removes it."
        )];
    };
    let points: Vec<_> = retained(seen.state, point.item).collect();
    let verdicts = plan(&points, Some(retention), &ready.zone, seen.now.timestamp());
    let reasons = verdicts
        .into_iter()
        .find(|verdict| verdict.id == id)
        .map(|verdict| verdict.reasons);
    match reasons.as_deref() {
        None | Some([]) if points.len() < 2 => vec![String::from("It stays: an item keeps its newest point.")],
        None | Some([]) => {
            let mut because = vec![format!(
                "Nothing in policy {name} ({retention}) keeps it: it is removed soon."
            )];
            because.extend(stopped(seen));
            because
        }
        Some(reasons) => {
            let held = point.held.as_deref();
            let reasons = reasons.iter().map(|reason| match (reason, held) {
                (crate::schedule::retention::Reason::Held, Some(why)) => format!("It stays: held ({why})."),
                (reason, _) => format!("It stays: {reason}."),
            });
            let rule = format!("Policy {name} keeps {}.", retention.words());
            reasons.chain([rule]).collect()
        }
    }
}
