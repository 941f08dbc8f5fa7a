//! Who asks for random commands: what is late, doubled or of somebody else comes as what is in time does.

use super::samples::{Dice, KINDS};
use super::*;
use crate::state::channels::{SendOutcome, Telling, Told, ToldOf};
use crate::state::limits::{LimitRates, LimitRule, LimitSubject};
use tresor_proto::ids::TokenId;

/// Lives, ids and names are few, so that commands meet.
const LIVES: [[u8; 16]; 3] = [LIFE, [5; 16], [6; 16]];

/// Plays random commands; most of them are plausible.
pub(super) struct Player {
    dice: Dice,
    pub(super) bench: Bench,
    /// Leases that were granted, ended ones too: what is late comes from these.
    leases: Vec<Leased>,
    points_made: u64,
}

impl Player {
    pub(super) fn new(seed: u64) -> Self {
        let mut bench = Bench::empty();
        bench.log = Some(Vec::new());
        bench.by(Actor::Founder, Command::Found(founding()));
        let worker = bench.worker("w1", 3);
        bench.vault(VAULT, "main", worker);
        bench.does(Command::CreatePolicy {
            policy: POLICY,
            spec: policy_spec("nightly"),
        });
        bench.protect(ITEM, "web");
        Self {
            dice: Dice(seed),
            bench,
            leases: Vec::new(),
            points_made: 0,
        }
    }

    fn vault(&mut self) -> VaultId {
        self.dice.pick(&[VAULT, VAULT, VaultId([8; 16])]).unwrap()
    }

    fn policy(&mut self) -> PolicyId {
        self.dice.pick(&[POLICY, PolicyId([0x31; 16])]).unwrap()
    }

    fn name(&mut self) -> String {
        self.dice
            .pick(&["web", "db", "cache", "old", "mail", "git", "wiki", "ci"])
            .unwrap()
            .to_owned()
    }

    fn item(&mut self) -> ItemId {
        let items: Vec<ItemId> = self.bench.state.items().iter().map(|(id, _)| *id).collect();
        match self.dice.pick(&items) {
            Some(item) if !self.dice.one_in(5) => item,
            _ => item_id(self.dice.below(12)),
        }
    }

    fn point(&mut self) -> PointId {
        let points: Vec<PointId> = self.bench.state.points().iter().map(|(id, _)| *id).collect();
        match self.dice.pick(&points) {
            Some(point) if !self.dice.one_in(8) => point,
            _ => point_id(self.dice.below(self.points_made + 2)),
        }
    }

    fn points(&mut self) -> Vec<PointId> {
        (0..self.dice.below(6)).map(|_| self.point()).collect()
    }

    /// One that can work, mostly.
    fn worker(&mut self) -> WorkerId {
        let all = self.dice.one_in(8);
        let rows = self.bench.state.workers().iter();
        let workers: Vec<WorkerId> = rows
            .filter(|(_, row)| all || !row.removed && row.life.is_some())
            .map(|(id, _)| *id)
            .collect();
        let newest = self.bench.state.workers().last().map_or(WorkerId(1), |(id, _)| *id);
        self.dice.pick(&workers).unwrap_or(newest)
    }

    /// One that waits, mostly.
    fn job(&mut self) -> JobId {
        let all = self.dice.one_in(6);
        let rows = self.bench.state.jobs().iter();
        let jobs: Vec<JobId> = rows
            .filter(|(_, job)| all || matches!(job.state, JobState::Queued { .. }))
            .map(|(id, _)| *id)
            .collect();
        self.dice.pick(&jobs).unwrap_or(JobId(self.dice.below(9)))
    }

    fn idle_items(&self) -> Vec<ItemId> {
        let state = &self.bench.state;
        let rows = state.items().iter();
        rows.filter(|(id, row)| row.protected && row.spec.vault == VAULT && state.open_backup(**id).is_none())
            .map(|(id, _)| *id)
            .collect()
    }

