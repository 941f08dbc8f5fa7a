//! `tresor vault remove`.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tresor_storage::backend::Backend;
use tresor_storage::vault::names::{CATALOG, CLUSTER, HEADER, INDEX, KEYS, PACKS, POINTS};
use tresor_worker::home::Home;

use crate::app::App;
use crate::args::VaultRemoveArgs;
use crate::confirm::ask;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

/// Deletes under way at once.
const DELETES_IN_FLIGHT: usize = 16;
/// Objects whose names are held at once.
const BATCH: usize = 10_000;
/// In this order: what makes a point visible goes before what it needs, and the keys last, so that a removal cut anywhere leaves no point that looks
/// whole and is not. The header goes after all of them: as long as it is there the removal can be repeated.
const FOLDERS: [&str; 8] = [POINTS, CATALOG, INDEX, "slots/", PACKS, "dead/", CLUSTER, KEYS];

#[derive(Serialize)]
struct Removed {
    vault: String,
    id: String,
    url: String,
    data_deleted: bool,
    objects_deleted: u64,
}

/// Forgets a vault, and deletes its data if told to.
pub(super) async fn run(app: &App, args: &VaultRemoveArgs) -> Result<Answer, CliError> {
    let name = &args.name;
    app.refuse_store(name)?;
    let home = app.home("vault remove")?;
    let entry = home.vault(name)?;
    let objects_deleted = if args.delete_data {
        confirm(app, args, &entry.url)?;
        delete_data(app, &home, name).await?
    } else {
        0
    };
    let entry = {
        let (home, name) = (home.clone(), name.clone());
        let forgotten = tokio::task::spawn_blocking(move || home.forget_vault(&name)).await;
        forgotten
            .map_err(|_| CliError::Interrupted)?
            .doing(|| format!("could not forget vault {}", entry.name))?
    };
    let shown = Removed {
        vault: entry.name,
        id: entry.id.to_string(),
        url: entry.url,
        data_deleted: args.delete_data,
        objects_deleted,
    };
    Ok(app.screen.answer(&shown, || text(&shown, &home)))
}

/// Asks for the vault's name, unless `--yes` has it.
///
/// # Errors
/// When it is not confirmed.
pub(super) fn confirm(app: &App, args: &VaultRemoveArgs, url: &str) -> Result<(), CliError> {
    let name = &args.name;
    if let Some(yes) = &args.yes {
        if yes == name {
            return Ok(());
        }
        return Err(CliError::usage(format!("--yes says {yes:?}, the vault is {name:?}")));
    }
    if !app.screen.can_ask() {
        return Err(CliError::usage_hint(
            "deleting a vault's data must be confirmed",
            format!("pass --yes {name}"),
        ));
    }
    app.screen.say(&format!(
        "This deletes every recovery point of vault {name} at {url}, for good."
    ));
    let line = ask("Type the vault's name to go on: ")?;
    if line == *name {
        Ok(())
    } else {
        Err(CliError::usage("not confirmed: nothing was deleted"))
    }
}

async fn delete_data(app: &App, home: &Home, name: &str) -> Result<u64, CliError> {
    // Whoever deletes must be allowed to write: he has the keys, and no other home holds the vault.
    let vault = app.open_for_writing(home, name).await?;
    let (_signals, cancel) = app.signals()?;
    let backend = vault.open.vault.backend.as_ref();
    let deleting = async {
        let mut deleted = 0;
        for folder in FOLDERS {
            if folder != KEYS {
                vault
                    .control
                    .check_claim()
                    .await
                    .doing(|| format!("stopped deleting vault {name}"))?;
            }
            deleted += delete_folder(backend, folder)
                .await
                .doing(|| format!("could not delete {folder} of vault {name}"))?;
            // Its own claim is gone with this folder: what follows is opened by nobody.
            if folder == CLUSTER {
                break;
            }
        }
        deleted += delete_folder(backend, KEYS)
            .await
            .doing(|| format!("could not delete the keys of vault {name}"))?;
        backend
            .delete(HEADER)
            .await
            .doing(|| format!("could not delete the header of vault {name}"))?;
        Ok(deleted + 1)
    };
    tokio::select! {
        deleted = deleting => deleted,
        () = cancel.cancelled() => Err(CliError::Interrupted),
    }
}

async fn delete_folder(backend: &dyn Backend, folder: &str) -> Result<u64, tresor_storage::Error> {
    let mut deleted = 0;
    loop {
        // A listing is not read on while what it lists is deleted.
        let batch: Vec<_> = backend.list(folder).take(BATCH).try_collect().await?;
        let deletes = stream::iter(&batch)
            .map(|object| backend.delete(&object.name))
            .buffer_unordered(DELETES_IN_FLIGHT);
        deletes.try_for_each(|()| async { Ok(()) }).await?;
        deleted += batch.len() as u64;
        if batch.len() < BATCH {
            return Ok(deleted);
        }
    }
}

fn text(shown: &Removed, home: &Home) -> String {
    if !shown.data_deleted {
        let again = format!("tresor vault take-over {} --store {}", shown.vault, shown.url);
        return format!(
            "this home has forgotten vault {}; its data and key file stay, and {again} brings it back",
            shown.vault
        );
    }
    format!(
        "vault {} and its {} objects at {} are deleted; its key file, if any, is left below {}",
        shown.vault,
        human::count(shown.objects_deleted),
        shown.url,
        home.root().join("keys").display()
    )
}
