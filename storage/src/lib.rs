//! The store engine of Tresor: how disks become chunks, frames, packs and recipes in any object store, and come back.
//!
//! Read [`ids`] and [`limits`], then along the way of a byte: `chunk`, `seal`, `pack`, `recipe`, `manifest`, [`index`], [`vault`], [`backend`].
//! The bytes are described in `docs/format.md`. This crate knows nothing of jobs, schedules, Raft or the network protocol between processes.

pub mod backend;
pub mod buffers;
pub mod catalog;
pub mod chunk;
pub mod error;
pub mod ids;
pub mod index;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod pack;
pub mod recipe;
pub mod seal;
pub mod throttle;
pub mod vault;
pub mod verify;

/// Messages stored as protocol buffers (`proto/tresor_storage.proto`).
#[expect(missing_docs, reason = "generated; the .proto file is commented")]
#[allow(
    rustdoc::invalid_html_tags,
    reason = "names of objects in the comments of the .proto file"
)]
pub mod stored {
    include!(concat!(env!("OUT_DIR"), "/tresor.storage.v1.rs"));
}

pub use error::{Doing, Error, FormatError, Kind, Result};
