//! The worker's side of a cluster: it asks its coordinator for leases, works on them, and reports.
//!
//! ```text
//! runner   registers a life ▸ waits for leases ▸ beats for those it has ▸ stops what lost its lease
//!   job    one attempt: a lease ▸ work/{backup, restore, verify, claim, catalogue} ▸ its report, until that is heard
//!     control   the pipelines' port over the lease: the commit is the report
//! ```
//! What a worker may rely on: the coordinator's log gives each lease an epoch, and takes the report of the newest only. So an attempt that lost its lease
//! without knowing can store what it likes; none of it ever counts. [`join`] is how a process becomes a worker. Read [`port`] (what is asked of a coordinator), [`lease`] (when a lease is over, and
//! what has to stop then), `runner`, `job`, `control`, `vaults`, then `work`.

pub(crate) mod calls;
pub mod client;
mod config;
mod control;
mod coordinators;
pub mod error;
pub mod failure;
mod job;
pub mod join;
pub mod lease;
mod log;
pub mod port;
mod progress;
mod runner;
mod running;
pub(crate) mod vaults;
mod wire;
pub(crate) mod work;

pub use client::{Channels, Client};
pub use config::{AgentConfig, PERMITS_MAX};
pub use coordinators::Coordinators;
pub use error::AgentError;
pub use failure::{Failure, FailureKind};
pub use join::{JoinError, Membership};
pub use log::JobLogs;
pub use port::Coordinator;
pub(crate) use progress::{Activity, Totals};
pub use runner::run;
