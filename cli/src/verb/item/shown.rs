//! An item as it is shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1;

use crate::human::{self, Table};
use crate::verb::shown::{labels, some};

#[derive(Debug, Serialize)]
struct DiskShown {
    name: String,
    path: String,
    format: Option<String>,
}

/// An item with what the cluster knows of it.
#[derive(Debug, Serialize)]
pub(super) struct ItemShown {
    pub(super) item: String,
    item_id: String,
    pub(super) vault: String,
    protected: bool,
    pub(super) state: String,
    policy: Option<String>,
    host: Option<String>,
    worker_labels: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    disks: Vec<DiskShown>,
    allow_live: bool,
    allow_backing: bool,
    points: u64,
    newest_point: Option<String>,
    newest_time: Option<String>,
    pub(super) next_due: Option<String>,
    failures: u32,
    last_failure: Option<String>,
}

impl From<v1::Item> for ItemShown {
    fn from(item: v1::Item) -> Self {
        let spec = item.spec.unwrap_or_default();
        let disk = |disk: v1::AdminDisk| DiskShown {
            name: disk.name,
            path: disk.path,
            format: some(disk.format),
        };
        Self {
            item: spec.name,
            item_id: item.id,
            vault: spec.vault,
            protected: item.protected,
            state: item.state,
            policy: some(spec.policy),
            host: some(spec.host),
            worker_labels: spec.worker_labels,
            labels: spec.labels,
            disks: spec.disks.into_iter().map(disk).collect(),
            allow_live: spec.allow_live,
            allow_backing: spec.allow_backing,
            points: item.points,
            newest_point: some(item.newest_point),
            newest_time: some(item.newest_time),
            next_due: some(item.next_due),
            failures: item.failures,
            last_failure: some(item.last_failure),
        }
    }
}

impl ItemShown {
    /// All of it.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let newest = match (&self.newest_time, &self.newest_point) {
            (Some(time), Some(point)) => format!("{time} ({}), point {point}", human::ago(time, now)),
            _ => String::from("none"),
        };
        let allowed: Vec<&str> = [
            (self.allow_live, "live disks"),
            (self.allow_backing, "backing files elsewhere"),
        ]
        .into_iter()
        .filter_map(|(is, what)| is.then_some(what))
        .collect();
        let failures = match self.failures {
            0 => String::new(),
            count => format!("{count} in a row: {}", text(&self.last_failure)),
        };
        let mut shown = human::pairs(&[
            ("item", format!("{} ({})", self.item, self.item_id)),
            ("state", self.state.clone()),
            ("vault", self.vault.clone()),
            ("policy", self.policy.clone().unwrap_or_else(|| String::from("none"))),
            ("next due", text(&self.next_due)),
            ("points", human::count(self.points)),
            ("newest", newest),
            ("failures", failures),
            ("host", text(&self.host)),
            ("workers", labels(&self.worker_labels)),
            ("labels", labels(&self.labels)),
            ("allowed", allowed.join(", ")),
        ]);
        if !self.disks.is_empty() {
            let mut table = Table::new(&["disk", "path", "format"]);
            for disk in &self.disks {
                let format = disk.format.clone().unwrap_or_else(|| String::from("by extension"));
                table.row([disk.name.clone(), disk.path.clone(), format]);
            }
            shown.push_str("\n\n");
            shown.push_str(&table.render());
        }
        shown
    }
}

/// Items as a table.
pub(super) fn table(items: &[ItemShown], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "item", "vault", "policy", "state", ">points", ">newest", "next due", "host",
    ]);
    for item in items {
        let newest = item.newest_time.as_deref().map(|time| human::ago(time, now));
        table.row([
            item.item.clone(),
            item.vault.clone(),
            item.policy.clone().unwrap_or_default(),
            item.state.clone(),
            human::count(item.points),
            newest.unwrap_or_else(|| String::from("none")),
            item.next_due.clone().unwrap_or_default(),
            item.host.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str) -> v1::Item {
        v1::Item {
            version: 7,
            late_since: String::new(),
            last_success: String::new(),
            id: "ab".repeat(16),
            spec: Some(v1::ItemSpec {
                name: name.to_owned(),
                vault: String::from("main"),
                policy: String::from("daily"),
                host: String::from("kvm-7"),
                labels: BTreeMap::from([(String::from("tier"), String::from("gold"))]),
                disks: vec![v1::AdminDisk {
                    name: String::from("vda"),
                    path: String::from("/vm/web-03.qcow2"),
                    ..Default::default()
                }],
                allow_live: true,
                ..Default::default()
            }),
            protected: true,
            state: String::from("failing"),
            newest_point: "cd".repeat(16),
            newest_time: String::from("2026-03-10T02:30:00Z"),
            next_due: String::from("2026-03-11T02:30:00Z"),
            points: 1234,
            failures: 2,
            last_failure: String::from("no worker on kvm-7"),
        }
    }

    fn now() -> Timestamp {
        "2026-03-10T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn the_text_of_an_item() {
        insta::assert_snapshot!(ItemShown::from(item("web-03")).text(now()), @"
        item      web-03 (abababababababababababababababab)
        state     failing
        vault     main
        policy    daily
        next due  2026-03-11T02:30:00Z
        points    1 234
        newest    2026-03-10T02:30:00Z (9 h), point cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
        failures  2 in a row: no worker on kvm-7
        host      kvm-7
        labels    tier=gold
        allowed   live disks

        DISK  PATH              FORMAT
        vda   /vm/web-03.qcow2  by extension
        ");
    }

    #[test]
    fn the_table_of_items() {
        let fresh = v1::Item {
            state: String::from("never"),
            newest_time: String::new(),
            points: 0,
            ..item("new-\u{1b}[31m")
        };
        let items = [item("web-03"), fresh].map(ItemShown::from);
        insta::assert_snapshot!(table(&items, now()), @"
        ITEM       VAULT  POLICY  STATE    POINTS  NEWEST  NEXT DUE              HOST
        web-03     main   daily   failing   1 234     9 h  2026-03-11T02:30:00Z  kvm-7
        new-\u{fffd}[31m  main   daily   never         0    none  2026-03-11T02:30:00Z  kvm-7
        ");
    }
}
