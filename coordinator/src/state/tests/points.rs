//! Points: hidden, shown again, held, given up, adopted.

use super::*;

fn hold(point: PointId) -> Command {
    Command::Hold {
        point,
        reason: String::from("legal"),
    }
}

fn adopted(number: u64, item: ItemId) -> AdoptedPoint {
    AdoptedPoint {
        point: point_id(number),
        item,
        item_name: String::from("old-web"),
        time: Time(START - 30 * DAY),
        keep_until: None,
        manifest: [8; 32],
        consistency: Consistency::Crash,
        hidden: None,
    }
}

fn adopt(points: &[AdoptedPoint]) -> Command {
    Command::AdoptPoints {
        vault: VAULT,
        points: points.to_vec(),
    }
}

#[test]
fn a_hidden_point_is_shown_again_until_it_is_given_up() {
    let (mut bench, _) = Bench::with_points(2);
    assert_eq!(bench.hide(&[point_id(2)], false), Reply::Changed(1));
    assert_eq!(bench.state.newest_point(ITEM), Some(point_id(1)));
    bench.does(Command::ShowPoint { point: point_id(2) });
    assert_eq!(bench.state.newest_point(ITEM), Some(point_id(2)));
    assert!(matches!(
        bench.refuses(PERSON, Command::ShowPoint { point: point_id(2) }),
        Refusal::Held { .. }
    ));
    bench.hide(&[point_id(2)], false);
    bench.pass(7 * DAY - 1);
    assert_eq!(bench.give_up(&[point_id(2)]), Reply::Changed(0));
    bench.pass(1);
    assert_eq!(bench.give_up(&[point_id(2)]), Reply::Changed(1));
    assert!(bench.state.given_up().contains(&point_id(2)));
    for command in [
        Command::ShowPoint { point: point_id(2) },
        hold(point_id(2)),
        Command::Release { point: point_id(2) },
    ] {
        assert!(matches!(bench.refuses(PERSON, command), Refusal::Missing { .. }));
    }
}

#[test]
fn hiding_again_does_not_begin_the_time_anew() {
    let (mut bench, _) = Bench::with_points(2);
    bench.hide(&[point_id(1)], false);
    bench.pass(6 * DAY);
    assert_eq!(bench.hide(&[point_id(1)], false), Reply::Changed(0));
    bench.pass(DAY);
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(1));
}

#[test]
fn a_pinned_point_can_be_hidden_and_is_not_given_up() {
    let (mut bench, worker) = Bench::with_points(1);
    let leased = bench.start_backup(ITEM, worker);
    assert_eq!(bench.hide(&[point_id(1)], false), Reply::Changed(1));
    bench.pass(30 * DAY);
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(0));
    assert!(bench.state.points().contains(&point_id(1)));
    // Two sessions hold it; the end of one is not the end of both.
    let job = bench.queue(restore_of(point_id(1), "w1", "/restored"));
    let restore = bench.lease(job, worker);
    bench.commit(leased, committed(&bench.state, point_id(2))).unwrap();
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(0));
    bench.completes(restore, Outcome::Done { counts: counts(0) });
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(1));
}

#[test]
fn retention_hides_neither_the_newest_nor_the_held_nor_what_is_kept() {
    let (mut bench, worker) = Bench::with_points(1);
    let job = bench.queue(JobSpec {
        work: Work::Backup {
            item: ITEM,
            keep_until: Some(bench.now.plus(30 * DAY)),
        },
        ..backup_of(ITEM)
    });
    let leased = bench.lease(job, worker);
    bench.pass(SECOND);
    let kept = CommittedPoint {
        time: bench.now,
        ..committed(&bench.state, point_id(2))
    };
    bench.commit(leased, kept).unwrap();
    for number in 3..=5 {
        bench.back_up(ITEM, worker, point_id(number));
    }
    bench.does(hold(point_id(3)));
    let all: Vec<PointId> = (1..=5).rev().map(point_id).collect();
    let visible = |bench: &Bench| {
        (1..=5)
            .filter(|number| bench.is_visible(point_id(*number)))
            .collect::<Vec<_>>()
    };
    assert_eq!(bench.hide(&all, true), Reply::Changed(2));
    assert_eq!(visible(&bench), [2, 3, 5]);
    bench.pass(30 * DAY);
    assert_eq!(bench.hide(&all, true), Reply::Changed(1));
    assert_eq!(visible(&bench), [3, 5]);
    bench.does(Command::Release { point: point_id(3) });
    assert_eq!(bench.hide(&all, true), Reply::Changed(1));
    assert_eq!(bench.hide(&all, true), Reply::Changed(0));
    assert_eq!(visible(&bench), [5]);
}

