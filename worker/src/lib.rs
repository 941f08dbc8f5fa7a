//! What moves bytes: disk sources and sinks, and the pipelines between them and a vault.

mod blocking;
pub mod extent;
pub mod nbd;
pub mod qemu;
pub mod sink;
pub mod source;
