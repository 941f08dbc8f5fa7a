//! Whole clusters as operators run them: the real `tresor` as processes of their own, killed, stopped, cut off and started again, while backups go on.
//!
//! Read `program` (one process), `cluster` (all of them), `watch` (what is seen of them from outside), `vault` (what their store has), `network` (links
//! that are cut), `receiver` (a webhook), `bundle` and `replicas`; the other files are stories, one subject each. Stages are waited for, never slept for, and nothing waits for ever.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bundle;
mod cluster;
mod network;
mod program;
mod receiver;
mod replicas;
mod vault;
mod watch;

mod chaos;
mod damage;
mod killed_leader;
mod killed_worker;
mod lost;
mod majority;
mod members;
mod observe;
mod partition;
mod parts;
mod paused_leader;
mod replaced;
mod reupload;
mod rolling;
mod upgrade;
