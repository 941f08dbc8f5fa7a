//! How members agree: raft-rs as a value that is driven from outside, without a clock, a network, a thread or a disk of its own.
//!
//! ```text
//!   tick, receive, propose, read_index, …  ──►  Core  ──►  process: messages to send, outcomes, snapshots to send, role
//!                                               │  ▲
//!                                   Machine ◄───┘  └──── Store (crate::store)
//! ```
//! The caller calls [`Core::process`] after every input (or after several: their entries share a sync) and does what its [`Output`] says.
//! Nothing that is handed out relies on anything that is not on disk yet.
//!
//! Invariants, each with its place:
//! 1. Entries, then the vote, are synced before a message says so (`process`).
//! 2. Rows, what is applied and what is committed are one batch; persisted commit ≥ persisted applied (`process`, [`crate::store`]).
//! 3. Every ticket has exactly one outcome (`proposals`, `reads`); one that is unclear is called so.
//! 4. A snapshot counts only when it was received whole and the machine was made of it (`snapshots`).
//! 5. No bytes of a peer reach raft-rs unchecked (`check`).
//! 6. A member that cannot store, cannot decode an entry, or lost what it acknowledged stops, and says why ([`CoreError`]).
//!
//! Read `core` for the inputs, `process` for the order of things, then what decides: `policy`, `members`, `check`. `simulation` (tests) runs
//! clusters of cores with lost messages, crashes and changing members, by seed.

mod bridge;
mod check;
mod config;
mod core;
pub mod limits;
mod machine;
mod members;
mod output;
mod policy;
mod process;
mod proposals;
mod reads;
#[cfg(test)]
pub(crate) mod simulation;
mod snapshots;
mod storage;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

pub use self::core::Core;
pub use check::Refused;
pub use config::Config;
pub use machine::{Applied, Machine};
pub use members::{Change, NotAllowed};
pub use output::{
    AppliedEntry, ChangeLost, CoreError, NotChanged, NotProposed, NotRead, NotTransferred, Outgoing, Output, ReadLost,
    Role, SendSnapshot, Standing, Status, Ticket, Unclear,
};
pub use policy::{Keep, LogSize, Peer};
pub use snapshots::{SnapshotError, SnapshotId};
