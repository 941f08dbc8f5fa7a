//! Ranges of large disks, read by several workers for one backup.
//!
//! ```text
//! agent/work/backup ▸ backup/part: ranges from the end of each disk ▸ helper ▸ (gRPC, mutual TLS) ▸ service ▸ backup/part: run_part
//! ```
//! The worker that has the lease makes recipe, manifest and commit. A helper has no lease and needs none: it writes under the session of the one who
//! asked, which owners of slots refuse when the lease is over, and what it was answered goes back with its leaves. It opens the vault with the keys that it
//! has because it answers for slots; nobody hands it any.
//!
//! Read `desk` (who may work here), `service`, `helper`, then `wire`.

mod desk;
mod helper;
mod service;
mod wire;

pub(crate) use desk::Desk;
pub(crate) use helper::{Ask, RemoteHelper};
pub(crate) use service::{PartService, ServiceParts};
