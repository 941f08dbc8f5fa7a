//! Commits: one entry completes, commits and shows; what a commit rests on is looked at.

use super::*;
use crate::state::rows::JobState;

/// A bitmap with these slots.
fn slots(numbers: &[u16]) -> Vec<u8> {
    let mut bits = vec![0; 512];
    for number in numbers {
        bits[usize::from(number / 8)] |= 1 << (number % 8);
    }
    bits
}

fn grant(bench: &mut Bench, worker: WorkerId, numbers: &[u16]) {
    let seen = bench.state.marks().slot_map;
    let grants = numbers.iter().map(|number| (*number, worker)).collect();
    bench.by(Actor::Cluster, Command::GrantSlots { seen, grants });
}

#[test]
fn one_entry_completes_the_attempt_commits_the_session_and_shows_the_point() {
    let (mut bench, worker) = Bench::ready();
    bench.does(Command::UpdateItem {
        version: 0,
        item: ITEM,
        spec: item_spec("web", VAULT),
    });
    let leased = bench.start_backup(ITEM, worker);
    assert!(bench.state.points().is_empty(), "nothing is shown before");
    let before = bench.index;
    bench.pass(SECOND);
    let made = CommittedPoint {
        time: bench.now,
        ..committed(&bench.state, point_id(1))
    };
    bench.commit(leased, made).unwrap();
    assert_eq!(bench.index, before + 1);
    let point = bench.state.points().get(&point_id(1)).unwrap();
    assert_eq!((point.item, point.manifest, point.time), (ITEM, [6; 32], bench.now));
    assert_eq!(bench.state.newest_point(ITEM), Some(point_id(1)));
    let job = bench.state.jobs().get(&leased.job).unwrap();
    assert_eq!(
        job.state,
        JobState::Done {
            point: Some(point_id(1))
        }
    );
    assert_eq!(job.attempts[0].ended, Some(bench.now));
    assert_eq!(job.attempts[0].failure, None);
    assert!(bench.state.sessions().is_empty());
    assert_eq!(bench.state.vaults().get(&VAULT).unwrap().bytes_stored, 50);
}

#[test]
fn a_point_that_is_there_or_given_up_is_not_made_again() {
    let (mut bench, worker) = Bench::with_points(2);
    let leased = bench.start_backup(ITEM, worker);
    let refused = |bench: &mut Bench, number| {
        let point = committed(&bench.state, point_id(number));
        bench.commit(leased, point).unwrap_err()
    };
    assert!(matches!(refused(&mut bench, 1), Refusal::Exists { .. }));
    bench.hide(&[point_id(1)], false);
    assert!(matches!(refused(&mut bench, 1), Refusal::Exists { .. }));
    bench.pass(8 * DAY);
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(1));
    assert!(matches!(refused(&mut bench, 1), Refusal::Exists { .. }));
    bench.commit(leased, committed(&bench.state, point_id(3))).unwrap();
}

#[test]
fn a_commit_that_rests_on_a_moved_slot_is_refused_until_its_ids_are_asked_again() {
    let (mut bench, worker) = Bench::ready();
    let second = bench.worker("w2", 1);
    grant(&mut bench, worker, &[0, 7, 8, 4095]);
    let leased = bench.start_backup(ITEM, worker);
    let stood_on = bench.state.marks().slot_map;
    let resting_on = |bench: &Bench, numbers: &[u16], slot_map| CommittedPoint {
        slots: slots(numbers),
        slot_map,
        ..committed(&bench.state, point_id(1))
    };
    grant(&mut bench, second, &[4095]);
    let point = resting_on(&bench, &[0, 4095], stood_on);
    let refusal = bench.commit(leased, point).unwrap_err();
    let (slot, session) = (4095, leased.session);
    assert_eq!(refusal, Refusal::Moved { slot, session });
    assert_eq!(bench.job_state(leased.job), JobState::Leased, "the attempt goes on");
    // The other slots stand as they were.
    let point = resting_on(&bench, &[0, 7, 8], stood_on);
    let mut aside = bench.state.clone();
    let entry = Entry {
        now: bench.now,
        actor: Actor::Worker(worker),
        key: None,
        command: Bench::completion(leased, Outcome::Backup(point)),
    };
    assert_eq!(aside.apply(bench.index + 1, &entry), Reply::Done);
    // The moved slot was asked again under the newest map.
    let newest = bench.state.marks().slot_map;
    assert!(newest > stood_on);
    let point = resting_on(&bench, &[0, 4095], newest);
    bench.commit(leased, point).unwrap();
}

