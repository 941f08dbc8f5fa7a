//! `tresor support-bundle`: everything that helps whoever helps, in one file, and nothing secret.
//!
//! Each part is had by itself; one that cannot be had is noted. What is secret on this machine is read first, so that it can be taken out of all others.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;
use tresor_proto::v1::{
    ExplainRequest, ListCoordinatorsRequest, ListItemsRequest, ListJobsRequest, ListLimitsRequest, ListPoliciesRequest,
    ListVaultsRequest, ListWorkersRequest, VerifyAuditRequest,
};
use tresor_storage::ids::hex;
use tresor_worker::home::Home;

use crate::app::App;
use crate::args::SupportBundleArgs;
use crate::cluster::{Cluster, Go};
use crate::config::FileConfig;
use crate::error::CliError;
use crate::human;
use crate::screen::Answer;
use crate::support::guard::{Guard, is_telling};
use crate::support::known::known_names;
use crate::support::metrics::metrics;
use crate::support::{Bundle, Listed, Missing, write};
use crate::verb::coordinator::CoordinatorShown;
use crate::verb::job::JobShown;
use crate::verb::vault::VaultShown;
use crate::verb::worker::WorkerShown;

/// Jobs that failed last, and are explained.
const FAILED_MAX: usize = 50;
/// Explanations asked for: each is a call.
const EXPLAINED_MAX: usize = 20;
/// Files of the home that are named.
const LISTED_MAX: usize = 5000;
/// Bytes of a log that are kept, from its end.
const LOG_MAX: u64 = 8 << 20;
/// Lines of the journal.
const JOURNAL_LINES: &str = "50000";
/// How long another program may take: the journal of a busy day is some hundred megabytes to look through.
const PROGRAM_TIME: Duration = Duration::from_secs(60);
/// Longest file of a home that is read because it may hold a secret.
const KEY_FILE_MAX: u64 = 64 << 10;
/// Why an anonymous bundle has no logs: names of items and hosts are in their lines.
const NAMES_UNKNOWN: &str =
    "no cluster told its names, so that they cannot be replaced; without --anonymous they are in the bundle";
/// Strength of the compression: texts, once.
const LEVEL: i32 = 6;

#[derive(Serialize)]
struct Made {
    output: PathBuf,
    bytes: u64,
    anonymous: bool,
    files: Vec<Listed>,
    missing: Vec<Missing>,
}

/// Makes one.
///
/// # Errors
/// When it cannot be written; what cannot be put into it is no error.
pub(crate) async fn run(app: &App, args: SupportBundleArgs) -> Result<Answer, CliError> {
    let day = app.now.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S").to_string();
    let folder = format!("tresor-support-{day}");
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| format!("{folder}.tar.zst").into());
    let cluster = app.cluster();
    let mut faults = Vec::new();
    let cluster = cluster.unwrap_or_else(|error| {
        faults.push(("cluster", error.chain()));
        None
    });
    let guard = guard(app, &args);
    let (names, is_replaced) = match args.anonymous {
        true => {
            let (names, are_all) = known_names(app, cluster.as_ref(), &mut faults).await?;
            (Some(names), are_all)
        }
        false => (None, true),
    };
    let mut bundle = Bundle::new(&folder, app.now.as_second(), guard, names);
    for (part, why) in faults {
        bundle.lacks(part, &why);
    }
    this_machine(app, &mut bundle);
    settings(app, &mut bundle);
    home(app, &mut bundle);
    if is_replaced {
        logs(app, &args, &mut bundle).await;
    } else {
        bundle.lacks("logs and metrics", NAMES_UNKNOWN);
    }
    match &cluster {
        Some(cluster) => Box::pin(state(app, cluster, &args, &mut bundle)).await,
        None => bundle.lacks("cluster", "no cluster is chosen, and this home has no node"),
    }
    if is_replaced {
        metrics(app, &args, &mut bundle).await;
    }
    let head = format!(
        "Support bundle of tresor {}, made {} with the last {} of logs and failed jobs.\n\
         Keys, passphrases, tokens and credentials of stores are not in it: they were never asked for, and what is secret on this\n\
         machine was taken out of every text. Names of items, hosts and stores {}.",
        env!("CARGO_PKG_VERSION"),
        human::time(app.now),
        human::age(args.since),
        match args.anonymous {
            true => "are replaced by pseudonyms",
            false => "are in it; --anonymous replaces them by pseudonyms",
        }
    );
    let (tar, files, missing) = bundle.finish(&head);
    let failed = |source| CliError::File {
        doing: "write",
        path: output.clone(),
        source,
    };
    let packed = zstd::encode_all(tar.as_slice(), LEVEL).map_err(failed)?;
    write(&output, &packed)?;
    let made = Made {
        bytes: packed.len() as u64,
        anonymous: args.anonymous,
        output,
        files,
        missing,
    };
    Ok(app.screen.answer(&made, || text(&made)))
}

