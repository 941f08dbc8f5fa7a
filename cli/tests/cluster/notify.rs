//! Channels as they are typed and shown: secrets come from files, and a test that is not taken is a failure.

use serde_json::json;
use tresor_proto::v1::*;

use super::here::Here;

fn row() -> ChannelRow {
    ChannelRow {
        name: String::from("ops"),
        kind: String::from("webhook"),
        target: String::from("https://hooks.example.org"),
        on: vec![String::from("failure"), String::from("digest")],
        digest: String::from("daily 07:00"),
        zone: String::from("Europe/Berlin"),
        has_secret: true,
        waiting: 2,
        failing_since: String::from("2026-11-23T02:00:00Z"),
        error: String::from("HTTP 404 Not Found"),
        ..ChannelRow::default()
    }
}

#[test]
fn urls_and_keys_come_from_files_and_are_not_shown() {
    let here = Here::new();
    here.on::<AddChannelRequest, _>(row());
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let url = write("url", "https://hooks.example.org/T0PSECRET\n");
    let key = write("key", "signing-key\nsecond line\n");
    let at = format!("@{url}");
    let add = [
        "notify",
        "add",
        "ops",
        "--webhook",
        &at,
        "--secret-file",
        &key,
        "--on",
        "failure",
        "--digest",
        "07:00",
        "--zone",
        "Europe/Berlin",
        "--vaults",
        "main,archive",
    ];
    let shown = here.json(&add);
    assert_eq!((&shown["name"], &shown["has_secret"]), (&json!("ops"), &json!(true)));
    let asked = here.only::<AddChannelRequest>();
    assert_eq!(asked.url, "https://hooks.example.org/T0PSECRET");
    assert_eq!(asked.secret, "signing-key");
    assert_eq!((asked.on, asked.vaults.len()), (vec![String::from("failure")], 2));
    assert_eq!(asked.idempotency_key.len(), 16);
}

#[test]
fn the_url_of_a_chat_is_not_typed() {
    let here = Here::new();
    let ran = here.run(&[
        "notify",
        "add",
        "chat",
        "--slack",
        "https://hooks.slack.com/services/T0PSECRET",
    ]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("--slack @FILE") && !ran.stderr.contains("T0PSECRET"),
        "{}",
        ran.stderr
    );
    let both = here.run(&["notify", "add", "x", "--slack", "-", "--webhook", "https://a"]);
    assert_eq!(both.code, 2);
}

#[test]
fn a_test_that_is_not_taken_is_a_failure_that_says_why() {
    let here = Here::new();
    let answer = |taken| TestChannelResponse {
        answer: String::from("HTTP 404 Not Found"),
        taken,
    };
    here.on::<TestChannelRequest, _>(answer(false));
    let ran = here.run(&["notify", "test", "ops"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout
            .contains("channel ops did not take the message: HTTP 404 Not Found"),
        "{}",
        ran.stdout
    );
    let here = Here::new();
    here.on::<TestChannelRequest, _>(answer(true));
    assert_eq!(here.run(&["notify", "test", "ops"]).code, 0);
}

#[test]
fn a_list_says_which_channel_nobody_hears() {
    let here = Here::new();
    here.on::<ListChannelsRequest, _>(ListChannelsResponse { channels: vec![row()] });
    let shown = here.json(&["notify", "list"]);
    assert_eq!(shown["channels"][0]["waiting"], 2);
    let text = here.run(&["notify", "list"]).stdout;
    assert!(
        text.contains("not taken since 2026-11-23T02:00:00Z: HTTP 404 Not Found"),
        "{text}"
    );
    assert!(text.contains("digest (daily 07:00)"), "{text}");
}
