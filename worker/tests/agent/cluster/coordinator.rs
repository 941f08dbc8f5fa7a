//! A coordinator without a network or a log, with the real one's rules: an index that only grows, an epoch for each lease, and the newest epoch alone counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tresor_proto::ids::{Epoch, JobId, WorkerId};
use tresor_storage::Kind;
use tresor_storage::catalog::Hidden;
use tresor_storage::ids::{ItemId, PointId, SessionId, VaultId};
use tresor_storage::keys::Key;
use tresor_storage::throttle::Rates;
use tresor_worker::agent::port::{
    AdoptedPoint, Beat, CallError, CatalogueContent, Claimed, Completion, Coordinator, Facts, Findings, Lease, LeaseId,
    LeaseProgress, LeaseVault, Life, LoggedPoint, Offer, OthersLease, Outcome, Registered, WatchStream, WatchUpdate,
    Work,
};
use tresor_worker::agent::{Failure, FailureKind};
use tresor_worker::control::Counts;
use tresor_worker::limits::{LimitsTold, SharesGiven, WHOLE};

use super::until;

/// How long leases last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) lease: Duration,
    pub(crate) beat: Duration,
}

impl Default for Terms {
    /// Leases that no slow machine lets run out, and beats that no test waits for.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(120),
            beat: Duration::from_millis(100),
        }
    }
}

/// How a call is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is not heard.
    Lost,
    /// It is done, and its answer is lost.
    AnswerLost,
}

/// A job as the log has it.
#[derive(Debug, Clone)]
pub(crate) struct JobRow {
    pub(crate) work: Work,
    pub(crate) attempts: u32,
    /// Who runs it.
    pub(crate) running: Option<(String, Life, Epoch)>,
    pub(crate) done: Option<Epoch>,
    pub(crate) point: Option<PointId>,
    pub(crate) counts: Counts,
    pub(crate) findings: Option<Findings>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) harmed: Vec<PointId>,
    pub(crate) cancel: bool,
    pub(crate) waits: bool,
}

#[derive(Debug, Default)]
struct State {
    index: u64,
    lives: BTreeMap<String, Life>,
    registered: Vec<(String, Life)>,
    jobs: BTreeMap<JobId, JobRow>,
    points: BTreeMap<PointId, (u64, LoggedPoint)>,
    /// What was logged of attempts, as it came.
    logs: Vec<(LeaseId, tresor_proto::v1::AttemptLog)>,
    adopted: Vec<AdoptedPoint>,
    findings: u64,
    claimed: Option<Claimed>,
    catalogue_state: Bytes,
    is_away: bool,
    drained: BTreeSet<String>,
    forgets: bool,
    calls: Vec<&'static str>,
    troubles: VecDeque<(&'static str, Trouble)>,
    progress: BTreeMap<LeaseId, LeaseProgress>,
    spoilt: bool,
    loses_beats: bool,
}

struct Shared {
    terms: Terms,
    vault: Mutex<LeaseVault>,
    limits: watch::Sender<LimitsTold>,
    state: Mutex<State>,
}

/// The coordinator; clones share it.
#[derive(Clone)]
pub(crate) struct Fake {
    shared: Arc<Shared>,
}

/// The coordinator as one worker reaches it.
pub(crate) struct AsWorker {
    fake: Fake,
    name: String,
}

fn fenced(why: &str) -> CallError {
    CallError::Refused {
        kind: Kind::Fenced,
        why: why.to_owned(),
        hint: String::new(),
    }
}

fn unanswered() -> CallError {
    CallError::Unanswered {
        why: String::from("the test says so"),
    }
}

impl Fake {
    pub(crate) fn new(terms: Terms, url: String, key: Key) -> Self {
        let vault = LeaseVault {
            id: VaultId::random(),
            name: String::from("main"),
            url,
            region: String::from("eu-1"),
            profile: String::new(),
            key,
            claim: None,
            header: None,
        };
        Self {
            shared: Arc::new(Shared {
                terms,
                vault: Mutex::new(vault),
                limits: watch::Sender::default(),
                state: Mutex::default(),
            }),
        }
    }

    /// Limits from now on, of which this worker has all.
    pub(crate) fn limit(&self, rates: BTreeMap<String, Rates>) {
        self.shared.limits.send_modify(|told| {
            told.rates = rates;
            told.jobs += 1;
        });
    }

