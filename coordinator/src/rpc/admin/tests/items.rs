use std::collections::BTreeMap;

use super::*;
use crate::rpc::policy::built_in;
use crate::state::command::Command;
use tresor_proto::ids::{PolicyId, VaultId};

pub(super) fn spec(name: &str) -> v1::ItemSpec {
    v1::ItemSpec {
        name: name.to_owned(),
        vault: String::from("main"),
        disks: vec![v1::AdminDisk {
            name: String::from("vda"),
            path: format!("/srv/{name}.qcow2"),
            format: String::new(),
        }],
        ..v1::ItemSpec::default()
    }
}

fn protect(number: u8, spec: v1::ItemSpec) -> v1::ProtectItemRequest {
    v1::ProtectItemRequest {
        idempotency_key: key(number),
        spec: Some(spec),
        also: false,
        no_policy: false,
    }
}

fn get(name: &str) -> v1::GetItemRequest {
    v1::GetItemRequest {
        name: name.to_owned(),
        vault: String::new(),
    }
}

#[tokio::test]
async fn an_item_is_protected_once_for_a_key() {
    let cluster = Cluster::start();
    let made = call!(cluster, protect_item, protect(1, spec("web"))).unwrap();
    assert!(made.protected);
    assert_eq!(
        (made.state.as_str(), made.next_due.as_str()),
        ("no schedule", ""),
        "nobody gave it a schedule"
    );
    assert_eq!(call!(cluster, protect_item, protect(1, spec("web"))).unwrap(), made);
    assert_eq!(call!(cluster, get_item, get("web")).unwrap(), made);
    assert_eq!(call!(cluster, get_item, get(&made.id)).unwrap(), made);
    let again = refused(call!(cluster, protect_item, protect(2, spec("web"))), "fenced");
    assert_eq!(again.message(), "item web is there already in vault main");
    refused(call!(cluster, get_item, get("mail")), "missing");
}

#[tokio::test]
async fn an_item_without_a_policy_gets_the_one_named_default() {
    let mut cluster = Cluster::start();
    let mut default = built_in("UTC");
    default.name = String::from("default");
    cluster.node.does(Command::CreatePolicy {
        policy: PolicyId([1; 16]),
        spec: default,
    });
    let made = call!(cluster, protect_item, protect(1, spec("web"))).unwrap();
    assert_eq!(made.spec.as_ref().unwrap().policy, "default");
    assert!(made.next_due.starts_with("2026-11-21T02:"));
}

#[tokio::test]
async fn what_is_wrong_with_an_item_is_named() {
    let mut cluster = Cluster::start();
    let with = |change: &dyn Fn(&mut v1::ItemSpec)| {
        let mut spec = spec("web");
        change(&mut spec);
        protect(1, spec)
    };
    refused_for(
        call!(
            cluster,
            protect_item,
            with(&|s| s.disks[0].path = String::from("web.qcow2"))
        ),
        "spec.disks.path",
    );
    refused_for(
        call!(
            cluster,
            protect_item,
            with(&|s| s.disks[0].format = String::from("vdi"))
        ),
        "spec.disks.format",
    );
    refused(
        call!(cluster, protect_item, with(&|s| s.vault = String::from("none"))),
        "missing",
    );
    refused(
        call!(cluster, protect_item, with(&|s| s.policy = String::from("none"))),
        "missing",
    );
    let nothing = v1::ProtectItemRequest {
        idempotency_key: key(1),
        spec: None,
        also: false,
        ..Default::default()
    };
    refused_for(call!(cluster, protect_item, nothing), "spec");
    // What the log refuses is remembered for the key.
    refused_for(call!(cluster, protect_item, with(&|s| s.disks.clear())), "disks");
    refused_for(call!(cluster, protect_item, protect(2, spec(""))), "name");
    cluster.node.adds_vault(VaultId([2; 16]), "other");
    cluster.node.does(Command::RemoveVault { vault: MAIN });
    // One vault is enough to know which is meant.
    let mut anywhere = spec("web");
    anywhere.vault.clear();
    assert_eq!(
        call!(cluster, protect_item, protect(3, anywhere.clone()))
            .unwrap()
            .spec
            .unwrap()
            .vault,
        "other"
    );
    cluster.node.adds_vault(VaultId([3; 16]), "third");
    anywhere.name = String::from("db");
    refused_for(call!(cluster, protect_item, protect(4, anywhere)), "spec.vault");
}

