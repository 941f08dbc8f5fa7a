//! The agent's loop: one task owns what is known of leases, waits for one event at a time, and applies it without waiting.
//!
//! What it guards:
//! 1. A lease is renewed from the moment it arrives until its attempt was reported; the first renewal goes out at once.
//! 2. At most as many attempts as there are permits run, reports among them, and never two of one job.
//! 3. An attempt that must not go on without a lease is stopped at its end by our own clock; any attempt is, when the coordinator says that the lease is
//!    over or that nobody wants it.
//! 4. A coordinator that is away, refuses, or makes no sense stops nothing but new work. The loop ends only when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;
use tresor_proto::trace;
use tresor_storage::Kind;

use super::calls::{Backoff, Patience, random};
use super::config::{AgentConfig, PERMITS_MAX};
use super::error::AgentError;
use super::failure::Failure;
use super::job::{self, Job};
use super::lease::{LeaseClock, Standing};
use super::port::{Beat, CallError, Coordinator, Lease, LeaseId, Life, Offer, Registered};
use super::progress::StopCause;
use super::running::Running;
use super::vaults::Vaults;
use crate::home::Stores;
use crate::home::files;
use crate::home::lock::{Holder, Lock};
use crate::limits::{Limits, PENDING_PAUSE};
use crate::metrics::Sources;
use crate::parts::Desk;
use crate::slots::watch::follow_limits;
use crate::slots::{Slots, Works};

/// Longest wait for work in one call; also never longer than a third of a lease, which counts from the request.
const POLL: Duration = Duration::from_secs(20);
/// Shortest time between two polls: one that is answered with nothing at once must not become a loop.
const POLL_PAUSE: Duration = Duration::from_millis(200);
/// How often what is idle is closed.
const UPKEEP: Duration = Duration::from_secs(30);
/// How often the log of an attempt is sent, and the longest wait between two tries: while a leader is elected.
const LOG_TRIES: u32 = 3;
const LOG_PAUSE: Duration = Duration::from_secs(2);
/// Logs that are on their way; one more is dropped.
const LOGS_MAX: usize = 64;
/// How long, at a stop, logs may still be on their way.
const LOGS_LEAVING: Duration = Duration::from_secs(3);
/// How long, at a stop, the ends of attempts may take to be heard: a new leader is there within seconds.
const LEAVING: Duration = Duration::from_secs(15);

/// Works for a cluster until `shutdown`: then no new job is begun, running ones are ended (after [`AgentConfig::finish_time`]) and reported, so that
/// they go elsewhere at once.
///
/// # Errors
/// [`AgentError`], only before it begins: nothing that a coordinator does or does not do ends it.
pub async fn run(
    config: AgentConfig,
    coordinator: impl Coordinator,
    stores: Arc<dyn Stores>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    if !(1..=PERMITS_MAX).contains(&config.permits) {
        return Err(AgentError::Permits {
            permits: config.permits,
            max: PERMITS_MAX,
        });
    }
    let unusable = |source| AgentError::Folder {
        path: config.folder.clone(),
        source,
    };
    files::make_folder(&config.folder).map_err(unusable)?;
    let lock = Lock::take(
        &config.folder.join("lock"),
        &Holder::this("worker start"),
        Duration::ZERO,
    );
    let _lock = lock.map_err(unusable)?;
    let limits = Arc::new(Limits::new(Instant::now()));
    let metrics = Arc::clone(&config.metrics);
    let vaults = Vaults::new(&config.folder, stores, Arc::clone(&limits), Arc::clone(&metrics));
    let vaults = Arc::new(vaults.map_err(unusable)?);
    let coordinator: Arc<dyn Coordinator> = Arc::new(coordinator);
    let desk = Desk::new(if config.jobs { config.permits } else { 0 });
    let (mut beside, stop) = (JoinSet::new(), CancellationToken::new());
    let slots = match &config.slots {
        None => None,
        Some(slots) => {
            let (coordinator, vaults) = (Arc::clone(&coordinator), Arc::clone(&vaults));
            let works = Works {
                coordinator,
                vaults,
                limits: Arc::clone(&limits),
                desk: desk.clone(),
                effort: config.effort,
            };
            let started = Slots::start(slots, &config.folder, works, &mut beside, &stop).await;
            Some(Arc::new(started.map_err(AgentError::Slots)?))
        }
    };
    let attached = metrics.attached(Sources {
        vaults: Arc::clone(&vaults),
        slots: slots.clone(),
        identity: config.slots.as_ref().map(|slots| slots.identity.clone()),
        permits: config.permits,
        region: config.region.clone(),
        version: config.version.clone(),
    });
    beside.spawn(Arc::clone(&metrics).look_at_disks(config.folder.clone(), stop.clone()));
    let agent = Agent::new(config, coordinator, vaults, limits, slots, desk, Instant::now());
    Box::pin(agent.run(shutdown)).await;
    // Nothing that is closed now is looked at any more.
    drop(attached);
    // Others are answered until the last job has ended; then databases are closed before the lock is let go of.
    stop.cancel();
    while beside.join_next().await.is_some() {}
    Ok(())
}

