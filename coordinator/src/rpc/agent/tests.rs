//! What workers hear, by what the log does with what they say.

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tresor_proto::ids::{Epoch, ItemId, JobId, PointId, VaultId, WorkerId};
use tresor_proto::v1;
use tresor_proto::v1::ErrorInfo;
use tresor_proto::v1::agent_server::Agent;
use tresor_proto::v1::complete_request::Outcome;
use tresor_proto::v1::lease::Work as WorkMessage;

use super::super::caller::Caller;
use super::super::catalogue::decode;
use super::super::context::SecretBox as _;
use super::super::testing::Cluster;
use super::{AgentService, ByPlacement};
use crate::node::NodeError;
use crate::node::testing::TestNode;
use crate::state::State;
use crate::state::command::{Command, FailureKind, JobSpec, RestoreTarget, VaultOrigin, VaultSpec, Work};
use crate::state::entry::{Actor, Time};
use crate::state::rows::{Job, JobState};
use crate::testing::{Acts as _, LIFE, MAIN};

mod watches;

const SECRET: [u8; 32] = [0x5e; 32];

/// A leader with the workers `w1` and `w2` and the vault `main`, which is still to be made.
struct Story {
    cluster: Cluster,
    node: TestNode,
    service: AgentService,
    w1: WorkerId,
    w2: WorkerId,
    stopping: CancellationToken,
}

impl Story {
    fn begin() -> Self {
        let cluster = Cluster::new();
        let mut node = cluster.found("c1:7700");
        let w1 = node.adds_worker("w1");
        let w2 = node.adds_worker("w2");
        let stopping = CancellationToken::new();
        let service = AgentService::new(
            cluster.services(&node),
            cluster.key.clone(),
            Arc::new(ByPlacement::default()),
            stopping.clone(),
        );
        Self {
            cluster,
            node,
            service,
            w1,
            w2,
            stopping,
        }
    }

    /// Enters a vault with a real key.
    fn adds_vault(&mut self, vault: VaultId, name: &str, origin: VaultOrigin) -> JobId {
        let key = self.cluster.key.wrap_vault_key(vault, &SECRET).unwrap();
        JobId(self.node.makes(Command::AddVault(VaultSpec {
            vault,
            name: name.to_owned(),
            url: format!("file:///srv/{name}"),
            region: String::from("here"),
            profile: String::from("vm"),
            origin,
            key,
        })))
    }

    /// With the vault `main` made.
    async fn with_vault() -> Self {
        let mut story = Self::begin();
        story.adds_vault(MAIN, "main", VaultOrigin::Make);
        let lease = story.next(story.w1).await.unwrap().unwrap();
        story.complete(story.w1, claimed(&lease)).await.unwrap();
        story
    }

    fn by<T>(&self, worker: WorkerId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(Caller {
            actor: Actor::Worker(worker),
            name: String::from("w"),
            role: String::from("worker"),
        });
        request
    }

    async fn next_with(&self, worker: WorkerId, wait_ms: u32) -> Result<Option<v1::Lease>, Status> {
        let request = v1::NextLeaseRequest {
            life: LIFE.to_vec().into(),
            free: 1,
            wait_ms,
        };
        let answer = Agent::next_lease(&self.service, self.by(worker, request)).await;
        answer.map(|answer| answer.into_inner().lease)
    }

    async fn next(&self, worker: WorkerId) -> Result<Option<v1::Lease>, Status> {
        self.next_with(worker, 0).await
    }

    async fn complete(&self, worker: WorkerId, request: v1::CompleteRequest) -> Result<(), Status> {
        Agent::complete(&self.service, self.by(worker, request))
            .await
            .map(|_| ())
    }

    async fn fail(&self, worker: WorkerId, lease: &v1::Lease, kind: &str) -> Result<(), Status> {
        let request = v1::FailRequest {
            id: lease.id,
            kind: kind.to_owned(),
            message: String::from("the disk is away"),
            hint: String::new(),
            ..Default::default()
        };
        Agent::fail(&self.service, self.by(worker, request)).await.map(|_| ())
    }