fn text(made: &Made) -> String {
    let mut text = format!("{} ({})\n\nin it:\n", made.output.display(), human::size(made.bytes));
    for file in &made.files {
        text.push_str(&format!(
            "  {:<34} {}\n",
            human::plain(&file.name),
            human::plain(&file.what)
        ));
    }
    if !made.missing.is_empty() {
        text.push_str("\ncould not be had:\n");
        for missing in &made.missing {
            text.push_str(&format!(
                "  {}: {}\n",
                human::plain(&missing.part),
                human::plain(&missing.why)
            ));
        }
    }
    text.push_str("\nNothing secret is in it: no keys, passphrases, tokens or credentials of stores.\n");
    text.push_str(match made.anonymous {
        true => "Names of items, hosts and stores are replaced by pseudonyms.",
        false => "Names of items, hosts and stores are in it: --anonymous replaces them by pseudonyms.",
    });
    text
}

/// All that is secret here and known: of the environment, of files that settings name, of the home.
fn guard(app: &App, args: &SupportBundleArgs) -> Guard {
    let mut guard = Guard::default();
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        if !is_telling(name) {
            continue;
        }
        match name.ends_with("_FILE") {
            true => know_file(&mut guard, Path::new(value)),
            // Of a proxy what is secret stands before the @ of its URL.
            false if name.to_ascii_lowercase().contains("proxy") => {
                let user = value.split_once("://").map_or(value, |(_, rest)| rest).rsplit_once('@');
                guard.know(user.map_or("", |(user, _)| user));
            }
            false => guard.know(value),
        }
    }
    for path in app.secrets.files() {
        know_file(&mut guard, &path);
    }
    let home = &app.settings.home.value;
    for (url, table) in &app.settings.stores {
        if let Some((_, rest)) = url.split_once("://")
            && let Some((user, _)) = rest.split_once('@')
        {
            guard.know(user);
            user.split(':').for_each(|part| guard.know(part));
        }
        let (id, files) = table.guarded(home);
        guard.know(id.unwrap_or_default());
        files.iter().for_each(|path| know_file(&mut guard, path));
    }
    // The last two are those of processes that serve a cluster.
    for folder in ["keys", "clusters", "node", "coordinator", "worker"] {
        know_folder(&mut guard, &home.join(folder), 3);
    }
    for address in &args.metrics_of {
        if let Some((user, _)) = address.rsplit_once('@') {
            guard.know(user);
        }
    }
    guard
}

/// Files in a folder of the home whose names say that they are keys, tokens or the like.
fn know_folder(guard: &mut Guard, folder: &Path, depth: usize) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let is_keys = folder.file_name().is_some_and(|name| name == "keys");
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if depth > 0 {
                know_folder(guard, &path, depth - 1);
            }
        } else if is_keys || ["key", "token", "joining"].iter().any(|word| name.contains(word)) {
            know_file(guard, &path);
        }
    }
}

