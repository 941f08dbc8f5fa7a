//! `tresor report …`: rows are asked for, `report` folds and draws them.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use tresor_coordinator::state::ENDED_JOBS_MAX;
use tresor_proto::v1::{
    self, ListAuditRequest, ListItemsRequest, ListJobsRequest, ListPointsRequest, ListVaultsRequest, VerifyAuditRequest,
};
use tresor_worker::home::{self, KnownPoint, Place};

use crate::app::App;
use crate::args::{
    AuditReportArgs, CapacityArgs, ProtectionArgs, ReportArgs, ReportFormat, ReportItemArgs, ReportVerb,
};
use crate::cluster::{Cluster, Go};
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::human;
use crate::report::page::Page;
use crate::report::window::Window;
use crate::report::{Head, audit, capacity, csv, html, protection, text};
use crate::screen::Answer;

/// Rows of a table that a person looks through.
const ROWS_FOR_PEOPLE: usize = 50;
/// The word for the state of an item whose schedule nobody here knows.
const NO_SCHEDULE: &str = "no schedule";

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: ReportVerb) -> Result<Answer, CliError> {
    match verb {
        ReportVerb::Protection(args) => Box::pin(report_protection(app, args)).await,
        ReportVerb::Capacity(args) => Box::pin(report_capacity(app, args)).await,
        ReportVerb::Audit(args) => Box::pin(report_audit(app, args)).await,
    }
}

/// What all reports have to know before they ask anybody.
struct Asked {
    window: Window,
    format: ReportFormat,
    head: Head,
}

fn ask(app: &App, name: &'static str, args: &ReportArgs, items: Option<&ReportItemArgs>) -> Result<Asked, CliError> {
    let window = Window::new(args.since.as_deref(), args.until.as_deref(), args.days, app.now);
    let window = window.map_err(CliError::usage)?;
    let vault = Some(app.cluster_vault(None)).filter(|vault| items.is_some() && !vault.is_empty());
    let labels = items.map_or(&[][..], |items| &items.labels);
    Ok(Asked {
        window,
        format: format(app, args)?,
        head: Head {
            report: name,
            made: human::time(app.now),
            source: String::new(),
            window,
            vault,
            policy: items.and_then(|items| items.policy.clone()),
            labels: labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            notes: Vec::new(),
        },
    })
}

fn format(app: &App, args: &ReportArgs) -> Result<ReportFormat, CliError> {
    let ending = args.output.as_deref().and_then(Path::extension);
    let by_ending = match ending.and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => Some(ReportFormat::Html),
        Some("csv") => Some(ReportFormat::Csv),
        Some("json") => Some(ReportFormat::Json),
        _ => None,
    };
    let format = match (args.format, &args.output) {
        (Some(format), None) if app.screen.is_json() && format != ReportFormat::Json => {
            return Err(CliError::usage_hint(
                "--json and another --format do not go together on standard output",
                "--output FILE writes the report there, and --json tells about the file",
            ));
        }
        (Some(format), _) => format,
        (None, None) if app.screen.is_json() => ReportFormat::Json,
        (None, _) => by_ending.unwrap_or(ReportFormat::Table),
    };
    if args.table.is_some() && format != ReportFormat::Csv {
        return Err(CliError::usage("--table goes with --format csv"));
    }
    Ok(format)
}

#[derive(Serialize)]
struct Written<'a> {
    report: &'a str,
    format: &'static str,
    output: PathBuf,
    bytes: u64,
}

/// Draws a report, and writes it where it is wanted.
fn answer(
    app: &App,
    args: &ReportArgs,
    asked: &Asked,
    value: &impl Serialize,
    page: impl FnOnce() -> Page,
) -> Result<Answer, CliError> {
    let by_person = app.screen.is_for_person() && args.output.is_none();
    let most = match args.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if by_person => ROWS_FOR_PEOPLE,
        None => usize::MAX,
    };
    if asked.format == ReportFormat::Json && app.screen.is_json() && args.output.is_none() {
        return Ok(app.screen.answer(value, String::new));
    }
    let (word, drawn) = match asked.format {
        ReportFormat::Json => {
            let json = serde_json::to_string_pretty(value).expect("reports have string keys and no failing parts");
            ("json", json + "\n")
        }
        ReportFormat::Table => ("table", text::draw(&page(), most) + "\n"),
        ReportFormat::Html => ("html", html::draw(&page())),
        ReportFormat::Csv => ("csv", table(&page(), args.table.as_deref())?),
    };
    let Some(output) = &args.output else {
        return Ok(app.screen.answer(value, || drawn));
    };
    write(output, drawn.as_bytes())?;
    let written = Written {
        report: asked.head.report,
        format: word,
        output: output.clone(),
        bytes: drawn.len() as u64,
    };
    Ok(app.screen.answer(&written, || {
        human::plain(&format!("the report is in {}", output.display()))
    }))
}

