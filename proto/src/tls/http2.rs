//! Bounds of HTTP/2, the same on both sides, and when a silent connection counts as dead.

use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// How much of one call may be under way unread, bytes: enough for 100 MiB/s at 20 ms.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// How much of all calls of a connection may be under way unread, bytes. A connection whose reader stands still holds no more.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Largest list of headers, bytes. Ours have a token and an error's text.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// How many calls of one connection run at once: a worker's long polls and batches, a console's readers.
const CALLS_MAX: u32 = 256;
/// How often a client asks whether the other side is there, and how long it waits. Together they are half a lease (30 s), so that a worker
/// whose coordinator fell silent has renewed at another one in time.
const CLIENT_PING_INTERVAL: Duration = Duration::from_secs(10);
const CLIENT_PING_TIME: Duration = Duration::from_secs(5);
/// The same for a server: it only frees what a vanished client held.
const SERVER_PING_INTERVAL: Duration = Duration::from_secs(30);
const SERVER_PING_TIME: Duration = Duration::from_secs(15);
/// How long a connection stands before its calls are finished and a new one is made, with the certificate of that day. Far less than the
/// ten days between a renewal and the end of the certificate before; a handshake per worker and half a day costs nothing.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// A server with these bounds, for services to be added.
pub fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .max_concurrent_streams(CALLS_MAX)
        .http2_keepalive_interval(Some(SERVER_PING_INTERVAL))
        .http2_keepalive_timeout(Some(SERVER_PING_TIME))
        .max_connection_age(CONNECTION_AGE_MAX)
}

/// An endpoint with these bounds. Its address is a name for logs: our connectors know where to go.
pub(crate) fn endpoint(name: &'static str) -> Endpoint {
    Endpoint::from_static(name)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_keep_alive_interval(CLIENT_PING_INTERVAL)
        .keep_alive_timeout(CLIENT_PING_TIME)
        .keep_alive_while_idle(true)
}
