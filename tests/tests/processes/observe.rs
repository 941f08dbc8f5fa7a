//! What an operator sees: every metric is in the documentation as it is shown, a real Prometheus raises the alerts that it should and no others, every
//! panel of every dashboard has something to show, people are told, and what they send to others when they ask for help has no secret in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tresor_tests::random::Random;

use super::bundle::assert_tells_no_secret;
use super::cluster::{Cluster, Place};
use super::program::{Process, show_log, until};
use super::receiver::Receiver;
use super::watch::page;

/// With which the webhook's messages are signed.
const HOOK_KEY: &str = "staple-battery-horse-hook";

/// Where the dashboards, the rules and the documentation are.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A family as it is shown: its type, its labels, its help.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

type Families = BTreeMap<String, Family>;

/// The names of labels in `{a="b",c="d"}`: no value of ours has an escaped quote.
fn labels(text: &str) -> impl Iterator<Item = String> + '_ {
    let names = text.split("\",").filter_map(|label| label.split_once("=\""));
    names.map(|(name, _)| name.to_owned()).filter(|name| name != "le")
}

/// Adds the families of a page.
fn collect(text: &str, families: &mut Families) {
    let mut help = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        if let Some((name, said)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.insert(name.to_owned(), said.to_owned());
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let family = families.entry(name.to_owned()).or_insert_with(|| Family {
                kind: kind.to_owned(),
                labels: BTreeSet::new(),
                help: help.get(name).cloned().unwrap_or_default(),
            });
            assert_eq!(family.kind, kind, "{name} is of two types");
            last = Some(name.to_owned());
        } else if let (Some(name), Some((_, rest))) = (&last, line.split_once('{')) {
            let (inner, _) = rest.rsplit_once('}').unwrap();
            let family = families.get_mut(name).expect("its type came before");
            family.labels.extend(labels(inner));
        }
    }
}

fn scrape(address: &str) -> String {
    let answer = page(address, "/metrics").unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.to_owned()
}

/// A part of the documentation: how its table begins and ends, and whose names are in it.
struct Part {
    mark: &'static str,
    is_in: fn(&str) -> bool,
}

const PARTS: [Part; 4] = [
    Part {
        mark: "coordinator",
        is_in: |name| name.starts_with("tresor_coordinator_") || name.starts_with("tresor_item_"),
    },
    Part {
        mark: "worker",
        is_in: |name| name.starts_with("tresor_worker_"),
    },
    Part {
        mark: "process",
        is_in: |name| name.starts_with("process_") || name == "tresor_build_info",
    },
    Part {
        mark: "backup",
        is_in: |name| name.starts_with("tresor_backup_"),
    },
];

fn table(families: &Families, part: &Part) -> String {
    let mut text = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for (name, family) in families.iter().filter(|(name, _)| (part.is_in)(name)) {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let line = format!(
            "| `{name}` | {} | {} | {} |\n",
            family.kind,
            labels.join(", "),
            family.help
        );
        text.push_str(&line);
    }
    text
}

