//! Clusters under trouble, by seed; and what a core refuses.

mod bytes;
mod harness;
mod scripted;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::simulation::{ClientError, Register, Report, Settings, run};
use crate::seeded::for_seeds;
use crate::store::faulty::Lie;

fn check(seeds: std::ops::Range<u64>, settings: impl Fn(u64) -> Settings) -> Report {
    let mut sum = Report::default();
    for_seeds(seeds, |seed| match run::<Register>(seed, &settings(seed)) {
        Ok(report) => sum.add(&report),
        Err(why) => panic!("{why}"),
    });
    sum
}

#[test]
fn a_calm_cluster_does_its_work() {
    let report = check(0..20, |seed| Settings::calm(1 + seed % 5));
    assert_eq!((report.unclear, report.crashes), (0, 0));
    eprintln!("{report:?}");
    assert!(report.acknowledged > 20 * 100, "{report:?}");
}

#[test]
fn three_members_agree_whatever_happens() {
    let report = check(0..100, |_| Settings::rough(3));
    eprintln!("{report:?}");
}

#[test]
fn five_members_agree_whatever_happens() {
    let report = check(0..100, |_| Settings::rough(5));
    eprintln!("{report:?}");
}

#[test]
fn members_that_come_and_go_agree_whatever_happens() {
    let report = check(0..100, |_| Settings {
        changes: 10,
        ..Settings::rough(3)
    });
    eprintln!("{report:?}");
}

#[test]
fn a_seed_repeats_exactly() {
    let settings = Settings {
        changes: 10,
        ..Settings::rough(3)
    };
    for_seeds(0..5, |seed| {
        let [first, second] = [(); 2].map(|()| run::<Register>(seed, &settings).unwrap());
        assert_eq!(first, second);
    });
}

/// How many seeds it takes until a run with these settings is found wrong.
fn seeds_until_noticed(settings: &Settings) -> Option<u64> {
    (0..200).find(|seed| {
        // raft-rs notices some things by panicking.
        let run = catch_unwind(AssertUnwindSafe(|| run::<Register>(*seed, settings)));
        match run {
            Ok(Err(why)) => {
                eprintln!("{why}");
                true
            }
            Ok(Ok(_)) => false,
            Err(_) => true,
        }
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
        let seeds = seeds_until_noticed(&settings);
        eprintln!("{lie:?}: {seeds:?}");
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
        let seeds = seeds_until_noticed(&settings);
        eprintln!("{error:?}: {seeds:?}");
    }
}
