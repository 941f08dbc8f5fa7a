//! `tresor point …`.

use clap::{Args, Subcommand};

use super::common::LimitArgs;

/// What can be done with recovery points.
#[derive(Debug, Subcommand)]
pub(crate) enum PointVerb {
    List(PointListArgs),
    /// Shows one recovery point
    Show(PointNameArgs),
    Diff(PointDiffArgs),
    Hold(PointHoldArgs),
    /// Ends holds: whether the points stay is for their policies again
    Release(PointNamesArgs),
    /// Hides recovery points; they stay restorable by `undelete` until they are swept
    Remove(PointNamesArgs),
    /// Makes removed recovery points visible again
    Undelete(PointNamesArgs),
}

/// Lists recovery points, the newest first; in a cluster item by item
#[derive(Debug, Args)]
pub(crate) struct PointListArgs {
    /// Only those of this item
    #[arg(value_name = "ITEM")]
    pub(crate) item: Option<String>,

    /// Also removed ones
    #[arg(long)]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) limit: LimitArgs,
}

/// Holds recovery points: nothing and nobody removes them until they are released
#[derive(Debug, Args)]
pub(crate) struct PointHoldArgs {
    /// The points: ids or the starts of them (or what else names one)
    #[arg(required = true, value_name = "POINT")]
    pub(crate) points: Vec<String>,

    /// Why, for those who find them held
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

/// One point.
#[derive(Debug, Args)]
pub(crate) struct PointNameArgs {
    /// The point: its id or the start of it, ITEM for its newest, or ITEM@TIME for the newest at that time
    #[arg(value_name = "POINT")]
    pub(crate) point: String,
}

/// Points.
#[derive(Debug, Args)]
pub(crate) struct PointNamesArgs {
    /// The points: ids or the starts of them (or what else names one)
    #[arg(required = true, value_name = "POINT")]
    pub(crate) points: Vec<String>,
}

/// Shows which ranges of the disks differ between two points
///
/// Compares recipes: nothing but nodes and leaves that differ is read, no contents.
#[derive(Debug, Args)]
pub(crate) struct PointDiffArgs {
    /// The one point
    #[arg(value_name = "FROM")]
    pub(crate) from: String,

    /// The other point
    #[arg(value_name = "TO")]
    pub(crate) to: String,

    /// Only this disk
    #[arg(long, value_name = "NAME")]
    pub(crate) disk: Option<String>,
}
