//! Commands to try things with: one story in which every kind of command is taken, and commands drawn at random.

use super::*;
use crate::state::SLOTS;
use crate::state::channels::{
    Cause, ChannelSpec, DigestSpec, Message, Note, SendOutcome, Target, Telling, Thing, Told, ToldOf,
};
use crate::state::limits::{LimitRates, LimitRule, LimitSubject};
use tresor_proto::ids::TokenId;

/// How many kinds of commands there are.
pub(super) const KINDS: u8 = 44;

/// Random numbers that are the same for the same seed: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let place = self.below(from.len().max(1) as u64);
        from.get(usize::try_from(place).unwrap()).cloned()
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_le_bytes()[0])
    }

    fn blob(&mut self) -> Vec<u8> {
        (0..self.below(40)).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'Z', '0', ' ', 'ä', '€', '\n', '🦀'];
        (0..self.below(12)).filter_map(|_| self.pick(&letters)).collect()
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.below(1 << 32)).unwrap()
    }

    fn time(&mut self) -> Time {
        Time(match self.below(4) {
            0 => i64::MIN,
            1 => i64::MAX,
            _ => self.next().cast_signed(),
        })
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(2) { None } else { Some(make(self)) }
    }

    fn some<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        self.some(|dice| (dice.text(), dice.text())).into_iter().collect()
    }

    fn point(&mut self) -> PointId {
        PointId(self.bytes())
    }

    pub(super) fn actor(&mut self) -> Actor {
        match self.below(6) {
            0 => Actor::Cluster,
            1 => Actor::Token(TokenId(self.bytes())),
            2 => Actor::Worker(WorkerId(self.next())),
            3 => Actor::Member(MemberId(self.next())),
            4 => Actor::Local { uid: self.small() },
            _ => Actor::Founder,
        }
    }

    fn consistency(&mut self) -> Consistency {
        let kinds = [Consistency::Crash, Consistency::Filesystem, Consistency::Application];
        self.pick(&kinds).unwrap()
    }

    fn counts(&mut self) -> Counts {
        Counts {
            bytes_read: self.next(),
            bytes_new: self.next(),
            bytes_stored: self.next(),
            bytes_logical: self.next(),
            took: self.next(),
            chunks_new: self.next(),
            chunks_known: self.next(),
            segments_inherited: self.next(),
            lookups: self.next(),
            packs: self.next(),
            puts: self.next(),
            gets: self.next(),
            heads: self.next(),
            lists: self.next(),
            deletes: self.next(),
        }
    }

    fn failure(&mut self) -> Failure {
        let kinds = [
            FailureKind::Retry,
            FailureKind::Invalid,
            FailureKind::Missing,
            FailureKind::Corrupt,
            FailureKind::Fenced,
            FailureKind::Full,
            FailureKind::Denied,
            FailureKind::Bug,
            FailureKind::Lost,
            FailureKind::Cancelled,
        ];
        Failure {
            kind: self.pick(&kinds).unwrap(),
            message: self.text(),
            hint: self.text(),
        }
    }

    fn member_spec(&mut self) -> MemberSpec {
        MemberSpec {
            member: MemberId(self.next()),
            name: self.text(),
            address: self.text(),
            token: self.maybe(|dice| TokenId(dice.bytes())),
        }
    }

    fn api_token(&mut self) -> ApiTokenSpec {
        ApiTokenSpec {
            token: TokenId(self.bytes()),
            name: self.text(),
            role: self.text(),
            hash: self.bytes(),
            expires: self.maybe(Self::time),
        }
    }

    fn policy_spec(&mut self) -> PolicySpec {
        PolicySpec {
            name: self.text(),
            schedule: self.text(),
            zone: self.text(),
            windows: self.some(Self::text),
            jitter: self.time().0,
            retention: self.text(),
            priority: self.small().cast_signed(),
            late_after: self.time().0,
        }
    }

    fn item_spec(&mut self) -> ItemSpec {
        ItemSpec {
            name: self.text(),
            vault: VaultId(self.bytes()),
            policy: self.maybe(|dice| PolicyId(dice.bytes())),
            host: self.text(),
            worker_labels: self.labels(),
            labels: self.labels(),
            disks: self.some(|dice| DiskSpec {
                name: dice.text(),
                path: dice.text(),
                format: dice.text(),
            }),
            allow_live: self.one_in(2),
            allow_backing: self.one_in(2),
        }
    }

    fn job_spec(&mut self) -> JobSpec {
        let work = match self.below(5) {
            0 => Work::Backup {
                item: ItemId(self.bytes()),
                keep_until: self.maybe(Self::time),
            },
            1 => Work::Restore {
                point: self.point(),
                host: self.text(),
                target: RestoreTarget {
                    disk: self.text(),
                    path: self.text(),
                    format: self.text(),
                    overwrite: self.one_in(2),
                    in_place: self.one_in(2),
                },
            },
            2 => Work::Verify {
                point: self.maybe(Self::point),
                level: self.text(),
            },
            3 => Work::Claim,
            _ => Work::Catalogue,
        };
        JobSpec {
            vault: VaultId(self.bytes()),
            work,
            priority: self.small().cast_signed(),
            not_before: self.time(),
            occurrence: self.maybe(Self::time),
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(4) {
            0 => Outcome::Backup(CommittedPoint {
                point: self.point(),
                time: self.time(),
                manifest: self.bytes(),
                consistency: self.consistency(),
                slots: self.blob(),
                slot_map: self.next(),
                slots_missing: Vec::new(),
                findings_seen: self.next(),
                counts: self.counts(),
            }),
            1 => Outcome::Done { counts: self.counts() },
            2 => Outcome::Verified {
                counts: self.counts(),
                harmed: self.some(Self::point),
                findings: 3,
                is_all: true,
            },
            _ => Outcome::Claimed(VaultClaim {
                n: self.next(),
                cluster: self.next(),
                header: self.bytes(),
            }),
        }
    }

    fn limit_subject(&mut self) -> LimitSubject {
        match self.below(4) {
            0 => LimitSubject::Store(self.text()),
            1 => LimitSubject::Worker(WorkerId(self.next())),
            2 => LimitSubject::Host(self.text()),
            _ => LimitSubject::Job(JobId(self.next())),
        }
    }

    fn cause(&mut self) -> Cause {
        self.pick(&Cause::ALL).unwrap()
    }

    fn channel(&mut self) -> ChannelSpec {
        let target = match self.below(3) {
            0 => Target::Webhook { origin: self.text() },
            1 => Target::Slack { origin: self.text() },
            _ => Target::Email {
                to: self.some(Self::text),
                from: self.text(),
                server: self.text(),
            },
        };
        ChannelSpec {
            name: self.text(),
            target,
            on: self.some(Self::cause).into_iter().collect(),
            vaults: self.some(|dice| VaultId(dice.bytes())).into_iter().collect(),
            digest: self.maybe(|dice| DigestSpec {
                schedule: dice.text(),
                zone: dice.text(),
            }),
            secret: self.blob(),
        }
    }

    fn told_of(&mut self) -> ToldOf {
        match self.below(5) {
            0 => ToldOf::Cause(self.cause()),
            1 => ToldOf::Failing(ItemId(self.bytes())),
            2 => ToldOf::Late(ItemId(self.bytes())),
            3 => ToldOf::Finding(VaultId(self.bytes())),
            _ => ToldOf::Newest,
        }
    }

    fn told(&mut self) -> Told {
        Told {
            at: self.time(),
            number: self.next(),
            count: self.next(),
        }
    }

    fn message(&mut self) -> Message {
        Message {
            cause: self.cause(),
            at: self.time(),
            notes: self.some(|dice| Note {
                thing: if dice.one_in(2) { Thing::Item } else { Thing::Vault },
                name: dice.text(),
                vault: dice.text(),
                policy: dice.text(),
                since: dice.time(),
                last_good: dice.maybe(Self::time),
                job: dice.next(),
                count: dice.next(),
                why: dice.text(),
                hint: dice.text(),
            }),
            more: self.next(),
            counts: self.some(|dice| (dice.text(), dice.next())),
        }
    }

    /// A command of that kind, with whatever in it.
    pub(super) fn command(&mut self, kind: u8) -> Command {
        let job = JobId(self.next());
        let epoch = Epoch(self.next());
        let worker = WorkerId(self.next());
        let item = ItemId(self.bytes());
        let point = PointId(self.bytes());
        let vault = VaultId(self.bytes());
        let policy = PolicyId(self.bytes());
        let token = TokenId(self.bytes());
        match kind {
            0 => Command::Found(Founding {
                cluster: self.bytes(),
                name: self.text(),
                ca_certificate: self.blob(),
                ca_key: self.blob(),
                member: self.member_spec(),
                admin: self.maybe(Self::api_token),
            }),
            1 => Command::RaiseVersion {
                to: self.bytes::<1>()[0].into(),
            },
            2 => Command::StopExpiry { step: self.time().0 },
            3 => Command::ConfirmClock,
            4 => Command::AddMember(self.member_spec()),
            5 => Command::RemoveMember {
                member: MemberId(self.next()),
            },
            6 => Command::AddVault(VaultSpec {
                vault,
                name: self.text(),
                url: self.text(),
                region: self.text(),
                profile: self.text(),
                origin: self.pick(&[VaultOrigin::Make, VaultOrigin::TakeOver]).unwrap(),
                key: self.blob(),
            }),
            7 => Command::RemoveVault { vault },
            8 => Command::CreatePolicy {
                policy,
                spec: self.policy_spec(),
            },
            9 => Command::UpdatePolicy {
                policy,
                version: self.next(),
                spec: self.policy_spec(),
            },
            10 => Command::RemovePolicy { policy },
            11 => Command::Protect {
                item,
                spec: self.item_spec(),
                also: self.one_in(2),
            },
            12 => Command::UpdateItem {
                version: 0,
                item,
                spec: self.item_spec(),
            },
            13 => Command::Unprotect { item },
            14 => Command::Hold {
                point,
                reason: self.text(),
            },
            15 => Command::Release { point },
            16 => Command::HidePoints {
                points: self.some(Self::point),
                by_retention: self.one_in(2),
            },
            17 => Command::ShowPoint { point },
            18 => Command::GiveUpPoints {
                points: self.some(Self::point),
            },
            19 => Command::AdoptPoints {
                vault,
                points: self.some(|dice| AdoptedPoint {
                    point: dice.point(),
                    item: ItemId(dice.bytes()),
                    item_name: dice.text(),
                    time: dice.time(),
                    keep_until: dice.maybe(Self::time),
                    manifest: dice.bytes(),
                    consistency: dice.consistency(),
                    hidden: dice.maybe(Self::time),
                }),
            },
            20 => Command::Enqueue(self.job_spec()),
            21 => Command::Lease {
                job,
                worker,
                life: self.bytes(),
            },
            22 => Command::ExpireLease {
                job,
                epoch,
                retry_at: self.maybe(Self::time),
            },
            23 => Command::Complete(Completion {
                job,
                epoch,
                session: SessionId(self.next()),
                outcome: self.outcome(),
            }),
            24 => Command::Fail {
                job,
                epoch,
                failure: self.failure(),
                retry_at: self.maybe(Self::time),
            },
            25 => Command::Cancel { job },
            26 => Command::Retry { job },
            27 => Command::AddWorker(WorkerSpec {
                name: self.text(),
                token: self.maybe(|dice| TokenId(dice.bytes())),
            }),
            28 => Command::Register {
                worker,
                life: self.bytes(),
                facts: WorkerFacts {
                    host: self.text(),
                    version: self.text(),
                    labels: self.labels(),
                    permits: self.small(),
                    stores: self.some(Self::text),
                    serves: self.text(),
                    jobs: self.one_in(2),
                    region: self.text(),
                },
                kept_life: self.maybe(Self::bytes),
            },
            29 => Command::Drain {
                worker,
                drained: self.one_in(2),
            },
            30 => Command::RemoveWorker { worker },
            31 => Command::GrantSlots {
                seen: self.next(),
                grants: self.some(|dice| {
                    let slot = dice.below(u64::from(SLOTS) + 1);
                    (u16::try_from(slot).unwrap(), WorkerId(dice.next()))
                }),
            },
            32 => Command::ReportFindings {
                vault,
                harmed: self.some(Self::point),
            },
            33 => Command::CreateApiToken(self.api_token()),
            34 => Command::CreateJoinToken(JoinTokenSpec {
                token,
                role: self.text(),
                hash: self.bytes(),
                expires: self.time(),
                uses: self.small(),
            }),
            35 => Command::RevokeToken { token },
            36 => Command::Note {
                action: self.text(),
                object: self.text(),
            },
            37 => Command::SetLimit {
                subject: self.limit_subject(),
                rule: LimitRule {
                    windows: self.some(Self::text),
                    zone: self.text(),
                    rates: LimitRates {
                        upload: self.maybe(Self::next),
                        download: self.maybe(Self::next),
                        requests: self.maybe(Self::small),
                        concurrency: self.maybe(Self::small),
                    },
                },
            },
            38 => Command::RemoveLimit {
                subject: self.limit_subject(),
                windows: self.maybe(|dice| dice.some(Self::text)),
            },
            39 => Command::AddChannel(self.channel()),
            40 => Command::RemoveChannel { name: self.text() },
            41 => Command::Tell(Telling {
                seen: self.next(),
                told: self.some(|dice| (dice.told_of(), dice.maybe(Self::told))),
                messages: self.some(|dice| (dice.text(), dice.message())),
                digests: self.some(|dice| (dice.text(), dice.time())),
            }),
            42 => Command::NoteSent {
                message: self.next(),
                outcome: match self.below(3) {
                    0 => SendOutcome::Taken,
                    1 => SendOutcome::Later {
                        error: self.text(),
                        next: self.time(),
                    },
                    _ => SendOutcome::Lost {
                        error: self.text(),
                        next: self.time(),
                    },
                },
            },
            43 => Command::KeepLog {
                job,
                epoch,
                log: self.blob(),
            },
            _ => panic!("there are {KINDS} kinds"),
        }
    }

    /// An entry of that kind, with whatever in it.
    pub(super) fn entry(&mut self, kind: u8) -> Entry {
        Entry {
            now: self.time(),
            actor: self.actor(),
            key: self.maybe(Self::bytes),
            command: self.command(kind),
        }
    }
}