fn know_file(guard: &mut Guard, path: &Path) {
    // Of a pipe or a terminal nothing may ever come, and what comes is the command's that it is for.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return;
    }
    let Ok(file) = fs::File::open(path) else { return };
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    if file.take(KEY_FILE_MAX).read_to_end(&mut bytes).is_err() {
        return;
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => guard.know_file(text),
        // Where somebody wrote the bytes down as digits.
        Err(_) => guard.know(&hex(&bytes)),
    }
}

/// Versions, the system, processors and memory.
fn this_machine(app: &App, bundle: &mut Bundle) {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        line.map(|line| {
            let value = line.split_once([':', '=']).map_or("", |(_, value)| value);
            value.trim().trim_matches('"').to_owned()
        })
    };
    let system = rustix::system::uname();
    let cores = std::thread::available_parallelism().map(usize::from).ok();
    let machine = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "protocol": "tresor.v1",
        "debug_build": cfg!(debug_assertions),
        "rocksdb": rocksdb_version(&app.settings.home.value),
        "made": human::time(app.now),
        "os": first("/etc/os-release", "PRETTY_NAME"),
        "kernel": format!("{} {}", system.release().to_string_lossy(), system.version().to_string_lossy()),
        "machine": system.machine().to_string_lossy(),
        "cpu": first("/proc/cpuinfo", "model name"),
        "cpu_flags": first("/proc/cpuinfo", "flags").map(|flags| known_flags(&flags)),
        "cores": cores,
        "memory_total": first("/proc/meminfo", "MemTotal"),
        "memory_available": first("/proc/meminfo", "MemAvailable"),
        "uptime_seconds": fs::read_to_string("/proc/uptime").ok().and_then(|text| text.split('.').next().map(str::to_owned)),
        "open_files_max": rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        "time_zone": TimeZone::system().iana_name(),
    });
    bundle.json(
        "machine.json",
        "versions of program and system, processors, memory",
        &machine,
    );
    for (name, path) in [
        ("memory.txt", "/proc/meminfo"),
        ("pressure-io.txt", "/proc/pressure/io"),
    ] {
        if let Ok(text) = fs::read_to_string(path) {
            bundle.text(name, path, &text);
        }
    }
}

/// Of a processor what decides how fast it computes here.
fn known_flags(flags: &str) -> Vec<String> {
    let telling = [
        "aes",
        "vaes",
        "avx2",
        "avx512f",
        "sha_ni",
        "pclmulqdq",
        "sse4_2",
        "hypervisor",
    ];
    let flags = flags.split(' ').filter(|flag| telling.contains(flag));
    flags.map(str::to_owned).collect()
}

/// The version that wrote a database of this home last.
fn rocksdb_version(home: &Path) -> Option<String> {
    let mut todo = vec![(home.join("node"), 4), (home.join("index"), 3)];
    while let Some((folder, depth)) = todo.pop() {
        for entry in fs::read_dir(folder).ok().into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && depth > 0 {
                todo.push((path, depth - 1));
            } else if entry.file_name().to_string_lossy().starts_with("OPTIONS-") {
                let text = fs::read_to_string(path).ok()?;
                let line = text
                    .lines()
                    .find_map(|line| line.trim().strip_prefix("rocksdb_version="));
                return line.map(str::to_owned);
            }
        }
    }
    None
}

/// Every setting and where it is from; which variables of ours and of stores are set, without their values.
fn settings(app: &App, bundle: &mut Bundle) {
    if let Err(error) = FileConfig::load(&app.settings.home.value) {
        bundle.lacks("config.toml", &error.chain());
    }
    match super::config::look(app) {
        Ok(shown) => bundle.json("settings.json", "settings, logins and stores, without secrets", &shown),
        Err(error) => bundle.lacks("settings", &error.chain()),
    }
    let ours = [
        "TRESOR_",
        "AWS_",
        "AZURE_",
        "GOOGLE_",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "https_proxy",
        "no_proxy",
    ];
    let mut set: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| ours.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    set.sort();
    bundle.json(
        "environment.json",
        "which variables are set, without their values",
        &set,
    );
}

