//! The answers, as Markdown.

use std::fmt::Write as _;

use crate::inputs::Inputs;
use crate::usage::{Full, Usage};
use crate::workload::Disk;

/// The table of costs.
pub(crate) fn inputs(inputs: &Inputs) -> String {
    let mut text = String::from("| cost | value | from |\n|---|---|---|\n");
    for input in inputs.table() {
        let _ = writeln!(text, "{input}");
    }
    text
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 7200.0 => format!("{:.1} h", seconds / 3600.0),
        seconds if seconds >= 120.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{seconds:.1} s"),
    }
}

/// How long it took with how many workers.
pub(crate) fn speeds(disks: &[Disk], usages: &[Usage]) -> String {
    let bytes: f64 = disks.iter().map(|disk| disk.bytes).sum();
    let changed: f64 = disks.iter().map(|disk| disk.bytes * disk.changed_share).sum();
    let mut text = format!(
        "{} disks, {:.1} TB read, {:.2} TB of it changed.\n\n| workers | from the first look to the last point | faster than the first | a second | stored | used most |\n|---|---|---|---|---|---|\n",
        disks.len(),
        bytes / 1e12,
        changed / 1e12
    );
    for usage in usages {
        let most = usage.bottleneck();
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.1} GB | {:.2} TB | {} ({:.0} %) |",
            usage.workers,
            time(usage.took),
            usages.first().map_or(1.0, |first| first.took / usage.took),
            bytes / usage.took / 1e9,
            usage.stored / 1e12,
            most.what,
            most.share * 100.0
        );
    }
    text
}

/// What was used how much.
pub(crate) fn used(usages: &[Usage]) -> String {
    let mut text = String::from("| used, % of what there is |");
    for usage in usages {
        let _ = write!(text, " {} |", usage.workers);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(usages.len()));
    text.push('\n');
    let rows = usages.first().map_or(0, |usage| usage.used.len());
    for row in 0..rows {
        let _ = write!(text, "| {} |", usages[0].used[row].what);
        for usage in usages {
            let _ = write!(text, " {:.2} |", usage.used[row].share * 100.0);
        }
        text.push('\n');
    }
    text
}

/// What is full next.
pub(crate) fn next(largest: &Usage) -> String {
    let most = largest.bottleneck();
    let mut text = match most.is_of_workers {
        true => format!(
            "With {} workers, {} are used most ({:.0} %): more workers have more of them. What they share is full with so many workers:\n\n",
            largest.workers,
            most.what,
            most.share * 100.0
        ),
        false => format!(
            "With {} workers, {} is full ({:.0} %): more workers do not help. What they share is full with so many workers:\n\n",
            largest.workers,
            most.what,
            most.share * 100.0
        ),
    };
    text.push_str("| | workers |\n|---|---|\n");
    for full in largest.full() {
        let _ = writeln!(text, "| {} | {} |", full.what, full.workers);
    }
    text
}

/// The run with more workers than that.
pub(crate) fn check(usage: &Usage, predicted: Full) -> String {
    let most = usage.bottleneck();
    format!(
        "Predicted to be full with {} workers: {}. Run with {}: {}, and {} is used most ({:.0} %).",
        predicted.workers,
        predicted.what,
        usage.workers,
        time(usage.took),
        most.what,
        most.share * 100.0
    )
}
