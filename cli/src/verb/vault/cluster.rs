//! `tresor vault …` in a cluster: the cluster holds the keys, and workers do what touches a store.

use serde::Serialize;
use tresor_proto::v1::{
    self, CreateVaultRequest, GetVaultRequest, ListVaultsRequest, RemoveVaultRequest, StartVerifyRequest,
};
use tresor_storage::chunk::Profile;
use tresor_storage::keys::KeyFile;
use tresor_storage::verify::Level;
use tresor_worker::home::MAIN;

use super::verify::{self, VerifyShown};
use crate::app::App;
use crate::args::{VaultCreateArgs, VaultRemoveArgs, VaultVerb, VaultVerifyArgs};
use crate::cluster::Cluster;
use crate::config::read_small;
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::human::{self, Table};
use crate::screen::Answer;
use crate::verb::job::{Finished, JobShown, finish, wait_done};
use crate::verb::point::named_point;
use crate::verb::shown::some;

/// A vault as the cluster knows it.
#[derive(Debug, Serialize)]
pub(crate) struct VaultShown {
    vault: String,
    id: String,
    url: String,
    region: Option<String>,
    profile: String,
    state: String,
    claim: u64,
    items: u64,
    points: u64,
    bytes_stored: u64,
    catalogue_at: Option<String>,
}

#[derive(Serialize)]
struct Vaults {
    vaults: Vec<VaultShown>,
}

#[derive(Serialize)]
struct Removed {
    vault: String,
    data_deleted: bool,
}

