//! An image served by a `qemu-nbd` of our own, with our client on it.

use std::time::Duration;

use tokio::net::UnixStream;

use super::server::Server;
use super::{Node, QemuError};
use crate::blocking::blocking;
use crate::nbd::{NbdClient, NbdError, NbdOptions, NbdStream};

const PROGRAM: &str = "qemu-nbd";

/// The longest that opening an image may take: QEMU reads tables first.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that a request may take: a slow disk under a busy host, but not a dead one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest that closing may take: everything that is not on disk yet goes there.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(900);
/// How long a server whose connection broke may take to tell why.
const LAST_WORDS: Duration = Duration::from_secs(5);

const CONNECTIONS: usize = 2;

/// How an image is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// For reading, through the page cache.
    Read,
    /// For reading, past the page cache.
    ReadDirect,
    /// For reading and writing.
    Write,
    /// For filling a new image that nobody else sees yet. Formats ask for their tables to be on disk before data, which costs a multiple and helps nobody
    /// here: flushes are passed over, and whoever publishes the file syncs it first.
    Fill,
}

/// A served image.
#[derive(Debug)]
pub(crate) struct QemuExport {
    pub(crate) client: NbdClient,
    server: Server,
}

impl QemuExport {
    /// Starts a server for the image and connects to it.
    ///
    /// # Errors
    /// `NotInstalled`, `Start`, `Name`; `Failed` with what QEMU says of the image; `Nbd`.
    pub(crate) async fn open(node: &Node, access: Access) -> Result<Self, QemuError> {
        let read_only = matches!(access, Access::Read | Access::ReadDirect);
        let name = node.pseudo_name(read_only).ok_or(QemuError::Name)?;
        let cache = match access {
            Access::ReadDirect => "none",
            Access::Read | Access::Write => "writeback",
            Access::Fill => "unsafe",
        };
        let mut arguments = vec![format!("--shared={CONNECTIONS}"), format!("--cache={cache}")];
        if read_only {
            arguments.push("--read-only".to_owned());
        } else {
            arguments.push("--discard=unmap".to_owned());
        }
        arguments.extend(["--".to_owned(), name]);

        let (server, streams) = blocking(move || Server::start(arguments, CONNECTIONS)).await?;
        let streams = streams
            .into_iter()
            .map(|s| UnixStream::from_std(s).map(NbdStream::from));
        let streams = streams
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| QemuError::Start {
                program: PROGRAM,
                source,
            })?;
        let options = NbdOptions {
            connections: CONNECTIONS,
            timeout: REQUEST_TIMEOUT,
            handshake_timeout: OPEN_TIMEOUT,
            // QEMU then takes any offset and length and aligns them itself.
            block_sizes: false,
            ..NbdOptions::default()
        };
        match NbdClient::over(streams, &options).await {
            Ok(client) => Ok(Self { client, server }),
            Err(error) => Err(explain(&server, error).await),
        }
    }

    /// Finds out why a request failed: if the server has ended, its last words say more.
    pub(crate) async fn explain(&self, error: NbdError) -> QemuError {
        explain(&self.server, error).await
    }

    /// Hangs up and waits until the server has written everything and ended.
    ///
    /// # Errors
    /// `Failed` with what it said, if it did not end well; `TimedOut`.
    pub(crate) async fn close(&self) -> Result<(), QemuError> {
        self.client.disconnect().await;
        match self.server.ended(CLOSE_TIMEOUT).await {
            Some(ended) if ended.is_success => Ok(()),
            Some(ended) => Err(QemuError::Failed {
                program: PROGRAM,
                message: ended.message,
            }),
            None => Err(QemuError::TimedOut {
                program: PROGRAM,
                what: "end",
                after: CLOSE_TIMEOUT,
            }),
        }
    }

    /// Ends the server by force, and waits until it is gone: as long as the system writes for it.
    pub(crate) async fn kill(&self) {
        self.server.kill();
        while self.server.ended(CLOSE_TIMEOUT).await.is_none() {
            tracing::warn!("qemu-nbd was killed and has not ended: its disk hangs");
        }
    }
}

async fn explain(server: &Server, error: NbdError) -> QemuError {
    if matches!(error, NbdError::Disconnected { .. })
        && let Some(ended) = server.ended(LAST_WORDS).await
    {
        return QemuError::Failed {
            program: PROGRAM,
            message: ended.message,
        };
    }
    QemuError::Nbd { source: error }
}