#[tokio::test]
async fn an_item_is_in_one_vault_unless_a_second_is_asked_for() {
    let mut cluster = Cluster::start();
    let worker = cluster.worker;
    cluster.node.makes_vault(VaultId([2; 16]), "second", worker);
    call!(cluster, protect_item, protect(1, spec("web"))).unwrap();
    let mut other = spec("web");
    other.vault = String::from("second");
    let refusal = refused(call!(cluster, protect_item, protect(2, other.clone())), "fenced");
    assert_eq!(refusal.message(), "item web is there already in vault main");
    let also = v1::ProtectItemRequest {
        also: true,
        ..protect(3, other)
    };
    call!(cluster, protect_item, also).unwrap();
    let ambiguous = refused(call!(cluster, get_item, get("web")), "invalid");
    assert!(
        ambiguous.message().contains("in vault second"),
        "{}",
        ambiguous.message()
    );
    let in_second = v1::GetItemRequest {
        vault: String::from("second"),
        ..get("web")
    };
    assert_eq!(
        call!(cluster, get_item, in_second).unwrap().spec.unwrap().vault,
        "second"
    );
}

#[tokio::test]
async fn an_item_is_changed_as_a_whole_and_keeps_its_points() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let point = cluster.node.makes_point(web, MAIN, cluster.worker);
    let mut renamed = spec("www");
    renamed.vault.clear();
    renamed.labels = BTreeMap::from([(String::from("tier"), String::from("gold"))]);
    let update = v1::UpdateItemRequest {
        idempotency_key: key(1),
        name: String::from("web"),
        vault: String::new(),
        spec: Some(renamed),
        version: 0,
    };
    let changed = call!(cluster, update_item, update.clone()).unwrap();
    assert_eq!(changed.id, web.to_string());
    assert_eq!(
        (changed.newest_point.as_str(), changed.points),
        (point.to_string().as_str(), 1)
    );
    assert_eq!(changed.spec.as_ref().unwrap().labels["tier"], "gold");
    assert_eq!(
        call!(cluster, update_item, update.clone()).unwrap(),
        changed,
        "under its old name"
    );
    let later = v1::UpdateItemRequest {
        idempotency_key: key(2),
        ..update
    };
    refused(call!(cluster, update_item, later), "missing");
    let stale = v1::UpdateItemRequest {
        idempotency_key: key(3),
        name: String::from("www"),
        spec: changed.spec.clone(),
        version: changed.version - 1,
        ..Default::default()
    };
    refused(call!(cluster, update_item, stale.clone()), "fenced");
    let fresh = v1::UpdateItemRequest {
        idempotency_key: key(4),
        version: changed.version,
        ..stale
    };
    assert!(call!(cluster, update_item, fresh).unwrap().version > changed.version);
}

#[tokio::test]
async fn an_item_is_unprotected_once_and_its_points_stay() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    cluster.node.makes_point(web, MAIN, cluster.worker);
    let unprotect = |number, name: &str| v1::UnprotectItemRequest {
        idempotency_key: key(number),
        name: name.to_owned(),
        vault: String::new(),
    };
    let ended = call!(cluster, unprotect_item, unprotect(1, "web")).unwrap();
    assert_eq!(
        (ended.protected, ended.state.as_str(), ended.points),
        (false, "unprotected", 1)
    );
    assert_eq!(call!(cluster, unprotect_item, unprotect(1, "web")).unwrap(), ended);
    let status = refused(call!(cluster, unprotect_item, unprotect(2, "web")), "fenced");
    assert_eq!(status.message(), "item web is not protected");

    // Without points nothing is left of it, and the answer still says which one it was.
    let db = cluster.node.protects("db", MAIN, None);
    let ended = call!(cluster, unprotect_item, unprotect(3, "db")).unwrap();
    assert_eq!(
        (ended.id.as_str(), ended.state.as_str()),
        (db.to_string().as_str(), "unprotected")
    );
    assert_eq!(ended.spec.unwrap().disks.len(), 1);
    let again = call!(cluster, unprotect_item, unprotect(3, "db")).unwrap();
    assert_eq!((again.id, again.state), (db.to_string(), String::from("unprotected")));
    refused(call!(cluster, unprotect_item, unprotect(4, "db")), "missing");
}

