//! Answers: a change sent again is made once.

use super::*;
use crate::state::{ANSWERS_MAX, ANSWERS_MS};

const KEY: IdempotencyKey = [0x11; 16];

fn number_of_jobs(bench: &Bench) -> usize {
    bench.state.jobs().len()
}

#[test]
fn a_change_sent_again_is_made_once_and_answered_the_same() {
    let (mut bench, _) = Bench::with_points(1);
    let ask = |bench: &mut Bench, key| bench.ask_under(Some(key), PERSON, Command::Enqueue(verify_of(None)));
    let first = ask(&mut bench, KEY);
    let audited = bench.state.audit().len();
    let jobs = number_of_jobs(&bench);
    bench.pass(HOUR);
    assert_eq!(ask(&mut bench, KEY), first);
    // After a restart too.
    bench.state = State::load(bench.stored().collect::<Vec<_>>()).unwrap();
    assert_eq!(ask(&mut bench, KEY), first);
    assert_eq!(number_of_jobs(&bench), jobs);
    assert_eq!(bench.state.audit().len(), audited, "it was done once");
    assert_eq!(bench.state.now(), bench.now, "the clock goes on");
    assert_ne!(ask(&mut bench, [0x12; 16]), first);
    assert_eq!(number_of_jobs(&bench), jobs + 1);
}

#[test]
fn a_refusal_does_not_outlive_its_cause() {
    let mut bench = Bench::founded();
    let worker = bench.worker("w1", 1);
    let job = JobId(bench.made(PERSON, Command::AddVault(vault_spec(VAULT, "main"))));
    let verify = Command::Enqueue(verify_of(None));
    let refused = bench.ask_under(Some(KEY), PERSON, verify.clone());
    assert!(matches!(refused, Reply::Refused(_)));
    assert_eq!(bench.state.audit().last().unwrap().1.outcome, "refused: held");
    let leased = bench.lease(job, worker);
    bench.completes(leased, Outcome::Claimed(claim(1)));
    let made = bench.ask_under(Some(KEY), PERSON, verify.clone());
    assert!(matches!(made, Reply::Made(_)), "{made:?}");
    assert_eq!(bench.ask_under(Some(KEY), PERSON, verify), made);
}

#[test]
fn a_key_counts_for_one_kind_of_change() {
    let (mut bench, _) = Bench::ready();
    // One request of a client: make the item, and back it up.
    let protect = Command::Protect {
        item: item_id(1),
        spec: item_spec("db", VAULT),
        also: false,
    };
    for _ in 0..2 {
        let item = bench.ask_under(Some(KEY), PERSON, protect.clone());
        assert_eq!(item, Reply::Item(item_id(1)));
        let job = bench.ask_under(Some(KEY), PERSON, Command::Enqueue(backup_of(item_id(1))));
        assert!(matches!(job, Reply::Made(_)));
    }
    let job = bench.state.open_backup(item_id(1)).unwrap();
    assert!(job.0 < bench.index - 1, "it was queued by the first request");
}

#[test]
fn answers_are_forgotten_after_a_day() {
    let (mut bench, _) = Bench::ready();
    let ask = |bench: &mut Bench, key| bench.ask_under(Some(key), PERSON, Command::Enqueue(verify_of(None)));
    let first = ask(&mut bench, KEY);
    bench.pass(ANSWERS_MS - 1);
    // What is remembered last makes others be forgotten.
    ask(&mut bench, [1; 16]);
    assert_eq!(ask(&mut bench, KEY), first);
    bench.pass(1);
    ask(&mut bench, [2; 16]);
    assert_ne!(ask(&mut bench, KEY), first);
}

#[test]
fn no_more_answers_are_remembered_than_fit_and_the_oldest_go_first() {
    let mut bench = Bench::founded();
    let note = Command::Note {
        action: String::new(),
        object: String::new(),
    };
    let key = |number: usize| {
        let mut key = KEY;
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Some(key)
    };
    for number in 0..ANSWERS_MAX + 10 {
        bench.ask_under(key(number), Actor::Cluster, note.clone());
    }
    assert_eq!(bench.state.answers.len(), ANSWERS_MAX);
    assert_eq!(bench.state.views.answers.len(), ANSWERS_MAX);
    let remembered = |number: usize| bench.state.remembered(key(number).unwrap(), &note).is_some();
    assert!(!remembered(9) && remembered(10) && remembered(ANSWERS_MAX + 9));
    bench.state.check_invariants(bench.index).unwrap();
}
