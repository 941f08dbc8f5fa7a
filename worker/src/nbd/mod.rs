//! A client of the NBD protocol (newstyle), after `doc/proto.md` of the NBD project.
//!
//! `wire` has the bytes, `handshake` agrees on an export, `connection` keeps requests in flight on one socket, `client` spreads them over several sockets
//! and over what the server takes at once. A server is foreign: whatever it sends gives a named error, within bounded memory and time.

mod client;
mod connection;
mod error;
mod handshake;
#[cfg(test)]
mod test_server;
mod wire;

pub use client::{NbdClient, NbdEndpoint, NbdOptions, NbdState};
pub use connection::NbdStream;
pub use error::{NbdErrno, NbdError};
pub use wire::Flags as NbdFlags;

/// Gives bytes to every parser of the protocol, as a server could send them. For fuzzing; no part of the interface.
#[doc(hidden)]
pub fn parse_foreign(bytes: &[u8]) {
    let _ = wire::greeting(bytes);
    let _ = wire::option_reply(bytes);
    let _ = wire::info(bytes);
    let _ = wire::export_name_reply(bytes);
    let _ = wire::meta_context(bytes);
    let _ = wire::simple_reply(bytes);
    let _ = wire::chunk(bytes);
    let _ = wire::hole(bytes);
    let _ = wire::error(bytes);
    let _ = wire::status(bytes);
}
