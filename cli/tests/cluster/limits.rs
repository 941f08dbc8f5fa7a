//! Limits as they are typed and shown.

use serde_json::json;
use tresor_proto::v1::*;

use super::here::Here;

fn text(text: &str) -> String {
    text.to_owned()
}

fn row() -> LimitRow {
    let rule = LimitRule {
        windows: vec![text("mon-fri 08:00-18:00")],
        zone: text("Europe/Berlin"),
        upload: Some(50_000_000),
        requests: Some(100),
        ..Default::default()
    };
    LimitRow {
        subject: Some(LimitSubject {
            store: text("s3://backup"),
            ..Default::default()
        }),
        now: Some(LimitRule {
            windows: Vec::new(),
            zone: String::new(),
            ..rule.clone()
        }),
        rules: vec![rule],
        jobs: 3,
    }
}

#[test]
fn a_limit_is_asked_for_as_it_was_typed_and_shown_as_it_counts() {
    let here = Here::new();
    here.on::<SetLimitRequest, _>(row());
    let set = [
        "limit",
        "set",
        "store",
        "main",
        "--upload",
        "50MB/s",
        "--requests",
        "100/s",
        "--when",
        "mon-fri 08:00-18:00",
        "--zone",
        "Europe/Berlin",
    ];
    let shown = here.json(&set);
    assert_eq!(
        (&shown["kind"], &shown["name"], &shown["jobs"]),
        (&json!("store"), &json!("s3://backup"), &json!(3))
    );
    assert_eq!(shown["now"]["upload_bytes"], 50_000_000);
    let asked = here.only::<SetLimitRequest>();
    let rule = asked.rule.unwrap();
    assert_eq!(
        (rule.upload, rule.requests, rule.download),
        (Some(50_000_000), Some(100), None)
    );
    assert_eq!(rule.windows, ["mon-fri 08:00-18:00"]);
    assert_eq!(asked.subject.unwrap().store, "main");
}
