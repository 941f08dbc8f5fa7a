//! `tresor policy …`.

mod shown;
mod spec;

use serde::Serialize;
use tresor_proto::v1::{
    CreatePolicyRequest, GetPolicyRequest, ListPoliciesRequest, PolicySpec, PreviewPolicyRequest, RemovePolicyRequest,
    UpdatePolicyRequest,
};

use super::shown::some;
use crate::app::App;
use crate::args::{PolicyCreateArgs, PolicyEditArgs, PolicyPreviewArgs, PolicyVerb};
use crate::cluster::Cluster;
use crate::confirm::confirm;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;
use shown::{PolicyShown, PreviewShown, table};

/// Runs that are shown before a policy is made or changed.
const RUNS_SHOWN: u32 = 3;

#[derive(Serialize)]
struct Policies {
    policies: Vec<PolicyShown>,
}

#[derive(Serialize)]
struct Removed {
    policy: String,
    removed: bool,
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: PolicyVerb) -> Result<Answer, CliError> {
    match verb {
        PolicyVerb::Create(args) => create(app, args).await,
        PolicyVerb::List => list(app).await,
        PolicyVerb::Show(args) => show(app, args.name).await,
        PolicyVerb::Edit(args) => edit(app, args).await,
        PolicyVerb::Remove(args) => remove(app, args.name).await,
        PolicyVerb::Preview(args) => preview(app, args).await,
    }
}

async fn create(app: &App, args: PolicyCreateArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("policy create")?;
    let spec = spec::made(args.name, &args.options);
    let name = human::plain(&spec.name);
    say_meaning(app, &cluster, &spec, args.yes).await?;
    confirm(&app.screen, args.yes, &format!("Make policy {name}?"))?;
    let request = CreatePolicyRequest {
        spec: Some(spec),
        ..Default::default()
    };
    let policy = cluster.create_policy(request).await;
    let policy = PolicyShown::from(policy.doing(|| format!("could not make policy {name}"))?);
    Ok(app.screen.answer(&policy, || {
        format!("made policy {name}; tresor item protect ITEM --policy {name} gives it to an item")
    }))
}

async fn edit(app: &App, args: PolicyEditArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("policy edit")?;
    let name = human::plain(&args.name);
    let doing = || format!("could not change policy {name}");
    let request = GetPolicyRequest {
        name: args.name.clone(),
    };
    let known = cluster.get_policy(request).await.doing(doing)?;
    let before = known.spec.unwrap_or_default();
    let mut spec = spec::changed(before.clone(), &args.options);
    if let Some(rename) = args.rename {
        spec.name = rename;
    }
    if args.no_windows {
        spec.windows.clear();
    }
    if spec == before {
        return Err(CliError::usage_hint(
            format!("policy {name} is like that already"),
            "say what is to change: tresor policy edit --help",
        ));
    }
    say_meaning(app, &cluster, &spec, args.yes).await?;
    confirm(
        &app.screen,
        args.yes,
        &format!("Change policy {name}, which {} items have?", human::count(known.items)),
    )?;
    let request = UpdatePolicyRequest {
        name: args.name,
        // Somebody else's change in the meantime is not undone unseen.
        version: known.version,
        spec: Some(spec),
        ..Default::default()
    };
    let policy = PolicyShown::from(cluster.update_policy(request).await.doing(doing)?);
    Ok(app.screen.answer(&policy, || {
        format!("policy {} is changed", human::plain(&policy.policy))
    }))
}

/// Says in plain words what a policy will mean, at standard error. A policy that makes no sense is refused by this already.
async fn say_meaning(app: &App, cluster: &Cluster, spec: &PolicySpec, confirmed: bool) -> Result<(), CliError> {
    let request = PreviewPolicyRequest {
        spec: Some(spec.clone()),
        runs: RUNS_SHOWN,
        ..Default::default()
    };
    let preview = cluster.preview_policy(request).await;
    let preview = preview.doing(|| format!("policy {} cannot be", human::plain(&spec.name)))?;
    let text = PreviewShown::new(some(spec.name.clone()), preview).text();
    if confirmed {
        app.screen.note(&text);
    } else {
        app.screen.say(&text);
    }
    Ok(())
}

async fn list(app: &App) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("policy list")?;
    let listed = cluster
        .policies(ListPoliciesRequest::default(), None)
        .await
        .doing(|| String::from("could not list policies"))?;
    let shown = Policies {
        policies: listed.rows.into_iter().map(PolicyShown::from).collect(),
    };
    Ok(app.screen.answer(&shown, || {
        if shown.policies.is_empty() {
            String::from("no policies; tresor policy create makes one")
        } else {
            table(&shown.policies)
        }
    }))
}

async fn show(app: &App, name: String) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("policy show")?;
    let policy = cluster.get_policy(GetPolicyRequest { name: name.clone() }).await;
    let policy = PolicyShown::from(policy.doing(|| format!("could not show policy {name}"))?);
    Ok(app.screen.answer(&policy, || policy.text()))
}

async fn remove(app: &App, name: String) -> Result<Answer, CliError> {
    let request = RemovePolicyRequest {
        name: name.clone(),
        ..Default::default()
    };
    let removed = app.need_cluster("policy remove")?.remove_policy(request).await;
    removed.doing(|| format!("could not remove policy {name}"))?;
    let shown = Removed {
        policy: name,
        removed: true,
    };
    Ok(app
        .screen
        .answer(&shown, || human::plain(&format!("policy {} is removed", shown.policy))))
}

async fn preview(app: &App, args: PolicyPreviewArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("policy preview")?;
    let doing = || String::from("could not preview the policy");
    let before = match &args.name {
        Some(name) => {
            let request = GetPolicyRequest { name: name.clone() };
            let policy = cluster.get_policy(request).await.doing(doing)?;
            policy.spec.unwrap_or_default()
        }
        None => PolicySpec::default(),
    };
    let spec = spec::changed(before.clone(), &args.options);
    // Either an existing policy is asked about, or one that is not made: the options make another one of it.
    let (name, spec) = match &args.name {
        Some(name) if spec == before => (name.clone(), None),
        _ => (String::new(), Some(spec)),
    };
    let request = PreviewPolicyRequest {
        name,
        spec,
        item: args.item.unwrap_or_default(),
        runs: args.runs,
    };
    let preview = cluster.preview_policy(request).await.doing(doing)?;
    let shown = PreviewShown::new(args.name, preview);
    Ok(app.screen.answer(&shown, || shown.text()))
}