#[test]
fn retention_leaves_the_newest_visible_point_where_a_person_hid_the_newest() {
    let (mut bench, _) = Bench::with_points(3);
    bench.hide(&[point_id(3)], false);
    let all: Vec<PointId> = (1..=3).map(point_id).collect();
    assert_eq!(bench.hide(&all, true), Reply::Changed(1));
    assert_eq!(bench.state.newest_point(ITEM), Some(point_id(2)));
}

#[test]
fn a_person_can_hide_what_retention_keeps_but_not_what_is_held() {
    let (mut bench, _) = Bench::with_points(2);
    bench.does(hold(point_id(1)));
    let hide = |points: &[PointId]| Command::HidePoints {
        points: points.to_vec(),
        by_retention: false,
    };
    let refusal = bench.refuses(PERSON, hide(&[point_id(2), point_id(1)]));
    assert!(refusal.to_string().contains("is held (legal)"), "{refusal}");
    bench.refuses(PERSON, hide(&[point_id(2), point_id(9)]));
    assert!(bench.is_visible(point_id(2)), "all or none");
    assert_eq!(bench.hide(&[point_id(2)], false), Reply::Changed(1));
}

#[test]
fn a_held_point_is_not_given_up_however_long_it_was_hidden() {
    let (mut bench, _) = Bench::with_points(2);
    bench.hide(&[point_id(1)], false);
    bench.does(hold(point_id(1)));
    bench.pass(30 * DAY);
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(0));
    bench.does(Command::Release { point: point_id(1) });
    assert!(matches!(
        bench.refuses(PERSON, Command::Release { point: point_id(1) }),
        Refusal::Held { .. }
    ));
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(1));
}

#[test]
fn a_visible_point_is_never_given_up() {
    let (mut bench, _) = Bench::with_points(2);
    bench.pass(365 * DAY);
    assert_eq!(
        bench.give_up(&[point_id(1), point_id(2), point_id(9)]),
        Reply::Changed(0)
    );
}

#[test]
fn points_of_an_item_are_listed_newest_first_hidden_ones_too() {
    let (mut bench, worker) = Bench::with_points(3);
    bench.protect(item_id(2), "db");
    bench.back_up(item_id(2), worker, point_id(50));
    bench.hide(&[point_id(3)], false);
    assert_eq!(
        bench.state.points_of(ITEM).collect::<Vec<_>>(),
        [point_id(3), point_id(2), point_id(1)]
    );
    assert_eq!(bench.state.points_of(item_id(2)).collect::<Vec<_>>(), [point_id(50)]);
    assert_eq!(bench.state.points_of(item_id(3)).count(), 0);
}

#[test]
fn adopted_points_belong_to_an_item_that_nobody_protects_and_nothing_expires() {
    let (mut bench, _) = Bench::with_points(1);
    let item = item_id(40);
    let reply = bench.does(adopt(&[adopted(1, item), adopted(41, item), adopted(42, item)]));
    assert_eq!(reply, Reply::Changed(2), "what is there stays as it is");
    let row = bench.state.items().get(&item).unwrap();
    assert_eq!(
        (row.spec.name.as_str(), row.protected, row.spec.policy),
        ("old-web", false, None)
    );
    assert_eq!(bench.state.points_of(item).count(), 2);
    assert_eq!(bench.state.points().get(&point_id(1)).unwrap().item, ITEM);
    // And is backed up again where it was, once somebody protects it.
    let reply = bench.does(Command::Protect {
        item: item_id(41),
        spec: item_spec("old-web", VAULT),
        also: false,
    });
    assert_eq!(reply, Reply::Item(item));
}

#[test]
fn what_was_given_up_is_not_adopted() {
    let (mut bench, _) = Bench::with_points(2);
    bench.hide(&[point_id(1)], false);
    bench.pass(7 * DAY);
    bench.give_up(&[point_id(1)]);
    assert_eq!(bench.does(adopt(&[adopted(1, ITEM)])), Reply::Changed(0));
    assert!(!bench.state.points().contains(&point_id(1)));
}

