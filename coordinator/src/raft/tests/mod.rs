//! Clusters under trouble, by seed; single stories; and what a core refuses.

mod bytes;
mod harness;
mod scripted;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::simulation::{ClientError, Register, Report, Settings, run};
use crate::seeded::for_seeds;
use crate::store::faulty::Lie;

/// Seeds until which each lie and each careless caller must have been noticed. The slowest takes a dozen.
const NOTICED_BY: u64 = 100;

fn check(seeds: std::ops::Range<u64>, settings: &Settings) -> (u64, Report) {
    let mut sum = Report::default();
    let mut runs = 0;
    for_seeds(seeds, |seed| match run::<Register>(seed, settings) {
        Ok(report) => {
            sum.add(&report);
            runs += 1;
        }
        Err(why) => panic!("{why}"),
    });
    (runs, sum)
}

/// That a run of rough seeds was rough, and did something all the same.
fn assert_eventful((runs, sum): (u64, Report)) {
    // A single seed that is replayed may be a quiet one.
    if runs < 50 {
        return;
    }
    let each = [
        ("writes", sum.acknowledged, 50),
        ("unclear writes", sum.unclear, 5),
        ("reads", sum.reads, 20),
        ("crashes", sum.crashes, 3),
        ("disk failures", sum.disk_failures, 1),
        ("leaders", sum.leaders, 3),
        ("snapshots", sum.snapshots, 1),
    ];
    for (what, count, expected) in each {
        assert!(count >= expected * runs, "only {count} {what} in {runs} runs: {sum:?}");
    }
    assert!(sum.broken_streams > 0, "{sum:?}");
}

#[test]
fn a_calm_cluster_does_its_work() {
    for members in 1..=5 {
        let (runs, sum) = check(0..4, &Settings::calm(members));
        assert_eq!((sum.unclear, sum.crashes), (0, 0));
        assert!(sum.acknowledged > runs * 200 && sum.reads > runs * 100, "{sum:?}");
        // Each run has one leader for all its life.
        assert_eq!(sum.leaders, runs);
    }
}

#[test]
fn three_members_agree_whatever_happens() {
    assert_eventful(check(0..100, &Settings::rough(3)));
}

#[test]
fn five_members_agree_whatever_happens() {
    assert_eventful(check(0..100, &Settings::rough(5)));
}

#[test]
fn members_that_come_and_go_agree_whatever_happens() {
    let settings = Settings {
        changes: 10,
        ..Settings::rough(3)
    };
    let (runs, sum) = check(0..100, &settings);
    assert!(runs < 50 || (sum.changes > 5 * runs && sum.joint > runs), "{sum:?}");
    assert_eventful((runs, sum));
}

#[test]
fn a_seed_repeats_exactly() {
    let settings = Settings {
        changes: 10,
        ..Settings::rough(3)
    };
    let mut traces = std::collections::BTreeSet::new();
    for_seeds(0..5, |seed| {
        let [first, second] = [(); 2].map(|()| run::<Register>(seed, &settings).unwrap());
        assert_eq!(first, second);
        assert!(traces.insert(first.trace), "two seeds do the same");
    });
}

/// Whether a run with these settings is found wrong before long.
fn is_noticed(settings: &Settings) -> bool {
    (0..NOTICED_BY).any(|seed| {
        // raft-rs notices some things by panicking.
        let run = catch_unwind(AssertUnwindSafe(|| run::<Register>(seed, settings)));
        !matches!(run, Ok(Ok(_)))
    })
}

#[test]
fn disks_and_programs_that_lie_are_noticed() {
    for lie in [
        Lie::ForgetsSyncs,
        Lie::SyncsLate,
        Lie::LosesVotes,
        Lie::LosesCommits,
        Lie::LosesApplied,
    ] {
        let settings = Settings {
            lie: Some(lie),
            ..Settings::rough(3)
        };
        assert!(is_noticed(&settings), "{lie:?}");
    }
}

#[test]
fn careless_callers_are_noticed() {
    for error in [
        ClientError::ReadsWithoutAsking,
        ClientError::TrustsTheUnclear,
        ClientError::RestoresAnOldDisk,
    ] {
        let settings = Settings {
            error: Some(error),
            ..Settings::rough(3)
        };
        assert!(is_noticed(&settings), "{error:?}");
    }
}
