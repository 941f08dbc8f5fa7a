//! Bounds: every table has one, and what is full refuses or forgets the oldest.

use super::*;
use crate::state::rows::GivenUp;
use crate::state::{ENDED_JOBS_MAX, GIVEN_UP_MAX, ITEMS_MAX, NODES_MAX, OPEN_JOBS_MAX, TOKENS_MAX, VAULTS_MAX};
use tresor_proto::ids::TokenId;

fn is_full(refusal: &Refusal, bound: u64) -> bool {
    matches!(refusal, Refusal::Full { max, .. } if *max == bound)
}

#[test]
fn ended_jobs_are_forgotten_oldest_first() {
    let (mut bench, _) = Bench::ready();
    let before = bench.state.jobs().len();
    let mut jobs = Vec::new();
    for _ in 0..ENDED_JOBS_MAX + 5 {
        let job = bench.queue(verify_of(None));
        bench.by(Actor::Cluster, Command::Cancel { job });
        bench.pass(1);
        jobs.push(job);
    }
    assert_eq!(bench.state.jobs().len(), ENDED_JOBS_MAX);
    // The claim of the vault was the first to end.
    let gone = before + 5;
    assert!(!bench.state.jobs().contains(&jobs[gone - before - 1]));
    assert!(bench.state.jobs().contains(&jobs[gone - before]));
    assert!(matches!(
        bench.refuses(PERSON, Command::Retry { job: jobs[0] }),
        Refusal::Missing { .. }
    ));
    bench.state.check_invariants(bench.index).unwrap();
}

#[test]
fn jobs_that_wait_are_as_many_as_fit_and_a_retry_counts() {
    let (mut bench, worker) = Bench::ready();
    let retried = bench.queue(verify_of(None));
    bench.by(Actor::Cluster, Command::Cancel { job: retried });
    for _ in 0..OPEN_JOBS_MAX {
        bench.queue(verify_of(None));
    }
    for command in [
        Command::Enqueue(verify_of(None)),
        Command::Retry { job: retried },
        Command::AddVault(vault_spec(VaultId([8; 16]), "archive")),
    ] {
        assert!(is_full(&bench.refuses(PERSON, command), OPEN_JOBS_MAX));
    }
    // What waits can still run and end.
    let job = bench.state.open_jobs().next().unwrap();
    let leased = bench.lease(job, worker);
    bench.completes(
        leased,
        Outcome::Verified {
            counts: counts(0),
            harmed: Vec::new(),
            findings: 0,
            is_all: true,
        },
    );
    bench.does(Command::Retry { job: retried });
    bench.state.check_invariants(bench.index).unwrap();
}

#[test]
fn a_full_table_of_items_still_lets_a_former_item_be_protected_again() {
    let (mut bench, worker) = Bench::ready();
    bench.back_up(ITEM, worker, point_id(1));
    bench.does(Command::Unprotect { item: ITEM });
    let found = |number: u64| AdoptedPoint {
        point: point_id(1000 + number),
        item: item_id(number),
        item_name: format!("vm-{number}"),
        time: Time(START),
        keep_until: None,
        manifest: [6; 32],
        consistency: Consistency::Crash,
        hidden: None,
    };
    let adopt = |numbers: std::ops::Range<u64>| Command::AdoptPoints {
        vault: VAULT,
        points: numbers.map(found).collect(),
    };
    let mut number = 0;
    while number < ITEMS_MAX - 1 {
        let end = (number + 9000).min(ITEMS_MAX - 1);
        bench.does(adopt(number..end));
        number = end;
    }
    assert_eq!(bench.state.items().len() as u64, ITEMS_MAX);
    assert!(is_full(&bench.refuses(PERSON, adopt(number..number + 1)), ITEMS_MAX));
    let protect = |item, name: &str| Command::Protect {
        item,
        spec: item_spec(name, VAULT),
        also: false,
    };
    assert!(is_full(
        &bench.refuses(PERSON, protect(item_id(ITEMS_MAX), "new")),
        ITEMS_MAX
    ));
    assert_eq!(bench.does(protect(item_id(ITEMS_MAX), "web")), Reply::Item(ITEM));
    // More points of items that are there.
    let more = AdoptedPoint {
        point: point_id(2),
        ..found(0)
    };
    let reply = bench.does(Command::AdoptPoints {
        vault: VAULT,
        points: vec![more],
    });
    assert_eq!(reply, Reply::Changed(1));
}

