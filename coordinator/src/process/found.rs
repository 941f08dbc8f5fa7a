//! Founding a cluster: its authority, its key, its first coordinator, its first administrator.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tresor_proto::ids::MemberId;
use tresor_proto::tls::{Fingerprint, IdentityError, PeerName, Role};
use tresor_proto::token::{ApiToken, TokenError};

use super::folder::{Folder, FolderError};
use crate::node::{NodeError, task};
use crate::raft::{Config, CoreError};
use crate::security::{Authority, AuthorityError, ClusterKey, Purpose, TokenHash, WrapError};
use crate::state::command::{self, ApiTokenSpec, Command, MemberSpec};
use crate::state::entry::{Actor, Time};
use crate::store::rocks::Rocks;
use crate::store::{Membership, Stamp, Store, StoreError};

/// How long a member that is alone may take to lead.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is founded.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The cluster's name, for people.
    pub cluster: String,
    /// The coordinator's name.
    pub name: String,
    /// `host:port` where other coordinators and workers reach it.
    pub address: String,
    /// Whether an administrator's token is wanted: not where a socket in the home is all that is served.
    pub wants_admin: bool,
}

/// A cluster just founded.
#[derive(Debug)]
pub struct Founded {
    /// Its identity, in every certificate.
    pub cluster: [u8; 16],
    /// What people pin when they log in.
    pub fingerprint: Fingerprint,
    /// The first administrator's token: shown once.
    pub admin: Option<ApiToken>,
}

/// Why a cluster was not founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The cluster key.
    #[error(transparent)]
    Key(#[from] WrapError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error("make the coordinator's store")]
    Store(#[from] StoreError),
    /// The log.
    #[error("write the first entry of the log")]
    Node(#[from] NodeError),
    /// The member.
    #[error("start the coordinator")]
    Core(#[from] CoreError),
    /// The system.
    #[error("the operating system gives no random numbers")]
    Random,
    /// It took too long.
    #[error("the coordinator did not lead within {} s", PATIENCE.as_secs())]
    Slow,
}

/// Founds a cluster in an empty folder, with this coordinator as its first and only one. The identity is written last, when everything else is durable.
///
/// # Errors
/// [`FoundError`]; after one the folder may have a part of a coordinator, and is to be emptied.
pub async fn found(folder: &Folder, founding: Founding) -> Result<Founded, FoundError> {
    folder.prepare()?;
    let now = Timestamp::now();
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster).map_err(|_| FoundError::Random)?;
    let me = MemberId(1);
    let authority = Authority::create(cluster, now.as_second())?;
    let name = PeerName {
        cluster,
        role: Role::Coordinator,
        id: me.0,
    };
    let identity = authority.identity(name, now.as_second())?;
    let key = ClusterKey::random()?;
    key.create(&folder.key_path())?;
    let wrapped = key.wrap(Purpose::Authority, &authority.encode()?)?;
    let admin = founding.wants_admin.then(ApiToken::random).transpose()?;
    let spec = |token: &ApiToken| ApiTokenSpec {
        token: token.id,
        name: String::from("first administrator"),
        role: String::from("admin"),
        hash: TokenHash::of(token.id, &token.secret).to_bytes(),
        expires: None,
    };
    let command = Command::Found(command::Founding {
        cluster,
        name: founding.cluster,
        ca_certificate: authority.certificate().der().to_vec(),
        ca_key: postcard::to_stdvec(&wrapped).expect("plain data, and memory can be had"),
        member: MemberSpec {
            member: me,
            name: founding.name,
            address: founding.address.clone(),
            token: None,
        },
        admin: admin.as_ref().map(spec),
    });
    let stamp = Stamp { node: me, cluster };
    let membership = Membership::founding([(me, founding.address.into_bytes())]);
    let path = folder.raft_path();
    let store = tokio::task::spawn_blocking(move || Store::create(Rocks::create(&path)?, stamp, membership));
    let store = store.await.map_err(|_| FoundError::Slow)??;

    // The same node that will serve, for one entry.
    let stop = CancellationToken::new();
    let running = task::start(Config::new(1), store, Arc::new(|_, _| None), stop.clone())?;
    let mut leadership = running.handle.leadership();
    let leads = tokio::time::timeout(PATIENCE, leadership.wait_for(|leadership| leadership.is_me));
    let led = leads.await.is_ok_and(|led| led.is_ok());
    let result = if led {
        running.handle.change(Actor::Founder, None, command).await.map(|_| ())
    } else {
        Err(NodeError::NoMajority)
    };
    stop.cancel();
    if let Ok(ended) = running.ended.await {
        ended?;
    }
    result?;
    identity.save(&folder.identity_path())?;
    Ok(Founded {
        cluster,
        fingerprint: authority.fingerprint(),
        admin,
    })
}

/// The cluster's clock now.
pub(super) fn wall() -> Time {
    Timestamp::now().into()
}
