//! What can be read off the state at once: vaults, workers, slots, bounds. It grows with vaults and workers, and with nothing that is counted in
//! hundreds of thousands.

use std::collections::BTreeMap;

use super::page::{LeftOut, Page, fact, float, seconds};
use crate::node::handle::Standing;
use crate::node::presence::Presence;
use crate::rpc::convert;
use crate::state::entry::Time;
use crate::state::rows::{Vault, VaultState};
use crate::state::{
    GIVEN_UP_MAX, ITEMS_MAX, NODES_MAX, OPEN_JOBS_MAX, POINTS_MAX, SLOTS, State, TOKENS_MAX, VAULTS_MAX,
};

/// Vaults that have series of their own: nine each.
const VAULT_SERIES_MAX: usize = 300;
/// Workers that have series of their own: five each.
const WORKER_SERIES_MAX: usize = 2000;

/// What every coordinator shows of the state, whoever leads.
pub(super) fn show_state(page: &Page, state: &State) {
    let marks = state.marks();
    page.gauge(
        "tresor_coordinator_items",
        "Items, those included of which only points are left.",
        float(state.items().len()),
    );
    page.gauge(
        "tresor_coordinator_points",
        "Recovery points, hidden ones included.",
        float(state.points().len()),
    );
    page.gauge(
        "tresor_coordinator_points_given_up",
        "Points that were given up and are not forgotten yet.",
        float(state.given_up().len()),
    );
    page.gauge("tresor_coordinator_vaults", "Vaults.", float(state.vaults().len()));
    page.gauge(
        "tresor_coordinator_sessions",
        "Sessions that are open: writers and readers of vaults.",
        float(state.sessions().len()),
    );
    let running = state.leases().count();
    let queued = state.open_jobs_count().saturating_sub(running);
    page.gauges(
        "tresor_coordinator_jobs",
        "Jobs that have not ended, by state.",
        ["state"],
        [("running", running), ("queued", queued)].map(|(state, count)| ([state], float(count))),
    );
    page.gauge(
        "tresor_coordinator_expiry_stopped",
        "1 while nothing expires because a clock stepped, or the cluster was founded again, and nobody has confirmed it.",
        fact(marks.expiry_stopped.is_some()),
    );
    page.counts(
        "tresor_coordinator_audit_entries_total",
        "Entries of the audit trail that were ever made.",
        [],
        [([], float(marks.audit_next))],
    );
    page.gauge(
        "tresor_coordinator_audit_entries",
        "Entries of the audit trail that are kept.",
        float(state.audit().len()),
    );
    let granted = state.slots().len();
    page.gauges(
        "tresor_coordinator_slots",
        "Slots of the index, by whether a worker has them.",
        ["state"],
        [
            ("granted", granted),
            ("free", usize::from(SLOTS).saturating_sub(granted)),
        ]
        .map(|(state, count)| ([state], float(count))),
    );
    let bounds = [
        ("points", state.points().len() as u64, POINTS_MAX),
        ("items", state.items().len() as u64, ITEMS_MAX),
        ("points_given_up", state.given_up().len() as u64, GIVEN_UP_MAX as u64),
        ("open_jobs", state.open_jobs_count() as u64, OPEN_JOBS_MAX),
        ("vaults", state.vaults().len() as u64, VAULTS_MAX),
        (
            "nodes",
            state.workers().len() as u64 + state.members().len() as u64,
            NODES_MAX,
        ),
        ("tokens", state.tokens().len() as u64, TOKENS_MAX),
    ];
    page.gauges(
        "tresor_coordinator_bound_used_ratio",
        "How much of a bound of the cluster's state is used, 0 to 1: at 1 no more can be made.",
        ["what"],
        bounds.map(|(what, used, most)| ([what], float(used) / float(most))),
    );
}

/// Channels of notifications: fifty at most.
pub(super) fn show_channels(page: &Page, state: &State, now: Time) {
    let channels = || state.channels().iter();
    page.counts(
        "tresor_coordinator_notifications_total",
        "What came of notifications since their channel was made: taken, refused (attempts that were not taken), lost (given up).",
        ["channel", "outcome"],
        channels().flat_map(|(name, channel)| {
            let outcomes = [("taken", channel.taken), ("refused", channel.refused), ("lost", channel.lost)];
            outcomes.map(|(outcome, count)| ([name.as_str(), outcome], float(count)))
        }),
    );
    let waiting = |of: &String| state.outbox().values().filter(|parcel| parcel.channel == *of).count();
    page.gauges(
        "tresor_coordinator_notifications_waiting",
        "Notifications that wait to be taken.",
        ["channel"],
        channels().map(|(name, _)| ([name.as_str()], float(waiting(name)))),
    );
    page.gauges(
        "tresor_coordinator_notifications_failing_seconds",
        "For how long a channel has taken no notification that it was sent; 0: it takes them.",
        ["channel"],
        channels().map(|(name, channel)| {
            let since = channel.trouble.as_ref().map_or(now, |trouble| trouble.since);
            ([name.as_str()], seconds(now.since(since)))
        }),
    );
}

