//! Handshakes over loopback: who is let in, who is not, and what the other side is told.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tresor_coordinator::security::Authority;
use tresor_proto::tls::{
    Acceptor, Connection, Connector, HandshakeLimits, Identity, NothingRevoked, PeerCertificate, PeerInfo, PeerName,
    PrivateKey, Refusal, Revocations, Role, SharedIdentity, Trust, Validity, VerifyError, first_contact, http2, local,
    refusal,
};

const CLUSTER: [u8; 16] = [0x5a; 16];
const DAY: i64 = 24 * 60 * 60;
const COORDINATOR: PeerName = PeerName {
    cluster: CLUSTER,
    role: Role::Coordinator,
    id: 1,
};
const WORKER: PeerName = PeerName {
    cluster: CLUSTER,
    role: Role::Worker,
    id: 7,
};

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn authority() -> Authority {
    Authority::create(CLUSTER, now()).unwrap()
}

/// A certificate that was good a year ago.
fn expired(authority: &Authority, name: PeerName) -> Identity {
    let key = PrivateKey::generate().unwrap();
    let validity = Validity {
        not_before: now() - 400 * DAY,
        not_after: now() - 370 * DAY,
    };
    let issued = authority.issue_for(&key.request().unwrap(), name, validity).unwrap();
    Identity::new(&key, &issued.der, authority.certificate().clone()).unwrap()
}

/// The same authority, for another cluster: what a second name would be.
fn renamed(authority: &Authority, cluster: [u8; 16]) -> Authority {
    let mut bytes = authority.encode().unwrap();
    bytes[1..17].copy_from_slice(&cluster);
    Authority::decode(&bytes).unwrap()
}

/// Node numbers that were removed.
#[derive(Default)]
struct Removed(Mutex<BTreeSet<u64>>);

impl Revocations for Removed {
    fn is_revoked(&self, peer: &PeerCertificate) -> bool {
        self.0.lock().unwrap().contains(&peer.name.id)
    }
}

/// A health service that asks about its callers again with each request, and remembers them.
struct Server {
    address: String,
    identity: SharedIdentity,
    removed: Arc<Removed>,
    callers: Arc<Mutex<Vec<PeerInfo>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve(
    incoming: impl Stream<Item = io::Result<Connection>> + Send + 'static,
    removed: Arc<Removed>,
    callers: Arc<Mutex<Vec<PeerInfo>>>,
) -> JoinHandle<()> {
    let health = HealthService::from_health_reporter(HealthReporter::new());
    let service = HealthServer::with_interceptor(health, move |request: Request<()>| {
        let peer = PeerInfo::of(&request).ok_or_else(|| Status::internal("no peer"))?;
        callers.lock().unwrap().push(peer.clone());
        peer.check(&*removed, now())
            .map_err(|e| Status::permission_denied(e.to_string()))?;
        Ok(request)
    });
    let router = http2::server().add_service(service);
    tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() })
}

impl Server {
    async fn start(identity: Identity) -> Self {
        Self::start_with(identity, HandshakeLimits::default(), "127.0.0.1:0").await
    }

    async fn start_with(identity: Identity, limits: HandshakeLimits, address: &str) -> Self {
        let identity = SharedIdentity::new(identity);
        let removed = Arc::new(Removed::default());
        let callers = Arc::new(Mutex::new(Vec::new()));
        let revocations: Arc<dyn Revocations> = removed.clone();
        let acceptor = Acceptor::new(&identity, revocations).unwrap().with_limits(limits);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = serve(acceptor.incoming(listener), Arc::clone(&removed), Arc::clone(&callers));
        Self {
            address,
            identity,
            removed,
            callers,
            task,
        }
    }

    fn last_caller(&self) -> PeerInfo {
        self.callers.lock().unwrap().last().unwrap().clone()
    }
}

fn trust(authority: &Authority) -> Trust {
    Trust::any_coordinator(authority.certificate().clone(), CLUSTER)
}

fn program(address: &str, authority: &Authority) -> Connector {
    Connector::new(vec![address.to_owned()], trust(authority)).unwrap()
}

