//! `tresor coordinator start`.

use serde::Serialize;
use tresor_coordinator::process::{Folder, Joining, ServeSettings, StartError, join, serve};
use tresor_worker::home::host_name;

use super::{failed, read_token};
use crate::app::App;
use crate::args::CoordinatorStartArgs;
use crate::error::CliError;
use crate::screen::Answer;

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

pub(crate) async fn run(app: &App, args: CoordinatorStartArgs) -> Result<Answer, CliError> {
    let data = args.data.unwrap_or_else(|| app.settings.home.value.join("coordinator"));
    let folder = Folder::new(&data);
    let (_signals, cancel) = app.signals()?;
    let is_made = folder
        .is_made()
        .map_err(|error| failed("could not open the coordinator", error))?;
    if let (false, [_, ..], Some(token), Some(address)) = (is_made, &args.join[..], &args.token_file, args.address) {
        let joining = Joining {
            addresses: args.join.clone(),
            token: read_token(token)?,
            name: args.name.unwrap_or_else(host_name),
            address,
        };
        let member = Box::pin(join(&folder, joining))
            .await
            .map_err(|error| failed("could not join the cluster", error))?;
        app.screen.note(&format!("joined as coordinator {member}"));
    }
    let settings = ServeSettings {
        listen: Some(args.listen),
        http: Some(args.http),
        zone: args.zone,
        item_metrics: args.item_metrics,
    };
    let screen = app.screen.clone();
    let ready = move |bound: &tresor_coordinator::process::Bound, _: &tresor_coordinator::node::Handle| {
        let at = bound.listen.map(|address| address.to_string()).unwrap_or_default();
        let http = bound.http.map(|address| address.to_string()).unwrap_or_default();
        screen.note(&format!(
            "coordinator {} listens on {at}, for metrics on {http}",
            bound.member
        ));
    };
    Box::pin(serve(&folder, settings, None, ready, cancel))
        .await
        .map_err(|error| match error {
            StartError::Removed => CliError::Removed,
            error => failed("the coordinator cannot go on", error),
        })?;
    Ok(app.screen.answer(&Stopped { stopped: true }, || {
        String::from("the coordinator has stopped")
    }))
}