/// The documentation with the tables that it should have.
fn documented(families: &Families) -> (PathBuf, String, String) {
    let path = root().join("docs/metrics.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let mut text = written.clone();
    for part in &PARTS {
        let (begin, end) = (
            format!("<!-- {} -->\n", part.mark),
            format!("<!-- end of {} -->", part.mark),
        );
        let from = text
            .find(&begin)
            .unwrap_or_else(|| panic!("docs/metrics.md has no {begin}"))
            + begin.len();
        let to = text
            .find(&end)
            .unwrap_or_else(|| panic!("docs/metrics.md has no {end}"));
        text.replace_range(from..to, &table(families, part));
    }
    (path, written, text)
}

/// A vault with two items that are backed up by policy `default`, every night.
fn prepare(cluster: &mut Cluster, workers: &[&str]) {
    for worker in workers {
        cluster.add_worker(worker);
    }
    cluster.make_vault();
    cluster.slots_are_held();
    let policy = [
        "policy",
        "create",
        "default",
        "--schedule",
        "daily 02:00",
        "--retention",
        "last 3",
        "--yes",
    ];
    cluster.verb(&policy);
    cluster.fill("web", 1, 8 << 20);
    cluster.fill("db", 2, 8 << 20);
    for item in ["web", "db"] {
        cluster.verb(&["backup", "--item", item]);
    }
}

/// Takes the disk of an item away and backs it up.
fn lose_disk(cluster: &Cluster, item: &str) {
    std::fs::remove_file(cluster.path(&format!("{item}.img"))).unwrap();
    let failed = cluster.run(&["backup", "--item", item], &[]);
    assert_ne!(failed.code, 0, "{failed}");
}

#[test]
fn every_metric_is_in_the_documentation_as_it_is_shown() {
    let mut cluster = Cluster::start(1);
    prepare(&mut cluster, &["w1"]);
    cluster.verb(&["vault", "verify", "main"]);
    let target = format!("w1:{}", cluster.text("restored.img"));
    cluster.verb(&["restore", "web", "--to", &target]);
    // One that no worker may do waits.
    let bytes = Random::seeded(3).bytes(1 << 20);
    std::fs::write(cluster.path("far.img"), bytes).unwrap();
    let disk = format!("vda={}", cluster.text("far.img"));
    cluster.verb(&["item", "protect", "far", &disk, "--worker-label", "on=the-moon"]);
    cluster.begin_backup("far");
    lose_disk(&cluster, "db");
    // Nobody listens there, and nothing is sent before a minute has passed.
    cluster.verb(&["notify", "add", "ops", "--webhook", "http://127.0.0.1:9/"]);

    let (leader, worker) = (cluster.http_address("c1"), cluster.metrics_address("w1"));
    let mut families = Families::new();
    let snapshot = root().join("cli/src/snapshots/tresor__metrics__tests__the_text_of_a_successful_backup.snap");
    collect(&std::fs::read_to_string(snapshot).unwrap(), &mut families);
    let mut running = None;
    // What is shown only while a job runs, or was just counted.
    until("everything was shown once", || {
        let job = running.get_or_insert_with(|| {
            cluster.fill("web", 4, 64 << 20);
            cluster.begin_backup("web")
        });
        collect(&scrape(&leader), &mut families);
        collect(&scrape(&worker), &mut families);
        if cluster.job(*job).state == "done" {
            running = None;
        }
        let all = [
            "tresor_worker_attempts_running",
            "tresor_coordinator_jobs_running",
            "tresor_coordinator_jobs_waiting",
        ];
        let disks = families.contains_key("tresor_worker_disk_free_bytes");
        (disks && all.iter().all(|name| families.contains_key(*name))).then_some(())
    });
    let is_ours = |name: &String| PARTS.iter().any(|part| (part.is_in)(name));
    let strange: Vec<&String> = families.keys().filter(|name| !is_ours(name)).collect();
    assert!(strange.is_empty(), "{strange:?} are of no part of the documentation");
    let (path, written, text) = documented(&families);
    if std::env::var_os("TRESOR_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    } else {
        assert!(
            written == text,
            "docs/metrics.md is out of step: run this test with TRESOR_UPDATE_DOCS=1, and look at what changed"
        );
    }
    // Both processes say that they are well.
    for (address, path) in [
        (&leader, "/healthz"),
        (&leader, "/readyz"),
        (&worker, "/healthz"),
        (&worker, "/readyz"),
    ] {
        let answer = page(address, path).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{address}{path}: {answer}");
    }
    // A worker that hears of no coordinator is alive, and of no use.
    cluster.pause(&["c1"]);
    until("the worker misses its coordinator", || {
        let answer = page(&worker, "/readyz").ok()?;
        answer.contains("no coordinator was heard of").then_some(())
    });
    assert!(page(&worker, "/healthz").unwrap().starts_with("HTTP/1.1 200"));
    cluster.resume("c1");
}

/// A Prometheus that looks every second.
struct Prometheus {
    process: Option<Process>,
    address: String,
    log: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log("prometheus", &self.log);
        }
        // Killed by its number when it is dropped.
        drop(self.process.take());
    }
}

/// Whether there is a Prometheus; says by name what is skipped where there is none, which is nowhere that tests must be complete.
fn is_there() -> bool {
    let found = Command::new("prometheus").arg("--version").output();
    if found.is_ok_and(|ran| ran.status.success()) {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "prometheus is not there: scripts/install-deps.sh test"
    );
    #[expect(clippy::print_stderr, reason = "for whoever wonders what was tested")]
    {
        eprintln!("skipped: alerts and dashboards on a real Prometheus (scripts/install-deps.sh test installs it)");
    }
    false
}

/// The rules as they are, but that none waits for longer than a second before it fires: how long they wait is tested by promtool.
fn impatient_rules() -> String {
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/tresor-alerts.yaml")).unwrap();
    let lines = rules.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
        Some(_) => String::from("        for: 1s"),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    bytes.collect()
}

