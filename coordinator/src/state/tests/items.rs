//! Items: protected in one vault, by one name, and remembered while they have points.

use super::*;

type Spoil = Box<dyn Fn(&mut ItemSpec)>;

const OTHER: VaultId = VaultId([8; 16]);

fn protect(item: ItemId, spec: ItemSpec, also: bool) -> Command {
    Command::Protect { item, spec, also }
}

/// With a second vault, `archive`.
fn two_vaults() -> (Bench, WorkerId) {
    let (mut bench, worker) = Bench::with_points(1);
    bench.vault(OTHER, "archive", worker);
    (bench, worker)
}

#[test]
fn a_machine_that_another_vault_protects_is_refused_naming_it_unless_asked_for() {
    let (mut bench, _) = two_vaults();
    let spec = item_spec("web", OTHER);
    let refusal = bench.refuses(PERSON, protect(item_id(1), spec.clone(), false));
    assert_eq!(refusal.to_string(), "item web is there already in vault main");
    let reply = bench.does(protect(item_id(1), spec, true));
    assert_eq!(reply, Reply::Item(item_id(1)));
    assert_eq!(bench.state.items_named("web").count(), 2);
}

#[test]
fn a_vault_has_a_name_once_even_where_it_was_asked_for() {
    let (mut bench, _) = two_vaults();
    let refusal = bench.refuses(PERSON, protect(item_id(1), item_spec("web", VAULT), true));
    assert_eq!(refusal.to_string(), "item web is there already in vault main");
}

#[test]
fn the_name_is_free_in_another_vault_when_the_item_is_not_protected_any_more() {
    let (mut bench, _) = two_vaults();
    bench.does(Command::Unprotect { item: ITEM });
    bench.does(protect(item_id(1), item_spec("web", OTHER), false));
}

#[test]
fn a_machine_protected_again_goes_on_where_it_was() {
    let (mut bench, worker) = Bench::with_points(1);
    bench.does(Command::Unprotect { item: ITEM });
    assert!(!bench.state.items().get(&ITEM).unwrap().protected);
    bench.pass(DAY);
    let reply = bench.does(protect(item_id(1), item_spec("web", VAULT), false));
    assert_eq!(reply, Reply::Item(ITEM), "the caller hears which item it is");
    assert!(!bench.state.items().contains(&item_id(1)));
    let row = bench.state.items().get(&ITEM).unwrap();
    assert_eq!((row.protected, row.since), (true, bench.now), "nothing is caught up");
    let leased = bench.start_backup(ITEM, worker);
    let session = bench.state.sessions().get(&leased.session).unwrap();
    assert_eq!(session.pins, [point_id(1)]);
}

#[test]
fn of_several_former_items_of_a_name_the_one_with_the_newest_point_goes_on() {
    let (mut bench, _) = Bench::ready();
    let found = |number: u64, age: i64| AdoptedPoint {
        point: point_id(number),
        item: item_id(number),
        item_name: String::from("db"),
        time: Time(START - age * DAY),
        keep_until: None,
        manifest: [0; 32],
        consistency: Consistency::Crash,
        hidden: None,
    };
    bench.does(Command::AdoptPoints {
        vault: VAULT,
        points: vec![found(1, 20), found(2, 10), found(3, 30)],
    });
    let reply = bench.does(protect(item_id(50), item_spec("db", VAULT), false));
    assert_eq!(reply, Reply::Item(item_id(2)));
}

#[test]
fn an_item_without_points_is_forgotten_when_nobody_protects_it() {
    let (mut bench, worker) = Bench::ready();
    bench.does(Command::Unprotect { item: ITEM });
    assert!(bench.state.items().is_empty());
    bench.protect(ITEM, "web");
    // With a backup running it is forgotten when that has ended.
    let leased = bench.start_backup(ITEM, worker);
    bench.does(Command::Unprotect { item: ITEM });
    assert!(bench.state.items().contains(&ITEM));
    bench.by(
        Actor::Cluster,
        Command::ExpireLease {
            job: leased.job,
            epoch: leased.epoch,
            retry_at: Some(bench.now),
        },
    );
    assert!(bench.state.items().is_empty());
    assert_eq!(bench.state.open_jobs_count(), 0);
}

