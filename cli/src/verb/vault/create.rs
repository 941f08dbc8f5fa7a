//! `tresor vault create`.

use serde::Serialize;
use tresor_storage::backend::Abilities;
use tresor_worker::home::{self, CreateOptions};

use super::kit_advice;
use crate::app::App;
use crate::args::VaultCreateArgs;
use crate::error::{CliError, Doing as _};
use crate::screen::Answer;

#[derive(Serialize)]
struct Created {
    vault: String,
    id: String,
    url: String,
    profile: String,
    key: &'static str,
    warnings: Vec<&'static str>,
}

/// Makes a vault.
pub(super) async fn run(app: &App, args: &VaultCreateArgs) -> Result<Answer, CliError> {
    let name = &args.name;
    let home = app.home("vault create")?;
    let passphrase = if args.passphrase {
        Some(
            app.secrets
                .new_passphrase(app.secrets.passphrase_file(), &format!("vault {name}"))?,
        )
    } else {
        None
    };
    let options = CreateOptions {
        profile: args.profile.into(),
        region: args.region.clone(),
        key_file: passphrase.is_none(),
        passphrase,
    };
    let making = home::create_vault(&home, name, app.store(), options, &app.stores);
    let made = Box::pin(making)
        .await
        .doing(|| format!("could not make vault {name}"))?;
    let shown = Created {
        vault: made.entry.name,
        id: made.entry.id.to_string(),
        url: made.entry.url,
        profile: made.header.profile,
        key: if args.passphrase { "passphrase" } else { "key file" },
        warnings: warnings(made.abilities),
    };
    for warning in &shown.warnings {
        app.screen.say(&format!("warning: {warning}"));
    }
    app.screen.note(&kit_advice(&shown.vault));
    Ok(app.screen.answer(&shown, || {
        format!("made vault {} at {}, opened by a {}", shown.vault, shown.url, shown.key)
    }))
}

/// What the store cannot do and a vault can do without.
fn warnings(abilities: Abilities) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if !abilities.create_only {
        warnings.push("the store does not refuse to overwrite an object: data is safe by its unique names, but changes of the holder take longer");
    }
    if !abilities.deletes {
        warnings.push("the store does not delete: no space can be freed");
    }
    warnings
}
