//! How a machine becomes a worker, and stays one: it joins once with a token, keeps its identity in its folder, and renews the certificate in time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tresor_proto::tls::{
    self, CaCertificate, CertificateError, ConnectError, Connector, Identity, IdentityError, KeyError, NothingRevoked,
    PrivateKey, Role, SharedIdentity, Trust,
};
use tresor_proto::token::JoinToken;
use tresor_proto::v1;
use tresor_proto::v1::join_client::JoinClient;

use super::client::Channels;

/// How long a cluster may take to let a worker in.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before a cluster without a leader is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often the certificate is looked at.
const RENEWAL: Duration = Duration::from_secs(3600);
/// The file of a worker's folder that names the coordinators, one `host:port` a line.
const COORDINATORS: &str = "coordinators";

/// How to join.
#[derive(Debug)]
pub struct Joining {
    /// Where coordinators of the cluster are.
    pub addresses: Vec<String>,
    /// What lets this worker in.
    pub token: JoinToken,
    /// Its name.
    pub name: String,
}

/// Why a machine did not become a worker, or cannot work as one.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A file.
    #[error("{what} {}", path.display())]
    Io {
        /// `read`, …
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is a worker already.
    #[error("there is a worker in {} already", path.display())]
    Taken {
        /// Its folder.
        path: PathBuf,
    },
    /// It is none.
    #[error("there is no worker in {}", path.display())]
    Empty {
        /// Its folder.
        path: PathBuf,
    },
    /// The cluster was not reached, or is another.
    #[error("reach the cluster")]
    Connect(#[from] ConnectError),
    /// The cluster refused.
    #[error("the cluster did not let it in: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The authority.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What came back is not for a worker.
    #[error("{0}")]
    Answer(&'static str),
}

/// Joins a cluster; the identity is written last. Returns the worker's number.
///
/// # Errors
/// [`JoinError`].
pub async fn join(folder: &Path, joining: Joining) -> Result<u64, JoinError> {
    if Identity::load(&folder.join("identity"))?.is_some() {
        return Err(JoinError::Taken {
            path: folder.to_owned(),
        });
    }
    let made = std::fs::create_dir_all(folder);
    made.map_err(|source| JoinError::Io {
        what: "make",
        path: folder.to_owned(),
        source,
    })?;
    let contact = tls::first_contact(&joining.addresses, joining.token.ca).await?;
    let connector = Connector::new(joining.addresses, contact.trust())?;
    let key = PrivateKey::generate()?;
    let mut idempotency_key = vec![0; 16];
    getrandom::fill(&mut idempotency_key)
        .map_err(|_| JoinError::Answer("the operating system gives no random numbers"))?;
    let request = v1::JoinRequest {
        token: joining.token.reveal().to_string(),
        csr: key.request()?.into(),
        name: joining.name,
        address: String::new(),
        idempotency_key: idempotency_key.into(),
    };
    let asking = async {
        loop {
            match JoinClient::new(connector.channel()).join(request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                // No leader for a moment: the same request again, under the same key.
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    connector.skip();
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => return Err(JoinError::Refused(Box::new(status))),
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.map_err(|_| {
        JoinError::Answer("the cluster did not let it in in time: has it a majority of its coordinators?")
    })??;
    if answer.role != Role::Worker.as_str() {
        return Err(JoinError::Answer("the token is for a coordinator: make one for a worker"));
    }
    let ca = CaCertificate::from_der(&answer.ca_certificate)?;
    let identity = Identity::new(&key, &answer.certificate, ca)?;
    let file = folder.join(COORDINATORS);
    let written = std::fs::write(&file, answer.coordinators.join("\n"));
    written.map_err(|source| JoinError::Io {
        what: "write",
        path: file,
        source,
    })?;
    identity.save(&folder.join("identity"))?;
    Ok(answer.id)
}

/// A worker's way to its coordinators.
#[derive(Clone)]
pub struct Member {
    connector: Connector,
    identity: SharedIdentity,
    folder: PathBuf,
}

impl Member {
    /// The worker of a folder. `addresses` replaces the coordinators that it was told of when it joined.
    ///
    /// # Errors
    /// [`JoinError::Empty`]; others by cause.
    pub fn open(folder: &Path, addresses: Option<Vec<String>>) -> Result<Self, JoinError> {
        let identity = Identity::load(&folder.join("identity"))?.ok_or_else(|| JoinError::Empty {
            path: folder.to_owned(),
        })?;
        let addresses = match addresses {
            Some(addresses) => addresses,
            None => {
                let file = folder.join(COORDINATORS);
                let text = std::fs::read_to_string(&file).map_err(|source| JoinError::Io {
                    what: "read",
                    path: file,
                    source,
                })?;
                turned(text.lines().map(str::to_owned).collect(), identity.name().id)
            }
        };
        let trust = Trust::any_coordinator(identity.ca().clone(), identity.name().cluster);
        let identity = SharedIdentity::new(identity);
        let connector = Connector::with_identity(addresses, trust, identity.clone(), Arc::new(NothingRevoked))?;
        Ok(Self {
            connector,
            identity,
            folder: folder.to_owned(),
        })
    }

    /// The worker's number.
    pub fn number(&self) -> u64 {
        self.identity.current().name().id
    }

    /// Renews the certificate in time, until `stop`. What fails is tried again an hour later: a third of the certificate's life is left for that.
    pub async fn renew(self, stop: CancellationToken) {
        loop {
            let now = jiff::Timestamp::now().as_second();
            if self.identity.current().validity().is_renewal_due(now) {
                match self.renew_now().await {
                    Ok(()) => tracing::info!("the worker's certificate was renewed"),
                    Err(error) => tracing::error!(%error, "could not renew the worker's certificate"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RENEWAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn renew_now(&self) -> Result<(), JoinError> {
        let key = PrivateKey::generate()?;
        let request = v1::RenewRequest {
            csr: key.request()?.into(),
        };
        let answer = JoinClient::new(self.connector.channel()).renew(request).await;
        let answer = answer.map_err(|status| JoinError::Refused(Box::new(status)))?.into_inner();
        let ca = CaCertificate::from_der(&answer.ca_certificate)?;
        let identity = Identity::new(&key, &answer.certificate, ca)?;
        identity.save(&self.folder.join("identity"))?;
        self.identity.replace(identity)?;
        Ok(())
    }
}

/// Each worker begins with another coordinator, so that they do not all go to the first.
fn turned(mut addresses: Vec<String>, number: u64) -> Vec<String> {
    if !addresses.is_empty() {
        let by = number % addresses.len() as u64;
        addresses.rotate_left(usize::try_from(by).expect("below the length"));
    }
    addresses
}

/// The channels of a [`Member`]: one that is kept until another coordinator is to be tried.
pub struct MemberChannels {
    member: Member,
    current: Mutex<Option<Channel>>,
}

impl MemberChannels {
    /// Of a worker.
    pub fn new(member: Member) -> Self {
        Self {
            member,
            current: Mutex::new(None),
        }
    }
}

impl Channels for MemberChannels {
    fn channel(&self) -> Channel {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.get_or_insert_with(|| self.member.connector.channel()).clone()
    }

    fn skip(&self) {
        self.member.connector.skip();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_begin_with_different_coordinators() {
        let addresses = || ["a:1", "b:1", "c:1"].map(String::from).to_vec();
        assert_eq!(turned(addresses(), 4), ["b:1", "c:1", "a:1"]);
        assert_eq!(turned(addresses(), 6), ["a:1", "b:1", "c:1"]);
        assert_eq!(turned(Vec::new(), 6), Vec::<String>::new());
    }
}
