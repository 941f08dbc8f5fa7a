//! Vaults: entered, claimed, forgotten in pieces.

use super::*;
use crate::state::rows::VaultState;

const OTHER: VaultId = VaultId([8; 16]);

fn remove(vault: VaultId) -> Command {
    Command::RemoveVault { vault }
}

#[test]
fn a_vault_is_ready_when_its_claim_is() {
    let mut bench = Bench::founded();
    let worker = bench.worker("w1", 1);
    let job = JobId(bench.made(PERSON, Command::AddVault(vault_spec(VAULT, "main"))));
    assert_eq!(bench.state.open_upkeep(VAULT, true), Some(job));
    assert_eq!(bench.state.vaults().get(&VAULT).unwrap().state, VaultState::Claiming);
    let leased = bench.lease(job, worker);
    bench.completes(leased, Outcome::Claimed(claim(1)));
    assert_eq!(
        bench.state.vaults().get(&VAULT).unwrap().state,
        VaultState::Ready(claim(1))
    );
    assert_eq!(bench.state.vault_named("main"), Some(VAULT));
}

#[test]
fn names_ids_and_places_of_vaults_are_each_one_vaults() {
    let (mut bench, _) = Bench::ready();
    let specs = [
        vault_spec(OTHER, "main"),
        vault_spec(VAULT, "archive"),
        VaultSpec {
            url: vault_spec(VAULT, "main").url,
            ..vault_spec(OTHER, "archive")
        },
    ];
    for spec in specs {
        assert!(matches!(
            bench.refuses(PERSON, Command::AddVault(spec)),
            Refusal::Exists { .. }
        ));
    }
    for name in ["", "a", "1st", "-a", "a_b", "a b", "ä-b", &"a".repeat(51)] {
        let spec = VaultSpec {
            name: name.to_owned(),
            ..vault_spec(OTHER, "archive")
        };
        assert!(matches!(
            bench.refuses(PERSON, Command::AddVault(spec)),
            Refusal::Invalid { field, .. } if field == "name"
        ));
    }
}

#[test]
fn a_vault_that_protects_items_or_has_jobs_is_not_forgotten() {
    let (mut bench, worker) = Bench::with_points(1);
    assert!(matches!(bench.refuses(PERSON, remove(VAULT)), Refusal::Held { .. }));
    bench.does(Command::Unprotect { item: ITEM });
    let job = bench.queue(restore_of(point_id(1), "w1", "/restored"));
    let refusal = bench.refuses(PERSON, remove(VAULT));
    assert_eq!(
        refusal.to_string(),
        "1 jobs wait or run in vault main: cancel them or wait"
    );
    let leased = bench.lease(job, worker);
    assert!(matches!(bench.refuses(PERSON, remove(VAULT)), Refusal::Held { .. }));
    bench.completes(leased, Outcome::Done { counts: counts(0) });
    assert_eq!(bench.does(remove(VAULT)), Reply::Done);
    assert!(bench.state.vaults().is_empty());
    assert_eq!(bench.state.vault_named("main"), None);
    assert!(matches!(bench.refuses(PERSON, remove(VAULT)), Refusal::Missing { .. }));
}

#[test]
fn what_only_keeps_the_vault_is_cancelled_with_it_and_what_runs_is_waited_for() {
    let (mut bench, worker) = Bench::ready();
    bench.does(Command::AddVault(vault_spec(OTHER, "archive")));
    let claims = bench.state.open_upkeep(OTHER, true).unwrap();
    let leased = bench.lease(claims, worker);
    assert!(matches!(bench.refuses(PERSON, remove(OTHER)), Refusal::Held { .. }));
    bench.by(
        Actor::Cluster,
        Command::ExpireLease {
            job: claims,
            epoch: leased.epoch,
            retry_at: Some(bench.now),
        },
    );
    assert_eq!(bench.does(remove(OTHER)), Reply::Done);
    assert_eq!(bench.job_state(claims), JobState::Cancelled);
    assert!(matches!(
        bench.refuses(PERSON, Command::Retry { job: claims }),
        Refusal::Missing { .. }
    ));
    // Its name and its place are free again.
    bench.does(Command::AddVault(vault_spec(OTHER, "archive")));
}

#[test]
fn a_forgotten_vaults_points_are_not_given_up_and_are_found_again_when_it_is_claimed_again() {
    let (mut bench, worker) = Bench::with_points(3);
    bench.hide(&[point_id(1)], false);
    bench.pass(7 * DAY);
    bench.give_up(&[point_id(1)]);
    bench.does(Command::Unprotect { item: ITEM });
    assert_eq!(bench.does(remove(VAULT)), Reply::Done);
    assert!(bench.state.points().is_empty() && bench.state.items().is_empty());
    assert_eq!(bench.state.given_up().len(), 1, "what was given up stays so");
    bench.vault(VAULT, "main", worker);
    let found = |number: u64| AdoptedPoint {
        point: point_id(number),
        item: ITEM,
        item_name: String::from("web"),
        time: Time(START),
        keep_until: None,
        manifest: [6; 32],
        consistency: Consistency::Crash,
        hidden: None,
    };
    let reply = bench.does(Command::AdoptPoints {
        vault: VAULT,
        points: (1..=3).map(found).collect(),
    });
    assert_eq!(reply, Reply::Changed(2));
}

#[test]
fn a_vault_of_many_points_goes_in_pieces_and_takes_nothing_new_meanwhile() {
    let (mut bench, _) = Bench::ready();
    bench.does(Command::Unprotect { item: ITEM });
    // 25,000 points in 5 items, and so three pieces.
    for batch in 0..5u64 {
        let found = |number: u64| AdoptedPoint {
            point: point_id(batch * 5000 + number),
            item: item_id(batch),
            item_name: format!("vm-{batch}"),
            time: Time(START),
            keep_until: None,
            manifest: [6; 32],
            consistency: Consistency::Crash,
            hidden: None,
        };
        bench.does(Command::AdoptPoints {
            vault: VAULT,
            points: (0..5000).map(found).collect(),
        });
    }
    assert_eq!(bench.does(remove(VAULT)), Reply::Changed(10_000));
    assert_eq!(bench.state.vaults().get(&VAULT).unwrap().state, VaultState::Removing);
    let refused = [
        Command::Protect {
            item: ITEM,
            spec: item_spec("web", VAULT),
            also: false,
        },
        Command::Enqueue(catalogue()),
        Command::Enqueue(verify_of(None)),
        Command::Enqueue(JobSpec {
            work: Work::Claim,
            ..catalogue()
        }),
        Command::AdoptPoints {
            vault: VAULT,
            points: Vec::new(),
        },
    ];
    for command in refused {
        let refusal = bench.refuses(PERSON, command);
        assert_eq!(refusal.to_string(), "vault main is being removed");
    }
    // Whoever leads goes on, also after a restart.
    bench.state = State::load(bench.stored().collect::<Vec<_>>()).unwrap();
    assert_eq!(bench.by(Actor::Cluster, remove(VAULT)), Reply::Changed(10_000));
    assert_eq!(bench.by(Actor::Cluster, remove(VAULT)), Reply::Done);
    assert!(bench.state.points().is_empty() && bench.state.items().is_empty());
}
