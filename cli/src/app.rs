//! What every verb works with: settings, the two streams, and the ways to a vault.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tresor_worker::home::{self, Home, KnownPoint, OpenVault, Place, Points, WritableVault};

use crate::args::GlobalArgs;
use crate::config::{Settings, StoreTables};
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
        Self { settings, screen, now: Timestamp::now(), stores, secrets, store: args.store.clone() }
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

    /// The vault's name: as a verb was given it, else that of the settings.
    pub(crate) fn vault_name<'a>(&'a self, given: Option<&'a str>) -> &'a str {
        given.unwrap_or(&self.settings.vault.value)
    }

    /// Opens a vault to be read: by `--store` and nothing of the home, else by name.
    pub(crate) async fn open_for_reading(&self, verb: &str, given: Option<&str>) -> Result<OpenVault, CliError> {
        if let Some(url) = self.store() {
            let opening = home::open_for_reading(None, Place::Url(url), &self.secrets, &self.stores);
            return Box::pin(opening).await.doing(|| format!("could not open the vault at {url}"));
        }
        let name = self.vault_name(given);
        let home = self.home(verb)?;
        let opening = home::open_for_reading(Some(&home), Place::Named(name), &self.secrets, &self.stores);
        Box::pin(opening).await.doing(|| format!("could not open vault {name}"))
    }

    /// Opens a vault to be written.
    pub(crate) async fn open_for_writing(&self, home: &Home, name: &str) -> Result<WritableVault, CliError> {
        if self.store().is_some() {
            return Err(CliError::usage_hint(
                "--store only reads: a vault is written by the home that holds it",
                format!("tresor vault take-over {name} --store URL, then the same without --store"),
            ));
        }
        let opening = home::open_for_writing(home, name, &self.secrets, &self.stores);
        Box::pin(opening).await.doing(|| format!("could not open vault {name}"))
    }

    /// All points of a vault; damaged manifests are named at standard error.
    pub(crate) async fn points(&self, vault: &OpenVault) -> Result<Points, CliError> {
        let points = home::load_points(&vault.vault).await.doing(|| String::from("could not read the recovery points"))?;
        for damaged in &points.damaged {
            self.screen.say(&format!("warning: {} cannot be read: {}", human::plain(&damaged.name), human::plain(&damaged.error.to_string())));
        }
        Ok(points)
    }

    /// The point that a text means. Times without a zone are in this machine's zone.
    pub(crate) fn resolve<'a>(&self, points: &'a Points, text: &str) -> Result<&'a KnownPoint, CliError> {
        Ok(home::resolve_point(&points.points, text, &jiff::tz::TimeZone::system())?)
    }

    /// Begins to listen to signals: from now on the token ends the job.
    pub(crate) fn signals(&self) -> Result<(Signals, CancellationToken), CliError> {
        let cancel = CancellationToken::new();
        Ok((signals::listen(&self.screen, cancel.clone())?, cancel))
    }
}
