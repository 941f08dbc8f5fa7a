//! Limits are set rule by rule, and go with what they are of.

use super::*;
use crate::state::limits::{LIMITS_MAX, LimitRates, LimitRule, LimitSubject};

fn store(url: &str) -> LimitSubject {
    LimitSubject::Store(url.to_owned())
}

fn rule(windows: &[&str], upload: u64) -> LimitRule {
    LimitRule {
        windows: windows.iter().map(|window| (*window).to_owned()).collect(),
        zone: String::from("Europe/Berlin"),
        rates: LimitRates {
            upload: Some(upload),
            ..LimitRates::default()
        },
    }
}

fn set(subject: LimitSubject, rule: LimitRule) -> Command {
    Command::SetLimit { subject, rule }
}

#[test]
fn a_rule_replaces_the_one_of_the_same_hours_and_no_other() {
    let mut bench = Bench::founded();
    let main = store("s3://main");
    bench.does(set(main.clone(), rule(&[], 5000)));
    bench.does(set(main.clone(), rule(&["mon-fri 08:00-18:00"], 2000)));
    bench.does(set(main.clone(), rule(&[], 9000)));
    let rules = bench.state.limits().get(&main).unwrap().rules.clone();
    assert_eq!(rules, [rule(&[], 9000), rule(&["mon-fri 08:00-18:00"], 2000)]);
    bench.does(Command::RemoveLimit {
        subject: main.clone(),
        windows: Some(Vec::new()),
    });
    assert_eq!(bench.state.limits().get(&main).unwrap().rules.len(), 1);
    bench.does(Command::RemoveLimit {
        subject: main.clone(),
        windows: None,
    });
    assert!(bench.state.limits().is_empty());
    bench.refuses(
        PERSON,
        Command::RemoveLimit {
            subject: main,
            windows: None,
        },
    );
}

#[test]
fn what_limits_nothing_or_stops_everything_is_refused_by_its_field() {
    let mut bench = Bench::founded();
    let field = |bench: &mut Bench, rates: LimitRates| {
        let wrong = LimitRule {
            rates,
            ..LimitRule::default()
        };
        match bench.refuses(PERSON, set(store("s3://main"), wrong)) {
            Refusal::Invalid { field, .. } => field,
            other => panic!("{other}"),
        }
    };
    let none = LimitRates::default();
    assert_eq!(field(&mut bench, none), "rates");
    assert_eq!(
        field(
            &mut bench,
            LimitRates {
                upload: Some(999),
                ..none
            }
        ),
        "upload"
    );
    assert_eq!(
        field(
            &mut bench,
            LimitRates {
                download: Some(0),
                ..none
            }
        ),
        "download"
    );
    assert_eq!(
        field(
            &mut bench,
            LimitRates {
                requests: Some(0),
                ..none
            }
        ),
        "requests"
    );
    assert_eq!(
        field(
            &mut bench,
            LimitRates {
                concurrency: Some(0),
                ..none
            }
        ),
        "concurrency"
    );
}

#[test]
fn a_limit_is_of_something_that_is_there_and_goes_with_it() {
    let (mut bench, worker) = Bench::ready();
    for nobody in [LimitSubject::Worker(WorkerId(99)), LimitSubject::Job(JobId(99))] {
        bench.refuses(PERSON, set(nobody, rule(&[], 5000)));
    }
    let leased = bench.start_backup(ITEM, worker);
    let (of_job, of_worker) = (LimitSubject::Job(leased.job), LimitSubject::Worker(worker));
    bench.does(set(of_job.clone(), rule(&[], 5000)));
    bench.does(set(of_worker.clone(), rule(&[], 5000)));
    bench.by(PERSON, Command::Cancel { job: leased.job });
    bench.by(
        Actor::Worker(worker),
        Command::Fail {
            job: leased.job,
            epoch: leased.epoch,
            failure: failure(FailureKind::Cancelled),
            retry_at: None,
        },
    );
    assert!(!bench.state.limits().contains(&of_job));
    bench.refuses(PERSON, set(of_job, rule(&[], 5000)));
    bench.does(Command::RemoveWorker { worker });
    assert!(!bench.state.limits().contains(&of_worker));
}

#[test]
fn limits_are_bounded() {
    let mut bench = Bench::founded();
    for number in 0..LIMITS_MAX {
        bench.does(set(LimitSubject::Host(format!("host-{number}")), rule(&[], 5000)));
    }
    bench.refuses(
        PERSON,
        set(LimitSubject::Host(String::from("one more")), rule(&[], 5000)),
    );
    bench.does(set(LimitSubject::Host(String::from("host-0")), rule(&[], 6000)));
}

#[test]
fn a_store_is_what_lies_below_its_url() {
    let bucket = store("s3://bucket/a");
    for (url, is) in [
        ("s3://bucket/a", true),
        ("s3://bucket/a/b", true),
        ("s3://bucket/ab", false),
        ("s3://bucket", false),
    ] {
        assert_eq!(bucket.has_store(url), is, "{url}");
    }
    use crate::state::table::RowKey as _;
    for subject in [bucket, LimitSubject::Worker(WorkerId(7)), LimitSubject::Job(JobId(9))] {
        assert_eq!(LimitSubject::from_bytes(&subject.to_bytes()), Some(subject));
    }
}
