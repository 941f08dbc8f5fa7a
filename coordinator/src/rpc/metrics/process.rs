//! What the process takes, as every program says it, under the names that every dashboard knows.

use super::page::{Page, float};

/// Files below this describe the process itself.
const SELF: &str = "/proc/self";

fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("{SELF}/{name}")).ok()
}

/// Fields of `/proc/self/stat` after the name of the program, which may have spaces in it: the first one is the third of the manual.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number - 3)?.parse().ok()
}

/// When the machine was started, seconds since 1970.
fn booted() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// The families, in Prometheus' text format. What the system does not tell is left out.
pub(in crate::rpc) fn text() -> String {
    let page = Page::default();
    page.gauges(
        "tresor_build_info",
        "1, with the program's version as a label.",
        ["version"],
        [([env!("CARGO_PKG_VERSION")], 1.0)],
    );
    let memory = read("statm").and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    if let Some(pages) = memory {
        let bytes = pages.saturating_mul(rustix::param::page_size() as u64);
        page.gauge(
            "process_resident_memory_bytes",
            "Memory that is resident.",
            float(bytes),
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "ticks in a second are few")]
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    if let Some(stat) = read("stat") {
        if let (Some(user), Some(system)) = (field(&stat, 14), field(&stat, 15)) {
            page.counts(
                "process_cpu_seconds_total",
                "Seconds of processors, of the user and of the system.",
                [],
                [([], (user + system) / ticks)],
            );
        }
        if let (Some(begun), Some(booted)) = (field(&stat, 22), booted()) {
            page.gauge(
                "process_start_time_seconds",
                "When the process was started.",
                booted + begun / ticks,
            );
        }
    }
    if let Ok(open) = std::fs::read_dir(format!("{SELF}/fd")) {
        page.gauge("process_open_fds", "Files that are open.", float(open.count()));
    }
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(most) = most {
        page.gauge("process_max_fds", "Files that may be open.", float(most));
    }
    page.families_alone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_says_what_it_takes() {
        let text = text();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.parse::<f64>().ok())
        };
        assert!(
            number("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6),
            "{text}"
        );
        assert!(number("process_open_fds").is_some_and(|files| files > 2.0), "{text}");
        assert!(
            number("process_start_time_seconds").is_some_and(|at| at > 1.6e9),
            "{text}"
        );
        assert!(number("process_cpu_seconds_total").is_some(), "{text}");
    }

    #[test]
    fn a_program_whose_name_has_spaces_and_brackets_is_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 25 5 0 0 20 0 9 0 300 1 2";
        assert_eq!(field(stat, 14), Some(25.0));
        assert_eq!(field(stat, 15), Some(5.0));
        assert_eq!(field(stat, 22), Some(300.0));
    }
}
