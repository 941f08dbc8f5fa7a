//! A cluster of processes on this machine: founded, joined and asked with the verbs that an operator uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tresor_proto::tls::{Connector, Fingerprint, Trust, first_contact};
use tresor_proto::token::ApiToken;
use tresor_tests::random::Random;

use super::program::{Process, Ran, command, show_log, until};

/// Where coordinators listen: every one has an address of its own, so that the port can be the product's own and nobody else takes it in between.
const PORT: u16 = 7420;
const HTTP_PORT: u16 = 7421;
const METRICS_PORT: u16 = 7423;
/// What processes log: enough to understand a failed test.
const LOG: &str = "info,tresor_coordinator=debug,tresor_worker=debug";

/// Where a node is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) ip: String,
    /// The network namespace that it runs in; none: ours.
    pub(crate) namespace: Option<String>,
}

impl Place {
    /// A loopback address that no other test that runs now has.
    pub(crate) fn loopback(number: usize) -> Self {
        let process = std::process::id();
        Self {
            ip: format!("127.{}.{}.{number}", 64 + (process >> 8) % 128, process % 256),
            namespace: None,
        }
    }
}

/// A process of the cluster, running or not.
pub(crate) struct Node {
    pub(crate) place: Place,
    /// How it is started again.
    args: Vec<String>,
    home: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

/// A cluster.
pub(crate) struct Cluster {
    nodes: BTreeMap<String, Node>,
    token: ApiToken,
    fingerprint: Fingerprint,
    trust: Trust,
    /// Channels that stand already, by the coordinators that they go to: what happens within milliseconds is not seen through new ones.
    channels: Mutex<BTreeMap<String, Channel>>,
    runtime: Runtime,
    folder: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, node) in &self.nodes {
                show_log(name, &node.log);
            }
        }
    }
}

impl Cluster {
    /// A cluster with so many coordinators on loopback.
    pub(crate) fn start(coordinators: usize) -> Self {
        let places: Vec<Place> = (1..=coordinators).map(Place::loopback).collect();
        Self::start_at(&places)
    }

    /// A cluster with a coordinator at each place.
    pub(crate) fn start_at(places: &[Place]) -> Self {
        Self::start_prepared(places, |_, _| {})
    }

