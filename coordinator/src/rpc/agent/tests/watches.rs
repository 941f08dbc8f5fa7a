//! What a process that watches is told, and when; and who gets the keys of the vaults that slots are kept of.

use super::*;
use crate::node::testing::TestNode;
use crate::state::limits::{LimitRates, LimitRule, LimitSubject};
use crate::testing::{registers, serves};
use tresor_proto::ids::MemberId;

/// How long a new map may take.
const SOON: Duration = Duration::from_secs(1);

type Updates = super::super::contents::Pieces<v1::WatchUpdate>;

impl Story {
    async fn watch(&self, worker: WorkerId, life: [u8; 16]) -> Result<Updates, Status> {
        let request = v1::WatchRequest {
            life: life.to_vec().into(),
        };
        let answer = Agent::watch(&self.service, self.by(worker, request)).await;
        answer.map(Response::into_inner)
    }

    async fn index_vaults(&self, worker: WorkerId, life: [u8; 16]) -> Result<Vec<v1::LeaseVault>, Status> {
        let request = v1::IndexVaultsRequest {
            life: life.to_vec().into(),
        };
        let answer = Agent::index_vaults(&self.service, self.by(worker, request)).await;
        answer.map(|answer| answer.into_inner().vaults)
    }
}

fn grants(node: &mut TestNode, worker: WorkerId, slots: std::ops::Range<u16>) -> u64 {
    let seen = node.read(|state| state.marks().slot_map);
    let grants = slots.map(|slot| (slot, worker)).collect();
    node.makes(Command::GrantSlots { seen, grants })
}

async fn soon(updates: &mut Updates) -> v1::WatchUpdate {
    tokio::time::timeout(SOON, updates.next())
        .await
        .expect("it comes within a second")
        .unwrap()
        .unwrap()
}

async fn ends(updates: &mut Updates) -> Status {
    let status = tokio::time::timeout(SOON, updates.next())
        .await
        .expect("it ends within a second");
    let status = status.unwrap().unwrap_err();
    assert!(updates.next().await.is_none());
    status
}

#[tokio::test]
async fn a_watch_tells_all_first_and_then_what_changed_within_a_second() {
    let mut story = Story::begin();
    let s1 = serves(&mut story.node, "s1");
    let mut updates = story.watch(story.w1, LIFE).await.unwrap();
    let first = soon(&mut updates).await;
    let map = first.slots.unwrap();
    assert_eq!((map.version, map.runs.len(), first.vaults), (0, 0, 0));
    assert_eq!(map.applied, story.node.read(|state| state.marks().applied));

    let granted = grants(&mut story.node, s1, 0..4096);
    let map = soon(&mut updates).await.slots.unwrap();
    assert_eq!(
        (map.version, map.runs.len(), map.owners[0].serves.as_str()),
        (granted, 1, "s1:7430")
    );
    assert!(map.applied >= granted);

    story.adds_vault(MAIN, "main", VaultOrigin::Make);
    let update = soon(&mut updates).await;
    assert!(update.slots.is_none() && update.vaults > granted);

    let removed = first.removed.unwrap();
    assert!(removed.workers.is_empty() && update.removed.is_none());
    story.node.does(Command::RemoveWorker { worker: s1 });
    let update = soon(&mut updates).await;
    assert_eq!(
        update.removed.unwrap().workers,
        [s1.0],
        "others refuse its certificate too"
    );
    assert!(update.slots.unwrap().runs.is_empty(), "what it had is nobody's");
}

#[tokio::test]
async fn sessions_that_open_are_told_with_the_next_map_and_not_by_themselves() {
    let mut story = Story::with_vault().await;
    let s1 = serves(&mut story.node, "s1");
    let mut updates = story.watch(s1, LIFE).await.unwrap();
    assert_eq!(soon(&mut updates).await.slots.unwrap().open_sessions, Vec::<u64>::new());
    let one = story.backup("web").await;
    let other = story.backup("db").await;
    tokio::time::timeout(SOON, updates.next())
        .await
        .expect_err("nothing is told of a session alone");
    let granted = grants(&mut story.node, s1, 0..1);
    let map = soon(&mut updates).await.slots.unwrap();
    assert_eq!(
        (map.version, map.open_sessions),
        (granted, vec![one.session, other.session])
    );
}

#[tokio::test]
async fn two_that_watch_are_told_the_same() {
    let mut story = Story::begin();
    let s1 = serves(&mut story.node, "s1");
    grants(&mut story.node, s1, 0..7);
    let mut a = story.watch(story.w1, LIFE).await.unwrap();
    let mut b = story.watch(s1, LIFE).await.unwrap();
    assert_eq!(soon(&mut a).await, soon(&mut b).await);
    grants(&mut story.node, s1, 3..5);
    assert_eq!(soon(&mut a).await, soon(&mut b).await);
}

