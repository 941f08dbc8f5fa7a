//! How a process becomes a worker of a cluster, and stays one.
//!
//! ```text
//! identity/      the certificate, its private key, the authority (see [`tresor_proto::tls::Identity`])
//! cluster.json   the cluster's name and where its coordinators are
//! joining        while it joins: the private key and the number of the attempt (0600)
//! another/       while it joins another cluster: the same files, which then take the place of those above
//! ```
//! A join that is cut off anywhere is repeated with the key and the number that were written down before the first request, so that it makes one node however
//! often it is tried. The token goes only to who was vouched for by the authority whose fingerprint is in the token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tresor_proto::ids::{hex, unhex};
use tresor_proto::tls::{
    CaCertificate, CertificateError, ConnectError, Connector, Identity, IdentityError, KeyError, NothingRevoked,
    PrivateKey, Role, SharedIdentity, Trust, first_contact,
};
use tresor_proto::token::JoinToken;
use tresor_proto::v1::join_client::JoinClient;
use tresor_proto::v1::{JoinRequest, JoinResponse, RenewRequest};
use tresor_storage::Kind;
use tresor_storage::ids::random_bytes;
use zeroize::Zeroizing;

use super::calls::{Backoff, Patience, random, repeat};
use super::client::{Client, error_of};
use super::coordinators::{Coordinators, StoredCluster};
use super::port::CallError;
use crate::control::ControlError;
use crate::home::files;
use crate::home::lock::{Holder, Lock};

const IDENTITY: &str = "identity";
const JOINING: &str = "joining";
const ANOTHER: &str = "another";
const VERSION: u32 = 1;
/// How long a request may take: it waits for an entry of the log.
const CALL: Duration = Duration::from_secs(20);
/// How often it is looked at whether the certificate is to be renewed: the clock may be set, and a certificate has ten days left by then.
const LOOK: Duration = Duration::from_secs(3600);

/// Why there is no membership.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is a node already.
    #[error("this folder is {who} of cluster {cluster} already")]
    Joined {
        /// Who it is.
        who: String,
        /// The cluster's name.
        cluster: String,
    },
    /// The files of the worker.
    #[error(transparent)]
    Files(#[from] ControlError),
    /// Its identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nobody answers, or nobody that is to be believed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The coordinator did not answer, or refused.
    #[error("could not {doing}")]
    Call {
        /// What was asked.
        doing: &'static str,
        /// What was heard.
        #[source]
        source: CallError,
    },
    /// What it answered is no membership.
    #[error("the coordinator's answer makes no sense: {why}")]
    Answer {
        /// What is wrong.
        why: String,
    },
}

impl JoinError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Joined { .. } => Kind::Invalid,
            Self::Files(error) => error.kind(),
            Self::Identity(IdentityError::File { .. }) => Kind::Retry,
            Self::Identity(_) | Self::Answer { .. } => Kind::Corrupt,
            Self::Connect(error) => match tresor_proto::tls::refusal(error) {
                Some(_) => Kind::Denied,
                None => Kind::Retry,
            },
            Self::Key(_) => Kind::Bug,
            Self::Call { source, .. } => source.kind(),
        }
    }
}

impl From<CertificateError> for JoinError {
    fn from(error: CertificateError) -> Self {
        Self::Answer { why: error.to_string() }
    }
}

/// What a worker is in a cluster, and how it reaches its coordinators.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Its identity; renewed while it runs.
    pub identity: SharedIdentity,
    /// The cluster's name.
    pub cluster_name: String,
    /// To any coordinator of the cluster.
    pub connector: Connector,
}

/// What is written down before a node is asked for.
struct Joining {
    /// Of which token: another one begins another join.
    token: String,
    number: [u8; 16],
    key: PrivateKey,
}

#[derive(Serialize, Deserialize)]
struct StoredJoining {
    version: u32,
    token: String,
    number: String,
    key: String,
}

impl Membership {
    /// The membership that is kept in a worker's folder; none if it has not joined.
    ///
    /// # Errors
    /// [`JoinError::Identity`], [`JoinError::Files`] when what is kept is damaged.
    pub fn load(folder: &Path) -> Result<Option<Self>, JoinError> {
        let loaded = Self::load_stored(folder)?;
        loaded
            .map(|(identity, stored)| Self::new(identity, stored.name, stored.coordinators))
            .transpose()
    }

