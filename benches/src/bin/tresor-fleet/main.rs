//! What many workers and ten thousand disks would cost, in virtual time: `tresor-fleet [--workers 1,2,10,100] [--disks N] [--set NAME=VALUE]…`.
//!
//! A simulation, not a measurement. What decides is the production code: a real state, to which every entry is applied, says which item is due, which
//! worker gets which job and who answers for which slots of the index. What takes time is a table of costs ([`inputs`]): most were measured one by one on a
//! real machine, and name the report that says so; the others are assumptions, and say that. Steps wait for each other at resources that serve one after
//! another ([`resource`]), as in `ARCHITECTURE.md`, "One backup, walked through the files".
//!
//! In reading order: [`inputs`] (the costs), [`workload`] (the disks), [`control`] (the production code that decides), [`resource`], [`night`] (what happens
//! when), [`usage`] (what was used how much, and what is full next), [`report`].
#![expect(clippy::print_stdout, reason = "the report is this program's output")]

mod control;
mod inputs;
mod night;
mod report;
mod resource;
mod usage;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use inputs::Inputs;
use night::Night;
use usage::Usage;

/// Simulates one night of backups for fleets of several sizes, with measured costs of each step, and says what is full next.
#[derive(Parser, Debug)]
#[command(name = "tresor-fleet", version)]
struct Args {
    /// How many workers there are, one run for each.
    #[arg(long, value_delimiter = ',', default_value = "1,2,10,100", value_parser = clap::value_parser!(u32).range(1..=5000))]
    workers: Vec<u32>,
    /// How many disks there are, each an item of its own.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    disks: u32,
    /// What the sizes of the disks are drawn by.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Another cost than that of the table: `store_bytes_per_s=1e9`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// No further run, of the fleet for which something is predicted to be full.
    #[arg(long)]
    no_check: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            #[expect(clippy::print_stderr, reason = "the one place that says why it did not work")]
            {
                eprintln!("tresor-fleet: {why}");
            }
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), inputs::WrongInput> {
    let mut inputs = Inputs::default();
    for text in &args.set {
        inputs.set(text)?;
    }
    let disks = workload::draw(args.disks, args.seed, &inputs);
    let usages: Vec<Usage> = args
        .workers
        .iter()
        .map(|workers| Night::run(*workers, &disks, &inputs))
        .collect();
    println!("{}", report::inputs(&inputs));
    println!("{}", report::speeds(&disks, &usages));
    println!("{}", report::used(&usages));
    let Some(largest) = usages.iter().max_by_key(|usage| usage.workers) else {
        return Ok(());
    };
    println!("{}", report::next(largest));
    if let Some(next) = largest.next().filter(|_| !args.no_check) {
        // Half as many again: what is full is then wanted more than anything else.
        let workers = next.workers.saturating_mul(3).div_ceil(2);
        if workers <= 5000 {
            println!("{}", report::check(&Night::run(workers, &disks, &inputs), next));
        }
    }
    Ok(())
}
