//! A client of the NBD protocol (newstyle), after `doc/proto.md` of the NBD project.

mod error;

pub use error::{NbdErrno, NbdError};
