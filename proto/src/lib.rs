//! The wire between coordinators, workers and programs: messages, ids, and how two processes prove to each other who they are.
//!
//! Read `proto/tresor/v1/admin.proto` for what people and programs may ask, `agent.proto` for workers, `join.proto` for how a node becomes one,
//! `peer.proto` for coordinators among themselves, `slots.proto` and `parts.proto` for workers among themselves; [`tls`] for who is whom.
//!
//! **Versions.** A field is never given another meaning or number; new ones are added, and mean nothing where they are absent. A coordinator speaks
//! with workers one minor version older and newer.

pub mod attempt_log;
pub mod ids;
mod refused;
pub mod tls;
pub mod token;
pub mod trace;

/// Messages, clients and servers of package `tresor.v1`, generated.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    reason = "generated; documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("tresor.v1");

    /// All of it as a descriptor set, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("tresor.v1");
}