    pub(crate) fn as_worker(&self, name: &str) -> AsWorker {
        AsWorker {
            fake: self.clone(),
            name: name.to_owned(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub(crate) fn vault(&self) -> LeaseVault {
        self.shared.vault.lock().unwrap().clone()
    }

    pub(crate) fn change_vault(&self, change: impl FnOnce(&mut LeaseVault)) {
        change(&mut self.shared.vault.lock().unwrap());
    }

    /// Queues a job.
    pub(crate) fn enqueue(&self, work: Work) -> JobId {
        let mut state = self.state();
        state.index += 1;
        let id = JobId(state.index);
        let row = JobRow {
            work,
            attempts: 0,
            running: None,
            done: None,
            point: None,
            counts: Counts::default(),
            findings: None,
            failures: Vec::new(),
            harmed: Vec::new(),
            cancel: false,
            waits: true,
        };
        state.jobs.insert(id, row);
        id
    }

    /// What was logged of an attempt at a job, once it is reported.
    pub(crate) fn log(&self, job: JobId) -> Option<tresor_proto::v1::AttemptLog> {
        let state = self.state();
        let log = state.logs.iter().find(|(lease, _)| lease.job == job);
        log.map(|(_, log)| log.clone())
    }

    pub(crate) fn job(&self, id: JobId) -> JobRow {
        self.state().jobs[&id].clone()
    }

    pub(crate) fn point_of(&self, id: JobId) -> Option<PointId> {
        self.job(id).point
    }

    /// Waits for the good end of a job.
    pub(crate) async fn done(&self, id: JobId) {
        until("a job's end", || {
            let job = self.job(id);
            assert!(
                job.waits || job.running.is_some() || job.done.is_some(),
                "{:?}",
                job.failures
            );
            job.done.is_some()
        })
        .await;
    }

    /// Waits for a failure of a job; the last one.
    pub(crate) async fn failed(&self, id: JobId) -> Failure {
        until("a job's failure", || {
            let job = self.job(id);
            assert!(job.done.is_none(), "it did not fail");
            !job.failures.is_empty()
        })
        .await;
        self.job(id).failures.last().cloned().unwrap()
    }

    pub(crate) async fn running(&self, id: JobId) {
        until("a job's begin", || self.job(id).running.is_some()).await;
    }

    pub(crate) fn cancel(&self, id: JobId) {
        self.state().jobs.get_mut(&id).unwrap().cancel = true;
    }

    /// The lease of a job has run out; it waits again if `again`.
    pub(crate) fn expire(&self, id: JobId, again: bool) {
        let mut state = self.state();
        let job = state.jobs.get_mut(&id).unwrap();
        assert!(job.running.take().is_some());
        job.waits = again;
    }

    /// A job that failed is queued once more.
    pub(crate) fn retry(&self, id: JobId) {
        self.state().jobs.get_mut(&id).unwrap().waits = true;
    }

    /// Nobody answers any call.
    pub(crate) fn go_away(&self) {
        self.state().is_away = true;
    }

    pub(crate) fn come_back(&self) {
        self.state().is_away = false;
    }

    /// No beat is heard any more.
    pub(crate) fn lose_beats(&self) {
        self.state().loses_beats = true;
    }

    /// The next such call goes wrong.
    pub(crate) fn trouble(&self, call: &'static str, trouble: Trouble) {
        self.state().troubles.push_back((call, trouble));
    }

    /// Damage was found in the vault.
    pub(crate) fn note_findings(&self) {
        let mut state = self.state();
        state.index += 1;
        state.findings = state.index;
    }

    /// It does not remember what it has answered: repeated reports are refused.
    pub(crate) fn forget_answers(&self) {
        self.state().forgets = true;
    }

    /// Leases cannot be read.
    pub(crate) fn spoil_leases(&self) {
        self.state().spoilt = true;
    }

    pub(crate) fn drain(&self, worker: &str, drained: bool) {
        let mut state = self.state();
        match drained {
            true => drop(state.drained.insert(worker.to_owned())),
            false => drop(state.drained.remove(worker)),
        }
    }

    pub(crate) fn calls(&self, call: &str) -> usize {
        self.state().calls.iter().filter(|name| **name == call).count()
    }

    /// The lives that registered under a name.
    pub(crate) fn lives(&self, worker: &str) -> usize {
        self.state()
            .registered
            .iter()
            .filter(|(name, _)| name == worker)
            .count()
    }

    pub(crate) fn newest(&self, item: ItemId) -> Option<LoggedPoint> {
        let state = self.state();
        let visible = state
            .points
            .values()
            .filter(|(_, point)| point.item == item && point.hidden_at.is_none());
        visible.max_by_key(|(index, _)| *index).map(|(_, point)| point.clone())
    }

    pub(crate) fn point(&self, id: PointId) -> Option<LoggedPoint> {
        self.state().points.get(&id).map(|(_, point)| point.clone())
    }

    pub(crate) fn points_count(&self) -> usize {
        self.state().points.len()
    }

    pub(crate) fn hide(&self, id: PointId, at: &str) {
        self.state().points.get_mut(&id).unwrap().1.hidden_at = Some(at.to_owned());
    }

    pub(crate) fn adopted(&self) -> Vec<AdoptedPoint> {
        self.state().adopted.clone()
    }

    pub(crate) fn set_catalogue_state(&self, state: &'static [u8]) {
        self.state().catalogue_state = Bytes::from_static(state);
    }

    pub(crate) fn claimed(&self) -> Option<Claimed> {
        self.state().claimed
    }

    /// The stage that was said last of any lease of a job.
    pub(crate) fn stage(&self, job: JobId) -> Option<&'static str> {
        let state = self.state();
        let said = state.progress.iter().rev().find(|(id, _)| id.job == job);
        said.map(|(_, progress)| progress.stage)
    }

    /// Begins a call: whether it is heard, and whether its answer will be.
    fn hear(&self, call: &'static str) -> Result<bool, CallError> {
        let mut state = self.state();
        state.calls.push(call);
        if state.is_away || (call == "beat" && state.loses_beats) {
            return Err(unanswered());
        }
        let at = state.troubles.iter().position(|(name, _)| *name == call);
        match at.and_then(|at| state.troubles.remove(at)) {
            Some((_, Trouble::Lost)) => Err(unanswered()),
            Some((_, Trouble::AnswerLost)) => Ok(false),
            None => Ok(true),
        }
    }

    fn grant(&self, worker: &str, life: Life) -> Option<Lease> {
        let mut state = self.state();
        let (&id, _) = state.jobs.iter().find(|(_, job)| job.waits)?;
        state.index += 1;
        let (index, findings) = (state.index, state.findings);
        let job = state.jobs.get_mut(&id)?;
        job.waits = false;
        job.attempts += 1;
        job.running = Some((worker.to_owned(), life, Epoch(index)));
        Some(Lease {
            id: LeaseId {
                job: id,
                epoch: Epoch(index),
            },
            session: SessionId(index),
            start_epoch: 0,
            attempt: job.attempts,
            term: self.shared.terms.lease,
            vault: self.vault(),
            findings,
            work: job.work.clone(),
            trace: None,
        })
    }

    fn apply(&self, completion: &Completion) -> Result<(), CallError> {
        let mut state = self.state();
        state.index += 1;
        let (index, findings, forgets) = (state.index, state.findings, state.forgets);
        let Some(job) = state.jobs.get_mut(&completion.id.job) else {
            return Err(fenced("no such job"));
        };
        let epoch = Some(completion.id.epoch);
        if job.done == epoch && !forgets {
            return Ok(());
        }
        if job.running.as_ref().map(|(_, _, epoch)| *epoch) != epoch {
            return Err(fenced("the job does not run under this lease"));
        }
        if let Outcome::Point(made) = &completion.outcome
            && made.findings_seen < findings
        {
            return Err(fenced("damage was found in the vault while this ran"));
        }
        job.running = None;
        job.done = epoch;
        job.counts = completion.counts;
        let work = job.work.clone();
        match (&completion.outcome, work) {
            (Outcome::Point(made), Work::Backup(work)) => {
                job.point = Some(made.point);
                job.harmed.clone_from(&made.harmed);
                let logged = LoggedPoint {
                    point: made.point,
                    item: work.item,
                    manifest: made.manifest,
                    hidden_at: None,
                };
                assert!(state.points.insert(made.point, (index, logged)).is_none());
            }
            (Outcome::Findings(findings), Work::Verify(_)) => {
                job.findings = Some(findings.clone());
                if !findings.harmed.is_empty() {
                    state.findings = index;
                }
            }
            (Outcome::Claimed(claimed), Work::Claim { .. }) => {
                state.claimed = Some(*claimed);
                drop(state);
                self.change_vault(|vault| {
                    vault.claim = Some(claimed.claim);
                    vault.header = Some(claimed.header);
                });
            }
            (Outcome::Nothing, Work::Restore(_) | Work::Catalogue { .. }) => {}
            (outcome, work) => panic!("{outcome:?} is not what {work:?} makes"),
        }
        Ok(())
    }

    fn end(&self, id: LeaseId, failure: &Failure) -> Result<(), CallError> {
        let mut state = self.state();
        let Some(job) = state.jobs.get_mut(&id.job) else {
            return Err(fenced("no such job"));
        };
        if job.running.as_ref().map(|(_, _, epoch)| *epoch) != Some(id.epoch) {
            return Err(fenced("the job does not run under this lease"));
        }
        job.running = None;
        job.waits = matches!(failure.kind, FailureKind::Of(Kind::Retry) | FailureKind::Stopping);
        job.failures.push(failure.clone());
        Ok(())
    }
}

impl AsWorker {
    fn check_life(&self, life: Life) -> Result<(), CallError> {
        match self.fake.state().lives.get(&self.name) {
            Some(known) if *known == life => Ok(()),
            _ => Err(fenced("another process is this worker now")),
        }
    }

    /// The answer, or that it is lost on the way.
    fn answer<T>(heard: bool, result: Result<T, CallError>) -> Result<T, CallError> {
        if heard { result } else { Err(unanswered()) }
    }
}

#[async_trait]
impl Coordinator for AsWorker {
    async fn register(&self, life: Life, facts: &Facts) -> Result<Registered, CallError> {
        let heard = self.fake.hear("register")?;
        assert_eq!(facts.host, self.name);
        let mut state = self.fake.state();
        state.lives.insert(self.name.clone(), life);
        state.registered.push((self.name.clone(), life));
        // Earlier lives of the worker lose their leases.
        for job in state.jobs.values_mut() {
            if job
                .running
                .as_ref()
                .is_some_and(|(worker, other, _)| *worker == self.name && *other != life)
            {
                job.running = None;
                job.waits = true;
            }
        }
        let Terms { lease, beat } = self.fake.shared.terms;
        Self::answer(
            heard,
            Ok(Registered {
                name: self.name.clone(),
                lease,
                beat,
            }),
        )
    }

    async fn next_lease(&self, life: Life, free: u32, wait: Duration) -> Result<Option<Offer>, CallError> {
        assert!(free > 0);
        let heard = self.fake.hear("next_lease")?;
        self.check_life(life)?;
        // Short, so that tests see a worker come back often.
        let begin = tokio::time::Instant::now();
        loop {
            if self.fake.state().is_away {
                return Err(unanswered());
            }
            let (is_drained, is_spoilt) = {
                let state = self.fake.state();
                (state.drained.contains(&self.name), state.spoilt)
            };
            let lease = match is_drained {
                true => None,
                false => self.fake.grant(&self.name, life),
            };
            if let Some(lease) = lease {
                let offer = match is_spoilt {
                    true => Offer::Unreadable {
                        id: lease.id,
                        failure: Failure::new(Kind::Unsupported, "of tomorrow", ""),
                    },
                    false => Offer::Lease(Box::new(lease)),
                };
                return Self::answer(heard, Ok(Some(offer)));
            }
            if begin.elapsed() >= wait.min(Duration::from_millis(300)) {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn beat(&self, life: Life, leases: Vec<LeaseProgress>, _: BTreeMap<String, u32>) -> Result<Beat, CallError> {
        let heard = self.fake.hear("beat")?;
        self.check_life(life)?;
        let mut state = self.fake.state();
        let told = self.fake.shared.limits.borrow().clone();
        let mut answer = Beat {
            limits: SharesGiven {
                shares: told.rates.into_keys().map(|of| (of, WHOLE)).collect(),
                is_pending: false,
            },
            drained: state.drained.contains(&self.name),
            ..Beat::default()
        };
        for progress in leases {
            let id = progress.id;
            let job = state.jobs.get(&id.job);
            let held = job.is_some_and(|job| job.running == Some((self.name.clone(), life, id.epoch)));
            if held {
                answer.held.push(id);
                if job.is_some_and(|job| job.cancel) {
                    answer.cancelled.push(id);
                }
            }
            state.progress.insert(id, progress);
        }
        Self::answer(heard, Ok(answer))
    }

    async fn complete(&self, completion: &Completion) -> Result<(), CallError> {
        let heard = self.fake.hear("complete")?;
        Self::answer(heard, self.fake.apply(completion))
    }

    async fn fail(&self, lease: LeaseId, failure: &Failure) -> Result<(), CallError> {
        let heard = self.fake.hear("fail")?;
        Self::answer(heard, self.fake.end(lease, failure))
    }

    async fn report_log(&self, lease: LeaseId, log: Vec<u8>) -> Result<(), CallError> {
        let heard = self.fake.hear("report_log")?;
        let log = tresor_proto::attempt_log::decode(&log).unwrap();
        self.fake.state().logs.push((lease, log));
        Self::answer(heard, Ok(()))
    }

    async fn catalogue(&self, _: LeaseId) -> Result<CatalogueContent, CallError> {
        let heard = self.fake.hear("catalogue")?;
        let state = self.fake.state();
        let hidden = state.points.values().filter_map(|(_, point)| {
            let removed_at = point.hidden_at.clone()?;
            Some((
                point.point,
                Hidden {
                    item: point.item,
                    removed_at,
                },
            ))
        });
        Self::answer(
            heard,
            Ok(CatalogueContent {
                hidden: hidden.collect(),
                written_at: String::from("2026-01-01T00:00:00Z"),
                state: state.catalogue_state.clone(),
                held: std::collections::BTreeMap::new(),
            }),
        )
    }

    async fn points(&self, _: LeaseId, only: Option<PointId>) -> Result<Vec<LoggedPoint>, CallError> {
        let heard = self.fake.hear("points")?;
        let state = self.fake.state();
        let points = state.points.values().map(|(_, point)| point.clone());
        let points = points.filter(|point| only.is_none_or(|only| only == point.point));
        Self::answer(heard, Ok(points.collect()))
    }

    async fn adopt_points(&self, lease: LeaseId, points: &[AdoptedPoint]) -> Result<u64, CallError> {
        let heard = self.fake.hear("adopt_points")?;
        let mut state = self.fake.state();
        let running = state.jobs.get(&lease.job).and_then(|job| job.running.clone());
        if running.map(|(_, _, epoch)| epoch) != Some(lease.epoch) {
            return Err(fenced("the lease is over"));
        }
        let mut entered = 0;
        for point in points {
            state.index += 1;
            let index = state.index;
            let logged = LoggedPoint {
                point: point.point,
                item: point.item,
                manifest: point.manifest,
                hidden_at: point.hidden_at.clone(),
            };
            if state.points.insert(point.point, (index, logged)).is_none() {
                state.adopted.push(point.clone());
                entered += 1;
            }
        }
        Self::answer(heard, Ok(entered))
    }

    /// This cluster's workers keep an index each.
    async fn watch(&self, life: Life) -> Result<WatchStream, CallError> {
        self.check_life(life)?;
        let limits = self.fake.shared.limits.subscribe();
        Ok(Box::pin(futures::stream::unfold(
            (limits, true),
            |(mut limits, is_first)| async move {
                if !is_first {
                    limits.changed().await.ok()?;
                }
                let update = WatchUpdate {
                    limits: Some(limits.borrow_and_update().clone()),
                    ..WatchUpdate::default()
                };
                Some((Ok(update), (limits, false)))
            },
        )))
    }

    async fn lease_of(&self, life: Life, _: LeaseId, _: WorkerId) -> Result<OthersLease, CallError> {
        self.check_life(life)?;
        Err(fenced("nobody reads for another here"))
    }

    async fn index_vaults(&self, life: Life) -> Result<Vec<LeaseVault>, CallError> {
        self.check_life(life)?;
        Ok(Vec::new())
    }
}
