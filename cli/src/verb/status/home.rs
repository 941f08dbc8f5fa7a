//! `tresor status` of this home.
//!
//! Asks every vault of the home and nobody for a passphrase. What cannot be found out is itself a warning; the exit code stays 0, since the question
//! was answered.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1::ListItemsRequest;
use tresor_storage::Kind;
use tresor_storage::ids::ItemId;
use tresor_storage::keys::SlotKind;
use tresor_worker::home::{self, Home, KnownPoint, Place, Points, VaultEntry};

use super::cluster;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::vault::kit_advice;

#[derive(Serialize)]
struct ItemShown {
    item: String,
    item_id: String,
    points: usize,
    newest: String,
    newest_time: String,
    newest_age_seconds: i64,
    size: u64,
    live: bool,
    /// Its policy. None: its points stay until they are removed.
    schedule: Option<String>,
}

#[derive(Serialize)]
struct VaultStatus {
    vault: String,
    id: String,
    url: String,
    /// `ok`, or why the store cannot be used; none where that was not found out.
    store: Option<String>,
    /// `ok`, or why the keys cannot be had; none where that was not found out.
    key: Option<String>,
    recovery_kit: Option<bool>,
    items: Vec<ItemShown>,
}

#[derive(Serialize)]
struct StatusShown {
    home: String,
    vaults: Vec<VaultStatus>,
    warnings: Vec<String>,
    /// What its node says of items, jobs and itself.
    node: Option<cluster::StatusShown>,
}

const OK: &str = "ok";

/// Looks at every vault of the home, and asks its node.
///
/// # Errors
/// When the home cannot be read, or the node does not answer.
pub(super) async fn run(app: &App, node: Option<&Cluster>) -> Result<Answer, CliError> {
    let home = app.home("status")?;
    let mut shown = StatusShown {
        home: home.root().display().to_string(),
        vaults: Vec::new(),
        warnings: Vec::new(),
        node: None,
    };
    let mut policies = BTreeMap::new();
    if let Some(node) = node {
        let says = cluster::ask(node).await?;
        shown.warnings.extend(says.warnings.iter().cloned());
        shown.node = Some(says);
        let items = node.items(ListItemsRequest::default(), None).await;
        let items = items
            .doing(|| String::from("could not list the items of the node"))?
            .rows;
        policies.extend(items.into_iter().filter_map(|item| {
            let policy = item.spec.map(|spec| spec.policy)?;
            (!policy.is_empty()).then_some((item.id, policy))
        }));
    }
    for entry in home.vaults()? {
        let (mut vault, warnings) = look(app, &home, entry).await;
        for item in &mut vault.items {
            item.schedule = policies.get(&item.item_id).cloned();
        }
        shown.vaults.push(vault);
        shown.warnings.extend(warnings);
    }
    Ok(app.screen.answer(&shown, || text(&shown, app.now)))
}

async fn look(app: &App, home: &Home, entry: VaultEntry) -> (VaultStatus, Vec<String>) {
    let mut warnings = Vec::new();
    let mut status = VaultStatus {
        vault: entry.name.clone(),
        id: entry.id.to_string(),
        url: entry.url,
        store: None,
        key: None,
        recovery_kit: None,
        items: Vec::new(),
    };
    let mut warn = |text: String| warnings.push(format!("vault {}: {text}", entry.name));
    let secrets = app.secrets.without_asking();
    let opening = home::open_for_reading(Some(home), Place::Named(&entry.name), &secrets, &app.stores);
    let loaded = async {
        let vault = Box::pin(opening).await?;
        let points = home::load_points(&vault.vault).await?;
        Ok::<_, CliError>((vault, points))
    };
    match loaded.await {
        Ok((vault, points)) => {
            status.store = Some(OK.to_owned());
            status.key = Some(OK.to_owned());
            let kit = vault.keys.revision.slots().any(|slot| slot.kind == SlotKind::Kit);
            status.recovery_kit = Some(kit);
            if !kit {
                warn(format!("no recovery kit was taken; {}", kit_advice(&entry.name)));
            }
            for ignored in &vault.keys.ignored {
                warn(format!("{} does not count: {}", ignored.name, ignored.why));
            }
            if points.damaged_total > 0 {
                let verify = format!("tresor vault verify {}", entry.name);
                warn(format!(
                    "{} manifests cannot be read; {verify} says more",
                    points.damaged_total
                ));
            }
            status.items = items(&points, app.now);
        }
        Err(error) => {
            let why = error.chain();
            if is_key(&error) {
                status.store = Some(OK.to_owned());
                status.key = Some(why.clone());
            } else {
                status.store = Some(why.clone());
            }
            warn(why);
        }
    }
    (status, warnings)
}

