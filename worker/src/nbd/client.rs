//! An export over one or several connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

use super::connection::{Answer, Connection, NbdStream, Want};
use super::handshake::{Export, Wanted, handshake};
use super::wire::{self, Command, Flags, Request};
use super::{NbdErrno, NbdError};
use crate::extent::{self, Extent};

/// Most of a disk that one question about allocation covers: answers stay short, and no server needs long for it.
const STATUS_SPAN: u64 = 1 << 30;
/// Most that one request zeroes or trims: a server that has to write zeros needs its time.
const ZERO_SPAN: u64 = 256 << 20;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdEndpoint {
    /// On a Unix socket.
    Unix(PathBuf),
    /// On a TCP port, as `host:port`.
    Tcp(String),
}

impl NbdEndpoint {
    /// Makes a connection.
    ///
    /// # Errors
    /// `Connect`.
    pub async fn connect(&self) -> Result<NbdStream, NbdError> {
        let stream = match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(NbdStream::from),
            Self::Tcp(address) => TcpStream::connect(address).await.map(NbdStream::from),
        };
        stream.map_err(|e| NbdError::Connect { why: e.to_string() })
    }
}

/// How to use a server.
#[derive(Debug, Clone)]
pub struct NbdOptions {
    /// Name of the export; the empty one is the server's default.
    pub export: String,
    /// Connections, if the server permits several.
    pub connections: usize,
    /// Requests in flight over all connections.
    pub in_flight: usize,
    /// The longest that a request may take; then its connection is given up.
    pub timeout: Duration,
    /// The longest that connecting and agreeing may take, per connection.
    pub handshake_timeout: Duration,
    /// Heeds the server's block sizes. Without the promise a server must take any offset and length.
    pub block_sizes: bool,
}

impl Default for NbdOptions {
    fn default() -> Self {
        Self {
            export: String::new(),
            connections: 2,
            in_flight: 16,
            timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(30),
            block_sizes: true,
        }
    }
}

/// A range and what a metadata context says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NbdState {
    /// The range.
    pub extent: Extent,
    /// Bits whose meaning is the context's.
    pub state: u32,
}

/// A client of one export. Clone-free: share it by `Arc`. Dropping it hangs up.
pub struct NbdClient {
    export: Export,
    connections: Vec<Connection>,
    next: AtomicUsize,
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for NbdClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NbdClient")
            .field("export", &self.export)
            .field("connections", &self.connections.len())
            .finish()
    }
}

impl NbdClient {
    /// Connects, several times if the server permits it.
    ///
    /// # Errors
    /// `Connect`, `TimedOut`, `Refused`, `Protocol`, `Disconnected`.
    pub async fn connect(endpoint: &NbdEndpoint, options: &NbdOptions) -> Result<Self, NbdError> {
        let open = async || {
            let connect = tokio::time::timeout(options.handshake_timeout, endpoint.connect());
            let timed_out = NbdError::TimedOut {
                what: "the connection",
                after: options.handshake_timeout,
            };
            agree(connect.await.map_err(|_| timed_out)??, options).await
        };
        let first = open().await?;
        let mut all = vec![first];
        if all[0].1.flags.can_multi_conn() {
            for _ in 1..options.connections {
                all.push(open().await?);
            }
        }
        Self::assemble(all, options)
    }

    /// Takes streams that are connected already. Those that the server does not permit are closed.
    ///
    /// # Errors
    /// As for `connect`.
    ///
    /// # Panics
    /// If there is no stream.
    pub async fn over(streams: Vec<NbdStream>, options: &NbdOptions) -> Result<Self, NbdError> {
        let mut streams = streams.into_iter();
        let mut all = vec![agree(streams.next().expect("a client needs a stream"), options).await?];
        if all[0].1.flags.can_multi_conn() {
            for stream in streams {
                all.push(agree(stream, options).await?);
            }
        }
        Self::assemble(all, options)
    }

    fn assemble(all: Vec<(NbdStream, Export)>, options: &NbdOptions) -> Result<Self, NbdError> {
        let export = all[0].1.clone();
        if all.iter().any(|(_, other)| *other != export) {
            return Err(NbdError::Protocol {
                why: "its connections disagree about the export",
            });
        }
        let connections = all
            .into_iter()
            .map(|(stream, export)| Connection::new(stream, &export, options.timeout))
            .collect();
        let permits = Arc::new(Semaphore::new(options.in_flight.max(1)));
        Ok(Self {
            export,
            connections,
            next: AtomicUsize::new(0),
            permits,
        })
    }

    /// Bytes of the export.
    pub fn size(&self) -> u64 {
        self.export.size
    }

    /// What the export can do.
    pub fn flags(&self) -> Flags {
        self.export.flags
    }

    /// Whether the server tells holes.
    pub fn tells_allocation(&self) -> bool {
        self.allocation_context().is_some()
    }

