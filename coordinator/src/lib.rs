//! The replicated control plane: what is backed up, by whom and when, and what counts.
//!
//! [`state`] is a pure value that the log is applied to.

pub mod node;
pub mod state;