    async fn beat(&self, worker: WorkerId, leases: &[&v1::Lease]) -> Result<v1::BeatResponse, Status> {
        self.beat_with(worker, leases, Vec::new()).await
    }

    async fn beat_with(
        &self,
        worker: WorkerId,
        leases: &[&v1::Lease],
        shares: Vec<v1::Share>,
    ) -> Result<v1::BeatResponse, Status> {
        let leases = leases.iter().map(|lease| v1::LeaseProgress {
            id: lease.id,
            stage: String::from("reading"),
            bytes_done: 5,
            bytes_total: 10,
            bytes_stored: 1,
        });
        let request = v1::BeatRequest {
            life: LIFE.to_vec().into(),
            wall_ms: jiff::Timestamp::now().as_millisecond() + 1500,
            leases: leases.collect(),
            shares,
        };
        let answer = Agent::beat(&self.service, self.by(worker, request)).await;
        answer.map(Response::into_inner)
    }

    fn job(&self, lease: &v1::Lease) -> Job {
        let id = JobId(lease.id.unwrap().job);
        self.node.read(|state| state.jobs().get(&id).unwrap().clone())
    }

    fn enqueue(&mut self, work: Work) -> JobId {
        JobId(self.node.makes(Command::Enqueue(JobSpec {
            vault: MAIN,
            work,
            priority: 0,
            not_before: Time(0),
            occurrence: None,
        })))
    }

    /// A backup of an item that is protected if need be, leased to `w1`.
    async fn backup(&mut self, name: &str) -> v1::Lease {
        let item = crate::testing::item_id(name, MAIN);
        if !self.node.read(|state| state.items().contains(&item)) {
            self.node.protects(name, MAIN, None);
        }
        self.enqueue(Work::Backup { item, keep_until: None });
        self.next(self.w1).await.unwrap().unwrap()
    }

    /// A point of an item, made by `w1`.
    async fn point(&mut self, name: &str, id: u8) -> PointId {
        let lease = self.backup(name).await;
        self.complete(self.w1, made(&lease, id)).await.unwrap();
        PointId([id; 16])
    }
}

fn claimed(lease: &v1::Lease) -> v1::CompleteRequest {
    v1::CompleteRequest {
        report: None,
        id: lease.id,
        session: lease.session,
        counts: None,
        outcome: Some(Outcome::Claimed(v1::Claimed {
            n: 3,
            cluster: 77,
            header: vec![3; 32].into(),
            points_unreadable: 0,
        })),
    }
}

fn made(lease: &v1::Lease, point: u8) -> v1::CompleteRequest {
    v1::CompleteRequest {
        report: None,
        id: lease.id,
        session: lease.session,
        counts: Some(v1::Counts {
            bytes_read: 100,
            bytes_new: 50,
            bytes_stored: 25,
            bytes_logical: 1000,
            took_ms: 9,
            ..v1::Counts::default()
        }),
        outcome: Some(Outcome::Point(v1::PointMade {
            point: vec![point; 16].into(),
            time: String::from("2026-11-20T12:00:00Z"),
            manifest: vec![point; 32].into(),
            consistency: String::from("crash"),
            findings_seen: lease.findings,
            ..v1::PointMade::default()
        })),
    }
}

fn info(status: &Status) -> ErrorInfo {
    <ErrorInfo as prost::Message>::decode(status.details()).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    info(&result.unwrap_err()).kind
}

#[tokio::test]
async fn a_worker_that_registers_is_told_how_long_leases_last_and_what_it_said_is_kept() {
    let story = Story::begin();
    let request = v1::RegisterRequest {
        life: vec![9; 16].into(),
        host: String::from("host-1"),
        version: String::from("0.1.0"),
        labels: [(String::from("site"), String::from("north"))].into(),
        permits: 4,
        stores: vec![String::from("s3://north/")],
        ..v1::RegisterRequest::default()
    };
    let answer = story.service.clone();
    let answer = Agent::register(&answer, story.by(story.w1, request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.name.as_str(), answer.lease_ms, answer.beat_ms),
        ("w1", 30_000, 10_000)
    );
    let row = story.node.read(|state| state.workers().get(&story.w1).unwrap().clone());
    assert_eq!(row.life, Some([9; 16]));
    assert_eq!((row.facts.permits, row.facts.labels["site"].as_str()), (4, "north"));
    // The life before it is over.
    assert_eq!(kind(story.next(story.w1).await), "fenced");
    assert_eq!(kind(story.beat(story.w1, &[]).await), "fenced");
}

