//! `tresor vault show`.

use std::collections::BTreeSet;

use serde::Serialize;
use tresor_storage::ids::hex;
use tresor_storage::vault::claim::holder;

use super::key::SlotShown;
use crate::app::App;
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;

#[derive(Serialize)]
struct StoreShown {
    url: String,
    region: String,
    create_only: bool,
    lists_fresh: bool,
    ranged_reads: bool,
    deletes: bool,
}

#[derive(Serialize)]
struct HolderShown {
    number: u64,
    cluster: String,
    /// None where the claim's text cannot be read.
    host: Option<String>,
    since: Option<String>,
}

#[derive(Serialize)]
struct KeysShown {
    revision: u32,
    created_at: String,
    opened_with: String,
    slots: Vec<SlotShown>,
    /// Objects in `keys/` that do not count.
    ignored: Vec<String>,
}

#[derive(Serialize)]
struct VaultShown {
    vault: String,
    id: String,
    url: String,
    header_hash: String,
    profile: String,
    redundancy: &'static str,
    created_at: String,
    created_by: String,
    stores: Vec<StoreShown>,
    holder: Option<HolderShown>,
    keys: KeysShown,
    items: usize,
    points: usize,
    points_removed: usize,
    damaged_manifests: usize,
}

/// Shows one vault.
pub(super) async fn run(app: &App, name: Option<&str>) -> Result<Answer, CliError> {
    let vault = app.open_for_reading("vault show", name).await?;
    let points = app.points(&vault).await?;
    let held = holder(vault.vault.backend.as_ref(), vault.vault.id)
        .await
        .doing(|| String::from("could not read the claims"))?;
    let held = held.map(|(listed, claim)| {
        let (host, since) = claim.map(|claim| (claim.holder, claim.claimed_at)).unzip();
        HolderShown {
            number: listed.number,
            cluster: listed.cluster.to_string(),
            host,
            since,
        }
    });
    let visible: Vec<_> = points.visible().collect();
    let items: BTreeSet<_> = visible.iter().map(|point| point.manifest.item).collect();
    let header = &vault.header;
    let stores = header.stores.iter().map(|store| StoreShown {
        url: store.url.clone(),
        region: store.region.clone(),
        create_only: store.abilities.create_only,
        lists_fresh: store.abilities.lists_fresh,
        ranged_reads: store.abilities.ranged_reads,
        deletes: store.abilities.deletes,
    });
    let shown = VaultShown {
        vault: vault.name.clone(),
        id: vault.vault.id.to_string(),
        url: vault.url.clone(),
        header_hash: hex(&vault.header_hash),
        profile: header.profile.clone(),
        redundancy: header.redundancy.word(),
        created_at: header.created_at.clone(),
        created_by: header.created_by.clone(),
        stores: stores.collect(),
        holder: held,
        keys: KeysShown {
            revision: vault.keys.revision.number(),
            created_at: vault.keys.revision.created_at().to_owned(),
            opened_with: vault.keys.slot.clone(),
            slots: SlotShown::of(&vault.keys),
            ignored: vault
                .keys
                .ignored
                .iter()
                .map(|ignored| format!("{}: {}", ignored.name, ignored.why))
                .collect(),
        },
        items: items.len(),
        points: visible.len(),
        points_removed: points.points.len() - visible.len(),
        damaged_manifests: points.damaged_total,
    };
    Ok(app.screen.answer(&shown, || text(&shown)))
}

fn text(shown: &VaultShown) -> String {
    let held = match &shown.holder {
        None => String::from("nobody"),
        Some(HolderShown {
            host: Some(host),
            since: Some(since),
            ..
        }) => format!("{} since {since}", human::plain(host)),
        Some(holder) => format!("claim {} of {}", holder.number, holder.cluster),
    };
    let removed = if shown.points_removed > 0 {
        format!(" ({} removed)", shown.points_removed)
    } else {
        String::new()
    };
    let lines = [
        ("vault", format!("{} ({})", shown.vault, shown.id)),
        ("store", shown.url.clone()),
        (
            "made",
            format!("{} by {}", shown.created_at, human::plain(&shown.created_by)),
        ),
        ("profile", shown.profile.clone()),
        ("redundancy", shown.redundancy.to_owned()),
        ("written by", held),
        (
            "holds",
            format!("{} points of {} items{removed}", shown.points, shown.items),
        ),
        (
            "keys",
            format!(
                "revision {} of {}, opened with slot {:?}",
                shown.keys.revision, shown.keys.created_at, shown.keys.opened_with
            ),
        ),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        text.push_str(&format!("{name:<12}{value}\n"));
    }
    for ignored in &shown.keys.ignored {
        text.push_str(&format!("{:<12}{}\n", "ignored", human::plain(ignored)));
    }
    let mut table = Table::new(&["slot", "kind", "allows", "made"]);
    for slot in &shown.keys.slots {
        table.row([
            slot.slot.clone(),
            slot.kind.to_owned(),
            slot.grant.to_owned(),
            slot.created_at.clone(),
        ]);
    }
    format!("{text}\n{}", table.render())
}
