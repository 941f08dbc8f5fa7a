//! QEMU's tools, run as child processes: `qemu-nbd` serves images of formats that we do not read ourselves, `qemu-img` makes them.
//!
//! Images are named to QEMU by explicit nodes (`node`), never by file names that it would interpret, and it follows no reference that we have not looked at.

mod error;
mod export;
mod image;
mod node;
mod server;
mod tool;

pub use error::QemuError;
pub(crate) use export::{Access, QemuExport};
pub(crate) use image::create;
pub(crate) use node::Node;