#[tokio::test]
async fn the_lease_of_a_claim_has_the_vaults_key_and_whether_it_is_made() {
    let mut story = Story::begin();
    let job = story.adds_vault(MAIN, "main", VaultOrigin::Make);
    let lease = story.next(story.w1).await.unwrap().unwrap();
    let id = lease.id.unwrap();
    assert_eq!(
        (id.job, lease.session, lease.attempt, lease.lease_ms),
        (job.0, id.epoch, 1, 30_000)
    );
    let vault = lease.vault.clone().unwrap();
    assert_eq!(vault.key.as_ref(), SECRET);
    assert_eq!((vault.name.as_str(), vault.url.as_str()), ("main", "file:///srv/main"));
    assert_eq!((vault.region.as_str(), vault.profile.as_str()), ("here", "vm"));
    assert_eq!((vault.claim, vault.cluster, vault.header.len()), (0, 0, 0));
    assert_eq!(lease.work, Some(WorkMessage::Claim(v1::ClaimWork { make: true })));
    story.complete(story.w1, claimed(&lease)).await.unwrap();
    let lease = story.backup("web").await;
    let vault = lease.vault.unwrap();
    assert_eq!(
        (vault.claim, vault.cluster, vault.header.as_ref()),
        (3, 77, [3; 32].as_slice())
    );
}

#[tokio::test]
async fn the_lease_of_a_backup_names_the_parent_that_its_session_pins() {
    let mut story = Story::with_vault().await;
    let first = story.backup("web").await;
    let Some(WorkMessage::Backup(work)) = first.work.clone() else {
        panic!("{first:?}");
    };
    assert_eq!(
        (work.item_name.as_str(), work.parent.len(), work.parent_manifest.len()),
        ("web", 0, 0)
    );
    assert_eq!(work.disks[0].path, "/srv/web.qcow2");
    story.complete(story.w1, made(&first, 1)).await.unwrap();
    let second = story.backup("web").await;
    let Some(WorkMessage::Backup(work)) = second.work.clone() else {
        panic!("{second:?}");
    };
    assert_eq!(work.parent.as_ref(), [1; 16]);
    assert_eq!(work.parent_manifest.as_ref(), [1; 32]);
    assert!(!work.parent_harmed);
    assert_eq!(second.attempt, 1);
    assert!(story.node.read(|state| state.is_pinned(PointId([1; 16]))));
}

#[tokio::test]
async fn leases_of_restores_verifies_and_catalogues_say_what_they_are_about() {
    let mut story = Story::with_vault().await;
    let point = story.point("web", 1).await;
    let target = RestoreTarget {
        disk: String::from("vda"),
        path: String::from("/srv/new.qcow2"),
        format: String::from("qcow2"),
        overwrite: true,
        in_place: false,
    };
    story.enqueue(Work::Restore {
        point,
        host: String::from("w1"),
        target,
    });
    let lease = story.next(story.w1).await.unwrap().unwrap();
    let Some(WorkMessage::Restore(work)) = lease.work else {
        panic!("{lease:?}");
    };
    assert_eq!(
        (work.point.as_ref(), work.manifest.as_ref()),
        ([1; 16].as_slice(), [1; 32].as_slice())
    );
    assert_eq!(
        (work.disk.as_str(), work.path.as_str(), work.overwrite),
        ("vda", "/srv/new.qcow2", true)
    );
    story.enqueue(Work::Verify {
        point: Some(point),
        level: String::from("contents"),
    });
    let lease = story.next(story.w2).await.unwrap().unwrap();
    let Some(WorkMessage::Verify(work)) = lease.work else {
        panic!("{lease:?}");
    };
    let item = crate::testing::item_id("web", MAIN);
    assert_eq!(
        (work.level.as_str(), work.item.as_ref()),
        ("contents", item.0.as_slice())
    );
    story.enqueue(Work::Catalogue);
    let lease = story.next(story.w2).await.unwrap().unwrap();
    let Some(WorkMessage::Catalogue(work)) = lease.work else {
        panic!("{lease:?}");
    };
    assert_eq!(work.index, lease.id.unwrap().epoch);
}

