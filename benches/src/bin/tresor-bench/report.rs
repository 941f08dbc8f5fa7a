//! The result: a table of all tools, the goals and whether Tresor met them, as Markdown for people and JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::error::BenchError;
use crate::machine::Machine;
use crate::measure::Cost;
use crate::scenario::{Backup, Run};
use crate::tools::Tool;
use crate::workload::Workload;
use crate::zstd_bare::Bare;

/// The tool whose goals are checked.
const OURS: &str = "tresor";
/// Stored bytes for which one put is allowed, and puts that every point may need besides.
const BYTES_A_PUT: u64 = 24 << 20;
const PUTS_A_POINT: u64 = 3;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    set: String,
    rounds: u32,
    machine: Machine,
    workload: WorkloadSize,
    bare_zstd: Bare,
    tools: Vec<ToolInfo>,
    missing: Vec<String>,
    runs: Vec<Run>,
    goals: Vec<Goal>,
}

#[derive(Debug, Serialize)]
struct WorkloadSize {
    disks: usize,
    logical_bytes: u64,
    day1_allocated_bytes: u64,
    day2_allocated_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ToolInfo {
    name: String,
    version: String,
    settings: String,
}

/// One thing to reach, as a number that must not be above a limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Goal {
    what: &'static str,
    /// How the limit comes about.
    goal: String,
    /// What it is compared with, in words.
    against: String,
    reached: String,
    /// Reached ÷ compared with, where that makes sense.
    ratio: Option<f64>,
    met: bool,
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "a report has all of it")]
    pub(crate) fn new(
        set: &str,
        rounds: u32,
        workload: &Workload,
        machine: Machine,
        bare_zstd: Bare,
        tools: &[Box<dyn Tool>],
        missing: Vec<String>,
        runs: Vec<Run>,
    ) -> Self {
        let tools = tools.iter().map(|tool| ToolInfo {
            name: tool.name().to_owned(),
            version: tool.version().to_owned(),
            settings: tool.settings().to_owned(),
        });
        let workload = WorkloadSize {
            disks: workload.day1.disks.len(),
            logical_bytes: workload.day1.size(),
            day1_allocated_bytes: workload.day1.allocated(),
            day2_allocated_bytes: workload.day2.allocated(),
        };
        let goals = goals(&runs, &bare_zstd, workload.day2_allocated_bytes);
        Self {
            set: set.to_owned(),
            rounds,
            machine,
            workload,
            bare_zstd,
            tools: tools.collect(),
            missing,
            runs,
            goals,
        }
    }

    /// `2026-01-31-full`: the day and the set.
    pub(crate) fn file_stem(&self) -> String {
        format!(
            "{}-{}",
            self.machine.time.split('T').next().unwrap_or("undated"),
            self.set
        )
    }

    pub(crate) fn json(&self) -> Result<String, BenchError> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|source| BenchError::Output {
                tool: String::from("this report"),
                source,
            })
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let (machine, size) = (&self.machine, &self.workload);
        writeln!(
            out,
            "# Backup of three machines on two days: the {} set, {}\n",
            self.set, machine.time
        )?;
        writeln!(
            out,
            "Machine: {} cores of {}, {} of memory, {}, Linux {}, {}; load at the end {}. Tresor of commit {}.\n",
            machine.cores,
            machine.processor,
            bytes(machine.memory_bytes),
            machine.system,
            machine.kernel,
            machine.file_system,
            machine.load,
            machine.commit
        )?;
        writeln!(
            out,
            "Workload: {} disks of {} together, {} of it allocated on day 1 and {} on day 2 (`scripts/disks.sh --{}`). \
             Source files are in the page cache; every tool writes to an empty local repository, and its time ends when what it wrote is on disk; restored disks were compared byte for byte. \
             Rounds: {}; times and memory are the best, with the median in parentheses.\n",
            size.disks,
            bytes(size.logical_bytes),
            bytes(size.day1_allocated_bytes),
            bytes(size.day2_allocated_bytes),
            self.set,
            self.rounds
        )?;
        writeln!(
            out,
            "| | first backup, s | unchanged, re-read, s | day 2, s | restore day 2, s | stored day 1 | + day 2 | peak memory: backup, restore | objects | processor of the first, s |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
        for tool in &self.tools {
            self.write_row(out, tool)?;
        }
        writeln!(
            out,
            "\nBare zstd 1: {:.2} s on {} threads for the {} that are unique in blocks of 16 KiB, compressed to {} ({:.2} GB/s a core).",
            self.bare_zstd.seconds,
            self.bare_zstd.threads,
            bytes(self.bare_zstd.unique_bytes),
            bytes(self.bare_zstd.compressed_bytes),
            self.bare_zstd.unique_bytes as f64 / 1e9 / self.bare_zstd.seconds.max(1e-9) / self.bare_zstd.threads as f64
        )?;
        if !self.goals.is_empty() {
            writeln!(out, "\n## Goals (medians)\n")?;
            writeln!(out, "| | goal | compared with | Tresor | ratio | |")?;
            writeln!(out, "|---|---|---|---|---|---|")?;
            for goal in &self.goals {
                let ratio = goal.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
                let met = if goal.met { "met" } else { "**missed**" };
                writeln!(
                    out,
                    "| {} | {} | {} | {} | {ratio} | {met} |",
                    goal.what, goal.goal, goal.against, goal.reached
                )?;
            }
        }
        if let Some(lists) = lists(&self.runs) {
            // The goal is none of packs or index; a count of all folders cannot tell, so it is told and not judged.
            writeln!(
                out,
                "\nLists of any folder in Tresor's backups of an unchanged disk and of day 2: {lists}."
            )?;
        }
        writeln!(out, "\n## Settings\n")?;
        for tool in &self.tools {
            writeln!(out, "- {} ({}): {}", tool.name, tool.version, tool.settings)?;
        }
        for tool in &self.missing {
            writeln!(out, "- {tool}: not installed, left out")?;
        }
        for run in self.runs.iter().filter(|run| run.failure.is_some()) {
            writeln!(
                out,
                "\n{} failed: {}",
                run.tool,
                run.failure.as_deref().unwrap_or_default()
            )?;
        }
        Ok(())
    }

    fn write_row(&self, out: &mut String, tool: &ToolInfo) -> std::fmt::Result {
        let runs = Runs::of(&self.runs, &tool.name);
        let wall = |cost: &dyn Fn(&Run) -> Option<Cost>| {
            best_and_median(&runs.values(|run| Some(cost(run)?.wall_seconds)), 1.0)
        };
        let memory = |cost: &dyn Fn(&Run) -> Option<Cost>| {
            best_and_median(&runs.values(|run| Some(cost(run)?.memory_bytes as f64)), 1e6)
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} MB, {} MB | {} | {} |",
            tool.name,
            wall(&|run| Some(run.first?.cost)),
            wall(&|run| Some(run.unchanged?.cost)),
            wall(&|run| Some(run.day2?.cost)),
            wall(&|run| Some(run.restore?.cost)),
            runs.median(stored_day1)
                .map_or(String::from("–"), |value| bytes(value as u64)),
            runs.median(added_day2)
                .map_or(String::from("–"), |value| format!("+{}", bytes(value as u64))),
            memory(&backup_peak),
            memory(&|run| Some(run.restore?.cost)),
            runs.median(|run| Some(run.day2?.objects as f64))
                .map_or(String::from("–"), |value| format!("{value:.0}")),
            best_and_median(&runs.values(|run| Some(run.first?.cost.cpu_seconds)), 1.0),
        )
    }
}

