//! What every verb works with: settings, the two streams, and the ways to a vault.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tresor_worker::home::{self, HeldVault, Home, IndexState, KnownPoint, OpenVault, Place, Points, WritableVault};

use crate::args::{DetachArgs, GlobalArgs};
use crate::cluster::{Cluster, ClusterError, Kept, Target};
use crate::config::{Origin, Settings, StoreTables};
use crate::embedded::{Access, Seat};
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Screen;
use crate::signals::{self, Signals};
use crate::unlock::Secrets;

/// One call of the program.
pub(crate) struct App {
    /// Settings.
    pub(crate) settings: Settings,
    /// Where text goes.
    pub(crate) screen: Screen,
    /// When the call began.
    pub(crate) now: Timestamp,
    /// Opens stores.
    pub(crate) stores: StoreTables,
    /// Opens keys.
    pub(crate) secrets: Secrets,
    store: Option<String>,
    node: Mutex<Option<Arc<Seat>>>,
}

impl App {
    /// Puts one together.
    pub(crate) fn new(args: &GlobalArgs, settings: Settings, screen: Screen) -> Self {
        let stores = StoreTables::new(settings.stores.clone(), &settings.home.value);
        let secrets = Secrets::new(args, &settings, &screen);
        Self {
            settings,
            screen,
            now: Timestamp::now(),
            stores,
            secrets,
            store: args.store.clone(),
            node: Mutex::default(),
        }
    }

    /// The home; makes what is missing in it. `verb` is shown to others that find us at work.
    pub(crate) fn home(&self, verb: &str) -> Result<Home, CliError> {
        let path = &self.settings.home.value;
        Home::open(path, verb).doing(|| format!("could not open home {}", path.display()))
    }

    /// The cluster to work with; none: this home. A vault named by `--store` is read without either, unless the command line names a cluster too,
    /// which is a contradiction.
    ///
    /// # Errors
    /// When the cluster is not known here.
    pub(crate) fn cluster(&self) -> Result<Option<Cluster>, CliError> {
        if self.store.is_none() {
            return self.cluster_with_store();
        }
        match self.settings.cluster.origin {
            Origin::Option(_) if self.settings.cluster.value != Target::None => Err(CliError::usage(
                "--store reads a vault without any cluster: it does not go with --cluster here",
            )),
            _ => Ok(None),
        }
    }

    /// As [`Self::cluster`], for what hands the store to the cluster.
    pub(crate) fn cluster_with_store(&self) -> Result<Option<Cluster>, CliError> {
        let home = &self.settings.home.value;
        let patience = self.settings.cluster_patience.value;
        let kept = match &self.settings.cluster.value {
            Target::None => return Ok(self.node_of_home()),
            Target::Socket(path) => return Ok(Some(Cluster::at_socket(path, patience, &self.screen))),
            Target::Named(name) => {
                Kept::load(home, name)?.ok_or_else(|| ClusterError::NotKept { cluster: name.clone() })?
            }
            // Who names addresses means those, also if the cluster has moved since the login.
            Target::Members(addresses) => Kept {
                addresses: addresses.clone(),
                given: addresses.clone(),
                ..Kept::find(home, addresses)?
            },
        };
        let cluster = Cluster::kept(&kept, patience, &self.screen)?;
        Ok(Some(cluster.keeping(home, kept, self.now)))
    }

