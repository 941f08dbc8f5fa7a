//! Policies say what they mean before they are made or changed.

use serde_json::json;
use tresor_proto::v1::*;

use super::admin::refused;
use super::here::Here;

fn text(text: &str) -> String {
    text.to_owned()
}

fn policy(version: u64, spec: PolicySpec) -> Policy {
    Policy {
        version,
        spec: Some(spec),
        items: 3,
        ..Default::default()
    }
}

fn daily() -> PolicySpec {
    PolicySpec {
        name: text("daily"),
        schedule: text("daily 02:30"),
        zone: text("Europe/Berlin"),
        windows: vec![text("mon-fri 20:00-06:00")],
        jitter: text("10m"),
        retention: text("last 3, daily 7"),
        priority: -2,
        late_after: text("26h"),
    }
}

#[test]
fn a_policy_says_what_it_means_before_it_is_made() {
    let here = Here::new();
    here.on::<PreviewPolicyRequest, _>(PreviewPolicyResponse {
        words: vec![text("Backs up every day at 02:30.")],
        ..Default::default()
    });
    here.on::<CreatePolicyRequest, _>(policy(1, daily()));
    let options = [
        "--schedule",
        "daily 02:30",
        "--zone",
        "Europe/Berlin",
        "--window",
        "mon-fri 20:00-06:00",
        "--jitter",
        "10m",
        "--retention",
        "last 3, daily 7",
        "--priority",
        "-2",
        "--late-after",
        "26h",
    ];
    let create = [&["policy", "create", "daily"][..], &options].concat();
    let ran = here.run(&create);
    assert_eq!(ran.code, 2, "nobody confirmed it: {ran}");
    assert!(ran.stderr.contains("Backs up every day at 02:30."), "{ran}");
    assert!(here.coordinator.script.asked::<CreatePolicyRequest>().is_empty());

    let shown = here.json(&[&create[..], &["--yes"]].concat());
    assert_eq!((&shown["policy"], &shown["priority"]), (&json!("daily"), &json!(-2)));
    assert_eq!(here.only::<CreatePolicyRequest>().spec, Some(daily()));
    let asked = here.coordinator.script.asked::<PreviewPolicyRequest>();
    assert_eq!(asked[0].1.spec, Some(daily()));
}

#[test]
fn a_policy_that_cannot_be_is_refused_with_its_field_and_nothing_is_made() {
    let here = Here::new();
    let refusal = refused("invalid", "spec.schedule", "\"dayly 2\" is no schedule");
    here.coordinator
        .script
        .answer::<PreviewPolicyRequest, PreviewPolicyResponse>(Err(refusal));
    let ran = here.run(&["policy", "create", "x", "--schedule", "dayly 2", "--yes"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("schedule: \"dayly 2\" is no schedule"), "{ran}");
}

#[test]
fn a_policy_is_changed_where_it_was_said_and_only_as_it_was_read() {
    let here = Here::new();
    here.on::<GetPolicyRequest, _>(policy(4, daily()));
    here.on::<PreviewPolicyRequest, _>(PreviewPolicyResponse::default());
    here.on::<UpdatePolicyRequest, _>(policy(5, daily()));
    let ran = here.run(&["policy", "edit", "daily", "--yes"]);
    assert_eq!(ran.code, 2, "nothing is to change: {ran}");
    here.json(&[
        "policy",
        "edit",
        "daily",
        "--retention",
        "last 9",
        "--no-windows",
        "--rename",
        "nightly",
        "--yes",
    ]);
    let expected = PolicySpec {
        name: text("nightly"),
        retention: text("last 9"),
        windows: Vec::new(),
        ..daily()
    };
    let request = here.only::<UpdatePolicyRequest>();
    assert_eq!(
        (request.name.as_str(), request.version, request.spec),
        ("daily", 4, Some(expected))
    );
}

#[test]
fn a_preview_is_of_the_policy_or_of_what_it_would_be() {
    let here = Here::new();
    here.on::<GetPolicyRequest, _>(policy(4, daily()));
    here.on::<PreviewPolicyRequest, _>(PreviewPolicyResponse {
        points_held: 10,
        ..Default::default()
    });
    here.json(&["policy", "preview", "daily", "--item", "web", "--runs", "7"]);
    let shown = here.json(&["policy", "preview", "daily", "--retention", "last 9"]);
    assert_eq!(shown["points_held"], 10);
    let asked = here.coordinator.script.asked::<PreviewPolicyRequest>();
    let first = PreviewPolicyRequest {
        name: text("daily"),
        spec: None,
        item: text("web"),
        runs: 7,
    };
    assert_eq!(asked[0].1, first);
    let spec = PolicySpec {
        retention: text("last 9"),
        ..daily()
    };
    assert_eq!((asked[1].1.name.as_str(), &asked[1].1.spec), ("", &Some(spec)));
}
