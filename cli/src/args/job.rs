//! `tresor job …`.

use clap::{Args, Subcommand};

use super::common::LimitArgs;

/// What can be done with jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobVerb {
    List(JobListArgs),
    Show(JobShowArgs),
    /// Shows how far a job is, until it has ended; ends as the job does
    Watch(JobIdArgs),
    /// Asks a job to end; what it stored is used by the next one
    Cancel(JobIdArgs),
    /// Queues a failed or cancelled job again
    Retry(JobIdArgs),
}

/// Shows one job with its attempts
#[derive(Debug, Args)]
pub(crate) struct JobShowArgs {
    #[command(flatten)]
    pub(crate) id: JobIdArgs,

    /// Show what the workers logged of each attempt, and how it went, instead
    #[arg(long)]
    pub(crate) log: bool,
}

/// One job.
#[derive(Debug, Args)]
pub(crate) struct JobIdArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub(crate) job: u64,
}

/// Lists jobs, the newest first
#[derive(Debug, Args)]
pub(crate) struct JobListArgs {
    /// Only those of this item
    #[arg(long, value_name = "NAME")]
    pub(crate) item: Option<String>,

    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = ["queued", "running", "done", "failed", "cancelled"])]
    pub(crate) state: Option<String>,

    #[command(flatten)]
    pub(crate) limit: LimitArgs,
}