    /// One that can be backed up now, mostly.
    fn idle_item(&mut self) -> Option<ItemId> {
        match self.dice.pick(&self.idle_items()) {
            _ if self.dice.one_in(12) => Some(self.item()),
            found => found,
        }
    }

    /// A lease that runs, mostly.
    fn leased(&mut self) -> Option<Leased> {
        let state = &self.bench.state;
        let running: Vec<Leased> = self
            .leases
            .iter()
            .filter(|leased| state.sessions().contains(&leased.session))
            .copied()
            .collect();
        if self.dice.one_in(5) {
            self.dice.pick(&self.leases.clone())
        } else {
            self.dice.pick(&running)
        }
    }

    fn limit_subject(&mut self) -> LimitSubject {
        match self.dice.below(4) {
            0 => LimitSubject::Store(String::from("s3://backup")),
            1 => LimitSubject::Host(self.name()),
            2 => LimitSubject::Worker(self.worker()),
            _ => LimitSubject::Job(self.job()),
        }
    }

    fn limit(&mut self) -> Command {
        let rates = LimitRates {
            upload: Some(1000 + self.dice.below(9)),
            ..LimitRates::default()
        };
        Command::SetLimit {
            subject: self.limit_subject(),
            rule: LimitRule {
                rates,
                ..LimitRule::default()
            },
        }
    }

    fn telling(&mut self) -> Command {
        let told = Told {
            at: self.bench.now,
            ..Told::default()
        };
        let item = self.bench.state.items().iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let item = self.dice.pick(&item).unwrap_or(ItemId([9; 16]));
        let told = match self.dice.one_in(3) {
            true => None,
            false => Some(told),
        };
        let seen = if self.dice.one_in(5) {
            1
        } else {
            self.bench.state.told_newest()
        };
        Command::Tell(Telling {
            seen,
            told: vec![(ToldOf::Failing(item), told)],
            messages: vec![(String::from("ops"), super::channels::message("web")); 2],
            digests: Vec::new(),
        })
    }

    fn token(&mut self) -> TokenId {
        TokenId([u8::try_from(self.dice.below(20)).unwrap(); 16])
    }

    fn join_token(&mut self) -> Option<TokenId> {
        let rows = self.bench.state.tokens().iter();
        let there: Vec<TokenId> = rows.map(|(id, _)| *id).collect();
        if self.dice.one_in(3) {
            None
        } else {
            self.dice.pick(&there)
        }
    }

    fn item_spec(&mut self) -> ItemSpec {
        let (name, vault) = (self.name(), self.vault());
        let policy = if self.dice.one_in(3) { None } else { Some(self.policy()) };
        ItemSpec {
            policy,
            ..item_spec(&name, vault)
        }
    }

    fn work(&mut self) -> JobSpec {
        let vault = self.vault();
        let spec = match self.dice.below(10) {
            0..6 => self.idle_item().map_or_else(catalogue, backup_of),
            6 => {
                let path = self.dice.pick(&["/a", "/b", "/a/", "/c", "/d"]).unwrap();
                let host = self.dice.pick(&["w1", "w2"]).unwrap();
                restore_of(self.point(), host, path)
            }
            7 => verify_of(Some(self.point())),
            8 => verify_of(None),
            _ => JobSpec {
                work: self.dice.pick(&[Work::Claim, Work::Catalogue]).unwrap(),
                ..catalogue()
            },
        };
        let occurrence = self.dice.one_in(3).then(|| {
            let ago = self.dice.below(4).cast_signed();
            Time(self.bench.now.0 / DAY * DAY - ago * DAY)
        });
        let vault = if self.dice.one_in(6) { vault } else { VAULT };
        JobSpec {
            vault,
            occurrence,
            ..spec
        }
    }

    fn retry_at(&mut self) -> Option<Time> {
        (!self.dice.one_in(3)).then(|| self.bench.now.plus(self.dice.below(20_000).cast_signed()))
    }

