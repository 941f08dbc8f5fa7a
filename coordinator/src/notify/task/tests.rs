//! Real receivers: an HTTP server, and a server of mail.

use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::node::presence::Presence;
use crate::node::testing::TestNode;
use crate::notify::decide::GROUP_MS;
use crate::rpc::context::Clock;
use crate::security::ClusterKey;
use crate::state::channels::{Cause, ChannelSpec, Target};
use crate::testing::{Acts as _, MAIN};
use tresor_proto::ids::WorkerId;

/// Whose clock is the node's.
struct NodeClock(TestNode);

impl Clock for NodeClock {
    fn monotonic_ms(&self) -> u64 {
        0
    }

    fn wall(&self) -> Time {
        self.0.clock()
    }
}

struct World {
    node: TestNode,
    worker: WorkerId,
    services: Services,
}

impl World {
    fn new() -> Self {
        let mut node = TestNode::start();
        let worker = node.adds_worker("w1");
        node.makes_vault(MAIN, "main", worker);
        let services = Services::new(
            node.handle.clone(),
            Arc::new(Mutex::new(Presence::default())),
            Arc::new(NodeClock(node.clone())),
            Arc::new(ClusterKey::from_bytes(&[5; 32])),
            "UTC",
        );
        Self { node, worker, services }
    }

    /// A leader that has just begun.
    fn teller(&self) -> Teller {
        Teller {
            services: self.services.clone(),
            digests: Digests::default(),
            under_way: BTreeSet::new(),
            refused: BTreeMap::new(),
            attempts: JoinSet::new(),
        }
    }

    fn add(&mut self, target: Target, secret: &Secret) {
        let spec = ChannelSpec {
            name: String::from("ops"),
            target,
            on: [Cause::Failure, Cause::Recovery].into(),
            vaults: [].into(),
            digest: None,
            secret: secret.wrap(self.services.keys.as_ref()).unwrap(),
        };
        self.node.does(Command::AddChannel(spec));
    }

    fn fails(&mut self, name: &str) {
        let item = self.node.protects(name, MAIN, None);
        let job = self.node.queues(item, MAIN);
        let kind = crate::state::command::FailureKind::Invalid;
        self.node.ends_badly(job, self.worker, kind, "the disk is not there");
        self.node.advance(GROUP_MS);
    }

    fn channel(&self) -> Channel {
        self.node
            .read(|state| state.channels().get(&String::from("ops")).unwrap().clone())
    }

    fn waiting(&self) -> usize {
        self.node.read(|state| state.outbox().len())
    }
}

impl Teller {
    /// Looks once, and waits for what it began.
    async fn looks(&mut self) {
        self.look().await;
        while let Some(attempt) = self.attempts.join_next().await {
            self.note(attempt).await;
        }
    }
}

type Posts = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

/// A server that notes what is posted, and answers with a status.
async fn receiver(status: StatusCode) -> (String, Posts) {
    let posts = Posts::default();
    let seen = Arc::clone(&posts);
    let take = move |headers: HeaderMap, body: axum::body::Bytes| {
        seen.lock().unwrap().push((headers, body.to_vec()));
        async move { (status, [("location", "http://127.0.0.1:1/stolen")], "said so") }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(take);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/hooks/T0PSECRET-token"), posts)
}

fn webhook() -> Target {
    Target::Webhook {
        origin: String::from("http://127.0.0.1"),
    }
}

#[tokio::test]
async fn a_webhook_gets_a_signed_body_once() {
    let (url, posts) = receiver(StatusCode::OK).await;
    let mut world = World::new();
    let secret = Secret {
        url,
        secret: String::from("signing-key"),
    };
    world.add(webhook(), &secret);
    world.fails("web");
    let mut teller = world.teller();
    teller.looks().await;
    teller.looks().await;
    let posts = posts.lock().unwrap();
    let [(headers, body)] = posts.as_slice() else {
        panic!("{} posts", posts.len())
    };
    assert_eq!(headers["x-tresor-signature"], send::signature("signing-key", body));
    assert_eq!(
        (&headers["x-tresor-event"], &headers["content-type"]),
        (&"failure".parse().unwrap(), &"application/json".parse().unwrap())
    );
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["id"], headers["x-tresor-id"].to_str().unwrap());
    assert_eq!(body["items"][0]["name"], "web");
    assert_eq!((world.channel().taken, world.waiting()), (1, 0));
}

