//! `tresor coordinator …`.

use clap::{Args, Subcommand};

/// What can be done with coordinators.
#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorVerb {
    Start(super::CoordinatorStartArgs),
    /// Lists coordinators: which leads, how far each is, whether its clock is right
    List,
    Remove(CoordinatorNameArgs),
    Transfer(TransferArgs),
}

/// Takes a coordinator out of the cluster, for good: its certificate is refused from then on
#[derive(Debug, Args)]
pub(crate) struct CoordinatorNameArgs {
    /// The coordinator
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Makes another coordinator the leader, before this one is stopped
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// To this one [default: the one that is furthest]
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Option<String>,
}
