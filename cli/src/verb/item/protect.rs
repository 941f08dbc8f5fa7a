//! `tresor item protect`.

use tresor_coordinator::rpc::admin::items::DEFAULT_POLICY;
use tresor_proto::v1::{
    GetItemRequest, GetPolicyRequest, Item, ItemSpec, Policy, ProtectItemRequest, UpdateItemRequest,
};
use tresor_storage::Kind;
use tresor_storage::vault::naming::check_item_name;

use super::ItemShown;
use crate::app::App;
use crate::args::ItemProtectArgs;
use crate::cluster::{Cluster, ClusterError};
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;
use crate::verb::hosts::settle_disks;
use crate::verb::places::{check_absolute, parse_placed_disks, wire_disks};

/// Protects an item; without a disk, one that is there.
pub(super) async fn run(app: &App, args: ItemProtectArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("item protect")?;
    check_item_name(&args.item).map_err(|error| CliError::usage(error.to_string()))?;
    let name = human::plain(&args.item);
    let doing = || format!("could not protect {name}");
    let item = if args.disks.is_empty() {
        change(app, &cluster, args).await.doing(doing)?
    } else {
        let also = args.also;
        let spec = spec(app, &cluster, args).await?;
        protect(app, &cluster, spec, also).await.doing(doing)?
    };
    let item = ItemShown::from(item);
    Ok(app.screen.answer(&item, || text(&item)))
}

/// Protects it. Where no policy is named it gets the one named `default`, if there is one, and what that means is said before.
async fn protect(app: &App, cluster: &Cluster, mut spec: ItemSpec, also: bool) -> Result<Item, CliError> {
    if spec.policy.is_empty() {
        let asked = GetPolicyRequest {
            name: String::from(DEFAULT_POLICY),
        };
        match cluster.get_policy(asked).await {
            Ok(policy) => {
                app.screen.say(&default_text(&spec.name, &policy));
                spec.policy = String::from(DEFAULT_POLICY);
            }
            Err(ClusterError::Refused(refusal)) if refusal.kind == Kind::Missing => {}
            Err(error) => return Err(error.into()),
        }
    }
    let request = ProtectItemRequest {
        spec: Some(spec),
        also,
        ..Default::default()
    };
    Ok(cluster.protect_item(request).await?)
}

/// What the policy that nobody named will mean, in plain words.
fn default_text(item: &str, policy: &Policy) -> String {
    let item = human::plain(item);
    let mut text =
        format!("no policy is named, so {item} gets policy {DEFAULT_POLICY} (--policy NAME gives it another):");
    for sentence in &policy.words {
        text.push_str("\n  ");
        text.push_str(&human::plain(sentence));
    }
    text.push_str("\nThis makes no point yet.");
    text
}

/// Changes what is named of an item that is there, and protects it again if it is not.
async fn change(app: &App, cluster: &Cluster, args: ItemProtectArgs) -> Result<Item, CliError> {
    if args.source_format().is_some() {
        return Err(CliError::usage(
            "--source-format says how DISK is read, and there is none",
        ));
    }
    let request = GetItemRequest {
        name: args.item.clone(),
        vault: app.cluster_vault(None),
    };
    let known = match cluster.get_item(request).await {
        Err(ClusterError::Refused(refusal)) if refusal.kind == Kind::Missing => {
            return Err(CliError::usage_hint(
                format!("there is no item {} yet: which disks has it?", args.item),
                "tresor item protect ITEM HOST:/PATH…",
            ));
        }
        known => known?,
    };
    let also = args.also;
    let version = known.version;
    let spec = changed(known.spec.unwrap_or_default(), args);
    if !known.protected {
        return protect(app, cluster, spec, also).await;
    }
    let request = UpdateItemRequest {
        version,
        name: spec.name.clone(),
        vault: spec.vault.clone(),
        spec: Some(spec),
        ..Default::default()
    };
    Ok(cluster.update_item(request).await?)
}

/// An item with what the options say; what they do not name stays.
fn changed(known: ItemSpec, args: ItemProtectArgs) -> ItemSpec {
    let mut spec = known;
    if let Some(policy) = args.policy {
        spec.policy = policy;
    }
    if let Some(worker) = args.worker {
        spec.host = worker;
    }
    spec.worker_labels.extend(args.worker_labels);
    spec.labels.extend(args.labels);
    spec.allow_live |= args.allow_live;
    spec.allow_backing |= args.allow_backing;
    spec
}

/// What the command line says of an item with its disks.
async fn spec(app: &App, cluster: &Cluster, args: ItemProtectArgs) -> Result<ItemSpec, CliError> {
    let format = args.source_format();
    let placed = parse_placed_disks(&args.disks, args.worker.as_deref())?;
    let (host, disks) = if placed.host.is_none() && !args.worker_labels.is_empty() {
        // Any of several workers: the path is the same on all of them.
        for disk in &placed.there {
            check_absolute(&disk.path)?;
        }
        (String::new(), placed.there)
    } else {
        settle_disks(cluster, placed).await?
    };
    Ok(ItemSpec {
        name: args.item,
        vault: app.cluster_vault(None),
        policy: args.policy.unwrap_or_default(),
        host,
        worker_labels: args.worker_labels.into_iter().collect(),
        labels: args.labels.into_iter().collect(),
        disks: wire_disks(&disks, format)?,
        allow_live: args.allow_live,
        allow_backing: args.allow_backing,
    })
}

fn text(item: &ItemShown) -> String {
    let mut text = format!(
        "{} is protected in vault {}",
        human::plain(&item.item),
        human::plain(&item.vault)
    );
    match &item.next_due {
        Some(due) => text.push_str(&format!("; its next backup is due {}", human::plain(due))),
        None => {
            let backup = format!(
                "; it has no schedule, so back it up yourself: tresor backup --item {}",
                human::plain(&item.item)
            );
            text.push_str(&backup);
        }
    }
    text
}
