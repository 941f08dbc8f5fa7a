//! One connection: requests in flight, each known by its cookie.
//!
//! One task owns the reading half, one the writing half. What they share is the table of requests that wait. Invariants:
//! - whoever takes a request out of the table answers it;
//! - once `dead` is set nothing is put into the table, so that no request waits on a dead connection;
//! - a request's permit goes back when it is answered, not when its asker goes away: what is in flight is what the server works on.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::NbdError;
use super::handshake::Export;
use super::wire::{self, ChunkKind, Command, ReplyKind, Request, StatusExtent};

/// Heads of replies are read through this; data goes past it.
const READ_BUFFER: usize = 4 << 10;

/// Two halves of a connection to a server.
pub struct NbdStream {
    pub(super) reader: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl NbdStream {
    /// Takes any two halves.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self {
            reader: BufReader::with_capacity(READ_BUFFER, Box::new(reader)),
            writer: Box::new(writer),
        }
    }
}

impl From<UnixStream> for NbdStream {
    fn from(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self::new(reader, writer)
    }
}

impl From<TcpStream> for NbdStream {
    fn from(stream: TcpStream) -> Self {
        // Requests are small and waited for. Without it they are only slower.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        Self::new(reader, writer)
    }
}

/// What a request expects.
#[derive(Debug)]
pub(super) enum Want {
    /// To be done.
    Done,
    /// Data for this buffer from this offset.
    Data(BytesMut, u64),
    /// Extents of this context.
    Status(u32),
}

/// What a request got.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Data(BytesMut),
    Status(Vec<StatusExtent>),
}

struct Pending {
    command: Command,
    want: Want,
    progress: Progress,
    answer: oneshot::Sender<Result<Answer, NbdError>>,
    _permit: OwnedSemaphorePermit,
}

/// What of a reply in chunks came already.
#[derive(Default)]
struct Progress {
    covered: Covered,
    extents: Option<Vec<StatusExtent>>,
    failed: Option<NbdError>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, Pending>,
    dead: Option<NbdError>,
}

struct Shared {
    state: Mutex<State>,
    stop: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails everything that waits and everything to come. The first reason stays.
    fn fail(&self, error: &NbdError) {
        let waiting = {
            let mut state = self.lock();
            state.dead.get_or_insert(error.clone());
            std::mem::take(&mut state.waiting)
        };
        for pending in waiting.into_values() {
            pending.finish(Err(error.clone()));
        }
        self.stop.cancel();
    }
}

impl Pending {
    fn finish(self, result: Result<Answer, NbdError>) {
        // The asker may have gone.
        let _ = self.answer.send(result);
    }
}

enum Outgoing {
    Request([u8; wire::REQUEST_LENGTH], Vec<Bytes>),
    Disconnect([u8; wire::REQUEST_LENGTH]),
}

/// One connection with its two tasks. Dropping it hangs up.
pub(super) struct Connection {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    cookie: AtomicU64,
    timeout: Duration,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.fail(&NbdError::Disconnected {
            why: "it was closed here".to_owned(),
        });
    }
}

