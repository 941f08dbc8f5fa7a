//! The running coordinator: one task owns Raft and the state, everything else speaks to it through a [`Handle`].
//!
//! [`driver`] is the whole of it without sockets and threads; [`task`] runs it. Read `handle` for what may be asked, `clock` for the stamps of entries,
//! `presence` for what a leader knows of workers and does not log.

pub mod clock;
pub mod driver;
pub mod error;
pub(crate) mod forms;
pub mod handle;
pub(crate) mod inbox;
pub mod machine;
pub mod presence;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;

pub use driver::{Driver, Now, TICK_MS};
pub use error::NodeError;
pub use handle::{Handle, Leadership};
pub use inbox::Inbox;
