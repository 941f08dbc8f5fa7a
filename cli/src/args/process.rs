//! Processes of a cluster: `tresor cluster init`, `tresor coordinator start`, `tresor worker start`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Where a coordinator is reached, by default.
pub(crate) const PORT: u16 = 7420;
/// Where a worker has its metrics, by default; 7421 is the coordinator's, and 7422 is where workers answer each other.
pub(crate) const METRICS_PORT: u16 = 7423;

/// Founds a cluster with this machine as its first coordinator
///
/// Makes the cluster's authority and the first administrator's token, and prints the token this once. Then start the coordinator
/// (tresor coordinator start), and log in (tresor login).
#[derive(Debug, Args)]
pub(crate) struct ClusterInitArgs {
    /// The cluster's name, for people
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Where other coordinators and workers will reach this one: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,

    /// The coordinator's name [default: this host's]
    #[arg(long, value_name = "NAME")]
    pub(crate) coordinator: Option<String>,

    /// The coordinator's folder [default: HOME/coordinator]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
}

/// Runs a coordinator until it is told to stop
///
/// The first start on a machine joins a cluster: --join, --token-file and --address. Later ones need none of them.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorStartArgs {
    /// Listen here for coordinators, workers and people
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = format!("0.0.0.0:{PORT}"))]
    pub(crate) listen: String,

    /// Serve /metrics, /healthz and /readyz here; without authentication, so on loopback unless a firewall stands before it
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7421")]
    pub(crate) http: String,

    /// Join the cluster whose coordinators are here, separated by commas
    #[arg(long, value_name = "HOST:PORT", requires_all = ["token_file", "address"], value_delimiter = ',')]
    pub(crate) join: Vec<String>,

    /// The join token for a coordinator, in this file's first line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "join")]
    pub(crate) token_file: Option<PathBuf>,

    /// Where other coordinators and workers will reach this one: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", requires = "join")]
    pub(crate) address: Option<String>,

    /// The coordinator's name [default: this host's]
    #[arg(long, value_name = "NAME", requires = "join")]
    pub(crate) name: Option<String>,

    /// Show each item by itself among the metrics, up to 10,000 of them: eight series each
    #[arg(long)]
    pub(crate) item_metrics: bool,

    /// The time zone of policies that name none
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub(crate) zone: String,

    /// The coordinator's folder [default: HOME/coordinator]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
}

/// Runs a worker until it is told to stop
///
/// The first start on a machine joins a cluster: --join and --token-file. Later ones need neither. With a token of another cluster,
/// as of one that was founded again (`tresor cluster restore`), the worker leaves the one that it is in.
#[derive(Debug, Args)]
pub(crate) struct WorkerStartArgs {
    /// Join the cluster whose coordinators are here, separated by commas
    #[arg(long, value_name = "HOST:PORT", requires = "token_file", value_delimiter = ',')]
    pub(crate) join: Vec<String>,

    /// The join token for a worker, in this file's first line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "join")]
    pub(crate) token_file: Option<PathBuf>,

    /// The worker's name [default: this host's]
    #[arg(long, value_name = "NAME", requires = "join")]
    pub(crate) name: Option<String>,

    /// Where other workers reach this one, which listens on that port: HOST:PORT [default: this host's address and 7422, or a port that is free]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "no_slots")]
    pub(crate) serve_address: Option<String>,

    /// Serve /metrics, /healthz and /readyz here; without authentication, so on loopback unless a firewall stands before it
    /// [default: 127.0.0.1:7423, or a port that is free]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_address: Option<String>,

    /// Serve no metrics
    #[arg(long, conflicts_with = "metrics_address")]
    pub(crate) no_metrics: bool,

    /// Answer for no share of the index: this worker runs jobs, and others answer
    #[arg(long)]
    pub(crate) no_slots: bool,

    /// Run no jobs: this worker answers for its share of the index
    #[arg(long, conflicts_with = "no_slots")]
    pub(crate) no_jobs: bool,

    /// Where this worker stands
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) region: String,

    /// A label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,

    /// Jobs that it runs at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) permits: u32,

    /// Memory for jobs: as many as fit run at a time, about 680 MB for each, and no more than --permits
    #[arg(long, value_name = "SIZE", value_parser = super::limit::parse_memory)]
    pub(crate) memory: Option<u64>,

    /// A store that it reaches, by the beginning of its URL; may be repeated [default: all]
    #[arg(long = "reaches", value_name = "URL")]
    pub(crate) reaches: Vec<String>,

    /// Where coordinators are, if they have moved since it joined
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', conflicts_with = "join")]
    pub(crate) coordinators: Vec<String>,

    /// The worker's folder [default: HOME/worker]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
}

/// What can be done with the node of a home.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    Start(NodeStartArgs),
}

/// Runs coordinator and worker in one process, on this home, until it is told to stop
///
/// Schedules run, jobs are tried again, and other commands on this home go through it. Nothing listens on a network. Commands on this home
/// keep their state in it also while it does not run.
#[derive(Debug, Args)]
pub(crate) struct NodeStartArgs {
    /// Serve /metrics, /healthz and /readyz here; without authentication, so on loopback unless a firewall stands before it
    #[arg(long, value_name = "ADDRESS:PORT", alias = "metrics-address")]
    pub(crate) http: Option<String>,

    /// Show each item by itself among the metrics, up to 10,000 of them: eight series each
    #[arg(long)]
    pub(crate) item_metrics: bool,
}
