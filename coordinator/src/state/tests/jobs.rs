//! Jobs: queued once, cancelled, tried again.

use super::*;
use crate::state::rows::JobState;

fn scheduled(occurrence: i64) -> JobSpec {
    JobSpec {
        occurrence: Some(Time(occurrence)),
        ..backup_of(ITEM)
    }
}

#[test]
fn a_job_is_named_after_the_entry_that_queued_it() {
    let (mut bench, _) = Bench::ready();
    let job = bench.queue(backup_of(ITEM));
    assert_eq!(job, JobId(bench.index));
    assert_eq!(bench.state.open_backup(ITEM), Some(job));
}

#[test]
fn an_occurrence_becomes_a_job_once_whoever_saw_that_it_was_due() {
    let (mut bench, worker) = Bench::ready();
    let job = bench.queue(scheduled(START));
    let leased = bench.lease(job, worker);
    bench.completes(leased, Outcome::Backup(committed(&bench.state, point_id(1))));
    // Another leader saw it too; so did one that had missed the newer one.
    for late in [START, START - DAY] {
        let refusal = bench.refuses(Actor::Cluster, Command::Enqueue(scheduled(late)));
        assert!(matches!(refusal, Refusal::Fenced { .. }), "{refusal}");
    }
    bench.queue(scheduled(START + DAY));
}

#[test]
fn an_occurrence_whose_job_failed_is_not_due_again() {
    let (mut bench, worker) = Bench::ready();
    let job = bench.queue(scheduled(START));
    let leased = bench.lease(job, worker);
    bench.by(
        Actor::Worker(worker),
        Command::Fail {
            job,
            epoch: leased.epoch,
            failure: failure(FailureKind::Invalid),
            retry_at: None,
        },
    );
    bench.refuses(Actor::Cluster, Command::Enqueue(scheduled(START)));
    // But a person can have that very job tried again.
    bench.does(Command::Retry { job });
    assert!(matches!(bench.job_state(job), JobState::Queued { .. }));
}

#[test]
fn an_item_has_one_open_backup() {
    let (mut bench, _) = Bench::ready();
    let job = bench.queue(backup_of(ITEM));
    let refusal = bench.refuses(PERSON, Command::Enqueue(backup_of(ITEM)));
    assert_eq!(
        refusal.to_string(),
        format!("job {job} is there already: it backs up web")
    );
}

#[test]
fn what_is_backed_up_is_protected_and_in_that_vault() {
    let (mut bench, worker) = Bench::ready();
    let other = VaultId([8; 16]);
    bench.vault(other, "archive", worker);
    let elsewhere = JobSpec {
        vault: other,
        ..backup_of(ITEM)
    };
    assert!(matches!(
        bench.refuses(PERSON, Command::Enqueue(elsewhere)),
        Refusal::Invalid { .. }
    ));
    bench.back_up(ITEM, worker, point_id(1));
    bench.does(Command::Unprotect { item: ITEM });
    assert!(matches!(
        bench.refuses(PERSON, Command::Enqueue(backup_of(ITEM))),
        Refusal::Held { .. }
    ));
    assert!(matches!(
        bench.refuses(PERSON, Command::Enqueue(backup_of(item_id(9)))),
        Refusal::Missing { .. }
    ));
}

#[test]
fn nothing_but_its_claim_is_done_in_a_vault_that_is_not_ready() {
    let (mut bench, _) = Bench::ready();
    let vault = VaultId([8; 16]);
    bench.does(Command::AddVault(vault_spec(vault, "archive")));
    for work in [
        Work::Catalogue,
        Work::Verify {
            point: None,
            level: String::from("names"),
        },
    ] {
        let spec = JobSpec {
            vault,
            work,
            ..backup_of(ITEM)
        };
        let refusal = bench.refuses(PERSON, Command::Enqueue(spec));
        assert_eq!(refusal.to_string(), "vault archive is still being made");
    }
}