    fn allocation_context(&self) -> Option<u32> {
        self.export.contexts.first().copied().flatten()
    }

    /// Fills the buffer from `offset`. Any offset and length inside the export.
    ///
    /// # Errors
    /// `Unsupported` outside the export; `Failed`, `TimedOut`, `Disconnected`, `Protocol`.
    pub async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, NbdError> {
        self.check("read", offset, buffer.len() as u64)?;
        if buffer.is_empty() {
            return Ok(buffer);
        }
        let asked = Extent::new(offset, buffer.len() as u64);
        let aligned = asked.align(u64::from(self.export.blocks.min), self.size());
        if aligned == asked {
            return self.read_aligned(offset, buffer).await;
        }
        let wide = self
            .read_aligned(aligned.offset, BytesMut::zeroed(aligned.length as usize))
            .await?;
        let start = (asked.offset - aligned.offset) as usize;
        let wanted = buffer.len();
        buffer.copy_from_slice(&wide[start..start + wanted]);
        Ok(buffer)
    }

    async fn read_aligned(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, NbdError> {
        let max = self.export.blocks.max as usize;
        if buffer.len() <= max {
            return self.read_once(offset, buffer).await;
        }
        let mut parts = Vec::new();
        let mut at = offset;
        while !buffer.is_empty() {
            let part = buffer.split_to(buffer.len().min(max));
            let length = part.len() as u64;
            parts.push(self.read_once(at, part));
            at += length;
        }
        let mut parts = try_join_all(parts).await?.into_iter();
        let mut whole = parts.next().unwrap_or_default();
        for part in parts {
            // The parts are neighbours in memory, so nothing is copied.
            whole.unsplit(part);
        }
        Ok(whole)
    }

    async fn read_once(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, NbdError> {
        let length = buffer.len() as u32;
        match self
            .request(Command::Read, 0, offset, length, Vec::new(), Want::Data(buffer, offset))
            .await?
        {
            Answer::Data(buffer) => Ok(buffer),
            _ => Err(NbdError::Protocol {
                why: "it answers another question",
            }),
        }
    }

    /// Extents inside `within` that may hold something else than zeros, as a set (`extent`). Everything if the server does not tell.
    ///
    /// # Errors
    /// As for `read`.
    pub async fn allocated(&self, within: Extent) -> Result<Vec<Extent>, NbdError> {
        let within = within.clip(Extent::new(0, self.size()));
        let Some(context) = self.allocation_context() else {
            return Ok(extent::normalise(vec![within]));
        };
        let states = self.states(context, within).await?;
        let data = states
            .iter()
            .filter(|s| s.state & wire::STATE_ZERO == 0)
            .map(|s| s.extent);
        Ok(extent::normalise(data.collect()))
    }

    /// What a context says, for all of `within`.
    async fn states(&self, context: u32, within: Extent) -> Result<Vec<NbdState>, NbdError> {
        let wide = within.align(u64::from(self.export.blocks.min), self.size());
        let mut states = Vec::new();
        let mut at = wide.offset;
        while at < wide.end() {
            let asked = Extent::new(at, (wide.end() - at).min(STATUS_SPAN));
            let want = Want::Status(context);
            let answer = self
                .request(
                    Command::BlockStatus,
                    0,
                    asked.offset,
                    asked.length as u32,
                    Vec::new(),
                    want,
                )
                .await?;
            let Answer::Status(extents) = answer else {
                return Err(NbdError::Protocol {
                    why: "it answers another question",
                });
            };
            for found in extents {
                if at >= asked.end() {
                    // Only the last extent may reach beyond what was asked.
                    return Err(NbdError::Protocol {
                        why: "it tells more than was asked",
                    });
                }
                // None is empty, so every answer gets further.
                let told = Extent::new(at, u64::from(found.length));
                let extent = told.clip(within);
                if !extent.is_empty() {
                    states.push(NbdState {
                        extent,
                        state: found.state,
                    });
                }
                at = told.end();
            }
        }
        Ok(states)
    }

    /// Writes the pieces one behind the other from `offset`.
    ///
    /// # Errors
    /// `Unsupported` if the export is read-only, or the range is outside it or not aligned as it needs; otherwise as for `read`.
    pub async fn write(&self, offset: u64, data: Vec<Bytes>) -> Result<(), NbdError> {
        let length = data.iter().map(|p| p.len() as u64).sum::<u64>();
        self.check_write("write", offset, length)?;
        let max = self.export.blocks.max as usize;
        let requests = cut(data, max).into_iter().scan(offset, |at, pieces| {
            let length = pieces.iter().map(Bytes::len).sum::<usize>();
            let request = self.request(Command::Write, 0, *at, length as u32, pieces, Want::Done);
            *at += length as u64;
            Some(request)
        });
        try_join_all(requests).await.map(|_| ())
    }

    /// Makes a range read as zeros, as a hole if the server likes.
    ///
    /// # Errors
    /// As for `write`.
    pub async fn zero(&self, extent: Extent) -> Result<(), NbdError> {
        self.check_write("write zeros", extent.offset, extent.length)?;
        if self.export.flags.can_write_zeroes() {
            return self.in_spans(Command::WriteZeroes, extent).await;
        }
        let zeros = Bytes::from_static(&[0; 64 << 10]);
        let mut at = extent.offset;
        while at < extent.end() {
            let length = (extent.end() - at).min(u64::from(self.export.blocks.max));
            let mut left = length as usize;
            let mut pieces = Vec::new();
            while left > 0 {
                let piece = zeros.slice(..left.min(zeros.len()));
                left -= piece.len();
                pieces.push(piece);
            }
            self.write(at, pieces).await?;
            at += length;
        }
        Ok(())
    }

    /// Tells the server that a range is not needed; what it reads as then is open. Does nothing if the server does not know it.
    ///
    /// # Errors
    /// As for `write`.
    pub async fn trim(&self, extent: Extent) -> Result<(), NbdError> {
        self.check_write("trim", extent.offset, extent.length)?;
        if !self.export.flags.can_trim() {
            return Ok(());
        }
        self.in_spans(Command::Trim, extent).await
    }

    async fn in_spans(&self, command: Command, extent: Extent) -> Result<(), NbdError> {
        let mut at = extent.offset;
        while at < extent.end() {
            let length = (extent.end() - at).min(ZERO_SPAN);
            self.request(command, 0, at, length as u32, Vec::new(), Want::Done)
                .await?;
            at += length;
        }
        Ok(())
    }

    /// Makes all writes that were answered durable.
    ///
    /// # Errors
    /// As for `read`.
    pub async fn flush(&self) -> Result<(), NbdError> {
        if self.export.flags.is_read_only() || !self.export.flags.can_flush() {
            return Ok(());
        }
        // With several connections the server promised that one flush covers them all.
        self.request(Command::Flush, 0, 0, 0, Vec::new(), Want::Done)
            .await
            .map(|_| ())
    }

    /// Says goodbye on all connections, after all requests were answered.
    pub async fn disconnect(&self) {
        for connection in &self.connections {
            connection.disconnect().await;
        }
    }

    async fn request(
        &self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u32,
        data: Vec<Bytes>,
        want: Want,
    ) -> Result<Answer, NbdError> {
        // Never closed, and every request in flight ends by its time-out, so this waits for a bounded time.
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| NbdError::Failed {
                what: command.name(),
                errno: NbdErrno::ShuttingDown,
            })?;
        let connection = &self.connections[self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len()];
        connection
            .request(
                permit,
                Request {
                    command,
                    flags,
                    cookie: 0,
                    offset,
                    length,
                },
                data,
                want,
            )
            .await
    }

    fn check(&self, what: &'static str, offset: u64, length: u64) -> Result<(), NbdError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size() => Ok(()),
            _ => Err(NbdError::Unsupported {
                what,
                why: "the range is outside it",
            }),
        }
    }

