//! `tresor worker endpoints`: what a worker has to reach.

use serde::Serialize;
use tresor_proto::v1::{ListCoordinatorsRequest, ListVaultsRequest, ListWorkersRequest};

use crate::app::App;
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;

/// Where something is.
#[derive(Debug, PartialEq, Serialize)]
struct Endpoint {
    name: String,
    address: String,
}

#[derive(Debug, Serialize)]
struct Store {
    vault: String,
    url: String,
    /// Of the store's provider, where the URL alone says it; workers may have an endpoint of their own in their settings.
    address: String,
}

#[derive(Debug, Serialize)]
struct Endpoints {
    coordinators: Vec<Endpoint>,
    workers: Vec<Endpoint>,
    stores: Vec<Store>,
}

/// Where a store of this kind is unless a worker's settings say otherwise; none for what lies on the worker's own machine.
fn address_of(url: &str) -> Option<&'static str> {
    let (scheme, _) = url.split_once("://")?;
    match scheme {
        "s3" => Some("*.amazonaws.com:443"),
        "gs" => Some("storage.googleapis.com:443"),
        "az" | "azure" | "abfs" | "abfss" => Some("*.blob.core.windows.net:443"),
        _ => None,
    }
}

/// Lists them, of a worker or of any.
pub(super) async fn run(app: &App, name: Option<&str>) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("worker endpoints")?;
    let doing = || String::from("could not find out what workers have to reach");
    let coordinators = cluster
        .list_coordinators(ListCoordinatorsRequest {})
        .await
        .doing(doing)?;
    let workers = cluster
        .workers(ListWorkersRequest::default(), None)
        .await
        .doing(doing)?
        .rows;
    let vaults = cluster
        .vaults(ListVaultsRequest::default(), None)
        .await
        .doing(doing)?
        .rows;
    let reaches = match name {
        Some(name) => {
            let own = workers.iter().find(|worker| worker.name == name);
            own.map(|own| own.stores.clone()).ok_or_else(|| {
                CliError::usage_hint(
                    format!("there is no worker {}", human::plain(name)),
                    "tresor worker list",
                )
            })?
        }
        None => Vec::new(),
    };
    let is_reached = |url: &str| reaches.is_empty() || reaches.iter().any(|prefix| url.starts_with(prefix.as_str()));
    let shown = Endpoints {
        coordinators: coordinators
            .coordinators
            .into_iter()
            .map(|coordinator| Endpoint {
                name: coordinator.name,
                address: coordinator.address,
            })
            .collect(),
        workers: workers
            .into_iter()
            .filter(|worker| !worker.serves.is_empty() && Some(worker.name.as_str()) != name)
            .map(|worker| Endpoint {
                name: worker.name,
                address: worker.serves,
            })
            .collect(),
        stores: vaults
            .into_iter()
            .filter(|vault| is_reached(&vault.url))
            .filter_map(|vault| {
                Some(Store {
                    address: address_of(&vault.url)?.to_owned(),
                    url: human::url(&vault.url),
                    vault: vault.name,
                })
            })
            .collect(),
    };
    Ok(app.screen.answer(&shown, || table(&shown)))
}

fn table(shown: &Endpoints) -> String {
    let mut table = Table::new(&["what", "name", "address", ""]);
    for coordinator in &shown.coordinators {
        let cells = ["coordinator", &coordinator.name, &coordinator.address, ""];
        table.row(cells.map(str::to_owned));
    }
    for worker in &shown.workers {
        table.row(["worker", &worker.name, &worker.address, ""].map(str::to_owned));
    }
    for store in &shown.stores {
        let note = format!("{}, or the endpoint in the worker's settings", store.url);
        table.row(["store", &store.vault, &store.address, &note].map(str::to_owned));
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_reached_is_listed_by_kind() {
        let endpoint = |name: &str, address: &str| Endpoint {
            name: name.to_owned(),
            address: address.to_owned(),
        };
        let shown = Endpoints {
            coordinators: vec![endpoint("c1", "c1.x.org:7420")],
            workers: vec![endpoint("kvm-7", "kvm-7.x.org:7430")],
            stores: vec![Store {
                vault: String::from("main"),
                url: String::from("s3://backup/main"),
                address: address_of("s3://backup/main").unwrap_or_default().to_owned(),
            }],
        };
        insta::assert_snapshot!(table(&shown), @"
        WHAT         NAME   ADDRESS
        coordinator  c1     c1.x.org:7420
        worker       kvm-7  kvm-7.x.org:7430
        store        main   *.amazonaws.com:443  s3://backup/main, or the endpoint in the worker's settings
        ");
        assert_eq!(address_of("file:///srv/main"), None, "nothing has to be opened for it");
    }
}
