//! Thousands of random commands, most of them plausible: whatever is asked in whatever order, what always holds does, the changed rows are all that
//! changed, and every member comes to the same state.

use super::player::Player;
use super::samples::KINDS;
use super::*;
use crate::state::logs::LOGS_TABLE;
use crate::state::rows::{JobState, TokenUse};
use proptest::prelude::*;

/// What a store of rows has is the state, at any point.
fn check_rows(bench: &Bench) {
    let loaded = State::load(bench.stored()).unwrap();
    assert_eq!(loaded, bench.state, "after entry {}", bench.index);
    loaded.check_invariants(bench.index).unwrap();
    let all: Vec<_> = bench
        .state
        .all_rows()
        .into_iter()
        .map(|row| (row.table, row.key, row.value.unwrap()))
        .collect();
    // Logs of attempts are on disks alone.
    let in_memory = bench.stored().filter(|(table, ..)| *table != LOGS_TABLE);
    assert_eq!(all, in_memory.collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_what_always_holds_does(seed: u64, steps in 1..2500usize) {
        let mut player = Player::new(seed);
        let mut clock = player.bench.state.now();
        for step in 0..steps {
            player.step();
            let bench = &player.bench;
            bench.state.check_invariants(bench.index).unwrap();
            prop_assert!(bench.state.now() >= clock);
            clock = bench.state.now();
            if step % 50 == 0 {
                check_rows(bench);
            }
        }
        check_rows(&player.bench);
        // Another member applies the same log, in bytes; a third one is restarted again and again; a fourth takes the rows when half of it is gone.
        let log = player.bench.log.take().unwrap();
        let (mut member, mut restarted, mut late) = (State::default(), State::default(), None);
        let mut rows = BTreeMap::new();
        for (entry, index) in log.iter().zip(1u64..) {
            let entry = Entry::decode(&entry.encode()).unwrap();
            let reply = member.apply(index, &entry);
            prop_assert_eq!(&restarted.apply(index, &entry), &reply);
            for row in restarted.take_changes() {
                rows.insert((row.table, row.key), row.value);
            }
            if index % 97 == 0 {
                let rows = rows.iter().filter_map(|((table, key), value)| Some((*table, key.clone(), value.clone()?)));
                restarted = State::load(rows).unwrap();
            }
            if let Some(late) = &mut late {
                prop_assert_eq!(&State::apply(late, index, &entry), &reply);
            }
            if index == log.len() as u64 / 2 {
                let rows = member.all_rows().into_iter().map(|row| (row.table, row.key, row.value.unwrap()));
                late = Some(State::load(rows).unwrap());
            }
        }
        let digest = player.bench.state.digest();
        prop_assert_eq!(member.digest(), digest);
        prop_assert_eq!(restarted.digest(), digest);
        prop_assert_eq!(late.unwrap().digest(), digest);
    }
}

/// The player is worth something only while much of what it asks is taken, and all kinds of things happen.
#[test]
fn random_commands_are_taken_often_and_of_every_kind() {
    let mut player = Player::new(7);
    let mut taken = BTreeMap::<u8, u32>::new();
    let mut refused = 0;
    for _ in 0..12_000 {
        if matches!(player.step(), Reply::Refused(_)) {
            refused += 1;
        } else {
            let kind = player.bench.log.as_ref().unwrap().last().unwrap().command.kind();
            *taken.entry(kind).or_default() += 1;
        }
    }
    // Some are rare: a vault goes only when nothing is left in it. Other games are played for those.
    for seed in 8..16 {
        if taken.len() + 1 >= usize::from(KINDS) {
            break;
        }
        let mut other = Player::new(seed);
        for _ in 0..12_000 {
            if !matches!(other.step(), Reply::Refused(_)) {
                let kind = other.bench.log.as_ref().unwrap().last().unwrap().command.kind();
                *taken.entry(kind).or_default() += 1;
            }
        }
    }
    // Only the founding is never taken again.
    let kinds: Vec<u8> = (1..KINDS).filter(|kind| !taken.contains_key(kind)).collect();
    assert!(kinds.is_empty(), "never taken: {kinds:?}");
    assert!(refused < 7500, "{refused} of 12,000 refused");
    let state = &player.bench.state;
    let ends = |wanted: fn(&JobState) -> bool| state.jobs().values().filter(|job| wanted(&job.state)).count();
    assert!(ends(|state| matches!(state, JobState::Done { .. })) > 100);
    assert!(ends(|state| matches!(state, JobState::Failed)) > 20);
    assert!(ends(|state| matches!(state, JobState::Cancelled)) > 20);
    assert!(state.given_up().len() > 20, "{}", state.given_up().len());
    // Tokens are few and soon revoked: in one game of many some are used up before.
    let uses_up = |seed| {
        let mut player = Player::new(seed);
        for _ in 0..2000 {
            player.step();
        }
        let is_used_up = |used_for: &TokenUse| matches!(used_for, TokenUse::Join { uses: 0, .. });
        player
            .bench
            .state
            .tokens()
            .values()
            .any(|token| is_used_up(&token.used_for))
    };
    assert!((0..200).any(uses_up));
}

#[test]
fn a_changed_row_changes_the_digest() {
    let (bench, _) = Bench::with_points(1);
    let digest = bench.state.digest();
    assert_eq!(bench.state.clone().digest(), digest);
    let mut state = bench.state.clone();
    state.points.get_mut(&point_id(1)).unwrap().harmed = true;
    assert_ne!(state.digest(), digest);
    let mut state = bench.state.clone();
    state.slots.remove(&0);
    assert_eq!(state.digest(), digest);
    state.points.remove(&point_id(1));
    assert_ne!(state.digest(), digest);
}
