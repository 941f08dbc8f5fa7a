//! `tresor report …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::common::parse_label;
use super::limit::parse_memory;

/// What can be reported.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportVerb {
    Protection(ProtectionArgs),
    Capacity(CapacityArgs),
    Audit(AuditReportArgs),
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For a terminal
    Table,
    /// One JSON value, as --json
    Json,
    /// One table as CSV, see --table
    Csv,
    /// One file for a browser or a printer: charts and tables, no script, nothing from elsewhere
    Html,
}

/// What every report takes.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// How it is written [default: by the ending of --output, else table]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<ReportFormat>,

    /// Where to; a file of that name is replaced [default: standard output]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,

    /// With --format csv: which table
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,

    /// Look at so many days up to the end [default: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=366), conflicts_with = "since")]
    pub(crate) days: Option<u32>,

    /// From then on: a date in UTC or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Up to then, not beyond [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// Rows of a table on a terminal, entries of the audit report; 0: all [default: 50 on a terminal, else all]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

/// Which items a report is about; `--vault` is one of the options of every command.
#[derive(Debug, Args)]
pub(crate) struct ReportItemArgs {
    /// Only items under this policy
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,

    /// Only items with this label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
}

/// Reports whether every item is protected: state, newest point, lateness, backups that failed, RPO
///
/// States of items are as of now and those of tresor status; the window is for jobs and RPO. Exits with 0 also when
/// items are not safe, unless --check is given.
#[derive(Debug, Args)]
pub(crate) struct ProtectionArgs {
    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) items: ReportItemArgs,

    /// Exit with 1 unless every item is in state ok and undamaged
    #[arg(long)]
    pub(crate) check: bool,
}

/// Reports what backups read and what they put into stores, by vault, item and day
///
/// Numbers count what jobs put; nothing is taken off when points expire. What is not known is said to be unknown.
#[derive(Debug, Args)]
pub(crate) struct CapacityArgs {
    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) items: ReportItemArgs,

    /// What a vault's store may hold, such as 10TiB: tells the days until so much was put into it
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(crate) capacity: Option<u64>,
}

/// Reports who changed, restored and removed what, and whether the audit trail is whole
///
/// Exits with 0 also when the trail is broken, unless --check is given; tresor audit verify exits with 3 then.
#[derive(Debug, Args)]
pub(crate) struct AuditReportArgs {
    #[command(flatten)]
    pub(crate) report: ReportArgs,

    /// Only entries with this text in their actor, action or object
    #[arg(long, value_name = "TEXT")]
    pub(crate) contains: Option<String>,

    /// Exit with 3 if the trail is broken
    #[arg(long)]
    pub(crate) check: bool,
}
