//! Why an item is late, fails, has no point; or why all is well with it.

use tresor_proto::ids::ItemId;

use super::Explanation;
use super::job::explain_job;
use crate::rpc::admin::status::{Seen, failing_because, never_because, unscheduled_because};
use crate::rpc::convert;
use crate::rpc::refused::Refused;
use crate::rpc::standing::Board;
use crate::state::rows::VaultState;

/// Why an item stands as it does.
///
/// # Errors
/// [`Refused::Missing`].
pub fn explain_item(seen: Seen<'_>, id: ItemId) -> Result<Explanation, Refused> {
    let state = seen.state;
    let item = state.items().get(&id).ok_or_else(|| Refused::missing("item", id))?;
    let board = Board::new(state, seen.plans, seen.now);
    let standing = board.item(state, id, item);
    let vault = convert::vault_name(state, item.spec.vault);
    let mut because = Vec::new();
    let mut say = |sentence: String| because.push(sentence);
    if !item.protected {
        let left = match state.points_of(id).count() {
            1 => String::from("1 point of it is left"),
            points => format!("{points} points of it are left"),
        };
        say(format!("It is not protected: no backups of it are made, and {left}."));
    }
    if item.protected && item.failures > 0 {
        say(format!("It fails: {}.", failing_because(item).trim_end_matches('.')));
    }
    if item.protected && standing.newest.is_none() {
        say(format!(
            "It has no point: {}.",
            never_because(state, id, item, &standing)
        ));
    }
    if let Some(since) = standing.late_since {
        let why = board.late_because(state, item, since);
        say(format!("It is late since {since}: {why}."));
    }
    if standing.unscheduled {
        say(format!("It has no schedule: {}.", unscheduled_because(state, item)));
    }
    let is_claiming = state
        .vaults()
        .get(&item.spec.vault)
        .is_some_and(|vault| vault.state == VaultState::Claiming);
    if item.protected && is_claiming {
        say(format!(
            "Vault {vault} is still being made, and nothing is backed up into it before."
        ));
    }
    if let Some((point, time)) = standing.newest {
        let harmed = state.points().get(&point).is_some_and(|point| point.harmed);
        let harm = if harmed { ", and damage was found under it" } else { "" };
        say(format!("Its newest point is {point} of {time}{harm}."));
    }
    if let Some(job) = state.open_backup(id) {
        let explained = explain_job(seen, job)?;
        say(format!("Now {}.", explained.what));
        explained.because.into_iter().for_each(&mut say);
    } else if let Some(due) = standing.next_due {
        say(match due <= seen.now {
            true => format!("A backup is due since {due}."),
            false => format!("The next backup is due at {due}."),
        });
    }
    if let Some(policy) = item.spec.policy.and_then(|policy| state.policies().get(&policy)) {
        say(format!("Its policy is {}, since {}.", policy.spec.name, item.since));
    }
    Ok(Explanation {
        what: format!("item {} in vault {vault}: {}", item.spec.name, standing.state.text()),
        because,
    })
}
