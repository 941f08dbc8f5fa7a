//! Servers for tests: an honest one with latency and counters, and one that says what a script tells.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::NbdStream;

/// What an honest server serves and how.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) bytes: Mutex<Vec<u8>>,
    /// Bytes of a block; wholly zero blocks are told as holes.
    pub(super) block: usize,
    pub(super) latency: Duration,
    pub(super) flags: u16,
    pub(super) knows_go: bool,
    pub(super) is_structured: bool,
    /// Told block sizes: smallest and largest.
    pub(super) sizes: Option<(u32, u32)>,
    /// Chunks of a read come from the end to the start.
    pub(super) is_backwards: bool,
    pub(super) reads: AtomicUsize,
    pub(super) bytes_read: AtomicUsize,
    pub(super) in_flight_max: AtomicUsize,
    pub(super) in_flight: AtomicUsize,
}

impl Disk {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Mutex::new(bytes),
            block: 4096,
            latency: Duration::ZERO,
            flags: 1 | 4 | 8 | 32 | 64 | 256,
            knows_go: true,
            is_structured: true,
            sizes: None,
            is_backwards: false,
            reads: AtomicUsize::new(0),
            bytes_read: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }
}

/// A connection to an honest server.
pub(super) fn serve(disk: &Arc<Disk>) -> NbdStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let disk = Arc::clone(disk);
    tokio::spawn(async move {
        // Ends with an error when the client hangs up.
        let _ = session(theirs, disk).await;
    });
    ours.into()
}

/// A connection to a server that sends these bytes at once, reads whatever comes, and stays silent.
pub(super) fn script(bytes: Vec<u8>) -> NbdStream {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    tokio::spawn(async move {
        let _ = theirs.write_all(&bytes).await;
        let mut sink = [0; 4096];
        while theirs.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    });
    ours.into()
}

/// A connection to a server that shakes hands for an export of a MiB, and sends these bytes when so many requests came;
/// without any it hangs up then.
pub(super) fn script_reply(reply: Vec<u8>, requests: usize) -> NbdStream {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    tokio::spawn(async move {
        let _ = theirs.write_all(&handshake(1 << 20, 1)).await;
        let mut said = Vec::new();
        let magic = 0x2560_9513_u32.to_be_bytes();
        while said.windows(4).filter(|word| *word == magic).count() < requests {
            if theirs.read_buf(&mut said).await.is_ok_and(|count| count == 0) {
                return;
            }
        }
        if reply.is_empty() {
            return;
        }
        let _ = theirs.write_all(&reply).await;
        while theirs.read_buf(&mut said).await.is_ok_and(|count| count > 0) {}
    });
    ours.into()
}

/// Bytes of a handshake that agrees on an export of `size` bytes with structured replies and context 7.
pub(super) fn handshake(size: u64, flags: u16) -> Vec<u8> {
    let mut bytes = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    bytes.extend(option_reply(8, 1, &[]));
    bytes.extend(option_reply(
        10,
        4,
        &[&7_u32.to_be_bytes()[..], b"base:allocation"].concat(),
    ));
    bytes.extend(option_reply(10, 1, &[]));
    bytes.extend(option_reply(
        7,
        3,
        &[&[0, 0], &size.to_be_bytes()[..], &flags.to_be_bytes()].concat(),
    ));
    bytes.extend(option_reply(7, 1, &[]));
    bytes
}

