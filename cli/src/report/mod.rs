//! Reports: is everything safe, what does it take, who did what. Pure: rows go in one by one, a page comes out, and a page is drawn as text, CSV or HTML.
//!
//! `protection`, `capacity` and `audit` fold rows as they arrive, so that memory is bound by items and days and not by points, jobs or entries. Each folds
//! into a value that is the `--json` of the report, and lays that out as a [`page::Page`] of facts, charts and tables. `text`, `csv` and `html` draw pages
//! and know nothing of what is in them.

pub(crate) mod audit;
pub(crate) mod capacity;
mod chart;
pub(crate) mod csv;
mod escape;
pub(crate) mod html;
pub(crate) mod page;
pub(crate) mod protection;
#[cfg(test)]
mod testing;
pub(crate) mod text;
pub(crate) mod window;

use serde::Serialize;

use window::Window;

/// What every report says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Head {
    /// Which one it is.
    pub(crate) report: &'static str,
    /// When it was made.
    pub(crate) made: String,
    /// Of which cluster or home.
    pub(crate) source: String,
    /// What it looks at.
    pub(crate) window: Window,
    /// Only of this vault.
    pub(crate) vault: Option<String>,
    /// Only of items under this policy.
    pub(crate) policy: Option<String>,
    /// Only of items with these labels, `KEY=VALUE`.
    pub(crate) labels: Vec<String>,
    /// What a reader has to know to read the numbers right.
    pub(crate) notes: Vec<String>,
}

impl Head {
    /// What it is about, in a line.
    fn about(&self) -> String {
        let mut text = format!(
            "{}, {} to {}, made {}",
            self.source, self.window.since, self.window.until, self.made
        );
        let filters = [("vault", &self.vault), ("policy", &self.policy)];
        for (what, name) in filters {
            if let Some(name) = name {
                text.push_str(&format!(", {what} {name}"));
            }
        }
        if !self.labels.is_empty() {
            text.push_str(&format!(", label {}", self.labels.join(", ")));
        }
        text
    }
}

/// A share as people read it; `unknown` where there is nothing to share.
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// What is not known is said to be unknown, and is never shown as zero.
const UNKNOWN: &str = "unknown";
