//! The wire between coordinators, workers and programs: messages, ids, and how two processes prove to each other who they are.

pub mod ids;
