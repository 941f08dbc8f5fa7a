//! `tresor item …`.

mod protect;
mod shown;

use serde::Serialize;
use tresor_proto::v1::{GetItemRequest, ItemSpec, ListItemsRequest, UnprotectItemRequest, UpdateItemRequest};

use super::shown::note_more;
use crate::app::App;
use crate::args::{ItemListArgs, ItemRenameArgs, ItemUnprotectArgs, ItemVerb};
use crate::confirm::confirm;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;
use shown::{ItemShown, table};

#[derive(Serialize)]
struct Items {
    items: Vec<ItemShown>,
    /// There are more.
    more: bool,
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: ItemVerb) -> Result<Answer, CliError> {
    match verb {
        ItemVerb::Protect(args) => Box::pin(protect::run(app, args)).await,
        ItemVerb::List(args) => list(app, args).await,
        ItemVerb::Show(args) => show(app, args.item).await,
        ItemVerb::Rename(args) => rename(app, args).await,
        ItemVerb::Unprotect(args) => unprotect(app, args).await,
    }
}

async fn list(app: &App, args: ItemListArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("item list")?;
    let request = ListItemsRequest {
        vault: app.cluster_vault(None),
        labels: args.labels.into_iter().collect(),
        // A word of the command line has no blank in it.
        state: args.state.map(|state| state.replace('-', " ")).unwrap_or_default(),
        ..Default::default()
    };
    let listed = cluster
        .items(request, args.limit.most(app.screen.is_for_person()))
        .await
        .doing(|| String::from("could not list items"))?;
    let shown = Items {
        items: listed.rows.into_iter().map(ItemShown::from).collect(),
        more: listed.more,
    };
    note_more(app, shown.more, shown.items.len());
    Ok(app.screen.answer(&shown, || {
        if shown.items.is_empty() {
            String::from("no items")
        } else {
            table(&shown.items, app.now)
        }
    }))
}

async fn show(app: &App, name: String) -> Result<Answer, CliError> {
    let request = GetItemRequest {
        name: name.clone(),
        vault: app.cluster_vault(None),
    };
    let item = app.need_cluster("item show")?.get_item(request).await;
    let item = ItemShown::from(item.doing(|| format!("could not show item {name}"))?);
    Ok(app.screen.answer(&item, || item.text(app.now)))
}

async fn rename(app: &App, args: ItemRenameArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("item rename")?;
    let ItemRenameArgs { item, name } = args;
    let vault = app.cluster_vault(None);
    let doing = || format!("could not rename item {item}");
    let request = GetItemRequest {
        name: item.clone(),
        vault: vault.clone(),
    };
    let known = cluster.get_item(request).await.doing(doing)?;
    let request = UpdateItemRequest {
        name: item.clone(),
        vault,
        spec: Some(ItemSpec {
            name,
            ..known.spec.unwrap_or_default()
        }),
        version: known.version,
        ..Default::default()
    };
    let shown = ItemShown::from(cluster.update_item(request).await.doing(doing)?);
    Ok(app.screen.answer(&shown, || {
        human::plain(&format!("item {item} is called {} now", shown.item))
    }))
}

async fn unprotect(app: &App, args: ItemUnprotectArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("item unprotect")?;
    let name = human::plain(&args.item);
    confirm(
        &app.screen,
        args.yes,
        &format!("{name} will not be backed up any more. Go on?"),
    )?;
    let request = UnprotectItemRequest {
        name: args.item,
        vault: app.cluster_vault(None),
        ..Default::default()
    };
    let item = cluster.unprotect_item(request).await;
    let item = ItemShown::from(item.doing(|| format!("could not unprotect item {name}"))?);
    Ok(app.screen.answer(&item, || {
        human::plain(&format!(
            "{} is not backed up any more; its points in vault {} stay",
            item.item, item.vault
        ))
    }))
}
