//! The steps that every tool goes through.

use std::path::Path;

use serde::Serialize;

use crate::error::{BenchError, chain, io};
use crate::measure::{self, Cost};
use crate::tools::{self, Said, Tool};
use crate::workload::{Day, Workload, count_files, first_difference};

/// What one tool did in one round. Steps after a failure are missing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) tool: &'static str,
    pub(crate) first: Option<Backup>,
    pub(crate) unchanged: Option<Backup>,
    pub(crate) day2: Option<Backup>,
    pub(crate) restore: Option<Restore>,
    /// Why it stopped early.
    pub(crate) failure: Option<String>,
}

/// One backup.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Backup {
    pub(crate) cost: Cost,
    /// What the repository holds afterwards.
    pub(crate) stored_bytes: u64,
    /// In how many objects (files).
    pub(crate) objects: u64,
    pub(crate) said: Option<Said>,
}

/// One restore, compared byte for byte.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Restore {
    pub(crate) cost: Cost,
    /// What the restored disks occupy: as much as the originals when holes were kept as holes.
    pub(crate) allocated_bytes: u64,
}

/// Runs all steps in the empty folder `work`. A failure of the tool ends its run and is kept in it.
pub(crate) fn run(tool: &dyn Tool, workload: &Workload, work: &Path) -> Result<Run, BenchError> {
    let mut run = Run {
        tool: tool.name(),
        first: None,
        unchanged: None,
        day2: None,
        restore: None,
        failure: None,
    };
    match steps(tool, workload, work, &mut run) {
        Ok(()) => {}
        Err(error @ (BenchError::Command { .. } | BenchError::Different { .. } | BenchError::Output { .. })) => {
            run.failure = Some(chain(&error));
        }
        Err(error) => return Err(error),
    }
    Ok(run)
}

fn steps(tool: &dyn Tool, workload: &Workload, work: &Path, run: &mut Run) -> Result<(), BenchError> {
    let repository = work.join("repository");
    tools::init(tool, &repository)?;
    run.first = Some(backup(tool, &repository, &workload.day1, "day1")?);
    run.unchanged = Some(backup(tool, &repository, &workload.day1, "day1-again")?);
    run.day2 = Some(backup(tool, &repository, &workload.day2, "day2")?);
    run.restore = Some(restore(tool, &repository, &workload.day2, work)?);
    Ok(())
}

fn backup(tool: &dyn Tool, repository: &Path, day: &Day, title: &str) -> Result<Backup, BenchError> {
    quiet(repository)?;
    day.warm()?;
    let (mut cost, stdout) = measure::run(&mut tool.backup(repository, day, title))?;
    until_on_disk(&mut cost, repository)?;
    let (stored_bytes, objects) = count_files(&tool.store(repository))?;
    let backup = Backup {
        cost,
        stored_bytes,
        objects,
        said: tool.said(&stdout)?,
    };
    eprintln!(
        "tresor-bench:   {title}: {:.1} s, {:.1} s of processor",
        cost.wall_seconds, cost.cpu_seconds
    );
    Ok(backup)
}

fn restore(tool: &dyn Tool, repository: &Path, day: &Day, work: &Path) -> Result<Restore, BenchError> {
    let to = work.join("restored");
    std::fs::create_dir(&to).map_err(io("create", &to))?;
    quiet(repository)?;
    let (mut cost, _) = measure::run(&mut tool.restore(repository, day, &to))?;
    until_on_disk(&mut cost, &to)?;
    eprintln!(
        "tresor-bench:   restore: {:.1} s, {:.1} s of processor",
        cost.wall_seconds, cost.cpu_seconds
    );
    let mut allocated_bytes = 0;
    for disk in &day.disks {
        let restored = tool.restored(&to, disk);
        let metadata = restored.metadata().map_err(io("look at", &restored))?;
        allocated_bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        if let Some(offset) = first_difference(&disk.path, &restored)? {
            return Err(BenchError::Different {
                restored,
                original: disk.path.clone(),
                offset,
            });
        }
    }
    Ok(Restore { cost, allocated_bytes })
}

/// Waits for what the tool left to be written and counts that too: a disk that a power cut would take back is not restored yet. Who synced
/// everything itself has nothing left.
fn until_on_disk(cost: &mut measure::Cost, path: &Path) -> Result<(), BenchError> {
    let start = std::time::Instant::now();
    quiet(path)?;
    cost.sync_seconds = start.elapsed().as_secs_f64();
    cost.wall_seconds += cost.sync_seconds;
    Ok(())
}

/// Waits until what the step before wrote is on disk: it must not be paid for by the next.
fn quiet(path: &Path) -> Result<(), BenchError> {
    let folder = if path.exists() {
        path
    } else {
        path.parent().unwrap_or(path)
    };
    let file = std::fs::File::open(folder).map_err(io("open", folder))?;
    rustix::fs::syncfs(&file).map_err(|error| io("sync", folder)(error.into()))
}
