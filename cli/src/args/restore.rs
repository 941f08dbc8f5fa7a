//! `tresor restore`.

use std::path::PathBuf;

use clap::Args;
use tresor_worker::source::DiskFormat;

use super::common::DetachArgs;

/// Restores the disks of a recovery point, every byte of them checked
///
/// One disk goes to a file or a block device, several go into a folder as DISK.EXT. What is there already is touched
/// only with --overwrite or --in-place.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The point: its id or the start of it, ITEM for its newest, or ITEM@TIME for the newest at that time
    #[arg(value_name = "POINT")]
    pub(crate) point: String,

    /// Only this disk; may be given several times [default: all]
    #[arg(long = "disk", value_name = "NAME")]
    pub(crate) disks: Vec<String>,

    /// Where to: a file or block device for one disk, a folder for several; in a cluster HOST:PATH, or PATH with --worker
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) to: PathBuf,

    /// Write this format [default: by PATH's extension, else raw]
    #[arg(long, value_name = "FORMAT", value_parser = ["raw", "qcow2", "vhdx", "vhd", "vmdk"])]
    format: Option<String>,

    /// Replace what is there
    #[arg(long, conflicts_with = "in_place")]
    pub(crate) overwrite: bool,

    /// Compare with what is there and write only what differs
    #[arg(long)]
    pub(crate) in_place: bool,

    /// Say what would be done and how much would be read; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Go on after damage: damaged ranges stay zeros (or, in place, as they are) and are named; exit code 3
    #[arg(long)]
    pub(crate) allow_damage: bool,

    /// In a cluster: the host whose worker writes the disks
    #[arg(long, value_name = "HOST")]
    pub(crate) worker: Option<String>,

    #[command(flatten)]
    pub(crate) detach: DetachArgs,
}

impl RestoreArgs {
    /// The format asked for.
    pub(crate) fn format(&self) -> Option<DiskFormat> {
        super::backup::format_of(self.format.as_deref())
    }
}