#[tokio::test]
async fn who_waits_for_work_gets_it_as_soon_as_there_is_some() {
    let mut story = Story::with_vault().await;
    let none = story.next_with(story.w1, 0).await.unwrap();
    assert_eq!(none, None);
    let waiting = {
        let service = story.service.clone();
        let request = v1::NextLeaseRequest {
            life: LIFE.to_vec().into(),
            free: 1,
            wait_ms: 20_000,
        };
        let request = story.by(story.w1, request);
        tokio::spawn(async move { Agent::next_lease(&service, request).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    let item = story.node.protects("web", MAIN, None);
    let job = story.enqueue(Work::Backup { item, keep_until: None });
    let lease = waiting.await.unwrap().unwrap().into_inner().lease.unwrap();
    assert_eq!(lease.id.unwrap().job, job.0);
}

#[tokio::test]
async fn two_workers_that_ask_at_once_get_two_jobs() {
    let mut story = Story::with_vault().await;
    for name in ["a1", "b1"] {
        let item = story.node.protects(name, MAIN, None);
        story.enqueue(Work::Backup { item, keep_until: None });
    }
    let (one, other) = tokio::join!(story.next(story.w1), story.next(story.w2));
    let job = |lease: Result<Option<v1::Lease>, Status>| lease.unwrap().unwrap().id.unwrap().job;
    assert_ne!(job(one), job(other));
}

#[tokio::test]
async fn a_worker_without_free_permits_waits_and_gets_nothing() {
    let mut story = Story::with_vault().await;
    let item = story.node.protects("web", MAIN, None);
    story.enqueue(Work::Backup { item, keep_until: None });
    let request = v1::NextLeaseRequest {
        life: LIFE.to_vec().into(),
        free: 0,
        wait_ms: 50,
    };
    let answer = Agent::next_lease(&story.service, story.by(story.w1, request))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().lease, None);
    assert!(story.next(story.w1).await.unwrap().is_some());
}

#[tokio::test]
async fn who_waits_is_told_when_the_leader_changes_or_the_coordinator_stops() {
    let story = Story::with_vault().await;
    let ask = || {
        let service = story.service.clone();
        let request = v1::NextLeaseRequest {
            life: LIFE.to_vec().into(),
            free: 1,
            wait_ms: 30_000,
        };
        let request = story.by(story.w1, request);
        tokio::spawn(async move { Agent::next_lease(&service, request).await })
    };
    let waiting = ask();
    tokio::time::sleep(Duration::from_millis(50)).await;
    story.node.set_leader(tresor_proto::ids::MemberId(2));
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), info(&status).kind.as_str()),
        (Code::Unavailable, "retry")
    );
    story.node.set_leader(tresor_proto::ids::MemberId(1));
    let waiting = ask();
    tokio::time::sleep(Duration::from_millis(50)).await;
    story.stopping.cancel();
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), info(&status).kind.as_str()),
        (Code::Unavailable, "retry")
    );
}

#[tokio::test]
async fn a_job_whose_point_is_gone_fails_and_is_not_offered_for_ever() {
    let mut story = Story::with_vault().await;
    let point = story.point("web", 1).await;
    let job = story.enqueue(Work::Verify {
        point: Some(point),
        level: String::from("names"),
    });
    story.node.does(Command::HidePoints {
        points: vec![point],
        by_retention: false,
    });
    story.node.advance(crate::state::UNDO_MS + 1);
    story.node.does(Command::GiveUpPoints { points: vec![point] });
    assert!(!story.node.read(|state| state.points().contains(&point)));
    assert_eq!(story.next(story.w1).await.unwrap(), None);
    let state = story.node.read(|state| state.jobs().get(&job).unwrap().state);
    assert_eq!(state, JobState::Failed);
}

