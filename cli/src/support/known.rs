//! Which names an anonymous bundle must not have: asked of the cluster, of the home and of the machine.

use std::fs;
use std::path::Path;

use tresor_proto::v1::{
    ListCoordinatorsRequest, ListItemsRequest, ListPoliciesRequest, ListVaultsRequest, ListWorkersRequest,
};
use tresor_storage::ids::{hex, random_bytes};
use tresor_worker::home::Home;

use super::names::Names;
use super::write;
use crate::app::App;
use crate::cluster::{Cluster, ClusterError, Go, Kept};
use crate::config::read_small;
use crate::error::{CliError, Doing as _};

/// The key of pseudonyms, in the home.
const NAMES_KEY: &str = "support-names.key";

/// The names to replace: of the cluster, and of this machine. Says whether they are all that a log may have.
pub(crate) async fn known_names(
    app: &App,
    cluster: Option<&Cluster>,
    faults: &mut Vec<(&'static str, String)>,
) -> Result<(Names, bool), CliError> {
    let mut names = Names::new(names_key(&app.settings.home.value)?);
    names.know("host", &tresor_worker::home::host_name());
    for (variable, kind) in [("USER", "user"), ("LOGNAME", "user"), ("HOSTNAME", "host")] {
        names.know(kind, &std::env::var(variable).unwrap_or_default());
    }
    if let Ok(home) = Home::open(&app.settings.home.value, "support-bundle")
        && let Ok(vaults) = home.vaults()
    {
        vaults.iter().for_each(|vault| names.know("vault", &vault.name));
    }
    for login in Kept::names(&app.settings.home.value)? {
        names.know("cluster", &login);
        let kept = Kept::load(&app.settings.home.value, &login).ok().flatten();
        for address in kept.iter().flat_map(|kept| kept.addresses.iter().chain(&kept.given)) {
            let address = address.to_string();
            names.know("host", address.rsplit_once(':').map_or(&address, |(host, _)| host));
        }
    }
    let Some(cluster) = cluster else {
        return Ok((names, false));
    };
    names.know("cluster", cluster.name());
    if let Err(error) = names_of(cluster, &mut names).await {
        faults.push(("names of the cluster", error.to_string()));
        return Ok((names, false));
    }
    Ok((names, true))
}

async fn names_of(cluster: &Cluster, names: &mut Names) -> Result<(), ClusterError> {
    for vault in cluster.vaults(ListVaultsRequest::default(), None).await?.rows {
        names.know("vault", &vault.name);
    }
    for policy in cluster.policies(ListPoliciesRequest::default(), None).await?.rows {
        names.know("policy", &policy.spec.unwrap_or_default().name);
    }
    for worker in cluster.workers(ListWorkersRequest::default(), None).await?.rows {
        names.know("node", &worker.name);
        names.know("host", &worker.host);
        names.know("host", worker.serves.rsplit_once(':').map_or("", |(host, _)| host));
        worker.labels.values().for_each(|value| names.know("label", value));
    }
    let coordinators = cluster.list_coordinators(ListCoordinatorsRequest {}).await?;
    for coordinator in coordinators.coordinators {
        names.know("node", &coordinator.name);
        let host = coordinator.address.rsplit_once(':');
        names.know("host", host.map_or("", |(host, _)| host));
    }
    let items = cluster.each_item(ListItemsRequest::default(), |item| {
        let spec = item.spec.unwrap_or_default();
        names.know("item", &spec.name);
        names.know("host", &spec.host);
        for disk in &spec.disks {
            names.know("disk", &disk.name);
            // Paths are replaced wherever they stand; a file's name is in errors without its folder, too.
            names.know("path", disk.path.rsplit('/').next().unwrap_or_default());
        }
        for value in spec.labels.values().chain(spec.worker_labels.values()) {
            names.know("label", value);
        }
        Go::On
    });
    items.await
}

/// The key of pseudonyms; made at first use.
fn names_key(home: &Path) -> Result<[u8; 32], CliError> {
    let path = home.join(NAMES_KEY);
    let doing = || format!("could not read {}", path.display());
    if !path.exists() {
        fs::create_dir_all(home).map_err(|source| CliError::File {
            doing: "make",
            path: home.to_owned(),
            source,
        })?;
        let key = hex(&random_bytes::<32>());
        return write(&path, key.as_bytes()).map(|()| *blake3::hash(key.as_bytes()).as_bytes());
    }
    let key = read_small(&path).doing(doing)?;
    Ok(*blake3::hash(key.trim().as_bytes()).as_bytes())
}
