//! A cluster that begins again from what is left of a lost one.

use super::*;
use crate::state::rows::VaultState;
use crate::state::{FOUNDED_AGAIN, GAP, NODES_MAX, Refounding};

const LATER: i64 = START + 40 * DAY;

fn refounding() -> Refounding {
    Refounding {
        cluster: [8; 16],
        name: None,
        ca_certificate: vec![11],
        ca_key: vec![12],
        member: MemberSpec {
            member: MemberId(0),
            name: String::from("c9"),
            address: String::from("c9:7000"),
            token: None,
        },
        admin: Some(ApiTokenSpec {
            token: tresor_proto::ids::TokenId([77; 16]),
            name: String::from("first administrator"),
            role: String::from("admin"),
            hash: [5; 32],
            expires: None,
        }),
        now: Time(LATER),
        from: String::from("a backup of cluster test"),
    }
}

/// As it comes back from a file.
fn reread(bench: &Bench) -> State {
    State::load(bench.stored()).unwrap()
}

#[test]
fn what_ran_or_waited_has_ended_and_every_vault_is_claimed_anew() {
    let (mut bench, worker) = Bench::with_points(2);
    let running = bench.start_backup(ITEM, worker);
    let waiting = bench.queue(verify_of(None));
    let mut state = reread(&bench);
    let begun = state.refound(bench.index, &refounding()).unwrap();
    assert_eq!((begun.index, begun.jobs, begun.vaults), (bench.index + GAP, 2, 1));
    for job in [running.job, waiting] {
        assert_eq!(state.jobs().get(&job).unwrap().state, JobState::Cancelled);
    }
    assert!(state.sessions().is_empty() && !state.is_pinned(point_id(2)));
    let vault = state.vaults().get(&VAULT).unwrap();
    assert_eq!(
        (vault.state, vault.spec.origin, vault.catalogue),
        (VaultState::Claiming, VaultOrigin::TakeOver, None)
    );
    let claim = state.open_upkeep(VAULT, true).unwrap();
    assert!(claim.0 > bench.index && claim.0 <= begun.index);
    assert_eq!(state.jobs().get(&claim).unwrap().spec.work, Work::Claim);
    // Points, items and policies are as they were, and nobody works in the vault before it is claimed.
    assert_eq!(state.points().len(), 2);
    assert_eq!(state.items(), bench.state.items());
    let mut after = Bench {
        rows: state
            .all_rows()
            .into_iter()
            .map(|row| ((row.table, row.key), row.value.unwrap()))
            .collect(),
        index: begun.index,
        now: Time(LATER),
        log: None,
        state,
    };
    after.state.take_changes();
    assert!(matches!(
        after.refuses(PERSON, Command::Enqueue(backup_of(ITEM))),
        Refusal::Held { .. }
    ));
    let newcomer = after.worker("w1", 2);
    let leased = after.lease(claim, newcomer);
    after.completes(leased, Outcome::Claimed(claim_of(7)));
    after.back_up(ITEM, newcomer, point_id(3));
}

fn claim_of(n: u64) -> VaultClaim {
    VaultClaim { n, ..claim(1) }
}

#[test]
fn nobody_and_nothing_of_the_lost_cluster_is_believed() {
    let (mut bench, worker) = Bench::ready();
    let token = tresor_proto::ids::TokenId([66; 16]);
    bench.by(
        PERSON,
        Command::CreateApiToken(ApiTokenSpec {
            token,
            name: String::from("ann"),
            role: String::from("admin"),
            hash: [6; 32],
            expires: None,
        }),
    );
    let mut state = reread(&bench);
    let begun = state.refound(bench.index, &refounding()).unwrap();
    let now = state.now();
    assert!(!state.tokens().get(&token).unwrap().is_good(now));
    assert!(
        state
            .tokens()
            .get(&tresor_proto::ids::TokenId([77; 16]))
            .unwrap()
            .is_good(now)
    );
    assert!(state.workers().get(&worker).unwrap().removed);
    assert_eq!(state.worker_named("w1"), None, "its name is free");
    let members: Vec<_> = state.members().iter().filter(|(_, row)| !row.removed).collect();
    assert_eq!(members.len(), 1);
    assert_eq!((*members[0].0, members[0].1.name.as_str()), (begun.member, "c9"));
    assert_ne!(begun.member, MemberId(1));
    let cluster = state.cluster().unwrap();
    assert_eq!((cluster.id, cluster.name.as_str()), ([8; 16], "test"));
    assert_eq!(
        (&cluster.ca_certificate[..], &cluster.ca_key[..]),
        (&[11][..], &[12][..])
    );
}