#[test]
fn two_restores_to_one_place_are_one_too_many_however_the_place_is_written() {
    let (mut bench, _) = Bench::with_points(1);
    bench.worker("w2", 1);
    let job = bench.queue(restore_of(point_id(1), "w1", "/restored/web"));
    for path in ["/restored/web", "/restored//web/", "/./restored/./web"] {
        let refusal = bench.refuses(PERSON, Command::Enqueue(restore_of(point_id(1), "w1", path)));
        assert!(matches!(&refusal, Refusal::Exists { name, .. } if *name == job.to_string()));
    }
    // Another host has another disk, and another path is another place.
    bench.queue(restore_of(point_id(1), "w2", "/restored/web"));
    bench.queue(restore_of(point_id(1), "w1", "restored/web"));
    bench.does(Command::Cancel { job });
    bench.queue(restore_of(point_id(1), "w1", "/restored/web"));
}

#[test]
fn a_restore_that_makes_no_sense_is_refused() {
    let (mut bench, _) = Bench::with_points(1);
    let both = |spec: &mut JobSpec| {
        if let Work::Restore { target, .. } = &mut spec.work {
            target.overwrite = true;
            target.in_place = true;
        }
    };
    let mut spec = restore_of(point_id(1), "w1", "/x");
    both(&mut spec);
    assert!(matches!(
        bench.refuses(PERSON, Command::Enqueue(spec)),
        Refusal::Invalid { field, .. } if field == "overwrite"
    ));
    for (spec, what) in [
        (restore_of(point_id(9), "w1", "/x"), "point"),
        (restore_of(point_id(1), "nobody", "/x"), "worker"),
    ] {
        let refusal = bench.refuses(PERSON, Command::Enqueue(spec));
        assert!(matches!(&refusal, Refusal::Missing { what: missing, .. } if missing == what));
    }
    let nowhere = restore_of(point_id(1), "w1", "");
    assert!(matches!(
        bench.refuses(PERSON, Command::Enqueue(nowhere)),
        Refusal::Invalid { field, .. } if field == "path"
    ));
}

#[test]
fn a_waiting_job_is_cancelled_at_once() {
    let (mut bench, worker) = Bench::ready();
    let job = bench.queue(backup_of(ITEM));
    bench.does(Command::Cancel { job });
    assert_eq!(bench.job_state(job), JobState::Cancelled);
    bench.refuses(Actor::Cluster, Bench::lease_command(job, worker));
    assert!(matches!(
        bench.refuses(PERSON, Command::Cancel { job }),
        Refusal::Held { .. }
    ));
    bench.queue(backup_of(ITEM));
}

#[test]
fn a_running_job_is_cancelled_when_its_attempt_ends_whatever_it_says() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.does(Command::Cancel { job: leased.job });
    assert_eq!(bench.job_state(leased.job), JobState::Leased);
    assert!(bench.state.jobs().get(&leased.job).unwrap().cancel_requested);
    // It would be tried again, were it wanted.
    bench.by(
        Actor::Cluster,
        Command::ExpireLease {
            job: leased.job,
            epoch: leased.epoch,
            retry_at: Some(bench.now),
        },
    );
    assert_eq!(bench.job_state(leased.job), JobState::Cancelled);
    let item = bench.state.items().get(&ITEM).unwrap();
    assert_eq!(item.failures, 0, "nobody counts what was cancelled as a failure");
}

#[test]
fn a_point_that_is_committed_before_the_worker_hears_of_the_cancelling_counts() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.does(Command::Cancel { job: leased.job });
    bench.commit(leased, committed(&bench.state, point_id(1))).unwrap();
    assert!(bench.is_visible(point_id(1)));
    assert!(matches!(bench.job_state(leased.job), JobState::Done { point: Some(point) } if point == point_id(1)));
}

#[test]
fn a_failed_job_waits_again_or_has_failed_for_good() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    let retry_at = bench.now.plus(60 * SECOND);
    let fail = |leased: Leased, retry_at| Command::Fail {
        job: leased.job,
        epoch: leased.epoch,
        failure: failure(FailureKind::Retry),
        retry_at,
    };
    bench.by(Actor::Worker(worker), fail(leased, Some(retry_at)));
    assert_eq!(bench.job_state(leased.job), JobState::Queued { not_before: retry_at });
    bench.refuses(Actor::Cluster, Bench::lease_command(leased.job, worker));
    bench.pass(60 * SECOND);
    let leased = bench.lease(leased.job, worker);
    bench.by(Actor::Worker(worker), fail(leased, None));
    assert_eq!(bench.job_state(leased.job), JobState::Failed);
    let item = bench.state.items().get(&ITEM).unwrap();
    assert_eq!(item.failures, 1, "a job fails once, however many attempts it had");
    assert_eq!(item.last_failure.as_ref().unwrap().job, leased.job);
    let job = bench.state.jobs().get(&leased.job).unwrap();
    assert_eq!(job.attempts.len(), 2);
    assert_eq!(job.attempts_made, 2);
    // The next good one ends the row of failures.
    bench.back_up(ITEM, worker, point_id(1));
    let item = bench.state.items().get(&ITEM).unwrap();
    assert_eq!((item.failures, &item.last_failure), (0, &None));
    assert_eq!(item.last_success, Some(bench.now));
}