#[test]
fn the_last_point_given_up_takes_its_item_along() {
    let (mut bench, _) = Bench::with_points(2);
    bench.does(Command::Unprotect { item: ITEM });
    bench.hide(&[point_id(1), point_id(2)], false);
    bench.pass(7 * DAY);
    assert_eq!(bench.give_up(&[point_id(1)]), Reply::Changed(1));
    assert!(bench.state.items().contains(&ITEM));
    assert_eq!(bench.give_up(&[point_id(2)]), Reply::Changed(1));
    assert!(bench.state.items().is_empty());
}

#[test]
fn protecting_ends_with_its_waiting_backup_and_a_running_one_is_told() {
    let (mut bench, worker) = Bench::with_points(1);
    let waiting = bench.queue(backup_of(ITEM));
    bench.does(Command::Unprotect { item: ITEM });
    assert_eq!(bench.job_state(waiting), JobState::Cancelled);
    assert!(matches!(
        bench.refuses(PERSON, Command::Unprotect { item: ITEM }),
        Refusal::Held { .. }
    ));
    bench.protect(item_id(1), "web");
    let running = bench.start_backup(ITEM, worker);
    bench.does(Command::Unprotect { item: ITEM });
    assert!(bench.state.jobs().get(&running.job).unwrap().cancel_requested);
    // What it makes all the same counts: it is a good point.
    bench.commit(running, committed(&bench.state, point_id(9))).unwrap();
    assert!(bench.is_visible(point_id(9)));
}

#[test]
fn a_new_policy_of_an_item_catches_up_on_nothing() {
    let (mut bench, _) = Bench::ready();
    let first = bench.now;
    assert_eq!(bench.state.due_since(ITEM), Some(first));
    bench.pass(HOUR);
    let mut spec = item_spec("web", VAULT);
    spec.allow_live = true;
    bench.does(Command::UpdateItem {
        version: 0,
        item: ITEM,
        spec: spec.clone(),
    });
    assert_eq!(bench.state.due_since(ITEM), Some(first));
    let other = PolicyId([6; 16]);
    bench.does(Command::CreatePolicy {
        policy: other,
        spec: policy_spec("hourly"),
    });
    bench.pass(HOUR);
    spec.policy = Some(other);
    bench.does(Command::UpdateItem {
        version: 0,
        item: ITEM,
        spec: spec.clone(),
    });
    assert_eq!(bench.state.due_since(ITEM), Some(bench.now));
    spec.policy = None;
    bench.does(Command::UpdateItem {
        item: ITEM,
        version: 0,
        spec,
    });
    assert_eq!(bench.state.due_since(ITEM), None);
}

#[test]
fn an_item_stays_in_its_vault() {
    let (mut bench, _) = two_vaults();
    let refusal = bench.refuses(
        PERSON,
        Command::UpdateItem {
            version: 0,
            item: ITEM,
            spec: item_spec("web", OTHER),
        },
    );
    assert!(matches!(&refusal, Refusal::Invalid { field, .. } if field == "vault"));
}

#[test]
fn a_rename_asks_like_protecting() {
    let (mut bench, _) = two_vaults();
    bench.does(protect(item_id(1), item_spec("db", OTHER), false));
    bench.does(protect(item_id(2), item_spec("cache", VAULT), false));
    let rename = |name: &str| Command::UpdateItem {
        version: 0,
        item: ITEM,
        spec: item_spec(name, VAULT),
    };
    let refusal = bench.refuses(PERSON, rename("db"));
    assert_eq!(refusal.to_string(), "item db is there already in vault archive");
    let refusal = bench.refuses(PERSON, rename("cache"));
    assert_eq!(refusal.to_string(), "item cache is there already in vault main");
    bench.does(rename("www"));
    assert_eq!(bench.state.items_named("web").count(), 0);
    assert_eq!(bench.state.items_named("www").collect::<Vec<_>>(), [ITEM]);
    // One that two vaults protect by request can be changed otherwise.
    bench.does(protect(item_id(3), item_spec("www", OTHER), true));
    bench.does(rename("www"));
}