fn node(address: &str, trust: Trust, identity: &SharedIdentity) -> Connector {
    Connector::with_identity(
        vec![address.to_owned()],
        trust,
        identity.clone(),
        Arc::new(NothingRevoked),
    )
    .unwrap()
}

async fn call(channel: &Channel) -> Result<(), Status> {
    let request = HealthCheckRequest { service: String::new() };
    let mut client = HealthClient::new(channel.clone());
    let call = client.check(request);
    tokio::time::timeout(Duration::from_secs(20), call)
        .await
        .unwrap()
        .map(drop)
}

/// Why a connector does not connect, found under what the channel says.
async fn refused(connector: &Connector) -> Option<Refusal> {
    let status = call(&connector.channel()).await.unwrap_err();
    let direct = refusal(&connector.connect().await.unwrap_err());
    assert_eq!(refusal(&status), direct, "a channel says the same: {status:?}");
    direct
}

/// Why a server does not take this node. With TLS 1.3 a client is through before the server has looked at its certificate; it learns of it when
/// it reads.
async fn refused_by_server(connector: &Connector) -> Option<Refusal> {
    call(&connector.channel()).await.unwrap_err();
    let mut stream = connector.connect().await.unwrap();
    refusal(&stream.read_u8().await.unwrap_err())
}

#[tokio::test]
async fn a_node_with_a_certificate_is_known_by_its_name() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let identity = SharedIdentity::new(authority.identity(WORKER, now()).unwrap());
    let connector = node(&server.address, trust(&authority), &identity);
    call(&connector.channel()).await.unwrap();
    let PeerInfo::Remote { address, certificate } = server.last_caller() else {
        panic!("not remote");
    };
    assert!(address.ip().is_loopback());
    assert_eq!(certificate.as_ref(), Some(identity.current().certificate()));
    assert_eq!(server.last_caller().name(), Some(WORKER));
    assert_eq!(connector.connected_to().as_ref(), Some(&server.address));
}