#[tokio::test]
async fn a_beat_renews_what_the_log_has_and_tells_what_nobody_wants_any_more() {
    let mut story = Story::with_vault().await;
    let one = story.backup("a1").await;
    let other = story.backup("b1").await;
    let answer = story.beat(story.w1, &[&one, &other]).await.unwrap();
    assert_eq!(answer.held, [one.id.unwrap(), other.id.unwrap()]);
    assert!(answer.cancelled.is_empty() && !answer.drained);
    let presence = story.service.services.presence();
    let heard = presence.heard(story.w1).unwrap();
    assert!((1000..2000).contains(&heard.clock_ms), "{heard:?}");
    let progress = presence.progress(JobId(one.id.unwrap().job)).unwrap();
    assert_eq!((progress.stage.as_str(), progress.bytes_done), ("reading", 5));
    story.node.does(Command::Cancel {
        job: JobId(one.id.unwrap().job),
    });
    story.node.does(Command::Drain {
        worker: story.w1,
        drained: true,
    });
    let answer = story.beat(story.w1, &[&one, &other]).await.unwrap();
    assert_eq!(answer.cancelled, [one.id.unwrap()]);
    assert_eq!(answer.held.len(), 2);
    assert!(answer.drained);
    // Others' leases are not renewed, and neither are ended ones.
    assert_eq!(story.beat(story.w2, &[&other]).await.unwrap().held, []);
    story.complete(story.w1, made(&other, 9)).await.unwrap();
    assert_eq!(story.beat(story.w1, &[&other]).await.unwrap().held, []);
}

#[tokio::test]
async fn a_leader_that_cannot_ask_a_majority_renews_nothing() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    story.node.fail_with(Some(NodeError::NoMajority));
    let status = story.beat(story.w1, &[&lease]).await.unwrap_err();
    assert_eq!(
        (status.code(), info(&status).kind.as_str()),
        (Code::Unavailable, "retry")
    );
}

#[tokio::test]
async fn a_complete_whose_answer_was_lost_is_answered_as_the_first_one_was() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    story.node.lose_next_answer();
    let lost = story.complete(story.w1, made(&lease, 1)).await.unwrap_err();
    assert_eq!((lost.code(), info(&lost).kind.as_str()), (Code::Unavailable, "retry"));
    assert!(story.node.read(|state| state.points().contains(&PointId([1; 16]))));
    story.complete(story.w1, made(&lease, 1)).await.unwrap();
    story.complete(story.w1, made(&lease, 1)).await.unwrap();
    assert_eq!(story.node.read(|state| state.points().len()), 1);
    // Something else under the same lease is something else.
    assert_eq!(kind(story.complete(story.w1, made(&lease, 2)).await), "fenced");
    // And what another one repeats is not theirs.
    assert!(story.complete(story.w2, made(&lease, 1)).await.is_err());
    let job = story.job(&lease);
    assert_eq!(job.counts.bytes_stored, 25);
    assert!(matches!(
        job.state,
        JobState::Done {
            point: Some(PointId(_))
        }
    ));
}

#[tokio::test]
async fn a_complete_that_was_refused_is_decided_anew_once_the_worker_has_looked() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    story.node.does(Command::ReportFindings {
        vault: MAIN,
        harmed: Vec::new(),
    });
    assert_eq!(kind(story.complete(story.w1, made(&lease, 1)).await), "fenced");
    let mut looked = made(&lease, 1);
    if let Some(Outcome::Point(point)) = &mut looked.outcome {
        point.findings_seen = story.node.read(|state| state.vaults().get(&MAIN).unwrap().findings);
    }
    story.complete(story.w1, looked).await.unwrap();
}

