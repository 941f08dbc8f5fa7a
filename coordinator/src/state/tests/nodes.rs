//! Nodes: joined once, refused for ever after their removal.

use super::*;

fn member(name: &str, address: &str, number: u64) -> Command {
    Command::AddMember(MemberSpec {
        member: MemberId(number),
        name: name.to_owned(),
        address: address.to_owned(),
        token: None,
    })
}

fn register(worker: WorkerId) -> Command {
    Command::Register {
        worker,
        life: LIFE,
        facts: facts(1),
        kept_life: None,
    }
}

#[test]
fn a_removed_worker_is_refused_for_ever_and_its_number_is_not_given_again() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.does(Command::RemoveWorker { worker });
    assert!(matches!(
        bench.refuses(Actor::Worker(worker), register(worker)),
        Refusal::Denied { .. }
    ));
    // Not what it has finished either.
    let refusal = bench.commit(leased, committed(&bench.state, point_id(1))).unwrap_err();
    assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    assert_eq!(bench.job_state(leased.job), JobState::Leased);
    bench.by(
        Actor::Cluster,
        Command::ExpireLease {
            job: leased.job,
            epoch: leased.epoch,
            retry_at: Some(bench.now),
        },
    );
    for command in [
        register(worker),
        Bench::lease_command(leased.job, worker),
        Command::Drain { worker, drained: false },
        Command::RemoveWorker { worker },
        Command::GrantSlots {
            seen: bench.state.marks().slot_map,
            grants: vec![(1, worker)],
        },
    ] {
        assert!(matches!(bench.refuses(PERSON, command), Refusal::Missing { .. }));
    }
    assert_eq!(bench.state.worker_named("w1"), None);
    // Its name is free, its number is not.
    let again = bench.worker("w1", 1);
    assert_ne!(again, worker);
    assert!(bench.state.workers().get(&worker).unwrap().removed);
    bench.refuses(Actor::Worker(worker), register(worker));
}

#[test]
fn a_worker_that_the_log_does_not_know_is_refused() {
    let (mut bench, _) = Bench::ready();
    let nobody = WorkerId(999);
    assert!(matches!(
        bench.refuses(Actor::Worker(nobody), register(nobody)),
        Refusal::Denied { .. }
    ));
}

#[test]
fn a_worker_speaks_for_itself_and_administers_nothing() {
    let (mut bench, worker) = Bench::ready();
    let second = bench.worker("w2", 1);
    let denied = [
        register(second),
        Command::Drain { worker, drained: true },
        Command::RemoveWorker { worker: second },
        Command::Unprotect { item: ITEM },
        Command::RemoveVault { vault: VAULT },
        Command::Enqueue(backup_of(ITEM)),
        Command::ConfirmClock,
        Command::GrantSlots {
            seen: bench.state.marks().slot_map,
            grants: vec![(1, worker)],
        },
        Command::HidePoints {
            points: Vec::new(),
            by_retention: true,
        },
    ];
    for command in denied {
        let refusal = bench.refuses(Actor::Worker(worker), command);
        assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    }
    bench.by(Actor::Worker(worker), register(worker));
}

#[test]
fn names_of_workers_are_each_one_workers() {
    let (mut bench, _) = Bench::ready();
    let spec = |name: &str| {
        Command::AddWorker(WorkerSpec {
            name: name.to_owned(),
            token: None,
        })
    };
    assert!(matches!(bench.refuses(PERSON, spec("w1")), Refusal::Exists { .. }));
    assert!(matches!(bench.refuses(PERSON, spec("")), Refusal::Invalid { .. }));
}

#[test]
fn what_a_worker_says_of_itself_is_bounded() {
    let (mut bench, worker) = Bench::ready();
    let long = "x".repeat(5000);
    let cases = [
        WorkerFacts {
            host: long.clone(),
            ..facts(1)
        },
        WorkerFacts {
            version: long.clone(),
            ..facts(1)
        },
        WorkerFacts {
            stores: vec![long.clone()],
            ..facts(1)
        },
        WorkerFacts {
            stores: vec![String::new(); 65],
            ..facts(1)
        },
        WorkerFacts {
            labels: BTreeMap::from([(long, String::new())]),
            ..facts(1)
        },
    ];
    for facts in cases {
        let command = Command::Register {
            worker,
            life: [5; 16],
            facts,
            kept_life: None,
        };
        assert!(matches!(
            bench.refuses(Actor::Worker(worker), command),
            Refusal::Invalid { .. }
        ));
    }
    assert_eq!(bench.state.workers().get(&worker).unwrap().life, Some(LIFE));
}

#[test]
fn a_removed_coordinator_is_refused_and_its_number_is_not_given_again() {
    let mut bench = Bench::founded();
    let second = MemberId(bench.made(PERSON, member("c2", "c2:7000", 0)));
    assert_eq!(second, MemberId(bench.index));
    let note = Command::Note {
        action: String::from("looked"),
        object: String::from("at it"),
    };
    bench.by(Actor::Member(second), note.clone());
    bench.does(Command::RemoveMember { member: second });
    for actor in [Actor::Member(second), Actor::Member(MemberId(77))] {
        let refusal = bench.refuses(actor, note.clone());
        assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    }
    assert!(matches!(
        bench.refuses(PERSON, Command::RemoveMember { member: second }),
        Refusal::Missing { .. }
    ));
    // Its name and address are free, its number is not.
    assert!(matches!(
        bench.refuses(PERSON, member("c2", "c2:7000", second.0)),
        Refusal::Exists { .. }
    ));
    let third = bench.made(PERSON, member("c2", "c2:7000", 0));
    assert_ne!(third, second.0);
}

#[test]
fn the_only_coordinator_stays() {
    let mut bench = Bench::founded();
    let first = MemberId(1);
    assert!(matches!(
        bench.refuses(PERSON, Command::RemoveMember { member: first }),
        Refusal::Held { .. }
    ));
    bench.does(member("c2", "c2:7000", 0));
    bench.does(Command::RemoveMember { member: first });
}

#[test]
fn names_addresses_and_numbers_of_coordinators_are_each_one_coordinators() {
    let mut bench = Bench::founded();
    for command in [
        member("c1", "c2:7000", 0),
        member("c2", "c1:7000", 0),
        member("c2", "c2:7000", 1),
    ] {
        assert!(matches!(bench.refuses(PERSON, command), Refusal::Exists { .. }));
    }
}

#[test]
fn nothing_happens_before_the_cluster_is_founded_and_it_is_founded_once() {
    let mut bench = Bench::empty();
    let refusal = bench.refuses(
        PERSON,
        Command::CreatePolicy {
            policy: POLICY,
            spec: policy_spec("nightly"),
        },
    );
    assert_eq!(refusal.to_string(), "the cluster is not founded yet");
    let wrong = Founding {
        name: String::new(),
        ..founding()
    };
    bench.refuses(Actor::Founder, Command::Found(wrong));
    assert!(bench.state.cluster().is_none());
    bench.by(Actor::Founder, Command::Found(founding()));
    assert_eq!(bench.state.cluster().unwrap().id, [9; 16]);
    assert!(matches!(
        bench.refuses(Actor::Founder, Command::Found(founding())),
        Refusal::Exists { .. }
    ));
}
