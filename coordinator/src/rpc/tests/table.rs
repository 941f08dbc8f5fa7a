//! Every method, called by everybody, through the real listeners. Behind the gate stands a service that says that it was reached, and nothing else: so
//! what is tested is the gate's alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt as _;
use tresor_proto::ids::MemberId;
use tresor_proto::tls::inside::{Doorway, doorway};
use tresor_proto::tls::{Role, SharedIdentity, local};
use tresor_proto::token::ApiToken;
use tresor_proto::v1::ErrorInfo;

use super::super::gate::Gate;
use super::super::metrics::{Around, Metrics, Watching};
use super::super::permissions::{Access, LOCAL, PERMISSIONS};
use super::super::server::{Listeners, run};
use super::super::testing::{Cluster, Stop, listener, stranger};
use crate::node::testing::TestNode;
use crate::security::{Authority, Role as PersonRole};
use crate::state::command::{Command, MemberSpec};
use crate::state::entry::Time;
use crate::testing::Acts as _;

const REACHED: &str = "test-reached";

/// Answers everything with the caller that it was told of.
fn reached() -> Routes {
    let answer = |request: axum::extract::Request| async move {
        let caller = request.extensions().get::<super::super::Caller>();
        let caller = caller.map_or_else(String::new, |caller| format!("{}/{}", caller.name, caller.role));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        headers.insert(REACHED, HeaderValue::from_str(&caller).unwrap());
        headers
    };
    Routes::from(axum::Router::new().fallback(answer))
}

/// What a call came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The service was reached, with this caller.
    Reached(String),
    /// It was not.
    Refused(Code, String, ErrorInfo),
    /// There was no connection to speak over.
    NoConnection,
}

fn with_token(token: &ApiToken) -> HeaderMap {
    let mut metadata = MetadataMap::new();
    token.attach(&mut metadata);
    metadata.into_headers()
}

async fn call(channel: &Channel, path: &str, headers: &HeaderMap) -> Outcome {
    let mut request = Request::post(path).body(Body::empty()).unwrap();
    *request.headers_mut() = headers.clone();
    request
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let Ok(response) = channel.clone().oneshot(request).await else {
        return Outcome::NoConnection;
    };
    if let Some(caller) = response.headers().get(REACHED) {
        return Outcome::Reached(caller.to_str().unwrap().to_owned());
    }
    let status = Status::from_header_map(response.headers()).expect("a refusal has a status");
    let info = <ErrorInfo as prost::Message>::decode(status.details()).unwrap();
    Outcome::Refused(status.code(), status.message().to_owned(), info)
}

/// A coordinator that leads, with its gate before [`reached`].
struct Served {
    cluster: Cluster,
    node: TestNode,
    address: String,
    socket: std::path::PathBuf,
    doorway: Doorway,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
    _stop: Stop,
}

async fn serve() -> Served {
    let cluster = Cluster::new();
    let (network, address) = listener().await;
    let node = cluster.found(&address);
    let identity = cluster.identity(Role::Coordinator, 1);
    let metrics = Arc::new(Metrics::new());
    let stop = CancellationToken::new();
    let gate = Gate::new(
        node.handle.clone(),
        identity.clone(),
        Arc::clone(&metrics),
        stop.clone(),
    );
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/socket");
    let (doorway, inside) = doorway();
    let listeners = Listeners {
        network: Some(network),
        inside: Some(inside),
        local: Some(local::listen(&socket).unwrap()),
        http: None,
    };
    let watched = Arc::new(Watching {
        services: cluster.services(&node),
        metrics: Arc::clone(&metrics),
        around: Around {
            identity: identity.clone(),
            folder: None,
        },
        beside: None,
    });
    let (handle, stopping) = (node.handle.clone(), stop.clone());
    tokio::spawn(async move { run(listeners, &identity, handle, watched, gate, reached(), stopping).await });
    Served {
        cluster,
        node,
        address,
        socket,
        doorway,
        metrics,
        _folder: folder,
        _stop: Stop(stop),
    }
}

