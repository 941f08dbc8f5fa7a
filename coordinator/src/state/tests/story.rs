//! A game that has a row of every table and an entry of every kind: what the golden encodings are of.

use tresor_proto::ids::TokenId;

use super::*;
use crate::state::channels::{SendOutcome, Telling, Told, ToldOf};
use crate::state::limits::{LimitRates, LimitRule, LimitSubject};

/// The entries of a cluster in which every kind of command was taken, and the cluster. Every table has a row in the end.
///
/// What it says is under fixtures (`golden`): it is never changed, only prolonged together with a new form.
pub(super) fn story() -> (Vec<Entry>, Bench) {
    let mut bench = Bench::empty();
    bench.log = Some(Vec::new());
    let admin = TokenId([0x61; 16]);
    let join = TokenId([0x62; 16]);
    bench.by(
        Actor::Founder,
        Command::Found(Founding {
            admin: Some(ApiTokenSpec {
                token: admin,
                name: String::from("admin"),
                role: String::from("admin"),
                hash: [0x63; 32],
                expires: None,
            }),
            ..founding()
        }),
    );
    let person = Actor::Token(admin);
    let expires = bench.now.plus(5 * DAY);
    bench.by(
        person.clone(),
        Command::CreateJoinToken(JoinTokenSpec {
            token: join,
            role: String::from("worker"),
            hash: [0x64; 32],
            expires,
            uses: 2,
        }),
    );
    bench.by(
        person.clone(),
        Command::CreateApiToken(ApiTokenSpec {
            token: TokenId([0x65; 16]),
            name: String::from("ann"),
            role: String::from("operator"),
            hash: [0x66; 32],
            expires: Some(expires),
        }),
    );
    bench.by(
        person.clone(),
        Command::RevokeToken {
            token: TokenId([0x65; 16]),
        },
    );
    for number in [2, 3] {
        bench.by(
            Actor::Member(MemberId(1)),
            Command::AddMember(MemberSpec {
                member: MemberId(number),
                name: format!("c{number}"),
                address: format!("c{number}:7000"),
                token: None,
            }),
        );
    }
    bench.by(person.clone(), Command::RemoveMember { member: MemberId(3) });
    let mut workers = Vec::new();
    for name in ["w1", "w2"] {
        let spec = WorkerSpec {
            name: name.to_owned(),
            token: Some(join),
        };
        let worker = WorkerId(bench.made(Actor::Member(MemberId(1)), Command::AddWorker(spec)));
        bench.by(
            Actor::Worker(worker),
            Command::Register {
                worker,
                life: LIFE,
                facts: WorkerFacts {
                    labels: BTreeMap::from([(String::from("rack"), String::from("7"))]),
                    stores: vec![String::from("s3://bucket")],
                    region: String::from("eu"),
                    ..facts(2)
                },
                kept_life: Some([8; 16]),
            },
        );
        workers.push(worker);
    }
    let worker = workers[0];
    bench.by(Actor::Cluster, Command::RaiseVersion { to: 1 });
    bench.vault(VAULT, "main", worker);
    let other = VaultId([8; 16]);
    bench.vault(other, "archive", worker);
    bench.by(person.clone(), Command::RemoveVault { vault: other });
    for (policy, name) in [(POLICY, "nightly"), (PolicyId([0x67; 16]), "hourly")] {
        bench.by(
            person.clone(),
            Command::CreatePolicy {
                policy,
                spec: policy_spec(name),
            },
        );
    }
    bench.by(
        person.clone(),
        Command::UpdatePolicy {
            policy: POLICY,
            version: 0,
            spec: PolicySpec {
                windows: vec![String::from("mon-fri 20:00-06:00")],
                jitter: HOUR,
                priority: -3,
                late_after: 26 * HOUR,
                ..policy_spec("nightly")
            },
        },
    );
    bench.by(
        person.clone(),
        Command::RemovePolicy {
            policy: PolicyId([0x67; 16]),
        },
    );
    bench.ask_under(
        Some([0x68; 16]),
        person.clone(),
        Command::Protect {
            item: ITEM,
            spec: ItemSpec {
                labels: BTreeMap::from([(String::from("owner"), String::from("ann"))]),
                worker_labels: BTreeMap::from([(String::from("rack"), String::from("7"))]),
                ..item_spec("web", VAULT)
            },
            also: false,
        },
    );
    bench.by(
        person.clone(),
        Command::UpdateItem {
            version: 0,
            item: ITEM,
            spec: ItemSpec {
                host: String::from("w1"),
                ..item_spec("www", VAULT)
            },
        },
    );
    bench.protect(item_id(2), "db");
    bench.by(person.clone(), Command::Unprotect { item: item_id(2) });
    bench.by(
        Actor::Cluster,
        Command::GrantSlots {
            seen: 0,
            grants: vec![(0, worker), (4095, workers[1])],
        },
    );
    for number in 1..=4 {
        bench.pass(HOUR);
        bench.back_up(ITEM, worker, point_id(number));
    }
    // A commit that rests on a slot, of a scheduled backup that is kept.
    let occurrence = bench.now;
    let job = bench.queue(JobSpec {
        work: Work::Backup {
            item: ITEM,
            keep_until: Some(bench.now.plus(90 * DAY)),
        },
        priority: 7,
        occurrence: Some(occurrence),
        ..backup_of(ITEM)
    });
    let leased = bench.lease(job, worker);
    let mut slots = vec![0; 512];
    slots[0] = 1;
    let rests = CommittedPoint {
        slots,
        consistency: Consistency::Filesystem,
        ..committed(&bench.state, point_id(5))
    };
    bench.commit(leased, rests).unwrap();
    bench.by(
        person.clone(),
        Command::Hold {
            point: point_id(1),
            reason: String::from("legal"),
        },
    );
    bench.by(
        person.clone(),
        Command::Hold {
            point: point_id(2),
            reason: String::from("audit"),
        },
    );
    bench.by(person.clone(), Command::Release { point: point_id(2) });
    bench.hide(&[point_id(2), point_id(3)], true);
    bench.by(person.clone(), Command::ShowPoint { point: point_id(3) });
    bench.by(Actor::Cluster, Command::StopExpiry { step: 2 * HOUR });
    bench.by(person.clone(), Command::ConfirmClock);
    bench.by(
        Actor::Worker(worker),
        Command::AdoptPoints {
            vault: VAULT,
            points: vec![AdoptedPoint {
                point: point_id(60),
                item: item_id(60),
                item_name: String::from("old"),
                time: Time(START - 30 * DAY),
                keep_until: Some(Time(START)),
                manifest: [0x69; 32],
                consistency: Consistency::Application,
                hidden: Some(Time(START - DAY)),
            }],
        },
    );
    bench.by(
        Actor::Worker(worker),
        Command::ReportFindings {
            vault: VAULT,
            harmed: vec![point_id(1)],
        },
    );
    // Jobs of every kind and every end.
    let job = bench.queue(verify_of(Some(point_id(4))));
    let leased = bench.lease(job, worker);
    bench.completes(
        leased,
        Outcome::Verified {
            counts: counts(0),
            harmed: vec![point_id(4)],
            findings: 2,
            is_all: true,
        },
    );
    let job = bench.queue(catalogue());
    let leased = bench.lease(job, worker);
    bench.completes(leased, Outcome::Done { counts: counts(9) });
    let job = bench.queue(restore_of(point_id(1), "w1", "/restored"));
    let leased = bench.lease(job, worker);
    bench.by(
        Actor::Worker(worker),
        Command::Fail {
            job,
            epoch: leased.epoch,
            failure: failure(FailureKind::Full),
            retry_at: None,
        },
    );
    bench.by(person.clone(), Command::Retry { job });
    bench.by(person.clone(), Command::Cancel { job });
    let leased = bench.start_backup(ITEM, worker);
    bench.by(
        Actor::Cluster,
        Command::ExpireLease {
            job: leased.job,
            epoch: leased.epoch,
            retry_at: Some(bench.now),
        },
    );
    bench.lease(leased.job, worker);
    bench.by(
        person.clone(),
        Command::Drain {
            worker: workers[1],
            drained: true,
        },
    );
    bench.by(person.clone(), Command::RemoveWorker { worker: workers[1] });
    bench.by(
        person.clone(),
        Command::Note {
            action: String::from("backup cluster"),
            object: String::from("to a file"),
        },
    );
    for subject in [
        LimitSubject::Store(String::from("s3://backup")),
        LimitSubject::Worker(worker),
        LimitSubject::Host(String::from("hv1")),
        LimitSubject::Job(leased.job),
    ] {
        let rule = LimitRule {
            windows: vec![String::from("mon-fri 08:00-18:00")],
            zone: String::from("Europe/Berlin"),
            rates: LimitRates {
                upload: Some(50_000_000),
                download: Some(1 << 40),
                requests: Some(100),
                concurrency: Some(4),
            },
        };
        bench.by(person.clone(), Command::SetLimit { subject, rule });
    }
    bench.by(
        person.clone(),
        Command::RemoveLimit {
            subject: LimitSubject::Host(String::from("hv1")),
            windows: None,
        },
    );
    for spec in [
        super::channels::webhook("ops"),
        super::channels::slack("chat"),
        super::channels::mail("night"),
    ] {
        bench.by(person.clone(), Command::AddChannel(spec));
    }
    bench.by(
        person.clone(),
        Command::RemoveChannel {
            name: String::from("chat"),
        },
    );
    let told = Told {
        at: bench.now,
        number: 7,
        count: 3,
    };
    let of = [
        ToldOf::Cause(crate::state::channels::Cause::Failure),
        ToldOf::Finding(vault_of_story(&bench.state)),
    ];
    let telling = Telling {
        seen: 0,
        told: of.into_iter().map(|of| (of, Some(told))).collect(),
        messages: vec![
            (String::from("ops"), super::channels::message("web")),
            (String::from("night"), super::channels::message("web")),
        ],
        digests: vec![(String::from("night"), bench.now)],
    };
    bench.by(Actor::Cluster, Command::Tell(telling));
    let waiting: Vec<u64> = bench.state.outbox().iter().map(|(number, _)| *number).collect();
    bench.by(
        Actor::Cluster,
        Command::NoteSent {
            message: waiting[0],
            outcome: SendOutcome::Taken,
        },
    );
    bench.by(
        Actor::Cluster,
        Command::NoteSent {
            message: waiting[1],
            outcome: SendOutcome::Later {
                error: String::from("connection refused"),
                next: bench.now.plus(30_000),
            },
        },
    );
    bench.refuses(person, Command::Cancel { job });
    bench.pass(8 * DAY);
    bench.give_up(&[point_id(2)]);
    bench.by(
        Actor::Worker(worker),
        Command::KeepLog {
            job: leased.job,
            epoch: leased.epoch,
            log: b"what was logged".to_vec(),
        },
    );
    (bench.log.take().unwrap(), bench)
}

/// A vault that is there.
fn vault_of_story(state: &State) -> tresor_proto::ids::VaultId {
    *state.vaults().first().unwrap().0
}
