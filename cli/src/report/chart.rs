//! Charts as SVG: bars by day, stacked by kind, and bars by name. Pure: numbers in, a text out.
//!
//! Each has a title, a description that says its numbers in a sentence, and a title on every bar, so that it can be read without seeing it. Colours are
//! classes; the style sheet of the page says what they are by day and by night.

use std::fmt::Write as _;

use super::escape;

/// Height of the part with bars, in units of the drawing.
const PLOT_HEIGHT: f64 = 140.0;
/// Left of it, for the numbers of the axis.
const LEFT: f64 = 84.0;
/// Right of it, for half of the last name.
const RIGHT: f64 = 16.0;
/// Width of a drawing by day, which has the page's width.
const WIDTH: f64 = 1100.0;
/// Width of one by name, of which two stand side by side.
const HALF: f64 = 480.0;
/// Most names below an axis: so many fit side by side.
const LABELS_MAX: usize = 16;
/// A row of a chart by name.
const ROW: f64 = 24.0;
/// Where bars of a chart by name begin.
const NAMES: f64 = 168.0;
/// Right of them, for their values.
const VALUES: f64 = 84.0;
/// Characters of a name that fit.
const NAME_MAX: usize = 23;

/// One kind of what is stacked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// For people.
    pub(crate) name: String,
    /// Its class in the style sheet.
    pub(crate) class: &'static str,
    /// One value for each day.
    pub(crate) values: Vec<u64>,
}

/// Bars by day, stacked by kind.
#[derive(Debug, Clone)]
pub(crate) struct Days {
    /// What it shows.
    pub(crate) title: &'static str,
    /// `2026-11-22`.
    pub(crate) days: Vec<String>,
    /// From the bottom up.
    pub(crate) series: Vec<Series>,
    /// How a value is read.
    pub(crate) read: fn(u64) -> String,
    /// Whether a step of the axis is a power of two: bytes.
    pub(crate) binary: bool,
}

/// Bars by name.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    /// What it shows.
    pub(crate) title: &'static str,
    /// Name, value, class.
    pub(crate) rows: Vec<(String, u64, &'static str)>,
    /// How a value is read.
    pub(crate) read: fn(u64) -> String,
}

/// The top of an axis: 1, 2 or 5 times a power of ten (or a power of two), not below `most`.
fn top(most: u64, binary: bool) -> u64 {
    if binary {
        return most.max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
    }
    let mut step: u64 = 1;
    loop {
        for times in [1, 2, 5] {
            match step.checked_mul(times) {
                Some(top) if top >= most.max(2) => return top,
                Some(_) => {}
                None => return u64::MAX,
            }
        }
        let Some(next) = step.checked_mul(10) else {
            return u64::MAX;
        };
        step = next;
    }
}

fn open(text: &mut String, id: &str, (width, height): (f64, f64), title: &str, description: &str) {
    let _ = write!(
        text,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
        escape::html(title),
        escape::html(description)
    );
}

impl Days {
    fn description(&self) -> String {
        let sums: Vec<String> = self
            .series
            .iter()
            .map(|series| {
                let sum = series
                    .values
                    .iter()
                    .fold(0_u64, |sum, value| sum.saturating_add(*value));
                format!("{} {}", (self.read)(sum), series.name)
            })
            .collect();
        format!("{} days: {}", self.days.len(), sums.join(", "))
    }

    /// Draws it. `id` is its own on the page.
    pub(super) fn draw(&self, id: &str) -> String {
        let total = |day: usize| {
            let values = self.series.iter().map(|series| series.values[day]);
            values.fold(0_u64, u64::saturating_add)
        };
        let top = top((0..self.days.len()).map(total).max().unwrap_or(0), self.binary);
        let mut text = String::new();
        open(
            &mut text,
            id,
            (WIDTH, PLOT_HEIGHT + 40.0),
            self.title,
            &self.description(),
        );
        for quarter in [0, 1, 2] {
            let value = top / 2 * quarter + if quarter == 2 { top % 2 } else { 0 };
            let y = 10.0 + PLOT_HEIGHT * (1.0 - value as f64 / top as f64);
            let class = if quarter == 0 { "axis" } else { "grid" };
            let _ = write!(
                text,
                "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escape::html(&(self.read)(value))
            );
        }
        let slot = (WIDTH - LEFT - RIGHT) / self.days.len().max(1) as f64;
        let width = (slot * 0.72).clamp(1.0, 44.0);
        let every = self.days.len().div_ceil(LABELS_MAX).max(1);
        for (day, name) in self.days.iter().enumerate() {
            let middle = LEFT + slot * (day as f64 + 0.5);
            let mut y = 10.0 + PLOT_HEIGHT;
            for series in self.series.iter().filter(|series| series.values[day] > 0) {
                // What is there at all is seen.
                let height = (PLOT_HEIGHT * (series.values[day] as f64 / top as f64)).max(1.0);
                y -= height;
                let _ = write!(
                    text,
                    "<rect class=\"{}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{}: {} {}</title></rect>",
                    series.class,
                    middle - width / 2.0,
                    escape::html(name),
                    escape::html(&(self.read)(series.values[day])),
                    escape::html(&series.name)
                );
            }
            if day % every == 0 {
                let short = name.get(5..).unwrap_or(name);
                let _ = write!(
                    text,
                    "<text class=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
                    PLOT_HEIGHT + 30.0,
                    escape::html(short)
                );
            }
        }
        text.push_str("</svg>");
        text
    }