    fn load_stored(folder: &Path) -> Result<Option<(Identity, StoredCluster)>, JoinError> {
        let Some(identity) = Identity::load(&folder.join(IDENTITY))? else {
            return Ok(None);
        };
        let stored = StoredCluster::load(folder)?;
        Ok(Some((identity, stored)))
    }

    /// Whether a token is of the cluster that this is a membership of.
    pub fn is_of(&self, token: &JoinToken) -> bool {
        self.identity.current().ca().fingerprint() == token.ca
    }

    /// Joins another cluster with the folder of a worker: one that was founded again has another authority, and its workers join anew. The former
    /// membership stays until there is the new one, so that a token of a cluster that is not there takes nothing away.
    ///
    /// # Errors
    /// As [`join`](Self::join); [`JoinError::Files`] while a worker runs in the folder. It can be repeated with the same token.
    pub async fn join_another(
        folder: &Path,
        addresses: Vec<String>,
        token: &JoinToken,
        name: &str,
    ) -> Result<Self, JoinError> {
        // A worker that runs would go on under the identity that it began with, in a folder that says another.
        files::make_folder(folder)?;
        let _lock = Lock::take(&folder.join("lock"), &Holder::this("worker start"), Duration::ZERO)?;
        let aside = folder.join(ANOTHER);
        let of_token = |(identity, _): &(Identity, StoredCluster)| identity.ca().fingerprint() == token.ca;
        if !Self::load_stored(&aside)?.as_ref().is_some_and(of_token) {
            if Identity::load(&aside.join(IDENTITY))?.is_some() {
                remove_folder(&aside)?;
            }
            Self::join(&aside, addresses, token, name).await?;
        }
        let (identity, stored) = Self::load_stored(&aside)?.ok_or_else(|| JoinError::Answer {
            why: String::from("the membership that was just kept is gone"),
        })?;
        let membership = Self::new(identity, stored.name, stored.coordinators.clone())?;
        membership.keep(folder, stored.coordinators)?;
        remove_folder(&aside)?;
        Ok(membership)
    }

    fn new(identity: Identity, cluster_name: String, coordinators: Vec<String>) -> Result<Self, JoinError> {
        let trust = Trust::any_coordinator(identity.ca().clone(), identity.name().cluster);
        let identity = SharedIdentity::new(identity);
        let connector = Connector::with_identity(coordinators, trust, identity.clone(), Arc::new(NothingRevoked))?;
        Ok(Self {
            identity,
            cluster_name,
            connector,
        })
    }

    /// Joins the cluster whose coordinators are at `addresses`, and keeps the membership in the worker's folder. `name` is the worker's, its host's as a rule.
    ///
    /// # Errors
    /// [`JoinError::Joined`] when the folder has a membership; others by cause. It can be repeated with the same token.
    pub async fn join(folder: &Path, addresses: Vec<String>, token: &JoinToken, name: &str) -> Result<Self, JoinError> {
        if let Some(there) = Self::load(folder)? {
            return Err(JoinError::Joined {
                who: there.identity.current().name().short(),
                cluster: there.cluster_name,
            });
        }
        files::make_folder(folder)?;
        let joining = Joining::begin(&folder.join(JOINING), token)?;
        let contact = first_contact(&addresses, token.ca).await?;
        let connector = Connector::new(addresses.clone(), contact.trust())?;
        let request = JoinRequest {
            token: token.reveal().as_str().to_owned(),
            csr: joining.key.request()?.into(),
            name: name.to_owned(),
            address: String::new(),
            idempotency_key: joining.number.to_vec().into(),
        };
        let answer = call(&connector, "join the cluster", || async {
            join_client(&connector).join(timed(request.clone())).await
        })
        .await?;
        let identity = identity_of(&joining.key, &answer, &contact.ca, contact.server.name.cluster)?;
        let coordinators = if answer.coordinators.is_empty() {
            addresses
        } else {
            answer.coordinators
        };
        // Before anything is kept: what cannot be used would stop every later start.
        let membership = Self::new(identity, answer.cluster_name, coordinators.clone())?;
        membership.keep(folder, coordinators)?;
        files::remove(&folder.join(JOINING))?;
        Ok(membership)
    }

    /// The identity last: until it is there nobody has joined.
    fn keep(&self, folder: &Path, coordinators: Vec<String>) -> Result<(), JoinError> {
        StoredCluster::new(&self.cluster_name, coordinators).save(folder)?;
        self.identity.current().save(&folder.join(IDENTITY))?;
        Ok(())
    }

