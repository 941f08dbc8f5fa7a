//! Slots of the index: each grant is a new epoch, for one life of one worker, and keeps what is known to be whole.

use super::*;
use crate::state::rows::Slot;
use crate::state::tests::samples::Dice;

fn grant(bench: &mut Bench, worker: WorkerId, slots: &[u16]) -> u64 {
    let seen = bench.state.marks().slot_map;
    let grants = slots.iter().map(|slot| (*slot, worker)).collect();
    bench.made(Actor::Cluster, Command::GrantSlots { seen, grants })
}

fn begin(bench: &mut Bench, worker: WorkerId, life: u8, kept: Option<u8>) {
    let command = Command::Register {
        worker,
        life: [life; 16],
        facts: facts(4),
        kept_life: kept.map(|life| [life; 16]),
    };
    bench.by(Actor::Worker(worker), command);
}

fn slot(bench: &Bench, number: u16) -> Slot {
    *bench.state.slots().get(&number).unwrap()
}

/// A worker of life 1 with slot 0, and the grant.
fn owner() -> (Bench, WorkerId, u64) {
    let (mut bench, worker) = Bench::ready();
    begin(&mut bench, worker, 1, None);
    let first = grant(&mut bench, worker, &[0]);
    assert_eq!(slot(&bench, 0).since, first);
    (bench, worker, first)
}

#[test]
fn every_grant_is_a_new_epoch_also_to_the_same_worker() {
    let (mut bench, worker) = Bench::ready();
    grant(&mut bench, worker, &[0, 4095]);
    let first = slot(&bench, 4095);
    assert_eq!(
        (first.worker, first.life, first.owner_epoch),
        (worker, LIFE, bench.index)
    );
    assert_eq!(bench.state.marks().slot_map, bench.index);
    bench.register(worker, [5; 16], 4);
    assert_eq!(
        slot(&bench, 4095),
        first,
        "another life has no slot before it is granted one"
    );
    grant(&mut bench, worker, &[0, 4095]);
    let second = slot(&bench, 4095);
    assert!(second.owner_epoch > first.owner_epoch);
    assert_eq!(second.life, [5; 16]);
}

#[test]
fn the_floor_of_a_grant_is_the_sweep_epoch_at_it() {
    let (mut bench, worker) = Bench::ready();
    grant(&mut bench, worker, &[0, 1]);
    bench.state.clock.sweep_epoch = 7;
    begin(&mut bench, worker, 6, None);
    grant(&mut bench, worker, &[1]);
    assert_eq!((slot(&bench, 0).floor_epoch, slot(&bench, 1).floor_epoch), (0, 7));
}

#[test]
fn slots_go_to_workers_that_live_and_serve_and_only_those_there_are() {
    let (mut bench, worker) = Bench::ready();
    let spec = |name: &str| WorkerSpec {
        name: name.to_owned(),
        token: None,
    };
    let silent = WorkerId(bench.made(PERSON, Command::AddWorker(spec("w2"))));
    let closed = WorkerId(bench.made(PERSON, Command::AddWorker(spec("w3"))));
    let register = Command::Register {
        worker: closed,
        life: LIFE,
        facts: WorkerFacts {
            serves: String::new(),
            ..facts(4)
        },
        kept_life: None,
    };
    bench.by(Actor::Worker(closed), register);
    let grants = [
        vec![(1, worker), (4096, worker)],
        vec![(1, worker), (2, WorkerId(999))],
        vec![(1, worker), (2, silent)],
        vec![(1, worker), (2, closed)],
        vec![(1, worker); 10_001],
    ];
    for grants in grants {
        bench.refuses(Actor::Cluster, Command::GrantSlots { seen: 0, grants });
        assert!(bench.state.slots().is_empty());
        assert_eq!(bench.state.marks().slot_map, 0);
    }
}

#[test]
fn a_grant_that_was_planned_on_an_older_map_is_refused() {
    let (mut bench, worker) = Bench::ready();
    let seen = bench.state.marks().slot_map;
    let grants = vec![(0, worker)];
    let planned = Command::GrantSlots { seen, grants };
    bench.by(Actor::Cluster, planned.clone());
    let first = slot(&bench, 0);
    assert!(matches!(bench.refuses(Actor::Cluster, planned), Refusal::Fenced { .. }));
    assert_eq!(slot(&bench, 0), first);
}

#[test]
fn a_worker_keeps_its_lineage_over_restarts_with_a_whole_database() {
    let (mut bench, worker, first) = owner();
    for life in 2..5 {
        begin(&mut bench, worker, life, Some(life - 1));
        let granted = grant(&mut bench, worker, &[0]);
        assert_eq!((slot(&bench, 0).owner_epoch, slot(&bench, 0).since), (granted, first));
    }
}