    /// From here on the verb works with the node of its home.
    pub(crate) fn enter(&self, seat: Seat) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(seat));
    }

    /// From here on it works without. Gives back where it sat there.
    pub(crate) fn leave_node(&self) -> Option<Arc<Seat>> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Where the verb sits at the node of its home, if it works with it.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn access(&self) -> Option<Access> {
        Some(self.seat()?.access())
    }

    /// The node of this home, if the verb works with it.
    pub(crate) fn node_of_home(&self) -> Option<Cluster> {
        let patience = self.settings.cluster_patience.value;
        Some(Cluster::of_home(self.seat()?, patience, &self.screen))
    }

    /// Whether this process is the node of its home, for this verb alone: what it does not wait for is left undone.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self.access(), Some(Access::Host { .. }))
    }

    /// Whether the node of this home lasts for one command only, this one or another: nobody is there to try again what fails.
    pub(crate) fn is_node_brief(&self) -> bool {
        matches!(
            self.access(),
            Some(Access::Host { .. } | Access::Guest { is_brief: true, .. })
        )
    }

    /// Notes that the verb waits for a job of the node of its home.
    pub(crate) fn awaits(&self, job: u64) {
        if let Some(seat) = self.seat() {
            seat.awaits(job);
        }
    }

    /// Whether a job is of an earlier process that was the node of this home, which this one is now.
    pub(crate) fn is_left_over(&self, job: u64) -> bool {
        matches!(self.access(), Some(Access::Host { began, .. }) if job <= began)
    }

    /// The cluster, for a verb that is nothing without one.
    ///
    /// # Errors
    /// When none is chosen, or it is not known here.
    pub(crate) fn need_cluster(&self, verb: &'static str) -> Result<Cluster, CliError> {
        Ok(self.cluster()?.ok_or(ClusterError::NoneChosen { verb })?)
    }

    /// Refuses `--detach` where no job is left behind.
    ///
    /// # Errors
    /// [`ClusterError::NoneChosen`].
    pub(crate) fn refuse_detach(&self, args: &DetachArgs) -> Result<(), CliError> {
        if args.detach {
            return Err(ClusterError::NoneChosen { verb: "--detach" }.into());
        }
        Ok(())
    }

    /// Refuses `--worker` where there are none.
    ///
    /// # Errors
    /// [`ClusterError::NoneChosen`].
    pub(crate) fn refuse_worker(&self, worker: Option<&str>) -> Result<(), CliError> {
        match worker {
            Some(_) => Err(ClusterError::NoneChosen { verb: "--worker" }.into()),
            None => Ok(()),
        }
    }

    /// The refusal of a cluster, for what works on this home alone.
    pub(crate) fn not_in_cluster(&self, what: &str) -> CliError {
        CliError::usage_hint(
            format!(
                "{what} works on this home, not on cluster {}",
                self.settings.cluster.value
            ),
            "pass --cluster '' to work on this home",
        )
    }

    /// The vault that is meant in a cluster: as a verb was given it, else that of the settings, else empty, which is `main` or the only one there is.
    pub(crate) fn cluster_vault(&self, given: Option<&str>) -> String {
        let setting = &self.settings.vault;
        match given {
            Some(name) => name.to_owned(),
            None if setting.origin != Origin::Default => setting.value.clone(),
            None => String::new(),
        }
    }

    /// The vault in which a cluster is to look for an item by its name: one item may be in several vaults of a home, and there one of them is always meant.
    ///
    /// # Errors
    /// When the home cannot be read.
    pub(crate) fn meant_vault(&self, cluster: &Cluster) -> Result<String, CliError> {
        if !cluster.is_of_home() {
            return Ok(self.cluster_vault(None));
        }
        Ok(self.chosen_vault(&self.home("node")?, None)?.unwrap_or_default())
    }

    /// The store that the command line names.
    pub(crate) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// The vault that is meant: as a verb was given it, else that of the settings, else `main` or the only one there is. None in a home without any.
    pub(crate) fn chosen_vault(&self, home: &Home, given: Option<&str>) -> Result<Option<String>, CliError> {
        let setting = &self.settings.vault;
        match given {
            Some(name) => Ok(Some(name.to_owned())),
            None if setting.origin != Origin::Default => Ok(Some(setting.value.clone())),
            None => Ok(home.default_vault()?.map(|entry| entry.name)),
        }
    }

    /// As [`Self::chosen_vault`]; in a home without any, the name that the first one would have.
    pub(crate) fn vault_name(&self, home: &Home, given: Option<&str>) -> Result<String, CliError> {
        Ok(self
            .chosen_vault(home, given)?
            .unwrap_or_else(|| self.settings.vault.value.clone()))
    }

    /// Whether this call names what opens vaults.
    pub(crate) fn has_explicit_key(&self) -> bool {
        self.secrets.is_explicit()
    }

    /// Opens a vault to be read: by `--store` and nothing of the home, else by name.
    pub(crate) async fn open_for_reading(&self, verb: &str, given: Option<&str>) -> Result<OpenVault, CliError> {
        if let Some(url) = self.store() {
            let opening = home::open_for_reading(None, Place::Url(url), &self.secrets, &self.stores);
            return Box::pin(opening)
                .await
                .doing(|| format!("could not open the vault at {}", human::url(url)));
        }
        let home = self.home(verb)?;
        let name = self.vault_name(&home, given)?;
        let opening = home::open_for_reading(Some(&home), Place::Named(&name), &self.secrets, &self.stores);
        Box::pin(opening).await.doing(|| format!("could not open vault {name}"))
    }

    /// Refuses `--store` where a vault is written.
    pub(crate) fn refuse_store(&self, name: &str) -> Result<(), CliError> {
        if self.store.is_none() {
            return Ok(());
        }
        Err(CliError::usage_hint(
            "--store only reads: a vault is written by the home that holds it",
            format!("tresor vault take-over {name} --store URL, then the same without --store"),
        ))
    }

    /// Opens a vault to be written.
    pub(crate) async fn open_for_writing(&self, home: &Home, name: &str) -> Result<WritableVault, CliError> {
        self.refuse_store(name)?;
        let opening = home::open_for_writing(home, name, &self.secrets, &self.stores);
        let vault = Box::pin(opening)
            .await
            .doing(|| format!("could not open vault {name}"))?;
        if let IndexState::Rebuilt { why, report } = &vault.index_state
            && report.packs_listed > 0
        {
            self.screen
                .note(&format!("the index of vault {name} was built anew: {why}"));
        }
        self.tell_damaged(&vault.points);
        Ok(vault)
    }

    /// Opens a vault to change its keys.
    pub(crate) async fn open_for_change(&self, home: &Home, name: &str) -> Result<HeldVault, CliError> {
        self.refuse_store(name)?;
        let opening = home::open_for_change(home, name, &self.secrets, &self.stores);
        let vault = Box::pin(opening)
            .await
            .doing(|| format!("could not open vault {name}"))?;
        self.tell_damaged(&vault.points);
        Ok(vault)
    }

    /// Names damaged manifests at standard error.
    fn tell_damaged(&self, points: &Points) {
        for damaged in &points.damaged {
            let (name, why) = (human::plain(&damaged.name), human::plain(&damaged.error.chain()));
            self.screen.say(&format!("warning: {name} cannot be read: {why}"));
        }
    }

    /// All points of a vault; damaged manifests are named at standard error.
    pub(crate) async fn points(&self, vault: &OpenVault) -> Result<Points, CliError> {
        let points = home::load_points(&vault.vault)
            .await
            .doing(|| String::from("could not read the recovery points"))?;
        self.tell_damaged(&points);
        Ok(points)
    }

    /// The point that a text means. Times without a zone are in this machine's zone.
    pub(crate) fn resolve<'a>(&self, points: &'a Points, text: &str) -> Result<&'a KnownPoint, CliError> {
        Ok(home::resolve_point(
            &points.points,
            text,
            &jiff::tz::TimeZone::system(),
        )?)
    }

    /// Begins to listen to signals: from now on the token ends the job.
    pub(crate) fn signals(&self) -> Result<(Signals, CancellationToken), CliError> {
        let cancel = CancellationToken::new();
        Ok((signals::listen(&self.screen, cancel.clone())?, cancel))
    }
}
