//! Many workers, one vault, and everything that goes wrong with processes: three coordinators and four workers back sixteen disks up in rounds, while workers
//! and the leader are killed, stand still and are started again, by seed; in a second story their links are cut. Workers answer for shares of the index
//! meanwhile, and those move.
//!
//! `TRESOR_SEED` replays a run, `TRESOR_CHAOS_ROUNDS` makes it longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tresor_tests::random::Random;

use super::cluster::Cluster;
use super::network::Network;
use super::program::until;

const COORDINATORS: usize = 3;
const WORKERS: usize = 4;
const DISKS: usize = 16;
/// Of which a half is the same on all of them.
const DISK: usize = 6 << 20;
const ROUNDS: u64 = 2;
/// Longest that a round may take: a lease that runs out, a backoff or two, and slots that move.
const ROUND: Duration = Duration::from_secs(150);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// What is done to a process, or to its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillWorker,
    PauseWorker,
    /// Longer than a lease: its slots go to others, and it does not know.
    PauseLong,
    KillLeader,
    PauseLeader,
    /// Nobody hears it, and it hears nobody; the store it reaches.
    CutWorker,
    /// Longer than a lease: it goes on with what it began, and others begin the same.
    CutLong,
    CutLeader,
    /// Two workers do not hear each other, and all others do.
    CutPair,
    /// What a worker sends to the leader is lost, and what the leader sends arrives.
    DeafenLeader,
}

impl Fault {
    fn is_of_leader(self) -> bool {
        matches!(self, Self::KillLeader | Self::PauseLeader | Self::CutLeader)
    }
}

/// What was done and is to be undone.
enum Harm {
    Killed,
    Paused,
    Cut,
    /// From the first to the second, by their machines.
    Deaf(Vec<(String, String)>),
}

/// What is to be undone, and when.
struct Undo {
    name: String,
    at: Instant,
    harm: Harm,
}

struct Chaos {
    cluster: Cluster,
    /// Where the processes are machines with links; dropped after them.
    network: Option<Network>,
    random: Random,
    undo: Vec<Undo>,
    disks: BTreeMap<String, Vec<u8>>,
    /// What each point must restore to.
    points: BTreeMap<String, (String, Vec<u8>)>,
}

impl Chaos {
    fn untouched(&self, names: Vec<String>) -> Vec<String> {
        let is_touched = |name: &String| self.undo.iter().any(|undo| undo.name == *name);
        names.into_iter().filter(|name| !is_touched(name)).collect()
    }

    fn machine(&self, name: &str) -> String {
        self.cluster.place(name).namespace.clone().unwrap()
    }

    /// Does one of the faults, if there is whom to do it to.
    fn harm(&mut self, fault: Fault) {
        let name = if fault.is_of_leader() {
            // A majority is left, or nothing would go on.
            let coordinators = self.cluster.coordinators();
            if self.untouched(coordinators.clone()).len() < coordinators.len() {
                return;
            }
            self.cluster.leader()
        } else {
            let workers = self.untouched(self.cluster.workers());
            if workers.len() < 2 {
                return;
            }
            self.random.pick(&workers).clone()
        };
        let harm = match fault {
            Fault::KillWorker | Fault::KillLeader => {
                self.cluster.kill(&name);
                Harm::Killed
            }
            Fault::PauseWorker | Fault::PauseLong | Fault::PauseLeader => {
                self.cluster.pause(&[&name]);
                Harm::Paused
            }
            Fault::CutWorker | Fault::CutLong | Fault::CutLeader => {
                self.network.as_ref().unwrap().cut(&self.machine(&name));
                Harm::Cut
            }
            Fault::CutPair => {
                let mut others = self.untouched(self.cluster.workers());
                others.retain(|other| *other != name);
                let other: &String = self.random.pick(&others);
                let other = self.machine(other);
                let one = self.machine(&name);
                self.deafen(vec![(one.clone(), other.clone()), (other, one)])
            }
            Fault::DeafenLeader => {
                let leader = self.machine(&self.cluster.leader());
                self.deafen(vec![(self.machine(&name), leader)])
            }
        };
        let millis = match fault {
            Fault::PauseLong | Fault::CutLong => 36_000,
            // Longer than a question to an owner may take.
            Fault::CutPair | Fault::DeafenLeader => 4000 + self.random.below(4000),
            _ => 300 + self.random.below(4000),
        };
        self.undo.push(Undo {
            name,
            at: Instant::now() + Duration::from_millis(millis),
            harm,
        });
    }