#[test]
fn a_point_that_names_an_item_of_another_vault_is_not_adopted() {
    let (mut bench, worker) = Bench::with_points(1);
    let other = VaultId([8; 16]);
    bench.vault(other, "archive", worker);
    let reply = bench.does(Command::AdoptPoints {
        vault: other,
        points: vec![adopted(41, ITEM)],
    });
    assert_eq!(reply, Reply::Changed(0));
}

#[test]
fn times_of_another_clock_are_not_believed_further_than_now() {
    let (mut bench, _) = Bench::ready();
    let item = item_id(40);
    let ahead = AdoptedPoint {
        time: Time(START + 365 * DAY),
        ..adopted(41, item)
    };
    let long_hidden = AdoptedPoint {
        hidden: Some(Time(START - 365 * DAY)),
        ..adopted(42, item)
    };
    bench.does(adopt(&[ahead, long_hidden]));
    assert_eq!(bench.state.points().get(&point_id(41)).unwrap().time, bench.now);
    // It can be shown again for as long as any other.
    bench.pass(7 * DAY - 1);
    assert_eq!(bench.give_up(&[point_id(42)]), Reply::Changed(0));
    bench.pass(1);
    assert_eq!(bench.give_up(&[point_id(42)]), Reply::Changed(1));
}

#[test]
fn a_name_that_cannot_be_one_keeps_no_point_out() {
    let (mut bench, _) = Bench::ready();
    let named = |number: u64, name: &str| AdoptedPoint {
        item_name: name.to_owned(),
        ..adopted(number, item_id(number))
    };
    bench.does(adopt(&[
        named(1, ""),
        named(2, "a\nb\u{7f}c"),
        named(3, &"ü".repeat(300)),
    ]));
    let name = |number: u64| bench.state.items().get(&item_id(number)).unwrap().spec.name.clone();
    assert_eq!(name(1), item_id(1).to_string());
    assert_eq!(name(2), "abc");
    assert_eq!(name(3), "ü".repeat(127));
}

#[test]
fn more_points_than_fit_an_entry_are_refused() {
    let (mut bench, _) = Bench::ready();
    let many: Vec<PointId> = (0..10_001).map(point_id).collect();
    let commands = [
        Command::HidePoints {
            points: many.clone(),
            by_retention: true,
        },
        Command::GiveUpPoints { points: many.clone() },
        Command::ReportFindings {
            vault: VAULT,
            harmed: many.clone(),
        },
        adopt(&many.iter().map(|_| adopted(1, ITEM)).collect::<Vec<_>>()),
    ];
    for command in commands {
        assert!(matches!(
            bench.refuses(Actor::Cluster, command),
            Refusal::Invalid { .. }
        ));
    }
    assert_eq!(bench.hide(&many[1..], true), Reply::Changed(0));
}

#[test]
fn a_restore_or_verify_that_waits_for_a_point_that_is_given_up_fails_and_says_why() {
    let (mut bench, worker) = Bench::with_points(3);
    let restore = bench.queue(restore_of(point_id(1), "w1", "/restored"));
    let verify = bench.queue(verify_of(Some(point_id(1))));
    let other = bench.queue(verify_of(Some(point_id(2))));
    let whole = bench.queue(verify_of(None));
    bench.hide(&[point_id(1)], false);
    bench.pass(8 * DAY);
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(1));
    for job in [restore, verify] {
        let row = bench.state.jobs().get(&job).unwrap();
        assert_eq!(row.state, JobState::Failed);
        let failure = row.failure.as_ref().unwrap();
        assert_eq!(failure.kind, FailureKind::Missing);
        assert_eq!(failure.message, format!("point {} is gone", point_id(1)));
    }
    bench.lease(other, worker);
    assert!(matches!(bench.job_state(whole), JobState::Queued { .. }));
    // One that runs holds its point.
    bench.hide(&[point_id(2)], false);
    bench.pass(8 * DAY);
    assert_eq!(bench.give_up(&[point_id(2)]), Reply::Changed(0));
    assert_eq!(bench.job_state(other), JobState::Leased);
}
