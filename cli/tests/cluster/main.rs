//! What the command line asks of a cluster, what it makes of the answers, and what it does when there is none.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod choice;
mod here;
mod jobs;
mod limits;
mod lists;
mod login;
mod notify;
mod policies;
mod recovery;
mod refusals;
mod reports;
mod secrets;
mod verbs;