#[tokio::test]
async fn a_watch_is_for_the_last_life_of_a_worker_and_ends_with_it() {
    let mut story = Story::begin();
    let s1 = serves(&mut story.node, "s1");
    assert_eq!(kind(story.watch(s1, [9; 16]).await.map(|_| ())), "fenced");
    let mut updates = story.watch(s1, LIFE).await.unwrap();
    soon(&mut updates).await;
    registers(&mut story.node, s1, "s1", [9; 16], None);
    assert_eq!(info(&ends(&mut updates).await).kind, "fenced");
    let mut updates = story.watch(s1, [9; 16]).await.unwrap();
    soon(&mut updates).await;
    story.node.does(Command::RemoveWorker { worker: s1 });
    assert_eq!(info(&ends(&mut updates).await).kind, "missing");
}

#[tokio::test]
async fn every_coordinator_tells_it_and_it_ends_when_that_one_stops() {
    let story = Story::begin();
    story.node.set_leader(MemberId(2));
    let mut updates = story.watch(story.w1, LIFE).await.unwrap();
    soon(&mut updates).await;
    story.stopping.cancel();
    assert_eq!(info(&ends(&mut updates).await).kind, "retry");
}

#[tokio::test]
async fn a_coordinator_that_knows_of_no_leader_is_not_believed_for_long() {
    let mut story = Story::begin();
    story.service.watches.leaderless = Duration::from_millis(1500);
    let mut updates = story.watch(story.w1, LIFE).await.unwrap();
    soon(&mut updates).await;
    story.node.forget_leader();
    let begun = tokio::time::Instant::now();
    let status = updates.next().await.unwrap().unwrap_err();
    assert_eq!(info(&status).kind, "retry");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
}

#[tokio::test]
async fn keys_of_claimed_vaults_go_to_who_serves_and_that_is_noted_once_for_a_life() {
    let mut story = Story::with_vault().await;
    let s1 = serves(&mut story.node, "s1");
    // Not claimed yet.
    story.adds_vault(VaultId([0x22; 16]), "other", VaultOrigin::Make);
    let none = story.index_vaults(s1, LIFE).await.unwrap();
    assert!(none.is_empty(), "it has no slot yet");
    grants(&mut story.node, s1, 0..4096);
    for _ in 0..2 {
        let vaults = story.index_vaults(s1, LIFE).await.unwrap();
        let names: Vec<_> = vaults
            .iter()
            .map(|vault| (vault.name.as_str(), vault.claim, vault.cluster))
            .collect();
        assert_eq!(names, [("main", 3, 77)]);
        assert_eq!(
            (vaults[0].key.as_ref(), vaults[0].header.as_ref()),
            (&SECRET[..], &[3; 32][..])
        );
    }
    let noted = |story: &Story| {
        let entries = story
            .node
            .read(|state| state.audit().values().cloned().collect::<Vec<_>>());
        entries
            .iter()
            .filter(|entry| entry.object.starts_with("index keys"))
            .count()
    };
    assert_eq!(noted(&story), 1);
    registers(&mut story.node, s1, "s1", [9; 16], None);
    assert_eq!(kind(story.index_vaults(s1, LIFE).await), "fenced");
    story.index_vaults(s1, [9; 16]).await.unwrap();
    assert_eq!(noted(&story), 2);
    assert_eq!(
        kind(story.index_vaults(story.w1, LIFE).await),
        "denied",
        "it answers for no slots"
    );
}

