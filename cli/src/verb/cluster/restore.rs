//! `tresor cluster restore`, `tresor cluster recover`, `tresor cluster vault-key`: when there is no coordinator to ask.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tresor_coordinator::process::{
    Folder, Inventory, Refounding, Remains, RemainsError, key_of_vault, load_cluster_key, refound,
};
use tresor_proto::ids as coordinators;
use tresor_proto::ids::hex;
use tresor_storage::ids::VaultId;
use tresor_storage::keys::{Key, KeyError, KeyFile, Unlock};
use tresor_worker::control::catalog::read_newest_of_coordinators;
use tresor_worker::home::{self, Place, UnlockSource, host_name};
use zeroize::Zeroizing;

use crate::app::App;
use crate::args::{ClusterRecoverArgs, ClusterRestoreArgs, ClusterVaultKeyArgs, RefoundArgs};
use crate::confirm::confirm;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

#[derive(Serialize)]
struct RefoundedShown {
    cluster: String,
    cluster_id: String,
    from: String,
    vaults: Vec<String>,
    policies: u64,
    items: u64,
    points: u64,
    /// Whether what it begins from is all that there was when that was written.
    is_whole: bool,
    jobs_cancelled: u64,
    coordinator: String,
    address: String,
    ca_fingerprint: String,
    token: String,
}

#[derive(Serialize)]
struct KeyWritten {
    vault_id: String,
    url: String,
    file: String,
}

/// What is to be known before the question is answered.
const CUT: &str = "\nwarning: not all that was known fitted into the catalogues. Points that are left out are found again in the vaults; items, policies and holds \
                   may be missing. A file of `tresor cluster backup` has all of them.";
const RESTORING: &str = "could not restore the cluster";
const RECOVERING: &str = "could not recover the cluster";

fn failed(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Process {
        doing: doing.to_owned(),
        source: Box::new(error),
    }
}

/// What waits for disks, away from what must not wait.
async fn waiting<T, E>(doing: &'static str, read: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, CliError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.map_err(|error| failed(doing, error)),
        Err(error) => Err(failed(doing, error)),
    }
}

/// From a file, or from what is in the vaults.
pub(super) async fn restore(app: &App, args: ClusterRestoreArgs) -> Result<Answer, CliError> {
    let remains = match args.file {
        Some(file) => {
            let key = args.cluster_key;
            waiting(RESTORING, move || Remains::of_backup(&file, &key)).await?
        }
        None => from_stores(app, &args.from_store, &args.vault_key, &args.cluster_key).await?,
    };
    let inventory = remains.inventory();
    app.screen.note(&told(&inventory));
    confirm(
        &app.screen,
        args.yes,
        "Its vaults will be taken from whoever writes to them now. Is the cluster lost?",
    )?;
    begin_again(app, RESTORING, remains, args.refound).await
}

/// From the folder of one coordinator.
pub(super) async fn recover(app: &App, args: ClusterRecoverArgs) -> Result<Answer, CliError> {
    if !args.accept_loss {
        return Err(CliError::usage_hint(
            "changes that other coordinators acknowledged and this one never heard of would be lost for good: \
             this is for a cluster whose majority does not come back",
            "pass --accept-loss",
        ));
    }
    let data = data_of(app, &args.refound);
    if data == args.folder {
        return Err(CliError::usage_hint(
            format!(
                "{} is read and stays as it is: the new coordinator needs a folder of its own",
                data.display()
            ),
            "pass --data DIR",
        ));
    }
    let folder = Folder::new(&args.folder);
    let remains = waiting(RECOVERING, move || Remains::of_folder(&folder)).await?;
    app.screen.note(&told(&remains.inventory()));
    begin_again(app, RECOVERING, remains, args.refound).await
}

fn told(inventory: &Inventory) -> String {
    format!(
        "{}: vaults {}; policies {}, items {}, points {}",
        human::plain(&inventory.from),
        human::plain(&inventory.vaults.join(", ")),
        human::count(inventory.policies),
        human::count(inventory.items),
        human::count(inventory.points),
    ) + if inventory.is_whole { "" } else { CUT }
}

fn data_of(app: &App, args: &RefoundArgs) -> PathBuf {
    let default = || app.settings.home.value.join("coordinator");
    args.data.clone().unwrap_or_else(default)
}

async fn begin_again(app: &App, doing: &'static str, remains: Remains, args: RefoundArgs) -> Result<Answer, CliError> {
    let data = data_of(app, &args);
    let inventory = remains.inventory();
    let name = args.coordinator.unwrap_or_else(host_name);
    let refounding = Refounding {
        cluster: args.name,
        name: name.clone(),
        address: args.address.clone(),
    };
    let folder = Folder::new(&data);
    let founded = waiting(doing, move || refound(&folder, remains, refounding)).await?;
    let shown = RefoundedShown {
        cluster: founded.name,
        cluster_id: hex(&founded.cluster),
        from: inventory.from,
        vaults: inventory.vaults,
        policies: inventory.policies,
        items: inventory.items,
        points: inventory.points,
        is_whole: inventory.is_whole,
        jobs_cancelled: founded.jobs,
        coordinator: name,
        address: args.address,
        ca_fingerprint: founded.fingerprint.to_string(),
        token: founded.admin.reveal().to_string(),
    };
    Ok(app.screen.answer(&shown, || text(&shown, &data)))
}