    /// The coordinators, for [`super::run`]: those that the worker's folder tells of, and those that are `given` beside them (`host:port`), which are tried
    /// first until the cluster says where its coordinators are.
    ///
    /// # Errors
    /// [`JoinError::Files`]; [`JoinError::Connect`] when an address is none.
    pub fn client(&self, folder: &Path, given: Vec<String>) -> Result<Client<Coordinators>, JoinError> {
        let heard = StoredCluster::load(folder)?.coordinators;
        if !given.is_empty() {
            let others = heard.iter().filter(|address| !given.contains(address)).cloned();
            self.connector
                .set_addresses(given.iter().cloned().chain(others).collect())?;
        }
        let coordinators = Coordinators::new(self.connector.clone(), folder, &self.cluster_name, heard, given);
        Ok(Client::new(coordinators))
    }

    /// Asks for the next certificate whenever the present one has a third of its time left, until `shutdown`. What fails is tried again: there are days.
    pub async fn keep_renewed(&self, folder: &Path, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(Patience::ENDLESS);
        loop {
            let wait = if self.is_renewal_due() {
                match self.renew(folder).await {
                    Ok(()) => {
                        backoff.reset();
                        tracing::info!(
                            until = self.identity.current().validity().not_after,
                            "certificate of this worker is renewed"
                        );
                        LOOK
                    }
                    Err(error) => {
                        let wait = backoff.next(random());
                        tracing::warn!(
                            error = super::failure::chain(&error),
                            wait_ms = wait.as_millis(),
                            "certificate of this worker is not renewed yet"
                        );
                        wait
                    }
                }
            } else {
                LOOK
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn is_renewal_due(&self) -> bool {
        let now = jiff::Timestamp::now().as_second();
        self.identity.current().validity().is_renewal_due(now)
    }

    /// Asks for the next certificate, for a new key, and keeps it.
    ///
    /// # Errors
    /// By cause; the present one stays.
    pub async fn renew(&self, folder: &Path) -> Result<(), JoinError> {
        let key = PrivateKey::generate()?;
        let request = RenewRequest {
            csr: key.request()?.into(),
        };
        let answer = call(&self.connector, "renew the certificate", || async {
            join_client(&self.connector).renew(timed(request.clone())).await
        })
        .await?;
        let current = self.identity.current();
        if answer.ca_certificate != current.ca().der().as_ref() {
            return Err(JoinError::Answer {
                why: String::from("it comes with another authority"),
            });
        }
        let identity = Identity::new(&key, &answer.certificate, current.ca().clone())?;
        if identity.name() != current.name() {
            return Err(JoinError::Answer {
                why: format!("it is for {}", identity.name()),
            });
        }
        // Kept first: a process that dies in between comes back with one or the other, and both are good.
        identity.save(&folder.join(IDENTITY))?;
        self.identity.replace(identity)?;
        Ok(())
    }
}

fn remove_folder(folder: &Path) -> Result<(), JoinError> {
    std::fs::remove_dir_all(folder).map_err(|source| files::trouble("could not remove", folder, source).into())
}

fn join_client(connector: &Connector) -> JoinClient<Channel> {
    JoinClient::new(connector.channel())
}

fn timed<M>(message: M) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}

/// Asks, of another coordinator each time.
async fn call<T, F>(connector: &Connector, doing: &'static str, ask: impl Fn() -> F) -> Result<T, JoinError>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let answer = repeat(doing, Patience::WORKING, &CancellationToken::new(), || async {
        match tokio::time::timeout(CALL, ask()).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                connector.skip();
                Err(error_of(&status))
            }
            Err(_) => {
                connector.skip();
                Err(CallError::Unanswered {
                    why: format!("nothing within {} s", CALL.as_secs()),
                })
            }
        }
    })
    .await;
    answer.result.map_err(|source| JoinError::Call { doing, source })
}

/// The identity that an answer makes with our key, if it is one of a worker of the cluster that was joined.
fn identity_of(
    key: &PrivateKey,
    answer: &JoinResponse,
    ca: &CaCertificate,
    cluster: [u8; 16],
) -> Result<Identity, JoinError> {
    let wrong = |why: &str| JoinError::Answer { why: why.to_owned() };
    if answer.ca_certificate != ca.der().as_ref() {
        return Err(wrong("it comes with another authority than the one that was pinned"));
    }
    let identity = Identity::new(
        key,
        &answer.certificate,
        CaCertificate::from_der(&answer.ca_certificate)?,
    )?;
    let name = identity.name();
    if name.role != Role::Worker {
        return Err(wrong(
            "the token makes a coordinator: join it with tresor coordinator start",
        ));
    }
    if name.cluster != cluster || answer.cluster != cluster.as_slice() || name.id != answer.id {
        return Err(wrong("its certificate is another node's"));
    }
    Ok(identity)
}