    fn check_write(&self, what: &'static str, offset: u64, length: u64) -> Result<(), NbdError> {
        self.check(what, offset, length)?;
        if self.export.flags.is_read_only() {
            return Err(NbdError::Unsupported {
                what,
                why: "it is read-only",
            });
        }
        let extent = Extent::new(offset, length);
        if extent.align(u64::from(self.export.blocks.min), self.size()) != extent {
            return Err(NbdError::Unsupported {
                what,
                why: "the range is not aligned as it needs",
            });
        }
        Ok(())
    }
}

async fn agree(mut stream: NbdStream, options: &NbdOptions) -> Result<(NbdStream, Export), NbdError> {
    let wanted = Wanted {
        export: &options.export,
        contexts: &[wire::BASE_ALLOCATION],
        block_sizes: options.block_sizes,
    };
    match tokio::time::timeout(options.handshake_timeout, handshake(&mut stream, wanted)).await {
        Ok(export) => export.map(|export| (stream, export)),
        Err(_) => Err(NbdError::TimedOut {
            what: "the handshake",
            after: options.handshake_timeout,
        }),
    }
}

/// Cuts pieces into groups of at most `max` bytes, without copying.
fn cut(data: Vec<Bytes>, max: usize) -> Vec<Vec<Bytes>> {
    let mut groups = vec![Vec::new()];
    let mut room = max;
    for mut piece in data {
        while !piece.is_empty() {
            if room == 0 {
                groups.push(Vec::new());
                room = max;
            }
            let part = piece.split_to(piece.len().min(room));
            room -= part.len();
            if let Some(group) = groups.last_mut() {
                group.push(part);
            }
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

#[cfg(test)]
mod tests;
