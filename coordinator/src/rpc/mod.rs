//! What people, programs and nodes may ask, over gRPC.
//!
//! A call comes here with its [`Caller`]: who it is and whether it may was found out before. Handlers check the message, wait until this member's state
//! is as new as the question, propose what is asked under the caller's idempotency key, and answer from the state.
//!
//! - [`server`]: everything on its listeners; `gate` stands before it: who calls ([`auth`]), may they ([`permissions`]), and if another member leads
//!   the call is handed on (`forward`);
//! - [`admin`]: one file for each noun of the command line;
//! - [`agent`], [`join`], [`peer`]: what workers, nodes to be and other coordinators ask;
//! - [`catalogue`]: what is kept of a vault beside its data;
//! - [`context`]: what handlers stand on;
//! - [`fields`], [`resolve`], [`policy`]: from what people write to what the state means by it;
//! - [`standing`], [`convert`]: from rows to messages;
//! - [`page`]: lists in pages;
//! - [`refused`]: why a request is not done, as a status.

pub mod admin;
pub mod agent;
pub mod auth;
pub mod caller;
pub mod catalogue;
mod connection;
pub mod context;
pub mod convert;
pub mod fields;
mod forward;
mod gate;
mod guesses;
pub mod http;
pub mod join;
mod kinds;
pub mod metrics;
pub mod page;
pub mod peer;
pub mod permissions;
pub mod policy;
pub mod refused;
pub mod resolve;
pub mod server;
pub mod standing;
mod traces;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
pub(crate) mod testing;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

pub use admin::AdminService;
pub use caller::Caller;
pub use context::{Clock, SecretBox, SecretError, Services, SystemClock};
pub use refused::Refused;
