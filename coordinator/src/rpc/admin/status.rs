//! Is everything protected? What runs? What needs a person? A pure function of the state, of what is known of workers, and of the time.

mod attention;

use tresor_proto::ids::JobId;
use tresor_proto::v1;

use crate::lead::plans::Plans;
use crate::node::presence::Presence;
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::convert;
use crate::rpc::refused::{Refused, shown};
use crate::rpc::standing::{Board, ItemStanding};
use crate::state::State;
use crate::state::entry::Time;
use crate::state::rows::Item;

use tresor_proto::ids::ItemId;

/// Items that each list of a report names, jobs, workers: so a report stays below two megabytes. The counts are of all.
pub const NAMED_MAX: usize = 1000;

/// What a report is of.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'s> {
    /// The state.
    pub state: &'s State,
    /// Its policies.
    pub plans: &'s Plans,
    /// What is known of workers.
    pub presence: &'s Presence,
    /// The cluster's clock.
    pub now: Time,
    /// The clock that [`Presence`] counts in.
    pub now_ms: u64,
    /// Coordinators, as the leader knows them.
    pub coordinators: &'s [v1::Coordinator],
}

/// What is counted of all items.
#[derive(Debug, Default)]
struct Items {
    all: u64,
    protected: u64,
    unscheduled: Notes,
    never: Notes,
    late: Notes,
    failing: Notes,
    /// Whose newest point damage harms.
    harmed: Notes,
    /// Whose disks are on a host that is no worker.
    unreachable: Notes,
}

/// Items of a kind: all counted, some named.
#[derive(Debug, Default)]
struct Notes {
    count: u64,
    named: Vec<v1::ItemNote>,
}

impl Notes {
    fn add(&mut self, note: impl FnOnce() -> v1::ItemNote) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(note());
        }
    }
}

/// The report.
///
/// Cost: a look at every item and every open job; about a tenth of a second for 100,000 items of which none is late.
pub fn report(seen: Seen<'_>) -> v1::StatusReport {
    let Seen { state, presence, .. } = seen;
    let items = items(seen);
    let running = running(seen);
    let queued = (state.open_jobs_count() - state.leases().count()) as u64;
    let slots = convert::SlotCounts::new(state);
    let workers = state.workers_by_name().take(NAMED_MAX);
    let workers = workers.filter_map(|(_, id)| {
        let row = state.workers().get(&id)?;
        Some(convert::worker(state, presence, &slots, id, row, seen.now_ms))
    });
    let vaults = state.vaults_by_name().take(NAMED_MAX);
    let vaults = vaults.filter_map(|(_, id)| Some(convert::vault(state, id, state.vaults().get(&id)?)));
    v1::StatusReport {
        time: seen.now.to_string(),
        cluster_name: state.cluster().map(|cluster| cluster.name.clone()).unwrap_or_default(),
        items: items.all,
        protected: items.protected,
        attention: attention::sentences(seen, &items),
        unscheduled: items.unscheduled.named,
        never: items.never.named,
        late: items.late.named,
        failing: items.failing.named,
        running,
        queued,
        workers: workers.collect(),
        coordinators: seen.coordinators.to_vec(),
        vaults: vaults.collect(),
    }
}

fn running(seen: Seen<'_>) -> Vec<v1::Job> {
    let jobs = seen.state.leases().take(NAMED_MAX);
    let mut jobs: Vec<JobId> = jobs.collect();
    jobs.sort_unstable();
    jobs.into_iter()
        .filter_map(|id| {
            let row = seen.state.jobs().get(&id)?;
            Some(convert::job(seen.state, id, row, seen.presence.progress(id)))
        })
        .collect()
}