/// The table of that name; the last one of a page is its main one.
fn table(page: &Page, name: Option<&str>) -> Result<String, CliError> {
    let found = match name {
        None => page.grids().last(),
        Some(name) => page.grids().find(|grid| grid.name == name),
    };
    let names: Vec<&str> = page.grids().map(|grid| grid.name).collect();
    found.map(csv::draw).ok_or_else(|| {
        CliError::usage(format!(
            "the report has no table {:?}: {} are there",
            name.unwrap_or_default(),
            names.join(", ")
        ))
    })
}

/// Writes a file whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |source| CliError::File {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(failed)
}

/// Of which cluster or home a report is.
fn source(app: &App, cluster: Option<&Cluster>) -> String {
    match cluster {
        Some(cluster) if !cluster.is_of_home() => format!("cluster {}", cluster.name()),
        _ => format!("home {}", app.settings.home.value.display()),
    }
}

fn items_request(head: &Head, args: &ReportItemArgs) -> ListItemsRequest {
    ListItemsRequest {
        vault: head.vault.clone().unwrap_or_default(),
        labels: args.labels.iter().cloned().collect(),
        ..ListItemsRequest::default()
    }
}

fn is_under(item: &v1::Item, policy: Option<&str>) -> bool {
    let spec = item.spec.as_ref();
    policy.is_none_or(|policy| spec.is_some_and(|spec| spec.policy == policy))
}

fn jobs_request(head: &Head) -> ListJobsRequest {
    ListJobsRequest {
        vault: head.vault.clone().unwrap_or_default(),
        ..ListJobsRequest::default()
    }
}

/// How far back jobs are remembered, while they are gone through.
#[derive(Default)]
struct Memory {
    ended: usize,
    oldest: Option<String>,
}

impl Memory {
    fn note(&mut self, job: &v1::Job) {
        self.ended += usize::from(!job.ended.is_empty());
        self.oldest = Some(job.created.clone());
    }

    /// What a reader has to know where it ends within the window.
    fn tell(&self, head: &mut Head) {
        let Some(oldest) = &self.oldest else { return };
        let is_short = oldest
            .parse::<Timestamp>()
            .is_ok_and(|oldest| oldest > head.window.since);
        if self.ended >= ENDED_JOBS_MAX && is_short {
            head.notes.push(format!(
                "A cluster remembers {} jobs that ended: those before {oldest} are forgotten, and not counted here.",
                human::count(ENDED_JOBS_MAX as u64)
            ));
        }
    }
}

async fn report_protection(app: &App, args: ProtectionArgs) -> Result<Answer, CliError> {
    let mut asked = ask(app, "protection", &args.report, Some(&args.items))?;
    let cluster = app.cluster()?;
    let mut fold = protection::Fold::new(asked.window, app.now);
    asked.head.source = source(app, cluster.as_ref());
    let doing = || String::from("could not report on protection");
    let mut known = Vec::new();
    if let Some(cluster) = &cluster {
        known = vaults(cluster, &asked.head).await.doing(doing)?;
        let request = items_request(&asked.head, &args.items);
        let policy = args.items.policy.as_deref();
        let items = cluster.each_item(request, |item| {
            if is_under(&item, policy) {
                fold.item(item);
            }
            Go::On
        });
        items.await.doing(doing)?;
        let request = ListPointsRequest {
            vault: asked.head.vault.clone().unwrap_or_default(),
            hidden: true,
            ..ListPointsRequest::default()
        };
        let points = cluster.each_point(request, |point| {
            fold.point(&point);
            Go::On
        });
        points.await.doing(doing)?;
        let mut memory = Memory::default();
        let jobs = cluster.each_job(jobs_request(&asked.head), |job| {
            memory.note(&job);
            fold.job(job);
            Go::On
        });
        jobs.await.doing(doing)?;
        memory.tell(&mut asked.head);
    }
    for vault in of_home(app, cluster.as_ref(), &known, &mut asked.head, &args.items).await? {
        for item in vault.items {
            fold.item(item);
        }
        for point in &vault.points {
            fold.point(&point_of(&vault.name, point));
        }
    }
    let report = fold.finish(asked.head.clone());
    let code = if args.check && !report.is_well() {
        Code::Failed
    } else {
        Code::Done
    };
    Ok(answer(app, &args.report, &asked, &report, || report.page())?.with_code(code))
}

