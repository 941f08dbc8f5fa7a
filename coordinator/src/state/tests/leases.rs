//! Leases: who gets one, how it ends, and that what comes after its end counts for nothing.

use super::*;
use crate::state::rows::JobState;

const OTHER_LIFE: [u8; 16] = [5; 16];

fn expire(leased: Leased, retry_at: Option<Time>) -> Command {
    Command::ExpireLease {
        job: leased.job,
        epoch: leased.epoch,
        retry_at,
    }
}

fn is_fenced(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Fenced { .. })
}

#[test]
fn a_lease_and_its_session_have_the_number_of_the_entry_that_granted_them() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    assert_eq!(
        (leased.epoch, leased.session),
        (Epoch(bench.index), SessionId(bench.index))
    );
    let session = bench.state.sessions().get(&leased.session).unwrap();
    assert_eq!(
        (session.job, session.epoch, session.writes),
        (leased.job, leased.epoch, true)
    );
    assert_eq!(bench.state.leases_of(worker).collect::<Vec<_>>(), [leased.job]);
}

#[test]
fn a_stale_epoch_cannot_complete_a_job() {
    let (mut bench, worker) = Bench::ready();
    let second = bench.worker("w2", 1);
    let stale = bench.start_backup(ITEM, worker);
    bench.by(Actor::Cluster, expire(stale, Some(bench.now)));
    let point = committed(&bench.state, point_id(1));
    assert!(is_fenced(&bench.commit(stale, point.clone()).unwrap_err()));
    let fresh = bench.lease(stale.job, second);
    assert!(is_fenced(&bench.commit(stale, point.clone()).unwrap_err()));
    // Nor with the new epoch and its own session, nor the other way round.
    let mixed = [
        Leased {
            epoch: fresh.epoch,
            ..stale
        },
        Leased {
            session: fresh.session,
            ..stale
        },
        Leased {
            session: stale.session,
            ..fresh
        },
        Leased {
            epoch: stale.epoch,
            ..fresh
        },
        // The lease is another worker's.
        Leased { worker, ..fresh },
    ];
    for leased in mixed {
        bench.commit(leased, point.clone()).unwrap_err();
    }
    assert!(bench.state.points().is_empty());
    bench.commit(fresh, point).unwrap();
    assert_eq!(bench.state.points().len(), 1);
}

#[test]
fn of_all_who_believe_in_a_lease_one_completes_it_once() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.commit(leased, committed(&bench.state, point_id(1))).unwrap();
    // Another point under the same lease is not what was taken.
    assert!(is_fenced(
        &bench.commit(leased, committed(&bench.state, point_id(2))).unwrap_err()
    ));
    bench.refuses(Actor::Cluster, expire(leased, None));
    assert_eq!(bench.state.points().len(), 1);
}

#[test]
fn a_worker_that_lost_the_answer_to_its_commit_hears_it_again() {
    let (mut bench, worker) = Bench::ready();
    let second = bench.worker("w2", 1);
    let leased = bench.start_backup(ITEM, worker);
    let point = committed(&bench.state, point_id(1));
    bench.commit(leased, point.clone()).unwrap();
    let before = bench.state.clone();
    bench.commit(leased, point.clone()).unwrap();
    assert_eq!(bench.state.jobs(), before.jobs());
    assert_eq!(bench.state.points(), before.points());
    assert_eq!(bench.state.vaults(), before.vaults(), "bytes are not counted twice");
    let other = Leased {
        worker: second,
        ..leased
    };
    bench.commit(other, point).unwrap_err();
}

#[test]
fn the_commit_of_an_aborted_session_is_refused_for_ever() {
    let (mut bench, worker) = Bench::ready();
    let aborted = bench.start_backup(ITEM, worker);
    bench.by(Actor::Cluster, expire(aborted, Some(bench.now)));
    let late = |bench: &mut Bench| {
        let point = committed(&bench.state, point_id(99));
        bench.commit(aborted, point).unwrap_err();
    };
    late(&mut bench);
    let next = bench.lease(aborted.job, worker);
    late(&mut bench);
    bench.commit(next, committed(&bench.state, point_id(1))).unwrap();
    late(&mut bench);
    bench.does(Command::Unprotect { item: ITEM });
    late(&mut bench);
    bench.protect(item_id(9), "web");
    late(&mut bench);
    // After a restart as well.
    let loaded = State::load(bench.stored().collect::<Vec<_>>()).unwrap();
    bench.state = loaded;
    late(&mut bench);
    assert!(!bench.state.points().contains(&point_id(99)));
}