#[tokio::test]
async fn points_found_harmed_on_the_way_are_called_so_after_the_commit() {
    let mut story = Story::with_vault().await;
    let parent = story.point("web", 1).await;
    let lease = story.backup("web").await;
    let mut request = made(&lease, 2);
    if let Some(Outcome::Point(point)) = &mut request.outcome {
        point.harmed = vec![parent.0.to_vec().into()];
    }
    story.complete(story.w1, request.clone()).await.unwrap();
    let harmed = |point: PointId| story.node.read(|state| state.points().get(&point).unwrap().harmed);
    assert!(harmed(parent) && !harmed(PointId([2; 16])));
    let findings = story.node.read(|state| state.vaults().get(&MAIN).unwrap().findings);
    story.complete(story.w1, request).await.unwrap();
    let again = story.node.read(|state| state.vaults().get(&MAIN).unwrap().findings);
    assert_eq!(again, findings, "a repeated report is one report");
    let next = story.backup("web").await;
    let Some(WorkMessage::Backup(work)) = next.work else {
        panic!("{next:?}");
    };
    assert!(!work.parent_harmed, "the newest point is whole");
    assert_eq!(next.findings, findings);
}

#[tokio::test]
async fn a_failure_that_passes_is_tried_again_later_and_another_one_ends_the_job() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    story.fail(story.w1, &lease, "retry").await.unwrap();
    let job = story.job(&lease);
    let JobState::Queued { not_before } = job.state else {
        panic!("{job:?}");
    };
    let failed = job.attempts[0].failure.clone().unwrap();
    assert_eq!(
        (failed.kind, failed.message.as_str()),
        (FailureKind::Retry, "the disk is away")
    );
    assert!(not_before > job.attempts[0].ended.unwrap());
    // Said again, it is heard again, and changes nothing.
    assert!(story.fail(story.w1, &lease, "retry").await.is_ok());
    assert_eq!(story.job(&lease), job);
    let lease = story.backup("db").await;
    story.fail(story.w1, &lease, "invalid").await.unwrap();
    assert_eq!(story.job(&lease).state, JobState::Failed);
    let lease = story.backup("mail").await;
    story.fail(story.w1, &lease, "cancelled").await.unwrap();
    assert_eq!(story.job(&lease).state, JobState::Cancelled);
}

#[tokio::test]
async fn nobody_speaks_for_another_workers_lease() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    assert_eq!(kind(story.complete(story.w2, made(&lease, 1)).await), "denied");
    assert_eq!(kind(story.fail(story.w2, &lease, "retry").await), "denied");
    let points = v1::AgentPointsRequest {
        id: lease.id,
        point: bytes::Bytes::new(),
    };
    let answer = Agent::points(&story.service, story.by(story.w2, points)).await;
    assert_eq!(answer.err().unwrap().code(), Code::PermissionDenied);
    let catalogue = v1::CatalogueRequest { id: lease.id };
    let answer = Agent::catalogue(&story.service, story.by(story.w2, catalogue)).await;
    assert_eq!(answer.err().unwrap().code(), Code::PermissionDenied);
    // A lease that nobody has.
    let mut other = lease.clone();
    other.id = Some(v1::LeaseId {
        epoch: Epoch(4711).0,
        ..lease.id.unwrap()
    });
    assert_eq!(kind(story.complete(story.w1, made(&other, 1)).await), "fenced");
    story.complete(story.w1, made(&lease, 1)).await.unwrap();
    // Who has no caller has not been looked at.
    let request = Request::new(v1::BeatRequest::default());
    assert_eq!(
        Agent::beat(&story.service, request).await.unwrap_err().code(),
        Code::Internal
    );
}

async fn all<T, S>(stream: Result<Response<S>, Status>) -> Vec<T>
where
    S: tokio_stream::Stream<Item = Result<T, Status>> + Unpin,
{
    let mut stream = stream.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        messages.push(message.unwrap());
    }
    messages
}

