//! `tresor worker start`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tresor_coordinator::rpc::http::{self, Watched};
use tresor_worker::agent::{self, AgentConfig, Membership};
use tresor_worker::home::host_name;
use tresor_worker::limits::permits_within;
use tresor_worker::metrics::Metrics;
use tresor_worker::slots::{Listen, SlotsConfig, local_address};

use super::{failed, read_token};
use crate::app::App;
use crate::args::{METRICS_PORT, WorkerStartArgs};
use crate::config::StoreTables;
use crate::error::CliError;
use crate::screen::Answer;

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

/// A worker as machines that watch see it.
struct Watching(Arc<Metrics>);

impl Watched for Watching {
    fn is_alive(&self) -> Result<(), String> {
        self.0.is_alive()
    }

    fn is_ready(&self) -> BoxFuture<'_, Result<(), String>> {
        std::future::ready(self.0.is_ready()).boxed()
    }

    fn metrics(&self) -> BoxFuture<'_, Result<String, String>> {
        std::future::ready(Ok(self.0.text())).boxed()
    }
}

/// Where its metrics are: as it is told, or on the usual port of this host, unless another worker has that.
async fn listen_for_metrics(address: Option<&str>) -> Result<TcpListener, CliError> {
    let cannot = |at: &str| {
        let doing = format!("could not listen on {at}");
        move |error: std::io::Error| failed(&doing, error)
    };
    if let Some(address) = address {
        return TcpListener::bind(address).await.map_err(cannot(address));
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, METRICS_PORT)).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(cannot("a free port of this host")),
        bound => bound.map_err(cannot(&format!("port {METRICS_PORT} of this host"))),
    }
}

/// Serves the pages of a worker, where it is to have some, until `stop`.
async fn watched(listener: Option<TcpListener>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let Some(listener) = listener else { return };
    // A scraper that keeps its connection open holds up no end.
    let served = http::serve(listener, Arc::new(Watching(metrics)), stop.clone(), stop);
    if let Err(error) = served.await {
        tracing::error!(%error, "metrics are not served any more");
    }
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
    let pages = match args.no_metrics {
        true => None,
        false => Some(listen_for_metrics(args.metrics_address.as_deref()).await?),
    };
    if let Some(address) = pages.as_ref().and_then(|pages| pages.local_addr().ok()) {
        app.screen.note(&format!("metrics are on {address}"));
    }
    let metrics = Arc::new(Metrics::default());
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
        metrics: Arc::clone(&metrics),
        ..AgentConfig::new(&data)
    };
    let stores = StoreTables::new(app.settings.stores.clone(), &app.settings.home.value);
    let running = agent::run(config, client, Arc::new(stores), cancel.clone());
    let renewing = membership.keep_renewed(&data, cancel.clone());
    let (result, (), ()) = tokio::join!(
        async {
            let result = Box::pin(running).await;
            cancel.cancel();
            result
        },
        renewing,
        watched(pages, metrics, cancel.clone())
    );
    result.map_err(|error| failed("the worker cannot go on", error))?;
    Ok(app
        .screen
        .answer(&Stopped { stopped: true }, || String::from("the worker has stopped")))
}
