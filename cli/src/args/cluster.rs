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
/// them is wrapped by the cluster's own key, which is not.
#[derive(Debug, Args)]
pub(crate) struct ClusterBackupArgs {
    /// A new file, readable by you alone
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}