#[derive(Serialize)]
struct FileShown {
    path: String,
    bytes: u64,
    mode: String,
    changed: String,
}

/// Which files are in the home, and its vaults.
fn home(app: &App, bundle: &mut Bundle) {
    let root = &app.settings.home.value;
    let mut files = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).ok().into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            // Packs are many, and the store's own affair.
            if metadata.is_dir() && !name.starts_with("stores/") {
                todo.push(path);
            }
            let changed = Timestamp::from_second(metadata.mtime()).map(human::time);
            if files.len() < LISTED_MAX {
                files.push(FileShown {
                    path: name,
                    bytes: metadata.len(),
                    mode: format!("{:o}", metadata.mode()),
                    changed: changed.unwrap_or_default(),
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    bundle.json(
        "home-files.json",
        "names, sizes and permissions of files in the home",
        &files,
    );
    let vaults = Home::open(root, "support-bundle").and_then(|home| Ok((home.vaults()?, home)));
    match vaults {
        Ok((vaults, home)) => {
            let vaults: Vec<_> = vaults
                .iter()
                .map(|vault| {
                    json!({
                        "vault": vault.name,
                        "id": vault.id.to_string(),
                        "url": human::url(&vault.url),
                        "added_at": vault.added_at,
                        "has_key_here": home.has_key(vault.id),
                    })
                })
                .collect();
            bundle.json(
                "home-vaults.json",
                "vaults of the home, and whether their keys are here",
                &vaults,
            );
        }
        Err(error) => bundle.lacks("vaults of the home", &CliError::from(error).chain()),
    }
}

/// The journal of our units, and files of logs.
async fn logs(app: &App, args: &SupportBundleArgs, bundle: &mut Bundle) {
    let since = format!("-{}s", args.since);
    let journal = Command::new("journalctl")
        .args([
            "--no-pager",
            "--quiet",
            "--output=short-iso",
            "--unit=tresor-*",
            "--lines",
            JOURNAL_LINES,
        ])
        .args(["--since", &since])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match timeout(PROGRAM_TIME, journal).await {
        Ok(Ok(output)) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            bundle.text("logs/journal.txt", "journal of the units tresor-*", &text);
        }
        Ok(Ok(output)) => bundle.lacks("journal", String::from_utf8_lossy(&output.stderr).trim()),
        Ok(Err(error)) => bundle.lacks("journal", &format!("journalctl: {error}")),
        Err(_) => bundle.lacks("journal", "journalctl did not end in time"),
    }
    let home = &app.settings.home.value;
    let oldest = app.now.as_second() - args.since;
    for folder in [
        home.clone(),
        home.join("logs"),
        home.join("node"),
        PathBuf::from("/var/log/tresor"),
    ] {
        for entry in fs::read_dir(folder).ok().into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_new = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.mtime() >= oldest);
            if !is_new || !name.ends_with(".log") {
                continue;
            }
            match end_of(&path) {
                Ok(text) => {
                    let name = bundle.clean(&name);
                    bundle.text(&format!("logs/{name}"), &path.display().to_string(), &text);
                }
                Err(error) => bundle.lacks(&name, &error.to_string()),
            }
        }
    }
    if let Some(path) = &app.settings.metrics_file.value {
        match end_of(path) {
            Ok(text) => bundle.text(
                "metrics/file.txt",
                "numbers that the last backup left for Prometheus",
                &text,
            ),
            Err(error) => bundle.lacks("metrics file", &error.to_string()),
        }
    }
}

fn end_of(path: &Path) -> std::io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the cluster says of itself. Once it does not answer, nothing more is asked.
async fn state(app: &App, cluster: &Cluster, args: &SupportBundleArgs, bundle: &mut Bundle) {
    if let Err(error) = Box::pin(state_of(app, cluster, args, bundle)).await {
        bundle.lacks("state of the cluster", &error.chain());
    }
}