/// What can happen.
enum Event {
    Registered(Result<Registered, CallError>),
    Offered {
        asked: Instant,
        offer: Result<Option<Offer>, CallError>,
    },
    Beaten {
        sent: Instant,
        named: Vec<LeaseId>,
        answer: Result<Beat, CallError>,
    },
    Ended,
    /// Other jobs run under limits that are shared with other workers.
    Shares,
    Time,
    Stop,
}

/// When something is due.
struct Timetable {
    register: Instant,
    poll: Instant,
    beat: Instant,
    upkeep: Instant,
}

/// The stages of a stop.
struct Leaving {
    /// When attempts that still run are stopped.
    stop_jobs: Instant,
    /// When reports that are not heard are given up.
    leave: Instant,
}

struct Agent {
    config: AgentConfig,
    coordinator: Arc<dyn Coordinator>,
    vaults: Arc<Vaults>,
    slots: Option<Arc<Slots>>,
    limits: Arc<Limits>,
    /// Ends what hears of limits for the present life, where slots do not.
    watching: Option<DropGuard>,
    desk: Desk,
    life: Life,
    terms: Option<Registered>,
    is_drained: bool,
    running: BTreeMap<LeaseId, Running>,
    /// Attempts; each ends with what was logged of it.
    jobs: JoinSet<Option<(LeaseId, Vec<u8>)>>,
    /// Logs on their way, with the lives of nobody: no attempt waits for them.
    logs: JoinSet<()>,
    /// Calls on their way, each of one kind at most once; with the life under which they were made.
    calls: FuturesUnordered<BoxFuture<'static, (Life, Event)>>,
    is_registering: bool,
    is_polling: bool,
    /// Shares changed since the last beat began.
    is_nudged: bool,
    /// When the last beat began.
    beaten_at: Option<Instant>,
    is_beating: bool,
    due: Timetable,
    registering: Backoff,
    polling: Backoff,
    beating: Backoff,
    leaving: Option<Leaving>,
}

