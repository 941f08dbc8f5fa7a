//! The clock, the versions, and what stops when a clock has stepped.

use super::*;

#[test]
fn the_clock_never_goes_back() {
    let mut bench = Bench::founded();
    bench.pass(HOUR);
    bench.does(Command::StopExpiry { step: 0 });
    let newest = bench.now;
    bench.now = Time(START - DAY);
    bench.does(Command::CreatePolicy {
        policy: POLICY,
        spec: policy_spec("nightly"),
    });
    assert_eq!(bench.state.now(), newest);
    assert_eq!(bench.state.policies().get(&POLICY).unwrap().since, newest);
    // Refusals and repeated changes carry stamps as well.
    bench.now = newest.plus(HOUR);
    bench.refuses(PERSON, Command::Found(founding()));
    assert_eq!(bench.state.now(), bench.now);
    let loaded = State::load(bench.stored().collect::<Vec<_>>()).unwrap();
    assert_eq!(loaded.now(), bench.now);
}

#[test]
fn nothing_expires_after_a_step_until_a_person_has_looked() {
    let (mut bench, _) = Bench::with_points(3);
    bench.hide(&[point_id(1)], false);
    bench.pass(30 * DAY);
    let retention = Command::HidePoints {
        points: vec![point_id(2)],
        by_retention: true,
    };
    let give_up = Command::GiveUpPoints {
        points: vec![point_id(1)],
    };
    bench.by(Actor::Cluster, Command::StopExpiry { step: 2 * HOUR });
    // A second step does not hide the first.
    bench.by(Actor::Cluster, Command::StopExpiry { step: -3 * HOUR });
    assert_eq!(bench.state.marks().expiry_stopped, Some(2 * HOUR));
    for command in [&retention, &give_up] {
        let refusal = bench.refuses(Actor::Cluster, command.clone());
        assert!(matches!(refusal, Refusal::Held { .. }), "{refusal}");
    }
    // A person may still hide what they name.
    bench.hide(&[point_id(2)], false);
    bench.does(Command::ShowPoint { point: point_id(2) });
    for actor in [Actor::Cluster, Actor::Member(MemberId(1))] {
        let refusal = bench.refuses(actor, Command::ConfirmClock);
        assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    }
    bench.does(Command::ConfirmClock);
    for command in [retention, give_up] {
        assert_eq!(bench.by(Actor::Cluster, command), Reply::Changed(1));
    }
    assert!(matches!(
        bench.refuses(PERSON, Command::ConfirmClock),
        Refusal::Held { .. }
    ));
}

#[test]
fn forms_are_raised_one_by_one_whatever_this_program_knows() {
    let mut bench = Bench::founded();
    assert_eq!(bench.state.marks().form, 1);
    for to in [3, u16::MAX] {
        let refusal = bench.refuses(Actor::Cluster, Command::RaiseVersion { to });
        assert!(matches!(refusal, Refusal::Invalid { .. }), "{refusal}");
    }
    for to in [0, 1] {
        bench.by(Actor::Cluster, Command::RaiseVersion { to });
        assert_eq!(bench.state.marks().form, 1);
    }
    // A member of an older program answers as one of a newer one; it stops where it meets the form.
    for to in 2..=4 {
        bench.by(Actor::Cluster, Command::RaiseVersion { to });
        assert_eq!(bench.state.marks().form, to);
    }
}