async fn report_capacity(app: &App, args: CapacityArgs) -> Result<Answer, CliError> {
    let mut asked = ask(app, "capacity", &args.report, Some(&args.items))?;
    let cluster = app.cluster()?;
    let some_items = args.items.policy.is_some() || !args.items.labels.is_empty();
    let mut fold = capacity::Fold::new(asked.window, args.capacity, some_items);
    asked.head.source = source(app, cluster.as_ref());
    let doing = || String::from("could not report on capacity");
    let mut known = Vec::new();
    if let Some(cluster) = &cluster {
        known = vaults(cluster, &asked.head).await.doing(doing)?;
        for vault in &known {
            if asked.head.vault.as_ref().is_none_or(|name| *name == vault.name) {
                fold.vault(vault.clone(), true);
            }
        }
        let request = items_request(&asked.head, &args.items);
        let policy = args.items.policy.as_deref();
        let items = cluster.each_item(request, |item| {
            if is_under(&item, policy) {
                fold.item(item);
            }
            Go::On
        });
        items.await.doing(doing)?;
        let mut memory = Memory::default();
        let jobs = cluster.each_job(jobs_request(&asked.head), |job| {
            memory.note(&job);
            fold.job(&job);
            Go::On
        });
        jobs.await.doing(doing)?;
        memory.tell(&mut asked.head);
    }
    for vault in of_home(app, cluster.as_ref(), &known, &mut asked.head, &args.items).await? {
        let row = v1::Vault {
            name: vault.name.clone(),
            url: vault.url,
            items: vault.items.len() as u64,
            points: vault.points.iter().filter(|point| point.removed_at.is_none()).count() as u64,
            ..v1::Vault::default()
        };
        fold.vault(row, false);
        for item in vault.items {
            fold.item(item);
        }
        for point in &vault.points {
            fold.job(&job_of(&vault.name, point));
        }
    }
    let report = fold.finish(asked.head.clone());
    answer(app, &args.report, &asked, &report, || report.page())
}

async fn report_audit(app: &App, args: AuditReportArgs) -> Result<Answer, CliError> {
    let mut asked = ask(app, "audit", &args.report, None)?;
    let cluster = app.need_cluster("report audit")?;
    asked.head.source = source(app, Some(&cluster));
    let doing = || String::from("could not report on the audit trail");
    let most = match args.report.limit {
        Some(0) | None => usize::MAX,
        Some(limit) => limit,
    };
    if let Some(contains) = &args.contains {
        asked
            .head
            .notes
            .push(format!("Only entries with {contains:?} in them."));
    }
    let mut fold = audit::Fold::new(asked.window, most);
    let request = ListAuditRequest {
        contains: args.contains.unwrap_or_default(),
        ..ListAuditRequest::default()
    };
    let entries = cluster.each_audited(request, |entry| match fold.entry(entry) {
        true => Go::On,
        false => Go::Enough,
    });
    entries.await.doing(doing)?;
    let chain = cluster.verify_audit(VerifyAuditRequest {}).await.doing(doing)?;
    let report = fold.finish(chain.into(), asked.head.clone());
    let code = if args.check && !report.is_whole() {
        Code::Damage
    } else {
        Code::Done
    };
    Ok(answer(app, &args.report, &asked, &report, || report.page())?.with_code(code))
}

/// The vaults of a cluster.
async fn vaults(cluster: &Cluster, head: &Head) -> Result<Vec<v1::Vault>, CliError> {
    let vaults = cluster.vaults(ListVaultsRequest::default(), None).await?.rows;
    let is_there = |name: &String| vaults.iter().any(|vault| vault.name == *name);
    if !cluster.is_of_home()
        && let Some(name) = head.vault.as_ref().filter(|name| !is_there(name))
    {
        return Err(CliError::from(tresor_storage::vault::VaultError::NotThere {
            what: "vault",
            name: name.clone(),
        }));
    }
    Ok(vaults)
}

