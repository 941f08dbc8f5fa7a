//! `tresor cluster …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

/// What can be done with a cluster as a whole.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    Init(super::ClusterInitArgs),
    /// Shows the cluster's nodes: coordinators, which of them leads, workers, what needs a person
    Status,
    /// Join tokens: what a machine shows to become a node
    #[command(subcommand, arg_required_else_help = true)]
    JoinToken(JoinTokenVerb),
    /// API tokens: what people and programs show
    #[command(subcommand, arg_required_else_help = true)]
    ApiToken(ApiTokenVerb),
    ConfirmClock(YesArgs),
    Backup(ClusterBackupArgs),
    Restore(ClusterRestoreArgs),
    Recover(ClusterRecoverArgs),
    VaultKey(ClusterVaultKeyArgs),
}

/// What can be done with join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenVerb {
    Create(JoinTokenCreateArgs),
    /// Lists join tokens; what is secret in them is shown once, when they are made
    List,
    Revoke(TokenRevokeArgs),
}

/// Makes a join token and prints it
///
/// It is shown this once. Whoever has it can make a machine a node of the cluster, so hand it over as you would a password.
#[derive(Debug, Args)]
pub(crate) struct JoinTokenCreateArgs {
    /// What the node will be
    #[arg(long, value_name = "ROLE", value_parser = ["coordinator", "worker"])]
    pub(crate) role: String,

    /// How long it is good for: 5d, 12h, 30m
    #[arg(long, value_name = "TIME", default_value = "5d")]
    pub(crate) valid: String,

    /// How many nodes may join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
}

/// What can be done with API tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiTokenVerb {
    Create(ApiTokenCreateArgs),
    /// Lists API tokens; what is secret in them is shown once, when they are made
    List,
    Revoke(TokenRevokeArgs),
}

/// Makes an API token and prints it
///
/// It is shown this once. `tresor login` asks for it.
#[derive(Debug, Args)]
pub(crate) struct ApiTokenCreateArgs {
    /// Whose it is: a person or a program, as the audit trail will name it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,

    /// What it allows
    #[arg(long, value_enum, value_name = "ROLE")]
    pub(crate) role: RoleArg,

    /// How long it is good for: 90d, 12h [default: until it is revoked]
    #[arg(long, value_name = "TIME")]
    pub(crate) valid: Option<String>,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Everything
    Admin,
    /// The daily business: items, policies, jobs, backups, restores, holds
    Operator,
    /// Look and restore
    Restorer,
    /// Look, also at who did what
    Auditor,
    /// Look
    ReadOnly,
}

impl RoleArg {
    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Restorer => "restorer",
            Self::Auditor => "auditor",
            Self::ReadOnly => "read-only",
        }
    }
}

/// Makes a token worthless from now on
#[derive(Debug, Args)]
pub(crate) struct TokenRevokeArgs {
    /// The token's id, as `list` shows it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Says that the cluster's clock is right after it stepped
///
/// After a step of more than an hour the cluster removes nothing and lets nothing expire until a person has looked.
#[derive(Debug, Args)]
pub(crate) struct YesArgs {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Writes the cluster's whole state to a file, for the day on which most coordinators are lost
///
/// Recovery points need no such file: they are in their stores. Policies, items, tokens and keys are in it; what is secret of
/// them is wrapped by the cluster's own key, which is not: keep a copy of a coordinator's file cluster.key elsewhere, apart from this one.
/// `tresor cluster restore` needs both.
#[derive(Debug, Args)]
pub(crate) struct ClusterBackupArgs {
    /// A new file, readable by you alone
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

/// Founds a lost cluster again on this machine, from a backup of its state or from its vaults
///
/// Of all coordinators nothing is left but a file of `tresor cluster backup`, or not even that: then --from-store reads what the
/// cluster left in each of its vaults. Both need the cluster key: a copy of the file cluster.key of any coordinator.
///
/// The new cluster has another identity, another authority and no nodes. Policies, items and points are as they were; workers join
/// anew, claim every vault (whoever still writes for the lost cluster is refused from then on), and find points that are newer
/// than the backup. All tokens have ended, jobs are cancelled, and nothing expires until `tresor cluster confirm-clock`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["file", "from_store"]))]
pub(crate) struct ClusterRestoreArgs {
    /// A file that `tresor cluster backup` wrote
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// Without such a file: the store of a vault of the cluster; may be repeated, best for all of its vaults
    #[arg(long, value_name = "URL")]
    pub(crate) from_store: Vec<String>,

    /// With --from-store: the key file of a vault that the cluster took over; may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "from_store")]
    pub(crate) vault_key: Vec<PathBuf>,

    /// The copy of a coordinator's file cluster.key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cluster_key: PathBuf,

    /// The new coordinator
    #[command(flatten)]
    pub(crate) refound: RefoundArgs,

    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Founds a cluster again that lost most of its coordinators, from the folder of one that is left
///
/// As long as a majority of the coordinators can come back, wait for them, or replace the others one by one: a cluster that is
/// recovered from one of them loses what only others knew. The folder is read and stays as it is; the new coordinator gets a folder of
/// its own. What becomes of nodes, tokens, jobs and vaults is as with `tresor cluster restore`.
#[derive(Debug, Args)]
pub(crate) struct ClusterRecoverArgs {
    /// The folder of a coordinator that does not run
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,

    /// Yes: changes that were acknowledged by the other coordinators alone may be lost
    #[arg(long)]
    pub(crate) accept_loss: bool,

    /// The new coordinator
    #[command(flatten)]
    pub(crate) refound: RefoundArgs,
}

/// The coordinator that founds a cluster again.
#[derive(Debug, Args)]
pub(crate) struct RefoundArgs {
    /// Where other coordinators and workers will reach this one: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,

    /// The coordinator's name [default: this host's]
    #[arg(long, value_name = "NAME")]
    pub(crate) coordinator: Option<String>,

    /// The cluster's name [default: as it was]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// The new coordinator's folder, which must not have one [default: HOME/coordinator]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
}

/// Writes the key file of a vault that a cluster made, from the cluster key alone
///
/// For the day on which there is no coordinator: with the key file every command that reads a vault works (`tresor point list`,
/// `tresor restore`), and `tresor vault take-over` makes a home its writer. The vault's store is named by --store.
#[derive(Debug, Args)]
pub(crate) struct ClusterVaultKeyArgs {
    /// A new file, readable by you alone
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    /// The copy of a coordinator's file cluster.key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cluster_key: PathBuf,
}