/// The backup of a run that took most memory.
fn backup_peak(run: &Run) -> Option<Cost> {
    [run.first, run.unchanged, run.day2]
        .into_iter()
        .flatten()
        .map(|backup| backup.cost)
        .max_by_key(|cost| cost.memory_bytes)
}

fn stored_day1(run: &Run) -> Option<f64> {
    Some(run.first?.stored_bytes as f64)
}

/// What day 2 added to what was there before it.
fn added_day2(run: &Run) -> Option<f64> {
    Some(run.day2?.stored_bytes.saturating_sub(run.unchanged?.stored_bytes) as f64)
}

/// All runs of one tool.
struct Runs<'a>(Vec<&'a Run>);

impl<'a> Runs<'a> {
    fn of(runs: &'a [Run], tool: &str) -> Self {
        Self(runs.iter().filter(|run| run.tool == tool).collect())
    }

    fn values(&self, value: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        self.0.iter().filter_map(|run| value(run)).collect()
    }

    fn median(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        median(&self.values(value))
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        (values[values.len() / 2 - 1] + upper) / 2.0
    })
}

/// `3.1 (3.4)`: the smallest and the median.
fn best_and_median(values: &[f64], unit: f64) -> String {
    let digits = if unit > 1.0 { 0 } else { 1 };
    match (values.iter().copied().min_by(f64::total_cmp), median(values)) {
        (Some(best), Some(_)) if values.len() == 1 => format!("{:.digits$}", best / unit),
        (Some(best), Some(median)) => format!("{:.digits$} ({:.digits$})", best / unit, median / unit),
        _ => String::from("–"),
    }
}

