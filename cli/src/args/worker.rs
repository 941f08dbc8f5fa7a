//! `tresor worker …`.

use clap::{Args, Subcommand};

/// What can be done with workers.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerVerb {
    Start(super::WorkerStartArgs),
    /// Lists workers: what each does, since when it was not heard of
    List,
    Drain(WorkerNameArgs),
    /// Gives a drained worker work again
    Undrain(WorkerNameArgs),
    Remove(WorkerRemoveArgs),
}

/// Gives a worker no new work; what it does now goes on to its end
#[derive(Debug, Args)]
pub(crate) struct WorkerNameArgs {
    /// The worker
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Takes a worker out of the cluster, for good: its certificate is refused, its jobs go to others
#[derive(Debug, Args)]
pub(crate) struct WorkerRemoveArgs {
    /// The worker
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