#[tokio::test]
async fn the_points_of_a_vault_come_all_or_one_also_after_the_lease_has_ended() {
    let mut story = Story::with_vault().await;
    story.point("web", 1).await;
    let hidden = story.point("web", 2).await;
    story.point("db", 3).await;
    story.node.does(Command::HidePoints {
        points: vec![hidden],
        by_retention: false,
    });
    // Of another vault.
    let other = VaultId([0x22; 16]);
    story.node.makes_vault(other, "other", story.w2);
    let item = story.node.protects("else", other, None);
    let elsewhere = story.node.makes_point(item, other, story.w2);
    let lease = story.backup("web").await;
    story.fail(story.w1, &lease, "invalid").await.unwrap();
    let ask = |point: Vec<u8>| {
        let request = v1::AgentPointsRequest {
            id: lease.id,
            point: point.into(),
        };
        Agent::points(&story.service, story.by(story.w1, request))
    };
    let points: Vec<v1::AgentPoint> = all(ask(Vec::new()).await)
        .await
        .into_iter()
        .flat_map(|m| m.points)
        .collect();
    let mut ids: Vec<u8> = points.iter().map(|point| point.point[0]).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    for point in &points {
        assert_eq!(point.hidden_at.is_empty(), point.point[0] != 2);
        assert_eq!(point.manifest.as_ref(), [point.point[0]; 32]);
    }
    let one = |id: PointId| {
        let asked = ask(id.0.to_vec());
        async move { all(asked.await).await.into_iter().flat_map(|m| m.points).count() }
    };
    assert_eq!(one(PointId([3; 16])).await, 1);
    assert_eq!(one(PointId([9; 16])).await, 0);
    assert_eq!(one(elsewhere).await, 0, "points of other vaults are not told");
}

#[tokio::test]
async fn a_catalogue_has_the_hidden_points_first_and_then_what_a_coordinator_needs() {
    let mut story = Story::with_vault().await;
    story.point("web", 1).await;
    let hidden = story.point("web", 2).await;
    story.node.does(Command::HidePoints {
        points: vec![hidden],
        by_retention: false,
    });
    story.enqueue(Work::Catalogue);
    let lease = story.next(story.w1).await.unwrap().unwrap();
    let request = v1::CatalogueRequest { id: lease.id };
    let pieces = all(Agent::catalogue(&story.service, story.by(story.w1, request)).await).await;
    assert!(!pieces[0].written_at.is_empty());
    let first_state = pieces.iter().position(|piece| !piece.state.is_empty()).unwrap();
    let last_hidden = pieces.iter().rposition(|piece| !piece.hidden.is_empty()).unwrap();
    assert!(last_hidden < first_state);
    let told: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| &piece.hidden)
        .map(|point| point.point[0])
        .collect();
    assert_eq!(told, [2]);
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.state.to_vec()).collect();
    let decoded = decode(&bytes).unwrap();
    assert_eq!((decoded.header.vault, decoded.header.index), (MAIN, lease.session));
    let state = decoded.state().unwrap();
    assert_eq!(state.points().len(), 2);
    // Of another job there is none.
    let lease = story.backup("web").await;
    let request = v1::CatalogueRequest { id: lease.id };
    let refused = Agent::catalogue(&story.service, story.by(story.w1, request)).await;
    assert_eq!(refused.err().unwrap().code(), Code::InvalidArgument);
}

fn found(point: u16) -> v1::AdoptedPoint {
    let mut id = [0xaa; 16];
    id[..2].copy_from_slice(&point.to_be_bytes());
    v1::AdoptedPoint {
        point: id.to_vec().into(),
        item: vec![0xbb; 16].into(),
        item_name: String::from("found\nthere"),
        time: String::from("2026-01-01T00:00:00Z"),
        keep_until: String::new(),
        manifest: vec![4; 32].into(),
        consistency: String::from("crash"),
        hidden_at: String::new(),
        held: String::new(),
    }
}