/// Checks a caller against every row of the table; `role`: as what it is let in.
async fn check_all(who: &str, channel: &Channel, headers: &HeaderMap, role: &str) {
    for (path, access) in PERMISSIONS {
        let outcome = call(channel, path, headers).await;
        let is_reached = matches!(outcome, Outcome::Reached(_));
        assert_eq!(is_reached, access.is_given_to(role), "{who} calls {path}: {outcome:?}");
        match &outcome {
            Outcome::Refused(code, _, info) => {
                assert_eq!(info.kind, "denied", "{who} calls {path}: {outcome:?}");
                // Who is known is denied; who is not is asked who they are.
                let wanted = if role.is_empty() {
                    Code::Unauthenticated
                } else {
                    Code::PermissionDenied
                };
                assert_eq!(*code, wanted, "{who} calls {path}: {outcome:?}");
            }
            // A service knows who calls, except where nobody was asked.
            Outcome::Reached(caller) if *access != Access::Anyone => {
                assert!(caller.ends_with(&format!("/{role}")), "{who} calls {path}: {caller}");
            }
            Outcome::Reached(caller) => assert_eq!(caller, "", "{who} calls {path}"),
            Outcome::NoConnection => panic!("{who} calls {path}: no connection"),
        }
    }
}

#[tokio::test]
async fn everybody_may_what_the_table_says_and_nothing_else() {
    let mut served = serve().await;
    let cluster = &served.cluster;
    let node = &mut served.node;
    let program = cluster.program(&served.address);
    // Who is let in.
    for role in PersonRole::ALL {
        let token = cluster.token(node, role.as_str(), None);
        check_all(role.as_str(), &program, &with_token(&token), role.as_str()).await;
    }
    let (worker, identity) = cluster.worker(node, "w1");
    let channel = cluster.node(&served.address, identity);
    check_all("a worker", &channel, &HeaderMap::new(), "worker").await;
    let admin = cluster.token(node, "admin", None);
    check_all("a worker with a token", &channel, &with_token(&admin), "worker").await;
    let member = cluster.node(&served.address, cluster.identity(Role::Coordinator, 1));
    check_all("a coordinator", &member, &HeaderMap::new(), "coordinator").await;
    check_all(
        "a coordinator with a token",
        &member,
        &with_token(&admin),
        "coordinator",
    )
    .await;
    let socket = local::channel(&served.socket);
    check_all("the local user", &socket, &HeaderMap::new(), LOCAL).await;
    check_all(
        "the local user with a token",
        &socket,
        &with_token(&ApiToken::random().unwrap()),
        LOCAL,
    )
    .await;
    let inside = served.doorway.user(1000);
    check_all("the user within this process", &inside, &HeaderMap::new(), LOCAL).await;
    let inside = served.doorway.worker(worker.0);
    check_all("the worker within this process", &inside, &with_token(&admin), "worker").await;
    let unknown = served.doorway.worker(4711);
    check_all(
        "a worker within this process that nobody knows",
        &unknown,
        &HeaderMap::new(),
        "",
    )
    .await;
    // A coordinator whose entry this member has not applied yet: its certificate was made after it.
    let newer = cluster.node(&served.address, cluster.identity(Role::Coordinator, 99));
    check_all("a newer coordinator", &newer, &HeaderMap::new(), "coordinator").await;
    // Who is not.
    check_all("nobody", &program, &HeaderMap::new(), "").await;
    let unknown = cluster.node(&served.address, cluster.identity(Role::Worker, 4711));
    check_all("a worker that nobody knows", &unknown, &HeaderMap::new(), "").await;
    // Removed while its connection stands.
    node.does(Command::RemoveWorker { worker });
    check_all("a removed worker", &channel, &HeaderMap::new(), "").await;
    check_all("a removed worker within this process", &inside, &HeaderMap::new(), "").await;
}

#[tokio::test]
async fn who_was_removed_or_is_of_another_authority_gets_no_connection() {
    let mut served = serve().await;
    let cluster = &served.cluster;
    let node = &mut served.node;
    let (worker, identity) = cluster.worker(node, "w1");
    let join = |name: &str, address: &str| {
        Command::AddMember(MemberSpec {
            member: MemberId(0),
            name: name.to_owned(),
            address: address.to_owned(),
            token: None,
        })
    };
    let member = node.makes(join("c2", "c2:1"));
    node.does(Command::RemoveWorker { worker });
    node.does(Command::RemoveMember {
        member: MemberId(member),
    });
    let removed = cluster.identity(Role::Coordinator, member);
    let strangers = [
        SharedIdentity::new(stranger(Role::Worker, worker.0)),
        SharedIdentity::new(stranger(Role::Coordinator, 1)),
    ];
    let other_cluster = Authority::create([0x22; 16], super::super::testing::now_seconds()).unwrap();
    let name = tresor_proto::tls::PeerName {
        cluster: [0x22; 16],
        role: Role::Worker,
        id: worker.0,
    };
    let elsewhere = other_cluster
        .identity(name, super::super::testing::now_seconds())
        .unwrap();
    let all = [identity, removed]
        .into_iter()
        .chain(strangers)
        .chain([SharedIdentity::new(elsewhere)]);
    for identity in all {
        let who = format!("{}", identity.current().name());
        let channel = cluster.node(&served.address, identity);
        for path in [
            "/tresor.v1.Agent/Beat",
            "/tresor.v1.Peer/Messages",
            "/grpc.health.v1.Health/Check",
        ] {
            assert_eq!(
                call(&channel, path, &HeaderMap::new()).await,
                Outcome::NoConnection,
                "{who}"
            );
        }
    }
}

