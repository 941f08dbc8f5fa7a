//! `tresor worker start`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tresor_worker::agent::{self, AgentConfig, Membership};
use tresor_worker::home::host_name;
use tresor_worker::limits::permits_within;
use tresor_worker::slots::{Listen, SlotsConfig, local_address};

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

/// Where this worker answers others: as it is told, or as the coordinators see it.
fn listen(address: Option<&str>, membership: &Membership) -> Result<Listen, CliError> {
    if let Some(address) = address {
        let wrong = || CliError::usage(format!("--serve-address {address}: must be HOST:PORT"));
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if host.is_empty() {
            return Err(wrong());
        }
        return Ok(Listen {
            port: Some(port),
            host: host.to_owned(),
        });
    }
    let seen = membership
        .connector
        .addresses()
        .iter()
        .find_map(|address| local_address(address));
    Ok(Listen {
        port: None,
        host: seen.map_or_else(host_name, |address| address.ip().to_string()),
    })
}

pub(crate) async fn run(app: &App, args: WorkerStartArgs) -> Result<Answer, CliError> {
    let data = args.data.unwrap_or_else(|| app.settings.home.value.join("worker"));
    let labels = labels(&args.labels)?;
    let (_signals, cancel) = app.signals()?;
    let unusable = |error| failed("could not open the worker", error);
    let membership = match (Membership::load(&data).map_err(unusable)?, &args.token_file) {
        (Some(membership), token) => {
            // A start that is repeated with the options of the first one is no second joining, also when its token is gone. A token of another authority is
            // of another cluster: one that was founded again.
            let token = token.as_ref().and_then(|path| read_token(path).ok());
            match token.filter(|token| !membership.is_of(token)) {
                None => membership,
                Some(token) => {
                    let name = args.name.clone().unwrap_or_else(host_name);
                    let joining = Membership::join_another(&data, args.join.clone(), &token, &name);
                    Box::pin(joining)
                        .await
                        .map_err(|error| failed("could not join the other cluster", error))?
                }
            }
        }
        (None, Some(token)) => {
            let name = args.name.clone().unwrap_or_else(host_name);
            let token = read_token(token)?;
            let joining = Membership::join(&data, args.join.clone(), &token, &name);
            Box::pin(joining)
                .await
                .map_err(|error| failed("could not join the cluster", error))?
        }
        (None, None) => {
            return Err(CliError::usage_hint(
                format!("there is no worker in {}", data.display()),
                "tresor worker start --join HOST:PORT --token-file FILE",
            ));
        }
    };
    let client = membership
        .client(&data, args.coordinators)
        .map_err(|error| failed("could not use the addresses of the coordinators", error))?;
    let name = membership.identity.current().name();
    app.screen.note(&format!(
        "worker {} of cluster {} works",
        name.id, membership.cluster_name
    ));
    let listen = match args.no_slots {
        true => None,
        false => Some(listen(args.serve_address.as_deref(), &membership)?),
    };
    let config = AgentConfig {
        jobs: !args.no_jobs,
        region: args.region,
        slots: Some(SlotsConfig {
            identity: membership.identity.clone(),
            listen,
        }),
        labels,
        permits: args
            .memory
            .map_or(args.permits, |memory| permits_within(memory, args.permits)),
        reaches: args.reaches,
        effort: app.settings.effort(),
        ..AgentConfig::new(&data)
    };
    let stores = StoreTables::new(app.settings.stores.clone(), &app.settings.home.value);
    let running = agent::run(config, client, Arc::new(stores), cancel.clone());
    let renewing = membership.keep_renewed(&data, cancel.clone());
    let (result, ()) = tokio::join!(
        async {
            let result = Box::pin(running).await;
            cancel.cancel();
            result
        },
        renewing
    );
    result.map_err(|error| failed("the worker cannot go on", error))?;
    Ok(app
        .screen
        .answer(&Stopped { stopped: true }, || String::from("the worker has stopped")))
}
