//! `tresor policy …`.

use clap::{Args, Subcommand};

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    Create(PolicyCreateArgs),
    /// Lists policies
    List,
    /// Shows a policy, in plain words too
    Show(PolicyNameArgs),
    Edit(PolicyEditArgs),
    /// Removes a policy that no item has
    Remove(PolicyNameArgs),
    Preview(PolicyPreviewArgs),
}

/// One policy.
#[derive(Debug, Args)]
pub(crate) struct PolicyNameArgs {
    /// The policy
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// When is backed up, and how long it is kept.
#[derive(Debug, Args)]
pub(crate) struct PolicyOptions {
    /// When: "daily 02:30", "weekly sun 03:00", "monthly 1,last 04:00", "hourly :15", "every 15m", "cron 30 2 * * 1-5"
    #[arg(long, value_name = "TEXT")]
    pub(crate) schedule: Option<String>,

    /// The time zone of schedule, windows and retention, by its IANA name: Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,

    /// Backups start only in such hours: "mon-fri 20:00-06:00"; may be given several times
    #[arg(long = "window", value_name = "TEXT")]
    pub(crate) windows: Vec<String>,

    /// Spread the starts of many items over so long: 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) jitter: Option<String>,

    /// What is kept: "last 3, daily 7, weekly 4, monthly 12, yearly 2"
    #[arg(long, value_name = "TEXT")]
    pub(crate) retention: Option<String>,

    /// Of jobs that wait, those of a greater priority run first; 0 is normal
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,

    /// A backup that is overdue by so long is late, which raises an alarm: 26h
    #[arg(long, value_name = "TIME")]
    pub(crate) late_after: Option<String>,
}

/// Makes a policy, after it has said in plain words what it means
///
/// The policy does nothing by itself: `tresor item protect NAME --policy POLICY` gives it to an item.
#[derive(Debug, Args)]
pub(crate) struct PolicyCreateArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) options: PolicyOptions,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Changes a policy, after it has said in plain words what it will mean
///
/// What is not named stays as it is. Recovery points that the changed policy does not keep are removed soon after.
#[derive(Debug, Args)]
pub(crate) struct PolicyEditArgs {
    /// The policy
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Give it another name
    #[arg(long, value_name = "NAME")]
    pub(crate) rename: Option<String>,

    #[command(flatten)]
    pub(crate) options: PolicyOptions,

    /// Start at any time
    #[arg(long, conflicts_with = "windows")]
    pub(crate) no_windows: bool,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Says in plain words what a policy means, when it next runs, and which points of an item it keeps
///
/// Of the policy NAME as it is, or as it would be with the options.
#[derive(Debug, Args)]
pub(crate) struct PolicyPreviewArgs {
    /// The policy [default: one made of the options alone]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) options: PolicyOptions,

    /// Show which of this item's points stay, and why
    #[arg(long, value_name = "NAME")]
    pub(crate) item: Option<String>,

    /// How many of the next runs are shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) runs: u32,
}
