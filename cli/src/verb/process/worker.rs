//! `tresor worker start`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tresor_worker::agent::join::{Joining, Member, MemberChannels, join};
use tresor_worker::agent::{self, AgentConfig, Client};
use tresor_worker::home::host_name;

use super::{failed, read_token};
use crate::app::App;
use crate::args::WorkerStartArgs;
use crate::config::StoreTables;
use crate::error::CliError;
use crate::screen::Answer;

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CliError::usage(format!("--label {text}: must be KEY=VALUE"))),
    };
    pairs.iter().map(pair).collect()
}

pub(crate) async fn run(app: &App, args: WorkerStartArgs) -> Result<Answer, CliError> {
    let data = args.data.unwrap_or_else(|| app.settings.home.value.join("worker"));
    let labels = labels(&args.labels)?;
    let (_signals, cancel) = app.signals()?;
    if let ([_, ..], Some(token)) = (&args.join[..], &args.token_file) {
        // A start that is repeated with the options of the first one is no second joining.
        if !data.join("identity").exists() {
            let joining = Joining {
                addresses: args.join.clone(),
                token: read_token(token)?,
                name: args.name.clone().unwrap_or_else(host_name),
            };
            let number = Box::pin(join(&data, joining))
                .await
                .map_err(|error| failed("could not join the cluster", error))?;
            app.screen.note(&format!("joined as worker {number}"));
        }
    }
    let coordinators = (!args.coordinators.is_empty()).then_some(args.coordinators);
    let member = Member::open(&data, coordinators).map_err(|error| failed("could not open the worker", error))?;
    app.screen.note(&format!("worker {} works", member.number()));
    let config = AgentConfig {
        labels,
        permits: args.permits,
        reaches: args.reaches,
        effort: app.settings.effort(),
        ..AgentConfig::new(&data)
    };
    let renewing = tokio::spawn(member.clone().renew(cancel.clone()));
    let stores = StoreTables::new(app.settings.stores.clone(), &app.settings.home.value);
    let running = agent::run(config, Client::new(MemberChannels::new(member)), Arc::new(stores), cancel);
    let result = Box::pin(running).await;
    renewing.abort();
    result.map_err(|error| failed("the worker cannot go on", error))?;
    Ok(app.screen.answer(&Stopped { stopped: true }, || String::from("the worker has stopped")))
}
