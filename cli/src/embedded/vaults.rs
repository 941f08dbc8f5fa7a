//! Vaults of the home become the node's.

use tresor_proto::v1::{CreateVaultRequest, ListVaultsRequest};
use tresor_storage::keys::KeyFile;
use tresor_storage::vault::claim;
use tresor_worker::home::{self, Home, Place, VaultEntry};

use crate::app::App;
use crate::cluster::Cluster;
use crate::config::read_small;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::verb::wait_done;

/// Has the node take over every vault of the home that it does not hold yet, with the points that are in it. Tells of those that it cannot take over,
/// and returns how many there are.
///
/// A vault's name in the home and at the node is the same. One that only a passphrase opens stays the home's: nobody is there to type it at night.
///
/// # Errors
/// By cause; what was adopted until then stays so.
pub(crate) async fn adopt(app: &App, home: &Home, cluster: &Cluster) -> Result<usize, CliError> {
    let listed = cluster.vaults(ListVaultsRequest::default(), None).await;
    let known = listed
        .doing(|| String::from("could not list the vaults of the node"))?
        .rows;
    let mut left = 0;
    for entry in home.vaults()? {
        let id = entry.id.to_string();
        if known.iter().any(|vault| vault.id == id && vault.state == "ready") {
            continue;
        }
        if !home.has_key(entry.id) {
            left += 1;
            app.screen.note(&format!(
                "vault {} stays with this home: only a passphrase opens it, and nobody is there to type it when a schedule runs",
                human::plain(&entry.name)
            ));
            continue;
        }
        adopt_one(app, home, cluster, &entry).await?;
    }
    Ok(left)
}

async fn adopt_one(app: &App, home: &Home, cluster: &Cluster, entry: &VaultEntry) -> Result<(), CliError> {
    let name = human::plain(&entry.name);
    let path = home.key_path(entry.id);
    KeyFile::load(&path, Some(entry.id))?;
    let request = CreateVaultRequest {
        name: entry.name.clone(),
        url: entry.url.clone(),
        take_over: true,
        key_file: read_small(&path)?.as_bytes().to_vec().into(),
        ..Default::default()
    };
    let taking = async {
        let job = cluster.create_vault(request).await?;
        Box::pin(wait_done(app, cluster, job)).await
    };
    taking
        .await
        .doing(|| format!("could not make vault {name} the node's"))?;
    // The home writes under the node's claim from here on: both are of one user on one machine, and take turns by the node's state.
    let opening = home::open_for_reading(Some(home), Place::Named(&entry.name), &app.secrets, &app.stores);
    let vault = Box::pin(opening)
        .await
        .doing(|| format!("could not open vault {name}"))?;
    let held = claim::holder(vault.vault.backend.as_ref(), entry.id)
        .await
        .doing(|| format!("could not read the claims of vault {name}"))?;
    if let Some((listed, _)) = held {
        home::keep_claim(home, entry.id, listed)?;
    }
    app.screen.note(&format!("vault {name} is the node's now"));
    Ok(())
}
