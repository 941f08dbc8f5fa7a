//! `tresor backup`.

use clap::Args;
use tresor_worker::source::DiskFormat;

use super::common::DetachArgs;

/// Backs up disks of one machine as one recovery point
///
/// The first backup makes the vault "main" in this home and, for a name not seen before, the item. Every point is
/// complete; what an earlier point holds is neither stored nor, where it is known to be unchanged, looked up again.
///
/// In a cluster a worker does it, and the command waits for it: --item ITEM backs up the disks that the cluster knows of the
/// item; with DISK an item that is not there is made.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// A disk: PATH, or NAME=PATH to name it (default: the file's name without its extension); in a cluster
    /// HOST:PATH or NAME=HOST:PATH, or PATH with --worker
    #[arg(required_unless_present = "item", value_name = "DISK", value_hint = clap::ValueHint::FilePath)]
    pub(crate) disks: Vec<String>,

    /// The item: whose disks these are [default: the name of the first disk]
    #[arg(long, value_name = "NAME")]
    pub(crate) item: Option<String>,

    /// Keep the point until then, whatever else is decided: YYYY-MM-DD (that day included, UTC) or an RFC 3339 time
    #[arg(long, value_name = "DATE")]
    pub(crate) keep_until: Option<String>,

    /// Read the disks as this format [default: by extension, everything unknown as raw]
    #[arg(long, value_name = "FORMAT", value_parser = ["raw", "qcow2", "vhdx", "vhd", "vmdk"])]
    source_format: Option<String>,

    /// Read disks that are in use or change meanwhile; the point is marked as live
    #[arg(long)]
    pub(crate) allow_live: bool,

    /// Follow references of images to files outside their folder; only for images from a trusted source
    #[arg(long)]
    pub(crate) allow_backing: bool,

    /// In a cluster: the host whose worker reads the disks
    #[arg(long, value_name = "HOST")]
    pub(crate) worker: Option<String>,

    #[command(flatten)]
    pub(crate) detach: DetachArgs,
}

impl BackupArgs {
    /// The format asked for.
    pub(crate) fn source_format(&self) -> Option<DiskFormat> {
        format_of(self.source_format.as_deref())
    }
}

/// A format by a name that clap let pass.
pub(super) fn format_of(name: Option<&str>) -> Option<DiskFormat> {
    name.map(|name| {
        name.parse()
            .expect("every value that the argument allows is a format's name")
    })
}