    /// What a good attempt of that job leaves.
    fn outcome(&mut self, job: JobId) -> Outcome {
        let work = self.bench.state.jobs().get(&job).map(|job| job.spec.work.clone());
        match work {
            Some(Work::Backup { .. }) => {
                self.points_made += u64::from(!self.dice.one_in(10));
                let mut point = committed(&self.bench.state, point_id(self.points_made));
                if self.dice.one_in(4) {
                    point.slots = vec![self.dice.next().to_le_bytes()[0] & 7];
                    point.slot_map = point.slot_map.saturating_sub(self.dice.below(3));
                }
                if self.dice.one_in(8) {
                    point.findings_seen = 0;
                }
                point.time = self
                    .bench
                    .now
                    .plus(self.dice.below(2_000_000).cast_signed() - 1_000_000);
                Outcome::Backup(point)
            }
            Some(Work::Verify { .. }) => Outcome::Verified {
                counts: counts(0),
                harmed: if self.dice.one_in(3) { self.points() } else { Vec::new() },
                findings: 1,
                is_all: self.dice.one_in(2),
            },
            Some(Work::Claim) => Outcome::Claimed(claim(1 + self.dice.below(5))),
            _ => Outcome::Done { counts: counts(3) },
        }
    }

    fn lease(&mut self) -> (Actor, Command) {
        let (job, worker) = (self.job(), self.worker());
        let registered = self.bench.state.workers().get(&worker).and_then(|row| row.life);
        let life = match registered {
            Some(life) if !self.dice.one_in(6) => life,
            _ => self.dice.pick(&LIVES).unwrap(),
        };
        (Actor::Cluster, Command::Lease { job, worker, life })
    }

    fn end_of_lease(&mut self) -> Option<(Actor, Command)> {
        let leased = self.leased()?;
        let actor = match self.dice.below(12) {
            0 => Actor::Cluster,
            1 => Actor::Worker(self.worker()),
            2 => PERSON,
            _ => Actor::Worker(leased.worker),
        };
        let (job, epoch) = (leased.job, leased.epoch);
        let command = match self.dice.below(11) {
            10 if self.dice.one_in(4) => Command::KeepLog {
                job,
                epoch,
                log: vec![7; usize::try_from(1 + self.dice.below(40)).unwrap()],
            },
            0 | 1 => Command::ExpireLease {
                job,
                epoch,
                retry_at: self.retry_at(),
            },
            2 | 3 => Command::Fail {
                job,
                epoch,
                failure: failure(self.dice.pick(&[FailureKind::Retry, FailureKind::Cancelled]).unwrap()),
                retry_at: self.retry_at(),
            },
            _ => Bench::completion(leased, self.outcome(job)),
        };
        Some((actor, command))
    }

    fn point_command(&mut self) -> (Actor, Command) {
        let point = self.point();
        match self.dice.below(9) {
            0 => (
                PERSON,
                Command::Hold {
                    point,
                    reason: String::from("legal"),
                },
            ),
            1 => {
                let rows = self.bench.state.points().iter();
                let held: Vec<PointId> = rows.filter(|(_, row)| row.held.is_some()).map(|(id, _)| *id).collect();
                let point = self.dice.pick(&held).unwrap_or(point);
                (PERSON, Command::Release { point })
            }
            2 => (PERSON, Command::ShowPoint { point }),
            3 => (
                PERSON,
                Command::HidePoints {
                    points: self.points(),
                    by_retention: false,
                },
            ),
            4..7 => (
                Actor::Cluster,
                Command::HidePoints {
                    points: self.points(),
                    by_retention: true,
                },
            ),
            _ => (Actor::Cluster, Command::GiveUpPoints { points: self.points() }),
        }
    }

