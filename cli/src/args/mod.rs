//! What can be typed: the verbs, their options and their help.
//!
//! Nothing is decided here. Options that are settings too ([`GlobalArgs`]) are merged with environment and file in `config`.

mod audit;
mod backup;
mod cluster;
mod common;
mod coordinator;
mod explain;
mod item;
mod job;
mod limit;
mod login;
mod notify;
mod point;
mod policy;
mod process;
mod report;
mod restore;
mod support;
mod vault;
mod worker;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub(crate) use audit::{AuditListArgs, AuditVerb};
pub(crate) use backup::BackupArgs;
pub(crate) use cluster::{
    ApiTokenCreateArgs, ApiTokenVerb, ClusterBackupArgs, ClusterRecoverArgs, ClusterRestoreArgs, ClusterVaultKeyArgs,
    ClusterVerb, JoinTokenCreateArgs, JoinTokenVerb, RefoundArgs, YesArgs,
};
pub(crate) use common::DetachArgs;
pub(crate) use coordinator::{CoordinatorNameArgs, CoordinatorVerb};
pub(crate) use explain::ExplainArgs;
pub(crate) use item::{ItemListArgs, ItemProtectArgs, ItemRenameArgs, ItemUnprotectArgs, ItemVerb};
pub(crate) use job::{JobListArgs, JobVerb};
pub(crate) use limit::{LimitOf, LimitRemoveArgs, LimitSetArgs, LimitVerb};
pub(crate) use login::{LoginArgs, LogoutArgs};
pub(crate) use notify::{NotifyAddArgs, NotifyVerb};
pub(crate) use point::{PointDiffArgs, PointListArgs, PointVerb};
pub(crate) use policy::{PolicyCreateArgs, PolicyEditArgs, PolicyOptions, PolicyPreviewArgs, PolicyVerb};
pub(crate) use process::{
    ClusterInitArgs, CoordinatorStartArgs, METRICS_PORT, NodeStartArgs, NodeVerb, WorkerStartArgs,
};
pub(crate) use report::{
    AuditReportArgs, CapacityArgs, ProtectionArgs, ReportArgs, ReportFormat, ReportItemArgs, ReportVerb,
};
pub(crate) use restore::RestoreArgs;
pub(crate) use support::SupportBundleArgs;
pub(crate) use vault::{
    KeyAddArgs, KeyRemoveArgs, KeyRotateArgs, KeyVerb, VaultCreateArgs, VaultKitArgs, VaultRemoveArgs, VaultVerb,
    VaultVerifyArgs,
};
pub(crate) use worker::{WorkerDrainArgs, WorkerRemoveArgs, WorkerVerb};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const GLOBAL: &str = "Options of every command";

const EXIT_CODES: &str = "\
Exit codes:
    0 done          1 failed            2 usage           3 damage found      4 not found
    5 denied or wrong key               6 held or fenced by another           7 unreachable
    8 full          130 interrupted";

/// Backs up disks of virtual machines into an encrypted, deduplicated vault on any object storage.
#[derive(Debug, Parser)]
#[command(name = "tresor", bin_name = "tresor", version, styles = STYLES, max_term_width = 120, propagate_version = false)]
#[command(disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Settings for this call.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every command. They win over the environment, which wins over HOME/config.toml.
#[derive(Debug, Args, Default)]
pub(crate) struct GlobalArgs {
    /// Where vaults, keys and the index are kept [env: TRESOR_HOME] [default: the user's data folder/tresor]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = GLOBAL)]
    pub(crate) home: Option<PathBuf>,

    /// The vault to work with [env: TRESOR_VAULT] [default: main]
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(crate) vault: Option<String>,

    /// The cluster to work with instead of this home: NAME after login, HOST:PORT,… or unix:PATH [env: TRESOR_CLUSTER] [default: none]
    #[arg(long, global = true, value_name = "CLUSTER", help_heading = GLOBAL)]
    pub(crate) cluster: Option<String>,

    /// Print one JSON value on standard output and nothing else there
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,

    /// No progress, no notes, only errors
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = GLOBAL)]
    pub(crate) quiet: bool,

    /// Log more to standard error: -v what changes, -vv why, -vvv all [env: TRESOR_LOG, a level or a filter]
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub(crate) verbose: u8,

    /// How log lines look [env: TRESOR_LOG_FORMAT] [default: human]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = GLOBAL)]
    pub(crate) log_format: Option<LogFormat>,

    /// Send spans to this collector of OpenTelemetry, as OTLP over HTTP [env: OTEL_EXPORTER_OTLP_ENDPOINT] [default: none]
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url, help_heading = GLOBAL)]
    pub(crate) otlp: Option<String>,

    /// Where a backup leaves its numbers for Prometheus, as a text file of the node exporter [env: TRESOR_METRICS_FILE]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GLOBAL)]
    pub(crate) metrics_file: Option<PathBuf>,

    /// The store itself (file://, s3://, az://, gs://): reads a vault that this home does not know, or says where to make one
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub(crate) store: Option<String>,

    /// Opens the vault with this key file
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GLOBAL)]
    #[arg(conflicts_with_all = ["recovery_kit", "passphrase_file"])]
    pub(crate) key_file: Option<PathBuf>,

    /// Opens the vault with this recovery kit
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GLOBAL)]
    #[arg(conflicts_with = "passphrase_file")]
    pub(crate) recovery_kit: Option<PathBuf>,

    /// Opens the vault with the passphrase in this file's first line [env: TRESOR_PASSPHRASE_FILE] [default: ask]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GLOBAL)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