#[test]
fn numbers_of_sessions_are_never_used_again() {
    let (mut bench, worker) = Bench::ready();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..20 {
        let leased = bench.start_backup(ITEM, worker);
        assert!(seen.insert(leased.session), "{leased:?}");
        assert!(seen.iter().all(|session| *session <= leased.session));
        match round % 3 {
            0 => bench.commit(leased, committed(&bench.state, point_id(round))).unwrap(),
            1 => drop(bench.by(Actor::Cluster, expire(leased, None))),
            _ => {
                bench.does(Command::Cancel { job: leased.job });
                bench.by(Actor::Cluster, expire(leased, None));
            }
        }
        assert!(bench.state.sessions().is_empty());
        let loaded = State::load(bench.stored().collect::<Vec<_>>()).unwrap();
        bench.state = loaded;
    }
}

#[test]
#[should_panic(expected = "each is applied once, in order")]
fn an_entry_is_not_applied_twice() {
    let mut bench = Bench::founded();
    bench.index -= 1;
    bench.does(Command::CreatePolicy {
        policy: POLICY,
        spec: policy_spec("nightly"),
    });
}

#[test]
fn a_lease_is_given_to_the_life_that_is_registered() {
    let (mut bench, worker) = Bench::ready();
    let job = bench.queue(backup_of(ITEM));
    let lease = |life| Command::Lease { job, worker, life };
    bench.register(worker, OTHER_LIFE, 4);
    assert!(is_fenced(&bench.refuses(Actor::Cluster, lease(LIFE))));
    bench.by(Actor::Cluster, lease(OTHER_LIFE));
}

#[test]
fn a_worker_that_joined_and_never_registered_gets_nothing() {
    let (mut bench, _) = Bench::ready();
    let spec = WorkerSpec {
        name: String::from("w2"),
        token: None,
    };
    let worker = WorkerId(bench.made(PERSON, Command::AddWorker(spec)));
    let job = bench.queue(backup_of(ITEM));
    let lease = Command::Lease {
        job,
        worker,
        life: [0; 16],
    };
    assert!(is_fenced(&bench.refuses(Actor::Cluster, lease)));
}

#[test]
fn an_earlier_life_goes_on_until_its_lease_is_ended_and_counts_for_nothing_after() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.register(worker, OTHER_LIFE, 4);
    assert_eq!(bench.job_state(leased.job), JobState::Leased);
    bench.by(Actor::Worker(worker), expire(leased, Some(bench.now)));
    assert!(is_fenced(
        &bench.commit(leased, committed(&bench.state, point_id(1))).unwrap_err()
    ));
    let attempt = &bench.state.jobs().get(&leased.job).unwrap().attempts[0];
    assert_eq!(attempt.failure.as_ref().unwrap().kind, FailureKind::Lost);
}

#[test]
fn only_its_worker_and_the_cluster_speak_for_a_lease() {
    let (mut bench, worker) = Bench::ready();
    let second = bench.worker("w2", 1);
    let leased = bench.start_backup(ITEM, worker);
    let point = committed(&bench.state, point_id(1));
    let said = [
        Bench::completion(leased, Outcome::Backup(point)),
        expire(leased, None),
        Command::Fail {
            job: leased.job,
            epoch: leased.epoch,
            failure: failure(FailureKind::Retry),
            retry_at: None,
        },
    ];
    for actor in [Actor::Worker(second), PERSON, Actor::Member(MemberId(1))] {
        for command in &said {
            let refusal = bench.refuses(actor.clone(), command.clone());
            assert!(
                matches!(refusal, Refusal::Denied { .. }),
                "{actor} {command:?}: {refusal}"
            );
        }
    }
    for command in said.into_iter().rev().take(1) {
        bench.by(Actor::Worker(worker), command);
    }
}

#[test]
fn a_drained_worker_finishes_what_it_has_and_gets_nothing_new() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.protect(item_id(2), "db");
    let job = bench.queue(backup_of(item_id(2)));
    let drain = |drained| Command::Drain { worker, drained };
    bench.does(drain(true));
    assert!(matches!(
        bench.refuses(Actor::Cluster, Bench::lease_command(job, worker)),
        Refusal::Held { .. }
    ));
    bench.commit(leased, committed(&bench.state, point_id(1))).unwrap();
    bench.does(drain(false));
    bench.lease(job, worker);
}

