//! What needs a person, in sentences: what is wrong, and what to do. What endangers data comes first.

use std::collections::BTreeSet;

use tresor_proto::v1;

use super::{Items, Notes, Seen};
use crate::node::clock::DIFFERENCE_MS;
use crate::rpc::convert;
use crate::rpc::policy::span_in_words;
use crate::state::command::{VaultOrigin, Work};
use crate::state::entry::Time;
use crate::state::rows::{JobState, VaultState};
use crate::state::{FOUNDED_AGAIN, ITEMS_MAX, POINTS_MAX, State};

/// How long a vault may take to be made, milliseconds: its job takes seconds once a worker has it.
const MAKING_MS: i64 = 10 * 60 * 1000;
/// How long a job may wait for a worker before it is told, milliseconds.
const WAITING_MS: i64 = 3600 * 1000;
/// How old a catalogue may be that is behind, milliseconds: it is put every ten minutes where it can be.
const CATALOGUE_MS: i64 = 24 * 3600 * 1000;
/// How long before its end a certificate is told that was not renewed, milliseconds: it is to be renewed when ten days are left.
const CERTIFICATE_MS: i64 = 7 * 24 * 3600 * 1000;
/// Things that a sentence names; of more it says how many.
const NAMED_MAX: usize = 5;
/// How long a channel may take no notification before it is told, milliseconds: receivers are restarted.
const CHANNEL_MS: i64 = 15 * 60 * 1000;
/// A bound of the state is told from here on, percent.
const NEARLY_FULL: u64 = 90;

/// Names by which a worker's machine can be meant.
pub(super) fn hosts(state: &State) -> BTreeSet<&str> {
    let present = state.workers().values().filter(|worker| !worker.removed);
    present
        .flat_map(|worker| [worker.name.as_str(), worker.facts.host.as_str()])
        .collect()
}

/// All sentences.
pub(super) fn sentences(seen: Seen<'_>, items: &Items) -> Vec<String> {
    let mut said = Vec::new();
    damage(seen, items, &mut said);
    verified(seen, &mut said);
    clock(seen, &mut said);
    vaults(seen, &mut said);
    coordinators(seen, &mut said);
    workers(seen, items, &mut said);
    waiting(seen, &mut said);
    policies(seen, &mut said);
    channels(seen, &mut said);
    bounds(seen, &mut said);
    for (what, notes) in [
        ("late", &items.late),
        ("never", &items.never),
        ("failing", &items.failing),
        ("no-schedule", &items.unscheduled),
    ] {
        let unnamed = notes.count - notes.named.len() as u64;
        if unnamed > 0 {
            said.push(format!(
                "{unnamed} more items than are named are in state {what}: tresor item list --state {what}"
            ));
        }
    }
    said
}

/// `a, b and 3 more`.
fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let named = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// `1 item (web)`, `7 items (a, b, … and 2 more)`.
fn counted(notes: &Notes) -> String {
    let mut names: Vec<&str> = notes.named.iter().map(|note| note.name.as_str()).collect();
    let unnamed = notes.count - names.len() as u64;
    names.truncate(NAMED_MAX);
    let more = notes.count - names.len() as u64;
    debug_assert!(more >= unnamed);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let plural = if notes.count == 1 { "" } else { "s" };
    format!("{} item{plural} ({}{more})", notes.count, names.join(", "))
}

fn damage(seen: Seen<'_>, items: &Items, said: &mut Vec<String>) {
    if items.harmed.count > 0 {
        said.push(format!(
            "Damage was found under the newest point of {}: back them up again, and look at the store.",
            counted(&items.harmed)
        ));
    }
    for (name, id) in seen.state.vaults_by_name() {
        let harmed = seen.state.points_in(id).harmed;
        if harmed > 0 {
            let (points, are) = if harmed == 1 {
                ("point", "is")
            } else {
                ("points", "are")
            };
            said.push(format!(
                "{harmed} {points} of vault {name} {are} damaged: tresor point list --vault {name}"
            ));
        }
    }
}

/// What the newest verify of each vault found.
fn verified(seen: Seen<'_>, said: &mut Vec<String>) {
    for (name, id) in seen.state.vaults_by_name() {
        let verified = seen.state.vaults().get(&id).and_then(|vault| vault.verified);
        if let Some(verified) = verified.filter(|verified| verified.findings > 0) {
            said.push(format!(
                "The newest verify of vault {name} found {} things wrong: tresor job show {}",
                verified.findings, verified.job
            ));
        }
    }
}