    /// Which colour is what; empty where there is one only.
    pub(super) fn legend(&self) -> String {
        if self.series.len() < 2 {
            return String::new();
        }
        let mut text = String::from("<ul class=\"legend\">");
        for series in &self.series {
            let _ = write!(
                text,
                "<li><svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"{}\" width=\"10\" height=\"10\"/></svg>{}</li>",
                series.class,
                escape::html(&series.name)
            );
        }
        text.push_str("</ul>");
        text
    }
}

impl Bars {
    /// Draws it. `id` is its own on the page.
    pub(super) fn draw(&self, id: &str) -> String {
        let most = self.rows.iter().map(|(_, value, _)| *value).max().unwrap_or(0).max(1);
        let said: Vec<String> = self
            .rows
            .iter()
            .map(|(name, value, _)| format!("{name} {}", (self.read)(*value)))
            .collect();
        let mut text = String::new();
        let height = ROW * self.rows.len().max(1) as f64 + 4.0;
        open(&mut text, id, (HALF, height), self.title, &said.join(", "));
        for (at, (name, value, class)) in self.rows.iter().enumerate() {
            let y = ROW * at as f64 + 2.0;
            let full = (HALF - NAMES - VALUES) * (*value as f64 / most as f64);
            let width = if *value == 0 { 0.0 } else { full.max(1.5) };
            let _ = write!(
                text,
                "<g><title>{}: {}</title><text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
                 <rect class=\"{class}\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
                 <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
                escape::html(name),
                escape::html(&(self.read)(*value)),
                NAMES - 10.0,
                y + ROW / 2.0 + 3.0,
                escape::html(&short(name)),
                y + 3.0,
                ROW - 8.0,
                NAMES + width + 8.0,
                y + ROW / 2.0 + 3.0,
                escape::html(&(self.read)(*value))
            );
        }
        text.push_str("</svg>");
        text
    }
}

/// A name that fits, its middle left out where it does not: names of a fleet often differ at their ends.
fn short(name: &str) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= NAME_MAX {
        return name.to_owned();
    }
    let half = NAME_MAX / 2;
    let mut text: String = all[..half].iter().collect();
    text.push('…');
    text.extend(&all[all.len() - (NAME_MAX - half - 1)..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::human;

    #[test]
    fn an_axis_ends_at_a_round_number_that_nothing_exceeds() {
        for (most, top_is) in [(0, 2), (1, 2), (3, 5), (7, 10), (11, 20), (999, 1000), (1001, 2000)] {
            assert_eq!(top(most, false), top_is);
        }
        assert_eq!((top(0, true), top(1025, true)), (1, 2048));
        for binary in [false, true] {
            assert_eq!(top(u64::MAX, binary), u64::MAX);
        }
    }

    #[test]
    fn a_chart_by_day_says_its_numbers_and_draws_each_that_is_there() {
        let series = |name: &str, class, values: &[u64]| Series {
            name: name.to_owned(),
            class,
            values: values.to_vec(),
        };
        let chart = Days {
            title: "Jobs by day",
            days: vec![String::from("2026-11-21"), String::from("2026-11-22")],
            series: vec![series("done", "good", &[3, 4]), series("failed", "bad", &[0, 1])],
            read: human::count,
            binary: false,
        };
        let svg = chart.draw("c1");
        assert!(
            svg.contains("<desc id=\"c1-d\">2 days: 7 done, 1 failed</desc>"),
            "{svg}"
        );
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        assert!(svg.contains("<title>2026-11-22: 1 failed</title>"), "{svg}");
        assert_eq!(chart.legend().matches("<li>").count(), 2);
        let one = Days {
            series: vec![series("done", "good", &[0, 0])],
            ..chart
        };
        assert_eq!(one.legend(), "");
        assert!(!one.draw("c").contains("NaN"));
    }

    #[test]
    fn a_chart_by_name_shows_hostile_names_as_they_are() {
        let chart = Bars {
            title: "Largest items",
            rows: vec![
                (String::from("</svg><script>"), 10, "one"),
                (String::from("none"), 0, "one"),
            ],
            read: human::size,
        };
        let svg = chart.draw("c");
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("&lt;/svg&gt;&lt;script&gt;"), "{svg}");
        assert!(svg.contains("width=\"0.0\""), "what is nothing has no bar");
        assert_eq!(
            short("a-very-long-name-of-a-machine-in-rack-7"),
            "a-very-long…e-in-rack-7"
        );
    }
}
