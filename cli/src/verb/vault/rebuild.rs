//! `tresor vault rebuild`.

use std::time::Instant;

use serde::Serialize;
use tresor_storage::index::ChunkIndex as _;
use tresor_storage::index::rebuild::{Finding, Report};
use tresor_worker::home::IndexState;
use tresor_worker::home::open::{open_and_rebuild, open_and_rebuild_at};

use crate::app::App;
use crate::embedded::Place;
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::human;
use crate::screen::Answer;
use crate::verb::left::Left;

/// Findings that are named to people; `--json` has more.
const FINDINGS_SHOWN: usize = 20;

#[derive(Serialize)]
struct FindingShown {
    object: String,
    what: String,
}

/// What a cluster that held the vault left in it.
#[derive(Serialize)]
struct LeftShown {
    cluster: String,
    time: String,
    policies: Vec<String>,
    items: u64,
    points: u64,
    held: u64,
    whole: bool,
}

#[derive(Serialize)]
struct Rebuilt {
    vault: String,
    entries: u64,
    packs: u64,
    segments_read: u64,
    footers_read: u64,
    packs_scanned: u64,
    findings: Vec<FindingShown>,
    findings_total: u64,
    cluster: Option<LeftShown>,
    elapsed_ms: u64,
}

/// Builds the index anew. What cannot be read is named; the exit code is then that of damage.
pub(super) async fn run(app: &App, name: Option<&str>) -> Result<Answer, CliError> {
    let begun = Instant::now();
    let home = app.home("vault rebuild")?;
    let name = app.vault_name(&home, name)?;
    app.refuse_store(&name)?;
    let watch = app.screen.count(&name);
    let mut show = |report: &Report| {
        let one_by_one = report.packs_listed.saturating_sub(report.packs_in_segments);
        let done = report.segments_read + report.footers_read + report.packs_scanned;
        watch.at(done, report.segments_listed + one_by_one);
    };
    let opened = if app.node_of_home().is_some() {
        if !app.is_node() {
            return Err(CliError::usage_hint(
                "the index is the running node's",
                "stop tresor node start, then try again",
            ));
        }
        // No worker of it runs in this process.
        let indexes = Place::of(home.root()).indexes();
        Box::pin(open_and_rebuild_at(
            &home,
            &name,
            &indexes,
            &app.secrets,
            &app.stores,
            &mut show,
        ))
        .await
    } else {
        Box::pin(open_and_rebuild(&home, &name, &app.secrets, &app.stores, &mut show)).await
    };
    drop(watch);
    let vault = opened.doing(|| format!("could not rebuild the index of vault {name}"))?;
    let entries = vault.index.count().await.map_err(tresor_storage::Error::from)?;
    let nothing = Report::default();
    let report = match &vault.index_state {
        IndexState::Rebuilt { report, .. } => report,
        IndexState::Kept => &nothing,
    };
    let finding = |finding: &Finding| FindingShown {
        object: finding.object.clone(),
        what: finding.error.chain(),
    };
    let shown = Rebuilt {
        vault: name,
        entries,
        packs: report.packs_listed,
        segments_read: report.segments_read,
        footers_read: report.footers_read,
        packs_scanned: report.packs_scanned,
        findings: report.findings.iter().map(finding).collect(),
        findings_total: report.findings_total,
        cluster: Left::read(&vault.points.cluster_state).map(|left| LeftShown {
            held: left.held(),
            cluster: left.cluster,
            time: left.time,
            policies: left.policies,
            items: left.items,
            points: left.points,
            whole: left.is_whole,
        }),
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let answer = app.screen.answer(&shown, || text(&shown));
    Ok(if shown.findings_total > 0 {
        answer.with_code(Code::Damage)
    } else {
        answer
    })
}

fn text(shown: &Rebuilt) -> String {
    let mut text = format!(
        "the index of vault {} has {} entries of {} packs, read from {} segments, {} footers and {} packs in {}",
        shown.vault,
        human::count(shown.entries),
        human::count(shown.packs),
        human::count(shown.segments_read),
        human::count(shown.footers_read),
        human::count(shown.packs_scanned),
        human::elapsed(shown.elapsed_ms),
    );
    if let Some(left) = &shown.cluster {
        text.push_str(&format!(
            "\ncluster {} left word of {}: items {}, points {}, held {}, policies {}{}; tresor cluster restore --from-store founds it again",
            human::plain(&left.cluster),
            left.time,
            human::count(left.items),
            human::count(left.points),
            human::count(left.held),
            human::plain(&left.policies.join(", ")),
            if left.whole { "" } else { " (not all of it fitted)" },
        ));
    }
    for finding in shown.findings.iter().take(FINDINGS_SHOWN) {
        text.push_str(&format!("\n{}: {}", finding.object, human::plain(&finding.what)));
    }
    if shown.findings_total > FINDINGS_SHOWN as u64 {
        text.push_str(&format!(
            "\nand {} more",
            human::count(shown.findings_total - FINDINGS_SHOWN as u64)
        ));
    }
    text
}
