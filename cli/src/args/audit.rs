//! `tresor audit …`.

use clap::{Args, Subcommand};

use super::common::LimitArgs;

/// What can be done with the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    List(AuditListArgs),
    /// Checks that no entry of the audit trail is missing or was changed; exit code 3 when one is
    Verify,
}

/// Lists who changed and restored what, the newest first
#[derive(Debug, Args)]
pub(crate) struct AuditListArgs {
    /// Only entries with this text in their actor, action or object
    #[arg(value_name = "TEXT")]
    pub(crate) contains: Option<String>,

    #[command(flatten)]
    pub(crate) limit: LimitArgs,
}