#[test]
fn the_story_of_a_failure_is_cut_between_letters() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    let failure = Failure {
        message: "ä".repeat(5000),
        hint: format!("a{}", "ä".repeat(5000)),
        ..failure(FailureKind::Retry)
    };
    bench.by(
        Actor::Worker(worker),
        Command::Fail {
            job: leased.job,
            epoch: leased.epoch,
            failure,
            retry_at: None,
        },
    );
    let job = bench.state.jobs().get(&leased.job).unwrap();
    let kept = job.attempts[0].failure.as_ref().unwrap();
    assert_eq!((kept.message.len(), kept.hint.len()), (1024, 1023));
}

#[test]
fn only_the_newest_attempts_are_remembered_and_all_are_counted() {
    let (mut bench, worker) = Bench::ready();
    let job = bench.queue(backup_of(ITEM));
    let mut epochs = Vec::new();
    for _ in 0..12 {
        let leased = bench.lease(job, worker);
        epochs.push(leased.epoch);
        bench.by(
            Actor::Cluster,
            Command::ExpireLease {
                job,
                epoch: leased.epoch,
                retry_at: Some(bench.now),
            },
        );
    }
    let row = bench.state.jobs().get(&job).unwrap();
    let kept: Vec<Epoch> = row.attempts.iter().map(|attempt| attempt.epoch).collect();
    assert_eq!(kept, epochs[4..]);
    assert_eq!(row.attempts_made, 12);
}

#[test]
fn a_retry_starts_the_count_of_attempts_anew_and_is_checked_like_a_new_job() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    let job = leased.job;
    assert!(matches!(
        bench.refuses(PERSON, Command::Retry { job }),
        Refusal::Held { .. }
    ));
    bench.by(
        Actor::Cluster,
        Command::ExpireLease {
            job,
            epoch: leased.epoch,
            retry_at: None,
        },
    );
    // Another backup has come between.
    let other = bench.queue(backup_of(ITEM));
    assert!(matches!(
        bench.refuses(PERSON, Command::Retry { job }),
        Refusal::Exists { .. }
    ));
    bench.does(Command::Cancel { job: other });
    bench.does(Command::Retry { job });
    let row = bench.state.jobs().get(&job).unwrap();
    assert_eq!((row.attempts_made, row.attempts.len(), row.ended), (0, 1, None));
    // Its old lease does not come back with it.
    let refusal = bench.commit(leased, committed(&bench.state, point_id(1))).unwrap_err();
    assert!(matches!(refusal, Refusal::Fenced { .. }));
}

#[test]
fn a_job_that_is_done_is_not_tried_again() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.commit(leased, committed(&bench.state, point_id(1))).unwrap();
    assert!(matches!(
        bench.refuses(PERSON, Command::Retry { job: leased.job }),
        Refusal::Held { .. }
    ));
}

#[test]
fn a_vault_has_one_open_catalogue_and_one_open_claim() {
    let (mut bench, _) = Bench::ready();
    bench.queue(catalogue());
    let claims = JobSpec {
        work: Work::Claim,
        ..catalogue()
    };
    bench.queue(claims.clone());
    for spec in [catalogue(), claims] {
        assert!(matches!(
            bench.refuses(Actor::Cluster, Command::Enqueue(spec)),
            Refusal::Exists { .. }
        ));
    }
}

#[test]
fn an_unknown_level_of_verifying_is_refused() {
    let (mut bench, _) = Bench::ready();
    for level in ["", "everything"] {
        let spec = JobSpec {
            work: Work::Verify {
                point: None,
                level: level.to_owned(),
            },
            ..backup_of(ITEM)
        };
        assert!(matches!(
            bench.refuses(PERSON, Command::Enqueue(spec)),
            Refusal::Invalid { field, .. } if field == "level"
        ));
    }
}