fn clock(seen: Seen<'_>, said: &mut Vec<String>) {
    let stopped = seen.state.marks().expiry_stopped;
    if stopped == Some(FOUNDED_AGAIN) {
        said.push(String::from(
            "The cluster was founded again from what was left of a lost one, and nothing expires until a person has looked at its policies and holds: tresor cluster confirm-clock",
        ));
    } else if let Some(step) = stopped {
        let direction = if step < 0 { "back" } else { "ahead" };
        said.push(format!(
            "The clock of the leader stepped {direction} by {}, and nothing expires until a person has looked at it: tresor cluster confirm-clock",
            span_in_words(step.saturating_abs())
        ));
    }
}

fn vaults(seen: Seen<'_>, said: &mut Vec<String>) {
    let state = seen.state;
    for (name, id) in state.vaults_by_name() {
        let Some(vault) = state.vaults().get(&id) else {
            continue;
        };
        match vault.state {
            VaultState::Claiming => match state.open_upkeep(id, true) {
                // It failed for good, or was cancelled.
                None => said.push(match failed_claim(state, id) {
                    Some((job, why)) => {
                        format!("Vault {name} could not be made: {why}. When that is mended: tresor job retry {job}")
                    }
                    None => format!("Vault {name} was not made: tresor vault remove {name}, and make it again"),
                }),
                Some(job) => {
                    // A vault may be claimed long after it was made: when the cluster was founded again.
                    let since = state.jobs().get(&job).map_or(vault.added, |job| job.created);
                    let made = match vault.spec.origin {
                        VaultOrigin::Make => "made",
                        VaultOrigin::TakeOver => "claimed",
                    };
                    if seen.now.since(since) >= MAKING_MS {
                        said.push(format!(
                            "Vault {name} is still being {made} after {}: tresor explain job {job}",
                            span_in_words(seen.now.since(since))
                        ));
                    }
                }
            },
            // Whoever leads goes on with it.
            VaultState::Removing => {}
            VaultState::Ready(_) => {
                if seen.presence.is_cut(id) {
                    said.push(format!(
                        "Not all that is known of vault {name} fits into its catalogue: what is left out stands in manifests and in a backup of the cluster alone (tresor cluster backup)"
                    ));
                }
                let put_at = vault.catalogue.map_or(vault.added, |(put_at, _)| put_at);
                if vault.catalogue_is_behind() && seen.now.since(put_at) >= CATALOGUE_MS {
                    said.push(format!(
                        "The catalogue of vault {name} was not put for {}: what a lost cluster knew of it is as old",
                        span_in_words(seen.now.since(put_at))
                    ));
                }
            }
        }
    }
}

fn failed_claim(state: &State, vault: tresor_proto::ids::VaultId) -> Option<(tresor_proto::ids::JobId, String)> {
    // The newest one counts; a vault has few.
    let (id, job) = state
        .jobs()
        .iter()
        .rev()
        .find(|(_, job)| job.spec.vault == vault && matches!(job.spec.work, Work::Claim))?;
    let failure = job.attempts.last().and_then(|attempt| attempt.failure.as_ref());
    let why = match (job.state, failure) {
        (JobState::Cancelled, _) => String::from("its job was cancelled"),
        (_, Some(failure)) => crate::rpc::refused::shown(&failure.message),
        (_, None) => String::from("its job ended"),
    };
    Some((*id, why))
}

fn coordinators(seen: Seen<'_>, said: &mut Vec<String>) {
    let silent: Vec<&v1::Coordinator> = seen.coordinators.iter().filter(|node| !node.reachable).collect();
    if !silent.is_empty() {
        let voters = seen.coordinators.iter().filter(|node| node.role == "voter").count();
        let left = seen
            .coordinators
            .iter()
            .filter(|node| node.role == "voter" && node.reachable)
            .count();
        let spare = left.saturating_sub(voters / 2 + 1);
        said.push(format!(
            "Not heard of: {}. {}",
            listed(silent.iter().map(|node| node.name.as_str())),
            match spare {
                0 => "If one more is lost, nothing can be decided any more.".to_owned(),
                spare => format!("{spare} more may be lost."),
            }
        ));
    }
    for node in seen
        .coordinators
        .iter()
        .filter(|node| node.clock_ms.saturating_abs() > DIFFERENCE_MS)
    {
        said.push(clock_is_off("coordinator", &node.name, node.clock_ms));
    }
}

