//! The index in shares: 4096 slots of the chunk ids, each answered for by one worker, so that all of them find each other's chunks.
//!
//! ```text
//! a session ▸ router ▸ batch ▸ peers ─┬─▸ owner (this process) ▸ a database for each vault
//!                                     └─▸ remote ▸ (gRPC, mutual TLS) ▸ service ▸ owner (another worker)
//! coordinators ▸ watch ▸ view ▸ keeper: takes grants ▸ drops ▸ holds ▸ rebuilds from the store
//! ```
//! The log says who answers for a slot, under which number ([`SlotMap`]). What an owner answers is worth something only while that grant stands: a
//! commit names the slots that it stands on, and the log refuses it when one of them was granted anew. So an owner that is dead, cut off, paused
//! or wrong costs duplicates or another question, never data. Read `map`, `owner`, `keeper`, then `router`.

mod batch;
pub(crate) mod callers;
mod checkpoints;
mod claims;
mod keeper;
mod kept;
mod lists;
mod map;
#[doc(hidden)]
pub mod measured;
mod numbers;
mod owner;
mod peer;
pub(crate) mod peers;
mod remote;
mod revoked;
mod router;
mod serve;
mod service;
pub(crate) mod view;
pub(crate) mod watch;
pub(crate) mod wire;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Sender;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tresor_proto::ids::WorkerId;
use tresor_proto::tls::SharedIdentity;
use tresor_storage::ids::{ClusterId, VaultId};

pub use map::{Grant, MapError, SlotMap, SlotOwner};
pub(crate) use numbers::Numbers;
pub(crate) use router::{IndexUse, Routed, StandsOn};
pub use serve::{Listen, PORT, ServeError, local_address};

use crate::agent::port::{Coordinator, Life};
use crate::agent::vaults::Vaults;
use crate::backup::Effort;
use crate::limits::Limits;
use crate::parts::{Desk, ServiceParts};
use keeper::{Keeper, KeeperParts, OfCluster};
use kept::Kept;
use lists::Lists;
use owner::Owner;
use peers::{Peers, TlsDial};
use revoked::Revoked;
use view::{View, Views};

/// How long a job waits to hear who answers for the index. It comes with the first answer of a coordinator.
const FIRST_MAP: Duration = Duration::from_secs(20);

/// How a worker takes part.
#[derive(Debug, Clone)]
pub struct SlotsConfig {
    /// Who it is.
    pub identity: SharedIdentity,
    /// Where it answers for slots; none: it answers for none, and asks others.
    pub listen: Option<Listen>,
}

/// What slots have in common with jobs.
pub(crate) struct Works {
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) vaults: Arc<Vaults>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) desk: Desk,
    /// How much of the machine the reading of a range uses.
    pub(crate) effort: Effort,
}

/// What a worker has to do with the index in shares.
pub(crate) struct Slots {
    views: Sender<View>,
    peers: Arc<Peers>,
    kept: Arc<Kept>,
    dial: TlsDial,
    revoked: Revoked,
    serves: Option<String>,
    owner: Owner,
    coordinator: Arc<dyn Coordinator>,
    limits: Arc<Limits>,
    /// Ends what runs for the present life.
    watching: std::sync::Mutex<Option<CancellationToken>>,
}

/// Nobody has said who answers for the index.
#[derive(Debug, thiserror::Error)]
#[error("no coordinator has said yet which workers answer for the index")]
pub(crate) struct NoMap;

