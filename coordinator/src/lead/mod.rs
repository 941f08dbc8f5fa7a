//! What a leader decides by itself: what is due, who does it, what has ended, what expires. Pure functions of the state, of what is known of
//! workers, and of the time; whoever leads proposes what they return.
//!
//! Two leaders that believe to lead at once may both propose the same: the state makes an occurrence a job once, gives a job to one worker, ends
//! a lease once, and checks every expiry again.
//!
//! - [`plans`]: policies ready to be asked;
//! - [`pass`]: one look at everything: what becomes due, what expires, what upkeep vaults need;
//! - [`placement`]: which job a worker gets, and why another does not get it;
//! - [`limits`]: what limits of use say now;
//! - [`shares`]: how a limit is divided among the workers that use it;
//! - [`retries`]: when a failed attempt is tried again;
//! - [`slots`]: who answers for which share of the index.

pub mod limits;
pub mod pass;
pub mod placement;
pub mod plans;
pub mod retries;
pub mod shares;
pub mod slots;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
