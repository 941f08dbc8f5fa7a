//! Which host is meant where nobody named one: this one, if a worker runs on it.

use std::path::{Path, PathBuf};

use tresor_proto::v1::ListWorkersRequest;
use tresor_worker::home::host_name;

use super::disks::NamedDisk;
use super::places::{Placed, check_absolute};
use crate::cluster::Cluster;
use crate::error::{CliError, Doing as _};

/// This host by the name of the worker that runs on it.
///
/// # Errors
/// [`CliError::Usage`] if none does.
async fn this_host(cluster: &Cluster) -> Result<String, CliError> {
    let workers = cluster
        .workers(ListWorkersRequest::default(), None)
        .await
        .doing(|| String::from("could not find out which hosts have workers"))?;
    // The one worker of a node on this machine is here, whatever the machine is called today.
    if cluster.is_of_home()
        && let [worker] = &workers.rows[..]
    {
        return Ok(worker.name.clone());
    }
    let host = host_name();
    if let Some(worker) = workers.rows.into_iter().find(|worker| worker.host == host) {
        return Ok(worker.name);
    }
    Err(CliError::usage_hint(
        format!("no worker of the cluster runs on this host ({host})"),
        "say which host is meant: HOST:PATH, or --worker HOST; tresor worker list has them",
    ))
}

/// The host of these disks and their paths on it.
///
/// # Errors
/// [`CliError::Usage`] when it is not clear.
pub(crate) async fn settle_disks(
    cluster: &Cluster,
    placed: Placed<Vec<NamedDisk>>,
) -> Result<(String, Vec<NamedDisk>), CliError> {
    let mut disks = placed.there;
    if let Some(host) = placed.host {
        for disk in &disks {
            check_absolute(&disk.path)?;
        }
        return Ok((host, disks));
    }
    let host = this_host(cluster).await?;
    for disk in &mut disks {
        disk.path = here(&disk.path);
    }
    Ok((host, disks))
}

/// The host of a path and the path on it.
///
/// # Errors
/// [`CliError::Usage`] when it is not clear.
pub(crate) async fn settle_path(cluster: &Cluster, placed: Placed<String>) -> Result<(String, PathBuf), CliError> {
    let path = PathBuf::from(placed.there);
    match placed.host {
        Some(host) => {
            check_absolute(&path)?;
            Ok((host, path))
        }
        None => Ok((this_host(cluster).await?, here(&path))),
    }
}

/// A path of this host as its worker understands it, which runs elsewhere in the tree.
fn here(path: &Path) -> PathBuf {
    if path.to_string_lossy().contains("://") {
        return path.to_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
