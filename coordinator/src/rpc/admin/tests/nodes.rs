use super::*;
use crate::node::handle::Membership;
use crate::node::presence::SILENT_MS;
use crate::state::command::{Command, MemberSpec};
use tresor_proto::ids::MemberId;

async fn workers(cluster: &Cluster) -> Vec<v1::Worker> {
    let page = call!(cluster, list_workers, v1::ListWorkersRequest::default()).unwrap();
    page.workers
}

#[tokio::test]
async fn workers_are_shown_as_they_are() {
    let mut cluster = Cluster::start();
    let joined = crate::state::command::WorkerSpec {
        name: String::from("w0"),
        token: None,
    };
    cluster.node.does(Command::AddWorker(joined));
    let web = cluster.node.protects("web", MAIN, None);
    let job = cluster.node.queues(web, MAIN);
    cluster.node.leases(job, cluster.worker);
    let shown = workers(&cluster).await;
    assert_eq!(
        shown
            .iter()
            .map(|worker| (worker.name.as_str(), worker.state.as_str()))
            .collect::<Vec<_>>(),
        [("w0", "joined"), ("w1", "ready")]
    );
    assert_eq!((shown[1].running, shown[1].permits), (1, 2));
    cluster.node.advance(i64::try_from(SILENT_MS).unwrap());
    let silent = &workers(&cluster).await[1];
    assert_eq!((silent.state.as_str(), silent.silent_ms), ("silent", SILENT_MS));
}

#[tokio::test]
async fn a_worker_is_drained_and_removed() {
    let cluster = Cluster::start();
    let drain = |number, drained| v1::DrainWorkerRequest {
        idempotency_key: key(number),
        name: String::from("w1"),
        drained,
    };
    assert_eq!(call!(cluster, drain_worker, drain(1, true)).unwrap().state, "drained");
    assert_eq!(call!(cluster, drain_worker, drain(1, true)).unwrap().state, "drained");
    assert_eq!(call!(cluster, drain_worker, drain(2, false)).unwrap().state, "ready");
    let remove = |number| v1::RemoveWorkerRequest {
        idempotency_key: key(number),
        name: String::from("w1"),
        force: false,
    };
    call!(cluster, remove_worker, remove(3)).unwrap();
    call!(cluster, remove_worker, remove(3)).unwrap();
    refused(call!(cluster, remove_worker, remove(4)), "missing");
    refused(call!(cluster, drain_worker, drain(5, true)), "missing");
    assert!(workers(&cluster).await.is_empty());
    refused_for(
        call!(cluster, remove_worker, v1::RemoveWorkerRequest::default()),
        "idempotency_key",
    );
}

#[tokio::test]
async fn a_worker_shows_its_slots_and_what_it_reaches_and_is_not_removed_while_it_has_some() {
    let mut cluster = Cluster::start();
    let (s1, s2) = (
        crate::testing::serves(&mut cluster.node, "s1"),
        crate::testing::serves(&mut cluster.node, "s2"),
    );
    for worker in [s1, s2] {
        cluster.hears(worker);
    }
    cluster.node.protects("web", MAIN, None);
    let grants = (0..10).map(|slot| (slot, s1)).collect();
    cluster.node.does(Command::GrantSlots { seen: 0, grants });
    let get = || v1::GetWorkerRequest {
        name: String::from("s1"),
    };
    let shown = call!(cluster, get_worker, get()).unwrap();
    assert_eq!((shown.slots, shown.takers, shown.items), (10, Some(1), Some(1)));
    assert_eq!((shown.serves.as_str(), shown.no_jobs), ("s1:7430", false));
    let listed = workers(&cluster).await;
    let slots: Vec<_> = listed
        .iter()
        .map(|worker| (worker.name.as_str(), worker.slots, worker.items))
        .collect();
    assert_eq!(slots, [("s1", 10, None), ("s2", 0, None), ("w1", 0, None)]);
    let remove = |number, force| v1::RemoveWorkerRequest {
        idempotency_key: key(number),
        name: String::from("s1"),
        force,
    };
    refused(call!(cluster, remove_worker, remove(1, false)), "fenced");
    // A dead one goes as it is.
    cluster.node.advance(i64::try_from(SILENT_MS).unwrap());
    call!(cluster, remove_worker, remove(2, false)).unwrap();
    cluster.hears(s2);
    let grants = vec![(0, s2)];
    let seen = cluster.node.read(|state| state.marks().slot_map);
    cluster.node.does(Command::GrantSlots { seen, grants });
    let forced = v1::RemoveWorkerRequest {
        name: String::from("s2"),
        ..remove(3, true)
    };
    call!(cluster, remove_worker, forced).unwrap();
    refused(call!(cluster, get_worker, get()), "missing");
}

