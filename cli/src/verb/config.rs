//! `tresor config show`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::app::App;
use crate::config::{Shown, StoreTable};
use crate::human::Table;
use crate::screen::Answer;

#[derive(Serialize)]
struct ConfigShown<'a> {
    settings: Vec<Shown>,
    stores: &'a BTreeMap<String, StoreTable>,
}

/// Every setting and where it is from. What is secret is in files that are only named.
pub(crate) fn show(app: &App) -> Answer {
    let shown = ConfigShown {
        settings: app.settings.shown(),
        stores: &app.settings.stores,
    };
    app.screen.answer(&shown, || text(&shown))
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
    text
}