fn items(seen: Seen<'_>) -> Items {
    let state = seen.state;
    let board = Board::new(state, seen.plans, seen.now);
    let hosts = attention::hosts(state);
    let mut items = Items::default();
    for (_, id) in state.items_by_name_from("", ItemId([0; 16])) {
        let Some(item) = state.items().get(&id) else {
            continue;
        };
        items.all += 1;
        let standing = board.item(state, id, item);
        let harmed = standing
            .newest
            .is_some_and(|(point, _)| state.points().get(&point).is_some_and(|point| point.harmed));
        if harmed {
            let why = || String::from("damage was found under its newest point");
            items.harmed.add(|| note(state, id, item, &standing, why()));
        }
        if !item.protected {
            continue;
        }
        items.protected += 1;
        if standing.unscheduled {
            items
                .unscheduled
                .add(|| note(state, id, item, &standing, unscheduled_because(state, item)));
        }
        if standing.newest.is_none() {
            items
                .never
                .add(|| note(state, id, item, &standing, never_because(state, id, item, &standing)));
        }
        if let Some(since) = standing.late_since {
            items
                .late
                .add(|| note(state, id, item, &standing, board.late_because(state, item, since)));
        }
        if standing.failing {
            items
                .failing
                .add(|| note(state, id, item, &standing, failing_because(item)));
        }
        if !item.spec.host.is_empty() && !hosts.contains(item.spec.host.as_str()) {
            let why = || format!("its disks are on {}, which is no worker", item.spec.host);
            items.unreachable.add(|| note(state, id, item, &standing, why()));
        }
    }
    items
}

fn note(state: &State, id: ItemId, item: &Item, standing: &ItemStanding, why: String) -> v1::ItemNote {
    v1::ItemNote {
        item: id.to_string(),
        name: item.spec.name.clone(),
        vault: convert::vault_name(state, item.spec.vault),
        why,
        newest: standing.newest.map(|(_, time)| time.to_string()).unwrap_or_default(),
    }
}

/// Why nothing says when an item is backed up.
pub(super) fn unscheduled_because(state: &State, item: &Item) -> String {
    match item.spec.policy.and_then(|policy| state.policies().get(&policy)) {
        None => String::from("it has no policy: it is backed up only when somebody asks"),
        Some(policy) if policy.spec.schedule.is_empty() => {
            format!("policy {} has no schedule", policy.spec.name)
        }
        Some(policy) => format!("the schedule of policy {} cannot be followed", policy.spec.name),
    }
}

/// Why an item has no point.
pub(super) fn never_because(state: &State, id: ItemId, item: &Item, standing: &ItemStanding) -> String {
    let open = state.open_backup(id);
    let running = open.and_then(|job| state.jobs().get(&job)?.running().map(|_| job));
    let next = match (running, open, standing.next_due) {
        (Some(job), ..) => format!("job {job} makes the first one now"),
        (_, Some(job), _) => format!("job {job} waits to make the first one"),
        (.., Some(due)) => format!("the first one is due at {due}"),
        _ => String::from("none is due"),
    };
    let had = state.points_of(id).next().is_some();
    match had {
        true => format!("all its points were removed; {next}"),
        false => format!("protected since {}; {next}", item.since),
    }
}

/// How an item's jobs fail.
pub(super) fn failing_because(item: &Item) -> String {
    let Some(failed) = &item.last_failure else {
        return format!("{} jobs failed in a row", item.failures);
    };
    let hint = match failed.failure.hint.as_str() {
        "" => String::new(),
        hint => format!(" ({})", shown(hint)),
    };
    let count = match item.failures {
        1 => String::from("the last job failed"),
        failures => format!("{failures} jobs failed in a row, the last"),
    };
    format!(
        "{count} at {} (job {}): {}{hint}",
        failed.time,
        failed.job,
        shown(&failed.failure.message)
    )
}

impl Services {
    /// The report as of now.
    pub(crate) async fn get_status(&self, _: &Caller, _: v1::GetStatusRequest) -> Result<v1::StatusReport, Refused> {
        let standing = self.handle.standing().await?;
        let (presence, now_ms) = (self.presence(), self.clock.monotonic_ms());
        let plans = self.plans();
        self.look_long(move |services, state| {
            report(Seen {
                state,
                plans: &plans,
                presence: &presence,
                now: services.now(state),
                now_ms,
                coordinators: &services.coordinators(state, &standing),
            })
        })
        .await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
