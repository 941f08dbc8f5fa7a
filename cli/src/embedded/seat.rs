//! How this process stands to the node of its home: it is the node, or a guest of the process that is.
//!
//! A guest whose host has left looks again: where the lock is free it becomes the node itself, else it finds the next one at the same socket. Its requests
//! have keys, and what it waits for is in the log, so it goes on where it was.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tonic::transport::Channel;
use tresor_coordinator::node::driver::Upkeep;
use tresor_proto::ids::JobId;
use tresor_proto::tls::inside::Doorway;
use tresor_proto::tls::local;
use tresor_worker::control::ControlError;

use super::host::{Host, Serving};
use super::place::{Place, serves_on};
use crate::app::App;
use crate::config::Settings;
use crate::error::{CliError, Doing as _};
use crate::screen::Screen;

/// How this process speaks to the node of its home.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// Over the socket of the process that is the node.
    Guest {
        /// Where it is.
        socket: PathBuf,
        /// That process is the node for one command: it ends, and nothing is tried again.
        is_brief: bool,
    },
    /// It is the node.
    Host {
        /// The way in.
        doorway: Doorway,
        /// The newest entry of the log when this process became the node: older jobs are of earlier ones.
        began: u64,
    },
}

/// The place of this process at the node of its home.
pub(crate) struct Seat {
    place: Place,
    settings: Settings,
    screen: Screen,
    verb: &'static str,
    /// Whether its worker works, should this process be the node.
    works: bool,
    access: Mutex<Access>,
    /// The node, while this process is it for one command.
    host: tokio::sync::Mutex<Option<Host>>,
    /// Jobs that this process waits for.
    awaited: Mutex<BTreeSet<JobId>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    /// At the node of `place`, for a verb. `works` says whether the verb needs its worker.
    pub(crate) fn new(app: &App, place: &Place, verb: &'static str, works: bool, access: Access) -> Self {
        Self {
            place: place.clone(),
            settings: app.settings.clone(),
            screen: app.screen.clone(),
            verb,
            works,
            access: Mutex::new(access),
            host: tokio::sync::Mutex::default(),
            awaited: Mutex::default(),
        }
    }

    /// The same, with the node that this process is.
    pub(super) fn with(self, host: Host) -> Self {
        Self {
            host: tokio::sync::Mutex::new(Some(host)),
            ..self
        }
    }

    /// How it speaks to the node now.
    pub(crate) fn access(&self) -> Access {
        locked(&self.access).clone()
    }

    /// A channel to the node as it is now, which connects again after it broke.
    pub(crate) fn channel(&self) -> Channel {
        match &*locked(&self.access) {
            Access::Guest { socket, .. } => local::channel(socket),
            Access::Host { doorway, .. } => doorway.user(rustix::process::geteuid().as_raw()),
        }
    }

    /// Notes that this process waits for a job: should it become the node, it does not end that one as an earlier process's.
    pub(crate) fn awaits(&self, job: u64) {
        locked(&self.awaited).insert(JobId(job));
    }

    /// Lets the worker work, where this process is the node and its verb alone did not need it.
    ///
    /// # Errors
    /// By cause.
    pub(super) async fn work(&self) -> Result<(), CliError> {
        match &mut *self.host.lock().await {
            Some(host) => host.work(&self.settings, &self.place, &BTreeSet::new()).await,
            None => Ok(()),
        }
    }

    /// Looks where the node is now, after nobody answered or where it matters whose it is. Returns whether this process has become it.
    ///
    /// # Errors
    /// When it could not be the node where nobody else is.
    pub(crate) async fn look_again(&self) -> Result<bool, CliError> {
        let mut host = self.host.lock().await;
        if matches!(self.access(), Access::Host { .. }) {
            return Ok(false);
        }
        let lock = match self.place.take(self.verb) {
            Ok(lock) => lock,
            // The next one is about to serve, or does already; or the last one has not quite ended.
            Err(ControlError::Busy { holder }) => {
                *locked(&self.access) = Access::Guest {
                    socket: self.place.socket(),
                    is_brief: !serves_on(&holder),
                };
                return Ok(false);
            }
            Err(error) => return Err(error).doing(|| String::from("could not reach the node of this home")),
        };
        self.place.check()?;
        let serving = Serving {
            upkeep: Upkeep::Own,
            works: self.works,
            http: None,
            item_metrics: false,
        };
        let awaited = locked(&self.awaited).clone();
        let made = Box::pin(Host::start(&self.settings, &self.place, lock, serving, &awaited)).await?;
        tracing::info!("the process that was the node has left; this one is it now");
        *locked(&self.access) = made.access();
        *host = Some(made);
        Ok(true)
    }

    /// Ends the node, if this process is it. What guests started and runs is waited for, unless `at_once`.
    ///
    /// # Errors
    /// When something had gone wrong before.
    pub(crate) async fn leave(&self, at_once: bool) -> Result<(), CliError> {
        let host = self.host.lock().await.take();
        match host {
            Some(host) => host.leave(&self.screen, at_once).await,
            None => Ok(()),
        }
    }
}
