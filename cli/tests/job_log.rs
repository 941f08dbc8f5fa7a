//! What is kept of a job: what its worker logged, for every attempt, in a home without a node and with one.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::node::{Node, jobs, until};
use common::{Site, disk};
use serde_json::Value;

/// The log of a job, once its worker has reported it.
fn log(site: &Site, job: u64) -> Value {
    let mut shown = Value::Null;
    until("the log is reported", || {
        shown = site.json(&["job", "show", &job.to_string(), "--log"]);
        let attempts = shown["attempts"].as_array().unwrap();
        attempts.iter().all(|attempt| attempt["is_reported"] == true)
    });
    shown
}

fn texts(attempt: &Value) -> Vec<&str> {
    let lines = attempt["lines"].as_array().unwrap();
    lines.iter().map(|line| line["text"].as_str().unwrap()).collect()
}

#[test]
fn a_home_keeps_what_was_logged_of_its_backups() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    let made = site.json(&["backup", &image]);
    let job = made["job"].as_u64().unwrap();
    let shown = log(&site, job);
    let attempt = &shown["attempts"][0];
    let texts = texts(attempt);
    assert!(texts.contains(&"attempt begins"), "{texts:?}");
    assert!(texts.contains(&"stage begins stage=reading"), "{texts:?}");
    assert!(texts.contains(&"attempt is done"), "{texts:?}");
    let summary = attempt["summary"].to_string();
    for part in ["ended: done", "reading", "puts", "known"] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    assert_eq!(attempt["trace"].as_str().unwrap().len(), 32);
    assert_eq!(attempt["left_out"], 0);
    // The same for people, in the order in which it happened.
    let ran = site.run(&["job", "show", &job.to_string(), "--log"]);
    assert_eq!(ran.code, 0, "{ran}");
    let (begins, done) = (ran.stdout.find("attempt begins"), ran.stdout.find("attempt is done"));
    assert!(ran.stdout.starts_with("attempt 1 on ") && begins < done, "{ran}");
    let none = site.run(&["job", "show", "999999", "--log"]);
    assert_eq!(none.code, 4, "{none}");
}

#[test]
fn the_log_of_an_attempt_that_failed_names_the_cause_and_outlives_the_node() {
    let site = Site::new();
    let image = site.file("web.img", disk(1));
    let node = Node::start(&site);
    site.json(&["backup", &image]);
    // Who has the store open does not miss its name.
    node.stop();
    let (store, away) = (site.path("home/stores/main"), site.path("away"));
    std::fs::rename(&store, &away).unwrap();
    let node = Node::start(&site);
    let failed = site.run(&["--json", "backup", &image]);
    std::fs::rename(&away, &store).unwrap();
    assert_ne!(failed.code, 0, "{failed}");
    // A catalogue may be newer.
    let jobs = jobs(&site);
    let backup = jobs.iter().find(|job| job["kind"] == "backup").unwrap();
    let job = backup["job"].as_u64().unwrap();
    let before = log(&site, job);
    let attempts = before["attempts"].as_array().unwrap();
    let last = attempts.last().unwrap();
    assert!(
        last["failure"].as_str().unwrap().contains("the folder is not there"),
        "{last}"
    );
    let texts = texts(last);
    let cause = texts.iter().find(|text| text.starts_with("attempt failed"));
    assert!(
        cause.is_some_and(|text| text.contains("the folder is not there")),
        "{texts:?}"
    );
    assert!(last["summary"].to_string().contains("ended: "), "{last}");
    node.stop();
    // From the disk.
    let node = Node::start(&site);
    assert_eq!(log(&site, job), before);
    node.stop();
}
