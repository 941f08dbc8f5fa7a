//! Compares Tresor with the other backup tools on this machine: `tresor-bench --disks FOLDER [OPTIONS]`.
//!
//! The folder holds three machines on two days (`day1/web.raw` …, made by `scripts/disks.sh`). Every tool backs up day 1
//! into a fresh local repository, backs it up again unchanged (reading everything again), backs up day 2 and restores
//! it. The restored disks are compared with the originals outside the timing. Tools take turns within a round, because a
//! machine's speed drifts: only numbers of one run may be compared.
//!
//! In reading order: [`workload`] (the disks), [`tools`] (what each tool is asked to do), [`measure`] (running and
//! measuring one command), [`scenario`] (the steps), [`zstd_bare`] (the floor: compression alone), [`machine`],
//! [`report`] (the table, the goals, the files).
#![expect(clippy::print_stdout, reason = "the report is this program's output")]

mod error;
mod machine;
mod measure;
mod report;
mod scenario;
mod tools;
mod workload;
mod zstd_bare;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use error::{BenchError, io};
use report::Report;
use scenario::Run;
use workload::Workload;

/// Runs Tresor and other backup tools on the same disks and prints how they compare.
#[derive(Parser, Debug)]
#[command(name = "tresor-bench", version)]
struct Args {
    /// Folder with `day1/*.raw` and `day2/*.raw`.
    #[arg(long)]
    disks: PathBuf,
    /// Folder for repositories and restored disks, on the file system of the disks; what it holds is removed.
    #[arg(long)]
    work: PathBuf,
    /// Tools to run; those that are not installed are left out and named.
    #[arg(long, value_delimiter = ',', default_value = "tresor,restic,borg,rustic")]
    tools: Vec<String>,
    /// The `tresor` to measure.
    #[arg(long, default_value = "tresor")]
    tresor: PathBuf,
    /// How often every tool runs everything; best and median are reported.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Folder for the report, as Markdown and as JSON.
    #[arg(long)]
    out: PathBuf,
    /// Name of the set of disks, for the report and its file name.
    #[arg(long, default_value = "disks")]
    set: String,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tresor-bench: could not finish: {}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; true when no tool failed.
fn run(args: &Args) -> Result<bool, BenchError> {
    let workload = Workload::open(&args.disks)?;
    let (tools, missing) = tools::installed(&args.tools, &args.tresor)?;
    for name in &missing {
        eprintln!("tresor-bench: {name} is not installed and is left out");
    }

    eprintln!("tresor-bench: bare zstd 1 on the unique bytes of day 1");
    workload.day1.warm()?;
    let bare = zstd_bare::measure(&workload.day1)?;

    let mut runs: Vec<Run> = Vec::new();
    for round in 0..args.rounds {
        for turn in 0..tools.len() {
            // Another tool begins in each round: what the first one pays for is not always the same one's.
            let tool = &tools[(turn + round as usize) % tools.len()];
            eprintln!("tresor-bench: round {} of {}: {}", round + 1, args.rounds, tool.name());
            let run = scenario::run(tool.as_ref(), &workload, &fresh(&args.work)?)?;
            if let Some(failure) = &run.failure {
                eprintln!("tresor-bench: {}: {failure}", tool.name());
            }
            runs.push(run);
        }
    }
    fresh(&args.work)?;

    let whole = runs.iter().all(|run| run.failure.is_none());
    let report = Report::new(
        &args.set,
        args.rounds,
        &workload,
        machine::describe(&args.work),
        bare,
        &tools,
        missing,
        runs,
    );
    let markdown = report.markdown();
    println!("{markdown}");
    let base = args.out.join(report.file_stem());
    std::fs::create_dir_all(&args.out).map_err(io("create", &args.out))?;
    for (extension, text) in [("md", markdown), ("json", report.json()?)] {
        let path = base.with_extension(extension);
        std::fs::write(&path, text).map_err(io("write", &path))?;
        eprintln!("tresor-bench: wrote {}", path.display());
    }
    Ok(whole)
}

/// Makes `work/run` empty.
fn fresh(work: &Path) -> Result<PathBuf, BenchError> {
    let path = work.join("run");
    match std::fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("remove", &path)(error)),
    }
    std::fs::create_dir_all(&path).map_err(io("create", &path))?;
    Ok(path)
}