pub(super) fn option_reply(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn chunk(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33ef_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes
}

async fn session(mut stream: UnixStream, disk: Arc<Disk>) -> std::io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03").await?;
    stream.read_u32().await?;
    let size = disk.bytes.lock().unwrap().len() as u64;
    loop {
        assert_eq!(stream.read_u64().await?, 0x4948_4156_454f_5054);
        let option = stream.read_u32().await?;
        let mut data = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut data).await?;
        let reply = match option {
            8 if disk.is_structured => option_reply(8, 1, &[]),
            10 if disk.is_structured => {
                let context = [&7_u32.to_be_bytes()[..], b"base:allocation"].concat();
                [option_reply(10, 4, &context), option_reply(10, 1, &[])].concat()
            }
            7 if disk.knows_go => {
                let info = [&[0, 0], &size.to_be_bytes()[..], &disk.flags.to_be_bytes()].concat();
                let mut reply = option_reply(7, 3, &info);
                if let Some((min, max)) = disk.sizes {
                    let numbers = [min, min, max].map(u32::to_be_bytes).concat();
                    reply.extend(option_reply(7, 3, &[&[0, 3], &numbers[..]].concat()));
                }
                [reply, option_reply(7, 1, &[])].concat()
            }
            1 => [&size.to_be_bytes()[..], &disk.flags.to_be_bytes()].concat(),
            other => option_reply(other, 0x8000_0001, &[]),
        };
        stream.write_all(&reply).await?;
        if option == 1 || (option == 7 && disk.knows_go) {
            break;
        }
    }
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    loop {
        assert_eq!(reader.read_u32().await?, 0x2560_9513);
        reader.read_u16().await?;
        let command = reader.read_u16().await?;
        let cookie = reader.read_u64().await?;
        let offset = reader.read_u64().await?;
        let length = reader.read_u32().await?;
        let mut data = vec![0; if command == 1 { length as usize } else { 0 }];
        reader.read_exact(&mut data).await?;
        if command == 2 {
            return Ok(());
        }
        if let (Some((min, max)), false) = (disk.sizes, command == 3) {
            assert!(offset % u64::from(min) == 0, "offset {offset}");
            assert!(
                length % min == 0 || offset + u64::from(length) == size,
                "length {length}"
            );
            assert!(command > 1 || length <= max, "length {length}");
        }
        let (disk, writer) = (Arc::clone(&disk), Arc::clone(&writer));
        tokio::spawn(async move { answer(&disk, &writer, (command, cookie, offset, length), data).await });
    }
}

async fn answer(
    disk: &Disk,
    writer: &tokio::sync::Mutex<OwnedWriteHalf>,
    (command, cookie, offset, length): (u16, u64, u64, u32),
    data: Vec<u8>,
) -> std::io::Result<()> {
    let now = disk.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    disk.in_flight_max.fetch_max(now, Ordering::SeqCst);
    if !disk.latency.is_zero() {
        tokio::time::sleep(disk.latency).await;
    }
    let range = offset as usize..offset as usize + length as usize;
    let reply = match command {
        0 => {
            disk.reads.fetch_add(1, Ordering::SeqCst);
            disk.bytes_read.fetch_add(range.len(), Ordering::SeqCst);
            read_reply(disk, cookie, range)
        }
        1 => {
            disk.bytes.lock().unwrap()[range].copy_from_slice(&data);
            done(disk, cookie)
        }
        6 => {
            disk.bytes.lock().unwrap()[range].fill(0);
            done(disk, cookie)
        }
        7 => {
            let bytes = disk.bytes.lock().unwrap();
            let mut payload = 7_u32.to_be_bytes().to_vec();
            let mut at = range.start;
            while at < range.end {
                let end = (at / disk.block + 1) * disk.block;
                let block = &bytes[at..end.min(bytes.len())];
                payload.extend((block.len() as u32).to_be_bytes());
                payload.extend((if block.iter().all(|b| *b == 0) { 3_u32 } else { 0 }).to_be_bytes());
                at += block.len();
            }
            chunk(1, 5, cookie, &payload)
        }
        _ => done(disk, cookie),
    };
    disk.in_flight.fetch_sub(1, Ordering::SeqCst);
    writer.lock().await.write_all(&reply).await
}

fn done(disk: &Disk, cookie: u64) -> Vec<u8> {
    if disk.is_structured {
        chunk(1, 0, cookie, &[])
    } else {
        simple(cookie)
    }
}

fn simple(cookie: u64) -> Vec<u8> {
    [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &cookie.to_be_bytes()].concat()
}

fn read_reply(disk: &Disk, cookie: u64, range: std::ops::Range<usize>) -> Vec<u8> {
    let bytes = disk.bytes.lock().unwrap();
    if !disk.is_structured {
        return [&simple(cookie), &bytes[range]].concat();
    }
    let mut chunks = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let end = ((at / disk.block + 1) * disk.block).min(range.end);
        let (data, place) = (&bytes[at..end], (at as u64).to_be_bytes());
        chunks.push(if data.iter().all(|b| *b == 0) {
            chunk(0, 2, cookie, &[&place[..], &(data.len() as u32).to_be_bytes()].concat())
        } else {
            chunk(0, 1, cookie, &[&place[..], data].concat())
        });
        at = end;
    }
    if disk.is_backwards {
        chunks.reverse();
    }
    chunks.push(chunk(1, 0, cookie, &[]));
    chunks.concat()
}
