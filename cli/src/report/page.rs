//! What a report consists of, whatever draws it.

pub(crate) use super::chart::{Bars, Days, Series};

/// How a value is meant. Colour is never all that tells it: the word is there, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// A value like any other.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Somebody should look.
    Warn,
    /// Somebody must act.
    Bad,
    /// Not known, or of no weight.
    Dim,
}

/// A value in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// For people.
    pub(crate) text: String,
    /// For programs: bytes, seconds, RFC 3339; empty where it is not known.
    pub(crate) raw: String,
    /// How it is meant.
    pub(crate) tone: Tone,
}

impl Cell {
    /// A text, the same for both.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            raw: text.clone(),
            text,
            tone: Tone::Plain,
        }
    }

    /// A value and how people read it; none is not known.
    pub(crate) fn of<T: ToString + Clone>(value: Option<T>, shown: impl FnOnce(T) -> String) -> Self {
        match value {
            Some(value) => Self {
                raw: value.to_string(),
                text: shown(value),
                tone: Tone::Plain,
            },
            None => Self {
                raw: String::new(),
                text: super::UNKNOWN.to_owned(),
                tone: Tone::Dim,
            },
        }
    }

    /// A time, to the minute for people; they are all UTC.
    pub(crate) fn time(time: &str) -> Self {
        let shown = time
            .get(..16)
            .map_or_else(|| time.to_owned(), |minute| minute.replace('T', " "));
        Self {
            raw: time.to_owned(),
            text: shown,
            tone: Tone::Plain,
        }
    }

    /// A count.
    pub(crate) fn count(count: u64) -> Self {
        Self::of(Some(count), crate::human::count)
    }

    /// The same, meant so.
    pub(crate) fn meant(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    /// By which `--table` means it.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) heading: &'static str,
    /// What its numbers count, where that is not plain.
    pub(crate) note: Option<String>,
    /// Headings of columns; numbers to the right where one starts with `>`.
    pub(crate) columns: Vec<&'static str>,
    /// As many cells each as there are columns.
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Rows that are not here.
    pub(crate) left_out: u64,
}

/// A part of a page, in its order.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Bars by day.
    Days(Days),
    /// Bars by name.
    Bars(Bars),
    /// A table of its own.
    Grid(Grid),
    /// The numbers of a chart, folded away where it is drawn.
    Numbers(Grid),
}

/// A report as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// What it is.
    pub(crate) title: &'static str,
    /// The answer, in a sentence.
    pub(crate) answer: (String, Tone),
    /// Of what, in a line.
    pub(crate) about: String,
    /// What a reader has to know to read the numbers right.
    pub(crate) notes: Vec<String>,
    /// The numbers that matter most: name, value.
    pub(crate) facts: Vec<(&'static str, Cell)>,
    /// Everything else.
    pub(crate) parts: Vec<Part>,
}

impl Page {
    /// Its tables, those of charts too.
    pub(crate) fn grids(&self) -> impl Iterator<Item = &Grid> {
        self.parts.iter().filter_map(|part| match part {
            Part::Grid(grid) | Part::Numbers(grid) => Some(grid),
            Part::Days(_) | Part::Bars(_) => None,
        })
    }
}
