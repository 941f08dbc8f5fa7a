//! `tresor login` and `tresor logout`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Logs in to a cluster: keeps its addresses, its authority and your token
///
/// The token is asked for, or read from a file; it is never given on the command line, where others could see it. Kept in
/// HOME/clusters/NAME, readable by you alone. Afterwards --cluster NAME, or any of its addresses, is enough.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Where coordinators listen, separated by commas: HOST:PORT,…
    #[arg(value_name = "HOST:PORT")]
    pub(crate) addresses: String,

    /// SHA-256 of the cluster's authority (its certificate), as `tresor cluster init` printed it: 64 hexadecimal digits
    #[arg(long, value_name = "SHA256")]
    pub(crate) ca_fingerprint: String,

    /// Read the token from this file's first line [env: TRESOR_TOKEN_FILE] [default: ask]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,

    /// Keep it under this name [default: the cluster's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Forgets a cluster and the token for it
///
/// The token itself stays good until it expires or is revoked: `tresor cluster api-token revoke`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The name it is kept under [default: that of --cluster, else the only one]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}