#[test]
fn a_slot_granted_anew_to_the_same_worker_has_moved() {
    let (mut bench, worker) = Bench::ready();
    grant(&mut bench, worker, &[5]);
    let leased = bench.start_backup(ITEM, worker);
    let point = CommittedPoint {
        slots: slots(&[5]),
        ..committed(&bench.state, point_id(1))
    };
    bench.register(worker, [5; 16], 4);
    grant(&mut bench, worker, &[5]);
    assert!(matches!(
        bench.commit(leased, point).unwrap_err(),
        Refusal::Moved { slot: 5, .. }
    ));
}

#[test]
fn a_commit_cannot_rest_on_a_slot_without_an_owner_or_beyond_the_last() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    let nobodys = CommittedPoint {
        slots: slots(&[5]),
        ..committed(&bench.state, point_id(1))
    };
    assert!(matches!(
        bench.commit(leased, nobodys).unwrap_err(),
        Refusal::Moved { slot: 5, .. }
    ));
    let beyond = CommittedPoint {
        slots: vec![0; 513],
        ..committed(&bench.state, point_id(1))
    };
    assert!(matches!(
        bench.commit(leased, beyond).unwrap_err(),
        Refusal::Invalid { .. }
    ));
}

#[test]
fn a_commit_cannot_have_looked_at_what_no_entry_has_said_yet() {
    let (mut bench, worker) = Bench::ready();
    grant(&mut bench, worker, &[5]);
    let leased = bench.start_backup(ITEM, worker);
    // The entry of the commit comes after everything that it can have seen.
    for ahead in [1, 2, u64::MAX - bench.index - 10] {
        for (slot_map, findings_seen) in [(bench.index + ahead, 0), (bench.index, bench.index + ahead)] {
            let mut aside = bench.state.clone();
            let point = CommittedPoint {
                slots: slots(&[5]),
                slot_map,
                findings_seen,
                ..committed(&bench.state, point_id(1))
            };
            let entry = Entry {
                now: bench.now,
                actor: Actor::Worker(worker),
                key: None,
                command: Bench::completion(leased, Outcome::Backup(point)),
            };
            let reply = aside.apply(bench.index + 1, &entry);
            assert!(matches!(reply, Reply::Refused(Refusal::Invalid { .. })), "{reply:?}");
        }
    }
    let point = CommittedPoint {
        slots: slots(&[5]),
        slot_map: bench.index,
        findings_seen: bench.index,
        ..committed(&bench.state, point_id(1))
    };
    bench.commit(leased, point).unwrap();
}

#[test]
fn damage_found_since_the_session_looked_refuses_its_commit_until_it_looked_again() {
    let (mut bench, worker) = Bench::with_points(1);
    let leased = bench.start_backup(ITEM, worker);
    let looked = committed(&bench.state, point_id(2));
    let reply = bench.by(
        Actor::Worker(worker),
        Command::ReportFindings {
            vault: VAULT,
            harmed: vec![point_id(1)],
        },
    );
    assert_eq!(reply, Reply::Changed(1));
    assert!(bench.state.points().get(&point_id(1)).unwrap().harmed);
    let refusal = bench.commit(leased, looked).unwrap_err();
    assert!(matches!(refusal, Refusal::Fenced { .. }), "{refusal}");
    bench.commit(leased, committed(&bench.state, point_id(2))).unwrap();
}