/// Decimal units, as disks and bills count.
fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count >= 99.5e8 => format!("{:.1} GB", count / 1e9),
        _ if count >= 1e9 => format!("{:.2} GB", count / 1e9),
        _ if count >= 1e7 => format!("{:.0} MB", count / 1e6),
        _ => format!("{:.2} MB", count / 1e6),
    }
}

/// Compares our runs with the best of the others. Without runs of ours there is nothing to compare.
fn goals(runs: &[Run], bare: &Bare, allocated: u64) -> Vec<Goal> {
    let ours = Runs::of(runs, OURS);
    if ours.0.is_empty() {
        return Vec::new();
    }
    let mut others: Vec<&str> = runs.iter().map(|run| run.tool).filter(|tool| *tool != OURS).collect();
    others.sort_unstable();
    others.dedup();

    let mut goals = Vec::new();
    let mut against_others =
        |what, factor: f64, name: &str, show: fn(f64) -> String, value: &dyn Fn(&Run) -> Option<f64>| {
            let best = others
                .iter()
                .filter_map(|tool| Some((*tool, Runs::of(runs, tool).median(value)?)))
                .min_by(|a, b| a.1.total_cmp(&b.1));
            if let (Some(reached), Some((tool, best))) = (ours.median(value), best) {
                let ratio = reached / best;
                goals.push(Goal {
                    what,
                    goal: format!("≤ {factor:.2} × the {name} other tool"),
                    against: format!("{tool}: {}", show(best)),
                    reached: show(reached),
                    ratio: Some(ratio),
                    met: ratio <= factor,
                });
            }
        };
    let seconds = |value: f64| format!("{value:.2} s");
    let size = |value: f64| bytes(value as u64);
    against_others("first backup", 0.25, "fastest", seconds, &|run| {
        Some(run.first?.cost.wall_seconds)
    });
    against_others("unchanged, re-read", 0.30, "fastest", seconds, &|run| {
        Some(run.unchanged?.cost.wall_seconds)
    });
    against_others("restore", 0.35, "fastest", seconds, &|run| {
        Some(run.restore?.cost.wall_seconds)
    });
    against_others("stored, day 1", 0.80, "smallest", size, &stored_day1);
    against_others("added on day 2", 0.90, "smallest", size, &added_day2);

    if let (Some(reached), Some(unique)) = (
        ours.median(|run| Some(run.first?.cost.wall_seconds)),
        ours.median(|run| Some(run.first?.said?.bytes_new as f64)),
    ) {
        let floor = bare.seconds_for(unique as u64);
        goals.push(Goal {
            what: "first backup",
            goal: String::from("≤ 1.50 × bare zstd 1 of its unique bytes"),
            against: format!("{floor:.2} s for {}", bytes(unique as u64)),
            reached: seconds(reached),
            ratio: Some(reached / floor),
            met: reached <= 1.5 * floor,
        });
    }
    for (what, value) in [
        (
            "memory of a backup",
            ours.median(|run| Some(backup_peak(run)?.memory_bytes as f64)),
        ),
        (
            "memory of a restore",
            ours.median(|run| Some(run.restore?.cost.memory_bytes as f64)),
        ),
    ] {
        if let Some(reached) = value {
            let goal = String::from("≤ 256 MB");
            goals.push(Goal {
                what,
                goal,
                against: String::new(),
                reached: size(reached),
                ratio: None,
                met: reached <= 256e6,
            });
        }
    }
    if let Some(run) = ours.0.last() {
        goals.extend(puts("puts of the first backup", run.first, 0));
        goals.extend(puts(
            "puts of day 2",
            run.day2,
            run.unchanged.map_or(0, |backup| backup.stored_bytes),
        ));
    }
    if let Some(restored) = ours.median(|run| Some(run.restore?.allocated_bytes as f64)) {
        // File systems allocate a little more or less for their own extents.
        let met = restored <= allocated as f64 * 1.01;
        goals.push(Goal {
            what: "holes of a restore",
            goal: String::from("kept as holes"),
            against: format!("original: {}", bytes(allocated)),
            reached: size(restored),
            ratio: Some(restored / allocated.max(1) as f64),
            met,
        });
    }
    goals
}

