//! One look at everything by the leader: what becomes due, which leases have ended, what expires, what upkeep vaults need.

use std::collections::BTreeMap;

use tresor_proto::ids::{ItemId, PointId};

use super::plans::Plans;
use super::retries;
use crate::node::presence::Presence;
use crate::schedule::{PointView, Standing, plan};
use crate::state::command::{Command, FailureKind, JobSpec, Work};
use crate::state::entry::Time;
use crate::state::rows::{Item, Policy, VaultState};
use crate::state::{State, UNDO_MS};

/// Jobs that one pass queues at most: more wait for the next pass, a second later, and the log is not flooded.
pub const DUE_MAX: usize = 2000;
/// Items whose points one pass looks through: all of 100,000 in under two minutes.
pub const EXPIRY_ITEMS: usize = 1000;
/// Points that one pass looks through, but for the rest of its last item: all of three million in five minutes. The leader shows itself to nobody while
/// it looks, and a hundred thousand points took a third of a second on a busy machine.
pub const EXPIRY_POINTS: usize = 10_000;
/// Points that one command hides or gives up.
const POINTS_A_COMMAND: usize = 500;
/// How long changes are gathered before a catalogue is put, milliseconds.
pub const CATALOGUE_MS: i64 = 10 * 60 * 1000;

/// Where the last look at points stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor(Option<ItemId>);

/// What ends leases that have run out.
pub fn expired_leases(state: &State, presence: &mut Presence, now: Time, now_ms: u64) -> Vec<Command> {
    presence
        .expired(state, now_ms)
        .into_iter()
        .map(|(job, epoch)| Command::ExpireLease {
            job,
            epoch,
            retry_at: retries::retry_at(state, job, FailureKind::Lost, now),
        })
        .collect()
}

/// Backups that are due now: at most [`DUE_MAX`], the longest overdue first.
pub fn due_backups(state: &State, plans: &Plans, now: Time) -> Vec<Command> {
    // What all items of a policy share is worked out once.
    let standings: BTreeMap<_, (Standing<'_>, &Policy)> = state
        .policies()
        .iter()
        .filter_map(|(id, policy)| {
            let calendar = plans.get(*id)?.ok()?.calendar.as_ref()?;
            Some((*id, (calendar.standing(now.timestamp()), policy)))
        })
        .collect();
    let mut due = Vec::new();
    for (id, item) in state.items().iter() {
        if !item.protected || state.open_backup(*id).is_some() {
            continue;
        }
        let Some((standing, policy)) = item.spec.policy.and_then(|policy| standings.get(&policy)) else {
            continue;
        };
        let ready = matches!(
            state.vaults().get(&item.spec.vault).map(|vault| vault.state),
            Some(VaultState::Ready(_))
        );
        let last = item.last_occurrence.map(Time::timestamp);
        if let Some(start) = standing.due(&id.0, last, since(item, policy))
            && ready
        {
            due.push((
                Time::from(start.at),
                *id,
                item.spec.vault,
                Time::from(start.occurrence),
                policy.spec.priority,
            ));
        }
    }
    // After a long time without a leader all items are due: only those that are queued now are put in order.
    if due.len() > DUE_MAX {
        due.select_nth_unstable(DUE_MAX);
        due.truncate(DUE_MAX);
    }
    due.sort_unstable();
    due.into_iter()
        .map(|(_, item, vault, occurrence, priority)| {
            Command::Enqueue(JobSpec {
                vault,
                work: Work::Backup { item, keep_until: None },
                priority,
                not_before: now,
                occurrence: Some(occurrence),
            })
        })
        .collect()
}

/// The moment from which a policy's schedule holds for an item: nothing older is caught up.
pub fn since(item: &Item, policy: &Policy) -> jiff::Timestamp {
    item.since.max(policy.since).timestamp()
}

/// Points that their items' retention no longer keeps, and hidden ones whose time is over, of the next [`EXPIRY_ITEMS`] items, or of fewer that
/// have [`EXPIRY_POINTS`].
pub fn expired_points(state: &State, plans: &Plans, cursor: &mut Cursor, now: Time) -> Vec<Command> {
    if state.marks().expiry_stopped.is_some() {
        return Vec::new();
    }
    let mut hidden = Vec::new();
    let mut given_up = Vec::new();
    let from = cursor.0.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let mut last = None;
    let mut looked = 0;
    let mut points = 0;
    let mut is_cut = false;
    for (id, item) in state
        .items()
        .range((from, std::ops::Bound::Unbounded))
        .take(EXPIRY_ITEMS)
    {
        if points >= EXPIRY_POINTS {
            is_cut = true;
            break;
        }
        last = Some(*id);
        looked += 1;
        let mut views = Vec::new();
        for point_id in state.points_of(*id) {
            points += 1;
            let Some(point) = state.points().get(&point_id) else {
                continue;
            };
            match point.hidden {
                Some(at) if now.since(at) >= UNDO_MS && point.held.is_none() && !state.is_pinned(point_id) => {
                    given_up.push(point_id);
                }
                Some(_) => {}
                None => views.push(PointView {
                    id: point_id,
                    time: point.time.timestamp(),
                    keep_until: point.keep_until.map(Time::timestamp),
                    held: point.held.is_some(),
                    damaged: point.harmed,
                }),
            }
        }
        // An item without a policy, or with one that cannot be read, keeps everything.
        let Some(Ok(policy)) = item.spec.policy.and_then(|policy| plans.get(policy)) else {
            continue;
        };
        if views.len() < 2 || policy.retention.is_none() {
            continue;
        }
        let verdicts = plan(&views, policy.retention.as_ref(), &policy.zone, now.timestamp());
        hidden.extend(
            verdicts
                .iter()
                .filter(|verdict| !verdict.is_kept())
                .map(|verdict| verdict.id),
        );
    }
    let is_end = looked < EXPIRY_ITEMS && !is_cut;
    cursor.0 = if is_end { None } else { last };
    let hide = |points: &[PointId]| Command::HidePoints {
        points: points.to_vec(),
        by_retention: true,
    };
    let give_up = |points: &[PointId]| Command::GiveUpPoints {
        points: points.to_vec(),
    };
    let hide = hidden.chunks(POINTS_A_COMMAND).map(hide);
    hide.chain(given_up.chunks(POINTS_A_COMMAND).map(give_up)).collect()
}

/// Catalogues that are behind what is known: put one when changes have been gathered for a while, and the first soon.
pub fn catalogues_due(state: &State, now: Time) -> Vec<Command> {
    let mut commands = Vec::new();
    for (id, vault) in state.vaults().iter() {
        let old = vault
            .catalogue
            .is_none_or(|(put_at, _)| now.since(put_at) >= CATALOGUE_MS);
        let ready = matches!(vault.state, VaultState::Ready(_));
        if ready && old && vault.catalogue_is_behind() && state.open_upkeep(*id, false).is_none() {
            commands.push(Command::Enqueue(JobSpec {
                vault: *id,
                work: Work::Catalogue,
                // Before what waits: it is short, and what it saves cannot be had otherwise.
                priority: 1,
                not_before: now,
                occurrence: None,
            }));
        }
    }
    commands
}
