//! `tresor vault list`: what the home knows, without asking any store.

use serde::Serialize;

use crate::app::App;
use crate::error::CliError;
use crate::human::Table;
use crate::screen::Answer;

#[derive(Serialize)]
struct VaultListed {
    vault: String,
    id: String,
    url: String,
    added_at: String,
    key_file: bool,
}

#[derive(Serialize)]
struct Vaults {
    vaults: Vec<VaultListed>,
}

/// Lists the vaults of the home.
pub(super) fn run(app: &App) -> Result<Answer, CliError> {
    let home = app.home("vault list")?;
    let vaults = home.vaults()?.into_iter().map(|entry| VaultListed {
        key_file: home.has_key(entry.id),
        vault: entry.name,
        id: entry.id.to_string(),
        url: entry.url,
        added_at: entry.added_at,
    });
    let shown = Vaults {
        vaults: vaults.collect(),
    };
    Ok(app.screen.answer(&shown, || text(&shown)))
}

fn text(shown: &Vaults) -> String {
    if shown.vaults.is_empty() {
        return String::from("no vaults in this home; the first backup makes one");
    }
    let mut table = Table::new(&["vault", "store", "key", "since"]);
    for vault in &shown.vaults {
        let key = if vault.key_file { "in this home" } else { "elsewhere" };
        table.row([
            vault.vault.clone(),
            vault.url.clone(),
            key.to_owned(),
            vault.added_at.clone(),
        ]);
    }
    table.render()
}