#[test]
fn nodes_of_the_lost_cluster_count_against_no_bound_and_those_before_it_are_forgotten() {
    let (mut bench, worker) = Bench::ready();
    let add = |number: u64| {
        Command::AddWorker(WorkerSpec {
            name: format!("many-{number}"),
            token: None,
        })
    };
    for number in 1..NODES_MAX {
        bench.does(add(number));
    }
    assert!(matches!(bench.refuses(PERSON, add(0)), Refusal::Full { .. }));
    let mut state = reread(&bench);
    let begun = state.refound(bench.index, &refounding()).unwrap();
    assert!(state.workers().contains(&worker), "its jobs name it");
    assert_eq!(state.workers().len() as u64, NODES_MAX);
    let mut after = Bench {
        rows: state
            .all_rows()
            .into_iter()
            .map(|row| ((row.table, row.key), row.value.unwrap()))
            .collect(),
        index: begun.index,
        now: Time(LATER),
        log: None,
        state,
    };
    after.state.take_changes();
    let newcomer = after.worker("w1", 2);
    assert_eq!(after.state.workers().len() as u64, NODES_MAX + 1);
    let mut state = reread(&after);
    let again = Refounding {
        admin: None,
        ..refounding()
    };
    state.refound(after.index, &again).unwrap();
    let left: Vec<_> = state.workers().iter().map(|(id, _)| *id).collect();
    assert_eq!(left, [newcomer]);
}

#[test]
fn nothing_expires_until_a_person_has_looked_and_the_audit_trail_goes_on() {
    let (bench, _) = Bench::with_points(1);
    let mut state = reread(&bench);
    let entries = state.audit().len();
    state.refound(bench.index, &refounding()).unwrap();
    assert_eq!(state.marks().expiry_stopped, Some(FOUNDED_AGAIN));
    assert_eq!(state.now(), Time(LATER));
    let (_, last) = state.audit().last().unwrap();
    assert_eq!(state.audit().len(), entries + 1);
    assert_eq!(
        (last.action.as_str(), last.object.as_str(), &last.actor),
        ("found cluster again", "a backup of cluster test", &Actor::Founder)
    );
    state.verify_audit().unwrap();
}

#[test]
fn rows_without_the_rows_that_they_rest_on_are_left_out() {
    let (bench, _) = Bench::with_points(2);
    // As of a catalogue: no cluster, no trail, no jobs; and its policy did not fit.
    let rows = bench.stored().filter(|(table, ..)| [1, 3, 5, 6].contains(table));
    let mut state = State::load(rows).unwrap();
    assert!(matches!(
        state.clone().refound(1, &refounding()),
        Err(Refusal::Invalid { .. })
    ));
    state.call([9; 16], "test");
    state.refound(1, &refounding()).unwrap();
    assert_eq!(state.items().get(&ITEM).unwrap().spec.policy, None);
    assert_eq!(state.points().len(), 2);
    assert_eq!(state.audit().len(), 1);
    // Points of an item that is not known are found again in their vault.
    let rows = bench.stored().filter(|(table, ..)| [0, 1, 3, 6].contains(table));
    let mut state = State::load(rows).unwrap();
    state.refound(bench.index, &refounding()).unwrap();
    assert!(state.points().is_empty());
}

#[test]
fn hidden_points_can_be_shown_again_for_the_whole_time_from_the_new_beginning() {
    let (mut bench, _) = Bench::with_points(2);
    let point = point_id(1);
    bench.hide(&[point], false);
    let mut state = reread(&bench);
    state.refound(bench.index, &refounding()).unwrap();
    assert_eq!(state.points().get(&point).unwrap().hidden, Some(Time(LATER)));
    assert_eq!(state.points().get(&point_id(2)).unwrap().hidden, None);
}

#[test]
fn of_two_policies_with_one_name_the_newer_keeps_it() {
    let (mut bench, _) = Bench::with_points(1);
    let spec = crate::state::command::PolicySpec {
        name: String::from("hourly"),
        ..Default::default()
    };
    let (first, second) = (PolicyId([21; 16]), PolicyId([22; 16]));
    bench.does(Command::CreatePolicy { policy: first, spec });
    let mut state = reread(&bench);
    // As a catalogue that was made later tells of it.
    let mut row = state.policies().get(&first).unwrap().clone();
    row.version += 1;
    state.policies.insert(second, row);
    state.refound(bench.index, &refounding()).unwrap();
    let name = |id| state.policies().get(&id).unwrap().spec.name.clone();
    assert_eq!(name(second), "hourly");
    assert_eq!(name(first), "hourly-15151515");
}

#[test]
fn a_cluster_that_began_again_trusts_its_clock_and_a_step_of_it_is_noticed() {
    let (bench, _) = Bench::with_points(1);
    let mut state = reread(&bench);
    state.refound(bench.index, &refounding()).unwrap();
    assert_eq!(state.marks().expiry_stopped, Some(FOUNDED_AGAIN));
    assert!(!state.marks().clock_is_doubted());
    state.stop_expiry(5_000_000).unwrap();
    assert!(state.marks().clock_is_doubted());
}