/// Whether the store answered and the keys are what is missing.
fn is_key(error: &CliError) -> bool {
    use tresor_storage::Error as Storage;
    fn of(error: &Storage) -> bool {
        match error {
            Storage::While { source, .. } => of(source),
            Storage::Key(_) => true,
            _ => false,
        }
    }
    match error {
        CliError::Home(home::HomeError::NoKey { .. }) => true,
        CliError::Home(home::HomeError::Storage(error)) | CliError::Storage(error) => {
            of(error) && error.kind() == Kind::Denied
        }
        _ => false,
    }
}

/// The items with visible points, by name. Points are newest first.
fn items(points: &Points, now: Timestamp) -> Vec<ItemShown> {
    let mut items: BTreeMap<ItemId, (&KnownPoint, usize)> = BTreeMap::new();
    for point in points.visible() {
        items.entry(point.manifest.item).or_insert((point, 0)).1 += 1;
    }
    let mut shown: Vec<ItemShown> = items
        .into_iter()
        .map(|(item, (newest, count))| ItemShown {
            item: newest.manifest.item_name.clone(),
            item_id: item.to_string(),
            points: count,
            newest: newest.manifest.point.to_string(),
            newest_time: newest.manifest.time.clone(),
            newest_age_seconds: now.duration_since(newest.time()).as_secs(),
            size: newest.manifest.disks.iter().map(|disk| disk.root.size).sum(),
            live: newest.manifest.live,
            schedule: None,
        })
        .collect();
    shown.sort_by(|a, b| (&a.item, &a.item_id).cmp(&(&b.item, &b.item_id)));
    shown
}

fn text(shown: &StatusShown, now: Timestamp) -> String {
    if shown.vaults.is_empty() {
        return String::from("nothing is protected: there is no vault in this home; tresor backup DISK makes one");
    }
    let mut text = String::new();
    for vault in &shown.vaults {
        let state = |state: &Option<String>| {
            state
                .as_deref()
                .map_or("unknown", |s| if s == OK { "OK" } else { "WARNING" })
        };
        let kit = match vault.recovery_kit {
            Some(true) => "taken",
            Some(false) => "MISSING",
            None => "unknown",
        };
        text.push_str(&format!(
            "vault {} at {}: store {}, key {}, recovery kit {kit}\n",
            vault.vault,
            vault.url,
            state(&vault.store),
            state(&vault.key)
        ));
        if vault.items.is_empty() {
            text.push_str("  no items\n");
            continue;
        }
        let mut table = Table::new(&["item", ">points", "newest", ">age", ">size", "schedule"]);
        for item in &vault.items {
            let age = human::age(item.newest_age_seconds);
            let schedule = item.schedule.clone().unwrap_or_else(|| String::from("no schedule"));
            let points = human::count(item.points as u64);
            table.row([
                item.item.clone(),
                points,
                item.newest_time.clone(),
                age,
                human::size(item.size),
                schedule,
            ]);
        }
        for line in table.render().lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if let Some(node) = &shown.node {
        text.push_str(&cluster::attention(node, &[], now));
    }
    for warning in &shown.warnings {
        text.push_str(&format!("warning: {}\n", human::plain(warning)));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_status_with_a_vault_that_is_well_and_one_that_is_not() {
        let item = ItemShown {
            item: String::from("web-03"),
            item_id: "ab".repeat(16),
            points: 12,
            newest: "cd".repeat(16),
            newest_time: String::from("2026-03-10T12:00:00Z"),
            newest_age_seconds: 7300,
            size: 20 << 30,
            live: false,
            schedule: None,
        };
        let vault = |name: &str, store: &str, key: Option<&str>, items| VaultStatus {
            vault: name.to_owned(),
            id: "ef".repeat(16),
            url: format!("file:///backup/{name}"),
            store: Some(store.to_owned()),
            key: key.map(str::to_owned),
            recovery_kit: key.map(|_| true),
            items,
        };
        let shown = StatusShown {
            home: String::from("/h"),
            vaults: vec![
                vault("main", OK, Some(OK), vec![item]),
                vault("away", "it did not answer", None, Vec::new()),
            ],
            warnings: vec![String::from("vault away: it did not answer")],
            node: None,
        };
        let now = "2026-03-10T14:01:40Z".parse().expect("a time");
        insta::assert_snapshot!(text(&shown, now), @"
        vault main at file:///backup/main: store OK, key OK, recovery kit taken
          ITEM    POINTS  NEWEST                AGE      SIZE  SCHEDULE
          web-03      12  2026-03-10T12:00:00Z  2 h  20.0 GiB  no schedule
        vault away at file:///backup/away: store WARNING, key unknown, recovery kit unknown
          no items
        warning: vault away: it did not answer
        ");
    }
}
