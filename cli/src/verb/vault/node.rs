//! `tresor vault …` in a home that has a node: vaults are made by the home, which has their keys, and then become the node's.

use tresor_proto::v1::{ListItemsRequest, ListVaultsRequest, RemoveVaultRequest, UnprotectItemRequest};

use super::{cluster, create, rebuild, remove, take_over, verify};
use crate::app::App;
use crate::args::{VaultRemoveArgs, VaultVerb};
use crate::cluster::Cluster;
use crate::embedded::adopt;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, node: &Cluster, verb: VaultVerb) -> Result<Answer, CliError> {
    let home = app.home("vault create")?;
    let (answer, name) = match verb {
        VaultVerb::Create(args) => (Box::pin(create::run(app, &args)).await?, args.name),
        VaultVerb::TakeOver(args) => {
            refuse_known(app, node, args.name.as_deref()).await?;
            let name = app.vault_name(&home, args.name.as_deref())?;
            (Box::pin(take_over::run(app, args.name.as_deref())).await?, name)
        }
        VaultVerb::Rebuild(args) => return Box::pin(rebuild::run(app, args.name.as_deref())).await,
        // The worker has no word for one pack alone.
        VaultVerb::Verify(args) if args.pack.is_some() => return Box::pin(verify::run(app, &args)).await,
        VaultVerb::Remove(args) => return Box::pin(remove_both(app, node, args)).await,
        verb => return Box::pin(cluster::run(app, node, verb)).await,
    };
    Box::pin(adopt(app, &home, node, &name)).await?;
    Ok(answer)
}

/// Refuses to claim for the home what the node holds: the node would be fenced out of its own vault.
async fn refuse_known(app: &App, node: &Cluster, name: Option<&str>) -> Result<(), CliError> {
    let home = app.home("vault take-over")?;
    let name = app.vault_name(&home, name)?;
    let listed = node.vaults(ListVaultsRequest::default(), None).await;
    let known = listed
        .doing(|| String::from("could not list the vaults of the node"))?
        .rows;
    if !known.iter().any(|vault| vault.name == name) {
        return Ok(());
    }
    Err(CliError::usage_hint(
        format!("vault {} is the node's of this home", human::plain(&name)),
        "if another home has taken it over since: tresor item unprotect its items, tresor vault remove it (its data stays), then take it over",
    ))
}

/// The node lets go of it first: what a home has forgotten, its node would miss at every job.
async fn remove_both(app: &App, node: &Cluster, mut args: VaultRemoveArgs) -> Result<Answer, CliError> {
    let home = app.home("vault remove")?;
    let entry = home.vault(&args.name)?;
    let listed = node.vaults(ListVaultsRequest::default(), None).await;
    let doing = || format!("could not remove vault {}", human::plain(&args.name));
    let known = listed.doing(doing)?.rows;
    let id = entry.id.to_string();
    if known.iter().any(|vault| vault.id == id) {
        if args.delete_data {
            remove::confirm(app, &args, &entry.url)?;
            args.yes = Some(args.name.clone());
        }
        // What only a backup by hand has entered, nobody meant to have backed up again; what has a policy a person unprotects first.
        let listing = ListItemsRequest {
            vault: entry.name.clone(),
            ..Default::default()
        };
        for item in node.items(listing, None).await.doing(doing)?.rows {
            let has_policy = item.spec.as_ref().is_some_and(|spec| !spec.policy.is_empty());
            if item.protected && !has_policy {
                let request = UnprotectItemRequest {
                    name: item.id,
                    vault: entry.name.clone(),
                    ..Default::default()
                };
                node.unprotect_item(request).await.doing(doing)?;
            }
        }
        let request = RemoveVaultRequest {
            name: entry.name,
            ..Default::default()
        };
        node.remove_vault(request).await.doing(doing)?;
    }
    Box::pin(remove::run(app, &args)).await
}
