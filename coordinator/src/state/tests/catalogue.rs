//! Catalogues: behind what changed since they began.

use super::*;

fn is_behind(bench: &Bench) -> bool {
    bench.state.vaults().get(&VAULT).unwrap().catalogue_is_behind()
}

fn put(bench: &mut Bench, worker: WorkerId) {
    let job = bench.queue(catalogue());
    let leased = bench.lease(job, worker);
    bench.completes(leased, Outcome::Done { counts: counts(5) });
}

#[test]
fn a_catalogue_says_what_held_when_it_began() {
    let (mut bench, worker) = Bench::with_points(1);
    assert!(is_behind(&bench));
    let job = bench.queue(catalogue());
    let leased = bench.lease(job, worker);
    bench.completes(leased, Outcome::Done { counts: counts(5) });
    assert!(!is_behind(&bench));
    let row = bench.state.vaults().get(&VAULT).unwrap();
    assert_eq!(row.catalogue, Some((bench.now, leased.session)));
}

#[test]
fn what_changes_while_a_catalogue_is_put_may_not_be_in_it() {
    let (mut bench, worker) = Bench::with_points(2);
    let job = bench.queue(catalogue());
    let leased = bench.lease(job, worker);
    bench.hide(&[point_id(1)], false);
    bench.completes(leased, Outcome::Done { counts: counts(5) });
    assert!(is_behind(&bench));
    put(&mut bench, worker);
    assert!(!is_behind(&bench));
}

#[test]
fn whatever_a_catalogue_is_to_say_makes_it_fall_behind_and_nothing_else_does() {
    let (mut bench, worker) = Bench::with_points(3);
    let spec = |name: &str| item_spec(name, VAULT);
    let adopted = AdoptedPoint {
        point: point_id(40),
        item: item_id(40),
        item_name: String::from("old"),
        time: Time(0),
        keep_until: None,
        manifest: [0; 32],
        consistency: Consistency::Crash,
        hidden: None,
    };
    let adopt = |points| Command::AdoptPoints { vault: VAULT, points };
    let changes = [
        (
            true,
            Command::HidePoints {
                points: vec![point_id(1)],
                by_retention: false,
            },
        ),
        (
            false,
            Command::HidePoints {
                points: vec![point_id(1)],
                by_retention: false,
            },
        ),
        (true, Command::ShowPoint { point: point_id(1) }),
        (
            true,
            Command::Hold {
                point: point_id(1),
                reason: String::from("legal"),
            },
        ),
        (true, Command::Release { point: point_id(1) }),
        (
            true,
            Command::Protect {
                item: item_id(1),
                spec: spec("db"),
                also: false,
            },
        ),
        (
            true,
            Command::UpdateItem {
                version: 0,
                item: item_id(1),
                spec: spec("sql"),
            },
        ),
        (true, Command::Unprotect { item: item_id(1) }),
        (true, adopt(vec![adopted.clone()])),
        (false, adopt(vec![adopted])),
        (false, adopt(Vec::new())),
        (
            false,
            Command::GiveUpPoints {
                points: vec![point_id(1)],
            },
        ),
        (false, Command::Enqueue(verify_of(None))),
        // A cluster that begins again from it must not count a damaged point as whole.
        (
            true,
            Command::ReportFindings {
                vault: VAULT,
                harmed: vec![point_id(1)],
            },
        ),
        // Nor keep points by a retention that holds no more.
        (
            true,
            Command::UpdatePolicy {
                policy: POLICY,
                version: 0,
                spec: policy_spec("weekly"),
            },
        ),
    ];
    for (behind, command) in changes {
        put(&mut bench, worker);
        let asked = format!("{command:?}");
        bench.does(command);
        assert_eq!(is_behind(&bench), behind, "{asked}");
    }
    bench.hide(&[point_id(1)], false);
    bench.pass(7 * DAY);
    put(&mut bench, worker);
    bench.give_up(&[point_id(1)]);
    assert!(is_behind(&bench));
    put(&mut bench, worker);
    bench.back_up(ITEM, worker, point_id(9));
    assert!(is_behind(&bench));
}

#[test]
fn catalogues_of_two_vaults_fall_behind_apart() {
    let (mut bench, worker) = Bench::with_points(1);
    let other = VaultId([8; 16]);
    bench.vault(other, "archive", worker);
    assert!(
        bench.state.vaults().get(&other).unwrap().catalogue_is_behind(),
        "it has none yet"
    );
    put(&mut bench, worker);
    assert!(!is_behind(&bench));
    assert!(bench.state.vaults().get(&other).unwrap().catalogue_is_behind());
}
