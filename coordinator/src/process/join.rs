//! Joining a cluster as a coordinator.

use jiff::Timestamp;
use tresor_proto::ids::MemberId;
use tresor_proto::tls::{
    self, CaCertificate, CertificateError, ConnectError, Connector, Identity, IdentityError, KeyError, PrivateKey, Role,
};
use tresor_proto::token::JoinToken;
use tresor_proto::v1;
use tresor_proto::v1::join_client::JoinClient;

use super::folder::{Folder, FolderError};
use crate::security::{ClusterKey, WrapError};
use crate::store::rocks::Rocks;
use crate::store::{Membership, Stamp, Store, StoreError};

/// How long a cluster may take to let a coordinator in: a change of its members waits for a majority.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// How to join.
#[derive(Debug)]
pub struct Joining {
    /// Where coordinators of the cluster are.
    pub addresses: Vec<String>,
    /// What lets this one in.
    pub token: JoinToken,
    /// Its name.
    pub name: String,
    /// `host:port` where others reach it.
    pub address: String,
}

/// Why a coordinator did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The cluster was not reached, or is another.
    #[error("reach the cluster")]
    Connect(#[from] ConnectError),
    /// The cluster refused.
    #[error("the cluster did not let it in: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What came back is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What came back is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The cluster key.
    #[error(transparent)]
    ClusterKey(#[from] WrapError),
    /// The store.
    #[error("make the coordinator's store")]
    Store(#[from] StoreError),
    /// What came back is not for a coordinator.
    #[error("{0}")]
    Answer(&'static str),
}

/// Joins with an empty folder; returns the coordinator's number. It takes part once it is served.
///
/// # Errors
/// [`JoinError`]; after one the folder may have a part of a coordinator, and is to be emptied.
pub async fn join(folder: &Folder, joining: Joining) -> Result<MemberId, JoinError> {
    folder.prepare()?;
    let contact = tls::first_contact(&joining.addresses, joining.token.ca).await?;
    let connector = Connector::new(joining.addresses.clone(), contact.trust())?;
    let key = PrivateKey::generate()?;
    let mut idempotency_key = vec![0; 16];
    getrandom::fill(&mut idempotency_key)
        .map_err(|_| JoinError::Answer("the operating system gives no random numbers"))?;
    let request = v1::JoinRequest {
        token: joining.token.reveal().to_string(),
        csr: key.request()?.into(),
        name: joining.name,
        address: joining.address,
        idempotency_key: idempotency_key.into(),
    };
    let answer = tokio::time::timeout(PATIENCE, async {
        loop {
            match JoinClient::new(connector.channel()).join(request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                // No leader for a moment, or another change of the members: the same request again, under the same key.
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    connector.skip();
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                }
                Err(status) => return Err(JoinError::Refused(Box::new(status))),
            }
        }
    });
    let answer = answer.await.map_err(|_| {
        JoinError::Answer("the cluster did not let it in in time: has it a majority of its coordinators?")
    })??;
    if answer.role != Role::Coordinator.as_str() {
        return Err(JoinError::Answer(
            "the token is for a worker: make one for a coordinator",
        ));
    }
    let cluster = <[u8; 16]>::try_from(answer.cluster.as_ref())
        .map_err(|_| JoinError::Answer("the cluster's answer is not whole"))?;
    let secret = <[u8; 32]>::try_from(answer.cluster_key.as_ref())
        .map_err(|_| JoinError::Answer("the cluster's answer is not whole"))?;
    ClusterKey::from_bytes(&secret).create(&folder.key_path())?;
    let me = MemberId(answer.id);
    let others = answer
        .members
        .into_iter()
        .filter(|member| member.id != me.0)
        .map(|member| (MemberId(member.id), member.address.into_bytes()));
    let membership = Membership::joining(others);
    let path = folder.raft_path();
    let stamp = Stamp { node: me, cluster };
    let store = tokio::task::spawn_blocking(move || Store::create(Rocks::create(&path)?, stamp, membership).map(drop));
    store
        .await
        .map_err(|_| JoinError::Answer("making the store panicked"))??;
    let ca = CaCertificate::from_der(&answer.ca_certificate)?;
    Identity::new(&key, &answer.certificate, ca)?.save(&folder.identity_path())?;
    tracing::info!(member = %me, at = %Timestamp::now(), "joined the cluster");
    Ok(me)
}
