//! Who gets which slots of the index. A pure decision ([`plan`]), and what the leader remembers between two of them ([`Moves`]).
//!
//! What nobody answers for is granted at once: slots of a worker whose process restarted go back to it, with all that it kept; slots of who is dead, removed
//! or has never been go to those that have the fewest. What somebody answers for moves only to make the loads even, after a join or a drain: a move costs a
//! rebuild, and whoever rests on the slot asks again. So such moves come in batches ([`BATCH_SLOTS`], [`BATCH_MS`]), and wait a bounded time ([`WAIT_MS`])
//! for a session that was refused twice because of moved slots.
//!
//! Two leaders may plan the same: a grant names the newest grant that it has seen, and the log takes one of them.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::{SessionId, WorkerId};

use crate::node::presence::{LEASE_MS, Presence};
use crate::state::command::Command;
use crate::state::entry::Time;
use crate::state::{SLOTS, State};

/// Slots that one planned batch moves at most: a sixteenth of the index, which is rebuilt in less than the time between two batches, and few enough that most
/// sessions of a minute rest on others.
pub const BATCH_SLOTS: usize = 256;
/// How long after a planned batch the next one goes, milliseconds: the new owners have rebuilt what they got, and a session that was refused has asked again.
/// A new worker of two has its half after eight of them.
pub const BATCH_MS: u64 = 60_000;
/// How long after a grant the next one goes, milliseconds: every worker gets the whole map after each, 80 KiB of a thousand workers; when all of them restart
/// together, three coordinators tell some 15 MiB in a second each, and a restarted worker waits two seconds more.
pub const GRANT_MS: u64 = 2000;
/// How long planned moves wait for sessions that were refused twice, milliseconds: a session whose ids are asked again ends within minutes. Then one
/// batch goes, whoever waits: a cluster in which some session is always unlucky has to be able to drain a worker.
pub const WAIT_MS: u64 = 10 * 60_000;
/// Refusals of a session after which planned moves wait for it.
pub const REFUSALS: u32 = 2;
/// How long after slots that lack entries were granted again others that do are, milliseconds. A worker that cannot open a vault lacks something of every
/// session, and making its share anew each time would help nobody.
pub const LACKS_MS: u64 = 10 * 60_000;
/// While no slot is anybody's, the first grants wait until nobody has joined for so long, milliseconds: workers of a new cluster come together, and what the
/// first would get alone had to be moved again.
pub const SETTLE_MS: i64 = 5000;

/// How a worker that answers for slots stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Heard of lately in its present life: it may get slots.
    Here,
    /// Not heard of lately, or not yet by this leader: it keeps what it has.
    Quiet,
    /// Not heard of for a lease: what it has goes to others.
    Dead,
}

/// A worker that answers for slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// How it stands.
    pub stand: Stand,
    /// Whether it is to have none.
    pub drained: bool,
}

/// A slot that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// Who.
    pub worker: WorkerId,
    /// Whether it was granted to the owner's present life, and is not to begin afresh: else nobody answers for it as it should.
    pub is_live: bool,
}

/// What is to be granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Slots that nobody answers for.
    pub at_once: Vec<(u16, WorkerId)>,
    /// Slots that move from one that answers for them to another one, all that are to.
    pub moves: Vec<(u16, WorkerId)>,
}

/// How many slots each of these workers is to have, so that all have as many but for one: whoever has most now has the one more. All workers count the same;
/// weights would go in here and nowhere else.
fn shares(loads: &BTreeMap<WorkerId, usize>, slots: usize) -> BTreeMap<WorkerId, usize> {
    let mut by_load: Vec<(usize, WorkerId)> = loads.iter().map(|(id, load)| (*load, *id)).collect();
    by_load.sort_unstable_by(|(a_load, a), (b_load, b)| b_load.cmp(a_load).then(a.cmp(b)));
    let (base, more) = (slots / loads.len().max(1), slots % loads.len().max(1));
    let share = |(place, (_, id)): (usize, (usize, WorkerId))| (id, base + usize::from(place < more));
    by_load.into_iter().enumerate().map(share).collect()
}

/// Raises the lowest loads to a common level by `give` slots in all; nobody above `cap`. How many each gets.
fn fill(loads: &BTreeMap<WorkerId, usize>, give: usize, cap: usize) -> BTreeMap<WorkerId, usize> {
    let mut lowest: BTreeSet<(usize, WorkerId)> = loads.iter().map(|(id, load)| (*load, *id)).collect();
    let mut gets = BTreeMap::new();
    for _ in 0..give {
        match lowest.pop_first() {
            Some((load, id)) if load < cap => {
                *gets.entry(id).or_insert(0) += 1;
                lowest.insert((load + 1, id));
            }
            _ => break,
        }
    }
    gets
}