/// Cancels a token when it is dropped: also a task that panics or is aborted has ended.
struct Ended(CancellationToken);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Agent {
    fn new(
        config: AgentConfig,
        coordinator: Arc<dyn Coordinator>,
        vaults: Arc<Vaults>,
        limits: Arc<Limits>,
        slots: Option<Arc<Slots>>,
        desk: Desk,
        now: Instant,
    ) -> Self {
        let backoff = Backoff::new(Patience::ENDLESS);
        Self {
            config,
            coordinator,
            vaults,
            slots,
            limits,
            watching: None,
            desk,
            life: Life::random(),
            terms: None,
            is_drained: false,
            running: BTreeMap::new(),
            jobs: JoinSet::new(),
            logs: JoinSet::new(),
            calls: FuturesUnordered::new(),
            is_registering: false,
            is_polling: false,
            is_beating: false,
            is_nudged: false,
            beaten_at: None,
            due: Timetable {
                register: now,
                poll: now,
                beat: now,
                upkeep: now + UPKEEP,
            },
            registering: backoff,
            polling: backoff,
            beating: backoff,
            leaving: None,
        }
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let limits = Arc::clone(&self.limits);
        loop {
            self.config.metrics.turn();
            self.start_calls(Instant::now());
            let wake = self.next_time();
            let (life, event) = tokio::select! {
                () = shutdown.cancelled(), if self.leaving.is_none() => (self.life, Event::Stop),
                Some(done) = self.calls.next() => done,
                Some(joined) = self.jobs.join_next() => {
                    match joined {
                        Ok(Some((id, log))) => self.report_log(id, log),
                        Ok(None) => {}
                        Err(error) => tracing::error!(%error, "task of an attempt did not end well"),
                    }
                    (self.life, Event::Ended)
                }
                Some(_) = self.logs.join_next() => (self.life, Event::Time),
                () = limits.jobs_changed.notified() => (self.life, Event::Shares),
                // Room for a job again.
                () = self.desk.left() => (self.life, Event::Time),
                () = tokio::time::sleep_until(wake) => (self.life, Event::Time),
            };
            let now = Instant::now();
            self.apply(life, event, now);
            self.desk.set_jobs(self.running_count());
            self.upkeep(now);
            if let Some(leaving) = &self.leaving
                && (self.running.is_empty() || now >= leaving.leave)
            {
                break;
            }
        }
        if !self.running.is_empty() {
            tracing::warn!(
                count = self.running.len(),
                "attempts whose end was not heard are left: their leases will run out"
            );
        }
        // Those that ended just now.
        while let Some(Ok(ended)) = self.jobs.try_join_next() {
            ended.into_iter().for_each(|(id, log)| self.report_log(id, log));
        }
        self.jobs.shutdown().await;
        let logs = async { while self.logs.join_next().await.is_some() {} };
        // What is not heard by then is not worth waiting for.
        let _ = tokio::time::timeout(LOGS_LEAVING, logs).await;
        tracing::info!("worker has stopped");
    }

    /// Begins the calls that are due.
    fn start_calls(&mut self, now: Instant) {
        let life = self.life;
        let Some(terms) = &self.terms else {
            if !self.is_registering && now >= self.due.register && self.leaving.is_none() {
                self.is_registering = true;
                let (coordinator, facts) = (Arc::clone(&self.coordinator), self.config.facts(self.slots.as_deref()));
                let call = async move { (life, Event::Registered(coordinator.register(life, &facts).await)) };
                self.calls.push(call.boxed());
            }
            return;
        };
        let wait = POLL.min(terms.lease / 3);
        if !self.is_beating && now >= self.due.beat {
            self.is_beating = true;
            self.is_nudged = false;
            self.beaten_at = Some(now);
            let shares = self.limits.shares(now);
            let named: Vec<LeaseId> = self.running.keys().copied().collect();
            let leases = self
                .running
                .iter()
                .map(|(id, running)| running.activity.report(*id))
                .collect();
            let coordinator = Arc::clone(&self.coordinator);
            let call = async move {
                // The lease counts from here: nothing was sent before.
                let sent = Instant::now();
                let answer = coordinator.beat(life, leases, shares).await;
                (life, Event::Beaten { sent, named, answer })
            };
            self.calls.push(call.boxed());
        }
        let free = self.free();
        if !self.is_polling && now >= self.due.poll && free > 0 && !self.is_drained && self.leaving.is_none() {
            self.is_polling = true;
            let coordinator = Arc::clone(&self.coordinator);
            let call = async move {
                let asked = Instant::now();
                let offer = coordinator.next_lease(life, free, wait).await;
                (life, Event::Offered { asked, offer })
            };
            self.calls.push(call.boxed());
        }
    }

    fn running_count(&self) -> u32 {
        u32::try_from(self.running.len()).unwrap_or(u32::MAX)
    }

