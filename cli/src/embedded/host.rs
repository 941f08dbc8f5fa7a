//! Being the node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tresor_coordinator::node::Handle;
use tresor_coordinator::node::driver::Upkeep;
use tresor_coordinator::process::embedded::UnderWay;
use tresor_coordinator::process::{self, Embedding, Founding, ServeSettings, StartError, embedded};
use tresor_coordinator::rpc::agent::KeysHere;
use tresor_proto::ids::VaultId;
use tresor_proto::tls::inside::{Doorway, doorway};
use tresor_proto::tls::local::{self, LocalError};
use tresor_storage::keys::{KeyFile, Unlock};
use tresor_worker::agent::{self, AgentConfig, AgentError, Channels, Client};
use tresor_worker::home::host_name;
use tresor_worker::home::lock::Lock;
use tresor_worker::metrics::Metrics;

use zeroize::Zeroizing;

use super::{Access, Place, failed};
use crate::app::App;
use crate::config::StoreTables;
use crate::error::CliError;
use crate::human;
use crate::signals::Interrupts;

/// The address of a coordinator that nobody reaches.
const NOWHERE: &str = "localhost:1";
/// How often to look whether jobs of guests have ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long a job that waits for nothing may wait for our worker.
const TURN: Duration = Duration::from_secs(2);

/// How the node serves.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// What it begins by itself.
    pub(crate) upkeep: Upkeep,
    /// Whether its worker works.
    pub(crate) works: bool,
    /// Where machines that watch come.
    pub(crate) http: Option<String>,
    /// Whether items have series of their own there.
    pub(crate) item_metrics: bool,
}

/// The node, while this process is it.
pub(crate) struct Host {
    doorway: Doorway,
    began: u64,
    handle: Handle,
    serving: JoinHandle<Result<(), StartError>>,
    stop_serving: CancellationToken,
    working: Option<JoinHandle<Result<(), AgentError>>>,
    stop_working: CancellationToken,
    /// Held until all else has ended.
    _lock: Lock,
}

/// The keys of the home's vaults.
struct KeyFiles(PathBuf);

impl KeysHere for KeyFiles {
    fn vault_key(&self, vault: VaultId) -> Option<Zeroizing<[u8; 32]>> {
        let path = self.0.join(vault.to_string());
        match KeyFile::load(&path, Some(tresor_storage::ids::VaultId(vault.0))).map(|file| file.unlock()) {
            Ok(Unlock::File(key)) => Some(Zeroizing::new(*key.expose())),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%vault, %error, "the home's key file cannot be used; what the log has of the key is");
                None
            }
        }
    }
}

struct Inside {
    doorway: Doorway,
    worker: u64,
}

impl Channels for Inside {
    fn channel(&self) -> Channel {
        self.doorway.worker(self.worker)
    }

    // There is no other coordinator.
    fn skip(&self) {}
}

/// Makes the node's coordinator, if there is none.
pub(crate) async fn found(place: &Place) -> Result<bool, CliError> {
    let folder = place.coordinator();
    let wrong = |error| failed("could not open the node of this home", error);
    if folder.is_made().map_err(wrong)? {
        return Ok(false);
    }
    // Cut short before its identity was written: nobody was told anything of it.
    folder.clear_half_made().map_err(wrong)?;
    place.settle_in()?;
    let name = host_name();
    let founding = Founding {
        cluster: String::from("node"),
        name,
        address: String::from(NOWHERE),
        wants_admin: false,
    };
    Box::pin(process::found(&folder, founding))
        .await
        .map_err(|error| failed("could not make the node of this home", error))?;
    Ok(true)
}