/// Hands slots out in order, each worker its own row of neighbours: so the map has few runs.
fn hand_out(slots: impl IntoIterator<Item = u16>, gets: BTreeMap<WorkerId, usize>) -> Vec<(u16, WorkerId)> {
    let owners = gets.into_iter().flat_map(|(id, count)| std::iter::repeat_n(id, count));
    slots.into_iter().zip(owners).collect()
}

/// Who is to get what, of the slots `0..count`. `owned` has those that somebody has; `servers` has the workers that are not removed and serve.
///
/// Cost: some steps for each slot and worker.
pub fn plan(count: u16, owned: &BTreeMap<u16, Owned>, servers: &BTreeMap<WorkerId, Server>) -> Plan {
    // Those that are to share, as far as is known; of them only who is here gets something now.
    let shares_in = |id: &WorkerId| {
        let server = servers.get(id);
        server.is_some_and(|server| server.stand != Stand::Dead && !server.drained)
    };
    let is_here = |id: &WorkerId| servers.get(id).is_some_and(|server| server.stand == Stand::Here);
    let anyone_gets = servers.keys().any(|id| shares_in(id) && is_here(id));
    let mut loads: BTreeMap<WorkerId, usize> = servers.keys().filter(|id| shares_in(id)).map(|id| (*id, 0)).collect();
    let mut at_once = Vec::new();
    let mut orphans = Vec::new();
    // Slots that a drained worker answers for still, and those of who shares.
    let mut leaving = Vec::new();
    let mut had: BTreeMap<WorkerId, Vec<u16>> = BTreeMap::new();
    for slot in 0..count {
        let Some(owner) = owned.get(&slot) else {
            orphans.push(slot);
            continue;
        };
        let id = owner.worker;
        let is_dead = servers.get(&id).is_none_or(|server| server.stand == Stand::Dead);
        if shares_in(&id) {
            *loads.entry(id).or_insert(0) += 1;
            if !owner.is_live && is_here(&id) {
                at_once.push((slot, id));
            } else {
                had.entry(id).or_default().push(slot);
            }
        } else if is_dead {
            orphans.push(slot);
        } else if owner.is_live {
            leaving.push(slot);
        } else if anyone_gets {
            // A drained worker restarted: what moves anyway moves now, when nobody answers for it.
            orphans.push(slot);
        } else if is_here(&id) {
            at_once.push((slot, id));
        }
    }
    if !anyone_gets {
        return Plan {
            at_once,
            moves: Vec::new(),
        };
    }
    let here: BTreeMap<WorkerId, usize> = loads
        .iter()
        .filter(|(id, _)| is_here(id))
        .map(|(id, load)| (*id, *load))
        .collect();
    // Whoever is quiet now may be here in a moment: nobody gets more than a share because of that.
    let cap = usize::from(count).div_ceil(loads.len());
    let gets = fill(&here, orphans.len(), cap);
    for (id, more) in &gets {
        *loads.entry(*id).or_insert(0) += more;
    }
    let left = orphans.len() - gets.values().sum::<usize>();
    at_once.extend(hand_out(orphans, gets));
    at_once.sort_unstable();
    let all_shared: usize = loads.values().sum::<usize>() + leaving.len() + left;
    let shares = shares(&loads, all_shared);
    let share_of = |id: &WorkerId| shares.get(id).copied().unwrap_or(0);
    // The last of what somebody has too much of, so that what is left are neighbours.
    let mut moving = leaving;
    for (id, slots) in &had {
        let surplus = loads.get(id).copied().unwrap_or(0).saturating_sub(share_of(id));
        moving.extend(slots.iter().rev().take(surplus));
    }
    moving.sort_unstable();
    let room = loads.iter().filter(|(id, _)| is_here(id));
    let room = room
        .map(|(id, load)| (*id, share_of(id).saturating_sub(*load)))
        .collect();
    Plan {
        at_once,
        moves: hand_out(moving, room),
    }
}

/// What a leader remembers of moves. A new one knows nothing: it gives everybody a full term, and begins with a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// Since when it looks, by its monotonic clock.
    since: Option<u64>,
    /// When anything was granted last.
    granted_at: Option<u64>,
    /// When slots that lack entries were granted again last.
    mended_at: Option<u64>,
    /// When a planned batch was proposed last.
    batch_at: Option<u64>,
    /// Since when a batch waits for sessions.
    waits_since: Option<u64>,
    /// Open sessions that were refused because of moved slots, and how often.
    refused: BTreeMap<SessionId, u32>,
    /// In tests there may be fewer.
    count: Option<u16>,
}