    /// Jobs that could begin now, beside ranges of others' that are read here.
    fn free(&self) -> u32 {
        if !self.config.jobs {
            return 0;
        }
        let running = self.running_count().saturating_add(self.desk.parts());
        self.config.permits.saturating_sub(running)
    }

    /// The next moment at which something is to be done that no event brings.
    fn next_time(&self) -> Instant {
        let mut next = self.due.upkeep;
        if self.terms.is_none() {
            if !self.is_registering && self.leaving.is_none() {
                next = next.min(self.due.register);
            }
        } else {
            if !self.is_beating {
                next = next.min(self.due.beat);
            }
            if !self.is_polling && self.free() > 0 && !self.is_drained && self.leaving.is_none() {
                next = next.min(self.due.poll);
            }
        }
        next = self.limits.until().into_iter().fold(next, Instant::min);
        let ends = self.running.values().filter(|running| running.is_bound());
        next = ends.map(|running| running.clock.end()).fold(next, Instant::min);
        match &self.leaving {
            Some(Leaving { stop_jobs, leave }) => next.min(*leave).min(*stop_jobs),
            None => next,
        }
    }

    fn apply(&mut self, life: Life, event: Event, now: Instant) {
        match event {
            Event::Time => {}
            Event::Stop => self.begin_leaving(now),
            Event::Shares => self.nudge(now),
            Event::Ended => self.running.retain(|_, running| !running.ended.is_cancelled()),
            // Of an earlier life nothing counts, but that the call is over.
            event if life != self.life => drop(event),
            Event::Registered(answer) => {
                self.is_registering = false;
                self.registered(answer, now);
            }
            Event::Offered { asked, offer } => {
                self.is_polling = false;
                self.offered(asked, offer, now);
            }
            Event::Beaten { sent, named, answer } => {
                self.is_beating = false;
                self.beaten(sent, &named, answer, now);
            }
        }
    }

    fn registered(&mut self, answer: Result<Registered, CallError>, now: Instant) {
        match answer {
            Ok(terms) => {
                tracing::info!(worker = terms.name, life = %self.life, "worker is registered");
                self.config.metrics.note_registered(Some(&terms.name));
                self.registering.reset();
                self.due.beat = now;
                self.due.poll = now;
                self.terms = Some(terms);
                match &self.slots {
                    Some(slots) => slots.begin(self.life),
                    None => self.watch_limits(),
                }
            }
            Err(error) => {
                let wait = self.registering.next(random());
                self.due.register = now + wait;
                tracing::warn!(%error, wait_ms = wait.as_millis(), "worker is not registered yet");
            }
        }
    }