impl From<v1::Vault> for VaultShown {
    fn from(vault: v1::Vault) -> Self {
        Self {
            vault: vault.name,
            id: vault.id,
            url: human::url(&vault.url),
            region: some(vault.region),
            profile: vault.profile,
            state: vault.state,
            claim: vault.claim,
            items: vault.items,
            points: vault.points,
            bytes_stored: vault.bytes_stored,
            catalogue_at: some(vault.catalogue_at),
        }
    }
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(super) async fn run(app: &App, cluster: &Cluster, verb: VaultVerb) -> Result<Answer, CliError> {
    match verb {
        VaultVerb::Create(args) => create(app, cluster, args).await,
        VaultVerb::TakeOver(args) => take_over(app, cluster, args.name.as_deref()).await,
        VaultVerb::List => list(app, cluster).await,
        VaultVerb::Show(args) => {
            let vault = get(app, cluster, args.name.as_deref()).await?;
            let shown = VaultShown::from(vault);
            Ok(app.screen.answer(&shown, || shown.text()))
        }
        VaultVerb::Remove(args) => remove(app, cluster, args).await,
        VaultVerb::Verify(args) => run_verify(app, cluster, args).await,
        VaultVerb::Rebuild(_) => Err(app.not_in_cluster("vault rebuild")),
        VaultVerb::RecoveryKit(_) => Err(app.not_in_cluster("vault recovery-kit")),
        VaultVerb::Key(_) => Err(app.not_in_cluster("vault key")),
    }
}

async fn get(app: &App, cluster: &Cluster, name: Option<&str>) -> Result<v1::Vault, CliError> {
    let name = match app.cluster_vault(name) {
        name if name.is_empty() => meant(cluster).await?,
        name => name,
    };
    let vault = cluster.get_vault(GetVaultRequest { name: name.clone() }).await;
    vault.doing(|| format!("could not show vault {name}"))
}

/// The vault that is meant where none is named: `main`, or the only one there is.
async fn meant(cluster: &Cluster) -> Result<String, CliError> {
    let listed = cluster.vaults(ListVaultsRequest::default(), None).await;
    let mut names: Vec<String> = listed
        .doing(|| String::from("could not list vaults"))?
        .rows
        .into_iter()
        .map(|vault| vault.name)
        .collect();
    if names.iter().any(|name| name == MAIN) {
        return Ok(MAIN.to_owned());
    }
    if names.len() == 1 {
        return Ok(names.remove(0));
    }
    Err(CliError::usage_hint(
        format!(
            "the cluster has {}: which one is meant?",
            human::many(names.len(), "vault")
        ),
        "tresor vault list",
    ))
}

fn store(app: &App, name: &str) -> Result<String, CliError> {
    let url = app.store().ok_or_else(|| {
        CliError::usage_hint(
            format!("vault {name} of a cluster needs a store that its workers reach"),
            "pass --store URL",
        )
    })?;
    Ok(url.to_owned())
}

async fn create(app: &App, cluster: &Cluster, args: VaultCreateArgs) -> Result<Answer, CliError> {
    if args.passphrase {
        return Err(app.not_in_cluster("--passphrase"));
    }
    let request = CreateVaultRequest {
        url: store(app, &args.name)?,
        name: args.name,
        region: args.region,
        profile: Profile::from(args.profile).name().to_owned(),
        ..Default::default()
    };
    make(app, cluster, request, "make").await
}

async fn take_over(app: &App, cluster: &Cluster, name: Option<&str>) -> Result<Answer, CliError> {
    let name = match app.cluster_vault(name) {
        name if name.is_empty() => app.settings.vault.value.clone(),
        name => name,
    };
    let url = store(app, &name)?;
    let path = app.secrets.key_file().ok_or_else(|| {
        CliError::usage_hint(
            "a cluster takes a vault over with a key file, which it keeps",
            "pass --key-file FILE; tresor vault key add makes one",
        )
    })?;
    // Whatever else the file is stays here.
    KeyFile::load(path, None)?;
    let key_file = read_small(path)?;
    let request = CreateVaultRequest {
        name,
        url,
        take_over: true,
        key_file: key_file.as_bytes().to_vec().into(),
        ..Default::default()
    };
    make(app, cluster, request, "take over").await
}

async fn make(app: &App, cluster: &Cluster, request: CreateVaultRequest, verb: &str) -> Result<Answer, CliError> {
    let name = human::plain(&request.name);
    let made = async {
        let job = cluster.create_vault(request).await?;
        Box::pin(wait_done(app, cluster, job)).await
    };
    made.await.doing(|| format!("could not {verb} vault {name}"))?;
    let shown = VaultShown::from(get(app, cluster, Some(&name)).await?);
    Ok(app.screen.answer(&shown, || {
        format!(
            "vault {name} at {} is the cluster's; back the cluster's state up now, its key is in it: tresor cluster backup FILE",
            shown.url
        )
    }))
}

async fn list(app: &App, cluster: &Cluster) -> Result<Answer, CliError> {
    let listed = cluster
        .vaults(ListVaultsRequest::default(), None)
        .await
        .doing(|| String::from("could not list vaults"))?;
    let shown = Vaults {
        vaults: listed.rows.into_iter().map(VaultShown::from).collect(),
    };
    Ok(app.screen.answer(&shown, || {
        if shown.vaults.is_empty() {
            String::from("no vaults; tresor vault create NAME --store URL makes one")
        } else {
            table(&shown.vaults)
        }
    }))
}

async fn remove(app: &App, cluster: &Cluster, args: VaultRemoveArgs) -> Result<Answer, CliError> {
    if args.delete_data {
        return Err(app.not_in_cluster("--delete-data"));
    }
    let request = RemoveVaultRequest {
        name: args.name.clone(),
        ..Default::default()
    };
    let removed = cluster.remove_vault(request).await;
    removed.doing(|| format!("could not remove vault {}", args.name))?;
    let shown = Removed {
        vault: args.name,
        data_deleted: false,
    };
    Ok(app.screen.answer(&shown, || {
        format!(
            "the cluster has forgotten vault {}; its data stays, and tresor vault take-over brings it back",
            human::plain(&shown.vault)
        )
    }))
}

async fn run_verify(app: &App, cluster: &Cluster, args: VaultVerifyArgs) -> Result<Answer, CliError> {
    if args.pack.is_some() {
        return Err(app.not_in_cluster("--pack"));
    }
    let vault = app.cluster_vault(args.name.as_deref());
    let doing = || format!("could not verify vault {vault}");
    let point = match &args.point {
        Some(point) => named_point(app, cluster, point).await.doing(doing)?,
        None => String::new(),
    };
    let request = StartVerifyRequest {
        vault: vault.clone(),
        point,
        level: Level::from(args.level).name().to_owned(),
        ..Default::default()
    };
    let job = cluster.start_verify(request).await.doing(doing)?;
    let finished = Box::pin(finish(app, cluster, job, args.detach.detach)).await;
    let job = match finished.doing(doing)? {
        Finished::Detached(answer) => return Ok(answer),
        Finished::Done(job) => job,
    };
    let findings = job.findings;
    let in_detail = job.report.clone().and_then(|report| report.verify);
    let answer = match in_detail.filter(|_| cluster.is_of_home()) {
        Some(report) => {
            let took = job.counts.map_or(0, |counts| counts.took_ms);
            let shown = VerifyShown::of_job(job.vault.clone(), job.id, report, took);
            app.screen.answer(&shown, || verify::text(&shown))
        }
        None => {
            let job = JobShown::from(*job);
            app.screen.answer(&job, || verified(&job))
        }
    };
    Ok(if findings > 0 {
        answer.with_code(Code::Damage)
    } else {
        answer
    })
}

fn verified(job: &JobShown) -> String {
    match job.findings {
        0 => format!("{}: nothing is wrong", job.about()),
        count => format!(
            "{}: {} findings; tresor point list says which points are harmed",
            job.about(),
            human::count(count)
        ),
    }
}

impl VaultShown {
    fn text(&self) -> String {
        human::pairs(&[
            ("vault", format!("{} ({})", self.vault, self.id)),
            ("state", self.state.clone()),
            ("store", self.url.clone()),
            ("region", self.region.clone().unwrap_or_default()),
            ("profile", self.profile.clone()),
            ("claim", self.claim.to_string()),
            (
                "holds",
                format!(
                    "{} points of {} items, {} stored",
                    human::count(self.points),
                    human::count(self.items),
                    human::size(self.bytes_stored)
                ),
            ),
            (
                "catalogue",
                self.catalogue_at.clone().unwrap_or_else(|| String::from("none yet")),
            ),
        ])
    }
}

fn table(vaults: &[VaultShown]) -> String {
    let mut table = Table::new(&["vault", "state", "store", ">items", ">points", ">stored", "catalogue"]);
    for vault in vaults {
        table.row([
            vault.vault.clone(),
            vault.state.clone(),
            vault.url.clone(),
            human::count(vault.items),
            human::count(vault.points),
            human::size(vault.bytes_stored),
            vault.catalogue_at.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_vault_of_a_cluster() {
        let shown = VaultShown::from(v1::Vault {
            id: "ab".repeat(16),
            name: String::from("main"),
            url: String::from("s3://user:hunter2@backups/main"),
            region: String::from("eu"),
            profile: String::from("grain-32k"),
            state: String::from("ready"),
            claim: 3,
            items: 812,
            points: 40_213,
            catalogue_at: String::new(),
            bytes_stored: 7 << 40,
        });
        insta::assert_snapshot!(shown.text(), @"
        vault      main (abababababababababababababababab)
        state      ready
        store      s3://backups/main
        region     eu
        profile    grain-32k
        claim      3
        holds      40 213 points of 812 items, 7.0 TiB stored
        catalogue  none yet
        ");
        insta::assert_snapshot!(table(&[shown]), @"
        VAULT  STATE  STORE              ITEMS  POINTS   STORED  CATALOGUE
        main   ready  s3://backups/main    812  40 213  7.0 TiB
        ");
    }
}