impl Moves {
    /// Forgets all: another term begins.
    pub fn begin(&mut self, now_ms: u64) {
        *self = Self {
            since: Some(now_ms),
            count: self.count,
            ..Self::default()
        };
    }

    /// Grants only so many slots.
    #[cfg(test)]
    pub(crate) fn set_count(&mut self, count: u16) {
        self.count = Some(count);
    }

    /// Notes that a commit of a session was refused because of a slot that moved.
    pub fn refused(&mut self, session: SessionId) {
        *self.refused.entry(session).or_insert(0) += 1;
    }

    /// How a worker stands; none if it does not serve.
    fn server(&self, state: &State, presence: &Presence, id: WorkerId, now_ms: u64) -> Option<Server> {
        let row = state.workers().get(&id)?;
        if row.removed || row.facts.serves.is_empty() || row.life.is_none() {
            return None;
        }
        let since = self.since.unwrap_or(now_ms);
        let heard = presence.heard(id).map_or(since, |heard| heard.at.max(since));
        let stand = match () {
            () if presence.is_present(state, id, now_ms) => Stand::Here,
            () if now_ms.saturating_sub(heard) < LEASE_MS => Stand::Quiet,
            () => Stand::Dead,
        };
        Some(Server {
            stand,
            drained: row.drained,
        })
    }

    /// The plan for the present state, without regard to what planned moves wait for.
    pub fn plan(&self, state: &State, presence: &Presence, now_ms: u64) -> Plan {
        let ids = state.workers().iter().map(|(id, _)| *id);
        let servers: BTreeMap<WorkerId, Server> = ids
            .filter_map(|id| Some((id, self.server(state, presence, id, now_ms)?)))
            .collect();
        if servers.is_empty() {
            return Plan::default();
        }
        let lives: BTreeMap<WorkerId, Option<[u8; 16]>> = servers
            .keys()
            .map(|id| (*id, state.workers().get(id).and_then(|row| row.life)))
            .collect();
        let mends = self.mended_at.is_none_or(|at| now_ms.saturating_sub(at) >= LACKS_MS);
        let rows = state.slots().iter().map(|(slot, row)| {
            let owned = Owned {
                worker: row.worker,
                // One that lacks entries goes back to its owner, to begin afresh.
                is_live: lives.get(&row.worker) == Some(&Some(row.life)) && !(row.lacks && mends),
            };
            (*slot, owned)
        });
        plan(self.count.unwrap_or(SLOTS), &rows.collect(), &servers)
    }

    /// The grants that are due now.
    pub fn due(&mut self, state: &State, presence: &Presence, now: Time, now_ms: u64) -> Option<Command> {
        self.since.get_or_insert(now_ms);
        self.refused.retain(|session, _| state.sessions().contains(session));
        if self.granted_at.is_some_and(|at| now_ms.saturating_sub(at) < GRANT_MS) {
            return None;
        }
        let grants = self.grants(state, presence, now, now_ms)?;
        self.granted_at = Some(now_ms);
        let lacks = |slot: &u16| state.slots().get(slot).is_some_and(|row| row.lacks);
        if grants.iter().any(|(slot, _)| lacks(slot)) {
            self.mended_at = Some(now_ms);
        }
        Some(Command::GrantSlots {
            seen: state.marks().slot_map,
            grants,
        })
    }

    fn grants(&mut self, state: &State, presence: &Presence, now: Time, now_ms: u64) -> Option<Vec<(u16, WorkerId)>> {
        if state.slots().is_empty() && is_settling(state, now) {
            return None;
        }
        let plan = self.plan(state, presence, now_ms);
        if !plan.at_once.is_empty() {
            return Some(plan.at_once);
        }
        if plan.moves.is_empty() {
            self.waits_since = None;
            return None;
        }
        let is_early = self.batch_at.is_some_and(|at| now_ms.saturating_sub(at) < BATCH_MS);
        if is_early {
            return None;
        }
        let since = *self.waits_since.get_or_insert(now_ms);
        let is_awaited = self.refused.values().any(|count| *count >= REFUSALS);
        if is_awaited && now_ms.saturating_sub(since) < WAIT_MS {
            return None;
        }
        self.waits_since = None;
        self.batch_at = Some(now_ms);
        let mut grants = plan.moves;
        grants.truncate(BATCH_SLOTS);
        Some(grants)
    }
}

/// Whether somebody that may serve has joined just now.
fn is_settling(state: &State, now: Time) -> bool {
    let mut present = state.workers().values().filter(|row| !row.removed);
    present.any(|row| now.since(row.joined) < SETTLE_MS)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
