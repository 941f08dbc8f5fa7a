//! For measurements: one owner of slots, asked as other workers ask it, over mutual TLS on the loopback interface.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tresor_proto::tls::SharedIdentity;
use tresor_proto::v1;
use tresor_storage::ids::{ChunkId, SessionId};
use tresor_storage::index::slot::{SLOTS, SlotSet};
use tresor_storage::index::{Answer, IndexSession, RocksIndex};

use super::lists::Lists;
use super::map::{SlotMap, SlotOwner};
use super::owner::{OwnedVault, Owner};
use super::peers::{Dial as _, TlsDial};
use super::revoked::Revoked;
use super::serve::{self, Listen};
use super::wire::Asked;
use crate::home::index::HomeIndex;
use crate::slots::peer::SlotPeer;

/// The grant of all slots.
const EPOCH: u64 = 1;
const SESSION: u64 = 1;

/// An owner that answers, and a connection to it.
pub struct Measured {
    peer: Arc<dyn SlotPeer>,
    vault: tresor_storage::ids::VaultId,
    session: IndexSession,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measured")
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}

impl Measured {
    /// Serves an index under the first identity, and connects with the second: two workers of one cluster.
    ///
    /// # Errors
    /// What prevents it, in words.
    pub async fn start(
        index: RocksIndex,
        folder: &Path,
        slots: &SlotSet,
        answers: &SharedIdentity,
        asks: &SharedIdentity,
    ) -> Result<Self, String> {
        let stamp = index.stamp();
        let owner = Owner::new(Arc::new(Lists::default()));
        let me = answers.current().name().id;
        let runs = slots.ranges().map(|run| v1::SlotRun {
            first: u32::from(run.start),
            count: u32::from(run.end - run.start),
            owner: 0,
            owner_epoch: EPOCH,
            floor_epoch: 0,
            since: EPOCH,
        });
        let map = SlotMap::read(v1::SlotMap {
            version: EPOCH,
            applied: SESSION,
            open_sessions: vec![SESSION],
            sweep_epoch: 0,
            owners: vec![v1::SlotOwner {
                worker: me,
                name: String::from("measured"),
                serves: String::from("localhost:1"),
                life: vec![1; 16].into(),
            }],
            runs: runs.collect(),
        })
        .map_err(|error| error.to_string())?;
        let mine: Vec<_> = (0..SLOTS).filter_map(|slot| Some((slot, map.grant(slot)?))).collect();
        let index = HomeIndex::new(index, folder.join("doubtful"));
        owner.open(stamp.vault, Arc::new(OwnedVault::new(index, stamp.cluster)));
        owner.install(&map, &mine).await;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let listen = Listen {
            port: Some(0),
            host: String::from("127.0.0.1"),
        };
        let address = serve::start(&listen, answers, owner, None, Revoked::default(), &mut tasks, &stop)
            .await
            .map_err(|error| error.to_string())?;
        let dial = TlsDial {
            identity: asks.clone(),
            revoked: Revoked::default(),
        };
        let peer = dial.dial(&SlotOwner {
            serves: address,
            ..map.owners[0].clone()
        });
        Ok(Self {
            peer: peer.ok_or("its address is none")?,
            vault: stamp.vault,
            session: IndexSession {
                cluster: stamp.cluster,
                session: SessionId(SESSION),
                start_epoch: 0,
            },
            stop,
            tasks,
        })
    }

    /// Asks for ids of its slots, 512 at most; answers how many of them it knows.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn known(&self, ids: &[ChunkId]) -> Result<usize, String> {
        let asked = ids.iter().map(|id| Asked { id: *id, epoch: EPOCH }).collect();
        let answers = self.peer.lookup(self.vault, self.session, asked, 1).await;
        let answers = answers.map_err(|error| error.to_string())?;
        if answers.contains(&None) {
            return Err(String::from("an id is of no slot that is held"));
        }
        let known = |answer: &&Option<Answer>| matches!(answer, Some(Answer::Known(_)));
        Ok(answers.iter().filter(known).count())
    }

    /// Ends it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
