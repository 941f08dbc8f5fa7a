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
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::time::Instant;

    use super::super::test_server::{self, Disk, chunk, option_reply, script, script_reply, serve};
    use super::*;

    fn some_bytes(length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
            .collect();
        // Holes of odd lengths at odd places.
        for (start, end) in [(8_192, 40_000), (100_001, 131_072), (length - 5000, length - 7)] {
            if end <= length {
                bytes[start..end].fill(0);
            }
        }
        bytes
    }

    fn quick() -> NbdOptions {
        NbdOptions {
            timeout: Duration::from_millis(300),
            handshake_timeout: Duration::from_millis(300),
            ..NbdOptions::default()
        }
    }

    async fn client(disk: &Arc<Disk>, connections: usize) -> NbdClient {
        let streams = (0..connections).map(|_| serve(disk)).collect();
        NbdClient::over(streams, &NbdOptions::default()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_read_is_what_the_server_has_at_any_offset_and_length() {
        let bytes = some_bytes(200_003);
        for (is_structured, knows_go, is_backwards, sizes) in [
            (true, true, false, None),
            (true, true, true, None),
            (false, true, false, None),
            (false, false, false, None),
            (true, true, false, Some((512, 16_384))),
            (true, true, true, Some((4096, 4096))),
        ] {
            let disk = Arc::new(Disk {
                is_structured,
                knows_go,
                is_backwards,
                sizes,
                ..Disk::new(bytes.clone())
            });
            let client = client(&disk, 3).await;
            assert_eq!(client.size(), 200_003);
            for (offset, length) in [
                (0, 200_003),
                (1, 1),
                (4095, 2),
                (8192, 31_808),
                (199_000, 1003),
                (77, 123_456),
            ] {
                let read = client.read(offset as u64, BytesMut::zeroed(length)).await.unwrap();
                assert_eq!(
                    read,
                    bytes[offset..offset + length],
                    "{offset}+{length} {disk:?}",
                    disk = disk.sizes
                );
            }
            assert!(client.read(200_000, BytesMut::zeroed(4)).await.is_err());
            assert!(client.read(u64::MAX, BytesMut::zeroed(4)).await.is_err());
        }
    }

    #[tokio::test]
    async fn holes_are_told_and_need_not_be_read() {
        let mut bytes = vec![0; 8 << 20];
        bytes[1 << 20..(1 << 20) + 10].fill(1);
        bytes[5 << 20..6 << 20].fill(2);
        let disk = Arc::new(Disk {
            sizes: Some((4096, 1 << 20)),
            ..Disk::new(bytes.clone())
        });
        let client = client(&disk, 1).await;
        let data = client.allocated(Extent::new(0, u64::MAX)).await.unwrap();
        assert_eq!(data, [Extent::new(1 << 20, 4096), Extent::new(5 << 20, 1 << 20)]);
        let part = client
            .allocated(Extent::between((1 << 20) + 100, (5 << 20) + 7))
            .await
            .unwrap();
        assert_eq!(
            part,
            [
                Extent::between((1 << 20) + 100, (1 << 20) + 4096),
                Extent::new(5 << 20, 7)
            ]
        );
        for extent in &data {
            let read = client
                .read(extent.offset, BytesMut::zeroed(extent.length as usize))
                .await
                .unwrap();
            assert_eq!(read, bytes[extent.offset as usize..extent.end() as usize]);
        }
        assert_eq!(disk.reads.load(Ordering::SeqCst), 2);
        assert_eq!(disk.bytes_read.load(Ordering::SeqCst), 4096 + (1 << 20));
    }

    #[tokio::test]
    async fn without_a_context_everything_may_hold_data() {
        let disk = Arc::new(Disk {
            is_structured: false,
            ..Disk::new(vec![0; 10_000])
        });
        let client = client(&disk, 1).await;
        assert!(!client.tells_allocation());
        assert_eq!(
            client.allocated(Extent::new(5, 100_000)).await.unwrap(),
            [Extent::between(5, 10_000)]
        );
    }

    #[tokio::test]
    async fn what_is_written_zeroed_and_flushed_is_on_the_disk() {
        for flags in [1 | 4 | 8 | 32 | 64 | 256, 1 | 4] {
            let disk = Arc::new(Disk {
                flags,
                sizes: Some((1, 4096)),
                ..Disk::new(vec![9; 300_000])
            });
            let client = client(&disk, 2).await;
            let mut model = vec![9; 300_000];
            let data = some_bytes(150_001);
            let pieces = [&data[..7], &[], &data[7..70_000], &data[70_000..]]
                .map(Bytes::copy_from_slice)
                .to_vec();
            client.write(333, pieces).await.unwrap();
            model[333..150_334].copy_from_slice(&data);
            client.zero(Extent::between(1000, 200_000)).await.unwrap();
            model[1000..200_000].fill(0);
            client.flush().await.unwrap();
            client.disconnect().await;
            assert!(*disk.bytes.lock().unwrap() == model, "flags {flags:#x}");
            assert!(client.write(299_999, vec![Bytes::from_static(b"ab")]).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_read_only_export_is_not_written_to() {
        let disk = Arc::new(Disk {
            flags: 3,
            ..Disk::new(vec![1; 4096])
        });
        let client = client(&disk, 1).await;
        let wrote = client.write(0, vec![Bytes::from_static(b"x")]).await;
        assert!(matches!(wrote, Err(NbdError::Unsupported { .. })));
        assert!(client.zero(Extent::new(0, 1)).await.is_err());
        assert_eq!(disk.bytes.lock().unwrap()[0], 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sixteen_requests_in_flight_hide_latency_eight_fold() {
        const READS: u64 = 96;
        let mut took = Vec::new();
        for in_flight in [1, 16] {
            let disk = Arc::new(Disk {
                latency: Duration::from_millis(5),
                ..Disk::new(some_bytes(1 << 20))
            });
            let options = NbdOptions {
                in_flight,
                ..NbdOptions::default()
            };
            let client = NbdClient::over(vec![serve(&disk)], &options).await.unwrap();
            let start = Instant::now();
            try_join_all((0..READS).map(|i| client.read(i * 4096, BytesMut::zeroed(4096))))
                .await
                .unwrap();
            took.push(start.elapsed());
            // Counted, which no busy machine can spoil.
            assert_eq!(disk.in_flight_max.load(Ordering::SeqCst), in_flight);
        }
        assert!(
            took[0] >= took[1] * 8,
            "one in flight {:?}, sixteen {:?}",
            took[0],
            took[1]
        );
    }

    #[tokio::test]
    async fn a_dropped_request_harms_no_other() {
        let disk = Arc::new(Disk {
            latency: Duration::from_millis(20),
            ..Disk::new(some_bytes(200_000))
        });
        let options = NbdOptions {
            in_flight: 2,
            ..NbdOptions::default()
        };
        let client = NbdClient::over(vec![serve(&disk)], &options).await.unwrap();
        for _ in 0..8 {
            let read = client.read(0, BytesMut::zeroed(100_000));
            assert!(tokio::time::timeout(Duration::from_millis(3), read).await.is_err());
        }
        let read = client.read(50_000, BytesMut::zeroed(100_000)).await.unwrap();
        assert_eq!(read, disk.bytes.lock().unwrap()[50_000..150_000]);
    }

    #[tokio::test]
    async fn a_dead_connection_fails_all_that_waits_and_all_to_come() {
        let client = NbdClient::over(vec![script_reply(Vec::new(), 4)], &quick())
            .await
            .unwrap();
        let reads = (0..10).map(|i| client.read(i * 4096, BytesMut::zeroed(4096)));
        for read in futures::future::join_all(reads).await {
            assert!(matches!(read, Err(NbdError::Disconnected { .. })), "{read:?}");
        }
        assert!(matches!(
            client.read(0, BytesMut::zeroed(1)).await,
            Err(NbdError::Disconnected { .. })
        ));
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_in_every_state() {
        let full = test_server::handshake(1 << 20, 1);
        for cut in [0, 5, 18, 30, full.len() - 1] {
            let answer = NbdClient::over(vec![script(full[..cut].to_vec())], &quick()).await;
            assert!(matches!(answer, Err(NbdError::TimedOut { .. })), "{cut}: {answer:?}");
        }
        let client = NbdClient::over(vec![script(full)], &quick()).await.unwrap();
        assert!(matches!(
            client.read(0, BytesMut::zeroed(4096)).await,
            Err(NbdError::TimedOut { .. })
        ));
        // Its connection is gone; nobody waits again.
        let start = Instant::now();
        assert!(client.read(0, BytesMut::zeroed(4096)).await.is_err());
        assert!(start.elapsed() < Duration::from_millis(200));
    }

    #[tokio::test]
    async fn a_hostile_handshake_gives_a_named_error() {
        let greeting = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
        let with = |parts: &[Vec<u8>]| [&greeting[..], &parts.concat()].concat();
        let structured = option_reply(8, 1, &[]);
        let contexts = option_reply(10, 1, &[]);
        let mut endless = vec![structured.clone(), contexts.clone()];
        endless.extend((0..1000).map(|_| option_reply(7, 3, &[0, 9])));
        let mut long = with(&[]);
        long.extend(option_reply(8, 1, &[]));
        let at = long.len() - 4;
        long[at..].copy_from_slice(&u32::MAX.to_be_bytes());
        for (name, bytes) in [
            ("another service", b"220 mail.example.org ESMTP ready\r\n".to_vec()),
            ("a reply to nothing asked", with(&[option_reply(99, 1, &[])])),
            ("an endless payload", long),
            (
                "no size",
                with(&[structured.clone(), contexts.clone(), option_reply(7, 1, &[])]),
            ),
            ("endless information", with(&endless)),
            ("a wild size", test_server::handshake(u64::MAX, 1)),
        ] {
            let answer = NbdClient::over(vec![script(bytes)], &quick()).await;
            assert!(matches!(answer, Err(NbdError::Protocol { .. })), "{name}: {answer:?}");
        }
        let refusal = with(&[structured, contexts, option_reply(7, 0x8000_0006, b"no \x1b[31msuch\n")]);
        match NbdClient::over(vec![script(refusal)], &quick()).await {
            Err(NbdError::Refused { why, .. }) => assert_eq!(why, "no such export: no [31msuch"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_hostile_reply_gives_a_named_error() {
        let data = |offset: u64, length: usize| [&offset.to_be_bytes()[..], &vec![7; length]].concat();
        let hole = |offset: u64, length: u32| [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
        let tiny: Vec<u8> = (0..4096).flat_map(|i| chunk(0, 1, 1, &data(i, 1))).collect();
        let mut lies = chunk(0, 1, 1, &data(0, 16));
        lies[16..20].copy_from_slice(&(20_u32 << 20).to_be_bytes());
        for (name, reply) in [
            ("garbage", vec![0xaa; 64]),
            ("an unknown cookie", chunk(1, 0, 99, &[])),
            ("nothing at all", chunk(1, 0, 1, &[])),
            ("too little", chunk(1, 1, 1, &data(0, 4095))),
            ("too much", chunk(1, 1, 1, &data(0, 4097))),
            ("before the range", chunk(1, 1, 1, &data(u64::MAX, 16))),
            ("behind the range", chunk(1, 2, 1, &hole(4096, 1))),
            ("an empty hole", chunk(0, 2, 1, &hole(0, 0))),
            (
                "twice",
                [chunk(0, 2, 1, &hole(0, 16)), chunk(0, 2, 1, &hole(8, 16))].concat(),
            ),
            ("in tiny pieces", tiny),
            ("a wild length", lies),
            ("a status", chunk(1, 5, 1, &[0; 12])),
            ("an error that is none", chunk(1, 0x8001, 1, &[0; 6])),
            (
                "an error with a long text",
                chunk(1, 0x8001, 1, &[0, 0, 0, 5, 0xff, 0xff]),
            ),
            (
                "a simple reply",
                [
                    &0x6744_6698_u32.to_be_bytes()[..],
                    &[0; 4],
                    &1_u64.to_be_bytes(),
                    &[7; 4096],
                ]
                .concat(),
            ),
        ] {
            let client = NbdClient::over(vec![script_reply(reply, 1)], &quick()).await.unwrap();
            let read = client.read(0, BytesMut::zeroed(4096)).await;
            assert!(matches!(read, Err(NbdError::Protocol { .. })), "{name}: {read:?}");
        }
    }

    #[tokio::test]
    async fn a_hostile_status_gives_a_named_error() {
        let extent = |length: u32| [length.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        let context = |id: u32| id.to_be_bytes().to_vec();
        for (name, payload) in [
            ("another context", [context(8), extent(1 << 20)].concat()),
            ("an empty extent", [context(7), extent(0)].concat()),
            ("more than asked", [context(7), extent(1 << 20), extent(1)].concat()),
        ] {
            let client = NbdClient::over(vec![script_reply(chunk(1, 5, 1, &payload), 1)], &quick())
                .await
                .unwrap();
            let told = client.allocated(Extent::new(0, 1 << 20)).await;
            assert!(matches!(told, Err(NbdError::Protocol { .. })), "{name}: {told:?}");
        }
        // An extent may reach beyond what was asked, even beyond the disk; it is cut.
        let reply = chunk(1, 5, 1, &[context(7), extent(u32::MAX)].concat());
        let client = NbdClient::over(vec![script_reply(reply, 1)], &quick()).await.unwrap();
        assert_eq!(
            client.allocated(Extent::new(0, 1 << 20)).await.unwrap(),
            [Extent::new(0, 1 << 20)]
        );
    }

    #[tokio::test]
    async fn an_error_of_the_server_fails_its_request_only() {
        let failed = chunk(1, 0x8001, 1, &[0, 0, 0, 28, 0, 2, b'n', b'o']);
        let fine = chunk(1, 1, 2, &[&0_u64.to_be_bytes()[..], &[7; 16]].concat());
        let stream = script_reply([failed, fine].concat(), 2);
        let client = NbdClient::over(vec![stream], &quick()).await.unwrap();
        let (first, second) = tokio::join!(
            client.read(0, BytesMut::zeroed(16)),
            client.read(0, BytesMut::zeroed(16))
        );
        let error = first.unwrap_err();
        assert!(matches!(
            error,
            NbdError::Failed {
                errno: NbdErrno::NoSpace,
                ..
            }
        ));
        assert_eq!(error.kind(), tresor_storage::Kind::Full);
        assert_eq!(second.unwrap(), [7; 16][..]);
    }
}