#[tokio::test]
async fn items_come_by_name_with_filters() {
    let mut cluster = Cluster::start();
    let worker = cluster.worker;
    cluster.node.makes_vault(VaultId([2; 16]), "second", worker);
    for n in [3, 1, 2, 5, 4] {
        let mut gold = spec(&format!("item-{n}"));
        gold.labels = BTreeMap::from([(String::from("odd"), (n % 2 == 1).to_string())]);
        call!(cluster, protect_item, protect(n, gold)).unwrap();
    }
    cluster.node.protects("other", VaultId([2; 16]), None);
    let made = cluster.node.read(|state| state.items_named("item-2").next().unwrap());
    cluster.node.makes_point(made, MAIN, worker);

    async fn names(cluster: &Cluster, list: v1::ListItemsRequest) -> Vec<String> {
        let mut names = Vec::new();
        let mut list = list;
        loop {
            let page = call!(cluster, list_items, list.clone()).unwrap();
            names.extend(page.items.into_iter().map(|item| item.spec.unwrap().name));
            if page.next_page_token.is_empty() {
                return names;
            }
            list.page_token = page.next_page_token;
        }
    }
    let list = v1::ListItemsRequest {
        page_size: 2,
        ..v1::ListItemsRequest::default()
    };
    let all = ["item-1", "item-2", "item-3", "item-4", "item-5", "other"];
    assert_eq!(names(&cluster, list.clone()).await, all);
    let second = v1::ListItemsRequest {
        vault: String::from("second"),
        ..list.clone()
    };
    assert_eq!(names(&cluster, second).await, ["other"]);
    let odd = v1::ListItemsRequest {
        labels: BTreeMap::from([(String::from("odd"), String::from("true"))]),
        ..list.clone()
    };
    assert_eq!(names(&cluster, odd).await, ["item-1", "item-3", "item-5"]);
    let labelled = v1::ListItemsRequest {
        labels: BTreeMap::from([(String::from("odd"), String::new())]),
        ..list.clone()
    };
    assert_eq!(names(&cluster, labelled).await.len(), 5);
    let manual = v1::ListItemsRequest {
        state: String::from("no-schedule"),
        ..list.clone()
    };
    assert_eq!(names(&cluster, manual).await, all, "nobody has a policy");
    let never = v1::ListItemsRequest {
        state: String::from("never"),
        ..list.clone()
    };
    assert_eq!(
        names(&cluster, never).await,
        ["item-1", "item-3", "item-4", "item-5", "other"]
    );
    let unknown = v1::ListItemsRequest {
        state: String::from("fine"),
        ..list.clone()
    };
    refused_for(call!(cluster, list_items, unknown), "state");

    // A page begun under one filter does not go on under another.
    let first = call!(cluster, list_items, list.clone()).unwrap();
    let other = v1::ListItemsRequest {
        page_token: first.next_page_token,
        vault: String::from("main"),
        ..list
    };
    refused_for(call!(cluster, list_items, other), "page_token");
}

#[tokio::test]
async fn no_item_that_stays_is_missed_or_shown_twice_while_others_come_and_go() {
    let mut cluster = Cluster::start();
    for n in 0..30 {
        cluster.node.protects(&format!("item-{n:02}"), MAIN, None);
    }
    let mut seen = Vec::new();
    let mut list = v1::ListItemsRequest {
        page_size: 4,
        ..v1::ListItemsRequest::default()
    };
    for round in 0.. {
        let page = call!(cluster, list_items, list.clone()).unwrap();
        seen.extend(page.items.into_iter().map(|item| item.spec.unwrap().name));
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
        // One before, one behind; and the one that the next page goes on after is gone.
        cluster.node.protects(&format!("item-00-{round}"), MAIN, None);
        cluster.node.protects(&format!("item-99-{round}"), MAIN, None);
        let last = seen.last().unwrap().clone();
        if last.len() == 7 && last.ends_with('3') {
            let id = cluster.node.read(|state| state.items_named(&last).next().unwrap());
            cluster.node.does(Command::Unprotect { item: id });
        }
    }
    let mut unique = seen.clone();
    unique.dedup();
    assert_eq!(unique, seen);
    assert!(seen.is_sorted());
    for n in 0..30 {
        assert!(seen.contains(&format!("item-{n:02}")), "item-{n:02} in {seen:?}");
    }
}