#[test]
fn what_a_verify_finds_counts_like_any_finding() {
    let (mut bench, worker) = Bench::with_points(1);
    let backup = bench.start_backup(ITEM, worker);
    let looked = committed(&bench.state, point_id(2));
    let job = bench.queue(verify_of(None));
    let verify = bench.lease(job, worker);
    bench.completes(
        verify,
        Outcome::Verified {
            counts: counts(0),
            harmed: vec![point_id(1), point_id(77)],
            findings: 5,
            is_all: true,
        },
    );
    assert_eq!(
        bench.state.jobs().get(&job).unwrap().findings,
        5,
        "also what harms no point"
    );
    assert_eq!(bench.state.points_in(VAULT).harmed, 1);
    let verified = bench.state.vaults().get(&VAULT).unwrap().verified.unwrap();
    assert_eq!((verified.job, verified.findings), (job, 5));
    assert!(matches!(
        bench.commit(backup, looked).unwrap_err(),
        Refusal::Fenced { .. }
    ));
    // A verify that finds nothing changes nothing.
    let findings = bench.state.vaults().get(&VAULT).unwrap().findings;
    let job = bench.queue(verify_of(Some(point_id(1))));
    let verify = bench.lease(job, worker);
    bench.completes(
        verify,
        Outcome::Verified {
            counts: counts(0),
            harmed: Vec::new(),
            findings: 0,
            is_all: true,
        },
    );
    assert_eq!(bench.state.vaults().get(&VAULT).unwrap().findings, findings);
}

#[test]
fn only_who_looked_at_everything_says_that_a_point_is_harmed_no_more() {
    let (mut bench, worker) = Bench::with_points(3);
    let harm = |bench: &mut Bench, points: &[u64]| {
        let harmed = points.iter().copied().map(point_id).collect();
        bench.does(Command::ReportFindings { vault: VAULT, harmed });
    };
    let harmed = |bench: &Bench| -> Vec<u64> {
        let is_harmed = |number: &u64| bench.state.points().get(&point_id(*number)).unwrap().harmed;
        let harmed: Vec<u64> = (1..=3).filter(is_harmed).collect();
        assert_eq!(bench.state.points_in(VAULT).harmed, harmed.len() as u64);
        harmed
    };
    let verify = |bench: &mut Bench, point: Option<u64>, level: &str| {
        let job = bench.queue(JobSpec {
            work: Work::Verify {
                point: point.map(point_id),
                level: level.to_owned(),
            },
            ..verify_of(None)
        });
        bench.lease(job, worker)
    };
    let found = |points: &[u64], is_all: bool| Outcome::Verified {
        counts: counts(0),
        harmed: points.iter().copied().map(point_id).collect(),
        findings: points.len() as u64,
        is_all,
    };
    harm(&mut bench, &[1, 2, 3]);
    // Not every byte, not all that is harmed, not of everything, not since.
    let leased = verify(&mut bench, None, "recipes");
    bench.completes(leased, found(&[], true));
    let leased = verify(&mut bench, None, "all");
    bench.completes(leased, found(&[1], false));
    assert_eq!(harmed(&bench), [1, 2, 3]);
    let leased = verify(&mut bench, Some(2), "all");
    bench.completes(leased, found(&[], true));
    assert_eq!(harmed(&bench), [1, 3]);
    let leased = verify(&mut bench, None, "all");
    harm(&mut bench, &[1]);
    bench.completes(leased, found(&[], true));
    assert_eq!(harmed(&bench), [1, 3]);
    let leased = verify(&mut bench, None, "all");
    bench.completes(leased, found(&[3], true));
    assert_eq!(harmed(&bench), [3]);
    let leased = verify(&mut bench, None, "all");
    bench.completes(leased, found(&[], true));
    assert_eq!(harmed(&bench), [0u64; 0]);
    assert_eq!(bench.state.vaults().get(&VAULT).unwrap().verified.unwrap().findings, 0);
}

#[test]
fn findings_of_one_vault_say_nothing_about_another() {
    let (mut bench, worker) = Bench::with_points(1);
    let other = VaultId([8; 16]);
    bench.vault(other, "archive", worker);
    let leased = bench.start_backup(ITEM, worker);
    let looked = committed(&bench.state, point_id(2));
    let report = Command::ReportFindings {
        vault: other,
        harmed: vec![point_id(1)],
    };
    assert_eq!(bench.by(Actor::Worker(worker), report), Reply::Changed(0));
    assert!(!bench.state.points().get(&point_id(1)).unwrap().harmed);
    bench.commit(leased, looked).unwrap();
}

