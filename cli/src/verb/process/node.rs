//! `tresor node start`.

use std::collections::BTreeSet;

use serde::Serialize;
use tresor_coordinator::node::driver::Upkeep;

use crate::app::App;
use crate::args::NodeStartArgs;
use crate::embedded::{self, Host, Place, Seat, Serving};
use crate::error::CliError;
use crate::screen::Answer;

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

pub(crate) async fn run(app: &App, args: NodeStartArgs) -> Result<Answer, CliError> {
    let home = app.home("node start")?;
    let place = Place::of(home.root());
    let (_signals, cancel) = app.signals()?;
    let lock = tokio::select! {
        lock = embedded::become_node(&place) => lock?,
        () = cancel.cancelled() => return Err(CliError::Interrupted),
    };
    if embedded::found(&place).await? {
        app.screen.note(embedded::MADE);
    }
    place.check()?;
    let serving = Serving {
        upkeep: Upkeep::All,
        works: true,
        http: args.http,
        item_metrics: args.item_metrics,
    };
    let mut host = Box::pin(Host::start(&app.settings, &place, lock, serving, &BTreeSet::new())).await?;
    app.enter(Seat::new(app, &place, "node start", true, host.access()));
    let cluster = app.need_cluster("node start")?;
    // A vault whose store is away is tried again, and the others are served meanwhile.
    let left = tokio::select! {
        left = embedded::adopt_all(app, &home, &cluster) => left,
        () = cancel.cancelled() => Ok(Vec::new()),
    };
    let left = left.unwrap_or_else(|error| {
        app.screen.say(&format!("warning: {}", error.chain()));
        Vec::new()
    });
    app.screen
        .note(&format!("the node of home {} works", home.root().display()));
    let ended = tokio::select! {
        error = host.ended() => Some(error),
        () = cancel.cancelled() => None,
        () = embedded::keep_adopting(app, &home, &cluster, left) => None,
    };
    if let Some(error) = ended {
        return Err(error);
    }
    host.leave(&app.screen, true).await?;
    Ok(app
        .screen
        .answer(&Stopped { stopped: true }, || String::from("the node has stopped")))
}