/// A vault of this home by its manifests.
struct OfHome {
    name: String,
    url: String,
    items: Vec<v1::Item>,
    points: Vec<KnownPoint>,
}

/// Vaults that the home's node does not hold, or that have none: those that only a passphrase opens, and those of a home without a node.
async fn of_home(
    app: &App,
    cluster: Option<&Cluster>,
    known: &[v1::Vault],
    head: &mut Head,
    args: &ReportItemArgs,
) -> Result<Vec<OfHome>, CliError> {
    // They have neither policies nor labels.
    let is_filtered = args.policy.is_some() || !args.labels.is_empty();
    if cluster.is_some_and(|cluster| !cluster.is_of_home()) || is_filtered {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    if app.store().is_some() {
        let vault = app.open_for_reading("report", None).await?;
        found.push((vault.name.clone(), String::new(), app.points(&vault).await?.points));
    } else {
        let home = app.home("report")?;
        for entry in home.vaults()? {
            let is_wanted = head.vault.as_ref().is_none_or(|name| *name == entry.name);
            if !is_wanted || known.iter().any(|vault| vault.id == entry.id.to_string()) {
                continue;
            }
            let secrets = app.secrets.without_asking();
            let opening = home::open_for_reading(Some(&home), Place::Named(&entry.name), &secrets, &app.stores);
            let opened = async {
                let vault = Box::pin(opening).await?;
                app.points(&vault).await
            };
            match opened.await {
                Ok(points) => found.push((entry.name, entry.url, points.points)),
                Err(error) => head.notes.push(format!(
                    "Vault {} could not be read and is not counted: {}",
                    entry.name,
                    error.chain()
                )),
            }
        }
    }
    if !found.is_empty() {
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        head.notes.push(format!(
            "Of vault {} no node keeps the state, so only its manifests are counted: backups that failed, and points that are gone, are not known.",
            names.join(", ")
        ));
    }
    Ok(found
        .into_iter()
        .map(|(name, url, points)| OfHome {
            items: items_of(&name, &points),
            name,
            url,
            points,
        })
        .collect())
}

/// The items of points, which are the newest first.
fn items_of(vault: &str, points: &[KnownPoint]) -> Vec<v1::Item> {
    let mut items = std::collections::BTreeMap::new();
    for point in points.iter().filter(|point| point.removed_at.is_none()) {
        let manifest = &point.manifest;
        items.entry(manifest.item).or_insert_with(|| v1::Item {
            id: manifest.item.to_string(),
            spec: Some(v1::ItemSpec {
                name: manifest.item_name.clone(),
                vault: vault.to_owned(),
                ..v1::ItemSpec::default()
            }),
            protected: true,
            state: NO_SCHEDULE.to_owned(),
            newest_point: manifest.point.to_string(),
            newest_time: manifest.time.clone(),
            ..v1::Item::default()
        });
    }
    items.into_values().collect()
}

fn point_of(vault: &str, point: &KnownPoint) -> v1::Point {
    let manifest = &point.manifest;
    v1::Point {
        id: manifest.point.to_string(),
        item: manifest.item.to_string(),
        vault: vault.to_owned(),
        time: manifest.time.clone(),
        consistency: manifest.consistency.name().to_owned(),
        hidden_at: point.removed_at.clone().unwrap_or_default(),
        ..v1::Point::default()
    }
}

/// What a manifest says of the backup that wrote it.
fn job_of(vault: &str, point: &KnownPoint) -> v1::Job {
    let manifest = &point.manifest;
    v1::Job {
        kind: String::from("backup"),
        vault: vault.to_owned(),
        item_id: manifest.item.to_string(),
        state: String::from("done"),
        created: manifest.time.clone(),
        ended: manifest.time.clone(),
        counts: Some(v1::JobCounts {
            bytes_read: manifest.bytes_read,
            bytes_new: manifest.bytes_new,
            bytes_stored: manifest.bytes_stored,
            bytes_logical: manifest.disks.iter().map(|disk| disk.root.size).sum(),
            ..v1::JobCounts::default()
        }),
        ..v1::Job::default()
    }
}
