//! People and programs in the simulation: they found the cluster, protect machines, start, cancel and hold, and look.

use std::collections::BTreeMap;

use tresor_proto::ids::{ItemId, MemberId, PointId, PolicyId, VaultId};

use super::check::Ledger;
use super::member::{Around, CLUSTER, Call, MemberEvent, Reply, START};
use super::network::{Event, Place};
use crate::node::error::NodeError;
use crate::node::handle::Membership;
use crate::state::command::{
    Command, DiskSpec, Founding, ItemSpec, JobSpec, MemberSpec, PolicySpec, VaultOrigin, VaultSpec, Work,
};
use crate::state::entry::{Actor, Time};
use crate::state::reply;

pub(super) const VAULT: VaultId = VaultId([1; 16]);
const POLICY: PolicyId = PolicyId([2; 16]);
const ITEMS: u8 = 6;

#[derive(Debug, Clone)]
pub(super) enum ClientEvent {
    Next,
    Reply { number: u64, reply: Reply },
    Late { number: u64 },
}

#[derive(Debug, Clone)]
struct Asked {
    call: Call,
    at: u64,
    /// A change is repeated until it is answered.
    repeat: bool,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    script: Vec<Call>,
    asked: BTreeMap<u64, Asked>,
    next: u64,
    keys: u64,
    leader: Option<MemberId>,
    points: Vec<PointId>,
    pub(super) busy_setup: bool,
    /// No new work any more.
    quiet: bool,
    rested: bool,
}

impl Client {
    pub(super) fn new() -> Self {
        let spec = |name: &str| MemberSpec {
            member: MemberId(1),
            name: name.to_owned(),
            address: String::from("c1:1"),
            token: None,
        };
        let mut script = vec![
            Command::Found(Founding {
                cluster: CLUSTER,
                name: String::from("simulated"),
                ca_certificate: Vec::new(),
                ca_key: Vec::new(),
                member: spec("c1"),
                admin: None,
            }),
            Command::AddVault(VaultSpec {
                vault: VAULT,
                name: String::from("main"),
                url: String::from("memory://main"),
                region: String::new(),
                profile: String::new(),
                origin: VaultOrigin::Make,
                key: Vec::new(),
            }),
            Command::CreatePolicy {
                policy: POLICY,
                spec: policy("every 30s"),
            },
        ];
        script.extend((0..ITEMS).map(|n| Command::Protect {
            item: ItemId([10 + n; 16]),
            spec: item(n),
            also: false,
        }));
        script.reverse();
        let mut client = Self {
            busy_setup: true,
            ..Self::default()
        };
        client.script = script.into_iter().map(|command| client.change(command)).collect();
        client
    }

    fn change(&mut self, command: Command) -> Call {
        self.keys += 1;
        let mut key = [0x11; 16];
        key[..8].copy_from_slice(&self.keys.to_le_bytes());
        Call::Change {
            actor: Actor::Founder,
            key: Some(key),
            command,
        }
    }

    fn ask(&mut self, call: Call, repeat: bool, members: &[MemberId], around: &mut Around<'_>) {
        self.next += 1;
        let number = self.next;
        self.asked.insert(
            number,
            Asked {
                call,
                at: around.now,
                repeat,
            },
        );
        self.send(number, members, around);
    }

    fn send(&mut self, number: u64, members: &[MemberId], around: &mut Around<'_>) {
        let Some(asked) = self.asked.get(&number) else { return };
        let reads = matches!(asked.call, Call::Read);
        let to = match self.leader.filter(|leader| members.contains(leader) && !reads) {
            Some(leader) => leader,
            None => members[around.random.place(members.len())],
        };
        let event = Event::Member(
            to,
            MemberEvent::Call {
                from: Place::Client,
                number,
                call: asked.call.clone(),
            },
        );
        around
            .network
            .send(around.random, around.now, Place::Client, Place::Member(to), &event);
        around
            .network
            .at(around.now + 1500, Event::Client(ClientEvent::Late { number }));
    }

    pub(super) fn take(
        &mut self,
        event: ClientEvent,
        members: &[MemberId],
        ledger: &mut Ledger,
        around: &mut Around<'_>,
    ) {
        match event {
            ClientEvent::Next => {
                around.network.at(
                    around.now + 200 + around.random.below(1500),
                    Event::Client(ClientEvent::Next),
                );
                if let Some(call) = self.script.last().cloned() {
                    if self.asked.is_empty() {
                        self.ask(call, true, members, around);
                    }
                } else {
                    self.busy_setup = false;
                    self.act(members, ledger, around);
                }
            }
            ClientEvent::Late { number } => {
                let Some(asked) = self.asked.get(&number) else { return };
                self.leader = None;
                if asked.repeat && (self.quiet || around.now < asked.at + 60_000) {
                    self.send(number, members, around);
                } else {
                    self.asked.remove(&number);
                }
            }
            ClientEvent::Reply { number, reply } => self.answered(number, reply, ledger, around),
        }
    }