impl Host {
    /// Starts coordinator and worker.
    ///
    /// # Errors
    /// By cause.
    pub(crate) async fn start(app: &App, place: &Place, lock: Lock, how: Serving) -> Result<Self, CliError> {
        let (doorway, inside) = doorway();
        let local = match local::listen(&place.socket()) {
            // Guests of a command that has no worker would wait for nobody: they wait for its end instead.
            Ok(_) if !how.works => None,
            Ok(local) => Some(local),
            // A command alone needs no socket; whoever serves others does.
            Err(error @ LocalError::TooLong { .. }) if how.upkeep == Upkeep::Own => {
                tracing::warn!(%error, "other commands wait until this one has ended");
                None
            }
            Err(error) => return Err(failed("could not serve the node of this home", error)),
        };
        let settings = ServeSettings {
            listen: None,
            http: how.http.clone(),
            zone: jiff::tz::TimeZone::system().iana_name().unwrap_or("UTC").to_owned(),
            item_metrics: how.item_metrics,
        };
        let metrics = Arc::new(Metrics::default());
        let numbers = Arc::clone(&metrics);
        let embedding = Embedding {
            local,
            inside,
            upkeep: how.upkeep,
            keys: Arc::new(KeyFiles(app.settings.home.value.join("keys"))),
            numbers: how
                .works
                .then(|| Arc::new(move || numbers.text()) as Arc<dyn Fn() -> String + Send + Sync>),
        };
        let (stop_serving, stop_working) = (CancellationToken::new(), CancellationToken::new());
        let (tell, told) = oneshot::channel();
        let (folder, stop) = (place.coordinator(), stop_serving.clone());
        let mut serving = tokio::spawn(async move {
            let ready = move |_: &process::Bound, handle: &Handle| {
                // Nobody hears it where starting was given up.
                let _ = tell.send(handle.clone());
            };
            Box::pin(process::serve(&folder, settings, Some(embedding), ready, stop)).await
        });
        let handle = tokio::select! {
            Ok(handle) = told => handle,
            ended = &mut serving => return Err(ended_early(ended)),
        };
        let began = *handle.applied().borrow();
        let mut host = Self {
            doorway,
            began,
            handle,
            serving,
            stop_serving,
            working: None,
            stop_working,
            _lock: lock,
        };
        if how.works {
            if how.upkeep == Upkeep::Own {
                let ending = embedded::end_leftovers(&host.handle).await;
                ending.map_err(|error| failed("could not start the node of this home", error))?;
            }
            let name = host_name();
            let worker = embedded::enlist(&host.handle, &name)
                .await
                .map_err(|error| failed("could not start the node of this home", error))?;
            let config = AgentConfig {
                effort: app.settings.effort(),
                metrics,
                ..AgentConfig::new(place.worker())
            };
            let channels = Inside {
                doorway: host.doorway.clone(),
                worker: worker.0,
            };
            let stores = Arc::new(StoreTables::new(app.settings.stores.clone(), &app.settings.home.value));
            let running = agent::run(config, Client::new(channels), stores, host.stop_working.clone());
            host.working = Some(tokio::spawn(running));
        }
        Ok(host)
    }

    /// The way in for this process.
    pub(crate) fn access(&self) -> Access {
        Access::Host {
            doorway: self.doorway.clone(),
            began: self.began,
        }
    }

    /// Waits until it cannot go on.
    pub(crate) async fn ended(&mut self) -> CliError {
        ended_early((&mut self.serving).await)
    }

    /// Ends coordinator and worker. What guests started and runs is waited for, unless `at_once`.
    ///
    /// # Errors
    /// When something had gone wrong before.
    pub(crate) async fn leave(mut self, app: &App, at_once: bool) -> Result<(), CliError> {
        if let Some(working) = self.working.take() {
            if !at_once {
                let mut signals = Interrupts::listen()?;
                tokio::select! {
                    () = self.wait_for_guests(app) => {}
                    _ = signals.next() => app.screen.note("stopping; what other commands asked for is left to the next one"),
                }
            }
            self.stop_working.cancel();
            match working.await {
                Ok(result) => result.map_err(|error| failed("the worker of the node could not go on", error))?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        self.stop_serving.cancel();
        match self.serving.await {
            Ok(result) => result.map_err(|error| failed("the node could not go on", error)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    async fn wait_for_guests(&self, app: &App) {
        if let Err(error) = embedded::begin_catalogues(&self.handle).await {
            tracing::warn!(%error, "the newest catalogues are not put yet");
        }
        let (mut told, mut since) = (false, Instant::now());
        let mut applied = self.handle.applied();
        loop {
            let UnderWay {
                running,
                due,
                catalogues,
            } = embedded::jobs_under_way(&self.handle);
            if running > 0 {
                since = Instant::now();
            }
            // What waits for a worker gets ours within moments, or is for none of ours.
            let is_over = running == 0 && (due == 0 || since.elapsed() > TURN);
            if is_over || self.serving.is_finished() {
                return;
            }
            let asked = (running + due).saturating_sub(catalogues);
            if asked > 0 && !std::mem::replace(&mut told, true) {
                let jobs = human::many(asked, "job");
                app.screen
                    .note(&format!("waiting for {jobs} of other commands on this home"));
            }
            // Any entry may be the end of one; time alone may be, too.
            tokio::select! {
                _ = applied.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

fn ended_early(ended: Result<Result<(), StartError>, tokio::task::JoinError>) -> CliError {
    match ended {
        Ok(Ok(())) => failed(
            "the node could not go on",
            std::io::Error::other("its coordinator has ended"),
        ),
        Ok(Err(error)) => failed("the node could not go on", error),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