#[tokio::test]
async fn a_program_without_a_certificate_is_let_in_as_nobody() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    call(&program(&server.address, &authority).channel()).await.unwrap();
    let caller = server.last_caller();
    assert!(matches!(caller, PeerInfo::Remote { certificate: None, .. }));
    assert_eq!(caller.name(), None);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let server = Server::start(theirs.identity(COORDINATOR, now()).unwrap()).await;
    assert_eq!(
        refused(&program(&server.address, &ours)).await,
        Some(Refusal::Untrusted)
    );
    assert!(server.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_not_taken_for_nobody() {
    let ours = authority();
    let server = Server::start(ours.identity(COORDINATOR, now()).unwrap()).await;
    // Authorities are named after their clusters: one with another name, and one that borrows ours.
    let cluster = [0xa5; 16];
    let stranger = Authority::create(cluster, now()).unwrap();
    let stranger = stranger.identity(PeerName { cluster, ..WORKER }, now()).unwrap();
    let impostor = authority().identity(WORKER, now()).unwrap();
    for (identity, alert) in [
        (stranger, AlertDescription::UnknownCA),
        (impostor, AlertDescription::DecryptError),
    ] {
        let connector = node(&server.address, trust(&ours), &SharedIdentity::new(identity));
        assert_eq!(
            refused_by_server(&connector).await,
            Some(Refusal::CertificateRefused(alert))
        );
    }
    assert!(server.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_has_expired_is_refused_on_both_sides() {
    let authority = authority();
    let server = Server::start(expired(&authority, COORDINATOR)).await;
    assert_eq!(
        refused(&program(&server.address, &authority)).await,
        Some(Refusal::Expired)
    );

    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let identity = SharedIdentity::new(expired(&authority, WORKER));
    let connector = node(&server.address, trust(&authority), &identity);
    assert_eq!(
        refused_by_server(&connector).await,
        Some(Refusal::CertificateRefused(AlertDescription::CertificateExpired))
    );
    assert!(server.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_certificate_of_tomorrow_is_refused() {
    let authority = authority();
    let key = PrivateKey::generate().unwrap();
    let validity = Validity {
        not_before: now() + DAY,
        not_after: now() + 2 * DAY,
    };
    let issued = authority
        .issue_for(&key.request().unwrap(), COORDINATOR, validity)
        .unwrap();
    let identity = Identity::new(&key, &issued.der, authority.certificate().clone()).unwrap();
    let server = Server::start(identity).await;
    assert_eq!(
        refused(&program(&server.address, &authority)).await,
        Some(Refusal::NotYetValid)
    );
}

#[tokio::test]
async fn a_worker_that_answers_where_a_coordinator_is_expected_is_refused() {
    let authority = authority();
    let server = Server::start(authority.identity(WORKER, now()).unwrap()).await;
    assert_eq!(
        refused(&program(&server.address, &authority)).await,
        Some(Refusal::Peer(VerifyError::Role {
            found: WORKER,
            expected: Role::Coordinator
        }))
    );
    // Who wants that worker gets it, and who wants another does not.
    let ca = authority.certificate().clone();
    let exactly = |name| Connector::new(vec![server.address.clone()], Trust::exactly(ca.clone(), name)).unwrap();
    call(&exactly(WORKER).channel()).await.unwrap();
    assert_eq!(
        refused(&exactly(PeerName { id: 8, ..WORKER })).await,
        Some(Refusal::Peer(VerifyError::Id {
            found: WORKER,
            expected: 8
        }))
    );
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_though_the_authority_is_the_same() {
    let authority = authority();
    let other = renamed(&authority, [0xa5; 16]);
    let foreign = |name| PeerName {
        cluster: [0xa5; 16],
        ..name
    };
    let server = Server::start(other.identity(foreign(COORDINATOR), now()).unwrap()).await;
    assert_eq!(
        refused(&program(&server.address, &authority)).await,
        Some(Refusal::Peer(VerifyError::Cluster {
            found: foreign(COORDINATOR),
            expected: CLUSTER
        }))
    );

    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let identity = SharedIdentity::new(other.identity(foreign(WORKER), now()).unwrap());
    let connector = node(&server.address, trust(&authority), &identity);
    assert!(matches!(
        refused_by_server(&connector).await,
        Some(Refusal::CertificateRefused(_))
    ));
    assert!(server.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_removed_node_is_refused_at_once_and_on_the_connection_that_it_has() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let identity = SharedIdentity::new(authority.identity(WORKER, now()).unwrap());
    let connector = node(&server.address, trust(&authority), &identity);
    let channel = connector.channel();
    call(&channel).await.unwrap();
    let PeerInfo::Remote { address, .. } = server.last_caller() else {
        panic!("not remote");
    };
    server.removed.0.lock().unwrap().insert(WORKER.id);
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert_eq!(status.message(), "worker 7 was removed from the cluster");
    assert!(
        matches!(server.last_caller(), PeerInfo::Remote { address: same, .. } if same == address),
        "it was the same connection"
    );
    assert_eq!(refused_by_server(&connector).await, Some(Refusal::Removed));
    // Others stay.
    let other = SharedIdentity::new(authority.identity(PeerName { id: 8, ..WORKER }, now()).unwrap());
    call(&node(&server.address, trust(&authority), &other).channel())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_removed_server_is_refused_by_who_knows() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let removed = Arc::new(Removed::default());
    let second = authority.identity(PeerName { id: 2, ..COORDINATOR }, now()).unwrap();
    let connector = Connector::with_identity(
        vec![server.address.clone()],
        trust(&authority),
        SharedIdentity::new(second),
        removed.clone(),
    )
    .unwrap();
    call(&connector.channel()).await.unwrap();
    removed.0.lock().unwrap().insert(COORDINATOR.id);
    assert_eq!(refused(&connector).await, Some(Refusal::PeerRemoved));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_by_the_next_handshake_on_both_sides() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let identity = SharedIdentity::new(authority.identity(WORKER, now()).unwrap());
    let connector = node(&server.address, trust(&authority), &identity);
    let channel = connector.channel();
    call(&channel).await.unwrap();
    let first = server.last_caller();
    let shown = async || {
        let stream = connector.connect().await.unwrap();
        let certificates = stream.get_ref().1.peer_certificates().unwrap();
        PeerCertificate::from_der(&certificates[0]).unwrap().fingerprint
    };
    let old = server.identity.current().certificate().fingerprint;
    assert_eq!(shown().await, old);

    let renewed = authority.identity(COORDINATOR, now()).unwrap();
    let new = renewed.certificate().fingerprint;
    server.identity.replace(renewed).unwrap();
    identity.replace(authority.identity(WORKER, now()).unwrap()).unwrap();
    assert_ne!(old, new);
    assert_eq!(shown().await, new);
    // What stands is left alone; what is made anew shows the new one.
    call(&channel).await.unwrap();
    assert_eq!(server.last_caller(), first);
    call(&connector.channel()).await.unwrap();
    assert_eq!(
        server.last_caller().certificate(),
        Some(identity.current().certificate())
    );
    assert_ne!(server.last_caller().certificate(), first.certificate());
}

#[tokio::test]
async fn first_contact_needs_the_fingerprint_and_brings_the_authority() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let addresses = [server.address.clone()];
    let contact = first_contact(&addresses, authority.fingerprint()).await.unwrap();
    assert_eq!(&contact.ca, authority.certificate());
    assert_eq!(contact.server.name, COORDINATOR);
    assert_eq!(contact.trust(), trust(&authority));
    let connector = Connector::new(addresses.to_vec(), contact.trust()).unwrap();
    call(&connector.channel()).await.unwrap();

    let other = Authority::create(CLUSTER, now()).unwrap().fingerprint();
    let error = first_contact(&addresses, other).await.unwrap_err();
    assert_eq!(
        refusal(&error),
        Some(Refusal::Peer(VerifyError::Fingerprint { expected: other }))
    );
    // A worker is no one to join by.
    let worker = Server::start(authority.identity(WORKER, now()).unwrap()).await;
    let error = first_contact(std::slice::from_ref(&worker.address), authority.fingerprint())
        .await
        .unwrap_err();
    assert!(matches!(refusal(&error), Some(Refusal::Peer(VerifyError::Role { .. }))));
    // The first address that will do is enough.
    let addresses = [worker.address.clone(), server.address.clone()];
    first_contact(&addresses, authority.fingerprint()).await.unwrap();
}

#[tokio::test]
async fn clients_that_say_nothing_block_nobody() {
    let authority = authority();
    let limits = HandshakeLimits {
        patience: Duration::from_millis(20),
        concurrent: 2,
        ..HandshakeLimits::default()
    };
    let identity = authority.identity(COORDINATOR, now()).unwrap();
    let server = Server::start_with(identity, limits, "127.0.0.1:0").await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let connector = program(&server.address, &authority);
    let begun = std::time::Instant::now();
    call(&connector.channel()).await.unwrap();
    assert!(
        begun.elapsed() < limits.time,
        "nobody waited for the time limit of those who say nothing"
    );
    // Those who had their chance were hung up on.
    let mut first = silent.remove(0);
    let read = tokio::time::timeout(limits.time / 2, first.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_ended() {
    let authority = authority();
    let limits = HandshakeLimits {
        time: Duration::from_millis(100),
        ..HandshakeLimits::default()
    };
    let identity = authority.identity(COORDINATOR, now()).unwrap();
    let server = Server::start_with(identity, limits, "127.0.0.1:0").await;
    let mut slow = TcpStream::connect(&server.address).await.unwrap();
    // The beginning of a record, which says that more will come.
    slow.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), slow.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    // Neither that nor noise hurts the listener.
    let mut noise = TcpStream::connect(&server.address).await.unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    call(&program(&server.address, &authority).channel()).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_until_others_go() {
    let authority = authority();
    let limits = HandshakeLimits {
        connections: 2,
        ..HandshakeLimits::default()
    };
    let identity = authority.identity(COORDINATOR, now()).unwrap();
    let server = Server::start_with(identity, limits, "127.0.0.1:0").await;
    let connector = program(&server.address, &authority);
    let (first, second) = (connector.channel(), connector.channel());
    call(&first).await.unwrap();
    call(&second).await.unwrap();
    call(&connector.channel()).await.unwrap_err();
    call(&first).await.unwrap();
    drop(second);
    let mut tries = 0;
    while call(&connector.channel()).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the place of a closed connection is free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_comes_without_a_certificate_cannot_take_the_room_of_nodes() {
    let authority = authority();
    let limits = HandshakeLimits {
        anonymous: 1,
        ..HandshakeLimits::default()
    };
    let identity = authority.identity(COORDINATOR, now()).unwrap();
    let server = Server::start_with(identity, limits, "127.0.0.1:0").await;
    let program = program(&server.address, &authority);
    let first = program.channel();
    call(&first).await.unwrap();
    call(&program.channel()).await.unwrap_err();
    let identity = SharedIdentity::new(authority.identity(WORKER, now()).unwrap());
    call(&node(&server.address, trust(&authority), &identity).channel())
        .await
        .unwrap();
    call(&first).await.unwrap();
}

/// A handshake with a configuration of the test's own, on a thread that may block.
async fn handshake(address: &str, config: Arc<ClientConfig>) -> Result<HandshakeKind, io::Error> {
    let address = address.to_owned();
    let handshake = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let name = ServerName::try_from("tresor.invalid").unwrap();
        let mut tls = ClientConnection::new(config, name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        // Whatever tickets there are come after the handshake.
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        while tls.read_tls(&mut stream).is_ok_and(|read| read > 0) {
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(tls.handshake_kind().unwrap())
    });
    handshake.await.unwrap()
}

#[tokio::test]
async fn who_speaks_tls_12_only_is_refused() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let error = handshake(&server.address, Arc::new(config)).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::ProtocolVersion));
}

/// Believes everybody, so that nothing but the server decides.
#[derive(Debug)]
struct Gullible;

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn no_session_is_resumed() {
    let authority = authority();
    let server = Server::start(authority.identity(COORDINATOR, now()).unwrap()).await;
    // A client that would like to: rustls keeps sessions unless told not to.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    for _ in 0..2 {
        let kind = handshake(&server.address, Arc::clone(&config)).await.unwrap();
        assert_ne!(kind, HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn a_channel_finds_the_address_that_answers_and_comes_back_after_a_restart() {
    let authority = authority();
    let identity = || authority.identity(COORDINATOR, now()).unwrap();
    // A runtime of its own, which ends as a process does: with all connections at once.
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = process.spawn(Server::start(identity())).await.unwrap();
    let impostor = Server::start(self::authority().identity(COORDINATOR, now()).unwrap()).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let addresses = vec![free.to_string(), impostor.address.clone(), server.address.clone()];
    let connector = Connector::new(addresses, trust(&authority)).unwrap();
    let channel = connector.channel();
    call(&channel).await.unwrap();
    assert_eq!(connector.connected_to().as_ref(), Some(&server.address));

    // Ends when its threads have, and with them the listener: the address is free.
    tokio::task::spawn_blocking(move || process.shutdown_timeout(Duration::from_secs(10)))
        .await
        .unwrap();
    let mut tries = 0;
    while call(&channel).await.is_ok() {
        tries += 1;
        assert!(tries < 100, "the server is gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let address = server.address.clone();
    let server = Server::start_with(identity(), HandshakeLimits::default(), &address).await;
    call(&channel).await.unwrap();
    assert_eq!(server.callers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_local_socket_says_which_user_calls() {
    use std::os::unix::fs::MetadataExt as _;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let channel = local::channel(&path);
    call(&channel).await.unwrap_err();
    let callers = Arc::new(Mutex::new(Vec::new()));
    let incoming = local::listen(&path).unwrap();
    let task = serve(incoming, Arc::new(Removed::default()), Arc::clone(&callers));
    call(&channel).await.unwrap();
    let uid = std::fs::metadata(dir.path()).unwrap().uid();
    assert_eq!(*callers.lock().unwrap(), [PeerInfo::Local { uid }]);
    task.abort();
}

#[tokio::test]
async fn an_identity_that_was_saved_serves_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    authority
        .identity(COORDINATOR, now())
        .unwrap()
        .save(dir.path())
        .unwrap();
    let identity = Identity::load(dir.path()).unwrap().unwrap();
    let server = Server::start(identity).await;
    call(&program(&server.address, &authority).channel()).await.unwrap();
}
