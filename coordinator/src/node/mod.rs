//! The running coordinator: one task owns Raft and the state, everything else speaks to it through a [`Handle`].

pub mod clock;
pub mod error;
pub mod handle;
pub mod presence;

pub use error::NodeError;
pub use handle::{Handle, Leadership};
