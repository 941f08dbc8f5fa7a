//! A server from its beginning to its end.

use std::time::{Duration, Instant};

use http::{HeaderValue, Request as HttpRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::body::Body;
use tower::ServiceExt as _;
use tresor_proto::tls::{Role, local};
use tresor_proto::v1;
use tresor_proto::v1::agent_client::AgentClient;
use tresor_proto::v1::peer_client::PeerClient;

use super::super::permissions::{Access, PERMISSIONS};
use super::super::server::{Listeners, Served, serve};
use super::super::testing::{Cluster, listener};
use super::forwarding::{NoPeer, any_job, member};
use crate::security::Permission;
use crate::testing::LIFE;

/// One page over HTTP/1.1: its status and its text.
async fn page(address: &str, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split("\r\n\r\n").nth(1).unwrap().to_owned())
}

#[tokio::test]
async fn every_method_of_the_table_is_served() {
    let cluster = Cluster::new();
    let (network, address) = listener().await;
    let mut node = cluster.found(&address);
    let listeners = Listeners {
        network: Some(network),
        ..Listeners::default()
    };
    let _stop = member(&cluster, &node, 1, listeners).await;
    let admin = cluster.token(&mut node, "admin", None);
    let (_, identity) = cluster.worker(&mut node, "w1");
    let worker = cluster.node(&address, identity);
    let coordinator = cluster.node(&address, cluster.identity(Role::Coordinator, 1));
    let program = cluster.program(&address);
    for (path, access) in PERMISSIONS {
        let channel = match access {
            Access::With(Permission::Agent | Permission::Renew) => &worker,
            Access::With(Permission::Peer) => &coordinator,
            _ => &program,
        };
        // One empty message.
        let frame = tonic::body::Body::new(axum::body::Body::from(vec![0; 5]));
        let mut request: HttpRequest<Body> = HttpRequest::post(*path).body(frame).unwrap();
        let mut metadata = tonic::metadata::MetadataMap::new();
        admin.attach(&mut metadata);
        *request.headers_mut() = metadata.into_headers();
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        let response = channel.clone().oneshot(request).await.unwrap();
        let code = tonic::Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        let is_closed = [Code::Unimplemented, Code::Unauthenticated, Code::PermissionDenied];
        // A join without a token is refused by the service itself.
        let is_open = !is_closed.contains(&code) || (*path == "/tresor.v1.Join/Join" && code == Code::Unauthenticated);
        assert!(is_open, "{path}: {code:?}");
    }
}

#[tokio::test]
async fn the_pages_say_whether_a_member_lives_is_of_use_and_how_much_it_does() {
    let cluster = Cluster::new();
    let (network, address) = listener().await;
    let (http, pages) = listener().await;
    let mut node = cluster.found(&address);
    let listeners = Listeners {
        network: Some(network),
        http: Some(http),
        ..Listeners::default()
    };
    let _stop = member(&cluster, &node, 1, listeners).await;
    assert_eq!(page(&pages, "/healthz").await, (200, String::from("ok\n")));
    assert_eq!(page(&pages, "/readyz").await, (200, String::from("ready\n")));
    assert_eq!(page(&pages, "/").await.0, 404);
    let token = cluster.token(&mut node, "read-only", None);
    let mut request = tonic::Request::new(v1::WhoAmIRequest {});
    token.attach(request.metadata_mut());
    v1::admin_client::AdminClient::new(cluster.program(&address))
        .who_am_i(request)
        .await
        .unwrap();
    let (status, text) = page(&pages, "/metrics").await;
    assert_eq!(status, 200);
    let applied = node.entries().len();
    for line in [
        String::from(r#"tresor_coordinator_requests_total{code="ok",method="WhoAmI",service="Admin"} 1"#),
        format!("tresor_coordinator_applied_index {applied}"),
        String::from("tresor_coordinator_is_leader 1"),
        String::from(r#"tresor_coordinator_members{role="voter"} 1"#),
    ] {
        assert!(text.contains(&line), "{line}\nis not in\n{text}");
    }
    // Nothing secret is shown, whoever asks.
    assert!(!text.contains(&token.id.to_string()));
    node.forget_leader();
    assert_eq!(
        page(&pages, "/readyz").await,
        (503, String::from("no leader is known\n"))
    );
    assert_eq!(page(&pages, "/healthz").await.0, 200);
}

#[tokio::test]
async fn a_stop_is_bounded_whoever_still_waits_for_something() {
    let cluster = Cluster::new();
    let (network, address) = listener().await;
    let (http, pages) = listener().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/socket");
    let mut node = cluster.found(&address);
    let (_, identity) = cluster.worker(&mut node, "w1");
    let stop = tokio_util::sync::CancellationToken::new();
    let served = Served {
        services: cluster.services(&node),
        key: cluster.key.clone(),
        identity: cluster.identity(Role::Coordinator, 1),
        keys_here: None,
        placement: std::sync::Arc::new(any_job),
        peer: NoPeer,
        metrics: std::sync::Arc::default(),
        folder: None,
        beside: None,
    };
    let listeners = Listeners {
        network: Some(network),
        inside: None,
        local: Some(local::listen(&socket).unwrap()),
        http: Some(http),
    };
    let server = tokio::spawn(serve(listeners, served, stop.clone()));
    // A worker that waits for work, a coordinator that sends for ever, a scraper that says nothing, a person that watches.
    let mut agent = AgentClient::new(cluster.node(&address, identity));
    let waiting = tokio::spawn(async move {
        let request = v1::NextLeaseRequest {
            life: LIFE.to_vec().into(),
            free: 0,
            wait_ms: 30_000,
        };
        agent.next_lease(request).await
    });
    let mut peer = PeerClient::new(cluster.node(&address, cluster.identity(Role::Coordinator, 1)));
    let sending = tokio::spawn(async move { peer.messages(tokio_stream::pending()).await });
    let mut silent = tokio::net::TcpStream::connect(&pages).await.unwrap();
    let job = crate::testing::Acts::adds_vault(&mut node, crate::testing::MAIN, "main");
    let mut watching = v1::admin_client::AdminClient::new(local::channel(&socket))
        .watch_job(v1::WatchJobRequest { id: job.0 })
        .await
        .unwrap()
        .into_inner();
    watching.message().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished() && !sending.is_finished() && !server.is_finished());
    let begun = Instant::now();
    stop.cancel();
    server.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(sending.await.unwrap().unwrap_err().code(), Code::Unavailable);
    // Whatever is left is cut: nobody waits for a server that is gone.
    let silence = tokio::time::timeout(Duration::from_secs(5), silent.read(&mut [0; 1])).await;
    assert!(!matches!(silence, Ok(Ok(1)) | Err(_)), "{silence:?}");
    let end = tokio::time::timeout(Duration::from_secs(5), async {
        while let Ok(Some(_)) = watching.message().await {}
    });
    assert!(end.await.is_ok());
    assert!(
        tokio::net::TcpStream::connect(&address).await.is_err(),
        "nobody listens any more"
    );
}
