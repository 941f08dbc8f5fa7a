//! Many workers, one vault, and everything that goes wrong with processes: three coordinators and four workers back sixteen disks up in rounds, while workers
//! and the leader are killed, stand still, are cut off and started again, by seed. Workers answer for shares of the index meanwhile, and those move.
//!
//! `TRESOR_SEED` replays a run, `TRESOR_CHAOS_ROUNDS` makes it longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tresor_tests::random::Random;

use super::cluster::Cluster;
use super::program::until;

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

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillWorker,
    PauseWorker,
    /// Longer than a lease: its slots go to others, and it does not know.
    PauseLong,
    KillLeader,
    PauseLeader,
}

/// What is to be undone, and when.
struct Undo {
    name: String,
    at: Instant,
    was_killed: bool,
}

struct Chaos {
    cluster: Cluster,
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

    /// Does one of the faults, if there is whom to do it to.
    fn harm(&mut self, fault: Fault) {
        let is_leader = matches!(fault, Fault::KillLeader | Fault::PauseLeader);
        let name = if is_leader {
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
        let was_killed = matches!(fault, Fault::KillWorker | Fault::KillLeader);
        if was_killed {
            self.cluster.kill(&name);
        } else {
            self.cluster.pause(&[&name]);
        }
        let millis = match fault {
            Fault::PauseLong => 36_000,
            _ => 300 + self.random.below(4000),
        };
        self.undo.push(Undo {
            name,
            at: Instant::now() + Duration::from_millis(millis),
            was_killed,
        });
    }

    fn mend(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|undo| undo.at <= now);
        self.undo = later;
        let due: Vec<Undo> = due;
        for undo in due {
            if undo.was_killed {
                self.cluster.restart(&undo.name);
            } else {
                self.cluster.resume(&undo.name);
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
        // No job is lost, and none made two points.
        assert_eq!(self.cluster.manifests(), self.cluster.points());
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

#[test]
fn everything_that_counts_restores_whatever_happens_to_workers_and_leaders() {
    let seed = number("TRESOR_SEED", 1);
    let rounds = number("TRESOR_CHAOS_ROUNDS", ROUNDS);
    let mut cluster = Cluster::start(3);
    for worker in 1..=WORKERS {
        cluster.add_worker(&format!("w{worker}"));
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
    let mut chaos = Chaos {
        cluster,
        random,
        undo: Vec::new(),
        disks,
        points: BTreeMap::new(),
    };
    chaos.round(&[]);
    let without = chaos.duplicates();
    let all = [
        Fault::KillWorker,
        Fault::PauseWorker,
        Fault::KillLeader,
        Fault::KillWorker,
        Fault::PauseLeader,
        Fault::PauseLong,
    ];
    for round in 0..rounds {
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