    fn people_command(&mut self) -> Command {
        let (vault, policy, item, token) = (self.vault(), self.policy(), self.item(), self.token());
        match self.dice.below(16) {
            0..3 => Command::Protect {
                item: item_id(self.dice.below(12)),
                spec: self.item_spec(),
                also: self.dice.one_in(2),
            },
            3 if self.dice.one_in(2) => Command::Unprotect { item },
            4 => {
                let spec = self.item_spec();
                let known = self.bench.state.items().get(&item).map(|row| row.spec.clone());
                let spec = match known {
                    Some(known) => ItemSpec {
                        vault: known.vault,
                        policy: spec.policy,
                        ..if self.dice.one_in(2) { spec } else { known }
                    },
                    None => spec,
                };
                Command::UpdateItem { item, version: 0, spec }
            }
            5 => Command::CreatePolicy {
                policy,
                spec: policy_spec(self.dice.pick(&["nightly", "hourly"]).unwrap()),
            },
            6 => Command::UpdatePolicy {
                policy,
                version: 0,
                spec: PolicySpec {
                    schedule: self.dice.pick(&["daily 02:00", "hourly"]).unwrap().to_owned(),
                    ..policy_spec(self.dice.pick(&["nightly", "hourly"]).unwrap())
                },
            },
            7 => Command::RemovePolicy { policy },
            8 => Command::AddVault(vault_spec(vault, if vault == VAULT { "main" } else { "archive" })),
            9 if vault != VAULT || self.dice.one_in(12) => Command::RemoveVault { vault },
            10 => Command::CreateJoinToken(JoinTokenSpec {
                token,
                role: String::from(self.dice.pick(&["worker", "coordinator"]).unwrap()),
                hash: [0; 32],
                expires: self.bench.now.plus(HOUR),
                uses: 1,
            }),
            11 => Command::CreateApiToken(ApiTokenSpec {
                token,
                name: String::from("ann"),
                role: String::from("operator"),
                hash: [0; 32],
                expires: None,
            }),
            12 => Command::RevokeToken { token },
            13 => Command::ConfirmClock,
            _ => Command::AdoptPoints {
                vault,
                points: self
                    .points()
                    .into_iter()
                    .map(|point| AdoptedPoint {
                        point,
                        item,
                        item_name: self.name(),
                        time: Time(START - HOUR),
                        keep_until: None,
                        manifest: [0; 32],
                        consistency: Consistency::Crash,
                        hidden: self.dice.one_in(3).then_some(Time(START)),
                    })
                    .collect(),
            },
        }
    }

    fn node_command(&mut self) -> (Actor, Command) {
        let worker = self.worker();
        let token = self.join_token();
        match self.dice.below(12) {
            0 => {
                let name = String::from(self.dice.pick(&["w1", "w2", "w3"]).unwrap());
                (
                    Actor::Member(MemberId(1)),
                    Command::AddWorker(WorkerSpec { name, token }),
                )
            }
            1..6 => {
                let register = Command::Register {
                    worker,
                    life: self.dice.pick(&LIVES).unwrap(),
                    facts: WorkerFacts {
                        serves: if self.dice.one_in(6) {
                            String::new()
                        } else {
                            facts(3).serves
                        },
                        ..facts(3)
                    },
                    kept_life: self.dice.pick(&LIVES),
                };
                (Actor::Worker(worker), register)
            }
            6 | 7 => {
                let drained = self.dice.one_in(4);
                (PERSON, Command::Drain { worker, drained })
            }
            8 if self.dice.one_in(6) => (PERSON, Command::RemoveWorker { worker }),
            8 | 9 => (
                PERSON,
                Command::AddMember(MemberSpec {
                    member: MemberId(0),
                    name: String::from("c2"),
                    address: String::from("c2:7000"),
                    token,
                }),
            ),
            10 => {
                let members: Vec<MemberId> = self.bench.state.members().iter().map(|(id, _)| *id).collect();
                let member = self.dice.pick(&members[1..]).unwrap_or(MemberId(99));
                (PERSON, Command::RemoveMember { member })
            }
            _ => {
                let grants = (0..3)
                    .filter(|_| self.dice.one_in(2))
                    .map(|slot| (slot, worker))
                    .collect();
                let seen = match self.dice.one_in(6) {
                    true => self.dice.below(20),
                    false => self.bench.state.marks().slot_map,
                };
                (Actor::Cluster, Command::GrantSlots { seen, grants })
            }
        }
    }