/// How this member stands in Raft.
pub(super) fn show_raft(page: &Page, standing: &Standing, is_leader: bool, has_leader: bool) {
    page.gauge("tresor_coordinator_term", "The term of Raft.", float(standing.term));
    page.gauge(
        "tresor_coordinator_commit_index",
        "The log is committed up to here.",
        float(standing.commit),
    );
    page.gauge(
        "tresor_coordinator_applied_index",
        "The log is applied up to here.",
        float(standing.applied),
    );
    page.gauge(
        "tresor_coordinator_first_index",
        "The log begins here: what was before is in a snapshot.",
        float(standing.first),
    );
    page.gauge(
        "tresor_coordinator_is_leader",
        "1 where this coordinator leads.",
        fact(is_leader),
    );
    page.gauge(
        "tresor_coordinator_has_leader",
        "1 where this coordinator knows who leads.",
        fact(has_leader),
    );
    let voters = standing.members.iter().filter(|member| member.votes).count();
    let learners = standing.members.len() - voters;
    page.gauges(
        "tresor_coordinator_members",
        "Coordinators, by what they are.",
        ["role"],
        [("voter", voters), ("learner", learners)].map(|(role, count)| ([role], float(count))),
    );
    page.counts(
        "tresor_coordinator_snapshots_total",
        "Snapshots of the state to and from other coordinators: sent, failed (on the way there), received.",
        ["what"],
        [
            ("sent", standing.snapshots.sent),
            ("failed", standing.snapshots.failed),
            ("received", standing.snapshots.received),
        ]
        .map(|(what, count)| ([what], float(count))),
    );
}

/// What the leader alone knows of other coordinators.
pub(super) fn show_members(page: &Page, state: &State, standing: &Standing) {
    let last = standing.members.iter().map(|member| member.matched).max().unwrap_or(0);
    let named: Vec<_> = standing
        .members
        .iter()
        .map(|member| {
            let row = state.members().get(&member.member);
            let name = row.map_or_else(|| member.member.to_string(), |row| row.name.clone());
            (name, member)
        })
        .collect();
    page.gauges(
        "tresor_coordinator_member_reachable",
        "1 where the leader has heard of a coordinator within two seconds.",
        ["member"],
        named
            .iter()
            .map(|(name, member)| ([name.as_str()], fact(member.reachable))),
    );
    page.gauges(
        "tresor_coordinator_member_behind_entries",
        "Entries of the log that a coordinator is not known to have.",
        ["member"],
        named
            .iter()
            .map(|(name, member)| ([name.as_str()], float(last.saturating_sub(member.matched)))),
    );
    page.gauges(
        "tresor_coordinator_member_clock_offset_seconds",
        "A coordinator's wall clock minus the leader's.",
        ["member"],
        named
            .iter()
            .map(|(name, member)| ([name.as_str()], seconds(member.clock_ms))),
    );
    let voters = standing.members.iter().filter(|member| member.votes);
    let (mut all, mut reachable) = (0_i64, 0_i64);
    for voter in voters {
        all += 1;
        reachable += i64::from(voter.reachable);
    }
    #[expect(clippy::cast_precision_loss, reason = "coordinators are few")]
    let spare = (reachable - (all / 2 + 1)) as f64;
    page.gauge(
        "tresor_coordinator_quorum_spare",
        "Voting coordinators that may still be lost before nothing can be decided any more.",
        spare,
    );
}

