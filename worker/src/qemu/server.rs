//! A `qemu-nbd` of our own.
//!
//! It must never outlive us, not even after `kill -9`, and nobody else may talk to it:
//! - The socket is made, and our connections to it are queued, before the program starts; it gets the socket as systemd would hand it over. By then the
//!   socket's name is gone again, so there is no moment at which anybody else could connect and nothing to clean up later.
//! - It runs without `--persistent`: it ends with its last client.
//! - Until a client has shaken hands that rule does not hold, so the child asks the kernel (`setpriv --pdeathsig`) to be killed with the thread that started
//!   it. That thread therefore does nothing else and stays until the child has ended. A child whose parent died before it could ask sees another parent and
//!   ends by itself.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::watch;

use super::QemuError;
use super::tool::{self, SAID_MAX};

const PROGRAM: &str = "qemu-nbd";

/// Ends if we are gone; else becomes the program, with the socket on standard input as descriptor 3.
const START: &str =
    r#"test "$PPID" = "$1" || exit 0; shift; exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;

/// How it ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) is_success: bool,
    /// What it said last, or its status.
    pub(super) message: String,
}

/// A running `qemu-nbd`. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Server {
    process: OwnedFd,
    ended: watch::Receiver<Option<Ended>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts it with `arguments` and makes `connections` to it. Blocks for some milliseconds.
    ///
    /// # Errors
    /// `NotInstalled`, `Start`. What is wrong with the arguments or the image shows when the connections close: see [`ended`](Self::ended).
    pub(super) fn start(arguments: Vec<String>, connections: usize) -> Result<(Self, Vec<UnixStream>), QemuError> {
        let failed = |source| QemuError::Start {
            program: PROGRAM,
            source,
        };
        let file = tool::find(PROGRAM).ok_or(QemuError::NotInstalled { program: PROGRAM })?;
        let (listener, streams) = private_socket(connections).map_err(failed)?;

        let mut command = match tool::find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--", "/bin/sh"]);
                command
            }
            None => Command::new("/bin/sh"),
        };
        command
            .args(["-c", START, "sh", &std::process::id().to_string()])
            .arg(file)
            .args(arguments);
        command
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env("LC_ALL", "C");

        let (started_in, started) = std::sync::mpsc::sync_channel(1);
        let (ended_in, ended) = watch::channel(None);
        std::thread::Builder::new()
            .name("qemu-nbd".to_owned())
            .spawn(move || run(command, &started_in, &ended_in))
            .map_err(failed)?;
        let process = started
            .recv()
            .map_err(|_| failed(io::ErrorKind::Other.into()))?
            .map_err(failed)?;
        Ok((Self { process, ended }, streams))
    }

    /// How it ended, if it does within the time.
    pub(super) async fn ended(&self, within: Duration) -> Option<Ended> {
        let mut ended = self.ended.clone();
        // The sender goes only after it has told the end.
        let waited = tokio::time::timeout(within, ended.wait_for(Option::is_some))
            .await
            .ok()?;
        waited.ok().and_then(|ended| ended.clone())
    }

    /// Ends it by force. It is no error if it ended before.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
    }
}

type Started = io::Result<OwnedFd>;

/// The life of the child, on a thread of its own.
fn run(mut command: Command, started: &std::sync::mpsc::SyncSender<Started>, ended: &watch::Sender<Option<Ended>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    // Our end of the socket: connections must break when the child has gone.
    drop(command);
    let opened = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let unstoppable = opened.is_err();
    if started.send(opened.map_err(io::Error::from)).is_err() || unstoppable {
        let _ = child.kill();
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        read_last(stderr, &mut said);
    }
    let end = match child.wait() {
        Ok(status) => Ended {
            is_success: status.success(),
            message: tool::message(PROGRAM, &said, &format!("it ended ({status})")),
        },
        Err(error) => Ended {
            is_success: false,
            message: error.to_string(),
        },
    };
    ended.send_replace(Some(end));
}

/// Reads to the end and keeps the last part.
fn read_last(mut from: impl Read, said: &mut Vec<u8>) {
    let mut piece = [0; 4096];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                said.extend_from_slice(&piece[..count]);
                if said.len() > 2 * SAID_MAX {
                    said.drain(..said.len() - SAID_MAX);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// A listening socket without a name, and connections that wait in its queue.
fn private_socket(connections: usize) -> io::Result<(UnixListener, Vec<UnixStream>)> {
    let folder = PrivateFolder::new()?;
    let name = folder.0.join("nbd");
    let listener = UnixListener::bind(&name)?;
    let streams = (0..connections)
        .map(|_| UnixStream::connect(&name))
        .collect::<io::Result<Vec<_>>>()?;
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    Ok((listener, streams))
}

/// Names of sockets have 107 bytes at most.
const SOCKET_FOLDER_MAX: usize = 60;

/// A folder that only we may enter; gone when dropped.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn new() -> io::Result<Self> {
        let temporary = std::env::temp_dir();
        let parent = if temporary.as_os_str().len() > SOCKET_FOLDER_MAX {
            Path::new("/tmp")
        } else {
            &temporary
        };
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = parent.join(format!("tresor-{:016x}", u64::from_ne_bytes(random)));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // An empty folder of ours in a temporary place is all that could stay.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
