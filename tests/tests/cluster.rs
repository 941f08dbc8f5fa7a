//! A cluster of one coordinator and workers that joined it, over TLS on this machine: from the token to a disk that comes back.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod in_process;

use std::time::Duration;

use tonic::Code;
use tresor_coordinator::process::Folder;
use tresor_proto::token::JoinToken;
use tresor_proto::v1;
use tresor_storage::Kind;
use tresor_worker::agent::{JoinError, Membership};

use in_process::{Cluster, PATIENCE, disk, key, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_joined_makes_a_vault_backs_up_proves_and_restores() {
    let cluster = Cluster::found().await;
    let membership = cluster.join("w1").await;
    let worker = cluster.start("w1", &membership);
    cluster.make_vault().await;
    let path = cluster.path("web.img");
    let bytes = disk(&path);
    let made = cluster.back_up("w1", &path).await;
    assert_eq!(made.counts.unwrap().bytes_logical, bytes.len() as u64);
    assert!(!made.point.is_empty());
    // A second one against the first: all is known.
    let second = cluster.back_up("w1", &path).await;
    assert_eq!(second.counts.unwrap().bytes_new, 0);
    for level in ["names", "contents", "recipes"] {
        let request = v1::StartVerifyRequest {
            idempotency_key: key(),
            vault: String::from("main"),
            level: level.to_owned(),
            ..Default::default()
        };
        let job = cluster.admin.clone().start_verify(cluster.ask(request)).await.unwrap();
        assert_eq!(cluster.done(job.into_inner()).await.findings, 0, "{level}");
    }
    let to = cluster.path("back.img");
    cluster.restore("w1", &to).await;
    assert!(std::fs::read(&to).unwrap() == bytes);
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_works_on_after_its_coordinator_was_started_again() {
    let cluster = Cluster::found().await;
    let membership = cluster.join("w1").await;
    let worker = cluster.start("w1", &membership);
    cluster.make_vault().await;
    cluster.stop.cancel();
    let Cluster {
        folder,
        address,
        token,
        admin,
        serving,
        ..
    } = cluster;
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
    let (stop, serving) = serve(Folder::new(folder.path().join("coordinator")), &address).await;
    let cluster = Cluster {
        folder,
        address,
        token,
        admin,
        stop,
        serving,
    };
    let path = cluster.path("web.img");
    let bytes = disk(&path);
    cluster.back_up("w1", &path).await;
    let to = cluster.path("back.img");
    cluster.restore("w1", &to).await;
    assert!(std::fs::read(&to).unwrap() == bytes);
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_is_kept_renewed_and_made_once() {
    let cluster = Cluster::found().await;
    let folder = cluster.path("w1");
    let joined = cluster.join("w1").await;
    assert_eq!(joined.cluster_name, "test");
    let name = joined.identity.current().name();
    assert!(!folder.join("joining").exists(), "what was begun is done");

    let loaded = Membership::load(&folder).unwrap().unwrap();
    assert_eq!(loaded.identity.current().name(), name);
    let before = loaded.identity.current().certificate().fingerprint;
    loaded.renew(&folder).await.unwrap();
    let after = loaded.identity.current().certificate().fingerprint;
    assert_ne!(before, after);
    let again = Membership::load(&folder).unwrap().unwrap();
    assert_eq!(again.identity.current().certificate().fingerprint, after);
    again.renew(&folder).await.unwrap();

    let token = cluster.join_token().await;
    let addresses = vec![cluster.address.clone()];
    let second = Membership::join(&folder, addresses.clone(), &token, "w1")
        .await
        .unwrap_err();
    assert!(matches!(second, JoinError::Joined { .. }), "{second}");
    // A token of another authority goes to nobody.
    let other = JoinToken {
        ca: tresor_proto::tls::Fingerprint([1; 32]),
        ..token.clone()
    };
    let refused = Membership::join(&cluster.path("w2"), addresses.clone(), &other, "w2")
        .await
        .unwrap_err();
    assert!(
        matches!(refused, JoinError::Connect(_)) && refused.kind() == Kind::Denied,
        "{refused}"
    );
    // And a good one is good once.
    let third = Membership::join(&cluster.path("w2"), addresses.clone(), &token, "w2")
        .await
        .unwrap();
    assert_ne!(third.identity.current().name().id, name.id);
    let used = Membership::join(&cluster.path("w3"), addresses, &token, "w3")
        .await
        .unwrap_err();
    assert_ne!(used.kind(), Kind::Retry, "{used}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_removed_is_refused_and_does_not_end() {
    let cluster = Cluster::found().await;
    let membership = cluster.join("w1").await;
    let worker = cluster.start("w1", &membership);
    cluster.make_vault().await;
    let request = v1::RemoveWorkerRequest {
        force: true,
        idempotency_key: key(),
        name: String::from("w1"),
    };
    cluster.admin.clone().remove_worker(cluster.ask(request)).await.unwrap();
    // Its connection ends and no other is made: for the worker that looks like a coordinator that is away.
    let mut client = v1::agent_client::AgentClient::new(membership.connector.channel());
    let refused = client.beat(v1::BeatRequest::default()).await.unwrap_err();
    assert_ne!(
        refused.code(),
        Code::InvalidArgument,
        "nobody looked at what was asked: {refused:?}"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!worker.running.is_finished(), "it waits until it is told to stop");
    worker.stop().await;
    cluster.stop().await;
}