impl Prometheus {
    fn start(cluster: &Cluster) -> Self {
        let rules = cluster.path("rules.yaml");
        std::fs::write(&rules, impatient_rules()).unwrap();
        let quoted = |addresses: Vec<String>| {
            addresses
                .iter()
                .map(|at| format!("'{at}'"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let coordinators = cluster
            .coordinators()
            .iter()
            .map(|name| cluster.http_address(name))
            .collect();
        let workers = cluster
            .workers()
            .iter()
            .map(|name| cluster.metrics_address(name))
            .collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - {{job_name: coordinators, static_configs: [{{targets: [{}]}}]}}\n\
             - {{job_name: workers, static_configs: [{{targets: [{}]}}]}}\n",
            rules.display(),
            quoted(coordinators),
            quoted(workers),
        );
        let path = cluster.path("prometheus.yaml");
        std::fs::write(&path, config).unwrap();
        let address = format!("{}:9090", Place::loopback(250).ip);
        let log = cluster.path("prometheus.log");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", cluster.text("prometheus")))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let process = Some(Process::start(command, &log));
        Self { process, address, log }
    }

    /// The series that an expression gives now; none while Prometheus does not answer.
    fn ask(&self, expression: &str) -> Option<Vec<Value>> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let path = format!("/api/v1/query?query={}", encoded(expression));
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let value: Value = serde_json::from_str(body).ok()?;
        // One that is not ready yet answers with another status; an expression that is wrong is never right.
        assert_ne!(value["errorType"], "bad_data", "{expression}: {}", value["error"]);
        Some(value["data"]["result"].as_array()?.clone())
    }

    /// The one number of an expression.
    fn number(&self, expression: &str) -> Option<f64> {
        self.ask(expression)?.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Names of the alerts that fire now.
    fn firing(&self) -> BTreeSet<String> {
        let found = self.ask(r#"ALERTS{alertstate="firing"}"#).unwrap_or_default();
        found
            .iter()
            .filter_map(|alert| Some(alert["metric"]["alertname"].as_str()?.to_owned()))
            .filter(|name| !OF_THIS_MACHINE.contains(&name.as_str()))
            .collect()
    }

    fn fires(&self, names: &[&str]) {
        for name in names {
            until(format!("{name} fires"), || self.firing().contains(*name).then_some(()));
        }
    }
}

/// What this machine's own disks may well deserve.
const OF_THIS_MACHINE: [&str; 3] = [
    "TresorCoordinatorDiskFilling",
    "TresorWorkerDiskFilling",
    "TresorStoreFilling",
];

/// Expressions of all panels and variables of a dashboard, by what they are of.
fn expressions(board: &Value) -> Vec<(String, String)> {
    let title = board["title"].as_str().unwrap();
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().to_owned();
            found.push((format!("{title} / {}", panel["title"]), expression));
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            let inner = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
                .unwrap();
            let (series, label) = inner.rsplit_once(", ").unwrap();
            found.push((format!("{title} / ${label}"), format!("count by ({label}) ({series})")));
        }
    }
    found
}

fn dashboards() -> Vec<Value> {
    let folder = std::fs::read_dir(root().join("deploy/grafana/dashboards")).unwrap();
    let boards: Vec<Value> = folder
        .map(|entry| serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    assert!(boards.len() >= 7, "{} dashboards", boards.len());
    boards
}

/// Overwrites some bytes in the middle of every pack.
fn damage_packs(cluster: &Cluster) {
    let mut folders = vec![cluster.path("store/packs")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
            count += 1;
        }
    }
    assert!(count > 0, "there are packs");
}

#[test]
fn a_real_prometheus_raises_the_alerts_that_it_should_and_every_panel_shows_something() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start(3);
    prepare(&mut cluster, &["w1", "w2"]);
    let receiver = Receiver::start();
    std::fs::write(cluster.path("hook.secret"), HOOK_KEY).unwrap();
    let (url, key) = (receiver.url.clone(), cluster.text("hook.secret"));
    cluster.verb(&["notify", "add", "ops", "--webhook", &url, "--secret-file", &key]);
    cluster.verb(&["vault", "verify", "main"]);
    let target = format!("w1:{}", cluster.text("restored.img"));
    cluster.verb(&["restore", "web", "--to", &target]);
    let prometheus = Prometheus::start(&cluster);
    until("Prometheus hears of all five processes", || {
        (prometheus.number("sum(up)")? == 5.0).then_some(())
    });
    until("the leader has counted its items", || {
        (prometheus.number(r#"max(tresor_coordinator_items_by_state{state="ok"})"#)? == 2.0).then_some(())
    });
    // A cluster that is well has no alert; what Prometheus did not know in its first seconds is over soon.
    until("no alert fires", || prometheus.firing().is_empty().then_some(()));
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(5) {
        let firing = prometheus.firing();
        assert!(firing.is_empty(), "{firing:?} fire in a cluster that is well");
        std::thread::sleep(Duration::from_millis(500));
    }

    // Numbers follow their causes.
    let read = r#"sum(tresor_worker_backup_bytes_total{what="read"})"#;
    let before = prometheus.number(read).unwrap();
    cluster.fill("web", 5, 12 << 20);
    cluster.verb(&["backup", "--item", "web"]);
    until("the bytes of a backup are seen", || {
        let more = prometheus.number(read)? - before;
        (more >= f64::from(12 << 20)).then_some(())
    });

    // A disk is gone.
    lose_disk(&cluster, "db");
    prometheus.fires(&["TresorItemsFailing", "TresorJobsFailing"]);
    let failing = r#"max(tresor_coordinator_items_by_state{state="failing"})"#;
    assert_eq!(prometheus.number(failing), Some(1.0));
    assert_eq!(prometheus.number(r#"max(tresor_item_failures{item="db"})"#), Some(1.0));
    let still_well = prometheus.firing();
    let expected = BTreeSet::from(["TresorItemsFailing", "TresorJobsFailing"].map(str::to_owned));
    assert_eq!(still_well, expected, "one disk is gone, and nothing else is wrong");

    // The store has lost something.
    damage_packs(&cluster);
    let verified = cluster.run(&["vault", "verify", "main"], &[]);
    assert_eq!(verified.code, 3, "{verified}");
    prometheus.fires(&["TresorVerifyFindings", "TresorPointsHarmed", "TresorItemsHarmed"]);

    // A coordinator and a worker are gone.
    let leader = cluster.leader();
    let follower = cluster.coordinators_but(&leader).pop().unwrap();
    cluster.kill(&follower);
    cluster.kill("w2");
    prometheus.fires(&["TresorCoordinatorDown", "TresorQuorumAtRisk", "TresorWorkerDown"]);
    assert_eq!(prometheus.number("max(tresor_coordinator_quorum_spare)"), Some(0.0));
    assert_eq!(
        prometheus.number(r#"max(tresor_coordinator_worker_heard{worker="w2"})"#),
        Some(0.0)
    );
    assert_eq!(
        prometheus.number(r#"max(tresor_coordinator_worker_heard{worker="w1"})"#),
        Some(1.0)
    );
    let firing = prometheus.firing();
    for not in [
        "TresorNotWatched",
        "TresorNoLeader",
        "TresorNoWorkers",
        "TresorExpiryStopped",
        "TresorCertificateEnding",
        "TresorAuthorityEnding",
        "TresorClockOff",
        "TresorCatalogueStale",
        "TresorVaultNotReady",
        "TresorVaultNotVerified",
        "TresorStoreRefuses",
        "TresorBoundNear",
        "TresorItemsWithoutSchedule",
        "TresorItemsNeverBackedUp",
    ] {
        assert!(!firing.contains(not), "{not} fires without a cause: {firing:?}");
    }

    // Every panel has something to show.
    let worker = cluster.metrics_address("w1");
    let mut empty = Vec::new();
    for board in dashboards() {
        for (of, expression) in expressions(&board) {
            let asked = expression
                .replace("$__rate_interval", "1m")
                .replace("$instance", &worker)
                .replace("$store", ".*")
                .replace("$item", "web")
                .replace("$vault", ".*");
            assert!(
                !asked.contains('$'),
                "{of}: {asked} has a variable that the test does not know"
            );
            if prometheus.ask(&asked).is_none_or(|series| series.is_empty()) {
                empty.push(format!("{of}: {asked}"));
            }
        }
    }
    assert!(empty.is_empty(), "panels that show nothing:\n{}", empty.join("\n"));

    // People are told the same.
    let told = |event| until(format!("a message of {event}"), || receiver.of(event).pop());
    let failure = told("failure");
    assert_eq!(failure["items"][0]["name"], "db", "{failure}");
    assert!(failure["items"][0]["error"].to_string().contains("db.img"), "{failure}");
    assert_eq!(told("finding")["items"][0]["name"], "main");
    assert_eq!(
        failure["items"].as_array().unwrap().len(),
        1,
        "web has not failed: {failure}"
    );
    assert!(receiver.of("late").is_empty() && receiver.of("recovery").is_empty());
    assert_tells_no_secret(&cluster, &[HOOK_KEY]);
}