async fn state_of(app: &App, cluster: &Cluster, args: &SupportBundleArgs, bundle: &mut Bundle) -> Result<(), CliError> {
    let status = super::status::of_cluster(cluster).await?;
    bundle.json("cluster/status.json", "what tresor status says", &status);
    let vaults = cluster.vaults(ListVaultsRequest::default(), None).await?.rows;
    let vaults: Vec<_> = vaults.into_iter().map(VaultShown::from).collect();
    bundle.json("cluster/vaults.json", "vaults", &vaults);
    let workers = cluster.workers(ListWorkersRequest::default(), None).await?.rows;
    let workers: Vec<_> = workers.into_iter().map(WorkerShown::from).collect();
    bundle.json(
        "cluster/workers.json",
        "workers with their slots of the index and their stores",
        &workers,
    );
    let coordinators = cluster.list_coordinators(ListCoordinatorsRequest {}).await?;
    let coordinators: Vec<_> = coordinators
        .coordinators
        .into_iter()
        .map(CoordinatorShown::from)
        .collect();
    bundle.json("cluster/coordinators.json", "coordinators", &coordinators);
    let policies = cluster.policies(ListPoliciesRequest::default(), None).await?.rows;
    bundle.text("cluster/policies.txt", "policies", &format!("{policies:#?}\n"));
    let limits = cluster.list_limits(ListLimitsRequest {}).await?.limits;
    bundle.text("cluster/limits.txt", "limits of use", &format!("{limits:#?}\n"));
    let mut items = std::collections::BTreeMap::<String, u64>::new();
    let counted = cluster.each_item(ListItemsRequest::default(), |item| {
        *items.entry(item.state).or_insert(0) += 1;
        Go::On
    });
    counted.await?;
    bundle.json("cluster/items.json", "how many items are in which state", &items);
    jobs(app, cluster, args, bundle).await?;
    match cluster.verify_audit(VerifyAuditRequest {}).await {
        Ok(audit) => {
            let audit = json!({
                "whole": audit.whole, "first": audit.first, "last": audit.last,
                "head": hex(&audit.head), "broken": audit.broken,
            });
            bundle.json("cluster/audit.json", "whether the audit trail is whole", &audit);
        }
        // Not every role may.
        Err(error) => bundle.lacks("audit trail", &CliError::from(error).chain()),
    }
    Ok(())
}

/// Jobs that failed last, with why.
async fn jobs(app: &App, cluster: &Cluster, args: &SupportBundleArgs, bundle: &mut Bundle) -> Result<(), CliError> {
    let oldest = app
        .now
        .checked_sub(SignedDuration::from_secs(args.since))
        .unwrap_or(app.now);
    let mut failed = Vec::new();
    let request = ListJobsRequest {
        state: String::from("failed"),
        ..ListJobsRequest::default()
    };
    let listed = cluster.each_job(request, |job| {
        if job.ended.parse::<Timestamp>().is_ok_and(|ended| ended >= oldest) {
            failed.push(job);
        }
        match failed.len() >= FAILED_MAX {
            true => Go::Enough,
            false => Go::On,
        }
    });
    listed.await?;
    let mut explained = Vec::new();
    for job in failed.iter().take(EXPLAINED_MAX) {
        let request = ExplainRequest {
            kind: String::from("job"),
            name: job.id.to_string(),
        };
        match cluster.explain(request).await {
            Ok(answer) => explained.push(json!({"job": job.id, "what": answer.what, "because": answer.because})),
            Err(error) => explained.push(json!({"job": job.id, "what": null, "because": [error.to_string()]})),
        }
    }
    let failed: Vec<_> = failed.into_iter().map(JobShown::from).collect();
    bundle.json(
        "cluster/jobs-failed.json",
        "jobs that failed last, with their attempts",
        &failed,
    );
    bundle.json(
        "cluster/jobs-explained.json",
        "what tresor explain says of them",
        &explained,
    );
    Ok(())
}
