//! Sealing: compression, authenticated encryption, and the headers around them.
//!
//! Every sealed object, a pack or a one-part object, starts with an [`ObjectHeader`]; what follows are frames. Read `header`, `frame`, `object`.

mod compress;
mod frame;
mod header;
mod object;

pub use compress::{Codec, Compressed, compress, compress_into, compressed_room};
pub use frame::{FRAME_HEADER, FRAME_OVERHEAD, FrameHeader, FrameKind, ObjectSeal};
pub use header::{OBJECT_HEADER, ObjectHeader, ObjectKind};
pub use object::{open_object, seal_object};
