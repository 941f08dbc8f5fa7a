//! What a million points need in memory and on disk, and how long a coordinator that has them takes to start.

use crate::cluster::{Founded, Node};
use crate::{answer, folder, number, on_core_ms, status_bytes};

/// Items that the points are of.
const ITEMS: u64 = 10_000;

pub(crate) fn ask() {
    let points = number("TRESOR_BENCH_POINTS", 1_000_000);
    let folder = folder();
    let founded = Founded::new(folder.path());
    let mut node = founded.start(0);
    node.ask("first-commit 0");
    let empty = status_bytes(&node.process(), "VmRSS");
    node.ask(&format!("adopt {points} {ITEMS}"));
    let filled = status_bytes(&node.process(), "VmRSS");
    assert_eq!(node.ask("standing")["points"], points);
    drop(node);

    let begin = std::time::Instant::now();
    let mut node: Node = founded.start(0);
    let served = begin.elapsed().as_secs_f64();
    let threads = std::path::PathBuf::from(format!("/proc/{}/task", node.process()));
    let on_core = on_core_ms(&threads) / 1e3;
    node.ask("first-commit 0");
    let led = begin.elapsed().as_secs_f64();
    assert_eq!(node.ask("standing")["points"], points);
    let process = node.process();
    let (now, peak) = (status_bytes(&process, "VmRSS"), status_bytes(&process, "VmHWM"));
    let mib = |bytes: u64| bytes >> 20;
    answer(
        &format!("memory of a coordinator with {points} points, after they came"),
        format!("{} MiB, {} MiB before", mib(filled), mib(empty)),
    );
    answer(
        "the same after a restart",
        format!(
            "{} MiB, {} MiB at most; {} B a point",
            mib(now),
            mib(peak),
            now.saturating_sub(empty) / points
        ),
    );
    answer(
        "from the start of the process until it serves, and until it leads and committed",
        format!("{served:.2} s, {led:.2} s; {on_core:.2} s on a core"),
    );
}
