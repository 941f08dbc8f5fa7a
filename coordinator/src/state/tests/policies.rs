//! Policies: changed by who has read them, removed when nobody has them.

use super::*;

fn update(version: u64, spec: PolicySpec) -> Command {
    Command::UpdatePolicy {
        policy: POLICY,
        version,
        spec,
    }
}

#[test]
fn a_policy_is_changed_by_who_has_read_its_newest_version() {
    let (mut bench, _) = Bench::ready();
    let read = bench.state.policies().get(&POLICY).unwrap().version;
    let spec = PolicySpec {
        retention: String::from("daily 14"),
        ..policy_spec("nightly")
    };
    let version = bench.made(PERSON, update(read, spec.clone()));
    assert_eq!(bench.state.policies().get(&POLICY).unwrap().version, version);
    assert!(matches!(
        bench.refuses(PERSON, update(read, policy_spec("nightly"))),
        Refusal::Fenced { .. }
    ));
    assert_eq!(bench.state.policies().get(&POLICY).unwrap().spec, spec);
    bench.does(update(0, policy_spec("nightly")));
}

#[test]
fn occurrences_of_a_new_schedule_that_lie_before_it_were_never_missed() {
    let (mut bench, _) = Bench::ready();
    let first = bench.now;
    bench.pass(HOUR);
    bench.does(update(
        0,
        PolicySpec {
            retention: String::from("daily 14"),
            priority: 5,
            ..policy_spec("nightly")
        },
    ));
    assert_eq!(bench.state.due_since(ITEM), Some(first), "the schedule is as before");
    for change in [
        PolicySpec {
            schedule: String::from("hourly"),
            ..policy_spec("nightly")
        },
        PolicySpec {
            zone: String::from("UTC"),
            ..policy_spec("nightly")
        },
    ] {
        bench.pass(HOUR);
        bench.does(update(0, change));
        assert_eq!(bench.state.due_since(ITEM), Some(bench.now));
        assert_eq!(
            bench.state.items().get(&ITEM).unwrap().since,
            first,
            "no item was written"
        );
    }
    // An item that gets the policy later starts later.
    bench.pass(HOUR);
    bench.protect(item_id(1), "db");
    assert_eq!(bench.state.due_since(item_id(1)), Some(bench.now));
}

#[test]
fn names_of_policies_are_each_one_policys() {
    let (mut bench, _) = Bench::ready();
    let other = PolicyId([6; 16]);
    let create = |policy, name: &str| Command::CreatePolicy {
        policy,
        spec: policy_spec(name),
    };
    assert!(matches!(
        bench.refuses(PERSON, create(other, "nightly")),
        Refusal::Exists { .. }
    ));
    assert!(matches!(
        bench.refuses(PERSON, create(POLICY, "hourly")),
        Refusal::Exists { .. }
    ));
    bench.does(create(other, "hourly"));
    assert!(matches!(
        bench.refuses(PERSON, update(0, policy_spec("hourly"))),
        Refusal::Exists { .. }
    ));
    bench.does(update(0, policy_spec("daily")));
    assert_eq!(bench.state.policy_named("daily"), Some(POLICY));
    assert_eq!(bench.state.policy_named("nightly"), None);
}

#[test]
fn a_policy_that_items_have_is_not_removed() {
    let (mut bench, _) = Bench::ready();
    let remove = Command::RemovePolicy { policy: POLICY };
    let refusal = bench.refuses(PERSON, remove.clone());
    assert_eq!(
        refusal.to_string(),
        "policy nightly is that of 1 items: give them another one first"
    );
    bench.does(Command::Unprotect { item: ITEM });
    bench.does(remove.clone());
    assert!(matches!(bench.refuses(PERSON, remove), Refusal::Missing { .. }));
}

#[test]
fn what_cannot_be_a_policy_is_refused_with_the_field() {
    let (mut bench, _) = Bench::ready();
    let long = "x".repeat(5000);
    let cases = [
        (
            "name",
            PolicySpec {
                name: String::from("x"),
                ..policy_spec("daily")
            },
        ),
        (
            "schedule",
            PolicySpec {
                schedule: long.clone(),
                ..policy_spec("daily")
            },
        ),
        (
            "zone",
            PolicySpec {
                zone: long.clone(),
                ..policy_spec("daily")
            },
        ),
        (
            "windows",
            PolicySpec {
                windows: vec![String::new(); 169],
                ..policy_spec("daily")
            },
        ),
        (
            "windows",
            PolicySpec {
                windows: vec![long.clone()],
                ..policy_spec("daily")
            },
        ),
        (
            "retention",
            PolicySpec {
                retention: long,
                ..policy_spec("daily")
            },
        ),
    ];
    for (field, spec) in cases {
        for command in [
            update(0, spec.clone()),
            Command::CreatePolicy {
                policy: PolicyId([6; 16]),
                spec,
            },
        ] {
            let refusal = bench.refuses(PERSON, command);
            assert!(
                matches!(&refusal, Refusal::Invalid { field: found, .. } if found == field),
                "{refusal}"
            );
        }
    }
}
