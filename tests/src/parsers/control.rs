//! What a coordinator is sent: by other coordinators, by nodes that want to join, by people; and what it reads back of its own from elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use tresor_coordinator::node::driver::{Ask, Sender};
use tresor_coordinator::node::handle::Membership as Change;
use tresor_coordinator::node::{Driver, Now};
use tresor_coordinator::raft::{Config, Keep};
use tresor_coordinator::rpc::catalogue::{self, Encoder};
use tresor_coordinator::security::Authority;
use tresor_coordinator::state::State;
use tresor_coordinator::state::archive::{self, Archive};
use tresor_coordinator::state::command::{
    Command, CommittedPoint, Completion, Consistency, Counts, DiskSpec, Founding, ItemSpec, JobSpec, MemberSpec,
    Outcome, VaultClaim, VaultOrigin, VaultSpec, Work, WorkerFacts, WorkerSpec,
};
use tresor_coordinator::state::entry::{Actor, ENTRY_FORM, Entry, Time};
use tresor_coordinator::state::reply::Reply;
use tresor_coordinator::store::memory::Memory;
use tresor_coordinator::store::{Membership, Piece, SnapshotEnd, Stamp, Store};
use tresor_proto::ids::{ItemId, JobId, MemberId, PointId, VaultId, WorkerId};
use tresor_proto::tls::{CaCertificate, PeerCertificate, PeerName, PrivateKey, Role};
use tresor_proto::token::{ApiToken, JoinToken};

use super::Parser;
use crate::random::Random;

/// What members say of themselves here.
const SENDER: Sender = Sender {
    clock_ms: 0,
    form: ENTRY_FORM,
};

pub(super) const PARSERS: &[Parser] = &[
    Parser {
        name: "raft_message",
        run: raft_message,
        sample: |random| random.pick(&MESSAGES).clone(),
    },
    Parser {
        name: "raft_snapshot",
        run: raft_snapshot,
        sample: |_| SNAPSHOT.clone(),
    },
    Parser {
        name: "log_entry",
        run: log_entry,
        sample: |random| random.pick(&STORY.entries).clone(),
    },
    Parser {
        name: "state_archive",
        run: state_archive,
        sample: archive_sample,
    },
    Parser {
        name: "state_catalogue",
        run: state_catalogue,
        sample: catalogue_sample,
    },
    Parser {
        name: "token",
        run: token,
        sample: token_sample,
    },
    Parser {
        name: "node_name",
        run: node_name,
        sample: |_| NODE.to_string().into_bytes(),
    },
    Parser {
        name: "certificate_request",
        run: certificate_request,
        sample: |_| PrivateKey::generate().unwrap().request().unwrap(),
    },
    Parser {
        name: "certificate",
        run: certificate,
        sample: certificate_sample,
    },
];

const CLUSTER: [u8; 16] = [7; 16];
const VAULT: VaultId = VaultId([1; 16]);
const ITEM: ItemId = ItemId([2; 16]);
const LIFE: [u8; 16] = [4; 16];
/// 2026-11-20 12:00 UTC.
const START: Time = Time(1_795_176_000_000);
const NODE: PeerName = PeerName {
    cluster: CLUSTER,
    role: Role::Worker,
    id: 7,
};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::create(CLUSTER, START.0 / 1000).unwrap());

/// A log with a vault, a worker and a point, and the state that it makes.
struct Story {
    state: State,
    index: u64,
    entries: Vec<Vec<u8>>,
}

static STORY: LazyLock<Story> = LazyLock::new(Story::new);

impl Story {
    fn does(&mut self, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry {
            now: START,
            actor: Actor::Cluster,
            key: None,
            command,
        };
        self.entries.push(entry.encode());
        let reply = self.state.apply(self.index, &entry);
        assert!(!matches!(reply, Reply::Refused(_)), "{entry:?}: {reply:?}");
        reply
    }

    fn completes(&mut self, job: JobId, worker: WorkerId, outcome: Outcome) {
        let lease = Command::Lease {
            job,
            worker,
            life: LIFE,
        };
        let Reply::Leased { epoch, session } = self.does(lease) else {
            panic!("no lease");
        };
        self.does(Command::Complete(Completion {
            job,
            epoch,
            session,
            outcome,
        }));
    }