impl Joining {
    /// What was begun with this token, or a new beginning, written down.
    fn begin(path: &Path, token: &JoinToken) -> Result<Self, JoinError> {
        let of = token.id.to_string();
        if let Some(text) = files::read(path)?.map(Zeroizing::new) {
            match Self::parse(&text) {
                Some(begun) if begun.token == of => return Ok(begun),
                // Of another token: what came of that is a node that never spoke, which the cluster can remove.
                Some(_) => {}
                None => return Err(files::damaged(path, "not what a join wrote: remove it to join anew").into()),
            }
        }
        let begun = Self {
            token: of,
            number: random_bytes(),
            key: PrivateKey::generate()?,
        };
        let stored = StoredJoining {
            version: VERSION,
            token: begun.token.clone(),
            number: hex(&begun.number),
            key: hex(&begun.key.to_pkcs8()?),
        };
        let text = serde_json::to_string(&stored)
            .map(Zeroizing::new)
            .map_err(|error| files::trouble("could not write", path, std::io::Error::other(error)))?;
        drop(Zeroizing::new(stored.key));
        files::replace(path, text.as_bytes())?;
        Ok(begun)
    }

    fn parse(text: &str) -> Option<Self> {
        let stored: StoredJoining = serde_json::from_str(text).ok()?;
        let key = Zeroizing::new(stored.key);
        if stored.version != VERSION || !key.is_ascii() || !key.len().is_multiple_of(2) {
            return None;
        }
        let bytes: Option<Vec<u8>> = (0..key.len() / 2)
            .map(|at| unhex::<1>(&key[at * 2..at * 2 + 2]).map(|[byte]| byte))
            .collect();
        let bytes = Zeroizing::new(bytes?);
        Some(Self {
            token: stored.token,
            number: unhex(&stored.number)?,
            key: PrivateKey::from_pkcs8(&bytes).ok()?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tresor_proto::tls::Fingerprint;

    #[test]
    fn a_join_that_was_cut_off_goes_on_with_its_key_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("joining");
        let token = JoinToken::random(Fingerprint([1; 32])).unwrap();
        let first = Joining::begin(&path, &token).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Joining::begin(&path, &token).unwrap();
        assert_eq!(again.number, first.number);
        assert_eq!(again.key.public_key().unwrap(), first.key.public_key().unwrap());
        let other = JoinToken::random(Fingerprint([1; 32])).unwrap();
        let other = Joining::begin(&path, &other).unwrap();
        assert_ne!(other.number, first.number);
        let secret = hex(&token.secret.expose()[..8]);
        assert!(
            !std::fs::read_to_string(&path).unwrap().contains(&secret),
            "the token is kept nowhere"
        );
        for damaged in [
            "",
            "{}",
            "{\"version\":1,\"token\":\"a\",\"number\":\"b\",\"key\":\"ää\"}",
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert!(
                matches!(Joining::begin(&path, &token), Err(JoinError::Files(_))),
                "{damaged:?}"
            );
        }
    }

    #[tokio::test]
    async fn another_cluster_is_not_joined_with_the_folder_of_a_worker_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let running = Lock::take(
            &folder.path().join("lock"),
            &Holder::this("worker start"),
            Duration::ZERO,
        )
        .unwrap();
        let token = JoinToken::random(Fingerprint([1; 32])).unwrap();
        let join = || Membership::join_another(folder.path(), vec![String::from("127.0.0.1:9")], &token, "w1");
        let refused = join().await.unwrap_err();
        assert!(
            matches!(&refused, JoinError::Files(crate::control::ControlError::Busy { .. })),
            "{refused:?}"
        );
        assert!(!folder.path().join(ANOTHER).exists(), "nothing was begun");
        drop(running);
        // Then it is tried: nobody is there.
        assert!(!matches!(join().await.unwrap_err(), JoinError::Files(_)));
    }

    #[test]
    fn a_folder_without_an_identity_has_not_joined_and_half_a_membership_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Membership::load(folder.path()).unwrap().is_none());
        std::fs::create_dir(folder.path().join(IDENTITY)).unwrap();
        std::fs::write(folder.path().join(IDENTITY).join("ca.crt"), "x").unwrap();
        assert!(Membership::load(folder.path()).is_err());
    }
}
