//! `tresor item …`.

use clap::{Args, Subcommand};
use tresor_worker::source::DiskFormat;

use super::common::{LimitArgs, parse_label};

/// What can be done with items.
#[derive(Debug, Subcommand)]
pub(crate) enum ItemVerb {
    Protect(ItemProtectArgs),
    List(ItemListArgs),
    /// Shows one item: its disks, its policy, its newest point, when it is due
    Show(ItemNameArgs),
    Rename(ItemRenameArgs),
    Unprotect(ItemUnprotectArgs),
}

/// One item.
#[derive(Debug, Args)]
pub(crate) struct ItemNameArgs {
    /// The item
    #[arg(value_name = "ITEM")]
    pub(crate) item: String,
}

/// Protects an item: from now on its policy decides when it is backed up
///
/// The first recovery point is made when the policy's schedule says so, or by `tresor backup --item ITEM`. Without a policy the
/// item gets the one named "default", if there is one, and what that means is said before. Without DISK an item that is there is
/// changed, and protected again if it was not: what is not named stays.
#[derive(Debug, Args)]
pub(crate) struct ItemProtectArgs {
    /// The item
    #[arg(value_name = "ITEM")]
    pub(crate) item: String,

    /// A disk: HOST:PATH, or PATH with --worker; NAME= in front names it (default: the file's name without its extension)
    #[arg(value_name = "DISK")]
    pub(crate) disks: Vec<String>,

    /// The policy that decides when it is backed up and what is kept
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,

    /// The host whose worker reads the disks
    #[arg(long, value_name = "HOST")]
    pub(crate) worker: Option<String>,

    /// Any worker with this label may read the disks; may be given several times
    #[arg(long = "worker-label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) worker_labels: Vec<(String, String)>,

    /// Mark the item; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,

    /// Read the disks as this format [default: by extension, everything unknown as raw]
    #[arg(long, value_name = "FORMAT", value_parser = ["raw", "qcow2", "vhdx", "vhd", "vmdk"])]
    source_format: Option<String>,

    /// Read disks that are in use or change meanwhile; points are marked as live
    #[arg(long)]
    pub(crate) allow_live: bool,

    /// Follow references of images to files outside their folder; only for images from a trusted source
    #[arg(long)]
    pub(crate) allow_backing: bool,

    /// Also if it is protected in another vault
    #[arg(long)]
    pub(crate) also: bool,
}

impl ItemProtectArgs {
    /// The format asked for.
    pub(crate) fn source_format(&self) -> Option<DiskFormat> {
        super::backup::format_of(self.source_format.as_deref())
    }
}

/// Lists items by name
#[derive(Debug, Args)]
pub(crate) struct ItemListArgs {
    /// Only those with this label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,

    /// Only those in this state
    #[arg(long, value_name = "STATE")]
    #[arg(value_parser = ["ok", "late", "failing", "never", "no-schedule", "unprotected"])]
    pub(crate) state: Option<String>,

    #[command(flatten)]
    pub(crate) limit: LimitArgs,
}

/// Gives an item another name; its points stay its points
#[derive(Debug, Args)]
pub(crate) struct ItemRenameArgs {
    /// The item
    #[arg(value_name = "ITEM")]
    pub(crate) item: String,

    /// Its new name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Backs an item up no more; its points stay, as its policy kept them
#[derive(Debug, Args)]
pub(crate) struct ItemUnprotectArgs {
    /// The item
    #[arg(value_name = "ITEM")]
    pub(crate) item: String,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
