//! Stores are reached through the proxy that the environment names, and past it where the environment says so.
//!
//! The environment is a process's, so each case is a process of its own: this program again, with one test of it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tresor_storage::backend::{BackendError, RetryPolicy, Secret, StoreConfig, open};
use tresor_storage::throttle::{Pace, Throttle};

/// Where the child's store is; only the child has it.
const ENDPOINT: &str = "TRESOR_TEST_PROXY_ENDPOINT";
/// Exists nowhere: what reaches it went through the proxy.
const HOST: &str = "store.invalid";

/// A proxy that forwards nothing: it notes the first line of each request, and answers for the store.
struct Proxy {
    address: String,
    lines: Arc<Mutex<Vec<String>>>,
}

fn proxy() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&lines);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, noted) = (stream.unwrap(), Arc::clone(&noted));
            std::thread::spawn(move || serve(stream, &noted));
        }
    });
    Proxy { address, lines }
}

/// One request of a connection.
fn serve(mut stream: TcpStream, noted: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    noted.lock().unwrap().push(head.lines().next().unwrap().to_owned());
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length:")?
            .trim()
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let answer = match head.starts_with("CONNECT") {
        true => "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        false => {
            "HTTP/1.1 200 OK\r\netag: \"x\"\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        }
    };
    let _ = stream.write_all(answer.as_bytes());
}

/// Runs the child in an environment; what the proxy heard.
fn asked(endpoint: &str, environment: &[(&str, &str)], proxy: &Proxy) -> (bool, Vec<String>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_child_puts_and_asks", "--ignored", "--nocapture"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    command.env(ENDPOINT, endpoint).envs(environment.iter().copied());
    let done = command.output().unwrap().status.success();
    (done, std::mem::take(&mut *proxy.lines.lock().unwrap()))
}

#[tokio::test]
#[ignore = "started by the other tests, in an environment of its own"]
async fn the_child_puts_and_asks() {
    let config = StoreConfig {
        endpoint: Some(std::env::var(ENDPOINT).unwrap()),
        region: Some("us-east-1".into()),
        access_key_id: Some("test".into()),
        secret_access_key: Some(Secret::new("test")),
        allow_http: true,
        request_timeout: Some(Duration::from_secs(10)),
        retry: RetryPolicy::NEVER,
        ..StoreConfig::default()
    };
    let store = open("s3://bucket", &config).unwrap();
    let job = store.throttled(Pace::new(Arc::new(Throttle::default()), []));
    let put: Result<(), BackendError> = job.backend.create("a", &[Bytes::from_static(b"xyz")]).await;
    let asked = store.backend.length("a").await;
    put.unwrap();
    asked.unwrap();
}

#[test]
fn plain_requests_go_through_the_proxy_and_past_it_for_hosts_that_are_named() {
    let proxy = proxy();
    let url = format!("http://{}", proxy.address);
    let endpoint = format!("http://{HOST}");
    let (done, lines) = asked(&endpoint, &[("HTTP_PROXY", &url)], &proxy);
    assert!(done, "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with(&format!("PUT http://{HOST}/bucket/a ")),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with(&format!("HEAD http://{HOST}/bucket/a ")),
        "{lines:?}"
    );
    let (done, lines) = asked(&endpoint, &[("HTTP_PROXY", &url), ("NO_PROXY", HOST)], &proxy);
    assert!(!done && lines.is_empty(), "{lines:?}");
}

#[test]
fn encrypted_requests_ask_the_proxy_for_a_tunnel() {
    let proxy = proxy();
    let url = format!("http://{}", proxy.address);
    let endpoint = format!("https://{HOST}");
    let (done, lines) = asked(&endpoint, &[("HTTPS_PROXY", &url)], &proxy);
    assert!(!done, "there is no store behind it");
    assert_eq!(lines, vec![format!("CONNECT {HOST}:443 HTTP/1.1"); 2]);
    let (_, lines) = asked(&endpoint, &[("HTTPS_PROXY", &url), ("NO_PROXY", ".invalid")], &proxy);
    assert!(lines.is_empty(), "{lines:?}");
    let (_, lines) = asked(&endpoint, &[("HTTP_PROXY", &url)], &proxy);
    assert!(lines.is_empty(), "that one is for plain requests: {lines:?}");
}
