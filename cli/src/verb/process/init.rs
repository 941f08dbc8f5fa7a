//! `tresor cluster init`.

use serde::Serialize;
use tresor_coordinator::process::{Folder, Founding, found};
use tresor_proto::ids::hex;
use tresor_worker::home::host_name;

use super::failed;
use crate::app::App;
use crate::args::ClusterInitArgs;
use crate::error::CliError;
use crate::screen::Answer;

#[derive(Serialize)]
struct FoundedShown {
    cluster: String,
    cluster_id: String,
    coordinator: String,
    address: String,
    ca_fingerprint: String,
    token: String,
}

pub(crate) async fn run(app: &App, args: ClusterInitArgs) -> Result<Answer, CliError> {
    let data = args.data.unwrap_or_else(|| app.settings.home.value.join("coordinator"));
    let name = args.coordinator.unwrap_or_else(host_name);
    let founding = Founding {
        cluster: args.name.clone(),
        name: name.clone(),
        address: args.address.clone(),
        wants_admin: true,
    };
    let founded = Box::pin(found(&Folder::new(&data), founding))
        .await
        .map_err(|error| failed("could not found the cluster", error))?;
    let token = founded
        .admin
        .map(|token| token.reveal().to_string())
        .unwrap_or_default();
    let shown = FoundedShown {
        cluster: args.name,
        cluster_id: hex(&founded.cluster),
        coordinator: name,
        address: args.address,
        ca_fingerprint: founded.fingerprint.to_string(),
        token,
    };
    Ok(app.screen.answer(&shown, || {
        format!(
            "cluster {} is founded\n\
             authority   {}\n\
             token       {}\n\
             The token is the first administrator's, and is shown this once. Next:\n\
             \u{20} tresor coordinator start\n\
             \u{20} tresor login {} --ca-fingerprint {}",
            shown.cluster, shown.ca_fingerprint, shown.token, shown.address, shown.ca_fingerprint
        )
    }))
}