fn with_members() -> Cluster {
    let mut cluster = Cluster::start();
    for (number, name) in [(2, "c2"), (3, "c3")] {
        cluster.node.does(Command::AddMember(MemberSpec {
            member: MemberId(number),
            name: name.to_owned(),
            address: format!("{name}:7700"),
            token: None,
        }));
    }
    cluster
}

#[tokio::test]
async fn coordinators_are_shown_as_the_leader_knows_them() {
    let cluster = with_members();
    let shown = call!(cluster, list_coordinators, v1::ListCoordinatorsRequest {}).unwrap();
    let shown = shown.coordinators;
    assert_eq!(
        shown.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(),
        ["c1", "c2", "c3"]
    );
    assert!(shown[0].leader && shown[0].reachable && !shown[1].leader && !shown[1].reachable);
    assert!(shown[0].applied > 0 && shown[1].applied == 0 && shown[1].matched > 0);
    assert_eq!(
        (shown[1].role.as_str(), shown[1].address.as_str()),
        ("voter", "c2:7700")
    );
}

#[tokio::test]
async fn a_coordinator_is_removed_from_the_members_and_then_refused() {
    let cluster = with_members();
    let remove = |number, name: &str| v1::RemoveCoordinatorRequest {
        idempotency_key: key(number),
        name: name.to_owned(),
    };
    call!(cluster, remove_coordinator, remove(1, "c2")).unwrap();
    call!(cluster, remove_coordinator, remove(1, "c2")).unwrap();
    assert_eq!(cluster.node.memberships(), [Membership::Remove { member: MemberId(2) }]);
    assert!(
        cluster
            .node
            .read(|state| state.members().get(&MemberId(2)).unwrap().removed)
    );
    refused(call!(cluster, remove_coordinator, remove(2, "c2")), "missing");
    let leads = refused(call!(cluster, remove_coordinator, remove(3, "c1")), "fenced");
    assert!(info(&leads).hint.contains("tresor coordinator transfer"));
    call!(cluster, remove_coordinator, remove(4, "3")).unwrap();
    let only = refused(call!(cluster, remove_coordinator, remove(5, "c1")), "fenced");
    assert_eq!(only.message(), "coordinator c1 is the only one");
}

#[tokio::test]
async fn the_lead_is_given_away() {
    let cluster = with_members();
    let transfer = |to: &str| v1::TransferLeaderRequest { to: to.to_owned() };
    call!(cluster, transfer_leader, transfer("c2")).unwrap();
    call!(cluster, transfer_leader, transfer("")).unwrap();
    assert_eq!(cluster.node.transfers(), [Some(MemberId(2)), None]);
    refused(call!(cluster, transfer_leader, transfer("c9")), "missing");
    let noted = cluster.node.read(|state| {
        let noted: Vec<String> = state.audit().values().map(|entry| entry.object.clone()).collect();
        noted
    });
    assert!(
        noted.contains(&String::from("transfer lead: to coordinator 2")),
        "{noted:?}"
    );
}

#[tokio::test]
async fn a_clock_is_confirmed_once() {
    let mut cluster = Cluster::start();
    let confirm = |number| v1::ConfirmClockRequest {
        idempotency_key: key(number),
    };
    refused(call!(cluster, confirm_clock, confirm(1)), "fenced");
    cluster.node.does(Command::StopExpiry { step: 7_200_000 });
    let report = call!(cluster, get_status, v1::GetStatusRequest {}).unwrap();
    assert!(report.attention[0].contains("stepped ahead by 2 hours"));
    call!(cluster, confirm_clock, confirm(2)).unwrap();
    call!(cluster, confirm_clock, confirm(2)).unwrap();
    assert_eq!(cluster.node.read(|state| state.marks().expiry_stopped), None);
}