fn clock_is_off(what: &str, name: &str, clock_ms: i64) -> String {
    let direction = if clock_ms < 0 { "behind" } else { "ahead of" };
    format!(
        "The clock of {what} {name} is {} {direction} the leader's: set it right",
        span_in_words(clock_ms.saturating_abs())
    )
}

fn workers(seen: Seen<'_>, items: &Items, said: &mut Vec<String>) {
    let Seen { state, presence, .. } = seen;
    let mut ready = 0;
    let mut silent = Vec::new();
    for (name, id) in state.workers_by_name() {
        let Some(row) = state.workers().get(&id) else {
            continue;
        };
        match convert::worker_state(state, presence, id, row, seen.now_ms) {
            "ready" => ready += 1,
            "silent" => silent.push(name),
            _ => {}
        }
        if let Some(ends) = presence.certificate_ends(id) {
            let left = ends.saturating_mul(1000).saturating_sub(seen.now.0);
            if left < CERTIFICATE_MS {
                said.push(format!(
                    "The certificate of worker {name} ends {}, and was not renewed: look at its log",
                    Time(ends.saturating_mul(1000))
                ));
            }
        }
        let clock_ms = presence.heard(id).map_or(0, |heard| heard.clock_ms);
        if clock_ms.saturating_abs() > DIFFERENCE_MS {
            said.push(clock_is_off("worker", name, clock_ms));
        }
    }
    if ready == 0 && (items.protected > 0 || state.open_jobs_count() > 0) {
        said.push(String::from(
            "No worker is there, so nothing is backed up or restored: tresor worker list",
        ));
    }
    if !silent.is_empty() {
        said.push(format!("Workers not heard of: {}", listed(silent)));
    }
    if items.unreachable.count > 0 {
        said.push(format!(
            "The disks of {} are on hosts that have no worker: start one there, or change the items",
            counted(&items.unreachable)
        ));
    }
}

fn waiting(seen: Seen<'_>, said: &mut Vec<String>) {
    let mut waiting = seen.state.open_jobs().filter(|id| {
        let state = seen.state.jobs().get(id).map(|job| job.state);
        matches!(state, Some(JobState::Queued { not_before }) if waits_long(seen.now, not_before))
    });
    if let Some(first) = waiting.next() {
        let count = 1 + waiting.count();
        let (jobs, have) = if count == 1 { ("job", "has") } else { ("jobs", "have") };
        said.push(format!(
            "{count} {jobs} {have} waited for over {}: tresor explain job {first}",
            span_in_words(WAITING_MS)
        ));
    }
}

fn waits_long(now: Time, not_before: Time) -> bool {
    now.since(not_before) >= WAITING_MS
}

fn policies(seen: Seen<'_>, said: &mut Vec<String>) {
    for (name, id) in seen.state.policies_by_name() {
        if let Some(Err(error)) = seen.plans.get(id) {
            said.push(format!(
                "Policy {name} cannot be followed, so its items are not backed up by themselves and nothing of them expires: {error}"
            ));
        }
    }
}

/// Channels of notifications that nobody hears.
fn channels(seen: Seen<'_>, said: &mut Vec<String>) {
    for (name, channel) in seen.state.channels().iter() {
        let trouble = channel.trouble.as_ref();
        if let Some(trouble) = trouble.filter(|trouble| seen.now.since(trouble.since) >= CHANNEL_MS) {
            said.push(format!(
                "Channel {name} has taken no notification since {}: {} (tresor notify test {name})",
                trouble.since,
                crate::rpc::refused::shown(&trouble.error)
            ));
        }
    }
}

fn bounds(seen: Seen<'_>, said: &mut Vec<String>) {
    for (what, count, max) in [
        ("points", seen.state.points().len() as u64, POINTS_MAX),
        ("items", seen.state.items().len() as u64, ITEMS_MAX),
    ] {
        if count * 100 >= max * NEARLY_FULL {
            said.push(format!(
                "{count} of at most {max} {what} are there: beyond, none can be made"
            ));
        }
    }
}