/// What the leader alone knows of workers.
pub(super) fn show_workers(page: &Page, state: &State, presence: &Presence, now_ms: u64) {
    let slots = convert::SlotCounts::new(state);
    let mut by_state: BTreeMap<&str, u64> = ["ready", "silent", "drained", "joined"].map(|word| (word, 0)).into();
    let all = state.workers_by_name();
    let rows = all.filter_map(|(name, id)| Some((name, id, state.workers().get(&id)?)));
    let rows: Vec<_> = rows.collect();
    for (_, id, row) in &rows {
        let word = convert::worker_state(state, presence, *id, row, now_ms);
        *by_state.entry(word).or_default() += 1;
    }
    page.gauges(
        "tresor_coordinator_workers",
        "Workers that are not removed, by state: ready; silent (not heard of for 25 s); drained (gets no new jobs); joined (never started).",
        ["state"],
        by_state.iter().map(|(state, count)| ([*state], float(*count))),
    );
    page.leave_out(LeftOut::Workers, rows.len().saturating_sub(WORKER_SERIES_MAX));
    let shown = || rows.iter().take(WORKER_SERIES_MAX);
    page.gauges(
        "tresor_coordinator_worker_heard",
        "1 where a worker was heard of within 25 s, of those that were ever started.",
        ["worker"],
        shown()
            .filter(|(_, _, row)| row.life.is_some())
            .map(|(name, id, _)| ([*name], fact(presence.is_present(state, *id, now_ms)))),
    );
    page.gauges(
        "tresor_coordinator_worker_clock_offset_seconds",
        "A worker's wall clock minus the leader's, as it said last.",
        ["worker"],
        shown().filter_map(|(name, id, _)| Some(([*name], seconds(presence.heard(*id)?.clock_ms)))),
    );
    page.gauges(
        "tresor_coordinator_worker_certificate_end_timestamp_seconds",
        "When the certificate ends that a worker showed last.",
        ["worker"],
        shown().filter_map(|(name, id, _)| {
            let ends = presence.certificate_ends(*id)?;
            Some(([*name], seconds(ends.saturating_mul(1000))))
        }),
    );
    page.gauges(
        "tresor_coordinator_worker_slots",
        "Slots of the index that a worker has.",
        ["worker"],
        shown().map(|(name, id, _)| ([*name], f64::from(slots.of(*id)))),
    );
    page.gauges(
        "tresor_coordinator_worker_jobs",
        "Jobs that a worker runs.",
        ["worker"],
        shown().map(|(name, id, _)| ([*name], float(state.leases_of(*id).count()))),
    );
    let mut running: BTreeMap<&str, u64> = BTreeMap::new();
    for job in state.leases().filter_map(|id| state.jobs().get(&id)) {
        *running.entry(convert::work_text(&job.spec.work)).or_default() += 1;
    }
    page.gauges(
        "tresor_coordinator_jobs_running",
        "Jobs that run, by kind: each has a lease.",
        ["kind"],
        running.into_iter().map(|(kind, count)| ([kind], float(count))),
    );
}