#[test]
fn of_a_former_item_the_policy_can_be_changed_and_nothing_else() {
    let (mut bench, _) = Bench::with_points(1);
    bench.does(Command::Unprotect { item: ITEM });
    let refusal = bench.refuses(PERSON, Command::RemovePolicy { policy: POLICY });
    assert!(matches!(refusal, Refusal::Held { .. }), "its retention goes on");
    let mut spec = item_spec("web", VAULT);
    spec.allow_live = true;
    let refusal = bench.refuses(
        PERSON,
        Command::UpdateItem {
            item: ITEM,
            version: 0,
            spec,
        },
    );
    assert!(matches!(refusal, Refusal::Held { .. }), "{refusal}");
    let mut spec = item_spec("web", VAULT);
    spec.policy = Some(PolicyId([99; 16]));
    bench.refuses(
        PERSON,
        Command::UpdateItem {
            version: 0,
            item: ITEM,
            spec: spec.clone(),
        },
    );
    spec.policy = None;
    bench.does(Command::UpdateItem {
        item: ITEM,
        version: 0,
        spec,
    });
    bench.does(Command::RemovePolicy { policy: POLICY });
}

#[test]
fn what_cannot_be_an_item_is_refused_with_the_field() {
    let (mut bench, _) = Bench::ready();
    let long = "x".repeat(256);
    let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let disk = |name: &str, path: &str, format: &str| DiskSpec {
        name: name.to_owned(),
        path: path.to_owned(),
        format: format.to_owned(),
    };
    let cases: Vec<(&str, Spoil)> = vec![
        ("name", Box::new(|spec| spec.name.clear())),
        ("name", Box::new(|spec| spec.name.push('\n'))),
        ("disks", Box::new(|spec| spec.disks.clear())),
        (
            "disks",
            Box::new(move |spec| {
                spec.disks = (0..129).map(|n| disk(&n.to_string(), "/x", "")).collect();
            }),
        ),
        (
            "disks.name",
            Box::new(move |spec| spec.disks = vec![disk("a", "/x", ""); 2]),
        ),
        ("disks.path", Box::new(move |spec| spec.disks = vec![disk("a", "", "")])),
        (
            "disks.path",
            Box::new(move |spec| spec.disks = vec![disk("a", "/x\0", "")]),
        ),
        (
            "disks.format",
            Box::new(move |spec| spec.disks = vec![disk("a", "/x", "\t")]),
        ),
        ("host", {
            let long = long.clone();
            Box::new(move |spec| spec.host.clone_from(&long))
        }),
        ("labels", Box::new(move |spec| spec.labels = label("", "x"))),
        ("labels", Box::new(move |spec| spec.labels = label("a", "\u{1}"))),
        (
            "worker_labels",
            Box::new(move |spec| spec.worker_labels = label(&long, "")),
        ),
        (
            "worker_labels",
            Box::new(|spec| spec.worker_labels = (0..65).map(|n| (n.to_string(), String::new())).collect()),
        ),
    ];
    for (field, spoil) in cases {
        let mut spec = item_spec("db", VAULT);
        spoil(&mut spec);
        let refusal = bench.refuses(PERSON, protect(item_id(1), spec, false));
        assert!(
            matches!(&refusal, Refusal::Invalid { field: found, .. } if found == field),
            "{field}: {refusal}"
        );
    }
    for missing in [
        ItemSpec {
            policy: Some(PolicyId([99; 16])),
            ..item_spec("db", VAULT)
        },
        item_spec("db", OTHER),
    ] {
        assert!(matches!(
            bench.refuses(PERSON, protect(item_id(1), missing, false)),
            Refusal::Missing { .. }
        ));
    }
}

#[test]
fn a_change_of_an_item_that_was_read_before_another_change_is_refused() {
    let (mut bench, _) = Bench::ready();
    let change = |version: u64, label: &str| {
        let mut spec = item_spec("web", VAULT);
        spec.labels.insert(String::from("by"), label.to_owned());
        Command::UpdateItem {
            item: ITEM,
            version,
            spec,
        }
    };
    let read = bench.state.items().get(&ITEM).unwrap().version;
    bench.by(PERSON, change(read, "ann"));
    assert!(matches!(
        bench.refuses(PERSON, change(read, "bob")),
        Refusal::Fenced { .. }
    ));
    let item = bench.state.items().get(&ITEM).unwrap();
    assert_eq!(item.spec.labels["by"], "ann");
    let now = item.version;
    assert!(now > read);
    bench.by(PERSON, change(now, "bob"));
    bench.by(PERSON, change(0, "eve"));
    assert_eq!(bench.state.items().get(&ITEM).unwrap().spec.labels["by"], "eve");
}