    fn new() -> Self {
        let mut story = Self {
            state: State::default(),
            index: 0,
            entries: Vec::new(),
        };
        story.does(Command::Found(Founding {
            cluster: CLUSTER,
            name: String::from("test"),
            ca_certificate: AUTHORITY.certificate().der().to_vec(),
            ca_key: b"wrapped".to_vec(),
            member: MemberSpec {
                member: MemberId(1),
                name: String::from("c1"),
                address: String::from("c1:7700"),
                token: None,
            },
            admin: None,
        }));
        story.does(Command::AddWorker(WorkerSpec {
            name: String::from("w1"),
            token: None,
        }));
        let worker = WorkerId(story.index);
        let facts = WorkerFacts {
            host: String::from("w1"),
            labels: BTreeMap::from([(String::from("disk"), String::from("fast"))]),
            permits: 2,
            ..WorkerFacts::default()
        };
        story.does(Command::Register {
            worker,
            life: LIFE,
            facts,
            kept_life: None,
        });
        story.does(Command::AddVault(VaultSpec {
            vault: VAULT,
            name: String::from("main"),
            url: String::from("file:///srv/main"),
            region: String::new(),
            profile: String::new(),
            origin: VaultOrigin::Make,
            key: b"wrapped".to_vec(),
        }));
        let claim = VaultClaim {
            n: 1,
            cluster: 5,
            header: [3; 32],
        };
        story.completes(JobId(story.index), worker, Outcome::Claimed(claim));
        story.does(Command::Protect {
            item: ITEM,
            spec: item(),
            also: false,
        });
        for number in 0..2 {
            story.does(Command::Enqueue(JobSpec {
                vault: VAULT,
                work: Work::Backup {
                    item: ITEM,
                    keep_until: None,
                },
                priority: 0,
                not_before: START,
                occurrence: Some(START.plus(number)),
            }));
            // The second one is left to run.
            let job = JobId(story.index);
            if number == 0 {
                story.completes(job, worker, Outcome::Backup(point()));
            } else {
                story.does(Command::Lease {
                    job,
                    worker,
                    life: LIFE,
                });
            }
        }
        story.does(Command::Hold {
            point: point().point,
            reason: String::from("wanted"),
        });
        story
    }
}

fn item() -> ItemSpec {
    ItemSpec {
        name: String::from("web"),
        vault: VAULT,
        policy: None,
        host: String::new(),
        worker_labels: BTreeMap::new(),
        labels: BTreeMap::new(),
        disks: vec![DiskSpec {
            name: String::from("vda"),
            path: String::from("/srv/web.qcow2"),
            format: String::new(),
        }],
        allow_live: false,
        allow_backing: false,
    }
}

fn point() -> CommittedPoint {
    CommittedPoint {
        point: PointId([9; 16]),
        time: START,
        manifest: [4; 32],
        consistency: Consistency::Crash,
        slots: Vec::new(),
        slot_map: 0,
        slots_missing: Vec::new(),
        findings_seen: 0,
        counts: Counts::default(),
    }
}

/// What comes in an entry of the log is applied by every member: none may panic, whatever it asks, and what always holds holds after it.
fn log_entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        let again = Entry::decode(&entry.encode());
        assert_eq!(again, Ok(entry.clone()));
        let mut state = STORY.state.clone();
        state.apply(STORY.index + 1, &entry);
        assert_eq!(state.check_invariants(STORY.index + 1), Ok(()));
        state.take_changes();
    }
}

fn state_archive(bytes: &[u8]) {
    let _ = archive::read(bytes);
    // What is damaged on purpose has a sum that says so; what was written by another program has a good one.
    let sealed = [bytes, blake3::hash(bytes).as_bytes()].concat();
    if let Ok((_, rows)) = archive::read(&sealed) {
        let _ = State::load(rows);
    }
}