impl LogFormat {
    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Status(StatusArgs),
    /// Items: protected machines, their disks and where they are read
    #[command(subcommand, arg_required_else_help = true)]
    Item(ItemVerb),
    /// Policies: when is backed up, and how long it is kept
    #[command(subcommand, arg_required_else_help = true)]
    Policy(PolicyVerb),
    /// Vaults: named sets of backups with their keys
    #[command(subcommand, arg_required_else_help = true)]
    Vault(VaultVerb),
    /// Recovery points: one item at one moment
    #[command(subcommand, arg_required_else_help = true)]
    Point(PointVerb),
    /// Jobs: backups, restores and verifications of a cluster
    #[command(subcommand, arg_required_else_help = true)]
    Job(JobVerb),
    Explain(ExplainArgs),
    Login(LoginArgs),
    Logout(LogoutArgs),
    /// A cluster as a whole: its nodes, its tokens, its state
    #[command(subcommand, arg_required_else_help = true)]
    Cluster(ClusterVerb),
    /// Coordinators: the nodes that decide
    #[command(subcommand, arg_required_else_help = true)]
    Coordinator(CoordinatorVerb),
    /// Workers: the nodes that read, store and restore
    #[command(subcommand, arg_required_else_help = true)]
    Worker(WorkerVerb),
    /// Limits of use: bytes and requests a second, jobs at a time
    #[command(subcommand, arg_required_else_help = true)]
    Limit(LimitVerb),
    /// Notifications: who is told of failures, lateness and damage
    #[command(subcommand, arg_required_else_help = true)]
    Notify(NotifyVerb),
    /// The node of this home: schedules on one machine
    #[command(subcommand, arg_required_else_help = true)]
    Node(NodeVerb),
    /// The audit trail: who did what
    #[command(subcommand, arg_required_else_help = true)]
    Audit(AuditVerb),
    /// Reports: is everything safe, what does it take, who did what
    #[command(subcommand, arg_required_else_help = true)]
    Report(ReportVerb),
    SupportBundle(SupportBundleArgs),
    /// Settings
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigVerb),
    Completion(CompletionArgs),
    Man(ManArgs),
    Reference(ReferenceArgs),
}

impl Verb {
    /// Its word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Backup(_) => "backup",
            Self::Restore(_) => "restore",
            Self::Status(_) => "status",
            Self::Item(_) => "item",
            Self::Policy(_) => "policy",
            Self::Vault(_) => "vault",
            Self::Point(_) => "point",
            Self::Job(_) => "job",
            Self::Explain(_) => "explain",
            Self::Login(_) => "login",
            Self::Logout(_) => "logout",
            Self::Cluster(_) => "cluster",
            Self::Coordinator(_) => "coordinator",
            Self::Worker(_) => "worker",
            Self::Limit(_) => "limit",
            Self::Node(_) => "node",
            Self::Audit(_) => "audit",
            Self::Config(_) => "config",
            Self::Completion(_) => "completion",
            Self::Man(_) => "man",
            Self::Notify(_) => "notify",
            Self::Report(_) => "report",
            Self::SupportBundle(_) => "support-bundle",
            Self::Reference(_) => "reference",
        }
    }

    /// Of what runs until it is told to stop, what it is.
    pub(crate) fn service(&self) -> Option<&'static str> {
        match self {
            Self::Coordinator(CoordinatorVerb::Start(_)) => Some("tresor-coordinator"),
            Self::Worker(WorkerVerb::Start(_)) => Some("tresor-worker"),
            Self::Node(NodeVerb::Start(_)) => Some("tresor-node"),
            _ => None,
        }
    }
}

/// Shows whether everything is protected and what needs a person
///
/// Exits with 0 also when something needs a person: the answer is in the text, and in `warnings` with --json. Only a
/// question that could not be answered at all fails.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {}

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Shows every setting, and whether an option, the environment, the file or the default won
    ///
    /// And what `tresor login` keeps. Secrets are never shown: the file names files that hold them.
    Show,
}

/// Prints the completion script of a shell
///
/// For bash: tresor completion bash > ~/.local/share/bash-completion/completions/tresor
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Writes the manual pages into a folder
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct ManArgs {
    /// The folder; made if need be
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

/// Prints the reference of the command line as Markdown
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct ReferenceArgs {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_go_before_and_behind_the_verb() {
        for line in [["tresor", "--json", "status"], ["tresor", "status", "--json"]] {
            assert!(Cli::parse_from(line).global.json, "{line:?}");
        }
    }
}