    fn act(&mut self, members: &[MemberId], ledger: &mut Ledger, around: &mut Around<'_>) {
        if self.quiet {
            if !self.rested {
                self.rested = true;
                let spec = policy("");
                let call = self.change(Command::UpdatePolicy {
                    policy: POLICY,
                    version: 0,
                    spec,
                });
                self.ask(call, true, members, around);
            }
            return;
        }
        let call = match around.random.below(10) {
            0..4 => {
                ledger.asks_to_read(self.next + 1);
                return self.ask(Call::Read, false, members, around);
            }
            4..7 => {
                let item = ItemId([10 + u8::try_from(around.random.below(ITEMS.into())).unwrap(); 16]);
                self.change(Command::Enqueue(JobSpec {
                    vault: VAULT,
                    work: Work::Backup { item, keep_until: None },
                    priority: 1,
                    not_before: Time(START),
                    occurrence: None,
                }))
            }
            7 => match self.points.len() {
                0 => return,
                points => {
                    let point = self.points[around.random.place(points)];
                    self.change(Command::Hold {
                        point,
                        reason: String::from("simulated"),
                    })
                }
            },
            8 => {
                let name = u8::try_from(around.random.below(200)).unwrap();
                self.change(Command::Protect {
                    item: ItemId([50 + name % 150; 16]),
                    spec: unscheduled(name % 150),
                    also: false,
                })
            }
            _ => match ledger.some_lease(around.random) {
                Some(job) => self.change(Command::Cancel { job }),
                None => return,
            },
        };
        self.ask(call, true, members, around);
    }

    /// Asks for nothing new any more but the end of the schedule, so that all that waits can be done.
    pub(super) fn rest(&mut self) {
        self.quiet = true;
    }

    /// Asks for a change of the members.
    pub(super) fn change_members(&mut self, change: Membership, members: &[MemberId], around: &mut Around<'_>) {
        self.ask(Call::Membership(change), true, members, around);
    }

    fn answered(&mut self, number: u64, reply: Reply, ledger: &mut Ledger, around: &Around<'_>) {
        let _ = around;
        match reply {
            Reply::Error(NodeError::NotLeader { leader: Some(leader) }) => {
                self.leader = Some(leader);
                return;
            }
            // Repeated when its patience ends.
            Reply::Error(NodeError::Refused(_)) => {}
            Reply::Error(_) => return,
            _ => {}
        }
        let Some(asked) = self.asked.remove(&number) else {
            return;
        };
        match (asked.call, reply) {
            (Call::Change { command, .. }, Reply::Changed { reply, .. }) => {
                let refused = matches!(reply, reply::Reply::Refused(_));
                if let (Command::Protect { item, .. }, false) = (&command, refused) {
                    ledger.protected(*item);
                }
                if !self.script.is_empty() {
                    assert!(!refused, "{command:?}: {reply:?}");
                    self.script.pop();
                }
            }
            (Call::Read, Reply::Seen(seen)) => {
                self.points.clone_from(&seen.points);
                ledger.saw(number, &seen);
            }
            _ => {}
        }
    }

    /// Jobs that were asked for and not answered.
    pub(super) fn waits(&self) -> bool {
        !self.asked.is_empty() || !self.script.is_empty() || !self.rested
    }
}

fn policy(schedule: &str) -> PolicySpec {
    PolicySpec {
        name: String::from("often"),
        schedule: schedule.to_owned(),
        zone: String::from("UTC"),
        windows: Vec::new(),
        jitter: 5000,
        retention: String::from("last 3"),
        priority: 0,
        late_after: 0,
    }
}

fn item(number: u8) -> ItemSpec {
    ItemSpec {
        policy: Some(POLICY),
        ..unscheduled(number.wrapping_add(200))
    }
}

fn unscheduled(number: u8) -> ItemSpec {
    ItemSpec {
        name: format!("vm-{number}"),
        vault: VAULT,
        policy: None,
        host: String::new(),
        worker_labels: BTreeMap::new(),
        labels: BTreeMap::new(),
        disks: vec![DiskSpec {
            name: String::from("vda"),
            path: String::from("/vda"),
            format: String::new(),
        }],
        allow_live: false,
        allow_backing: false,
    }
}