#[test]
fn a_database_that_is_in_doubt_or_was_left_by_another_life_begins_afresh() {
    for kept in [None, Some(9)] {
        let (mut bench, worker, first) = owner();
        begin(&mut bench, worker, 2, kept);
        let granted = grant(&mut bench, worker, &[0]);
        assert_eq!(slot(&bench, 0).since, granted, "{kept:?}");
        assert!(granted > first);
    }
}

#[test]
fn a_life_that_used_the_database_without_being_granted_the_slot_breaks_its_lineage() {
    let (mut bench, worker, first) = owner();
    let other = grant(&mut bench, worker, &[7]);
    // Life 2 was granted slot 7 alone, and used the database.
    begin(&mut bench, worker, 2, Some(1));
    grant(&mut bench, worker, &[7]);
    begin(&mut bench, worker, 3, Some(2));
    let granted = grant(&mut bench, worker, &[0, 7]);
    assert_eq!((slot(&bench, 0).since, slot(&bench, 7).since), (granted, other));
    // Life 2 was granted nothing, and left the database as it was.
    let (mut bench, worker, _) = owner();
    begin(&mut bench, worker, 2, Some(1));
    begin(&mut bench, worker, 3, Some(1));
    grant(&mut bench, worker, &[0]);
    assert_eq!(slot(&bench, 0).since, first);
}

#[test]
fn a_slot_that_another_worker_had_in_between_begins_afresh() {
    let (mut bench, worker, _) = owner();
    let second = bench.worker("w2", 1);
    grant(&mut bench, second, &[0]);
    begin(&mut bench, worker, 2, Some(1));
    let granted = grant(&mut bench, worker, &[0]);
    assert_eq!(slot(&bench, 0).since, granted);
}

#[test]
fn a_second_grant_to_one_life_begins_afresh() {
    let (mut bench, worker, _) = owner();
    begin(&mut bench, worker, 2, Some(1));
    grant(&mut bench, worker, &[0]);
    let granted = grant(&mut bench, worker, &[0]);
    assert_eq!(slot(&bench, 0).since, granted);
}

#[test]
fn a_life_cannot_have_used_anything_before_it_began() {
    let (mut bench, worker, _) = owner();
    let command = Command::Register {
        worker,
        life: [2; 16],
        facts: facts(4),
        kept_life: Some([2; 16]),
    };
    let refusal = bench.refuses(Actor::Worker(worker), command);
    assert!(matches!(refusal, Refusal::Invalid { .. }), "{refusal}");
}

#[test]
fn a_worker_that_is_removed_or_serves_no_more_has_no_slots_from_then_on() {
    let (mut bench, worker, first) = owner();
    bench.does(Command::RemoveWorker { worker });
    assert!(bench.state.slots().is_empty());
    assert_eq!(bench.state.marks().slot_map, bench.index, "the map is another one");

    let (mut bench, worker, _) = owner();
    let closed = Command::Register {
        worker,
        life: [2; 16],
        facts: WorkerFacts {
            serves: String::new(),
            ..facts(4)
        },
        kept_life: Some([1; 16]),
    };
    bench.by(Actor::Worker(worker), closed);
    assert!(bench.state.slots().is_empty());
    begin(&mut bench, worker, 3, Some(1));
    let granted = grant(&mut bench, worker, &[0]);
    assert_eq!(slot(&bench, 0).since, granted);
    assert!(granted > first);
}

#[test]
fn an_address_that_nobody_can_reach_is_refused() {
    let (mut bench, worker) = Bench::ready();
    for serves in ["host", "host:", ":7430", "host:0", "host:70000", "a b:1", "host:+1"] {
        let command = Command::Register {
            worker,
            life: [2; 16],
            facts: WorkerFacts {
                serves: String::from(serves),
                ..facts(4)
            },
            kept_life: None,
        };
        let refusal = bench.refuses(Actor::Worker(worker), command);
        assert!(
            matches!(&refusal, Refusal::Invalid { field, .. } if field == "serves"),
            "{serves}: {refusal}"
        );
    }
    for serves in ["host:1", "10.0.0.1:65535", "[fe80::1]:7430"] {
        let command = Command::Register {
            worker,
            life: [2; 16],
            facts: WorkerFacts {
                serves: String::from(serves),
                ..facts(4)
            },
            kept_life: None,
        };
        bench.by(Actor::Worker(worker), command);
    }
}