#[tokio::test]
async fn what_the_newest_catalogue_says_is_held_is_held_and_told_to_auditors() {
    let mut story = Story::begin();
    story.adds_vault(MAIN, "main", VaultOrigin::TakeOver);
    let lease = story.next(story.w1).await.unwrap().unwrap();
    let held = |number: u16, reason: &str| v1::AdoptedPoint {
        held: reason.to_owned(),
        ..found(number)
    };
    let adopt = |points: Vec<v1::AdoptedPoint>| {
        let request = v1::AdoptPointsRequest { id: lease.id, points };
        Agent::adopt_points(&story.service, story.by(story.w1, request))
    };
    let long = "ä\n".repeat(300);
    // One is known already, as of a backup that was made before the hold.
    adopt(vec![found(1)]).await.unwrap();
    adopt(vec![held(1, "for the auditors"), held(2, &long), found(3)])
        .await
        .unwrap();
    let reasons = || {
        story.node.read(|state| {
            let points = state.points_of(ItemId([0xbb; 16])).collect::<Vec<_>>();
            let held = |id| state.points().get(id).unwrap().held.as_deref().map(str::to_owned);
            points.iter().map(held).collect::<Vec<_>>()
        })
    };
    let expected = [Some("for the auditors".to_owned()), Some("ä".repeat(127)), None];
    let mut found_held = reasons();
    found_held.sort();
    let mut sorted = expected.to_vec();
    sorted.sort();
    assert_eq!(found_held, sorted);
    let holds = || {
        let is_hold = |state: &State| {
            state
                .audit()
                .iter()
                .filter(|(_, row)| row.action.contains("hold"))
                .count()
        };
        story.node.read(is_hold)
    };
    assert_eq!(holds(), 2);
    // Repeated, and with another reason: what is held stays as it is.
    adopt(vec![held(1, "another reason")]).await.unwrap();
    assert_eq!(holds(), 2);
}

#[tokio::test]
async fn points_of_a_vault_that_is_taken_over_are_adopted_once() {
    let mut story = Story::begin();
    story.adds_vault(MAIN, "main", VaultOrigin::TakeOver);
    let lease = story.next(story.w1).await.unwrap().unwrap();
    assert_eq!(lease.work, Some(WorkMessage::Claim(v1::ClaimWork { make: false })));
    let request = v1::AdoptPointsRequest {
        id: lease.id,
        points: (0..1200).map(found).collect(),
    };
    let adopt = |worker: WorkerId| Agent::adopt_points(&story.service, story.by(worker, request.clone()));
    assert_eq!(adopt(story.w1).await.unwrap().into_inner().adopted, 1200);
    // Repeated, it is answered the same.
    assert_eq!(adopt(story.w1).await.unwrap().into_inner().adopted, 1200);
    assert_eq!(adopt(story.w2).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(
        story.node.read(|state| state.points_of(ItemId([0xbb; 16])).count()),
        1200
    );
    story.complete(story.w1, claimed(&lease)).await.unwrap();
    assert_eq!(kind(adopt(story.w1).await), "fenced");
}

#[tokio::test]
async fn only_a_vault_that_is_taken_over_has_points_to_adopt() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    let request = v1::AdoptPointsRequest {
        id: lease.id,
        points: vec![found(1)],
    };
    let refused = Agent::adopt_points(&story.service, story.by(story.w1, request)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_log_is_taken_of_its_own_worker_and_only_if_it_can_be_read() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    let report = |log: Vec<u8>| v1::ReportLogRequest {
        id: lease.id,
        log: log.into(),
    };
    let log = v1::AttemptLog {
        summary: vec![String::from("ended: done")],
        ..v1::AttemptLog::default()
    };
    let log = tresor_proto::attempt_log::encode(&log).unwrap();
    let refused = Agent::report_log(&story.service, story.by(story.w2, report(log.clone()))).await;
    assert_eq!(kind(refused), "denied");
    let refused = Agent::report_log(&story.service, story.by(story.w1, report(vec![1, 2, 3]))).await;
    assert_eq!(kind(refused), "invalid");
    let epoch = Epoch(lease.id.unwrap().epoch);
    assert!(!story.node.read(|state| state.has_log(epoch)));
    // Also after its end, and again after an answer that was lost.
    story.complete(story.w1, made(&lease, 1)).await.unwrap();
    for _ in 0..2 {
        let taken = Agent::report_log(&story.service, story.by(story.w1, report(log.clone()))).await;
        assert!(taken.is_ok(), "{taken:?}");
    }
    assert!(story.node.read(|state| state.has_log(epoch)));
}

#[tokio::test]
async fn a_lease_says_to_which_trace_its_attempt_belongs() {
    let mut story = Story::with_vault().await;
    let lease = story.backup("web").await;
    let own: tresor_proto::trace::Traceparent = lease.traceparent.parse().unwrap();
    assert!(own.sampled);
    let other = story.backup("db").await;
    assert_ne!(other.traceparent, lease.traceparent);
}
