//! `tresor vault take-over`.

use serde::Serialize;
use tresor_storage::keys::{Change, NewSlot, Unlock};
use tresor_worker::home::{self, TakenOver};

use super::key::home_key;
use crate::app::App;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

#[derive(Serialize)]
struct Former {
    host: String,
    since: String,
}

#[derive(Serialize)]
struct Shown {
    vault: String,
    id: String,
    url: String,
    claim: u64,
    from: Option<Former>,
    /// The slot of a key file made for this home.
    slot_made: Option<String>,
}

/// Makes this home the writer of a vault.
pub(super) async fn run(app: &App, name: Option<&str>) -> Result<Answer, CliError> {
    let home = app.home("vault take-over")?;
    let name = app.vault_name(&home, name)?;
    let taking = home::take_over(&home, &name, app.store(), &app.secrets, &app.stores);
    let taken = Box::pin(taking)
        .await
        .doing(|| format!("could not take over vault {name}"))?;
    let slot_made = own_key(app, &home, &taken).await?;
    let shown = Shown {
        vault: taken.entry.name,
        id: taken.entry.id.to_string(),
        url: taken.entry.url,
        claim: taken.claim.number,
        from: taken.from.map(|(host, since)| Former { host, since }),
        slot_made,
    };
    Ok(app.screen.answer(&shown, || text(&shown)))
}

/// Who took a vault over with its recovery kit gets a key file in this home, so that the kit can go back to where it was kept. A passphrase stays one.
async fn own_key(app: &App, home: &home::Home, taken: &TakenOver) -> Result<Option<String>, CliError> {
    if home.has_key(taken.entry.id) {
        return Ok(None);
    }
    let opening = home::open_for_change(home, &taken.entry.name, &app.secrets, &app.stores);
    let vault = Box::pin(opening).await?;
    if !matches!(vault.open.unlock, Unlock::Kit(_)) {
        return Ok(None);
    }
    // The former home's slot stays: its owner may still read, until somebody removes it.
    let slot = format!("home-{}", taken.claim.cluster);
    let change = |unlock| Change::Add(NewSlot::full(&slot, unlock));
    home_key(home, &vault, change)
        .await
        .doing(|| String::from("could not make a key file for this home"))?;
    Ok(Some(slot))
}

fn text(shown: &Shown) -> String {
    let from = match &shown.from {
        Some(Former { host, since }) => format!(", which {} held since {since}", human::plain(host)),
        None => String::new(),
    };
    let key = match &shown.slot_made {
        Some(slot) => format!("\nthis home has a key file of its own now: slot {slot}"),
        None => String::new(),
    };
    format!(
        "this home writes to vault {} at {} now{from}{key}",
        shown.vault, shown.url
    )
}