/// Lists that our last run needed for its unchanged backup and for day 2.
fn lists(runs: &[Run]) -> Option<u64> {
    let run = *Runs::of(runs, OURS).0.last()?;
    Some(run.unchanged?.said?.lists + run.day2?.said?.lists)
}

/// Whether a backup that found `before` bytes in the store put few enough objects.
fn puts(what: &'static str, backup: Option<Backup>, before: u64) -> Option<Goal> {
    let backup = backup?;
    let said = backup.said?;
    let added = backup.stored_bytes.saturating_sub(before);
    let allowed = added.div_ceil(BYTES_A_PUT) + PUTS_A_POINT;
    Some(Goal {
        what,
        goal: String::from("≤ 1 per 24 MiB stored, and 3"),
        against: format!("{allowed} for {}", bytes(added)),
        reached: said.puts.to_string(),
        ratio: None,
        met: said.puts <= allowed,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::scenario::Restore;
    use crate::tools::Said;

    const MB: u64 = 1_000_000;

    fn run(tool: &'static str, seconds: f64, stored: u64, said: Option<Said>) -> Run {
        let cost = Cost {
            wall_seconds: seconds,
            sync_seconds: 0.0,
            cpu_seconds: seconds,
            memory_bytes: 100 * MB,
        };
        let backup = |stored_bytes| {
            Some(Backup {
                cost,
                stored_bytes,
                objects: 10,
                said,
            })
        };
        Run {
            tool,
            first: backup(stored * MB),
            unchanged: backup(stored * MB),
            day2: backup((stored + 100) * MB),
            restore: Some(Restore {
                cost,
                allocated_bytes: 4000 * MB,
            }),
            failure: None,
        }
    }

    fn find<'a>(goals: &'a [Goal], what: &str) -> &'a Goal {
        goals.iter().find(|goal| goal.what == what).unwrap()
    }

    #[test]
    fn goals_are_held_against_the_best_of_the_others() {
        let said = Said {
            bytes_new: 3000 * MB,
            puts: 33,
            lists: 0,
        };
        let runs = [
            run("tresor", 4.0, 700, Some(said)),
            run("slow", 40.0, 900, None),
            run("fast", 20.0, 1000, None),
        ];
        let bare = Bare {
            unique_bytes: 3000 * MB,
            compressed_bytes: 600 * MB,
            seconds: 3.0,
            threads: 2,
        };
        let goals = goals(&runs, &bare, 4000 * MB);

        let first = find(&goals, "first backup");
        assert_eq!(
            (first.against.as_str(), first.ratio, first.met),
            ("fast: 20.00 s", Some(0.2), true)
        );
        let stored = find(&goals, "stored, day 1");
        assert_eq!((stored.against.as_str(), stored.met), ("slow: 900 MB", true));
        assert!(
            !find(&goals, "added on day 2").met,
            "100 MB are not 10 % less than 100 MB"
        );
        assert!(find(&goals, "holes of a restore").met);
        // 700 MB are 28 puts, and 3; 100 MB are 4, and 3.
        assert_eq!(find(&goals, "puts of the first backup").against, "31 for 700 MB");
        assert!(!find(&goals, "puts of the first backup").met);
        let bare = goals.iter().find(|goal| goal.goal.contains("bare")).unwrap();
        assert!(bare.met && bare.ratio == Some(4.0 / 3.0));
    }

    #[test]
    fn a_tool_that_failed_has_dashes_and_no_part_in_the_goals() {
        let failed = Run {
            first: None,
            unchanged: None,
            day2: None,
            restore: None,
            ..run("fast", 1.0, 1, None)
        };
        let runs = [run("tresor", 4.0, 700, None), failed];
        let bare = Bare {
            unique_bytes: 1,
            compressed_bytes: 1,
            seconds: 1.0,
            threads: 1,
        };
        assert!(goals(&runs, &bare, 1).iter().all(|goal| goal.what != "stored, day 1"));
        assert_eq!(best_and_median(&Runs::of(&runs, "fast").values(stored_day1), 1.0), "–");
    }

    #[test]
    fn the_median_of_two_is_their_mean() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(best_and_median(&[4.0, 1.0], 1.0), "1.0 (2.5)");
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(bytes(710_400_000), "710 MB");
        assert_eq!(bytes(3_370_000_000), "3.37 GB");
        assert_eq!(bytes(22 << 30), "23.6 GB");
        assert_eq!(bytes(1_234_567), "1.23 MB");
    }
}
