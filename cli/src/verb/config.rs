//! `tresor config show`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::app::App;
use crate::cluster::{Kept, list};
use crate::config::{Shown, StoreTable};
use crate::error::CliError;
use crate::human::Table;
use crate::screen::Answer;

#[derive(Serialize)]
struct LoginShown {
    cluster: String,
    cluster_id: Option<String>,
    addresses: Option<String>,
    /// Why it cannot be used.
    problem: Option<String>,
}

#[derive(Serialize)]
struct ConfigShown<'a> {
    settings: Vec<Shown>,
    stores: &'a BTreeMap<String, StoreTable>,
    /// What `tresor login` keeps, without what is secret in it.
    logins: Vec<LoginShown>,
}

/// Every setting and where it is from. What is secret is in files that are only named.
///
/// # Errors
/// When the home cannot be read.
pub(crate) fn show(app: &App) -> Result<Answer, CliError> {
    let shown = look_at(app)?;
    Ok(app.screen.answer(&shown, || text(&shown)))
}

/// The same, for whoever shows it otherwise.
///
/// # Errors
/// When the home cannot be read.
pub(crate) fn look(app: &App) -> Result<impl Serialize, CliError> {
    look_at(app)
}

fn look_at(app: &App) -> Result<ConfigShown<'_>, CliError> {
    let home = &app.settings.home.value;
    let login = |name: String| match Kept::load(home, &name) {
        Ok(kept) => LoginShown {
            cluster_id: kept.as_ref().map(|kept| kept.cluster.clone()),
            addresses: kept.map(|kept| list(&kept.addresses)),
            cluster: name,
            problem: None,
        },
        Err(error) => LoginShown {
            cluster: name,
            cluster_id: None,
            addresses: None,
            problem: Some(error.chain()),
        },
    };
    Ok(ConfigShown {
        settings: app.settings.shown(),
        stores: &app.settings.stores,
        logins: Kept::names(home)?.into_iter().map(login).collect(),
    })
}

fn text(shown: &ConfigShown<'_>) -> String {
    let mut table = Table::new(&["setting", "value", "from"]);
    for Shown { setting, value, origin } in &shown.settings {
        let value = value.clone().unwrap_or_else(|| String::from("-"));
        table.row([(*setting).to_owned(), value, origin.describe()]);
    }
    let mut text = table.render();
    for (url, store) in shown.stores {
        text.push_str(&format!("\n\n[stores.{url:?}]\n"));
        // The table is plain data that came from such text.
        text.push_str(toml::to_string(store).unwrap_or_default().trim_end());
    }
    if !shown.logins.is_empty() {
        let mut table = Table::new(&["login", "cluster", "addresses", ""]);
        for login in &shown.logins {
            table.row([
                login.cluster.clone(),
                login.cluster_id.clone().unwrap_or_default(),
                login.addresses.clone().unwrap_or_default(),
                login.problem.clone().unwrap_or_default(),
            ]);
        }
        text.push_str(&format!("\n\n{}", table.render()));
    }
    text
}
