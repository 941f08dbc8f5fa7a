//! The audit trail: who did what, in a chain that no hand can change unseen.

use super::*;
use crate::state::AUDIT_MAX;
use crate::state::rows::Audited;

type Tamper = fn(&mut Audited);

fn trail(bench: &Bench) -> Vec<String> {
    bench
        .state
        .audit()
        .values()
        .map(|entry| format!("{}: {} {} ({})", entry.actor, entry.action, entry.object, entry.outcome))
        .collect()
}

fn newest(bench: &Bench) -> String {
    trail(bench).pop().unwrap()
}

#[test]
fn every_change_of_a_person_is_in_the_trail_refused_ones_too() {
    let (mut bench, _) = Bench::with_points(1);
    bench.does(Command::Hold {
        point: point_id(1),
        reason: String::from("legal"),
    });
    assert_eq!(
        newest(&bench),
        format!(
            "local user 0: hold point point {} of item web: legal (done)",
            point_id(1)
        )
    );
    let refused = Command::HidePoints {
        points: vec![point_id(1)],
        by_retention: false,
    };
    bench.refuses(PERSON, refused);
    assert_eq!(
        newest(&bench),
        format!(
            "local user 0: remove points 1: point {} of item web (refused: held)",
            point_id(1)
        )
    );
}

#[test]
fn what_the_cluster_hides_gives_up_or_restores_is_in_the_trail_and_its_routine_is_not() {
    let (mut bench, worker) = Bench::with_points(2);
    let before = bench.state.audit().len();
    bench.back_up(ITEM, worker, point_id(3));
    assert_eq!(
        bench.state.audit().len(),
        before,
        "backups of a schedule are in the jobs"
    );
    bench.hide(&[point_id(1)], true);
    bench.pass(7 * DAY);
    bench.give_up(&[point_id(1)]);
    bench.queue(restore_of(point_id(2), "w1", "/drill"));
    bench.by(Actor::Cluster, Command::StopExpiry { step: HOUR });
    let actions: Vec<&str> = bench
        .state
        .audit()
        .values()
        .skip(before)
        .map(|entry| entry.action.as_str())
        .collect();
    assert_eq!(
        actions,
        ["remove points", "give up points", "start restore", "stop expiry"]
    );
}

#[test]
fn an_entry_about_many_points_says_how_many() {
    let (mut bench, _) = Bench::ready();
    let points: Vec<PointId> = (0..5000).map(point_id).collect();
    bench.by(Actor::Cluster, Command::GiveUpPoints { points });
    let entry = bench.state.audit().last().unwrap().1;
    assert!(entry.object.starts_with("5000: point aaaa"), "{}", entry.object);
    assert_eq!(entry.object.len(), 512);
    assert_eq!(entry.outcome, "done: 0");
}

#[test]
fn the_chain_verifies_and_every_tampering_breaks_it() {
    let (mut bench, _) = Bench::with_points(1);
    for number in 0..5 {
        bench.does(Command::Note {
            action: String::from("look"),
            object: number.to_string(),
        });
    }
    bench.state.verify_audit().unwrap();
    let first = *bench.state.audit().first().unwrap().0;
    let last = *bench.state.audit().last().unwrap().0;
    assert_eq!(first, 0);
    let tamper: [(&str, Tamper); 8] = [
        ("time", |entry| entry.time = entry.time.plus(1)),
        ("actor", |entry| entry.actor = Actor::Local { uid: 1 }),
        ("actor's kind", |entry| entry.actor = Actor::Cluster),
        ("action", |entry| entry.action.push('x')),
        ("object", |entry| entry.object.push('x')),
        ("outcome", |entry| entry.outcome = String::from("refused: held")),
        ("hash", |entry| entry.hash[31] ^= 1),
        ("previous", |entry| entry.previous[0] ^= 1),
    ];
    for seq in first..=last {
        for (what, change) in tamper {
            let mut state = bench.state.clone();
            change(state.audit.get_mut(&seq).unwrap());
            let broken = state.verify_audit().unwrap_err();
            assert_eq!(broken.seq, seq, "{what}");
        }
        let mut state = bench.state.clone();
        state.audit.remove(&seq);
        state.verify_audit().unwrap_err();
        // A text that wanders from one field to the next.
        let mut state = bench.state.clone();
        let entry = state.audit.get_mut(&seq).unwrap();
        let letter = entry.action.pop().unwrap();
        entry.object.insert(0, letter);
        assert_eq!(state.verify_audit().unwrap_err().seq, seq);
    }
    // Two entries change places; the newest is dropped and the head is set back; all of it is dropped; one is added.
    let mut state = bench.state.clone();
    let (one, two) = (state.audit.remove(&2).unwrap(), state.audit.remove(&3).unwrap());
    state.audit.insert(2, two);
    state.audit.insert(3, one);
    assert_eq!(state.verify_audit().unwrap_err().seq, 2);
    let mut state = bench.state.clone();
    let newest = state.audit.remove(&last).unwrap();
    state.clock.audit_head = newest.previous;
    state.verify_audit().unwrap_err();
    let mut state = bench.state.clone();
    for seq in first..=last {
        state.audit.remove(&seq);
    }
    state.verify_audit().unwrap_err();
    let mut state = bench.state.clone();
    state.audit.insert(last + 1, newest);
    state.verify_audit().unwrap_err();
}

#[test]
fn the_trail_is_bounded_and_its_chain_begins_at_the_oldest_that_is_kept() {
    let mut bench = Bench::founded();
    let note = Command::Note {
        action: String::from("look"),
        object: String::new(),
    };
    for _ in 0..AUDIT_MAX + 5 {
        bench.does(note.clone());
    }
    assert_eq!(bench.state.audit().len(), AUDIT_MAX);
    assert_eq!(*bench.state.audit().first().unwrap().0, 6);
    bench.state.verify_audit().unwrap();
    let mut state = bench.state.clone();
    state.audit.remove(&6);
    state.verify_audit().unwrap_err();
    let mut state = bench.state.clone();
    state.audit.get_mut(&6).unwrap().previous[0] ^= 1;
    assert_eq!(state.verify_audit().unwrap_err().seq, 6);
}
