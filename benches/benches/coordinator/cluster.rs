//! Three coordinators as processes, over TLS, each with its store on disk.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;
use tresor_coordinator::process::{self, Folder, Founding, Joining};
use tresor_proto::tls::Fingerprint;

use crate::{answer, folder, median_and_worst, number, percentile, status_bytes};

/// How long three coordinators may take to come together.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients that ask at once.
const CLIENTS: [u64; 3] = [8, 64, 256];
/// How often a leader is lost.
const LOSSES: usize = 9;

/// A cluster founded by the coordinator of the first folder.
pub(crate) struct Founded {
    folder: PathBuf,
    addresses: Vec<String>,
    authority: Fingerprint,
    runtime: Runtime,
}

impl Founded {
    pub(crate) fn new(folder: &Path) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        // Ports that were free a moment ago.
        let listeners: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect();
        let address = |listener: &std::io::Result<std::net::TcpListener>| {
            let listener = listener.as_ref().expect("there are free ports");
            listener.local_addr().expect("it is bound").to_string()
        };
        let addresses: Vec<String> = listeners.iter().map(address).collect();
        let founding = Founding {
            cluster: String::from("bench"),
            name: String::from("c0"),
            address: addresses[0].clone(),
            wants_admin: false,
        };
        let home = Folder::new(folder.join("c0"));
        let founded = runtime.block_on(Box::pin(process::found(&home, founding)));
        Self {
            folder: folder.to_owned(),
            addresses,
            authority: founded.expect("an empty folder takes a cluster").fingerprint,
            runtime,
        }
    }

    /// Starts a coordinator and waits until it listens.
    pub(crate) fn start(&self, number: usize) -> Node {
        let folder = self.folder.join(format!("c{number}"));
        Node::start(&folder, &self.addresses[number])
    }

    fn join(&self, first: &mut Node, number: usize) -> Node {
        let answer = first.ask(&format!("token {}", self.authority));
        let joining = Joining {
            addresses: vec![self.addresses[0].clone()],
            token: answer["token"].as_str().expect("a text").parse().expect("a token"),
            name: format!("c{number}"),
            address: self.addresses[number].clone(),
        };
        let home = Folder::new(self.folder.join(format!("c{number}")));
        let joined = self.runtime.block_on(Box::pin(process::join(&home, joining)));
        joined.expect("a token that was just made lets it in");
        let node = self.start(number);
        let begin = Instant::now();
        while first.ask("standing")["voters"] != number as u64 + 1 {
            assert!(begin.elapsed() < PATIENCE, "it does not vote");
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }
}

/// A coordinator's process. Killed when it is dropped.
pub(crate) struct Node {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Node {
    fn start(folder: &Path, address: &str) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .args(["node".as_ref(), folder.as_os_str(), address.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process can be started");
        let asks = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut node = Self { child, asks, answers };
        node.answer();
        node
    }

    pub(crate) fn process(&self) -> String {
        self.child.id().to_string()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.asks, "{line}").expect("the node runs");
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the node runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.answer()
    }

