//! Bytes to and from files, slice by slice as the job's throttles let them through.
//!
//! While nothing is limited a whole transfer runs on one thread without leaving it. Where a slice has to wait, the thread is given back: a few
//! dozens of waiting puts would otherwise be all the threads that there are for blocking calls, and disks could not be read.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::put::{At, Failed, Writing};
use super::{BackendError, FileBackend, Root, check_name, map_errno, range_length};
use crate::throttle::{Direction, Pace};

/// Tries of a put whose folder is removed under it again and again.
const FOLDER_TRIES: usize = 16;

/// Bytes of the object that passed the throttles, over all tries: what was taken once is not taken again.
#[derive(Debug, Clone, Copy, Default)]
struct Paid(usize);

enum Put {
    Done,
    /// So many bytes are to be waited for.
    Wait(Box<Writing>, At, usize),
    Again,
}

impl FileBackend {
    pub(super) async fn put(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        check_name("put", name)?;
        let pieces: Arc<[Bytes]> = pieces.into();
        let pace = self.pace.of_request();
        let mut paid = Paid::default();
        for _ in 0..FOLDER_TRIES {
            let mut begun: Option<(Box<Writing>, At)> = None;
            let mut written = 0;
            loop {
                let (pieces, pace_there) = (Arc::clone(&pieces), pace.clone());
                let (put, now_written, now_paid) = self
                    .run("put", name, move |root, name| {
                        let mut count = (written, paid);
                        let put = step(root, name, &pieces, begun, &pace_there, &mut count)?;
                        Ok((put, count.0, count.1))
                    })
                    .await?;
                (written, paid) = (now_written, now_paid);
                match put {
                    Put::Done => return Ok(()),
                    Put::Again => break,
                    Put::Wait(writing, at, bytes) => {
                        pace.take(Direction::Upload, bytes).await;
                        paid.0 += bytes;
                        begun = Some((writing, at));
                    }
                }
            }
        }
        Err(BackendError::Unavailable {
            operation: "put",
            name: name.into(),
            source: "its folder vanished again and again".into(),
        })
    }

    /// Reads what `open` says, a range of an open file.
    pub(super) async fn fetch(
        &self,
        name: &str,
        open: impl FnOnce(&Root, &str) -> Result<(OwnedFd, Range<u64>), BackendError> + Send + 'static,
    ) -> Result<Bytes, BackendError> {
        let pace = self.pace.of_request();
        let pace_there = pace.clone();
        let mut fetched = self
            .run("read", name, move |root, name| {
                let (fd, range) = open(root, name)?;
                let mut fetched = Fetching {
                    fd,
                    bytes: Vec::with_capacity(range_length(name, &range)?),
                    range,
                    paid: 0,
                };
                fetched.step(name, &pace_there)?;
                Ok(fetched)
            })
            .await?;
        while let Some(bytes) = fetched.waits_for(&pace) {
            pace.take(Direction::Download, bytes).await;
            fetched.paid += bytes;
            let pace_there = pace.clone();
            fetched = self
                .run("read", name, move |_, name| {
                    fetched.step(name, &pace_there)?;
                    Ok(fetched)
                })
                .await?;
        }
        Ok(fetched.bytes.into())
    }
}

/// Writes as much as may pass, and ends the put when that was all.
fn step(
    root: &Root,
    name: &str,
    pieces: &[Bytes],
    begun: Option<(Box<Writing>, At)>,
    pace: &Pace,
    (written, paid): &mut (usize, Paid),
) -> Result<Put, BackendError> {
    let failed = |failed| match failed {
        Failed::Again => Ok(Put::Again),
        Failed::Error(error) => Err(error),
    };
    let (mut writing, mut at) = match begun {
        Some(begun) => begun,
        None => match root.begin(name) {
            Ok(writing) => (Box::new(writing), At::default()),
            Err(why) => return failed(why),
        },
    };
    while let Some((bytes, next)) = at.next(pieces, pace.slice(Direction::Upload)) {
        let unpaid = (*written + bytes.len()).saturating_sub(paid.0);
        if unpaid > 0 {
            if !pace.try_take(Direction::Upload, unpaid) {
                return Ok(Put::Wait(writing, at, unpaid));
            }
            paid.0 += unpaid;
        }
        if let Err(errno) = writing.write(bytes) {
            return failed(root.failed(name, errno));
        }
        *written += bytes.len();
        at = next;
    }
    match root.end(name, &writing) {
        Ok(()) => Ok(Put::Done),
        Err(why) => failed(why),
    }
}

/// A file that is being read.
struct Fetching {
    fd: OwnedFd,
    range: Range<u64>,
    bytes: Vec<u8>,
    /// Bytes that passed the throttles.
    paid: usize,
}

impl Fetching {
    fn length(&self) -> usize {
        // It was checked to be one.
        (self.range.end - self.range.start) as usize
    }

    /// Bytes to wait for; none at the end.
    fn waits_for(&self, pace: &Pace) -> Option<usize> {
        let left = self.length() - self.bytes.len();
        (left > 0).then(|| left.min(pace.slice(Direction::Download)))
    }

    /// Reads as much as may pass: all at once while nothing is limited.
    fn step(&mut self, name: &str, pace: &Pace) -> Result<(), BackendError> {
        let length = self.length();
        let left = length - self.bytes.len();
        if left > 0 && self.paid == self.bytes.len() && pace.try_take(Direction::Download, left) {
            self.paid = length;
        }
        while self.bytes.len() < self.paid {
            let offset = self.range.start + self.bytes.len() as u64;
            let slice = self.paid - self.bytes.len();
            let read = if self.paid == length {
                // The system fills memory that was not cleared before.
                let read = rustix::io::pread(&self.fd, rustix::buffer::spare_capacity(&mut self.bytes), offset);
                // A vector may have more room than it was asked for.
                self.bytes.truncate(length);
                read
            } else {
                let mut bytes = Vec::with_capacity(slice);
                let read = rustix::io::pread(&self.fd, rustix::buffer::spare_capacity(&mut bytes), offset);
                bytes.truncate(slice);
                self.bytes.extend_from_slice(&bytes);
                read
            };
            match read {
                // Cut by somebody while we read: what its length promised is not there.
                Ok(0) => {
                    return Err(BackendError::Range {
                        name: name.into(),
                        end: self.range.end,
                    });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(map_errno("read", name, errno)),
            }
        }
        Ok(())
    }
}