fn archive_sample(_: &mut Random) -> Vec<u8> {
    let mut bytes = Archive::new(&STORY.state, STORY.index).collect::<Vec<_>>().concat();
    bytes.truncate(bytes.len() - 32);
    bytes
}

fn state_catalogue(bytes: &[u8]) {
    if let Ok(decoded) = catalogue::decode(bytes) {
        let _ = decoded.state();
    }
}

fn catalogue_sample(_: &mut Random) -> Vec<u8> {
    let mut encoder = Encoder::new(VAULT);
    while !encoder.step(&STORY.state) {}
    encoder.finish(&STORY.state, STORY.index).unwrap().state
}

fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(token) = text.parse::<ApiToken>() {
        assert_eq!(token.reveal().as_str(), text.trim_ascii());
    }
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.reveal().as_str(), text.trim_ascii());
    }
}

fn token_sample(random: &mut Random) -> Vec<u8> {
    let text = if random.one_in(2) {
        ApiToken::random().unwrap().reveal()
    } else {
        JoinToken::random(AUTHORITY.fingerprint()).unwrap().reveal()
    };
    text.as_bytes().to_vec()
}

fn node_name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(name) = text.parse::<PeerName>() {
        assert_eq!(name.to_string(), text);
    }
}

fn certificate_request(bytes: &[u8]) {
    if let Ok(issued) = AUTHORITY.issue(bytes, NODE, START.0 / 1000) {
        // Whatever was asked for, it is what was meant to be given.
        assert_eq!(issued.certificate.name, NODE);
    }
}

fn certificate(bytes: &[u8]) {
    let _ = CaCertificate::from_der(bytes);
    let _ = PeerCertificate::from_der(bytes);
    let _ = CaCertificate::from_pem(&String::from_utf8_lossy(bytes));
}

fn certificate_sample(random: &mut Random) -> Vec<u8> {
    let ca = AUTHORITY.certificate();
    match random.below(3) {
        0 => ca.der().to_vec(),
        1 => ca.to_pem().into_bytes(),
        _ => AUTHORITY
            .identity(NODE, START.0 / 1000)
            .unwrap()
            .certificate_der()
            .to_vec(),
    }
}

const NOW: Now = Now { ms: 0, wall: START };

fn stamp(member: u64) -> Stamp {
    Stamp {
        node: MemberId(member),
        cluster: CLUSTER,
    }
}

fn driver(member: u64, membership: Membership) -> Driver<Memory> {
    let store = Store::create(Memory::new(), stamp(member), membership).unwrap();
    let config = Config {
        keep: Keep { entries: 1, bytes: 1 },
        ..Config::new(1)
    };
    Driver::open(config, store).unwrap()
}

/// One of a cluster's first two members, before anything happened.
fn member(number: u64) -> Driver<Memory> {
    let address = |id: u64| (MemberId(id), format!("c{id}:7700").into_bytes());
    driver(number, Membership::founding([address(1), address(2)]))
}

/// One that joined a cluster of one, and waits for its first snapshot.
fn joiner() -> Driver<Memory> {
    driver(2, Membership::joining([(MemberId(1), b"c1:7700".to_vec())]))
}

/// What member 1 sends to member 2 until both have a few entries: questions for votes, heartbeats, entries.
static MESSAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut members = [member(1), member(2)];
    let mut sent = Vec::new();
    let mut proposals = STORY.entries.iter().map(|bytes| Entry::decode(bytes).unwrap().command);
    for round in 0..200 {
        members[0].tick(NOW);
        if members[0].core().standing().in_charge
            && let Some(command) = proposals.next()
        {
            let actor = Actor::Cluster;
            members[0].ask(
                round,
                Ask::Change {
                    actor,
                    key: None,
                    command,
                },
                NOW,
            );
        }
        let mut wire: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
        loop {
            for (number, member) in members.iter_mut().enumerate() {
                let said = member.process(NOW).unwrap().messages;
                wire.extend(said.into_iter().map(|message| (1 - number, message.bytes)));
            }
            let Some((to, bytes)) = wire.pop_front() else { break };
            let _ = members[to].receive(MemberId(2 - to as u64), &bytes, SENDER);
            if to == 1 {
                sent.push(bytes);
            }
        }
    }
    assert!(members[1].applied() > 3, "entries reached the other member");
    sent
});

