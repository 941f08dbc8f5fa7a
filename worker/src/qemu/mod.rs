//! QEMU's tools, run as child processes.

mod error;

pub use error::QemuError;
