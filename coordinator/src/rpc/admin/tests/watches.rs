use std::time::Duration;

use futures::StreamExt;

use super::*;
use crate::node::presence::{JobProgress, SaidLease};
use crate::state::command::Command;
use tresor_proto::ids::{JobId, MemberId};

async fn watch(cluster: &Cluster, id: JobId) -> Result<crate::rpc::admin::watch::JobStream, Status> {
    let message = v1::WatchJobRequest { id: id.0 };
    call!(cluster, watch_job, message)
}

async fn next(stream: &mut crate::rpc::admin::watch::JobStream) -> Option<Result<v1::Job, Status>> {
    tokio::time::timeout(Duration::from_secs(10), stream.next())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_watch_shows_a_job_until_it_has_ended() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let id = cluster.node.queues(web, MAIN);
    let mut jobs = watch(&cluster, id).await.unwrap();
    assert_eq!(next(&mut jobs).await.unwrap().unwrap().state, "queued");
    let (epoch, _) = cluster.node.leases(id, cluster.worker);
    assert_eq!(next(&mut jobs).await.unwrap().unwrap().state, "running");
    // Progress is in no entry: it is looked for.
    let progress = JobProgress {
        stage: String::from("reading"),
        bytes_done: 5,
        bytes_total: 10,
        bytes_stored: 0,
    };
    cluster.node.read(|state| {
        let said = [SaidLease {
            job: id,
            epoch,
            progress,
        }];
        cluster
            .presence
            .lock()
            .unwrap()
            .beat(state, cluster.worker, LIFE, &said, 0);
    });
    let running = next(&mut jobs).await.unwrap().unwrap();
    assert_eq!((running.stage.as_str(), running.bytes_done), ("reading", 5));
    // What changes others only is not shown again.
    cluster.node.protects("db", MAIN, None);
    cluster.node.does(Command::Cancel { job: id });
    assert!(next(&mut jobs).await.unwrap().unwrap().cancel_requested);
    cluster.node.does(Command::ExpireLease {
        job: id,
        epoch,
        retry_at: None,
    });
    assert_eq!(next(&mut jobs).await.unwrap().unwrap().state, "cancelled");
    assert!(next(&mut jobs).await.is_none());
}

#[tokio::test]
async fn a_job_that_has_ended_is_shown_once() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    cluster.node.makes_point(web, MAIN, cluster.worker);
    let id = cluster.node.read(|state| *state.jobs().last().unwrap().0);
    let mut jobs = watch(&cluster, id).await.unwrap();
    let done = next(&mut jobs).await.unwrap().unwrap();
    assert_eq!((done.state.as_str(), done.counts.unwrap().bytes_stored), ("done", 3));
    assert!(next(&mut jobs).await.is_none());
    refused(watch(&cluster, JobId(9999)).await.map(|_| ()), "missing");
}

#[tokio::test]
async fn a_watch_ends_when_another_coordinator_leads() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let id = cluster.node.queues(web, MAIN);
    let mut jobs = watch(&cluster, id).await.unwrap();
    next(&mut jobs).await.unwrap().unwrap();
    cluster.node.set_leader(MemberId(2));
    let status = refused(next(&mut jobs).await.unwrap(), "retry");
    assert!(status.message().contains("coordinator 2 does"));
    assert!(next(&mut jobs).await.is_none());
}

#[tokio::test]
async fn watchers_are_counted() {
    let mut cluster = Cluster::start();
    let web = cluster.node.protects("web", MAIN, None);
    let id = cluster.node.queues(web, MAIN);
    let mut watchers = Vec::new();
    for _ in 0..1000 {
        watchers.push(watch(&cluster, id).await.unwrap());
    }
    refused(watch(&cluster, id).await.map(|_| ()), "retry");
    watchers.pop();
    assert!(watch(&cluster, id).await.is_ok());
}
