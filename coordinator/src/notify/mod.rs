//! Who is told of what: backups that fail, items that are late, damage, all of it ending, and a report of everything at a time of the day.
//!
//! - [`decide`]: what is to be told now: pure, of the state, of what was told before, and of the time;
//! - [`text`]: a message as people and programs read it;
//! - [`secret`]: where a channel leads and with what, as it is wrapped;
//! - [`send`]: one message to one receiver, with [`mail`] for mail;
//! - [`task`]: what a leader does all the time: it decides, proposes, sends what waits, and proposes what came of it.
//!
//! A message is in the log before it is sent and goes from there when it was taken. A leader that ends between the two leaves it there, and the next one
//! sends it again, under the same number: at least once, and to be recognised.

pub mod decide;
pub mod mail;
pub mod secret;
pub mod send;
pub mod task;
pub mod text;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
