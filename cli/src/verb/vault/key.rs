//! `tresor vault key …`.

use serde::Serialize;
use tresor_storage::keys::{Change, Grant, Key, KeyFile, NewSlot, Opened, PassphraseCost, SlotInfo, SlotKind, Unlock};
use tresor_storage::vault::revisions::{change_keys, open_keys};
use tresor_worker::home::{HeldVault, Home};

use crate::app::App;
use crate::args::{KeyAddArgs, KeyRemoveArgs, KeyRotateArgs, KeyVerb};
use crate::error::{CliError, Doing as _};
use crate::human::Table;
use crate::screen::Answer;

/// One slot.
#[derive(Debug, Serialize)]
pub(super) struct SlotShown {
    pub(super) slot: String,
    pub(super) kind: &'static str,
    pub(super) grant: &'static str,
    pub(super) created_at: String,
}

#[derive(Debug, Serialize)]
struct Slots {
    vault: String,
    revision: u32,
    slots: Vec<SlotShown>,
}

impl SlotShown {
    /// All slots of the revision that counts.
    pub(super) fn of(keys: &Opened) -> Vec<Self> {
        let shown = |slot: SlotInfo| Self {
            slot: slot.name,
            kind: slot.kind.word(),
            grant: match slot.grant {
                Grant::Full => "full",
                Grant::Read => "read",
                Grant::Sweep => "sweep",
            },
            created_at: slot.created_at,
        };
        keys.revision.slots().map(shown).collect()
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, verb: KeyVerb) -> Result<Answer, CliError> {
    match verb {
        KeyVerb::List => list(app).await,
        KeyVerb::Add(args) => add(app, &args).await,
        KeyVerb::Rotate(args) => rotate(app, &args).await,
        KeyVerb::Remove(args) => remove(app, &args).await,
    }
}

/// Changes the keys of a vault; `proof` opens a slot of the new revision.
pub(super) async fn change(vault: &HeldVault, proof: &Unlock, change: &Change) -> Result<Opened, CliError> {
    let stamp = vault.key_stamp().await?;
    let open = &vault.open;
    let secrets = (&open.unlock, proof);
    let backend = open.vault.backend.as_ref();
    Ok(Box::pin(change_keys(
        backend,
        open.vault.id,
        &open.header_hash,
        vault.claim,
        &stamp,
        secrets,
        change,
    ))
    .await?)
}

/// Gives the home another key file, by a change that makes its secret a slot's.
///
/// The new file is durable under a name of its own before the vault trusts it, and takes the old one's place after. What a crash leaves in between is gone
/// on with: a file whose secret opens the vault already only has to take its place.
pub(super) async fn home_key(
    home: &Home,
    vault: &HeldVault,
    to: impl FnOnce(Unlock) -> Change,
) -> Result<Opened, CliError> {
    let open = &vault.open;
    let id = open.vault.id;
    let path = home.key_path(id);
    let new = path.with_extension("new");
    if !new.exists() {
        KeyFile::create(&new, id, &Key::random())?;
    }
    let unlock = KeyFile::load_durable(&new, Some(id))?.unlock();
    let opened = match open_keys(open.vault.backend.as_ref(), id, &open.header_hash, &unlock).await {
        Ok(opened) => opened,
        Err(_) => change(vault, &unlock, &to(unlock.clone())).await?,
    };
    KeyFile::replace(&new, &path)?;
    Ok(opened)
}

async fn list(app: &App) -> Result<Answer, CliError> {
    let vault = app.open_for_reading("vault key list", None).await?;
    Ok(answer(app, &vault.name, &vault.keys))
}

async fn add(app: &App, args: &KeyAddArgs) -> Result<Answer, CliError> {
    let slot = &args.slot;
    let home = app.home("vault key add")?;
    let name = app.vault_name(&home, None)?;
    let vault = app.open_for_change(&home, &name).await?;
    if vault.open.keys.revision.slots().any(|there| there.name == *slot) {
        return Err(CliError::usage_hint(
            format!("there is a key slot {slot:?} already"),
            "tresor vault key rotate gives it another secret",
        ));
    }
    let unlock = match &args.new_key_file {
        Some(path) => {
            KeyFile::create(path, vault.open.vault.id, &Key::random())?;
            KeyFile::load_durable(path, Some(vault.open.vault.id))?.unlock()
        }
        None => {
            let what = format!("key slot {slot}");
            Unlock::Passphrase(app.secrets.new_passphrase(args.new_passphrase_file.as_deref(), &what)?)
        }
    };
    let new = NewSlot {
        name: slot.clone(),
        unlock: unlock.clone(),
        grant: args.grant.into(),
        cost: PassphraseCost::default(),
    };
    let changed = change(&vault, &unlock, &Change::Add(new)).await;
    if let (Err(_), Some(path)) = (&changed, &args.new_key_file) {
        app.screen.say(&format!(
            "warning: key file {} was written and may open nothing",
            path.display()
        ));
    }
    Ok(answer(
        app,
        &name,
        &changed.doing(|| format!("could not add key slot {slot}"))?,
    ))
}

async fn rotate(app: &App, args: &KeyRotateArgs) -> Result<Answer, CliError> {
    let home = app.home("vault key rotate")?;
    let name = app.vault_name(&home, None)?;
    let vault = app.open_for_change(&home, &name).await?;
    let keys = &vault.open.keys;
    let slot = args.slot.clone().unwrap_or_else(|| keys.slot.clone());
    let there = keys.revision.slots().find(|there| there.name == slot);
    let there =
        there.ok_or_else(|| CliError::usage_hint(format!("there is no key slot {slot:?}"), "tresor vault key list"))?;
    let compromised = args.compromised;
    let replace = |unlock| Change::Replace {
        slot: slot.clone(),
        unlock,
        cost: PassphraseCost::default(),
        compromised,
    };
    let changed = match there.kind {
        SlotKind::Passphrase => {
            let passphrase = app
                .secrets
                .new_passphrase(args.new_passphrase_file.as_deref(), &format!("key slot {slot}"))?;
            let unlock = Unlock::Passphrase(passphrase);
            change(&vault, &unlock, &replace(unlock.clone())).await
        }
        // Which file is whose cannot be told, but for the one that the vault was opened with, if that is the home's.
        SlotKind::File if slot == keys.slot && home.has_key(vault.open.vault.id) => {
            home_key(&home, &vault, replace).await
        }
        SlotKind::File => {
            return Err(CliError::usage_hint(
                format!("key slot {slot:?} is not that of this home's key file"),
                "add a slot with another key file, then remove this one",
            ));
        }
        SlotKind::Kit => {
            return Err(CliError::usage_hint(
                "a recovery kit on paper cannot be changed",
                "make another with tresor vault recovery-kit, then remove this slot",
            ));
        }
    };
    Ok(answer(
        app,
        &name,
        &changed.doing(|| format!("could not rotate key slot {slot}"))?,
    ))
}

async fn remove(app: &App, args: &KeyRemoveArgs) -> Result<Answer, CliError> {
    let slot = &args.slot;
    let home = app.home("vault key remove")?;
    let name = app.vault_name(&home, None)?;
    let vault = app.open_for_change(&home, &name).await?;
    if vault.open.keys.slot == *slot {
        return Err(CliError::usage_hint(
            format!("key slot {slot:?} is the one that this vault was opened with"),
            "open the vault with another: --key-file, --recovery-kit or --passphrase-file",
        ));
    }
    if !vault.open.keys.revision.slots().any(|there| there.name == *slot) {
        return Err(CliError::usage_hint(
            format!("there is no key slot {slot:?}"),
            "tresor vault key list",
        ));
    }
    let removal = Change::Remove {
        slot: slot.clone(),
        compromised: args.compromised,
    };
    let changed = change(&vault, &vault.open.unlock, &removal).await;
    Ok(answer(
        app,
        &name,
        &changed.doing(|| format!("could not remove key slot {slot}"))?,
    ))
}

fn answer(app: &App, vault: &str, keys: &Opened) -> Answer {
    let shown = Slots {
        vault: vault.to_owned(),
        revision: keys.revision.number(),
        slots: SlotShown::of(keys),
    };
    app.screen.answer(&shown, || {
        let mut table = Table::new(&["slot", "kind", "allows", "made"]);
        for slot in &shown.slots {
            table.row([
                slot.slot.clone(),
                slot.kind.to_owned(),
                slot.grant.to_owned(),
                slot.created_at.clone(),
            ]);
        }
        table.render()
    })
}