#[test]
fn a_worker_that_runs_no_jobs_gets_none() {
    let (mut bench, worker) = Bench::ready();
    let command = Command::Register {
        worker,
        life: LIFE,
        facts: WorkerFacts {
            jobs: false,
            ..facts(4)
        },
        kept_life: None,
    };
    bench.by(Actor::Worker(worker), command);
    let job = bench.queue(backup_of(ITEM));
    let refusal = bench.refuses(Actor::Cluster, Bench::lease_command(job, worker));
    assert!(matches!(refusal, Refusal::Held { .. }), "{refusal}");
}

#[test]
fn the_number_of_the_vaults_grows_when_one_comes_is_claimed_or_goes_and_not_else() {
    let (mut bench, worker) = Bench::ready();
    let number = |bench: &Bench| bench.state.marks().vaults;
    let ready = number(&bench);
    bench.back_up(ITEM, worker, point_id(1));
    bench.register(worker, [5; 16], 4);
    assert_eq!(number(&bench), ready);
    bench.register(worker, LIFE, 4);
    let other = VaultId([8; 16]);
    let job = JobId(bench.made(PERSON, Command::AddVault(vault_spec(other, "other"))));
    let added = number(&bench);
    let leased = bench.lease(job, worker);
    assert_eq!((added > ready, number(&bench)), (true, added));
    bench.completes(leased, Outcome::Claimed(claim(1)));
    let claimed = number(&bench);
    bench.does(Command::RemoveVault { vault: other });
    assert!(claimed > added && number(&bench) > claimed);
}

/// A worker's machine, as it is: what lies in the database of its slots, and who used it.
#[derive(Clone, Default)]
struct Machine {
    life: Option<u8>,
    /// The life that used the database last.
    used_by: Option<u8>,
    /// For each slot the first grant of what is in the database, without a gap since then.
    holds: BTreeMap<u16, u64>,
}

/// Machines crash, lose their databases, restart before they are granted anything, and slots go round: whenever the log says that an owner has kept what it
/// had since a grant, the machine's database has it since that very grant. Returns how often the log said so.
fn history(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let (mut bench, first) = Bench::ready();
    let ids = [first, bench.worker("w2", 1), bench.worker("w3", 1)];
    let mut machines = vec![Machine::default(); 3];
    let (mut lives, mut kept) = (10, 0);
    for _ in 0..60 {
        let place = usize::try_from(dice.below(3)).unwrap();
        let id = ids[place];
        lives += 1;
        match dice.below(8) {
            0..3 => {
                let machine = &mut machines[place];
                if dice.one_in(5) {
                    // Another disk, or a copy that does not fit its stamp.
                    (machine.used_by, machine.holds) = (None, BTreeMap::new());
                }
                machine.life = Some(lives);
                begin(&mut bench, id, lives, machine.used_by);
            }
            3 if dice.one_in(3) => {
                // Serves no more; the database stays.
                let command = Command::Register {
                    worker: id,
                    life: [lives; 16],
                    facts: WorkerFacts {
                        serves: String::new(),
                        ..facts(1)
                    },
                    kept_life: None,
                };
                bench.by(Actor::Worker(id), command);
                machines[place].life = None;
            }
            _ => {
                let slots: Vec<u16> = (0..4).filter(|_| !dice.one_in(3)).collect();
                let (Some(life), false) = (machines[place].life, slots.is_empty()) else {
                    continue;
                };
                let before = bench.state.slots().clone();
                let granted = grant(&mut bench, id, &slots);
                machines[place].used_by = Some(life);
                for number in slots {
                    let row = slot(&bench, number);
                    assert_eq!(row.owner_epoch, granted, "seed {seed}");
                    let older = before.get(&number).map_or(0, |before| before.owner_epoch);
                    assert!(older < granted, "seed {seed}");
                    let held = machines[place].holds.insert(number, row.since);
                    if row.since != granted {
                        kept += 1;
                        assert_eq!(held, Some(row.since), "seed {seed}, slot {number}");
                    }
                    // Whoever had it before does not learn what is inserted from here on.
                    for other in (0..3).filter(|other| *other != place) {
                        machines[other].holds.remove(&number);
                    }
                }
            }
        }
    }
    kept
}

#[test]
fn what_the_log_says_was_kept_was_kept() {
    let kept: usize = (0..300).map(history).sum();
    assert!(
        kept > 1000,
        "only {kept} slots were kept over a restart, which shows little"
    );
}

#[test]
fn a_slot_that_lacks_entries_of_a_session_keeps_no_lineage() {
    let (mut bench, worker, first) = owner();
    bench.state.note_lacking(&[0b11]);
    assert!(slot(&bench, 0).lacks, "slot 1 is nobody's");
    begin(&mut bench, worker, 2, Some(1));
    let second = grant(&mut bench, worker, &[0]);
    let row = slot(&bench, 0);
    assert_eq!((row.owner_epoch, row.since, row.lacks), (second, second, false));
    assert!(second > first);
}