/// A member takes or refuses whatever comes from another; it may stop and say so.
fn raft_message(bytes: &[u8]) {
    let mut member = member(2);
    for tick in 0..3 {
        let _ = member.receive(MemberId(1), bytes, SENDER);
        if member.process(NOW).is_err() {
            return;
        }
        if tick > 0 {
            member.tick(NOW);
        }
    }
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(part)
}

/// A snapshot that a member which joined gets: header, number of pieces and rows, digest, and the one piece; as parts with their lengths.
static SNAPSHOT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut leader = driver(1, Membership::founding([(MemberId(1), b"c1:7700".to_vec())]));
    let mut joiner = joiner();
    let change = Change::Add {
        member: MemberId(2),
        address: String::from("c2:7700"),
    };
    let mut asked = false;
    for round in 0..500 {
        leader.tick(NOW);
        joiner.tick(NOW);
        if leader.core().standing().in_charge && !asked {
            asked = true;
            let entry = Entry::decode(&STORY.entries[0]).unwrap();
            let (actor, command) = (entry.actor, entry.command);
            leader.ask(
                0,
                Ask::Change {
                    actor,
                    key: None,
                    command,
                },
                NOW,
            );
            leader.ask(round, Ask::Membership(change.clone()), NOW);
        }
        let did = leader.process(NOW).unwrap();
        for message in did.messages {
            let _ = joiner.receive(MemberId(1), &message.bytes, SENDER);
        }
        if let Some(mut sent) = did.snapshots.into_iter().next() {
            let piece = sent.snapshot.next_piece().unwrap().unwrap();
            assert_eq!(sent.snapshot.next_piece().unwrap(), None, "it is small");
            let end = sent.snapshot.end().unwrap();
            let numbers = [end.pieces.to_le_bytes(), end.rows.to_le_bytes()].concat();
            let parts = [sent.header.as_slice(), &numbers, &end.digest, &piece.bytes];
            return parts.map(with_length).concat();
        }
        for message in joiner.process(NOW).unwrap().messages {
            let _ = leader.receive(MemberId(2), &message.bytes, SENDER);
        }
    }
    panic!("a member that joins is sent a snapshot");
});

fn raft_snapshot(bytes: &[u8]) {
    let mut rest = bytes;
    let mut part = || take_part(&mut rest).unwrap_or_default();
    let (header, numbers, digest, rows) = (part(), part(), part(), part());
    let mut member = joiner();
    let Ok(id) = member.begin_snapshot(MemberId(1), header) else {
        return;
    };
    let piece = Piece {
        number: 0,
        bytes: rows.to_vec(),
    };
    let _ = member.snapshot_piece(id, &piece);
    let number = |at: usize| {
        numbers
            .get(at..at + 8)
            .map_or(0, |n| u64::from_le_bytes(n.try_into().unwrap()))
    };
    let end = SnapshotEnd {
        pieces: number(0),
        rows: number(8),
        digest: digest.try_into().unwrap_or_default(),
    };
    let is_taken = member.finish_snapshot(id, &end).is_ok_and(|taken| taken);
    if member.process(NOW).is_ok() && is_taken {
        assert!(member.applied() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_reach_what_they_are_for() {
        assert!(MESSAGES.len() > 20);
        for entry in &STORY.entries {
            assert!(Entry::decode(entry).is_ok());
        }
        let mut random = Random::seeded(1);
        let archive = archive_sample(&mut random);
        let sealed = [archive.as_slice(), blake3::hash(&archive).as_bytes()].concat();
        let (_, rows) = archive::read(&sealed).unwrap();
        assert!(State::load(rows).unwrap() == STORY.state);
        assert!(catalogue::decode(&catalogue_sample(&mut random)).is_ok());
        let mut rest = SNAPSHOT.as_slice();
        let header = take_part(&mut rest).unwrap();
        assert!(joiner().begin_snapshot(MemberId(1), header).is_ok());
    }
}