#[test]
fn a_worker_runs_as_many_jobs_as_it_has_permits() {
    let (mut bench, _) = Bench::ready();
    let narrow = bench.worker("narrow", 2);
    let jobs: Vec<JobId> = (0..3)
        .map(|number| {
            bench.protect(item_id(number), &format!("vm-{number}"));
            bench.queue(backup_of(item_id(number)))
        })
        .collect();
    let first = bench.lease(jobs[0], narrow);
    bench.lease(jobs[1], narrow);
    let refusal = bench.refuses(Actor::Cluster, Bench::lease_command(jobs[2], narrow));
    assert_eq!(refusal.to_string(), "worker narrow runs as many jobs as it may");
    bench.commit(first, committed(&bench.state, point_id(1))).unwrap();
    bench.lease(jobs[2], narrow);
    // Fewer permits in another life do not end what runs.
    bench.register(narrow, OTHER_LIFE, 0);
    assert_eq!(bench.state.leases_of(narrow).count(), 2);
}

#[test]
fn a_job_waits_until_its_time() {
    let (mut bench, worker) = Bench::ready();
    let job = bench.queue(JobSpec {
        not_before: bench.now.plus(HOUR),
        ..backup_of(ITEM)
    });
    bench.refuses(Actor::Cluster, Bench::lease_command(job, worker));
    bench.pass(HOUR);
    bench.lease(job, worker);
    bench.refuses(Actor::Cluster, Bench::lease_command(job, worker));
}

#[test]
fn a_restore_runs_on_the_worker_that_it_names() {
    let (mut bench, worker) = Bench::with_points(1);
    let second = bench.worker("w2", 1);
    let job = bench.queue(restore_of(point_id(1), "w2", "/restored"));
    assert!(matches!(
        bench.refuses(Actor::Cluster, Bench::lease_command(job, worker)),
        Refusal::Held { .. }
    ));
    bench.lease(job, second);
}

#[test]
fn a_session_whose_parent_is_gone_is_refused() {
    let (mut bench, worker) = Bench::with_points(2);
    let job = bench.queue(restore_of(point_id(1), "w1", "/restored"));
    bench.hide(&[point_id(1)], false);
    // Hidden is not gone.
    let leased = bench.lease(job, worker);
    bench.by(Actor::Cluster, expire(leased, Some(bench.now)));
    bench.pass(8 * DAY);
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(1));
    assert_eq!(bench.job_state(job), JobState::Failed);
    let refusal = bench.refuses(Actor::Cluster, Bench::lease_command(job, worker));
    assert!(matches!(&refusal, Refusal::Fenced { .. }), "{refusal}");
    bench.refuses(PERSON, Command::Enqueue(restore_of(point_id(1), "w1", "/elsewhere")));
}

#[test]
fn a_backup_pins_the_newest_visible_point_and_none_where_there_is_none() {
    let (mut bench, worker) = Bench::ready();
    let pins = |bench: &Bench, leased: Leased| bench.state.sessions().get(&leased.session).unwrap().pins.clone();
    let first = bench.start_backup(ITEM, worker);
    assert!(pins(&bench, first).is_empty());
    bench.commit(first, committed(&bench.state, point_id(1))).unwrap();
    bench.back_up(ITEM, worker, point_id(2));
    let leased = bench.start_backup(ITEM, worker);
    assert_eq!(pins(&bench, leased), [point_id(2)]);
    bench.by(Actor::Cluster, expire(leased, Some(bench.now)));
    assert!(!bench.state.is_pinned(point_id(2)));
    bench.hide(&[point_id(2)], false);
    let leased = bench.lease(leased.job, worker);
    assert_eq!(pins(&bench, leased), [point_id(1)]);
}

#[test]
fn readers_only_pin() {
    let (mut bench, worker) = Bench::with_points(1);
    for spec in [restore_of(point_id(1), "w1", "/restored"), verify_of(Some(point_id(1)))] {
        let job = bench.queue(spec);
        let leased = bench.lease(job, worker);
        let session = bench.state.sessions().get(&leased.session).unwrap();
        assert!(!session.writes);
        assert_eq!(session.pins, [point_id(1)]);
    }
}

#[test]
fn a_worker_gets_leases_for_itself_only() {
    let (mut bench, worker) = Bench::ready();
    let second = bench.worker("w2", 1);
    let job = bench.queue(backup_of(ITEM));
    let lease = Bench::lease_command(job, worker);
    assert!(matches!(
        bench.refuses(Actor::Worker(second), lease.clone()),
        Refusal::Denied { .. }
    ));
    bench.by(Actor::Worker(worker), lease);
}