    fn leads(&mut self) -> bool {
        self.ask("standing")["leads"] == true
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // As a power cut of its machine, but for the page cache.
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

struct Three {
    founded: Founded,
    /// None where one was lost.
    nodes: [Option<Node>; 3],
    /// Removed last.
    _folder: tempfile::TempDir,
}

impl Three {
    fn new() -> Self {
        let folder = folder();
        let founded = Founded::new(folder.path());
        let mut first = founded.start(0);
        first.ask("first-commit 0");
        let second = founded.join(&mut first, 1);
        let third = founded.join(&mut first, 2);
        Self {
            founded,
            nodes: [Some(first), Some(second), Some(third)],
            _folder: folder,
        }
    }

    fn leader(&mut self) -> usize {
        let begin = Instant::now();
        loop {
            let leads = |node: &mut Option<Node>| node.as_mut().is_some_and(Node::leads);
            if let Some(number) = self.nodes.iter_mut().position(leads) {
                return number;
            }
            assert!(begin.elapsed() < PATIENCE, "nobody leads");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn node(&mut self, number: usize) -> &mut Node {
        self.nodes[number].as_mut().expect("it was started")
    }
}

/// How long the disk takes for one synced page, milliseconds, sorted.
fn syncs() -> Vec<f64> {
    let folder = folder();
    let mut file = std::fs::File::create(folder.path().join("file")).expect("the folder can be written");
    crate::times(200, || {
        file.write_all(&[7; 4096]).expect("the disk has space");
        file.sync_data().expect("the disk works");
    })
}

fn figures(found: &Value) -> String {
    let number = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
    format!(
        "{:.0} a second; p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        number("events") / number("seconds"),
        number("p50"),
        number("p99"),
        number("worst")
    )
}

/// One client, one change after another.
pub(crate) fn idle() {
    let syncs = syncs();
    answer(
        "one page written and synced, without Tresor",
        format!(
            "p50 {:.2} ms, p99 {:.2} ms",
            percentile(&syncs, 50),
            percentile(&syncs, 99)
        ),
    );
    let mut three = Three::new();
    let leader = three.leader();
    let node = three.node(leader);
    node.ask("events 1 100");
    let found = node.ask("events 1 3000");
    answer("commits, three members, one client", figures(&found));
}

/// Many clients.
pub(crate) fn events() {
    let mut three = Three::new();
    let leader = three.leader();
    for clients in CLIENTS {
        let node = three.node(leader);
        node.ask(&format!("events {clients} 1000"));
        let found = node.ask(&format!("events {clients} 30000"));
        answer(
            &format!("events of jobs, three members, {clients} clients"),
            figures(&found),
        );
    }
}

/// The leader is killed; how long until another one commits.
pub(crate) fn leader_lost() {
    let mut three = Three::new();
    let mut gaps = Vec::new();
    for _ in 0..LOSSES {
        let leader = three.leader();
        let member = three.node(leader).ask("standing")["leader"].as_u64().unwrap_or(0);
        three.node(leader).ask("events 8 300");
        let begin = Instant::now();
        three.nodes[leader] = None;
        for node in three.nodes.iter_mut().flatten() {
            node.say(&format!("first-commit {member}"));
        }
        // Both answer: who commits, and who follows. Who commits answers first or knows that it was not first.
        let gap = std::thread::scope(|scope| {
            let waiting: Vec<_> = three
                .nodes
                .iter_mut()
                .flatten()
                .map(|node| {
                    scope.spawn(move || {
                        let leads = node.answer()["leads"] == true;
                        (leads, begin.elapsed().as_secs_f64())
                    })
                })
                .collect();
            let answers = waiting
                .into_iter()
                .map(|thread| thread.join().expect("no thread panics"));
            answers.filter(|(leads, _)| *leads).map(|(_, gap)| gap).next()
        });
        gaps.push(gap.expect("one of two leads") * 1e3);
        three.nodes[leader] = Some(three.founded.start(leader));
        // Until it has caught up, the next loss would be one too many.
        let now = three.leader();
        let applied = three.node(now).ask("standing")["applied"].as_u64().unwrap_or(0);
        three.node(leader).ask(&format!("caught-up {applied}"));
    }
    gaps.sort_by(f64::total_cmp);
    answer(
        "from the kill of the leader to the next commit",
        median_and_worst(&gaps),
    );
}

/// A follower misses many entries, and comes back.
pub(crate) fn far_behind() {
    let entries = number("TRESOR_BENCH_ENTRIES", 1_000_000);
    let mut three = Three::new();
    let leader = three.leader();
    let follower = (leader + 1) % 3;
    three.node(leader).ask("events 64 3000");
    three.nodes[follower] = None;
    let missed = three.node(leader).ask(&format!("events 64 {entries}"));
    answer("entries while one of three is away, 64 clients", figures(&missed));
    let alone = three.node(leader).ask("events 1 1500");
    answer("commits then, one client", figures(&alone));
    let standing = three.node(leader).ask("standing");
    let (first, applied) = (standing["first"].as_u64(), standing["applied"].as_u64());

    let begin = Instant::now();
    let mut back = three.founded.start(follower);
    back.say(&format!("caught-up {}", applied.unwrap_or(0)));
    let (took, meanwhile) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            back.answer();
            begin.elapsed().as_secs_f64()
        });
        let mut meanwhile = Vec::new();
        let node = three.node(leader);
        loop {
            meanwhile.push(node.ask("events 1 300"));
            if waiting.is_finished() {
                break;
            }
        }
        (waiting.join().expect("no thread panics"), meanwhile)
    });
    let has = back.ask("standing");
    let by_snapshot = has["first"].as_u64() >= first;
    answer(
        &format!("a follower that missed {} entries", missed["events"]),
        format!(
            "{took:.1} s {}; {} points; its memory {} MiB, {} MiB at most",
            if by_snapshot { "by a snapshot" } else { "from the log" },
            has["points"],
            status_bytes(&back.process(), "VmRSS") >> 20,
            status_bytes(&back.process(), "VmHWM") >> 20,
        ),
    );
    let worst = |name: &str| {
        meanwhile
            .iter()
            .filter_map(|found| found[name].as_f64())
            .fold(0.0, f64::max)
    };
    let mut middle: Vec<f64> = meanwhile.iter().filter_map(|found| found["p50"].as_f64()).collect();
    middle.sort_by(f64::total_cmp);
    answer(
        "commits of one client meanwhile",
        format!("p50 {:.1} ms, worst {:.1} ms", percentile(&middle, 50), worst("worst")),
    );
}