#[test]
fn what_a_job_leaves_is_what_that_kind_of_job_makes() {
    let (mut bench, worker) = Bench::with_points(1);
    let done = Outcome::Done { counts: counts(0) };
    let point = Outcome::Backup(committed(&bench.state, point_id(2)));
    let verified = Outcome::Verified {
        counts: counts(0),
        harmed: Vec::new(),
        findings: 0,
        is_all: true,
    };
    let claimed = Outcome::Claimed(claim(2));
    let claims = JobSpec {
        work: Work::Claim,
        ..catalogue()
    };
    let jobs = [
        (backup_of(ITEM), &point),
        (restore_of(point_id(1), "w1", "/restored"), &done),
        (verify_of(None), &verified),
        (claims, &claimed),
        (catalogue(), &done),
    ];
    for (spec, good) in jobs {
        let job = bench.queue(spec);
        let leased = bench.lease(job, worker);
        for outcome in [&done, &point, &verified, &claimed]
            .into_iter()
            .filter(|other| *other != good)
        {
            let refusal = bench.refuses(Actor::Worker(worker), Bench::completion(leased, outcome.clone()));
            assert!(
                matches!(&refusal, Refusal::Invalid { field, .. } if field == "outcome"),
                "{refusal}"
            );
        }
        bench.completes(leased, good.clone());
    }
}

#[test]
fn a_claim_never_falls_in_rank() {
    let (mut bench, worker) = Bench::ready();
    let mut claims = |n, cluster| {
        let spec = JobSpec {
            work: Work::Claim,
            ..catalogue()
        };
        let job = bench.queue(spec);
        let leased = bench.lease(job, worker);
        let outcome = Outcome::Claimed(VaultClaim { cluster, ..claim(n) });
        let reply = bench
            .ask(Actor::Worker(worker), Bench::completion(leased, outcome))
            .accepted();
        if reply.is_err() {
            bench.by(
                Actor::Cluster,
                Command::ExpireLease {
                    job,
                    epoch: leased.epoch,
                    retry_at: None,
                },
            );
        }
        reply.is_ok()
    };
    assert!(claims(3, 77));
    assert!(claims(3, 77), "a second attempt finds what the first one put");
    assert!(!claims(2, 77));
    assert!(!claims(3, 78));
    assert!(claims(4, 78));
}

#[test]
fn a_workers_clock_does_not_reorder_points() {
    let (mut bench, worker) = Bench::ready();
    let mut make = |number, time: i64| {
        bench.pass(HOUR);
        let leased = bench.start_backup(ITEM, worker);
        let started = bench.now;
        bench.pass(60 * SECOND);
        let made = CommittedPoint {
            time: Time(time),
            ..committed(&bench.state, point_id(number))
        };
        bench.commit(leased, made).unwrap();
        let stored = bench.state.points().get(&point_id(number)).unwrap().time;
        assert_eq!(bench.state.newest_point(ITEM), Some(point_id(number)));
        (started, stored, bench.now)
    };
    // A year ahead, a year behind, and as it should be.
    let (_, stored, now) = make(1, START + 365 * DAY);
    assert_eq!(stored, now);
    let (started, stored, _) = make(2, START - 365 * DAY);
    assert_eq!(stored, started);
    let honest = now.plus(HOUR + 30 * SECOND + HOUR + 60 * SECOND);
    let (_, stored, _) = make(3, honest.0);
    assert_eq!(stored, honest);
}

#[test]
fn a_point_keeps_until_when_its_job_said() {
    let (mut bench, worker) = Bench::ready();
    let until = bench.now.plus(90 * DAY);
    let job = bench.queue(JobSpec {
        work: Work::Backup {
            item: ITEM,
            keep_until: Some(until),
        },
        ..backup_of(ITEM)
    });
    let leased = bench.lease(job, worker);
    bench.commit(leased, committed(&bench.state, point_id(1))).unwrap();
    assert_eq!(bench.state.points().get(&point_id(1)).unwrap().keep_until, Some(until));
}