impl Connection {
    /// Takes a stream after its handshake.
    pub(super) fn new(stream: NbdStream, export: &Export, timeout: Duration) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            stop: CancellationToken::new(),
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever sends a request holds one of the client's permits"
        )]
        let (outgoing, requests) = mpsc::unbounded_channel();
        let NbdStream { reader, writer } = stream;
        let is_structured = export.is_structured;
        tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let error = tokio::select! {
                    () = shared.stop.cancelled() => return,
                    error = read_replies(&shared, reader, is_structured) => error,
                };
                shared.fail(&error);
            }
        });
        let writer = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                tokio::select! {
                    () = shared.stop.cancelled() => {}
                    result = write_requests(writer, requests) => if let Err(error) = result {
                        shared.fail(&NbdError::disconnected(&error));
                    }
                }
            }
        });
        Self {
            shared,
            outgoing,
            cookie: AtomicU64::new(1),
            timeout,
            writer: Mutex::new(Some(writer)),
        }
    }

    /// Sends a request and waits for its answer, at most for the time-out, after which the connection is given up.
    ///
    /// If the future is dropped the request goes on in the background.
    pub(super) async fn request(
        &self,
        permit: OwnedSemaphorePermit,
        mut request: Request,
        data: Vec<Bytes>,
        want: Want,
    ) -> Result<Answer, NbdError> {
        request.cookie = self.cookie.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(error) = &state.dead {
                return Err(error.clone());
            }
            let pending = Pending {
                command: request.command,
                want,
                progress: Progress::default(),
                answer,
                _permit: permit,
            };
            state.waiting.insert(request.cookie, pending);
            // Bounded by the permits. If the writer has gone the reader's end answers.
            let _ = self.outgoing.send(Outgoing::Request(request.encode(), data));
        }
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.death()),
            Err(_) => {
                let error = NbdError::TimedOut {
                    what: request.command.name(),
                    after: self.timeout,
                };
                self.shared.fail(&error);
                Err(error)
            }
        }
    }

    /// Says goodbye and waits until that is sent. What is in flight is not waited for.
    pub(super) async fn disconnect(&self) {
        let goodbye = Request {
            command: Command::Disconnect,
            flags: 0,
            cookie: 0,
            offset: 0,
            length: 0,
        };
        let _ = self.outgoing.send(Outgoing::Disconnect(goodbye.encode()));
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = tokio::time::timeout(self.timeout, writer).await;
        }
        self.shared.fail(&NbdError::Disconnected {
            why: "it was closed here".to_owned(),
        });
    }

    fn death(&self) -> NbdError {
        let dead = self.shared.lock().dead.clone();
        dead.unwrap_or_else(|| NbdError::Disconnected {
            why: "the runtime is ending".to_owned(),
        })
    }
}

async fn write_requests(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    mut requests: mpsc::UnboundedReceiver<Outgoing>,
) -> std::io::Result<()> {
    while let Some(outgoing) = requests.recv().await {
        match outgoing {
            Outgoing::Request(head, data) => write_pieces(&mut writer, &head, &data).await?,
            Outgoing::Disconnect(head) => {
                writer.write_all(&head).await?;
                return writer.shutdown().await;
            }
        }
    }
    Ok(())
}

/// Most pieces of one call; the system takes 1024 (`UIO_MAXIOV`).
const PIECES_MAX: usize = 256;

async fn write_pieces(
    writer: &mut (dyn AsyncWrite + Send + Unpin),
    head: &[u8],
    data: &[Bytes],
) -> std::io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(data.len() + 1);
    slices.push(IoSlice::new(head));
    for piece in data {
        if !piece.is_empty() {
            slices.push(IoSlice::new(piece));
        }
    }
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let some = rest.len().min(PIECES_MAX);
        let count = writer.write_vectored(&rest[..some]).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, count);
    }
    writer.flush().await
}

type Half = BufReader<Box<dyn AsyncRead + Send + Unpin>>;

/// Reads replies until the connection ends.
async fn read_replies(shared: &Shared, mut reader: Half, is_structured: bool) -> NbdError {
    loop {
        if let Err(error) = read_reply(shared, &mut reader, is_structured).await {
            return error;
        }
    }
}

