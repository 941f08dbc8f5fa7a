//! Rows for the tests of reports: a window of seven days up to Sunday the 22nd of November 2026, 10:00.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use jiff::Timestamp;
use tresor_proto::v1;

use super::Head;
use super::window::Window;

pub(super) fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

pub(super) fn window() -> Window {
    Window::new(None, None, Some(7), now()).unwrap()
}

pub(super) fn head(report: &'static str) -> Head {
    Head {
        report,
        made: now().to_string(),
        source: String::from("cluster prod"),
        window: window(),
        vault: None,
        policy: None,
        labels: Vec::new(),
        notes: Vec::new(),
    }
}

/// An item whose id is its name.
pub(super) fn item(name: &str, vault: &str, policy: &str) -> v1::Item {
    v1::Item {
        id: name.to_owned(),
        spec: Some(v1::ItemSpec {
            name: name.to_owned(),
            vault: vault.to_owned(),
            policy: policy.to_owned(),
            ..v1::ItemSpec::default()
        }),
        protected: true,
        ..v1::Item::default()
    }
}

pub(super) fn point(id: &str, item: &str, time: &str) -> v1::Point {
    v1::Point {
        id: id.to_owned(),
        item: item.to_owned(),
        time: time.to_owned(),
        ..v1::Point::default()
    }
}

/// A backup in vault `main` that began when it ended.
pub(super) fn job(id: u64, item: &str, state: &str, ended: &str) -> v1::Job {
    v1::Job {
        id,
        kind: String::from("backup"),
        vault: String::from("main"),
        item: item.to_owned(),
        item_id: item.to_owned(),
        state: state.to_owned(),
        created: ended.to_owned(),
        ended: ended.to_owned(),
        why: if state == "failed" {
            format!("why {id}")
        } else {
            String::new()
        },
        ..v1::Job::default()
    }
}
