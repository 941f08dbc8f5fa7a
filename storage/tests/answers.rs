//! What a store answers, or does not, becomes the right error after the right number of requests.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tresor_storage::Kind;
use tresor_storage::backend::{BackendError, Limits, OpenStore, RetryPolicy, Secret, StoreConfig, open};

/// What the server does with a request.
#[derive(Clone)]
enum Reply {
    /// Status, headers, body.
    Say(u16, String, Vec<u8>),
    /// Announces more than it sends, then closes.
    Break(u16, String, Vec<u8>, usize),
    /// Closes without an answer.
    Close,
    /// Says nothing.
    Hang,
}

fn code(status: u16, code: &str) -> Reply {
    Reply::Say(
        status,
        String::new(),
        format!("<Error><Code>{code}</Code><Message>as told</Message></Error>").into_bytes(),
    )
}

fn object(bytes: &[u8]) -> Reply {
    Reply::Say(
        200,
        "ETag: \"1\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n".into(),
        bytes.to_vec(),
    )
}

struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Gives the replies one by one, then the last one for ever.
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let replies = Arc::new(Mutex::new(VecDeque::from(replies)));
        let log = requests.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, replies.clone(), log.clone()));
            }
        });
        Self { address, requests }
    }

    fn store(&self, attempts_max: u32) -> OpenStore {
        let config = StoreConfig {
            endpoint: Some(format!("http://{}", self.address)),
            allow_http: true,
            region: Some("us-east-1".into()),
            access_key_id: Some("id".into()),
            secret_access_key: Some(Secret::new("hunter2")),
            retry: RetryPolicy {
                attempts_max,
                wait_first: Duration::from_millis(1),
                ..RetryPolicy::default()
            },
            limits: Limits {
                deadline: Duration::from_millis(500),
                ..Limits::default()
            },
            ..StoreConfig::default()
        };
        open("s3://bucket/prefix", &config).unwrap()
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    log: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let length = text.to_ascii_lowercase();
        let length = length
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
            .unwrap_or(0);
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        buffer.drain(..head + length);
        let is_head = text.starts_with("HEAD");
        log.lock().unwrap().push(text);
        let reply = {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 {
                replies.pop_front()?
            } else {
                replies.front()?.clone()
            }
        };
        let (status, headers, body, length) = match reply {
            Reply::Say(status, headers, body) => (
                status,
                headers,
                if is_head { Vec::new() } else { body.clone() },
                body.len(),
            ),
            Reply::Break(status, headers, body, length) => (status, headers, body, length),
            Reply::Close => return None,
            Reply::Hang => std::future::pending().await,
        };
        let head = format!("HTTP/1.1 {status} Told\r\nContent-Length: {length}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
        if !is_head && body.len() < length {
            return None;
        }
    }
}

fn chain(error: &BackendError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn each_status_becomes_its_kind_and_only_some_are_asked_again() {
    for (reply, kind, tries, told) in [
        (
            code(403, "AccessDenied"),
            Kind::Denied,
            1,
            "the store denied to put a: 403 AccessDenied: as told",
        ),
        (code(401, "Whatever"), Kind::Denied, 1, "401 Whatever"),
        (code(400, "ExpiredToken"), Kind::Denied, 1, "ExpiredToken"),
        (
            code(400, "MalformedXML"),
            Kind::Invalid,
            1,
            "refused to put a: 400 MalformedXML",
        ),
        (
            code(404, "NoSuchBucket"),
            Kind::Invalid,
            1,
            "refused to put a: 404 NoSuchBucket",
        ),
        (code(412, "PreconditionFailed"), Kind::Invalid, 1, "object a exists"),
        (
            code(409, "ConditionalRequestConflict"),
            Kind::Retry,
            3,
            "409 ConditionalRequestConflict",
        ),
        (code(429, "TooManyRequests"), Kind::Retry, 3, "429"),
        (
            code(500, "InternalError"),
            Kind::Retry,
            3,
            "the store did not put a: 500 InternalError",
        ),
        (code(503, "SlowDown"), Kind::Retry, 3, "503 SlowDown"),
        (code(501, "NotImplemented"), Kind::Invalid, 1, "501 NotImplemented"),
        (
            code(507, "XMinioStorageFull"),
            Kind::Full,
            1,
            "the store is full: could not put a: 507 XMinioStorageFull",
        ),
        (Reply::Close, Kind::Retry, 3, "no complete answer from 127.0.0.1"),
        (Reply::Hang, Kind::Retry, 3, "no answer within 0.5 s"),
        (Reply::Say(301, String::new(), Vec::new()), Kind::Invalid, 1, "refused"),
    ] {
        let server = Server::start(vec![reply]).await;
        let store = server.store(3);
        let error = store
            .backend
            .create("a", &[Bytes::from_static(b"xyz")])
            .await
            .unwrap_err();
        let text = chain(&error);
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(told), "{told:?} is not in {text:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(server.count(), tries, "{text}");
        let traffic = store.counters.snapshot();
        assert_eq!(
            (traffic.puts, traffic.retries),
            (tries as u64, tries as u64 - 1),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        address: gone.local_addr().unwrap(),
        requests: Arc::default(),
    };
    drop(gone);
    let store = server.store(2);
    let error = store.backend.length("a").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Retry);
    assert!(chain(&error).contains("Connection refused"), "{}", chain(&error));
    assert_eq!(store.counters.snapshot().heads, 2);
}

#[tokio::test]
async fn tls_to_a_server_without_it_is_refused_at_once() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let config = StoreConfig {
        endpoint: Some(format!("https://{address}")),
        access_key_id: Some("id".into()),
        secret_access_key: Some(Secret::new("secret")),
        ..StoreConfig::default()
    };
    let store = open("s3://bucket", &config).unwrap();
    let error = store.backend.length("a").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{}", chain(&error));
    assert_eq!(store.counters.snapshot().retries, 0);
}

