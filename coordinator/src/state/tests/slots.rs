//! Slots of the index: each grant is a new epoch, for one life of one worker.

use super::*;

#[test]
fn every_grant_is_a_new_epoch_also_to_the_same_worker() {
    let (mut bench, worker) = Bench::ready();
    let grant = Command::GrantSlots {
        grants: vec![(0, worker), (4095, worker)],
    };
    bench.by(Actor::Cluster, grant.clone());
    let first = *bench.state.slots().get(&4095).unwrap();
    assert_eq!(
        (first.worker, first.life, first.owner_epoch),
        (worker, LIFE, bench.index)
    );
    assert_eq!(bench.state.marks().slot_map, bench.index);
    bench.register(worker, [5; 16], 4);
    assert_eq!(
        *bench.state.slots().get(&4095).unwrap(),
        first,
        "another life has no slot before it is granted one"
    );
    bench.by(Actor::Cluster, grant);
    let second = *bench.state.slots().get(&4095).unwrap();
    assert!(second.owner_epoch > first.owner_epoch);
    assert_eq!(second.life, [5; 16]);
}

#[test]
fn slots_go_to_workers_that_live_and_only_those_there_are() {
    let (mut bench, worker) = Bench::ready();
    let spec = WorkerSpec {
        name: String::from("w2"),
        token: None,
    };
    let silent = WorkerId(bench.made(PERSON, Command::AddWorker(spec)));
    let grants = [
        vec![(1, worker), (4096, worker)],
        vec![(1, worker), (2, WorkerId(999))],
        vec![(1, worker), (2, silent)],
        vec![(1, worker); 10_001],
    ];
    for grants in grants {
        bench.refuses(Actor::Cluster, Command::GrantSlots { grants });
        assert!(bench.state.slots().is_empty());
        assert_eq!(bench.state.marks().slot_map, 0);
    }
}
