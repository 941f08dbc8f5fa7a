//! A coordinator as a process: its folder, how it is founded, joins, or begins again from what is left of others, and how it serves until it is told to stop.
//!
//! ```text
//! identity/       who it is: certificate, key, the cluster's authority. Written last: a folder without it is not a coordinator's yet
//! cluster.key     wraps what is secret in the log (0600)
//! raft/           log, vote, rows
//! ```

pub mod embedded;
mod folder;
mod found;
mod join;
mod refound;
mod remains;
mod removed;
mod serve;

pub use folder::{Folder, FolderError};
pub use found::{FoundError, Founded, Founding, found};
pub use join::{JoinError, Joining, join};
pub use refound::{RefoundError, Refounded, Refounding, refound};
pub use remains::{Inventory, Remains, RemainsError, key_of_vault, load_cluster_key};
pub use serve::{Bound, Embedding, ServeSettings, StartError, serve};