async fn read_reply(shared: &Shared, reader: &mut Half, is_structured: bool) -> Result<(), NbdError> {
    let mut head = [0; wire::CHUNK_LENGTH];
    read_exact(reader, &mut head[..4]).await?;
    let magic = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    match wire::reply_kind(magic)? {
        ReplyKind::Simple => {
            read_exact(reader, &mut head[4..wire::SIMPLE_REPLY_LENGTH]).await?;
            let reply = wire::simple_reply(&head[..wire::SIMPLE_REPLY_LENGTH])?;
            let mut pending = take(shared, reply.cookie)?;
            if let Some(errno) = reply.error {
                let what = pending.command.name();
                pending.finish(Err(NbdError::Failed { what, errno }));
                return Ok(());
            }
            let result = match std::mem::replace(&mut pending.want, Want::Done) {
                Want::Done => Ok(Answer::Done),
                Want::Data(mut buffer, _) if !is_structured => {
                    read_exact(reader, &mut buffer).await.map(|()| Answer::Data(buffer))
                }
                _ => Err(NbdError::Protocol {
                    why: "it answers simply where chunks were agreed on",
                }),
            };
            finish_or_break(pending, result)
        }
        ReplyKind::Structured => {
            if !is_structured {
                return Err(NbdError::Protocol {
                    why: "it answers in chunks, which were not agreed on",
                });
            }
            read_exact(reader, &mut head[4..]).await?;
            let chunk = wire::chunk(&head)?;
            let mut pending = take(shared, chunk.cookie)?;
            match read_chunk(reader, &chunk, &mut pending).await {
                Err(error) => finish_or_break(pending, Err(error)),
                Ok(()) if chunk.is_last => {
                    let result = pending.conclude();
                    finish_or_break(pending, result)
                }
                Ok(()) => {
                    let mut state = shared.lock();
                    match &state.dead {
                        // It failed while this chunk was being read.
                        Some(error) => {
                            let error = error.clone();
                            drop(state);
                            finish_or_break(pending, Err(error))
                        }
                        None => {
                            state.waiting.insert(chunk.cookie, pending);
                            Ok(())
                        }
                    }
                }
            }
        }
    }
}

