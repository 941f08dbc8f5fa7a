//! Packs: the unit of object storage.
//!
//! ```text
//! object header 96 B · frame… · footer (a frame) · trailer 64 B
//! ```
//! Frames hold chunks or recipe nodes; the footer lists them all; the trailer finds the footer and checks everything. A pack can be read
//! without footer or index by scanning its frames. Read `pieces` (what is inside a frame), `footer`, `trailer`, `builder`, `read`.

mod builder;
mod footer;
mod pieces;
mod read;
mod trailer;

pub use builder::{FinishedPack, PACK_ROOM, PackBuilder, Placed};
pub use footer::{Footer, FooterFrame};
pub use pieces::{Pieces, PiecesBuilder};
pub use read::{PackKeys, PackShape, read_footer, scan_frames};
pub use trailer::{TRAILER, Trailer};
