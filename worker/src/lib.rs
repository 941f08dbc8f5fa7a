//! What moves bytes: disk sources and sinks, and the pipelines between them and a vault.
//!
//! Read [`source`] and [`sink`], [`control`] (who says when a point counts), then [`backup`] and [`restore`]; [`home`] is where they work alone, [`agent`]
//! where they work for a cluster; [`metrics`] is what of it is counted.

pub mod agent;
pub mod backup;
mod blocking;
pub mod control;
mod cores;
pub mod error;
pub mod extent;
pub mod home;
pub mod limits;
pub mod metrics;
pub mod nbd;
mod parts;
pub mod progress;
pub mod qemu;
pub mod restore;
pub mod sink;
pub mod slots;
pub mod source;

pub use error::WorkerError;
