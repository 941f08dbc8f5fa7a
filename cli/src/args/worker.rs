//! `tresor worker …`.

use clap::{Args, Subcommand};

/// What can be done with workers.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerVerb {
    Start(Box<super::WorkerStartArgs>),
    /// Lists workers: what each does, its slots of the index, which stores it reaches, when it was heard of
    List,
    Show(WorkerShowArgs),
    Drain(WorkerDrainArgs),
    /// Gives a drained worker work again
    Undrain(WorkerNameArgs),
    Remove(WorkerRemoveArgs),
    Endpoints(WorkerEndpointsArgs),
}

/// Shows one worker, how many items it can back up, and who could take its slots of the index
#[derive(Debug, Args)]
pub(crate) struct WorkerShowArgs {
    /// The worker
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Gives a drained worker work again
#[derive(Debug, Args)]
pub(crate) struct WorkerNameArgs {
    /// The worker
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Gives a worker no new work; what it does now goes on to its end, and its slots of the index move to others, 256 a minute
#[derive(Debug, Args)]
pub(crate) struct WorkerDrainArgs {
    /// The worker
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Wait until it has no jobs and no slots of the index: then nobody misses it
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Takes a worker out of the cluster, for good: its certificate is refused, its jobs and slots of the index go to others. A dead one needs no drain
#[derive(Debug, Args)]
pub(crate) struct WorkerRemoveArgs {
    /// The worker
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Also one that is alive and has slots of the index: others rebuild them
    #[arg(long)]
    pub(crate) force: bool,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Lists what a worker has to reach, for firewalls: coordinators, other workers, stores
#[derive(Debug, Args)]
pub(crate) struct WorkerEndpointsArgs {
    /// The worker [default: any]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}