    fn command(&mut self) -> (Actor, Command) {
        let mut roll = self.dice.below(100);
        if roll < 18 && self.idle_items().is_empty() && !self.dice.one_in(4) {
            // Work instead of queueing more.
            roll += 28;
        }
        match roll {
            0..18 => (Actor::Cluster, Command::Enqueue(self.work())),
            18..38 => self.lease(),
            38..66 => self
                .end_of_lease()
                .unwrap_or((Actor::Cluster, Command::Enqueue(backup_of(ITEM)))),
            66..75 => self.point_command(),
            75..86 => (PERSON, self.people_command()),
            86..93 => self.node_command(),
            93 | 94 => {
                let job = self.job();
                if self.dice.one_in(2) {
                    return (PERSON, Command::Cancel { job });
                }
                let ended: Vec<JobId> = self
                    .bench
                    .state
                    .jobs()
                    .iter()
                    .filter(|(_, job)| job.state.is_final())
                    .map(|(id, _)| *id)
                    .collect();
                let job = self.dice.pick(&ended).unwrap_or(job);
                (PERSON, Command::Retry { job })
            }
            95 => {
                let (vault, harmed) = (self.vault(), self.points());
                let actor = Actor::Worker(self.worker());
                (actor, Command::ReportFindings { vault, harmed })
            }
            96 => match self.dice.below(8) {
                5 => {
                    let name = ["ops", "chat"][usize::from(self.dice.one_in(2))];
                    let spec = super::channels::webhook(name);
                    match self.dice.one_in(3) {
                        true => (PERSON, Command::RemoveChannel { name: spec.name }),
                        false => (PERSON, Command::AddChannel(spec)),
                    }
                }
                6 => (Actor::Cluster, self.telling()),
                7 => {
                    let waiting: Vec<u64> = self.bench.state.outbox().iter().map(|(number, _)| *number).collect();
                    let outcome = match self.dice.one_in(2) {
                        true => SendOutcome::Taken,
                        false => SendOutcome::Later {
                            error: String::from("away"),
                            next: self.bench.now.plus(HOUR),
                        },
                    };
                    let message = self.dice.pick(&waiting).unwrap_or(7);
                    (Actor::Cluster, Command::NoteSent { message, outcome })
                }
                3 => (PERSON, self.limit()),
                4 => (
                    PERSON,
                    Command::RemoveLimit {
                        subject: self.limit_subject(),
                        windows: None,
                    },
                ),
                0 if self.bench.state.marks().expiry_stopped.is_some() => (PERSON, Command::ConfirmClock),
                0 => (Actor::Cluster, Command::StopExpiry { step: HOUR }),
                1 => (Actor::Cluster, Command::RaiseVersion { to: 2 }),
                _ => {
                    let note = Command::Note {
                        action: String::from("look"),
                        object: String::new(),
                    };
                    (Actor::Token(self.token()), note)
                }
            },
            // Whatever, by whomever.
            _ => {
                let kind = u8::try_from(self.dice.below(u64::from(KINDS))).unwrap();
                (self.dice.actor(), self.dice.command(kind))
            }
        }
    }

    pub(super) fn step(&mut self) -> Reply {
        match self.dice.below(20) {
            0 => self.bench.pass(self.dice.below(9).cast_signed() * 3 * HOUR),
            // A leader whose clock is behind.
            1 => self.bench.pass(-self.dice.below(100_000).cast_signed()),
            _ => self.bench.pass(self.dice.below(60_000).cast_signed()),
        }
        let (actor, command) = self.command();
        let key = self
            .dice
            .one_in(4)
            .then(|| [u8::try_from(self.dice.below(40)).unwrap(); 16]);
        let job_and_worker = match &command {
            Command::Lease { job, worker, .. } => Some((*job, *worker)),
            _ => None,
        };
        let reply = self.bench.ask_under(key, actor, command);
        if let (Reply::Leased { epoch, session }, Some((job, worker))) = (&reply, job_and_worker) {
            self.leases.push(Leased {
                job,
                worker,
                epoch: *epoch,
                session: *session,
            });
        }
        reply
    }
}