impl Slots {
    /// Begins to answer, if it does, and to hear of the map and of limits; what runs for that is in `tasks` and ends with `stop`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) async fn start(
        config: &SlotsConfig,
        folder: &Path,
        works: Works,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<Self, ServeError> {
        let Works {
            coordinator,
            vaults,
            limits,
            desk,
            effort,
        } = works;
        let me = WorkerId(config.identity.current().name().id);
        let folder = keeper::folder(folder);
        let revoked = Revoked::default();
        let lists = Arc::new(Lists::default());
        let owner = Owner::new(Arc::clone(&lists));
        let dial = TlsDial {
            identity: config.identity.clone(),
            revoked: revoked.clone(),
        };
        let peers = Arc::new(Peers::new(me, owner.clone(), Box::new(dial.clone())));
        let (sender, receiver) = tokio::sync::watch::channel(View::default());
        let kept = Arc::new(Kept::open(&folder));
        let mut serves = None;
        if let Some(listen) = &config.listen {
            crate::home::files::make_folder(&folder).map_err(ServeError::Folder)?;
            let parts = ServiceParts {
                desk,
                effort,
                coordinator: Arc::clone(&coordinator),
                vaults: Arc::clone(&vaults),
                peers: Arc::clone(&peers),
                views: Views::new(receiver.clone()),
            };
            let revoked = revoked.clone();
            let served = serve::start(
                listen,
                &config.identity,
                owner.clone(),
                Some(parts),
                revoked,
                tasks,
                stop,
            )
            .await?;
            serves = Some(served);
            let keeper = Keeper::new(KeeperParts {
                me,
                folder,
                owner: owner.clone(),
                peers: Arc::clone(&peers),
                lists,
                kept: Arc::clone(&kept),
                vaults: Arc::new(OfCluster {
                    coordinator: Arc::clone(&coordinator),
                    vaults,
                }),
            });
            tasks.spawn(keeper.run(Views::new(receiver), stop.clone()));
        }
        Ok(Self {
            views: sender,
            peers,
            kept,
            dial,
            revoked,
            serves,
            owner,
            coordinator,
            limits,
            watching: std::sync::Mutex::default(),
        })
    }

    /// Where it answers.
    pub(crate) fn serves(&self) -> Option<&str> {
        self.serves.as_deref()
    }

    /// What it answered as an owner, and what it has; none: it answers for nothing.
    pub(crate) fn numbers(&self) -> Option<Numbers> {
        self.serves.as_ref().map(|_| self.owner.numbers())
    }

    /// The life to name when a new one registers.
    pub(crate) fn kept_life(&self) -> Option<Life> {
        self.serves.as_ref().and_then(|_| self.kept.life())
    }

    /// A life was registered: what concerns it is followed from now on.
    pub(crate) fn begin(&self, life: Life) {
        let cancel = CancellationToken::new();
        let (coordinator, views, revoked) = (Arc::clone(&self.coordinator), self.views.clone(), self.revoked.clone());
        let (stopped, limits) = (cancel.clone(), Arc::clone(&self.limits));
        tokio::spawn(async move {
            tokio::select! {
                () = watch::follow(coordinator, life, views, revoked, limits) => {}
                () = stopped.cancelled() => {}
            }
        });
        self.replace(Some(cancel));
    }

    /// The life is over.
    pub(crate) fn end(&self) {
        self.replace(None);
        self.views.send_modify(|view| view.life = None);
    }

    fn replace(&self, next: Option<CancellationToken>) {
        let mut watching = self.watching.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut *watching, next) {
            before.cancel();
        }
    }

    /// A channel to another worker; none if what is said of it is no address.
    pub(crate) fn channel(&self, worker: WorkerId, serves: &str) -> Option<Channel> {
        self.dial.channel(worker, serves)
    }

    /// The index of a vault, where workers answer for it; none while nobody does, and each keeps its own.
    ///
    /// # Errors
    /// [`NoMap`]: a session that asked nobody would touch nothing of what it relies on.
    pub(crate) async fn routed(&self, vault: VaultId, cluster: ClusterId) -> Result<Option<Routed>, NoMap> {
        let mut receiver = self.views.subscribe();
        let heard = receiver.wait_for(|view| view.life.is_some());
        match tokio::time::timeout(FIRST_MAP, heard).await {
            Ok(Ok(_)) => {}
            _ => return Err(NoMap),
        }
        let views = Views::new(receiver);
        if views.map().is_empty() {
            return Ok(None);
        }
        Ok(Some(Routed::new(vault, cluster, Arc::clone(&self.peers), views)))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.replace(None);
    }
}
