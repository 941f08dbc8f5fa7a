use futures::StreamExt;

use super::*;
use crate::state::State;
use crate::state::archive;

fn list(contains: &str) -> v1::ListAuditRequest {
    v1::ListAuditRequest {
        page_size: 2,
        contains: contains.to_owned(),
        ..v1::ListAuditRequest::default()
    }
}

fn drain(number: u8) -> v1::DrainWorkerRequest {
    v1::DrainWorkerRequest {
        idempotency_key: key(number),
        name: String::from("w1"),
        drained: number.is_multiple_of(2),
    }
}

#[tokio::test]
async fn the_trail_comes_newest_first_and_says_who_began_to_look() {
    let cluster = Cluster::start();
    for number in 0..4 {
        call!(cluster, drain_worker, drain(number)).unwrap();
    }
    let first = call!(cluster, list_audit, list("")).unwrap();
    assert_eq!(
        (first.entries[0].action.as_str(), first.entries[0].object.as_str()),
        ("note", "list audit: all")
    );
    assert_eq!(first.entries[0].actor, "local user 1000");
    assert_eq!(
        (first.entries[1].action.as_str(), first.entries[1].outcome.as_str()),
        ("undrain worker", "done")
    );
    let next = v1::ListAuditRequest {
        page_token: first.next_page_token,
        ..list("")
    };
    let second = call!(cluster, list_audit, next).unwrap();
    assert_eq!(
        second.entries[0].seq + 1,
        first.entries[1].seq,
        "only the first page is noted"
    );
    let drained = call!(cluster, list_audit, list("drain worker")).unwrap();
    assert_eq!(drained.entries.len(), 2);
    assert!(
        drained
            .entries
            .iter()
            .all(|entry| { entry.action.contains("drain worker") || entry.object.contains("drain worker") })
    );
    refused_for(call!(cluster, list_audit, list(&"x".repeat(1000))), "contains");
}

#[tokio::test]
async fn a_token_is_named_in_the_trail() {
    let cluster = Cluster::start();
    let made = call!(
        cluster,
        create_api_token,
        v1::CreateApiTokenRequest {
            idempotency_key: key(1),
            name: String::from("bob"),
            role: String::from("admin"),
            valid: String::new(),
        }
    )
    .unwrap();
    let bob = Caller {
        actor: Actor::Token(made.id.parse().unwrap()),
        ..alice()
    };
    cluster.service.drain_worker(by(bob, drain(2))).await.unwrap();
    let shown = call!(cluster, list_audit, list("(bob)")).unwrap();
    let by_bob = shown
        .entries
        .iter()
        .find(|entry| entry.action == "drain worker")
        .unwrap();
    assert_eq!(by_bob.actor, format!("token {} (bob)", made.id));
}

#[tokio::test]
async fn the_chain_is_checked() {
    let cluster = Cluster::start();
    call!(cluster, drain_worker, drain(1)).unwrap();
    let checked = call!(cluster, verify_audit, v1::VerifyAuditRequest {}).unwrap();
    assert!(checked.whole && checked.broken.is_empty());
    let newest = call!(cluster, list_audit, list("undrain"))
        .unwrap()
        .entries
        .pop()
        .unwrap();
    assert_eq!((checked.last, checked.head), (newest.seq, newest.hash));
}

#[tokio::test]
async fn a_refused_change_is_in_the_trail() {
    let cluster = Cluster::start();
    let confirm = v1::ConfirmClockRequest {
        idempotency_key: key(1),
    };
    refused(call!(cluster, confirm_clock, confirm), "fenced");
    let shown = call!(cluster, list_audit, list("confirm clock")).unwrap();
    let refusal = shown
        .entries
        .iter()
        .find(|entry| entry.action == "confirm clock")
        .unwrap();
    assert_eq!(refusal.outcome, "refused: held");
}

#[tokio::test]
async fn a_backup_of_the_cluster_has_all_rows_and_is_noted() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    cluster.node.makes_point(web, MAIN, cluster.worker);
    let mut pieces = call!(cluster, backup_cluster, v1::BackupClusterRequest {}).unwrap();
    let second = call!(cluster, backup_cluster, v1::BackupClusterRequest {});
    assert_eq!(
        refused(second.map(|_| ()), "retry").code(),
        Code::Unavailable,
        "one at a time"
    );
    let digest = cluster.node.read(State::digest);
    cluster.node.protects("later", MAIN, None);
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend(piece.unwrap().bytes);
    }
    let (header, rows) = archive::read(&bytes).unwrap();
    assert_eq!(header.name, "test");
    let state = State::load(rows).unwrap();
    assert_eq!(state.digest(), digest);
    assert!(state.audit().last().unwrap().1.object.starts_with("back up cluster"));
    drop(pieces);
    assert!(call!(cluster, backup_cluster, v1::BackupClusterRequest {}).is_ok());
}