    /// As [`Self::start_at`]; before the first coordinator starts, something is done to its folder. It is told the cluster's id, too.
    pub(crate) fn start_prepared(places: &[Place], prepare: impl FnOnce(&Path, [u8; 16])) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let data = folder.path().join("c1");
        let address = format!("{}:{PORT}", places[0].ip);
        let args = [
            "--json",
            "cluster",
            "init",
            "test",
            "--address",
            &address,
            "--coordinator",
            "c1",
            "--data",
            data.to_str().unwrap(),
        ];
        let founded = Ran::new(&args, command(&home, None, &args).output().unwrap());
        assert_eq!(founded.code, 0, "{founded}");
        let founded = founded.value();
        let id = founded["cluster_id"].as_str().unwrap();
        prepare(&data, tresor_proto::ids::unhex(id).unwrap());

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let token: ApiToken = founded["token"].as_str().unwrap().parse().unwrap();
        let fingerprint: Fingerprint = founded["ca_fingerprint"].as_str().unwrap().parse().unwrap();
        let mut nodes = BTreeMap::new();
        let mut first = Self::coordinator(&folder, "c1", &places[0]);
        first.start(&[]);
        nodes.insert(String::from("c1"), first);
        let contact = until("the first coordinator answers", || {
            runtime
                .block_on(first_contact(std::slice::from_ref(&address), fingerprint))
                .ok()
        });
        let mut cluster = Self {
            nodes,
            trust: contact.trust(),
            fingerprint,
            token,
            channels: Mutex::default(),
            runtime,
            folder,
        };
        let addresses: Vec<String> = places.iter().map(|place| format!("{}:{PORT}", place.ip)).collect();
        cluster.log_in(&addresses.join(","));
        for (number, place) in places.iter().enumerate().skip(1) {
            cluster.add_coordinator(&format!("c{}", number + 1), place);
        }
        cluster
    }

    /// Logs in, with these addresses to ask at.
    fn log_in(&self, addresses: &str) {
        std::fs::write(self.path("token"), self.token.reveal().as_bytes()).unwrap();
        let token = self.text("token");
        let fingerprint = self.fingerprint.to_string();
        let pinned = ["login", addresses, "--ca-fingerprint", &fingerprint];
        self.verb(&[&pinned[..], &["--token-file", &token, "--name", "test"]].concat());
    }

    /// Tells the user and the workers where all coordinators are now: who joined when there was one knows that one.
    pub(crate) fn tell_addresses(&mut self) {
        let addresses = self.addresses();
        self.log_in(&addresses);
        for worker in self.workers() {
            assert!(self.terminate(&worker).success());
            let node = self.node(&worker);
            node.args.extend([String::from("--coordinators"), addresses.clone()]);
            node.start(&[]);
        }
    }

    /// A path of the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path of the test's folder as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The user whose home the login is in, for a thread of its own.
    pub(crate) fn user(&self) -> User {
        User {
            home: self.path("home"),
        }
    }

    /// Calls the program for this cluster.
    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        self.user().run(args, env)
    }

    /// Calls the program, which must do as it is told, and gives its answer.
    pub(crate) fn verb(&self, args: &[&str]) -> Value {
        let ran = self.run(args, &[]);
        assert_eq!(ran.code, 0, "{ran}");
        ran.value()
    }

    fn coordinator(folder: &TempDir, name: &str, place: &Place) -> Node {
        let data = folder.path().join(name).to_str().unwrap().to_owned();
        let listen = format!("{}:{PORT}", place.ip);
        let http = format!("{}:{HTTP_PORT}", place.ip);
        let args = [
            "coordinator",
            "start",
            "--listen",
            &listen,
            "--http",
            &http,
            "--item-metrics",
            "--data",
            &data,
        ];
        Node {
            place: place.clone(),
            args: args.map(str::to_owned).to_vec(),
            home: folder.path().join("home"),
            log: folder.path().join(format!("{name}.log")),
            process: None,
        }
    }

    /// A join token for a role, in a file.
    pub(crate) fn join_token(&self, role: &str, name: &str) -> String {
        let token = self.verb(&["cluster", "join-token", "create", "--role", role]);
        let file = format!("{name}.token");
        std::fs::write(self.path(&file), token["token"].as_str().unwrap()).unwrap();
        self.text(&file)
    }

    /// Founds the cluster again without any of its coordinators, with a verb of `tresor cluster` that does: the first of the new one is called `name`. Returns
    /// what the verb said.
    pub(crate) fn begin_again(&mut self, verb: &[&str], name: &str, number: usize) -> Value {
        for lost in self.coordinators() {
            if self.runs(&lost) {
                self.kill(&lost);
            }
            self.forget(&lost);
        }
        let place = Place::loopback(number);
        let (data, address) = (self.text(name), format!("{}:{PORT}", place.ip));
        let where_to = ["--address", &address, "--data", &data, "--coordinator", name];
        let args = [&["--json", "cluster"], verb, &where_to].concat();
        let founded = Ran::new(&args, command(&self.path("home"), None, &args).output().unwrap());
        assert_eq!(founded.code, 0, "{founded}");
        let founded = founded.value();
        self.token = founded["token"].as_str().unwrap().parse().unwrap();
        self.fingerprint = founded["ca_fingerprint"].as_str().unwrap().parse().unwrap();
        self.channels.lock().unwrap().clear();
        let mut node = Self::coordinator(&self.folder, name, &place);
        node.start(&[]);
        self.nodes.insert(name.to_owned(), node);
        let fingerprint = self.fingerprint;
        let contact = until("the new coordinator answers", || {
            let addresses = std::slice::from_ref(&address);
            self.runtime.block_on(first_contact(addresses, fingerprint)).ok()
        });
        self.trust = contact.trust();
        self.log_in(&address);
        founded
    }

    /// Lets a worker leave the lost cluster and join the one that was founded again, and waits until it works.
    pub(crate) fn join_anew(&mut self, name: &str) {
        let token = self.join_token("worker", name);
        let addresses = self.addresses();
        self.node(name)
            .start(&["--join", &addresses, "--token-file", &token, "--name", name]);
        until(format!("{name} works"), || {
            self.assert_runs(name);
            self.works(name).then_some(())
        });
    }

    /// Waits until a vault is one that the cluster holds.
    pub(crate) fn vault_is_ready(&self, vault: &str) {
        until(format!("vault {vault} is claimed"), || {
            let shown = self.verb(&["vault", "show", vault]);
            (shown["state"] == "ready").then_some(())
        });
    }

    /// Calls the program without any cluster, which must do as it is told.
    pub(crate) fn alone(&self, args: &[&str]) -> Value {
        let args = [&["--json", "--cluster", ""], args].concat();
        let ran = Ran::new(&args, command(&self.path("home"), None, &args).output().unwrap());
        assert_eq!(ran.code, 0, "{ran}");
        ran.value()
    }

    /// Lets a coordinator join, and waits until it votes.
    pub(crate) fn add_coordinator(&mut self, name: &str, place: &Place) {
        let token = self.join_token("coordinator", name);
        let address = format!("{}:{PORT}", place.ip);
        let others = self.addresses();
        let mut node = Self::coordinator(&self.folder, name, place);
        node.start(&[
            "--join",
            &others,
            "--token-file",
            &token,
            "--address",
            &address,
            "--name",
            name,
        ]);
        self.nodes.insert(name.to_owned(), node);
        until(format!("{name} votes"), || {
            self.assert_runs(name);
            let listed = self.verb(&["coordinator", "list"]);
            let mut listed = listed["coordinators"].as_array().unwrap().iter();
            listed
                .any(|c| c["coordinator"] == name && c["role"] == "voter")
                .then_some(())
        });
    }

    /// Lets one more coordinator join, on loopback.
    pub(crate) fn add_loopback_coordinator(&mut self, number: usize) -> String {
        let name = format!("c{number}");
        self.add_coordinator(&name, &Place::loopback(number));
        name
    }

    /// Lets a worker join, which runs two jobs at a time and is labelled `any=yes`, and waits until it works.
    pub(crate) fn add_worker(&mut self, name: &str) {
        let here = Place {
            ip: String::new(),
            namespace: None,
        };
        self.add_worker_at(name, &here, &[]);
    }

    /// Lets workers join at about the same time: then each gets its share of the slots at once, and none waits for what moves a minute later.
    pub(crate) fn add_workers(&mut self, names: &[&str]) {
        let here = Place {
            ip: String::new(),
            namespace: None,
        };
        for name in names {
            self.start_worker_at(name, &here, &[]);
        }
        for name in names {
            self.wait_for_worker(name);
        }
    }

    /// As [`Self::add_worker`], at a place and with more arguments.
    pub(crate) fn add_worker_at(&mut self, name: &str, place: &Place, more: &[&str]) {
        self.start_worker_at(name, place, more);
        self.wait_for_worker(name);
    }

    fn start_worker_at(&mut self, name: &str, place: &Place, more: &[&str]) {
        let token = self.join_token("worker", name);
        let data = self.text(name);
        let metrics = self.metrics_address(name);
        let args = [
            "worker",
            "start",
            "--metrics-address",
            &metrics,
            "--data",
            &data,
            "--label",
            "any=yes",
        ];
        let mut args = [&args, more].concat();
        if !more.contains(&"--no-jobs") {
            args.extend(["--permits", "2"]);
        }
        let mut node = Node {
            place: place.clone(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            home: self.path("home"),
            log: self.path(&format!("{name}.log")),
            process: None,
        };
        node.start(&["--join", &self.addresses(), "--token-file", &token, "--name", name]);
        self.nodes.insert(name.to_owned(), node);
    }

    fn wait_for_worker(&mut self, name: &str) {
        until(format!("{name} works"), || {
            self.assert_runs(name);
            self.works(name).then_some(())
        });
    }

    /// Whether the cluster heard of a worker lately.
    pub(crate) fn works(&self, name: &str) -> bool {
        let listed = self.verb(&["worker", "list"]);
        let mut listed = listed["workers"].as_array().unwrap().iter();
        listed.any(|worker| worker["worker"] == name && worker["state"] == "ready")
    }

    fn assert_runs(&mut self, name: &str) {
        let ended = self.node(name).process.as_mut().and_then(Process::ended);
        assert_eq!(ended, None, "{name} ended");
    }

    /// Addresses of all coordinators, separated by commas.
    fn addresses(&self) -> String {
        let addresses: Vec<String> = self.coordinators().iter().map(|name| self.address(name)).collect();
        addresses.join(",")
    }

    /// Names of all coordinators.
    pub(crate) fn coordinators(&self) -> Vec<String> {
        self.nodes
            .keys()
            .filter(|name| name.starts_with(['c', 'd']))
            .cloned()
            .collect()
    }

    /// Names of all workers.
    pub(crate) fn workers(&self) -> Vec<String> {
        self.nodes
            .keys()
            .filter(|name| name.starts_with('w'))
            .cloned()
            .collect()
    }

    /// Names of the coordinators but one.
    pub(crate) fn coordinators_but(&self, name: &str) -> Vec<String> {
        self.coordinators().into_iter().filter(|other| other != name).collect()
    }

    /// Where a coordinator listens.
    pub(crate) fn address(&self, name: &str) -> String {
        format!("{}:{PORT}", self.nodes[name].place.ip)
    }

    /// Where a coordinator has its pages.
    pub(crate) fn http_address(&self, name: &str) -> String {
        format!("{}:{HTTP_PORT}", self.nodes[name].place.ip)
    }

    /// Where a worker has its pages: `w1` at an address of its own, as coordinators.
    pub(crate) fn metrics_address(&self, worker: &str) -> String {
        let number: usize = worker.trim_start_matches('w').parse().unwrap_or(99);
        format!("{}:{METRICS_PORT}", Place::loopback(100 + number).ip)
    }

    /// Where a node is.
    pub(crate) fn place(&self, name: &str) -> &Place {
        &self.nodes[name].place
    }

    /// Connects to some of the coordinators and to no others.
    pub(crate) fn connector(&self, names: &[&str]) -> Connector {
        let addresses = names.iter().map(|name| self.address(name)).collect();
        Connector::new(addresses, self.trust.clone()).unwrap()
    }

    /// A channel to some of the coordinators and to no others.
    pub(crate) fn channel(&self, names: &[&str]) -> Channel {
        let _inside = self.runtime.enter();
        let mut channels = self.channels.lock().unwrap();
        let made = || self.connector(names).channel();
        channels.entry(names.join(",")).or_insert_with(made).clone()
    }

    /// The administrator's token.
    pub(crate) fn token(&self) -> &ApiToken {
        &self.token
    }

    /// Where calls are made.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap()
    }

    fn process(&self, name: &str) -> &Process {
        self.nodes[name].process.as_ref().unwrap()
    }

    /// Whether it was started and not ended by a test.
    pub(crate) fn runs(&self, name: &str) -> bool {
        self.nodes[name].process.is_some()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, name: &str) {
        self.node(name).process.take().unwrap().kill();
    }

    /// SIGTERM; returns how it ended.
    pub(crate) fn terminate(&mut self, name: &str) -> ExitStatus {
        self.node(name).process.take().unwrap().terminate()
    }

    /// Waits until it ends by itself, which it must with that code; returns all that it wrote.
    pub(crate) fn ends(&mut self, name: &str, code: i32) -> String {
        let mut process = self.node(name).process.take().unwrap();
        let status = until(format!("{name} ends by itself"), || process.ended());
        let log = self.log(name);
        assert_eq!(status.code(), Some(code), "{log}");
        log
    }

    /// Does not know any more a node that has ended.
    pub(crate) fn forget(&mut self, name: &str) {
        assert!(self.nodes.remove(name).unwrap().process.is_none(), "{name} runs");
    }

    /// Starts it again, as it was started after it had joined.
    pub(crate) fn restart(&mut self, name: &str) {
        self.node(name).start(&[]);
    }

    /// Lets processes stand still, all at about the same moment.
    pub(crate) fn pause(&self, names: &[&str]) {
        for name in names {
            self.process(name).stop();
        }
        for name in names {
            self.process(name).wait_stopped();
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self, name: &str) {
        self.process(name).resume();
    }

    /// Lets all workers stand still: what they do is held in its stage, whoever of them does it.
    pub(crate) fn pause_workers(&self) {
        let workers = self.workers();
        self.pause(&workers.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Lets all workers go on.
    pub(crate) fn resume_workers(&self) {
        for worker in self.workers() {
            if self.runs(&worker) {
                self.resume(&worker);
            }
        }
    }

    /// What a node wrote.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(&self.nodes[name].log).unwrap()
    }

    /// Makes the vault `main` in a folder.
    pub(crate) fn make_vault(&self) {
        let url = format!("file://{}", self.text("store"));
        self.verb(&["vault", "create", "main", "--store", &url]);
    }

    /// Fills the disk of an item with bytes that do not compress, and protects it on any worker.
    pub(crate) fn fill(&self, item: &str, seed: u64, length: usize) -> Vec<u8> {
        let bytes = Random::seeded(seed).bytes(length);
        let disk = self.path(&format!("{item}.img"));
        let is_new = !disk.exists();
        std::fs::write(&disk, &bytes).unwrap();
        if is_new {
            let disk = format!("vda={}", disk.display());
            self.verb(&["item", "protect", item, &disk, "--worker-label", "any=yes"]);
        }
        bytes
    }

    /// Writes the disk of a new item and protects it on any worker.
    pub(crate) fn protect(&self, item: &str, bytes: &[u8]) {
        let disk = self.path(&format!("{item}.img"));
        std::fs::write(&disk, bytes).unwrap();
        let disk = format!("vda={}", disk.display());
        self.verb(&["item", "protect", item, &disk, "--worker-label", "any=yes"]);
    }

    /// Writes the disk of a new item and protects it on one worker.
    pub(crate) fn protect_on(&self, item: &str, worker: &str, bytes: &[u8]) {
        let disk = self.path(&format!("{item}.img"));
        std::fs::write(&disk, bytes).unwrap();
        let disk = format!("vda={}", disk.display());
        self.verb(&["item", "protect", item, &disk, "--worker", worker]);
    }

    /// Slots of the index that each worker answers for.
    pub(crate) fn slots(&self) -> BTreeMap<String, u64> {
        let listed = self.verb(&["worker", "list"]);
        let workers = listed["workers"].as_array().unwrap().iter();
        workers
            .map(|worker| {
                let name = worker["worker"].as_str().unwrap().to_owned();
                (name, worker["slots"].as_u64().unwrap())
            })
            .collect()
    }

    /// Waits until the workers answer for all slots of the index.
    pub(crate) fn slots_are_held(&self) {
        until("the workers have all slots of the index", || {
            (self.slots().values().sum::<u64>() == 4096).then_some(())
        });
    }

    /// Waits until the workers have made the slots that they hold, and so have heard of them.
    pub(crate) fn slots_are_whole(&self) {
        self.slots_are_held();
        for name in self.workers() {
            until(format!("{name} has made its slots"), || {
                self.log(&name).contains("slots of the index are whole").then_some(())
            });
        }
    }

    /// Restores the newest point of an item and compares it.
    pub(crate) fn assert_restores(&self, item: &str, worker: &str, bytes: &[u8]) {
        let target = self.path("restored.img");
        let _ = std::fs::remove_file(&target);
        self.verb(&["restore", item, "--to", &format!("{worker}:{}", target.display())]);
        assert!(std::fs::read(&target).unwrap() == bytes, "{item} is restored otherwise");
    }
}

/// Who calls the program.
pub(crate) struct User {
    home: PathBuf,
}

impl User {
    /// Calls the program, with more environment.
    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut command = command(&self.home, None, &[&["--json"], args].concat());
        if args[0] != "login" {
            command.env("TRESOR_CLUSTER", "test");
        }
        command.envs(env.iter().copied());
        Ran::new(args, command.output().unwrap())
    }
}

impl Node {
    fn start(&mut self, more: &[&str]) {
        assert!(self.process.is_none(), "it runs already");
        let args: Vec<&str> = self
            .args
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let mut command = command(&self.home, self.place.namespace.as_deref(), &args);
        command.env("TRESOR_LOG", LOG).env("NO_COLOR", "1");
        self.process = Some(Process::start(command, &self.log));
    }
}
