//! How what a cluster answers becomes what is shown: on the wire an absent text is empty, in `--json` it is null.

use std::collections::BTreeMap;

use crate::app::App;

/// A text; none where it is empty.
pub(crate) fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Labels as they are typed: `site=a,tier=gold`.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    let texts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    texts.join(",")
}

/// Says that a list was cut, so that nobody takes the shown part for the whole.
pub(crate) fn note_more(app: &App, more: bool, rows: usize) {
    if more {
        app.screen
            .note(&format!("only the first {rows} are shown; --limit 0 shows all"));
    }
}