#[tokio::test]
async fn a_leader_that_ends_between_sending_and_noting_leaves_it_to_the_next_under_the_same_id() {
    let (url, posts) = receiver(StatusCode::OK).await;
    let mut world = World::new();
    let secret = Secret {
        url,
        secret: String::new(),
    };
    world.add(webhook(), &secret);
    world.fails("web");
    let mut first = world.teller();
    first.look().await;
    // It is sent, and nobody hears that it was taken.
    while posts.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(first);
    assert_eq!(world.waiting(), 1);
    world.teller().looks().await;
    assert_eq!((world.channel().taken, world.waiting()), (1, 0));
    let posts = posts.lock().unwrap();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].0["x-tresor-id"], posts[1].0["x-tresor-id"]);
    assert_eq!(posts[0].1, posts[1].1, "it is the same message");
}

#[tokio::test]
async fn a_receiver_that_refuses_is_tried_again_with_pauses_and_then_given_up() {
    let (url, posts) = receiver(StatusCode::NOT_FOUND).await;
    let mut world = World::new();
    let secret = Secret {
        url,
        secret: String::new(),
    };
    world.add(webhook(), &secret);
    world.fails("web");
    let mut teller = world.teller();
    teller.looks().await;
    teller.looks().await;
    assert_eq!(posts.lock().unwrap().len(), 1, "it rests");
    let trouble = world.channel().trouble.unwrap();
    assert_eq!(
        (trouble.attempts, trouble.next.since(world.node.clock())),
        (1, BACKOFF_MS[0])
    );
    assert_eq!(trouble.error, "HTTP 404 Not Found: said so");
    for pause in [30_000, 60_000] {
        world.node.advance(pause);
        teller.looks().await;
    }
    let channel = world.channel();
    assert_eq!((channel.refused, channel.lost, world.waiting()), (3, 1, 0));
    assert!(channel.trouble.is_some(), "until it takes one");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_no_text_has_the_secrets() {
    let (url, _) = receiver(StatusCode::FOUND).await;
    let mut world = World::new();
    let secret = Secret {
        url: url.clone(),
        secret: String::from("signing-key"),
    };
    world.add(webhook(), &secret);
    world.fails("web");
    world.teller().looks().await;
    let error = world.channel().trouble.unwrap().error;
    assert!(error.contains("redirects are not followed"), "{error}");
    let everything = format!("{:?} {:?} {secret:?}", world.node.entries(), world.channel());
    for hidden in ["T0PSECRET", "signing-key"] {
        assert!(!everything.contains(hidden));
        let bytes = world.node.read(|state| state.all_rows());
        let is_clear = |bytes: &[u8]| bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes());
        assert!(!bytes.iter().any(|row| row.value.as_deref().is_some_and(is_clear)));
    }
    assert_eq!(
        secret.redact(&format!("no route to {url}: T0PSECRET-token")),
        "no route to ***: ***"
    );
}

#[tokio::test]
async fn nobody_at_the_other_end_is_told_without_the_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/T0PSECRET-token", listener.local_addr().unwrap());
    drop(listener);
    let mut world = World::new();
    let secret = Secret {
        url,
        secret: String::new(),
    };
    world.add(webhook(), &secret);
    world.fails("web");
    world.teller().looks().await;
    let error = world.channel().trouble.unwrap().error;
    assert!(
        error.contains("refused") && !error.contains("T0PSECRET") && !error.contains("hooks"),
        "{error}"
    );
    assert_eq!(world.waiting(), 1);
}

