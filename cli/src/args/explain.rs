//! `tresor explain`.

use clap::Args;

/// Says why: why a job waits or failed, an item is late, a point stays or goes
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// What kind of thing
    #[arg(value_name = "KIND", value_parser = ["job", "item", "point"])]
    pub(crate) kind: String,

    /// Which: a job's number, an item's name, a point as POINT everywhere
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}