/// Where the child below finds its store; credentials come from the same server.
const CHILD: &str = "TRESOR_TEST_CREDENTIALS_SERVER";

#[tokio::test]
async fn without_credentials_the_answer_is_denied_and_not_missing() {
    if let Ok(address) = std::env::var(CHILD) {
        let mut config = StoreConfig {
            endpoint: Some(format!("http://{address}")),
            allow_http: true,
            ..StoreConfig::default()
        };
        config.retry.attempts_max = 2;
        let error = open("s3://bucket", &config)
            .unwrap()
            .backend
            .read("a", 1)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{}", chain(&error));
        assert!(chain(&error).contains("no credentials from"), "{}", chain(&error));
        return;
    }
    let server = Server::start(vec![code(404, "NoSuchThing")]).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_credentials_the_answer_is_denied_and_not_missing"])
        .env(CHILD, server.address.to_string())
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://{}/credentials", server.address),
        )
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path())
        .env_remove("AWS_ACCESS_KEY_ID")
        .output()
        .await
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(server.count(), 1, "only the credentials were asked for, once");
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_compared_and_taken() {
    let stored = || object(b"xyz");
    // Put without an answer; put again: taken; its length; its bytes.
    let range = Reply::Say(
        206,
        "ETag: \"1\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Range: bytes 0-2/3\r\n".into(),
        b"xyz".to_vec(),
    );
    let server = Server::start(vec![Reply::Close, code(412, "PreconditionFailed"), stored(), range]).await;
    let store = server.store(3);
    store
        .backend
        .create("points/a", &[Bytes::from_static(b"x"), Bytes::from_static(b"yz")])
        .await
        .unwrap();
    assert_eq!(server.count(), 4);
    let requests = server.requests.lock().unwrap().clone();
    assert!(
        requests[0].starts_with("PUT /bucket/prefix/points/a "),
        "{}",
        requests[0]
    );
    assert!(
        requests[0].to_ascii_lowercase().contains("if-none-match: *"),
        "a put is create-only"
    );
    assert!(
        requests[0].contains("3608bca1e44ea6c4d268eb6db02260269892c0b42b86bbf1e77a6fa16c3c9282"),
        "the body's SHA-256 goes with it"
    );
}

#[tokio::test]
async fn an_unsigned_put_carries_its_checksum() {
    let server = Server::start(vec![object(b"")]).await;
    let config = StoreConfig {
        endpoint: Some(format!("http://{}", server.address)),
        allow_http: true,
        skip_signature: true,
        ..StoreConfig::default()
    };
    open("s3://bucket", &config)
        .unwrap()
        .backend
        .create("a", &[Bytes::from_static(b"xyz")])
        .await
        .unwrap();
    let request = server.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(!request.contains("authorization:"), "{request}");
    assert!(
        request.contains("x-amz-checksum-sha256: ngi8oeropstsaottscjgjpiswlqrhrvx53pvoww8koi="),
        "{request}"
    );
}

