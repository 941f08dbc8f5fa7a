use super::world::{Report, World};
use crate::mutation::{Mutation, with_mutation};
use crate::seeded::for_seeds;
use crate::store::faulty::Lie;

/// Seeds in CI; `TRESOR_SEEDS` asks for more.
const SEEDS: u64 = 1000;
/// The tests that share them, so that they run side by side.
const SHARES: u64 = 4;

fn run(seed: u64) -> Report {
    match World::new(seed).run() {
        Ok(report) => report,
        Err(wrong) => panic!("seed {seed}: {wrong}"),
    }
}

fn share(number: u64) {
    let seeds = std::env::var("TRESOR_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SEEDS);
    let (mut completions, mut elections, mut moves, mut refused, mut runs) = (0, 0, 0, 0, 0usize);
    for_seeds(seeds * number / SHARES..seeds * (number + 1) / SHARES, |seed| {
        let report = run(seed);
        completions += report.completions;
        elections += usize::try_from(report.elections).unwrap();
        moves += report.moves;
        refused += report.refused_for_slots;
        runs += 1;
    });
    // Runs in which nothing happens would show nothing.
    assert!(completions >= 5 * runs, "{completions} completions in {runs} runs");
    assert!(elections >= runs, "{elections} elections in {runs} runs");
    assert!(moves >= runs, "{moves} slots moved in {runs} runs");
    assert!(
        5 * refused >= runs,
        "{refused} commits refused for moved slots in {runs} runs"
    );
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_done_twice_first_share() {
    share(0);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_done_twice_second_share() {
    share(1);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_done_twice_third_share() {
    share(2);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_done_twice_fourth_share() {
    share(3);
}

#[test]
fn a_seed_repeats_exactly() {
    assert_eq!(run(4711), run(4711));
    assert_ne!(run(4711).trace, run(4712).trace);
}

/// Whether some seed of those of CI finds that a rule is missing; the first that does.
fn found(mutation: Mutation) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let result = with_mutation(mutation, || std::panic::catch_unwind(|| World::new(seed).run()));
        match result {
            Ok(Ok(_)) => None,
            Ok(Err(wrong)) => Some((seed, wrong)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                Some((seed, text.unwrap_or_else(|| String::from("an assertion failed"))))
            }
        }
    })
}

#[test]
fn a_sync_that_is_skipped_is_found() {
    assert!(found(Mutation::Disk(Lie::ForgetsSyncs)).is_some());
}

#[test]
fn messages_sent_before_what_they_promise_is_synced_are_found() {
    assert!(found(Mutation::Disk(Lie::SyncsLate)).is_some());
}

#[test]
fn rows_stored_without_their_entry_are_found() {
    assert!(found(Mutation::Disk(Lie::LosesApplied)).is_some());
}

#[test]
fn a_stale_epoch_that_completes_a_job_is_found() {
    assert!(found(Mutation::StaleEpoch).is_some());
}

#[test]
fn a_session_number_used_again_is_found() {
    assert!(found(Mutation::SessionReused).is_some());
}

#[test]
fn a_commit_of_an_aborted_session_is_found() {
    assert!(found(Mutation::AbortedCommits).is_some());
}

#[test]
fn an_occurrence_that_becomes_two_jobs_is_found() {
    assert!(found(Mutation::OccurrenceTwice).is_some());
}

#[test]
fn a_commit_that_rests_on_a_moved_slot_is_found() {
    assert!(found(Mutation::MovedSlots).is_some());
}

#[test]
fn a_slot_that_is_said_to_be_kept_and_was_not_is_found() {
    assert!(found(Mutation::Lineage).is_some());
}

#[test]
fn a_read_that_no_majority_confirmed_is_found() {
    assert!(found(Mutation::UnconfirmedReads).is_some());
}
