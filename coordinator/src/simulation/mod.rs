//! A cluster in one process: coordinators, workers and a client, with virtual time, network and disks, driven by a seed.
//!
//! What runs is what runs in production: the state, the scheduler, Raft and the store's rules, under [`crate::node::Driver`]; only clocks, sockets and
//! disks are not real. Leaders, workers and links fail at random; then all is healed, and what must hold is checked ([`check`]). A failing seed says how
//! to replay it, and a run repeats exactly.
//!
//! That the checks can fail is shown by mutations ([`crate::mutation`]): rules taken out of the production code, each of which must be found.

mod check;
mod client;
mod member;
mod network;
mod tests;
mod worker;
mod world;
