//! What people, programs and nodes may ask, over gRPC.
//!
//! A call comes here with its [`Caller`]: who it is and whether it may was found out before. Handlers check the message, wait until this member's state
//! is as new as the question, propose what is asked under the caller's idempotency key, and answer from the state.
//!
//! - [`admin`]: one file for each noun of the command line;
//! - [`context`]: what handlers stand on;
//! - [`fields`], [`resolve`], [`policy`]: from what people write to what the state means by it;
//! - [`standing`], [`convert`]: from rows to messages;
//! - [`page`]: lists in pages;
//! - [`refused`]: why a request is not done, as a status.

pub mod admin;
pub mod caller;
pub mod context;
pub mod convert;
pub mod fields;
pub mod page;
pub mod peer;
pub mod policy;
pub mod refused;
pub mod resolve;
pub mod standing;

pub use admin::AdminService;
pub use caller::Caller;
pub use context::{Clock, SecretBox, SecretError, Services, SystemClock};
pub use refused::Refused;