/// What the leader shows of vaults.
pub(super) fn show_vaults(page: &Page, state: &State, now: Time) {
    let all = state.vaults_by_name();
    let rows: Vec<(&str, _, &Vault)> = all
        .filter_map(|(name, id)| Some((name, id, state.vaults().get(&id)?)))
        .collect();
    page.leave_out(LeftOut::Vaults, rows.len().saturating_sub(VAULT_SERIES_MAX));
    let shown = || rows.iter().take(VAULT_SERIES_MAX);
    page.gauges(
        "tresor_coordinator_vault_ready",
        "1 where a vault is claimed for this cluster.",
        ["vault"],
        shown().map(|(name, _, row)| ([*name], fact(matches!(row.state, VaultState::Ready(_))))),
    );
    page.gauges(
        "tresor_coordinator_vault_claim",
        "The number of this cluster's claim on a vault: it grows when somebody takes the vault over.",
        ["vault"],
        shown().filter_map(|(name, _, row)| match row.state {
            VaultState::Ready(claim) => Some(([*name], float(claim.n))),
            VaultState::Claiming | VaultState::Removing => None,
        }),
    );
    page.gauges(
        "tresor_coordinator_vault_items",
        "Protected items of a vault.",
        ["vault"],
        shown().map(|(name, id, _)| ([*name], float(state.items_in(*id)))),
    );
    page.gauges(
        "tresor_coordinator_vault_points",
        "Points of a vault, hidden ones included.",
        ["vault"],
        shown().map(|(name, id, _)| ([*name], float(state.points_in(*id).all))),
    );
    page.gauges(
        "tresor_coordinator_vault_points_harmed",
        "Points of a vault that damage was found under.",
        ["vault"],
        shown().map(|(name, id, _)| ([*name], float(state.points_in(*id).harmed))),
    );
    page.gauges(
        "tresor_coordinator_vault_put_bytes",
        "Bytes that jobs which were done have put into a vault. What was deleted since is not taken off.",
        ["vault"],
        shown().map(|(name, _, row)| ([*name], float(row.bytes_stored))),
    );
    page.gauges(
        "tresor_coordinator_vault_added_timestamp_seconds",
        "Since when the cluster knows a vault.",
        ["vault"],
        shown().map(|(name, _, row)| ([*name], seconds(row.added.0))),
    );
    page.gauges(
        "tresor_coordinator_vault_verified_timestamp_seconds",
        "When the newest verify of all of a vault ended; none where there was none.",
        ["vault"],
        shown().filter_map(|(name, _, row)| Some(([*name], seconds(row.verified?.at.0)))),
    );
    page.gauges(
        "tresor_coordinator_vault_findings",
        "Things that the newest verify of all of a vault found wrong.",
        ["vault"],
        shown().filter_map(|(name, _, row)| Some(([*name], float(row.verified?.findings)))),
    );
    page.gauges(
        "tresor_coordinator_vault_catalogue_behind_seconds",
        "How old the catalogue of a vault is that lacks something; 0 where it lacks nothing.",
        ["vault"],
        shown()
            .filter(|(_, _, row)| matches!(row.state, VaultState::Ready(_)))
            .map(|(name, _, row)| {
                let put_at = row.catalogue.map_or(row.added, |(put_at, _)| put_at);
                let behind = if row.catalogue_is_behind() {
                    now.since(put_at).max(0)
                } else {
                    0
                };
                ([*name], seconds(behind))
            }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::handle::MemberStanding;
    use crate::testing::Story;
    use tresor_proto::ids::MemberId;

    fn shown(show: impl FnOnce(&Page)) -> String {
        let page = Page::default();
        show(&page);
        page.text()
    }

    #[test]
    fn the_leader_tells_how_many_coordinators_may_still_be_lost() {
        let member = |id, votes, reachable| MemberStanding {
            member: MemberId(id),
            votes,
            matched: 40 - id,
            reachable,
            clock_ms: 1500,
        };
        let mut standing = Standing {
            members: vec![
                member(1, true, true),
                member(2, true, true),
                member(3, true, true),
                member(4, false, false),
            ],
            ..Standing::default()
        };
        let state = Story::new().state;
        let text = shown(|page| show_members(page, &state, &standing));
        for line in [
            "tresor_coordinator_quorum_spare 1",
            r#"tresor_coordinator_member_reachable{member="c1"} 1"#,
            r#"tresor_coordinator_member_behind_entries{member="c1"} 0"#,
            r#"tresor_coordinator_member_clock_offset_seconds{member="c1"} 1.5"#,
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        standing.members[1].reachable = false;
        assert!(shown(|page| show_members(page, &state, &standing)).contains("tresor_coordinator_quorum_spare 0"));
    }

    #[test]
    fn a_worker_that_is_silent_is_told_from_one_that_is_there() {
        let story = Story::new();
        let mut presence = Presence::default();
        let (name, id) = story
            .state
            .workers_by_name()
            .next()
            .map(|(name, id)| (name.to_owned(), id))
            .expect("a story has one");
        presence.hear(id, crate::testing::LIFE, -2000, 1000);
        presence.note_certificate(id, 1_800_000_000);
        let text = shown(|page| show_workers(page, &story.state, &presence, 2000));
        for line in [
            format!(r#"tresor_coordinator_worker_heard{{worker="{name}"}} 1"#),
            format!(r#"tresor_coordinator_worker_clock_offset_seconds{{worker="{name}"}} -2"#),
            format!(r#"tresor_coordinator_worker_certificate_end_timestamp_seconds{{worker="{name}"}} 1800000000"#),
            String::from(r#"tresor_coordinator_workers{state="ready"} 1"#),
        ] {
            assert!(text.contains(&line), "{line}\nis not in\n{text}");
        }
        let text = shown(|page| show_workers(page, &story.state, &presence, 100_000));
        assert!(
            text.contains(&format!(r#"tresor_coordinator_worker_heard{{worker="{name}"}} 0"#)),
            "{text}"
        );
        assert!(
            text.contains(r#"tresor_coordinator_workers{state="silent"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn a_vault_shows_its_claim_and_how_far_its_catalogue_is_behind() {
        let mut story = Story::new();
        let web = story.protect("web", None);
        story.backs_up(web);
        let later = story.now.plus(5000);
        let text = shown(|page| show_vaults(page, &story.state, later));
        for line in [
            r#"tresor_coordinator_vault_ready{vault="main"} 1"#,
            r#"tresor_coordinator_vault_claim{vault="main"} 1"#,
            r#"tresor_coordinator_vault_points{vault="main"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        let behind = text
            .lines()
            .find_map(|line| line.strip_prefix(r#"tresor_coordinator_vault_catalogue_behind_seconds{vault="main"} "#))
            .and_then(|number| number.parse::<f64>().ok());
        assert!(behind.is_some_and(|behind| behind >= 5.0), "{text}");
        assert!(
            !text.contains("vault_verified_timestamp"),
            "it was never verified: {text}"
        );
        let bounds = shown(|page| show_state(page, &story.state));
        assert!(
            bounds.contains(r#"tresor_coordinator_bound_used_ratio{what="points"} 0.00000"#),
            "{bounds}"
        );
    }
}
