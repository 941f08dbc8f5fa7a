//! Who writes: a lock of the kernel, and in the locked file who holds it.
//!
//! The kernel lets go of the lock when its holder ends, however it ends. So what the file says counts only while the lock is held, and a file
//! left behind by a killed process stops nobody. The file itself is never removed: somebody may be waiting on it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::files::{read, trouble};
use crate::control::ControlError;

/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the new holder may take from locking to writing down who it is.
const INTRODUCTION: Duration = Duration::from_millis(400);

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// What it runs: the program's verb, without arguments.
    pub command: String,
    /// Its host.
    pub host: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl Holder {
    /// This process.
    pub fn this(command: &str) -> Self {
        Self {
            pid: std::process::id(),
            command: command.to_owned(),
            host: super::host_name(),
            since: super::now(),
        }
    }

    fn is_gone(&self) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) else {
            return true;
        };
        self.host == super::host_name()
            && matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            pid,
            command,
            host,
            since,
        } = self;
        write!(f, "process {pid} (`tresor {command}`) on {host} since {since}")
    }
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at `path`, waiting for at most `patience`.
    ///
    /// # Errors
    /// [`ControlError::Busy`] with the holder; others by cause.
    pub fn take(path: &Path, holder: &Holder, patience: Duration) -> Result<Self, ControlError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| trouble("could not open the lock", path, e))?;
        let begin = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(trouble("could not lock", path, io::Error::from(e))),
            }
            let holder = read(path)
                .ok()
                .flatten()
                .and_then(|text| serde_json::from_str::<Holder>(&text).ok());
            // The holder was locked out of nothing yet, but may not have said who it is.
            let known = holder.filter(|h| !h.is_gone());
            let waited = begin.elapsed();
            if waited >= patience && (known.is_some() || waited >= INTRODUCTION) {
                let holder = known.map_or_else(|| String::from("another process"), |h| h.to_string());
                return Err(ControlError::Busy { holder });
            }
            std::thread::sleep(PAUSE);
        }
        let text = serde_json::to_string(holder).expect("a holder is plain text and a number");
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())
        };
        // Not synced: after a loss of power nobody holds the lock, whatever the file says.
        write(&mut file).map_err(|e| trouble("could not write", path, e))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // For whoever looks into the file; the lock itself goes with the file descriptor.
        let _ = self.file.set_len(0);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn holder(command: &str) -> Holder {
        Holder::this(command)
    }

    #[test]
    fn a_second_taker_is_refused_with_the_name_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, &holder("backup"), Duration::ZERO).unwrap();
        let refused = Lock::take(&path, &holder("vault"), Duration::ZERO).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains(&format!("process {} (`tresor backup`)", std::process::id())),
            "{text}"
        );
        assert!(text.contains(&super::super::host_name()), "{text}");
        drop(first);
        Lock::take(&path, &holder("vault"), Duration::ZERO).unwrap();
    }

    #[test]
    fn what_a_killed_holder_left_behind_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(
            &path,
            r#"{"pid":1,"command":"backup","host":"h","since":"2026-11-22T03:00:00Z"}"#,
        )
        .unwrap();
        Lock::take(&path, &holder("backup"), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_holder_that_did_not_say_who_it_is_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, &holder("backup"), Duration::ZERO).unwrap();
        std::fs::write(&path, "").unwrap();
        let refused = Lock::take(&path, &holder("backup"), Duration::ZERO).unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(first);
    }

    #[test]
    fn a_lock_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, &holder("backup"), Duration::ZERO).unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, &holder("vault"), Duration::from_secs(20)).map(drop)
        });
        std::thread::sleep(PAUSE * 3);
        assert!(!waiting.is_finished());
        drop(first);
        waiting.join().unwrap().unwrap();
    }
}
