//! `tresor vault recovery-kit`.

use serde::Serialize;
use tresor_storage::keys::{Change, Key, NewSlot, RecoveryKit, SlotKind, create_secret};
use tresor_worker::home::now;

use super::key::change;
use crate::app::App;
use crate::args::VaultKitArgs;
use crate::error::{CliError, Doing as _};
use crate::screen::Answer;

#[derive(Serialize)]
struct Made<'a> {
    vault: &'a str,
    slot: &'a str,
    /// The file, if it was written to one.
    file: Option<String>,
    /// The kit's text, if it was to be printed.
    kit: Option<&'a str>,
}

/// Makes a kit. Its slot is in the vault, read back, before anybody sees the kit.
pub(super) async fn run(app: &App, args: &VaultKitArgs) -> Result<Answer, CliError> {
    if args.out.is_none() && !args.stdout && !app.screen.is_terminal() {
        return Err(CliError::usage_hint(
            "standard output is no terminal, and a recovery kit is a secret",
            "pass --out FILE, or --stdout",
        ));
    }
    if let Some(path) = args.out.as_ref().filter(|path| std::fs::symlink_metadata(path).is_ok()) {
        return Err(CliError::usage(format!("{} exists", path.display())));
    }
    let home = app.home("vault recovery-kit")?;
    let name = app.vault_name(&home, args.name.as_deref())?;
    let vault = app.open_for_change(&home, &name).await?;
    let taken: Vec<_> = vault.open.keys.revision.slots().collect();
    let free = |number: &u32| !taken.iter().any(|slot| slot.name == format!("recovery-kit-{number}"));
    let number = (1..)
        .find(free)
        .expect("a vault has fewer slots than there are numbers");
    let slot = format!("recovery-kit-{number}");
    let secret = Key::random();
    let mut stores: Vec<String> = vault.open.header.stores.iter().map(|store| store.url.clone()).collect();
    if !stores.contains(&vault.open.url) {
        stores.insert(0, vault.open.url.clone());
    }
    let kit = RecoveryKit {
        vault: vault.open.vault.id,
        vault_name: name.clone(),
        slot: slot.clone(),
        header_hash: Some(vault.open.header_hash),
        stores,
        made_at: now(),
        secret,
    };
    let unlock = kit.unlock();
    let opened = change(&vault, &unlock, &Change::Add(NewSlot::full(&slot, unlock.clone()))).await;
    let opened = opened.doing(|| format!("could not add key slot {slot}"))?;
    debug_assert!(opened.revision.slots().any(|slot| slot.kind == SlotKind::Kit));
    let text = kit.to_text();
    if let Some(path) = &args.out {
        create_secret(path, &text)
            .doing(|| format!("key slot {slot} was made, but its kit is lost: remove it and try again"))?;
        let shown = Made {
            vault: &name,
            slot: &slot,
            file: Some(path.display().to_string()),
            kit: None,
        };
        return Ok(app.screen.answer(&shown, || {
            format!("wrote the recovery kit of vault {name} to {}", path.display())
        }));
    }
    let shown = Made {
        vault: &name,
        slot: &slot,
        file: None,
        kit: Some(&text),
    };
    Ok(app.screen.answer(&shown, || text.to_string()))
}