fn text(shown: &RefoundedShown, data: &Path) -> String {
    format!(
        "cluster {} is founded again, as another one: every node joins anew, every token has ended\n\
         authority   {}\n\
         token       {}\n\
         The token is an administrator's, and is shown this once. Next:\n\
         \u{20} tresor coordinator start --data {}\n\
         \u{20} tresor login {} --ca-fingerprint {}\n\
         \u{20} tresor cluster join-token create --role worker --uses N\n\
         \u{20} tresor worker start --join {} --token-file FILE, on every worker\n\
         Workers claim the vaults ({}) and find what is newer in them. When you have looked at it: tresor cluster confirm-clock",
        human::plain(&shown.cluster),
        shown.ca_fingerprint,
        shown.token,
        data.display(),
        shown.address,
        shown.ca_fingerprint,
        shown.address,
        human::plain(&shown.vaults.join(", ")),
    )
}

/// Opens a vault with the key file that was given for it, else with the key that the cluster made it with.
struct ClusterKeys<'a> {
    cluster_key: &'a Path,
    files: Vec<KeyFile>,
}

impl UnlockSource for ClusterKeys<'_> {
    fn explicit(&self, vault: VaultId) -> Result<Option<Unlock>, KeyError> {
        if let Some(file) = self.files.iter().find(|file| file.vault == vault) {
            return Ok(Some(file.unlock()));
        }
        let key = derived(self.cluster_key, vault).map_err(|error| KeyError::None {
            vault: vault.to_string(),
            why: error.chain(),
        })?;
        Ok(Some(Unlock::File(key)))
    }

    fn passphrase(&self, _: &str) -> Result<Option<Zeroizing<String>>, KeyError> {
        Ok(None)
    }
}

fn derived(cluster_key: &Path, vault: VaultId) -> Result<Key, CliError> {
    let key = key_of_vault(cluster_key, coordinators::VaultId(vault.0))
        .map_err(|error| failed("could not read the cluster key", error))?;
    Ok(Key::from_bytes(*key))
}

/// What the cluster left in its vaults.
async fn from_stores(
    app: &App,
    urls: &[String],
    key_files: &[PathBuf],
    cluster_key: &Path,
) -> Result<Remains, CliError> {
    let mut files = Vec::with_capacity(key_files.len());
    for path in key_files {
        files.push(KeyFile::load(path, None)?);
    }
    let key = load_cluster_key(cluster_key).map_err(|error| failed(RESTORING, error))?;
    let source = ClusterKeys { cluster_key, files };
    let mut catalogues = Vec::with_capacity(urls.len());
    for url in urls {
        let doing = || format!("could not read what the cluster left in {}", human::url(url));
        let opening = home::open_for_reading(None, Place::Url(url), &source, &app.stores);
        let vault = Box::pin(opening).await.doing(doing)?;
        match read_newest_of_coordinators(&vault.vault).await.doing(doing)? {
            Some((_, state)) => catalogues.push(state),
            None => return Err(failed(RESTORING, RemainsError::NoCatalogue)).doing(doing),
        }
    }
    waiting(RESTORING, move || Remains::of_catalogues(&catalogues, key)).await
}

/// Writes the key file of one vault.
pub(super) async fn vault_key(app: &App, args: &ClusterVaultKeyArgs) -> Result<Answer, CliError> {
    let url = app
        .store()
        .ok_or_else(|| CliError::usage_hint("which vault's key is wanted?", "pass --store URL"))?;
    let source = ClusterKeys {
        cluster_key: &args.cluster_key,
        files: Vec::new(),
    };
    let opening = home::open_for_reading(None, Place::Url(url), &source, &app.stores);
    // That it opens the vault is known before anything is written.
    let vault = Box::pin(opening)
        .await
        .doing(|| format!("could not open the vault at {} with the cluster key", human::url(url)))?;
    let id = vault.header.vault;
    KeyFile::create(&args.file, id, &derived(&args.cluster_key, id)?)?;
    let shown = KeyWritten {
        vault_id: id.to_string(),
        url: human::url(&vault.url),
        file: args.file.display().to_string(),
    };
    Ok(app.screen.answer(&shown, || {
        format!(
            "{} opens vault {} at {}: pass it with --key-file",
            human::plain(&shown.file),
            shown.vault_id,
            shown.url
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tresor_coordinator::state::entry::Time;

    #[test]
    fn what_is_left_is_told_without_control_characters_and_with_what_is_not_in_it() {
        let inventory = Inventory {
            name: String::from("test"),
            from: String::from("catalogues of 1 vaults of cluster te\u{1b}[2Jst"),
            time: Time(0),
            vaults: vec![String::from("main")],
            policies: 1,
            items: 2,
            points: 1_003,
            is_whole: true,
        };
        let whole = told(&inventory);
        assert!(!whole.contains('\u{1b}') && whole.contains("points 1 003"), "{whole}");
        assert!(!whole.contains(CUT), "{whole}");
        let cut = told(&Inventory {
            is_whole: false,
            ..inventory
        });
        assert_eq!(cut, whole + CUT);
    }
}