#[tokio::test]
async fn a_commit_that_rests_on_a_moved_slot_is_told_so_and_taken_under_the_same_lease_after_it() {
    let mut story = Story::with_vault().await;
    let s1 = serves(&mut story.node, "s1");
    let before = grants(&mut story.node, s1, 0..8);
    let lease = story.backup("web").await;
    let resting_on = |version: u64| {
        let mut request = made(&lease, 7);
        if let Some(Outcome::Point(point)) = &mut request.outcome {
            point.slots = vec![0b1000].into();
            point.slot_map = version;
        }
        request
    };
    let now = grants(&mut story.node, s1, 3..4);
    let status = story.complete(story.w1, resting_on(before)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let said = info(&status);
    assert_eq!((said.kind.as_str(), said.field.as_str()), (ErrorInfo::MOVED, "slots"));
    assert_eq!(story.job(&lease).state, JobState::Leased);
    let beat = story.beat(story.w1, &[&lease]).await.unwrap();
    assert_eq!(beat.held.len(), 1, "the lease goes on");
    story.complete(story.w1, resting_on(now)).await.unwrap();
    assert!(matches!(story.job(&lease).state, JobState::Done { .. }));
}

fn limit(subject: LimitSubject, upload: u64, concurrency: Option<u32>) -> Command {
    let rates = LimitRates {
        upload: Some(upload),
        concurrency,
        ..LimitRates::default()
    };
    Command::SetLimit {
        subject,
        rule: LimitRule {
            rates,
            ..LimitRule::default()
        },
    }
}

#[tokio::test]
async fn limits_are_told_within_a_second_to_whom_they_bind() {
    let mut story = Story::with_vault().await;
    let mut updates = story.watch(story.w1, LIFE).await.unwrap();
    assert_eq!(soon(&mut updates).await.limits.unwrap().limits, []);
    story.node.does(limit(LimitSubject::Worker(story.w2), 5000, None));
    story
        .node
        .does(limit(LimitSubject::Store(String::from("file:///srv")), 6000, Some(9)));
    let told = soon(&mut updates).await.limits.unwrap();
    let [only] = &told.limits[..] else { panic!("{told:?}") };
    assert_eq!((only.of.as_str(), only.upload), ("store file:///srv", Some(6000)));
    assert_eq!(only.concurrency, None, "jobs at a time are counted here");
    // A job that begins under it makes shares due.
    let lease = story.backup("web").await;
    let begun = soon(&mut updates).await.limits.unwrap();
    assert_eq!(begun.limits, told.limits);
    assert_ne!(begun.jobs, told.jobs);
    let job = JobId(lease.id.unwrap().job);
    story.node.does(limit(LimitSubject::Job(job), 7000, Some(2)));
    let told = soon(&mut updates).await.limits.unwrap();
    let of_job = told.limits.iter().find(|limit| limit.of.starts_with("job")).unwrap();
    assert_eq!((of_job.upload, of_job.concurrency), (Some(7000), Some(2)));
    story.node.does(Command::RemoveLimit {
        subject: LimitSubject::Job(job),
        windows: None,
    });
    assert_eq!(soon(&mut updates).await.limits.unwrap().limits.len(), 1);
}

#[tokio::test]
async fn beats_divide_a_limit_among_the_workers_with_jobs_under_it() {
    let mut story = Story::with_vault().await;
    *story.service.services.presence.lock().unwrap() = crate::node::presence::Presence::of_one_command();
    let of = "store file:///srv/main";
    story
        .node
        .does(limit(LimitSubject::Store(String::from("file:///srv/main")), 6000, None));
    let share = |answer: &v1::BeatResponse| {
        let [only] = &answer.shares[..] else {
            panic!("{answer:?}")
        };
        assert_eq!(only.of, of);
        (only.millionths, answer.shares_pending)
    };
    let has = |millionths| {
        vec![v1::Share {
            of: of.to_owned(),
            millionths,
        }]
    };
    let one = story.backup("web").await;
    let answer = story.beat(story.w1, &[&one]).await.unwrap();
    assert_eq!(share(&answer), (1_000_000, false));
    story.node.protects("db", MAIN, None);
    let item = crate::testing::item_id("db", MAIN);
    story.enqueue(Work::Backup { item, keep_until: None });
    let two = story.next(story.w2).await.unwrap().unwrap();
    let answer = story.beat(story.w2, &[&two]).await.unwrap();
    assert_eq!(share(&answer), (0, true), "the first has all of it still");
    let answer = story.beat_with(story.w1, &[&one], has(1_000_000)).await.unwrap();
    assert_eq!(share(&answer), (500_000, false));
    let answer = story.beat_with(story.w1, &[&one], has(500_000)).await.unwrap();
    assert_eq!(share(&answer), (500_000, false));
    let answer = story.beat(story.w2, &[&two]).await.unwrap();
    assert_eq!(share(&answer), (500_000, false));
}

#[tokio::test]
async fn who_reads_a_range_for_another_is_told_of_that_lease_and_of_no_other() {
    let mut story = Story::with_vault().await;
    let helper = serves(&mut story.node, "s1");
    let lease = story.backup("web").await;
    let ask = async |story: &Story, who: WorkerId, life: [u8; 16], holder: WorkerId, epoch: u64| {
        let id = lease.id.unwrap();
        let request = v1::LeaseOfRequest {
            life: life.to_vec().into(),
            lease: Some(v1::LeaseId { epoch, ..id }),
            worker: holder.0,
        };
        let answer = Agent::lease_of(&story.service, story.by(who, request)).await;
        answer.map(Response::into_inner)
    };
    let epoch = lease.id.unwrap().epoch;
    let told = ask(&story, helper, LIFE, story.w1, epoch).await.unwrap();
    let vault = lease.vault.clone().unwrap();
    assert_eq!(
        (told.session, told.vault, told.claim),
        (lease.session, vault.id, vault.claim)
    );
    let work = told.work.unwrap();
    assert_eq!((work.item_name.as_str(), work.disks.len()), ("web", 1));
    assert_eq!(work.helpers, []);

    assert_eq!(
        kind(ask(&story, helper, LIFE, helper, epoch).await),
        "fenced",
        "it is not that worker's"
    );
    assert_eq!(kind(ask(&story, helper, LIFE, story.w1, epoch + 1).await), "fenced");
    assert_eq!(kind(ask(&story, helper, [9; 16], story.w1, epoch).await), "fenced");
    assert_eq!(
        kind(ask(&story, story.w2, LIFE, story.w1, epoch).await),
        "denied",
        "it answers no other worker"
    );
    story.complete(story.w1, made(&lease, 1)).await.unwrap();
    assert_eq!(
        kind(ask(&story, helper, LIFE, story.w1, epoch).await),
        "fenced",
        "the lease is over"
    );
}
