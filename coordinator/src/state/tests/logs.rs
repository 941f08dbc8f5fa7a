//! Logs of attempts: whose they are, when they go, and that they are rows on disks alone.

use super::*;
use crate::state::logs::{self, LOG_BYTES_MAX, LOGS_BYTES_MAX, LOGS_TABLE};
use crate::state::{ATTEMPTS_KEPT, rows::JobState};

fn keeps(leased: Leased, log: &[u8]) -> Command {
    Command::KeepLog {
        job: leased.job,
        epoch: leased.epoch,
        log: log.to_vec(),
    }
}

fn expire(leased: Leased, retry_at: Option<Time>) -> Command {
    Command::ExpireLease {
        job: leased.job,
        epoch: leased.epoch,
        retry_at,
    }
}

/// The log of an attempt as a store of rows has it.
fn stored(bench: &Bench, epoch: Epoch) -> Option<Vec<u8>> {
    let row = bench.rows.get(&logs::place(epoch))?;
    Some(logs::log_of(epoch, row).unwrap())
}

#[test]
fn a_log_is_a_row_on_the_disk_and_not_one_in_memory() {
    let (mut bench, worker) = Bench::ready();
    let leased = bench.start_backup(ITEM, worker);
    bench.completes(leased, Outcome::Backup(committed(&bench.state, point_id(1))));
    let digest_of_rows = bench.state.all_rows().len();
    bench.by(Actor::Worker(worker), keeps(leased, b"all was well"));
    assert!(bench.state.has_log(leased.epoch));
    assert_eq!(stored(&bench, leased.epoch).unwrap(), b"all was well");
    assert_eq!(bench.state.all_rows().len(), digest_of_rows);
    assert!(bench.state.all_rows().iter().all(|row| row.table != LOGS_TABLE));
    // A restart knows of it.
    let loaded = State::load(bench.stored()).unwrap();
    assert_eq!(loaded, bench.state);
    assert_eq!(loaded.logs_count(), (1, 12));
    // Said twice it is one; the later one counts.
    bench.by(Actor::Worker(worker), keeps(leased, b"more"));
    assert_eq!(bench.state.logs_count(), (1, 4));
    assert_eq!(stored(&bench, leased.epoch).unwrap(), b"more");
}

#[test]
fn a_log_is_taken_only_of_the_attempts_own_worker_and_within_its_bounds() {
    let (mut bench, worker) = Bench::ready();
    let other = bench.worker("w2", 1);
    let leased = bench.start_backup(ITEM, worker);
    let refusal = bench.refuses(Actor::Worker(other), keeps(leased, b"mine"));
    assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    bench.refuses(PERSON, keeps(leased, b"mine"));
    bench.refuses(Actor::Worker(worker), keeps(leased, b""));
    bench.refuses(Actor::Worker(worker), keeps(leased, &vec![1; LOG_BYTES_MAX + 1]));
    let none = Leased {
        epoch: Epoch(leased.epoch.0 + 1),
        ..leased
    };
    let refusal = bench.refuses(Actor::Worker(worker), keeps(none, b"x"));
    assert!(matches!(refusal, Refusal::Missing { .. }), "{refusal}");
    // What a worker has to tell of a lease that it lost is worth as much.
    bench.by(Actor::Cluster, expire(leased, None));
    assert_eq!(bench.job_state(leased.job), JobState::Failed);
    bench.by(Actor::Worker(worker), keeps(leased, b"late"));
    assert!(bench.state.has_log(leased.epoch));
}

#[test]
fn a_log_goes_with_its_attempt() {
    let (mut bench, worker) = Bench::ready();
    let first = bench.start_backup(ITEM, worker);
    bench.by(Actor::Worker(worker), keeps(first, b"first"));
    let mut leased = first;
    for _ in 0..ATTEMPTS_KEPT {
        assert!(bench.state.has_log(first.epoch));
        bench.by(Actor::Cluster, expire(leased, Some(bench.now)));
        leased = bench.lease(first.job, worker);
        bench.by(Actor::Worker(worker), keeps(leased, b"next"));
    }
    assert!(!bench.state.has_log(first.epoch));
    assert_eq!(stored(&bench, first.epoch), None);
    assert_eq!(bench.state.logs_count().0, ATTEMPTS_KEPT);
}

#[test]
fn the_oldest_logs_go_when_all_take_too_much() {
    let (mut bench, worker) = Bench::ready();
    let log = vec![5; LOG_BYTES_MAX];
    let fit = usize::try_from(LOGS_BYTES_MAX).unwrap() / LOG_BYTES_MAX;
    let mut epochs = Vec::new();
    for n in 0..fit + 3 {
        let leased = bench.start_backup(ITEM, worker);
        bench.completes(leased, Outcome::Backup(committed(&bench.state, point_id(n as u64 + 1))));
        bench.by(Actor::Worker(worker), keeps(leased, &log));
        epochs.push(leased.epoch);
    }
    let (count, bytes) = bench.state.logs_count();
    assert_eq!((count, bytes), (fit, LOGS_BYTES_MAX));
    let on_disk = bench.rows.keys().filter(|(table, _)| *table == LOGS_TABLE).count();
    assert_eq!(on_disk, fit);
    for epoch in &epochs[..3] {
        assert_eq!(stored(&bench, *epoch), None);
    }
    assert_eq!(bench.state.oldest_log(), Some(epochs[3]));
}