#[tokio::test]
async fn a_missing_bucket_is_told_from_a_missing_object_also_by_head() {
    let server = Server::start(vec![code(404, "NoSuchKey")]).await;
    assert!(matches!(
        server.store(3).backend.length("a").await,
        Err(BackendError::NotFound { .. })
    ));
    assert!(matches!(
        server.store(3).backend.read("a", 1).await,
        Err(BackendError::NotFound { .. })
    ));
    server.store(3).backend.delete("a").await.unwrap();
    let server = Server::start(vec![code(404, "NoSuchBucket")]).await;
    assert!(matches!(
        server.store(3).backend.length("a").await,
        Err(BackendError::Refused { .. })
    ));
    assert!(matches!(
        server.store(3).backend.delete("a").await,
        Err(BackendError::Refused { .. })
    ));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    let headers = "ETag: \"1\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n".to_owned();
    let broken = Reply::Break(200, headers, b"xy".to_vec(), 3);
    let server = Server::start(vec![broken.clone(), broken, object(b"xyz")]).await;
    let store = server.store(3);
    assert_eq!(store.backend.read("a", 3).await.unwrap(), "xyz");
    assert_eq!(store.counters.snapshot().retries, 2);
}

#[tokio::test]
async fn an_object_that_is_too_large_is_not_read() {
    // Announces a terabyte; reading it would never end.
    let headers = "ETag: \"1\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n".to_owned();
    let server = Server::start(vec![Reply::Break(200, headers, b"xy".to_vec(), 1 << 40)]).await;
    match server.store(1).backend.read("a", 1000).await {
        Err(BackendError::TooLarge { length, max, .. }) => assert_eq!((length, max), (1 << 40, 1000)),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.count(), 1);
}

fn page(names: &[&str], next: Option<&str>) -> Reply {
    let contents: String = names
        .iter()
        .map(|name| format!("<Contents><Key>prefix/{name}</Key><Size>1</Size><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"))
        .collect();
    let more = next
        .map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>"))
        .unwrap_or_default();
    let body = format!(
        "<ListBucketResult><IsTruncated>{}</IsTruncated>{more}{contents}</ListBucketResult>",
        next.is_some()
    );
    Reply::Say(200, "Content-Type: application/xml\r\n".into(), body.into_bytes())
}

#[tokio::test]
async fn a_listing_goes_on_after_a_page_that_failed() {
    let pages = vec![
        code(503, "SlowDown"),
        page(&["p/", "p/1", "p/2"], Some("next")),
        code(503, "SlowDown"),
        Reply::Close,
        page(&["p/3", "p/4"], Some("more")),
        code(500, "InternalError"),
        page(&["p/5"], None),
    ];
    let server = Server::start(pages).await;
    let store = server.store(3);
    let names: Vec<_> = store
        .backend
        .list("p/")
        .map_ok(|item| item.name)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(names, ["p/1", "p/2", "p/3", "p/4", "p/5"]);
    let requests = server.requests.lock().unwrap().clone();
    assert!(requests[3].contains("start-after=prefix%2Fp%2F2"), "{}", requests[3]);
    assert_eq!(store.counters.snapshot().retries, 4);
}

#[tokio::test]
async fn a_listing_that_cannot_go_on_says_so() {
    let server = Server::start(vec![page(&["p/1"], Some("next")), code(503, "SlowDown")]).await;
    let listed: Vec<_> = server.store(3).backend.list("p/").collect().await;
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1].as_ref().unwrap_err().kind(), Kind::Retry);
    // Out of order: what was seen cannot be told by a name.
    let server = Server::start(vec![
        page(&["p/2", "p/1"], Some("next")),
        code(503, "SlowDown"),
        page(&["p/3"], None),
    ])
    .await;
    let listed: Vec<_> = server.store(3).backend.list("p/").collect().await;
    assert!(listed.last().unwrap().is_err());
    // No XML at all.
    let server = Server::start(vec![Reply::Say(200, String::new(), b"<html>welcome".to_vec())]).await;
    let listed: Vec<_> = server.store(3).backend.list("p/").collect().await;
    assert!(
        matches!(listed.as_slice(), [Err(BackendError::Refused { .. })]),
        "{listed:?}"
    );
}
