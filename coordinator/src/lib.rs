//! The replicated control plane: it decides what is backed up, restored, verified, kept and thrown away, when and by whom, and never touches a byte of a
//! disk. What decides is pure and takes the time as a value: [`state`], which the log is applied to, [`schedule`], which says what is due and which points
//! stay, and [`lead`], what a leader does of itself; [`notify`] decides who is told of what, and tells them. Around it stands the Raft [`node`], which makes several coordinators agree on one order of commands, and the services that people, workers
//! and other coordinators talk to.

pub mod lead;
#[cfg(test)]
pub(crate) mod mutation;
pub mod node;
pub mod notify;
pub mod peers;
pub mod process;
pub mod raft;
pub mod rpc;
pub mod schedule;
pub mod security;
#[cfg(test)]
pub(crate) mod seeded;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod simulation;
pub mod state;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