#[test]
fn a_message_that_nobody_takes_for_a_day_is_given_up() {
    let not_taken = || {
        Err::<(), _>(NotTaken {
            why: String::from("away"),
            is_refusal: false,
        })
    };
    let mut story = crate::testing::Story::new();
    story.does(Command::AddChannel(ChannelSpec {
        name: String::from("ops"),
        target: webhook(),
        on: [Cause::Failure].into(),
        vaults: [].into(),
        digest: None,
        secret: Vec::new(),
    }));
    let channel = story.state.channels().values().next().unwrap().clone();
    let parcel = Parcel {
        channel: String::from("ops"),
        message: crate::state::channels::Message {
            cause: Cause::Failure,
            at: story.now,
            notes: Vec::new(),
            more: 0,
            counts: Vec::new(),
        },
        attempts: 100,
    };
    let early = outcome(not_taken(), &channel, &parcel, 0, story.now.plus(KEPT_MS - 1));
    assert!(matches!(early, SendOutcome::Later { .. }));
    let end = story.now.plus(KEPT_MS);
    let late = outcome(not_taken(), &channel, &parcel, 0, end);
    assert!(
        matches!(late, SendOutcome::Lost { next, .. } if next == end),
        "the next one may be as old, and is looked at without a pause"
    );
    let refused = |before| {
        let error = NotTaken {
            is_refusal: true,
            ..not_taken().unwrap_err()
        };
        outcome(Err(error), &channel, &parcel, before, story.now)
    };
    assert!(
        matches!(refused(1), SendOutcome::Later { .. }),
        "a hundred attempts that reached nobody are no refusals"
    );
    assert!(matches!(refused(2), SendOutcome::Lost { .. }));
    assert_eq!(outcome(Ok(()), &channel, &parcel, 0, story.now), SendOutcome::Taken);
}

/// A server of mail (RFC 5321) for one connection: what it was told, and what it got.
async fn mail_server(refuses: bool) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp+plain://{}", listener.local_addr().unwrap());
    let got = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 test\r\n").await.unwrap();
        let (mut got, mut is_data) = (String::new(), false);
        while let Ok(Some(line)) = lines.next_line().await {
            got.push_str(&line);
            got.push('\n');
            let word = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let answer = match (is_data, word.as_str(), line.as_str()) {
                (true, _, ".") => {
                    is_data = false;
                    "250 queued as 42\r\n"
                }
                (true, ..) => continue,
                (_, "RCPT", _) if refuses => "550 no such mailbox\r\n",
                (_, "DATA", _) => {
                    is_data = true;
                    "354 go ahead\r\n"
                }
                (_, "QUIT", _) => {
                    write.write_all(b"221 bye\r\n").await.unwrap();
                    break;
                }
                _ => "250 ok\r\n",
            };
            write.write_all(answer.as_bytes()).await.unwrap();
        }
        got
    });
    (url, got)
}

fn mail(server: String) -> Target {
    Target::Email {
        to: vec![
            String::from("ops@example.org"),
            String::from("Night Shift <night@example.org>"),
        ],
        from: String::from("tresor@example.org"),
        server,
    }
}

#[tokio::test]
async fn mail_says_what_failed_and_can_be_known_again() {
    let (server, got) = mail_server(false).await;
    let mut world = World::new();
    world.add(mail(server), &Secret::default());
    world.fails("web");
    world.teller().looks().await;
    assert_eq!((world.channel().trouble, world.channel().taken), (None, 1));
    let got = got.await.unwrap();
    for line in [
        "MAIL FROM:<tresor@example.org>",
        "RCPT TO:<ops@example.org>",
        "RCPT TO:<night@example.org>",
        "Subject: [test] backup of web failed",
        "Message-ID: <tresor.070707070707-",
        "Auto-Submitted: auto-generated",
        "X-Tresor-Id: 070707070707-",
        "tresor explain item web",
    ] {
        assert!(got.contains(line), "{line}\nis not in\n{got}");
    }
}

#[tokio::test]
async fn mail_that_is_refused_says_why() {
    let (server, _got) = mail_server(true).await;
    let mut world = World::new();
    world.add(mail(server), &Secret::default());
    world.fails("web");
    world.teller().looks().await;
    let error = world.channel().trouble.unwrap().error;
    assert!(error.contains("no such mailbox"), "{error}");
}