    /// Hears of limits, until the life is over.
    fn watch_limits(&mut self) {
        let cancel = CancellationToken::new();
        let (coordinator, limits, life) = (Arc::clone(&self.coordinator), Arc::clone(&self.limits), self.life);
        let stopped = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = follow_limits(coordinator, life, limits) => {}
                () = stopped.cancelled() => {}
            }
        });
        self.watching = Some(cancel.drop_guard());
    }

    /// The coordinator does not know this life any more: another process has registered as this worker, or the cluster was recovered from an older
    /// state. Its leases are over; what goes on is a life of its own.
    fn begin_new_life(&mut self, why: &str, now: Instant) {
        tracing::warn!(why, life = %self.life, "this life of the worker is over, it registers again");
        for running in self.running.values() {
            running.stop.stop(StopCause::NotHeld);
        }
        if let Some(slots) = &self.slots {
            slots.end();
        }
        self.watching = None;
        self.config.metrics.note_registered(None);
        self.life = Life::random();
        self.terms = None;
        self.is_polling = false;
        self.is_beating = false;
        self.is_drained = false;
        // Two processes that take the worker from each other must not do so in a loop.
        self.due.register = now + self.registering.next(random());
    }

    fn offered(&mut self, asked: Instant, offer: Result<Option<Offer>, CallError>, now: Instant) {
        self.due.poll = now.max(asked + POLL_PAUSE);
        match offer {
            Ok(offer) => {
                self.polling.reset();
                match offer {
                    None => {}
                    Some(Offer::Unreadable { id, failure }) => {
                        tracing::warn!(lease = %id, why = %failure, "lease cannot be read");
                        self.decline(id, failure, asked);
                    }
                    Some(Offer::Lease(lease)) if self.leaving.is_some() => {
                        self.decline(lease.id, Failure::stopping(), asked);
                    }
                    Some(Offer::Lease(lease)) => self.begin(*lease, asked, now),
                }
            }
            Err(CallError::Refused {
                kind: Kind::Fenced,
                why,
                ..
            }) => self.begin_new_life(&why, now),
            Err(error) => {
                let wait = self.polling.next(random());
                self.due.poll = now + wait;
                tracing::warn!(%error, wait_ms = wait.as_millis(), "could not ask for work");
            }
        }
    }

    /// Begins an attempt.
    fn begin(&mut self, lease: Lease, asked: Instant, now: Instant) {
        let id = lease.id;
        if self.running.contains_key(&id) {
            // Said twice, as after an answer that was thought to be lost.
            return;
        }
        // The coordinator gave the job anew, so the earlier attempt here has lost it.
        let mut before = None;
        for (other, running) in self.running.range(..id).rev() {
            if other.job != id.job {
                break;
            }
            running.stop.stop(StopCause::Superseded);
            before.get_or_insert_with(|| running.ended.clone());
        }
        let running = Running::new(LeaseClock::granted(asked, lease.term), lease.work.stops_without_lease());
        let span = tracing::info_span!(
            "job",
            job = id.job.0,
            epoch = id.epoch.0,
            attempt = lease.attempt,
            work = lease.work.name(),
            vault = lease.vault.name,
            item = lease.work.item().map(tracing::field::display),
            trace = lease.trace_id(),
        );
        if let Some(parent) = &lease.trace {
            trace::adopt(&span, parent);
        }
        running.activity.log().attach(&span);
        span.in_scope(|| tracing::info!("attempt begins"));
        let job = Job {
            coordinator: Arc::clone(&self.coordinator),
            vaults: Arc::clone(&self.vaults),
            slots: self.slots.clone(),
            metrics: Arc::clone(&self.config.metrics),
            effort: self.config.effort,
            host: self.config.host.clone(),
            begun: now,
            activity: Arc::clone(&running.activity),
            stop: running.stop.clone(),
            give_up: running.give_up.clone(),
            own_claim: OnceLock::new(),
            meter: OnceLock::new(),
            lease,
        };
        let ended = Ended(running.ended.clone());
        self.running.insert(id, running);
        self.jobs.spawn(
            async move {
                let _ended = ended;
                Some((id, Box::pin(job::run(job, before)).await?))
            }
            .instrument(span),
        );
        // The wait for work has used up a part of the term.
        self.due.beat = now;
    }

    /// Gives a lease back without having begun.
    fn decline(&mut self, id: LeaseId, failure: Failure, asked: Instant) {
        let term = self.terms.as_ref().map_or(Duration::ZERO, |terms| terms.lease);
        let running = Running::new(LeaseClock::granted(asked, term), false);
        let (coordinator, give_up) = (Arc::clone(&self.coordinator), running.give_up.clone());
        let ended = Ended(running.ended.clone());
        self.running.insert(id, running);
        self.jobs.spawn(async move {
            let _ended = ended;
            job::report_failure(coordinator.as_ref(), &id, &failure, &give_up).await;
            None
        });
    }

    /// Sends what was logged of an attempt that has ended. Beside everything else, and not for long: it may be lost.
    fn report_log(&mut self, id: LeaseId, log: Vec<u8>) {
        if self.logs.len() >= LOGS_MAX {
            tracing::debug!(lease = %id, "the log of an attempt is dropped: too many are on their way");
            return;
        }
        let coordinator = Arc::clone(&self.coordinator);
        self.logs.spawn(async move {
            let mut backoff = Backoff::new(Patience::WORKING);
            for _ in 0..LOG_TRIES {
                match coordinator.report_log(id, log.clone()).await {
                    Err(CallError::Unanswered { .. }) => {}
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(lease = %id, %error, "the log of an attempt is not taken");
                        return;
                    }
                }
                tokio::time::sleep(backoff.next(random()).min(LOG_PAUSE)).await;
            }
            tracing::debug!(lease = %id, "the log of an attempt is not heard");
        });
    }

    fn beaten(&mut self, sent: Instant, named: &[LeaseId], answer: Result<Beat, CallError>, now: Instant) {
        let beat = self.terms.as_ref().map_or(POLL_PAUSE, |terms| terms.beat);
        let answer = match answer {
            Ok(answer) => answer,
            Err(CallError::Refused {
                kind: Kind::Fenced,
                why,
                ..
            }) => {
                self.begin_new_life(&why, now);
                return;
            }
            Err(error) => {
                let wait = self.beating.next(random()).min(beat);
                self.due.beat = now + wait;
                self.config.metrics.note_no_beat();
                tracing::warn!(%error, wait_ms = wait.as_millis(), "beat is not heard");
                return;
            }
        };
        self.config.metrics.note_beat(answer.drained);
        self.beating.reset();
        self.registering.reset();
        self.due.beat = self.due.beat.max(sent + beat);
        let lease = self.terms.as_ref().map_or(Duration::ZERO, |terms| terms.lease);
        if let Some(next) = self.limits.answered(answer.limits, sent, lease, now) {
            self.due.beat = self.due.beat.min(next);
        }
        if self.is_nudged {
            self.nudge(now);
        }
        if answer.drained != self.is_drained {
            tracing::info!(drained = answer.drained, "worker is told whether it drains");
            self.is_drained = answer.drained;
        }
        for id in named {
            let Some(running) = self.running.get_mut(id) else {
                continue;
            };
            if !answer.held.contains(id) {
                running.stop.stop(StopCause::NotHeld);
            } else {
                running.clock.renewed(sent);
                if answer.cancelled.contains(id) {
                    running.stop.stop(StopCause::Cancelled);
                }
            }
        }
        // Leases that came while the beat was on its way were not in it.
        if self.running.keys().any(|id| !named.contains(id)) {
            self.due.beat = now;
        }
    }

    /// A beat is due soon, for the sake of shares: what others are to have is free when this worker has said that it let go of it.
    fn nudge(&mut self, now: Instant) {
        self.is_nudged = true;
        let earliest = self.beaten_at.map_or(now, |sent| sent + PENDING_PAUSE);
        self.due.beat = self.due.beat.min(now.max(earliest));
    }

    fn begin_leaving(&mut self, now: Instant) {
        self.desk.close();
        let stop_jobs = now + self.config.finish_time;
        tracing::info!(running = self.running.len(), "worker stops");
        self.leaving = Some(Leaving {
            stop_jobs,
            leave: stop_jobs + LEAVING,
        });
    }

    /// What time alone brings.
    fn upkeep(&mut self, now: Instant) {
        self.limits.expire(now);
        for (id, running) in &self.running {
            if running.is_bound() && running.clock.standing(now) == Standing::Lost {
                tracing::warn!(lease = %id, "lease is over by this worker's clock, and the attempt must not go on without one");
                running.stop.stop(StopCause::Expired);
            }
        }
        if let Some(leaving) = &mut self.leaving
            && now >= leaving.stop_jobs
        {
            for running in self.running.values() {
                running.stop.stop(StopCause::Stopping);
            }
            // Once is enough, but an attempt that was deciding and goes on after all is stopped at the next look.
            leaving.stop_jobs = leaving.leave.min(now + POLL_PAUSE);
        }
        if now >= self.due.upkeep {
            self.due.upkeep = now + UPKEEP;
            self.vaults.close_idle(now);
        }
    }
}