/// Tokens that are not good, and what their hint says.
fn bad_tokens(cluster: &Cluster, node: &mut TestNode) -> Vec<(&'static str, HeaderMap, &'static str)> {
    let ended = cluster.token(node, "admin", Some(Time(node.clock().0 + 1000)));
    let revoked = cluster.token(node, "admin", None);
    cluster.revoke(node, revoked.id);
    let good = cluster.token(node, "admin", None);
    let other_secret = ApiToken {
        id: good.id,
        ..ApiToken::random().unwrap()
    };
    let join = cluster.join_token(node, "worker", Time(i64::MAX), 1);
    let as_api = ApiToken {
        id: join.id,
        secret: join.secret.clone(),
    };
    let text = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", text.parse().unwrap());
        headers
    };
    let mut join_text = HeaderMap::new();
    let value = format!("Bearer {}", *join.reveal());
    join_text.insert("authorization", value.parse().unwrap());
    vec![
        ("an ended token", with_token(&ended), "time is over"),
        ("a revoked token", with_token(&revoked), "revoked"),
        (
            "an unknown token",
            with_token(&ApiToken::random().unwrap()),
            "nobody knows it",
        ),
        ("a wrong secret", with_token(&other_secret), "secret is another"),
        ("a join token's secret", with_token(&as_api), "join token"),
        ("a join token", join_text, "not an API token"),
        ("a password", text("Basic YTpi"), "no bearer token"),
        ("rubbish", text("Bearer rubbish"), "not an API token"),
    ]
}

