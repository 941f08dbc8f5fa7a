//! `tresor vault verify`.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tresor_proto::v1;
use tresor_storage::Kind;
use tresor_storage::ids::{PackId, Writer, hex};
use tresor_storage::vault::create::open_header;
use tresor_storage::verify::{self, Finding, Level, Options, Progress, Report, Scope, Target};
use tresor_worker::home::{Home, Stores as _, open_for_writing_at};

use crate::app::App;
use crate::args::VaultVerifyArgs;
use crate::cluster::ClusterError;
use crate::embedded::Place;
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::human;
use crate::screen::Answer;

/// Findings that are named to people; `--json` has more.
const FINDINGS_SHOWN: usize = 50;

#[derive(Serialize)]
struct FindingShown {
    kind: String,
    object: String,
    what: String,
    points: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct VerifyShown {
    vault: String,
    level: String,
    /// Objects that were looked at.
    objects: u64,
    /// Bytes of objects read whole.
    bytes: u64,
    frames: u64,
    pieces: u64,
    disks: u64,
    chunks: u64,
    findings: Vec<FindingShown>,
    findings_more: u64,
    /// Every point that a finding harms.
    points_harmed: Vec<String>,
    /// Whether every finding names all points that it harms.
    points_known: bool,
    notes: Vec<String>,
    /// The node's job, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<u64>,
    elapsed_ms: u64,
}

impl VerifyShown {
    /// What a job found.
    pub(super) fn of_job(vault: String, job: u64, report: v1::VerifyReport, elapsed_ms: u64) -> Self {
        let finding = |finding: v1::FindingReport| FindingShown {
            kind: finding.kind,
            object: finding.object,
            what: finding.what,
            points: finding.points.iter().map(|point| hex(point)).collect(),
        };
        Self {
            vault,
            level: report.level,
            objects: report.objects,
            bytes: report.bytes,
            frames: report.frames,
            pieces: report.pieces,
            disks: report.disks,
            chunks: report.chunks,
            findings: report.findings.into_iter().map(finding).collect(),
            findings_more: report.findings_more,
            points_harmed: report.points_harmed.iter().map(|point| hex(point)).collect(),
            points_known: report.points_known,
            notes: report.notes,
            job: Some(job),
            elapsed_ms,
        }
    }
}

/// What is verified.
struct Subject {
    name: String,
    target: Target,
    options: Options,
}

/// Verifies a vault.
pub(super) async fn run(app: &App, args: &VaultVerifyArgs) -> Result<Answer, CliError> {
    let begun = Instant::now();
    app.refuse_detach(&args.detach)?;
    if args.point.is_some() {
        return Err(CliError::from(ClusterError::NoneChosen {
            verb: "vault verify --point",
        }));
    }
    let level = Level::from(args.level);
    let scope = args
        .pack
        .as_deref()
        .map_or(Ok(Scope::Vault), |text| parse_pack(text).map(Scope::Pack))?;
    let subject = open(app, args.name.as_deref(), level, scope).await?;

    let (_signals, cancel) = app.signals()?;
    let progress = Arc::new(Progress::default());
    let watch = app.screen.watch_verify(&subject.name, Arc::clone(&progress));
    let running = verify::run(&subject.target, level, &subject.options, &progress);
    let report = tokio::select! {
        report = Box::pin(running) => report,
        () = stop(&cancel, &progress) => return Err(CliError::Interrupted),
    };
    drop(watch);
    let report = report.doing(|| format!("could not verify vault {}", subject.name))?;
    if !report.is_complete {
        return Err(CliError::Interrupted);
    }
    tell_index(app, &subject.name, &report).await;
    let shown = shown(subject.name, &report, begun);
    let answer = app.screen.answer(&shown, || text(&shown));
    Ok(if report.has_damage() {
        answer.with_code(Code::Damage)
    } else if report.has_unsupported() {
        answer.with_code(Code::Failed)
    } else {
        answer
    })
}

async fn stop(cancel: &CancellationToken, progress: &Progress) {
    cancel.cancelled().await;
    progress.stop();
}

/// A pack as messages name it.
fn parse_pack(text: &str) -> Result<PackId, CliError> {
    let parse = || {
        let (writer, seq) = text.trim_start_matches("packs/").rsplit_once('/')?;
        // An object's name has two digits in front of the writer, which follow from it.
        let writer = writer.rsplit_once('/').map_or(writer, |(_, writer)| writer);
        let writer: Writer = writer.parse().ok()?;
        let seq = if seq.len() == 8 {
            u32::from_str_radix(seq, 16).ok()
        } else {
            None
        }?;
        Some(PackId { writer, seq })
    };
    parse().ok_or_else(|| {
        CliError::usage_hint(
            format!("{text:?} is no pack"),
            "a pack is named WRITER/SEQ, as findings and errors name it",
        )
    })
}

/// Opens what is to be verified: with its keys, or without them where there are none and the level needs none.
async fn open(app: &App, name: Option<&str>, level: Level, scope: Scope) -> Result<Subject, CliError> {
    let error = match app.open_for_reading("vault verify", name).await {
        Ok(vault) => {
            let expected = match scope {
                Scope::Vault => {
                    let points = app.points(&vault).await?;
                    points
                        .points
                        .iter()
                        .map(|point| (point.manifest.item, point.manifest.point))
                        .collect()
                }
                _ => Vec::new(),
            };
            let target = Target::opened(Arc::clone(&vault.vault), None);
            return Ok(Subject {
                name: vault.name,
                target,
                options: Options {
                    scope,
                    expected,
                    ..Options::default()
                },
            });
        }
        Err(error) => error,
    };
    let no_key = matches!(error.failure(), crate::exit::Failure::Vault(Kind::Denied));
    if !no_key || level.needs_keys() || app.has_explicit_key() {
        return Err(error);
    }
    let (name, url) = match app.store() {
        Some(url) => (url.to_owned(), url.to_owned()),
        None => {
            let home = app.home("vault verify")?;
            let entry = home.vault(&app.vault_name(&home, name)?)?;
            (entry.name, entry.url)
        }
    };
    let store = app.stores.open(&url, false)?;
    // Also for an error of the store that only looks like a missing key: then this fails the same way.
    let (header, _) = open_header(store.backend.as_ref(), &store.url).await?;
    app.screen
        .note("no key: findings cannot name the recovery points that they harm");
    let target = Target::keyless(store.backend, header.vault);
    Ok(Subject {
        name,
        target,
        options: Options {
            scope,
            ..Options::default()
        },
    })
}

/// Tells the index what is lost, so that the next backup stores it again. That is the writer's: where this home is not, the next rebuild or verify of
/// its home tells it.
async fn tell_index(app: &App, name: &str, report: &Report) {
    if report.marks.is_empty() || app.store().is_some() {
        return;
    }
    if app.node_of_home().is_some() {
        // The index is its worker's.
        app.screen.note(&format!(
            "tresor vault verify {name} has the node's next backup store again what is lost"
        ));
        return;
    }
    let told = async {
        let home = app.home("vault verify")?;
        let place = Place::of(home.root());
        // The index that the next backup asks is the one of the node's worker, which does not run as long as this process has the node's lock.
        let indexes = is_of_node(&home, &place, name)?.then(|| place.indexes());
        let _node = match &indexes {
            Some(_) => Some(place.take("vault verify")?),
            None => None,
        };
        let vault = match &indexes {
            Some(indexes) => {
                let opening = open_for_writing_at(&home, name, indexes, &app.secrets, &app.stores);
                Box::pin(opening).await?
            }
            None => app.open_for_writing(&home, name).await?,
        };
        report
            .marks
            .apply(vault.index.as_ref())
            .await
            .map_err(tresor_storage::Error::from)?;
        Ok::<_, CliError>(())
    };
    match told.await {
        Ok(()) => app
            .screen
            .note("the next backup stores again what it still finds on its disks of what is lost"),
        Err(error) => app.screen.say(&format!(
            "warning: the index could not be told what is lost: {}",
            error.chain()
        )),
    }
}

/// Whether the node's worker has an index of the vault.
fn is_of_node(home: &Home, place: &Place, name: &str) -> Result<bool, CliError> {
    let id = home.vault(name)?.id.to_string();
    Ok(place.indexes().join(id).is_dir())
}

fn shown(vault: String, report: &Report, begun: Instant) -> VerifyShown {
    let checked = report.checked;
    let finding = |finding: &Finding| FindingShown {
        kind: finding.kind.word().to_owned(),
        object: finding.object.clone(),
        what: finding.what.clone(),
        points: finding.harms.iter().map(ToString::to_string).collect(),
    };
    VerifyShown {
        vault,
        level: report.level.name().to_owned(),
        objects: checked.packs + checked.small,
        bytes: checked.bytes,
        frames: checked.frames,
        pieces: checked.pieces,
        disks: checked.disks,
        chunks: checked.chunks,
        findings: report.findings.iter().map(finding).collect(),
        findings_more: report.findings_more,
        points_harmed: report.harmed().iter().map(ToString::to_string).collect(),
        points_known: report.harms_known,
        notes: report.notes.clone(),
        job: None,
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

pub(super) fn text(shown: &VerifyShown) -> String {
    let mut text = String::new();
    for finding in shown.findings.iter().take(FINDINGS_SHOWN) {
        text.push_str(&format!(
            "{}: {}: {}\n",
            finding.kind,
            finding.object,
            human::plain(&finding.what)
        ));
        for point in &finding.points {
            text.push_str(&format!("  harms point {point}\n"));
        }
    }
    let more = (shown.findings.len() as u64 + shown.findings_more).saturating_sub(FINDINGS_SHOWN as u64);
    if more > 0 {
        text.push_str(&format!(
            "and {} more findings; --json names more\n",
            human::count(more)
        ));
    }
    for note in &shown.notes {
        text.push_str(&format!("note: {}\n", human::plain(note)));
    }
    let result = match shown.findings.len() as u64 + shown.findings_more {
        0 => String::from("nothing is wrong"),
        count => format!(
            "{} findings, {} recovery points harmed",
            human::count(count),
            shown.points_harmed.len()
        ),
    };
    text.push_str(&format!(
        "vault {} at level {}: {result}; {} objects looked at, {} read, in {}",
        shown.vault,
        shown.level,
        human::count(shown.objects),
        human::size(shown.bytes),
        human::elapsed(shown.elapsed_ms)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tresor_storage::ids::{ClusterId, PartId, SessionId};
    use tresor_storage::vault::names;

    #[test]
    fn a_pack_is_understood_as_messages_and_as_findings_name_it() {
        let pack = PackId {
            writer: Writer {
                cluster: ClusterId(1),
                session: SessionId(2),
                part: PartId(3),
            },
            seq: 0xabc,
        };
        for text in [pack.to_string(), names::pack(pack)] {
            assert_eq!(parse_pack(&text).ok(), Some(pack), "{text}");
        }
        for text in ["", "x", "1-2-3/0", "packs/"] {
            assert!(parse_pack(text).is_err(), "{text}");
        }
    }
}
