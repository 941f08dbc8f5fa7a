//! What each verb sends, and what it answers with.

use serde_json::{Value, json};
use tresor_proto::v1::*;

use super::here::Here;

fn text(text: &str) -> String {
    text.to_owned()
}

/// Labels, one pair.
fn label(key: &str, value: &str) -> std::collections::BTreeMap<String, String> {
    [(text(key), text(value))].into()
}

fn item(name: &str) -> Item {
    Item {
        spec: Some(ItemSpec {
            name: text(name),
            vault: text("main"),
            policy: text("daily"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn an_item_is_protected_with_its_disks_host_policy_and_labels() {
    let here = Here::new();
    here.on::<ProtectItemRequest, _>(item("web-03"));
    let shown = here.json(&[
        "item",
        "protect",
        "web-03",
        "vda=kvm-7:/vm/web.qcow2",
        "kvm-7:/vm/data.img",
        "--policy",
        "daily",
        "--label",
        "tier=gold",
        "--worker-label",
        "site=a",
        "--vault",
        "main",
        "--source-format",
        "raw",
        "--allow-live",
        "--also",
    ]);
    assert_eq!(shown["item"], "web-03");
    let request = here.only::<ProtectItemRequest>();
    assert_eq!(request.idempotency_key.len(), 16);
    let disk = |name: &str, path: &str| AdminDisk {
        name: text(name),
        path: text(path),
        format: text("raw"),
    };
    let spec = ItemSpec {
        name: text("web-03"),
        vault: text("main"),
        policy: text("daily"),
        host: text("kvm-7"),
        worker_labels: label("site", "a"),
        labels: label("tier", "gold"),
        disks: vec![disk("vda", "/vm/web.qcow2"), disk("data", "/vm/data.img")],
        allow_live: true,
        allow_backing: false,
    };
    assert_eq!((request.spec, request.also), (Some(spec), true));
}

#[test]
fn a_bare_path_is_of_this_host_if_a_worker_runs_here() {
    let here = Here::new();
    let worker = |host: &str, name: &str| Worker {
        host: text(host),
        name: text(name),
        ..Default::default()
    };
    let workers = |workers: Vec<Worker>| ListWorkersResponse {
        workers,
        ..Default::default()
    };
    here.on::<ListWorkersRequest, _>(workers(vec![worker("elsewhere", "kvm-1")]));
    here.on::<ListWorkersRequest, _>(workers(vec![worker(&tresor_worker::home::host_name(), "kvm-2")]));
    here.refuse::<GetPolicyRequest, Policy>("missing", "", "there is no policy default");
    here.on::<ProtectItemRequest, _>(item("web"));
    let ran = here.run(&["item", "protect", "web", "web.img"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("--worker HOST"), "{ran}");
    here.json(&["item", "protect", "web", "web.img"]);
    let spec = here.only::<ProtectItemRequest>().spec.unwrap();
    assert_eq!(
        (spec.host.as_str(), &spec.disks[0].path),
        ("kvm-2", &here.site.text("web.img"))
    );
}

#[test]
fn an_item_that_is_there_is_changed_where_it_was_said_and_protected_again() {
    let here = Here::new();
    let mut known = item("web");
    known.protected = true;
    let spec = known.spec.as_mut().unwrap();
    spec.host = text("kvm-7");
    spec.labels = label("tier", "gold");
    here.on::<GetItemRequest, _>(known.clone());
    here.on::<UpdateItemRequest, _>(known.clone());
    here.json(&["item", "protect", "web", "--policy", "hourly", "--label", "site=a"]);
    let mut expected = known.spec.clone().unwrap();
    expected.policy = text("hourly");
    expected.labels.insert(text("site"), text("a"));
    let request = here.only::<UpdateItemRequest>();
    assert_eq!(
        (request.name.as_str(), request.vault.as_str(), request.spec),
        ("web", "main", Some(expected))
    );

    let here = Here::new();
    known.protected = false;
    here.on::<GetItemRequest, _>(known.clone());
    here.on::<ProtectItemRequest, _>(known.clone());
    here.json(&["item", "protect", "web"]);
    assert_eq!(here.only::<ProtectItemRequest>().spec, known.spec);

    let here = Here::new();
    here.refuse::<GetItemRequest, Item>("missing", "", "there is no item web");
    let ran = here.run(&["item", "protect", "web"]);
    assert!(ran.code == 2 && ran.stderr.contains("which disks"), "{ran}");
}

#[test]
fn the_policy_that_nobody_named_is_told_in_plain_words_before_it_is_given() {
    let here = Here::new();
    here.on::<GetPolicyRequest, _>(Policy {
        words: vec![text("A backup is made every day at 02:30.")],
        ..Default::default()
    });
    here.refuse::<ProtectItemRequest, Item>("full", "", "there are too many items");
    let ran = here.run(&["item", "protect", "web", "kvm-7:/vm/web.img"]);
    assert_eq!(ran.code, 8, "{ran}");
    assert!(
        ran.stderr.contains("gets policy default") && ran.stderr.contains("every day at 02:30"),
        "said although it was not applied in the end: {ran}"
    );
    assert_eq!(here.only::<ProtectItemRequest>().spec.unwrap().policy, "default");

    // Where there is none, none is given.
    let here = Here::new();
    here.refuse::<GetPolicyRequest, Policy>("missing", "", "there is no policy default");
    here.on::<ProtectItemRequest, _>(item("web"));
    let ran = here.run(&["item", "protect", "web", "kvm-7:/vm/web.img"]);
    assert!(ran.code == 0 && !ran.stderr.contains("gets policy"), "{ran}");
    assert_eq!(here.only::<ProtectItemRequest>().spec.unwrap().policy, "");
}

#[test]
fn an_item_is_renamed_with_all_else_it_has_and_unprotected_when_confirmed() {
    let here = Here::new();
    here.on::<GetItemRequest, _>(item("web"));
    here.on::<UpdateItemRequest, _>(item("shop"));
    here.on::<UnprotectItemRequest, _>(item("shop"));
    here.json(&["item", "rename", "web", "shop"]);
    let request = here.only::<UpdateItemRequest>();
    assert_eq!((request.name.as_str(), request.spec), ("web", item("shop").spec));

    let ran = here.run(&["item", "unprotect", "shop"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(
        here.coordinator.script.asked::<UnprotectItemRequest>().is_empty(),
        "nobody confirmed it"
    );
    here.json(&["item", "unprotect", "shop", "--yes"]);
    assert_eq!(here.only::<UnprotectItemRequest>().name, "shop");
}

fn point(id: &str) -> Point {
    Point {
        id: text(id),
        item_name: text("web"),
        ..Default::default()
    }
}

#[test]
fn points_are_all_found_before_any_is_changed() {
    let here = Here::new();
    here.on::<GetPointRequest, _>(point("aa"));
    here.on::<RemovePointRequest, _>(point("aa"));
    let shown = here.json(&["point", "remove", "web", "aa"]);
    assert_eq!(shown["points"].as_array().unwrap().len(), 1);
    assert_eq!(
        here.only::<RemovePointRequest>().name,
        "aa",
        "the newest is removed once, not the one before it"
    );

    let here = Here::new();
    here.on::<GetPointRequest, _>(point("aa"));
    here.refuse::<GetPointRequest, Point>("missing", "name", "there is no point bb");
    let ran = here.run(&["point", "remove", "aa", "bb"]);
    assert_eq!(ran.code, 4, "{ran}");
    assert!(here.coordinator.script.asked::<RemovePointRequest>().is_empty());
}

#[test]
fn points_are_held_with_a_reason_released_and_undeleted() {
    let here = Here::new();
    here.on::<GetPointRequest, _>(point("aa"));
    here.on::<HoldPointRequest, _>(point("aa"));
    here.on::<ReleasePointRequest, _>(point("aa"));
    here.on::<UndeletePointRequest, _>(point("aa"));
    here.refuse::<GetItemRequest, Item>("missing", "", "there is no such item");
    here.json(&["point", "hold", "web@2026-03-10", "--reason", "audit"]);
    here.json(&["point", "release", "aa"]);
    here.json(&["point", "undelete", "aa"]);
    let hold = here.only::<HoldPointRequest>();
    assert_eq!((hold.name.as_str(), hold.reason.as_str()), ("aa", "audit"));
    assert_eq!(here.only::<ReleasePointRequest>().name, "aa");
    assert_eq!(here.only::<UndeletePointRequest>().name, "aa");
    assert_eq!(
        here.coordinator.script.asked::<GetPointRequest>()[0].1.name,
        "web@2026-03-10T23:59:59.999999999Z",
        "a time without a zone is this machine's"
    );
}

#[test]
fn points_are_listed_and_shown_by_the_cluster() {
    let here = Here::new();
    here.on::<ListPointsRequest, _>(ListPointsResponse {
        points: vec![point("aa")],
        ..Default::default()
    });
    here.on::<GetPointRequest, _>(point("aa"));
    let shown = here.json(&["point", "list", "web", "--all", "--vault", "two"]);
    assert_eq!(
        (&shown["points"][0]["point"], &shown["more"]),
        (&json!("aa"), &json!(false))
    );
    assert_eq!(here.json(&["point", "show", "web"])["held"], Value::Null);
    let request = here.only::<ListPointsRequest>();
    assert_eq!(
        (request.item.as_str(), request.vault.as_str(), request.hidden),
        ("web", "two", true)
    );
}

#[test]
fn nodes_are_drained_removed_and_led() {
    let here = Here::new();
    here.on::<DrainWorkerRequest, _>(Worker::default());
    here.on::<RemoveWorkerRequest, _>(Empty {});
    here.on::<RemoveCoordinatorRequest, _>(Empty {});
    here.on::<TransferLeaderRequest, _>(Empty {});
    here.on::<ListCoordinatorsRequest, _>(ListCoordinatorsResponse {
        coordinators: vec![Coordinator {
            name: text("c1"),
            ..Default::default()
        }],
    });
    here.on::<ConfirmClockRequest, _>(Empty {});
    here.json(&["worker", "drain", "kvm-7"]);
    here.json(&["worker", "undrain", "kvm-7"]);
    let drains: Vec<bool> = here
        .coordinator
        .script
        .asked::<DrainWorkerRequest>()
        .iter()
        .map(|(_, r)| r.drained)
        .collect();
    assert_eq!(drains, [true, false]);
    // With jobs and slots it is waited for.
    here.on::<DrainWorkerRequest, _>(Worker {
        name: text("kvm-7"),
        running: 1,
        slots: 300,
        ..Default::default()
    });
    here.on::<GetWorkerRequest, _>(Worker {
        name: text("kvm-7"),
        state: text("drained"),
        items: Some(4),
        ..Default::default()
    });
    here.json(&["worker", "drain", "kvm-7"]);
    let ran = here.run(&["worker", "drain", "kvm-7", "--wait"]);
    assert!(
        ran.code == 0 && ran.stderr.contains("300 slots") && ran.stdout.contains("has none"),
        "{ran}"
    );
    assert_eq!(here.json(&["worker", "show", "kvm-7"])["items"], 4);
    assert_eq!(here.run(&["worker", "remove", "kvm-7"]).code, 2);
    here.json(&["worker", "remove", "kvm-7", "--yes"]);
    let removed = here.only::<RemoveWorkerRequest>();
    assert_eq!((removed.name.as_str(), removed.force), ("kvm-7", false));
    assert_eq!(here.run(&["coordinator", "remove", "c3"]).code, 2);
    here.json(&["coordinator", "remove", "c3", "--yes"]);
    assert_eq!(here.only::<RemoveCoordinatorRequest>().name, "c3");
    here.json(&["coordinator", "transfer", "--to", "c2"]);
    assert_eq!(here.only::<TransferLeaderRequest>().to, "c2");
    assert_eq!(
        here.json(&["coordinator", "list"])["coordinators"][0]["coordinator"],
        "c1"
    );
    let ran = here.run(&["cluster", "confirm-clock"]);
    assert!(ran.code == 2 && ran.stderr.contains("c1"), "{ran}");
    here.json(&["cluster", "confirm-clock", "--yes"]);
    assert_eq!(here.coordinator.script.asked::<ConfirmClockRequest>().len(), 1);
}

#[test]
fn the_status_of_a_cluster_has_warnings_as_that_of_a_home() {
    let here = Here::new();
    here.on::<GetStatusRequest, _>(StatusReport {
        cluster_name: text("prod"),
        items: 2,
        protected: 1,
        attention: vec![text("coordinator c2 does not answer")],
        ..Default::default()
    });
    here.on::<WhoAmIRequest, _>(WhoAmIResponse {
        name: text("alice"),
        role: text("operator"),
        cluster_name: text("prod"),
        ..Default::default()
    });
    let shown = here.json(&["status"]);
    assert_eq!(shown["warnings"], json!(["coordinator c2 does not answer"]));
    assert_eq!((&shown["items"], &shown["protected"]), (&json!(2), &json!(1)));
    let shown = here.json(&["cluster", "status"]);
    assert_eq!(
        (&shown["cluster"], &shown["me"]["role"]),
        (&json!("prod"), &json!("operator"))
    );
}

#[test]
fn why_a_thing_is_so_and_who_did_it() {
    let here = Here::new();
    here.on::<ExplainRequest, _>(ExplainResponse {
        what: text("job 812 waits"),
        because: vec![text("No worker reaches kvm-7.")],
    });
    here.on::<ListAuditRequest, _>(ListAuditResponse {
        entries: vec![AuditEntry {
            seq: 7,
            actor: text("alice"),
            hash: vec![0xab].into(),
            ..Default::default()
        }],
        ..Default::default()
    });
    let verified = |whole| VerifyAuditResponse {
        whole,
        ..Default::default()
    };
    here.on::<VerifyAuditRequest, _>(verified(true));
    here.on::<VerifyAuditRequest, _>(verified(false));
    assert_eq!(
        here.json(&["explain", "job", "812"])["because"][0],
        "No worker reaches kvm-7."
    );
    let request = here.only::<ExplainRequest>();
    assert_eq!((request.kind.as_str(), request.name.as_str()), ("job", "812"));
    let shown = here.json(&["audit", "list", "alice"]);
    assert_eq!(
        (&shown["entries"][0]["seq"], &shown["entries"][0]["hash"]),
        (&json!(7), &json!("ab"))
    );
    assert_eq!(here.only::<ListAuditRequest>().contains, "alice");
    assert_eq!(here.json(&["audit", "verify"])["whole"], true);
    assert_eq!(here.run(&["audit", "verify"]).code, 3, "a broken trail is damage");
}