/// Answers a request. Failures of the server's are its own; all else ends the connection.
fn finish_or_break(pending: Pending, result: Result<Answer, NbdError>) -> Result<(), NbdError> {
    let broken = match &result {
        Err(NbdError::Failed { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error.clone()),
    };
    pending.finish(result);
    broken
}

fn take(shared: &Shared, cookie: u64) -> Result<Pending, NbdError> {
    let pending = shared.lock().waiting.remove(&cookie);
    pending.ok_or(NbdError::Protocol {
        why: "it answers a request that was not made",
    })
}

async fn read_chunk(reader: &mut Half, chunk: &wire::Chunk, pending: &mut Pending) -> Result<(), NbdError> {
    match chunk.kind {
        ChunkKind::None => Ok(()),
        ChunkKind::Data => {
            let Want::Data(buffer, offset) = &mut pending.want else {
                return Err(NbdError::Protocol {
                    why: "it sends data that was not asked for",
                });
            };
            let mut at = [0; 8];
            read_exact(reader, &mut at).await?;
            // The parser made sure that there is data behind the offset.
            let range =
                pending
                    .progress
                    .covered
                    .add(u64::from_be_bytes(at), chunk.length - 8, *offset, buffer.len())?;
            read_exact(reader, &mut buffer[range]).await
        }
        ChunkKind::Hole => {
            let Want::Data(buffer, offset) = &mut pending.want else {
                return Err(NbdError::Protocol {
                    why: "it sends a hole that was not asked for",
                });
            };
            let mut payload = [0; 12];
            read_exact(reader, &mut payload).await?;
            let (at, length) = wire::hole(&payload)?;
            let range = pending.progress.covered.add(at, length, *offset, buffer.len())?;
            buffer[range].fill(0);
            Ok(())
        }
        ChunkKind::Status => {
            let Want::Status(wanted) = pending.want else {
                return Err(NbdError::Protocol {
                    why: "it sends a status that was not asked for",
                });
            };
            let mut payload = vec![0; chunk.length as usize];
            read_exact(reader, &mut payload).await?;
            let (context, extents) = wire::status(&payload)?;
            // Every agreed context sends one chunk.
            if context == wanted && pending.progress.extents.replace(extents).is_some() {
                return Err(NbdError::Protocol {
                    why: "it sends one status twice",
                });
            }
            Ok(())
        }
        ChunkKind::Error => {
            let mut payload = vec![0; chunk.length as usize];
            read_exact(reader, &mut payload).await?;
            let errno = wire::error(&payload)?;
            pending.progress.failed.get_or_insert(NbdError::Failed {
                what: pending.command.name(),
                errno,
            });
            Ok(())
        }
    }
}

impl Pending {
    /// What the request got, after its last chunk.
    fn conclude(&mut self) -> Result<Answer, NbdError> {
        if let Some(error) = self.progress.failed.take() {
            return Err(error);
        }
        match std::mem::replace(&mut self.want, Want::Done) {
            Want::Done => Ok(Answer::Done),
            Want::Data(buffer, _) if self.progress.covered.bytes == buffer.len() => Ok(Answer::Data(buffer)),
            Want::Data(..) => Err(NbdError::Protocol {
                why: "it sends less data than was asked for",
            }),
            Want::Status(_) => {
                let extents = self.progress.extents.take();
                extents.map(Answer::Status).ok_or(NbdError::Protocol {
                    why: "it does not tell the status asked for",
                })
            }
        }
    }
}

/// Which bytes of a read came, so that none comes twice and none is missing.
#[derive(Default)]
struct Covered {
    bytes: usize,
    /// Where the last chunk ended if all came in order so far.
    in_order: usize,
    /// Ranges by their start once chunks came out of order.
    ranges: Option<std::collections::BTreeMap<usize, usize>>,
    chunks: usize,
}

/// Chunks of one read: a server splits at extents, which are no smaller than sectors.
const fn chunks_max(length: usize) -> usize {
    length / 512 + 2
}

impl Covered {
    /// Adds `length` bytes at `at` of the disk to a read of `wanted` bytes at `offset`; gives their place in the buffer.
    fn add(&mut self, at: u64, length: u32, offset: u64, wanted: usize) -> Result<std::ops::Range<usize>, NbdError> {
        let outside = NbdError::Protocol {
            why: "it sends data outside the range asked for",
        };
        let start = at
            .checked_sub(offset)
            .and_then(|start| usize::try_from(start).ok())
            .ok_or(outside.clone())?;
        let end = start
            .checked_add(length as usize)
            .filter(|end| *end <= wanted)
            .ok_or(outside)?;
        self.chunks += 1;
        if length == 0 || self.chunks > chunks_max(wanted) {
            return Err(NbdError::Protocol {
                why: "it splits data without end",
            });
        }
        match &mut self.ranges {
            None if start == self.in_order => self.in_order = end,
            None => {
                let mut ranges = std::collections::BTreeMap::new();
                if self.in_order > 0 {
                    ranges.insert(0, self.in_order);
                }
                insert(&mut ranges, start, end)?;
                self.ranges = Some(ranges);
            }
            Some(ranges) => insert(ranges, start, end)?,
        }
        self.bytes += end - start;
        Ok(start..end)
    }
}

fn insert(ranges: &mut std::collections::BTreeMap<usize, usize>, start: usize, end: usize) -> Result<(), NbdError> {
    // Ranges are disjoint, so the last one that starts before `end` is the only one that could reach into it.
    if ranges.range(..end).next_back().is_some_and(|(_, last)| *last > start) {
        return Err(NbdError::Protocol {
            why: "it sends data twice",
        });
    }
    ranges.insert(start, end);
    Ok(())
}

async fn read_exact(reader: &mut Half, buffer: &mut [u8]) -> Result<(), NbdError> {
    match reader.read_exact(buffer).await {
        Ok(_) => Ok(()),
        Err(error) => Err(NbdError::disconnected(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn coverage_takes_every_byte_once(chunks in prop::collection::vec((0..40u64, 0..12u32), 0..40)) {
            let mut covered = Covered::default();
            let mut model = [false; 32];
            for (at, length) in chunks {
                let range = at.checked_sub(4).map(|s| s as usize..s as usize + length as usize);
                let fits = range.clone().is_some_and(|r| !r.is_empty() && r.end <= 32 && !model[r].iter().any(|b| *b));
                let taken = covered.add(at, length, 4, 32);
                if taken.is_ok() {
                    prop_assert!(fits);
                    for bit in &mut model[range.unwrap_or_default()] {
                        *bit = true;
                    }
                } else {
                    // The bound on chunks aside, nothing sound is refused.
                    prop_assert!(!fits || covered.chunks > chunks_max(32));
                    break;
                }
                prop_assert_eq!(covered.bytes, model.iter().filter(|b| **b).count());
            }
        }
    }
}