#[test]
fn a_full_list_of_given_up_points_stops_further_ones_and_drops_none() {
    let (mut bench, _) = Bench::with_points(4);
    let points: Vec<PointId> = (1..=3).map(point_id).collect();
    bench.hide(&points, false);
    bench.pass(7 * DAY);
    // Filled by hand: the entries that would fill it take minutes.
    let row = GivenUp {
        vault: VAULT,
        item: ITEM,
        at: Time(START),
    };
    for number in 0..GIVEN_UP_MAX as u64 - 2 {
        bench.state.given_up.insert(point_id(1_000_000 + number), row.clone());
    }
    assert_eq!(bench.give_up(&points), Reply::Changed(2));
    assert!(bench.state.points().contains(&point_id(3)));
    let command = Command::GiveUpPoints { points };
    assert!(is_full(&bench.refuses(Actor::Cluster, command), GIVEN_UP_MAX as u64));
    assert_eq!(bench.state.given_up().len(), GIVEN_UP_MAX);
}

#[test]
fn tokens_that_are_good_no_longer_make_room_and_good_ones_do_not() {
    let mut bench = Bench::founded();
    let create = |number: u64| {
        let mut token = [0; 16];
        token[8..].copy_from_slice(&number.to_be_bytes());
        Command::CreateApiToken(ApiTokenSpec {
            token: TokenId(token),
            name: String::from("ann"),
            role: String::from("operator"),
            hash: [0; 32],
            expires: None,
        })
    };
    for number in 0..TOKENS_MAX {
        bench.does(create(number));
    }
    assert!(is_full(&bench.refuses(PERSON, create(TOKENS_MAX)), TOKENS_MAX));
    let mut ended = [0; 16];
    ended[15] = 7;
    bench.does(Command::RevokeToken { token: TokenId(ended) });
    bench.does(create(TOKENS_MAX));
    assert_eq!(bench.state.tokens().len() as u64, TOKENS_MAX);
    assert!(!bench.state.tokens().contains(&TokenId(ended)));
    assert!(is_full(&bench.refuses(PERSON, create(TOKENS_MAX + 1)), TOKENS_MAX));
}

#[test]
fn nodes_vaults_and_policies_are_as_many_as_fit() {
    let mut bench = Bench::founded();
    let worker = |number: u64| {
        Command::AddWorker(WorkerSpec {
            name: format!("w{number}"),
            token: None,
        })
    };
    for number in 0..NODES_MAX {
        bench.does(worker(number));
    }
    assert!(is_full(&bench.refuses(PERSON, worker(NODES_MAX)), NODES_MAX));
    let drawn = |number: u64| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        id
    };
    let policy = |number: u64| Command::CreatePolicy {
        policy: PolicyId(drawn(number)),
        spec: policy_spec(&format!("policy-{number}")),
    };
    let vault = |number: u64| Command::AddVault(vault_spec(VaultId(drawn(number)), &format!("vault-{number}")));
    for number in 0..VAULTS_MAX {
        bench.does(policy(number));
        bench.does(vault(number));
    }
    for command in [policy(VAULTS_MAX), vault(VAULTS_MAX)] {
        assert!(is_full(&bench.refuses(PERSON, command), VAULTS_MAX));
    }
    let removed = |number: u64| Command::RemovePolicy {
        policy: PolicyId(drawn(number)),
    };
    bench.does(removed(3));
    bench.does(policy(VAULTS_MAX));
    bench.state.check_invariants(bench.index).unwrap();
}