#[tokio::test]
async fn a_token_that_is_not_good_opens_nothing_and_only_the_hint_says_why() {
    let mut served = serve().await;
    let tokens = bad_tokens(&served.cluster, &mut served.node);
    let mut texts = BTreeMap::new();
    for (who, headers, hint) in tokens {
        // From another address each, so that nobody waits for others' mistakes.
        let program = served.cluster.program(&served.address);
        let outcome = call(&program, "/tresor.v1.Admin/WhoAmI", &headers).await;
        let Outcome::Refused(Code::Unauthenticated, text, info) = outcome else {
            panic!("{who}: {outcome:?}");
        };
        assert!(info.hint.contains(hint), "{who}: {info:?}");
        assert_eq!(info.kind, "denied");
        texts.insert(text, who);
        // Where nobody is asked, a bad token does not matter.
        let health = call(&program, "/grpc.health.v1.Health/Check", &headers).await;
        assert_eq!(health, Outcome::Reached(String::new()), "{who}");
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn every_method_is_closed_to_every_bad_token() {
    let mut served = serve().await;
    for (who, headers, _) in bad_tokens(&served.cluster, &mut served.node) {
        let program = served.cluster.program(&served.address);
        for (path, access) in PERMISSIONS {
            let outcome = call(&program, path, &headers).await;
            match (access, &outcome) {
                // Unless this address has to wait by now.
                (Access::Anyone, Outcome::Reached(_) | Outcome::Refused(Code::ResourceExhausted, ..)) => {}
                (Access::With(_), Outcome::Refused(Code::Unauthenticated | Code::ResourceExhausted, ..)) => {}
                _ => panic!("{who} calls {path}: {outcome:?}"),
            }
        }
    }
}

#[tokio::test]
async fn who_fails_often_waits_and_who_was_good_there_does_not() {
    let mut served = serve().await;
    let known = served.cluster.token(&mut served.node, "admin", None);
    let later = served.cluster.token(&mut served.node, "admin", None);
    let program = served.cluster.program(&served.address);
    let path = "/tresor.v1.Admin/WhoAmI";
    let is_good = |outcome: &Outcome| matches!(outcome, Outcome::Reached(_));
    assert!(is_good(&call(&program, path, &with_token(&known)).await));
    let mut answers = Vec::new();
    for _ in 0..20 {
        let guess = with_token(&ApiToken::random().unwrap());
        match call(&program, path, &guess).await {
            Outcome::Refused(code, ..) => answers.push(code),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers[0], Code::Unauthenticated);
    assert_eq!(answers[19], Code::ResourceExhausted);
    assert!(
        is_good(&call(&program, path, &with_token(&known)).await),
        "it was good here before"
    );
    let outcome = call(&program, path, &with_token(&later)).await;
    assert!(
        matches!(outcome, Outcome::Refused(Code::ResourceExhausted, ..)),
        "{outcome:?}"
    );
    // Nodes and the local user are not kept waiting by whom they share an address with.
    let (_, identity) = served.cluster.worker(&mut served.node, "w1");
    let worker = served.cluster.node(&served.address, identity);
    assert!(is_good(
        &call(&worker, "/tresor.v1.Agent/Beat", &HeaderMap::new()).await
    ));
    assert!(is_good(
        &call(&local::channel(&served.socket), path, &HeaderMap::new()).await
    ));
    let families = served.metrics.registry().gather();
    let text = prometheus::TextEncoder::new().encode_to_string(&families).unwrap();
    for reason in ["guesses", "token"] {
        let none = format!(r#"requests_denied_total{{reason="{reason}"}} 0"#);
        assert!(!text.contains(&none), "{text}");
    }
}

#[tokio::test]
async fn nobody_but_a_coordinator_says_for_whom_they_speak() {
    let mut served = serve().await;
    let admin = served.cluster.token(&mut served.node, "admin", None);
    let (_, identity) = served.cluster.worker(&mut served.node, "w1");
    let worker = served.cluster.node(&served.address, identity);
    let program = served.cluster.program(&served.address);
    let caller = super::super::Caller {
        actor: crate::state::entry::Actor::Token(admin.id),
        name: String::from("admin token"),
        role: String::from("admin"),
    };
    let named = super::super::forward::testing::naming(&caller);
    let path = "/tresor.v1.Admin/WhoAmI";
    for channel in [&worker, &program] {
        let outcome = call(channel, path, &named).await;
        assert!(
            matches!(outcome, Outcome::Refused(Code::PermissionDenied, ..)),
            "{outcome:?}"
        );
    }
    let member = served
        .cluster
        .node(&served.address, served.cluster.identity(Role::Coordinator, 1));
    assert_eq!(
        call(&member, path, &named).await,
        Outcome::Reached(String::from("admin token/admin"))
    );
    // The role is the one of the row, whatever the one that hands on believes; and what was revoked is revoked.
    let auditor = served.cluster.token(&mut served.node, "auditor", None);
    let believed = super::super::Caller {
        actor: crate::state::entry::Actor::Token(auditor.id),
        ..caller.clone()
    };
    let named = super::super::forward::testing::naming(&believed);
    assert_eq!(
        call(&member, path, &named).await,
        Outcome::Reached(String::from("admin token/auditor"))
    );
    served.cluster.revoke(&mut served.node, auditor.id);
    let outcome = call(&member, path, &named).await;
    assert!(
        matches!(outcome, Outcome::Refused(Code::Unauthenticated, ..)),
        "{outcome:?}"
    );
    for actor in [crate::state::entry::Actor::Cluster, crate::state::entry::Actor::Founder] {
        let nobody = super::super::Caller {
            actor,
            ..caller.clone()
        };
        let outcome = call(&member, path, &super::super::forward::testing::naming(&nobody)).await;
        assert!(matches!(outcome, Outcome::Refused(..)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_method_without_a_row_is_refused_whoever_calls() {
    let mut served = serve().await;
    let admin = served.cluster.token(&mut served.node, "admin", None);
    let program = served.cluster.program(&served.address);
    for path in [
        "/tresor.v1.Admin/whoami",
        "/tresor.v1.Admin/",
        "/tresor.v1.Secret/Get",
        "/",
        "/metrics",
    ] {
        let outcome = call(&program, path, &with_token(&admin)).await;
        let Outcome::Refused(Code::Unimplemented, _, info) = outcome else {
            panic!("{path}: {outcome:?}");
        };
        assert_eq!(info.kind, "invalid");
    }
}