    fn deafen(&self, pairs: Vec<(String, String)>) -> Harm {
        let network = self.network.as_ref().unwrap();
        for (from, to) in &pairs {
            network.deafen(from, to);
        }
        Harm::Deaf(pairs)
    }

    fn mend(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|undo| undo.at <= now);
        self.undo = later;
        let due: Vec<Undo> = due;
        for undo in due {
            match undo.harm {
                Harm::Killed => self.cluster.restart(&undo.name),
                Harm::Paused => self.cluster.resume(&undo.name),
                Harm::Cut => self.network.as_ref().unwrap().mend(&self.machine(&undo.name)),
                Harm::Deaf(pairs) => {
                    for (from, to) in &pairs {
                        self.network.as_ref().unwrap().undeafen(from, to);
                    }
                }
            }
        }
    }

    /// Backs all disks up while things go wrong.
    fn round(&mut self, faults: &[Fault]) {
        for (item, bytes) in &mut self.disks {
            // A fifth of it is another thing now.
            let length = bytes.len() / 5;
            let at = usize::try_from(self.random.below((bytes.len() - length) as u64)).unwrap();
            bytes[at..at + length].copy_from_slice(&self.random.bytes(length));
            std::fs::write(self.cluster.path(&format!("{item}.img")), &*bytes).unwrap();
        }
        let items: Vec<String> = self.disks.keys().cloned().collect();
        let jobs: Vec<(String, u64)> = items
            .iter()
            .map(|item| (item.clone(), self.cluster.begin_backup(item)))
            .collect();
        let begun = Instant::now();
        let mut faults = faults.iter();
        let mut next = Instant::now() + Duration::from_millis(100 + self.random.below(400));
        let mut open = jobs.clone();
        while !open.is_empty() {
            let now = Instant::now();
            self.mend(now);
            if now >= next {
                if let Some(fault) = faults.next() {
                    self.harm(*fault);
                }
                next = Instant::now() + Duration::from_millis(200 + self.random.below(1500));
            }
            open.retain(|(item, job)| {
                let job = self.cluster.job(*job);
                assert!(job.state != "failed" && job.state != "cancelled", "{item}: {job:?}");
                job.state != "done"
            });
            assert!(begun.elapsed() < ROUND, "these backups did not end: {open:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.mend(Instant::now() + Duration::from_secs(3600));
        let workers = self.cluster.workers();
        until("all workers work", || {
            workers.iter().all(|worker| self.cluster.works(worker)).then_some(())
        });
        // No job is lost, and none made two points. Who could not tell what became of a report deletes its manifest when it has heard.
        let points = self.cluster.points();
        until("the store has the manifests of the points that count", || {
            (self.cluster.manifests() == points).then_some(())
        });
        for (item, job) in jobs {
            let point = self.cluster.job(job).point;
            let before = self.points.insert(point, (item.clone(), self.disks[&item].clone()));
            assert!(before.is_none(), "two jobs made one point");
        }
        assert_eq!(self.points.len(), self.cluster.points().len());
    }

    /// Every point that counts restores to what its disk was.
    fn check(&self) {
        let worker = self.cluster.workers().remove(0);
        let target = self.cluster.path("restored.img");
        for (point, (item, bytes)) in &self.points {
            let _ = std::fs::remove_file(&target);
            let to = format!("{worker}:{}", target.display());
            self.cluster.verb(&["restore", point, "--to", &to]);
            assert!(
                std::fs::read(&target).unwrap() == *bytes,
                "{item} at {point} is restored otherwise"
            );
        }
    }

    /// Bytes of packs, over those of distinct pieces of all disks that were ever backed up.
    fn duplicates(&self) -> f64 {
        let mut pieces = std::collections::HashSet::new();
        for (_, bytes) in self.points.values() {
            pieces.extend(bytes.chunks(4096).map(blake3_of));
        }
        self.cluster.pack_bytes() as f64 / (pieces.len() * 4096) as f64
    }
}

fn blake3_of(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// A cluster with a vault and disks that are protected, of which a half is the same on all.
fn begin(mut cluster: Cluster, network: Option<Network>, seed: u64) -> Chaos {
    let mut places = network.as_ref().map(Network::places).unwrap_or_default();
    let mut of_workers = places.split_off(places.len().min(COORDINATORS)).into_iter();
    for worker in 1..=WORKERS {
        let name = format!("w{worker}");
        match of_workers.next() {
            Some(place) => cluster.add_worker_at(&name, &place, &[]),
            None => cluster.add_worker(&name),
        }
    }
    cluster.make_vault();
    cluster.slots_are_held();
    let mut random = Random::seeded(seed);
    let common = random.bytes(DISK / 2);
    let mut disks = BTreeMap::new();
    for disk in 0..DISKS {
        let item = format!("vm{disk:02}");
        let mut bytes = common.clone();
        bytes.extend(random.bytes(DISK / 2));
        cluster.protect(&item, &bytes);
        disks.insert(item, bytes);
    }
    Chaos {
        cluster,
        network,
        random,
        undo: Vec::new(),
        disks,
        points: BTreeMap::new(),
    }
}

/// A round without faults, rounds with them, and what must hold after that.
fn tell(mut chaos: Chaos, seed: u64, rounds: u64, all: &[Fault]) {
    chaos.round(&[]);
    let without = chaos.duplicates();
    for round in 0..rounds {
        // The last one, which takes longest, once.
        let count = if round == 0 { all.len() } else { all.len() - 1 };
        chaos.round(&all[..count]);
    }
    chaos.check();
    let duplicates = chaos.duplicates();
    #[expect(clippy::print_stderr, reason = "a number of the run, for who looks")]
    {
        eprintln!(
            "packs have {without:.3} of the distinct pieces' bytes without faults, {duplicates:.3} after them (seed {seed})"
        );
    }
    assert!(
        without <= 1.06,
        "{without:.3} of what is distinct was stored, and nothing went wrong"
    );
    // A worker that dies leaves less than a pack that nobody knows of, and an owner that is away costs what it would have known.
    assert!(duplicates <= 1.8, "{duplicates:.3} of what is distinct was stored");
    chaos.cluster.assert_replicas_agree();
}

#[test]
fn everything_that_counts_restores_whatever_happens_to_workers_and_leaders() {
    let seed = number("TRESOR_SEED", 1);
    let rounds = number("TRESOR_CHAOS_ROUNDS", ROUNDS);
    let chaos = begin(Cluster::start(COORDINATORS), None, seed);
    let all = [
        Fault::KillWorker,
        Fault::PauseWorker,
        Fault::KillLeader,
        Fault::KillWorker,
        Fault::PauseLeader,
        Fault::PauseLong,
    ];
    tell(chaos, seed, rounds, &all);
}

#[test]
fn everything_that_counts_restores_whichever_links_are_cut() {
    let seed = number("TRESOR_SEED", 1);
    let rounds = number("TRESOR_CHAOS_ROUNDS", ROUNDS);
    let Some(network) = Network::or_skipped(COORDINATORS + WORKERS, "links that are cut while backups go on") else {
        return;
    };
    let coordinators = Cluster::start_at(&network.places()[..COORDINATORS]);
    let chaos = begin(coordinators, Some(network), seed);
    let all = [
        Fault::CutPair,
        Fault::CutWorker,
        Fault::DeafenLeader,
        Fault::CutLeader,
        Fault::KillWorker,
        Fault::CutWorker,
        Fault::CutLong,
    ];
    tell(chaos, seed, rounds, &all);
}
