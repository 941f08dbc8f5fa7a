//! What every verb works with: settings, the two streams, and the ways to a vault.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tresor_worker::home::{self, Home, IndexState, KnownPoint, OpenVault, Place, Points, WritableVault};

use crate::args::GlobalArgs;
use crate::config::{Origin, Settings, StoreTables};
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
        }
    }

    /// The home; makes what is missing in it. `verb` is shown to others that find us at work.
    pub(crate) fn home(&self, verb: &str) -> Result<Home, CliError> {
        let path = &self.settings.home.value;
        Home::open(path, verb).doing(|| format!("could not open home {}", path.display()))
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
