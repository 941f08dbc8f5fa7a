//! Being the node.

use std::collections::BTreeSet;
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
use tresor_proto::ids::{JobId, VaultId};
use tresor_proto::tls::inside::{Doorway, doorway};
use tresor_proto::tls::local::{self, LocalError};
use tresor_storage::keys::{KeyFile, Unlock};
use tresor_worker::agent::{self, AgentConfig, AgentError, Channels, Client};
use tresor_worker::home::host_name;
use tresor_worker::home::lock::Lock;
use tresor_worker::metrics::Metrics;

use zeroize::Zeroizing;

use super::failed;
use super::place::Place;
use super::seat::Access;
use crate::config::{Settings, StoreTables};
use crate::error::CliError;
use crate::human;
use crate::screen::Screen;
use crate::signals::Interrupts;

/// The address of a coordinator that nobody reaches.
const NOWHERE: &str = "localhost:1";
/// How often to look whether jobs of guests have ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long a job that waits for nothing may wait for our worker.
const TURN: Duration = Duration::from_secs(2);
/// How long catalogues are waited for before a word is said: on a store that is near they are put by then.
const SILENT: Duration = Duration::from_secs(3);
/// How long they are waited for at all. Nobody asked for them, and a store may have gone away; the next command puts them.
const CATALOGUES_MAX: Duration = Duration::from_secs(60);

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
    upkeep: Upkeep,
    handle: Handle,
    serving: JoinHandle<Result<(), StartError>>,
    stop_serving: CancellationToken,
    working: Option<JoinHandle<Result<(), AgentError>>>,
    metrics: Arc<Metrics>,
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
    // Mostly cut short before its identity was written, when nobody was told anything of it.
    if let Some(aside) = folder.set_half_made_aside().map_err(wrong)? {
        tracing::warn!(folder = %aside.display(), "parts of a node without its identity were moved aside");
    }
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
    /// Starts coordinator and worker. Where it is for one command, restores and verifies that an earlier process left are ended, but for those that are
    /// `awaited` here.
    ///
    /// # Errors
    /// By cause.
    pub(crate) async fn start(
        settings: &Settings,
        place: &Place,
        lock: Lock,
        how: Serving,
        awaited: &BTreeSet<JobId>,
    ) -> Result<Self, CliError> {
        let home = &settings.home.value;
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
        let serve = ServeSettings {
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
            keys: Arc::new(KeyFiles(home.join("keys"))),
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
            Box::pin(process::serve(&folder, serve, Some(embedding), ready, stop)).await
        });
        let handle = tokio::select! {
            Ok(handle) = told => handle,
            ended = &mut serving => return Err(ended_early(ended)),
        };
        let began = *handle.applied().borrow();
        let mut host = Self {
            doorway,
            began,
            upkeep: how.upkeep,
            handle,
            serving,
            stop_serving,
            working: None,
            metrics,
            stop_working,
            _lock: lock,
        };
        if how.works {
            host.work(settings, place, awaited).await?;
        }
        Ok(host)
    }

    /// Starts its worker, unless it works already.
    ///
    /// # Errors
    /// By cause.
    pub(super) async fn work(
        &mut self,
        settings: &Settings,
        place: &Place,
        awaited: &BTreeSet<JobId>,
    ) -> Result<(), CliError> {
        if self.working.is_some() {
            return Ok(());
        }
        if self.upkeep == Upkeep::Own {
            let ending = embedded::end_leftovers(&self.handle, awaited).await;
            ending.map_err(|error| failed("could not start the node of this home", error))?;
        }
        let name = host_name();
        let worker = embedded::enlist(&self.handle, &name)
            .await
            .map_err(|error| failed("could not start the node of this home", error))?;
        let config = AgentConfig {
            effort: settings.effort(),
            metrics: Arc::clone(&self.metrics),
            ..AgentConfig::new(place.worker())
        };
        let channels = Inside {
            doorway: self.doorway.clone(),
            worker: worker.0,
        };
        let stores = Arc::new(StoreTables::new(settings.stores.clone(), &settings.home.value));
        let running = agent::run(config, Client::new(channels), stores, self.stop_working.clone());
        self.working = Some(tokio::spawn(running));
        Ok(())
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
    pub(crate) async fn leave(mut self, screen: &Screen, at_once: bool) -> Result<(), CliError> {
        if let Some(working) = self.working.take() {
            if !at_once {
                let mut signals = Interrupts::listen()?;
                tokio::select! {
                    () = self.wait_for_guests(screen) => {}
                    _ = signals.next() => screen.note("stopping; what other commands asked for is left to the next one"),
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

    /// Waits until what guests asked for is done, however long that takes, and says so; a catalogue, for which nobody asked, is waited for a while.
    async fn wait_for_guests(&self, screen: &Screen) {
        if let Err(error) = embedded::begin_catalogues(&self.handle).await {
            tracing::warn!(%error, "the newest catalogues are not put yet");
        }
        let began = Instant::now();
        let (mut told, mut since) = (None, began);
        let mut applied = self.handle.applied();
        loop {
            let under_way = embedded::jobs_under_way(&self.handle);
            if under_way.running > 0 {
                since = Instant::now();
            }
            match waits_for(under_way, began.elapsed(), since.elapsed()) {
                _ if self.serving.is_finished() => return,
                WaitsFor::Nothing => return,
                WaitsFor::Catalogues(count) if began.elapsed() >= CATALOGUES_MAX => {
                    let what = human::many(count, "catalogue");
                    screen.note(&format!(
                        "{what} could not be put yet: the next command that writes goes on with it"
                    ));
                    return;
                }
                what => {
                    if let Some(text) = what.text()
                        && told.replace(what.word()) != Some(what.word())
                    {
                        screen.note(&text);
                    }
                }
            }
            // Any entry may be the end of one; time alone may be, too.
            tokio::select! {
                _ = applied.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// What a process that was the node for its own command waits for before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// It may go.
    Nothing,
    /// Jobs that may end at any moment.
    Moment,
    /// So many jobs of guests.
    Guests(usize),
    /// So many catalogues, and nothing else.
    Catalogues(usize),
}

/// `waited` is how long it has waited, `idle` for how long of that nothing ran.
fn waits_for(under_way: UnderWay, waited: Duration, idle: Duration) -> WaitsFor {
    let UnderWay {
        running,
        due,
        catalogues,
    } = under_way;
    let asked = (running + due).saturating_sub(catalogues);
    // What waits for a worker gets ours within moments, or is for none of ours.
    if running == 0 && (due == 0 || idle > TURN) {
        WaitsFor::Nothing
    } else if asked > 0 {
        WaitsFor::Guests(asked)
    } else if waited < SILENT {
        WaitsFor::Moment
    } else {
        WaitsFor::Catalogues(catalogues)
    }
}

impl WaitsFor {
    /// One of its kind.
    fn word(self) -> &'static str {
        match self {
            Self::Nothing | Self::Moment => "",
            Self::Guests(_) => "guests",
            Self::Catalogues(_) => "catalogues",
        }
    }

    /// For the person who waits with it.
    fn text(self) -> Option<String> {
        let (what, of) = match self {
            Self::Nothing | Self::Moment => return None,
            Self::Guests(count) => (human::many(count, "job"), "of other commands on this home"),
            Self::Catalogues(count) => (human::many(count, "catalogue"), "to be put beside the data"),
        };
        Some(format!(
            "waiting for {what} {of}; Ctrl-C leaves that to the next command"
        ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_waited_for_with_a_word_and_catalogues_alone_not_for_ever() {
        let jobs = |running, due, catalogues| UnderWay {
            running,
            due,
            catalogues,
        };
        let (moment, long) = (Duration::from_millis(10), Duration::from_secs(600));
        assert_eq!(waits_for(jobs(0, 0, 0), moment, moment), WaitsFor::Nothing);
        assert_eq!(waits_for(jobs(1, 1, 1), moment, moment), WaitsFor::Guests(1));
        assert_eq!(waits_for(jobs(1, 0, 0), long, moment), WaitsFor::Guests(1));
        // What no worker takes is for none of ours.
        assert_eq!(waits_for(jobs(0, 1, 0), moment, moment), WaitsFor::Guests(1));
        assert_eq!(waits_for(jobs(0, 1, 0), long, long), WaitsFor::Nothing);
        assert_eq!(waits_for(jobs(1, 0, 1), moment, moment), WaitsFor::Moment);
        assert_eq!(waits_for(jobs(1, 0, 1), long, moment), WaitsFor::Catalogues(1));
        for told in [WaitsFor::Guests(2), WaitsFor::Catalogues(1)] {
            assert!(told.text().is_some_and(|text| text.contains("Ctrl-C")));
        }
        assert!(WaitsFor::Moment.text().is_none());
    }
}
