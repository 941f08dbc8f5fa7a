//! The same services on a Unix socket, for other commands of the user whose node runs on this machine. The file system says who may connect:
//! the socket has mode 0600, in a folder of mode 0700; the kernel says who did.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::Channel;

use super::accept::ACCEPT_PAUSE;
use super::connection::Connection;
use super::{files, http2};

/// Longest path of a socket, bytes (`unix(7)`: 108 with the final zero).
const PATH_BYTES_MAX: usize = 107;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The path does not fit.
    #[error("{path} is longer than {PATH_BYTES_MAX} bytes, which is all that a socket's path may have")]
    TooLong {
        /// Where it was to be.
        path: PathBuf,
    },
    /// Others may enter the folder, or it is another user's.
    #[error("others may enter {folder} (mode {mode:o}, owner {owner}): a socket there would be theirs too")]
    Exposed {
        /// The folder.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// A process answers there.
    #[error("another process listens on {path}")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{path} is no socket")]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{what} {path}")]
    File {
        /// `listen on`, …
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::File { what, path, source }
}

/// Listens on a socket at `path`, whose folder is made if need be. A socket that nobody listens on any more is replaced; the caller holds the
/// lock of its home, so that no two processes find the same one dead.
///
/// # Errors
/// By cause.
pub fn listen(path: &Path) -> Result<LocalIncoming, LocalError> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(LocalError::TooLong { path: path.to_owned() });
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    files::make_folder(folder).map_err(|(path, source)| LocalError::File {
        what: "make the folder",
        path,
        source,
    })?;
    remove_stale(path)?;
    let found = std::fs::metadata(folder).map_err(file("look at", folder))?;
    let mode = found.permissions().mode() & 0o777;
    let exposed = || LocalError::Exposed {
        folder: folder.to_owned(),
        mode,
        owner: found.uid(),
    };
    if mode & 0o077 != 0 {
        return Err(exposed());
    }
    let listener = UnixListener::bind(path).map_err(file("listen on", path))?;
    // Until here only the folder protects it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(file("protect", path))?;
    let owner = std::fs::symlink_metadata(path).map_err(file("look at", path))?.uid();
    if owner != found.uid() {
        // We may enter it as root, but its owner decides what lies in it.
        std::fs::remove_file(path).map_err(file("remove", path))?;
        return Err(exposed());
    }
    Ok(LocalIncoming {
        listener,
        owner,
        pause: None,
    })
}

fn remove_stale(path: &Path) -> Result<(), LocalError> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(file("look at", path)(e)),
        Ok(found) if !found.file_type().is_socket() => return Err(LocalError::NoSocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(LocalError::InUse { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(file("remove", path))
        }
        Err(e) => Err(file("try", path)(e)),
    }
}

/// The connections of a Unix socket, for `serve_with_incoming`. It never ends and never fails.
pub struct LocalIncoming {
    listener: UnixListener,
    owner: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for LocalIncoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Connection>>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            let accepted = ready!(this.listener.poll_accept(cx));
            match accepted.and_then(|(stream, _)| stream.peer_cred().map(|cred| (stream, cred.uid()))) {
                // The file system lets in nobody else; should that ever fail, this does not.
                Ok((stream, uid)) if uid == this.owner || uid == 0 => {
                    return Poll::Ready(Some(Ok(Connection::unix(stream, uid))));
                }
                Ok((_, uid)) => tracing::warn!(uid, "another user connected to the local socket: refused"),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a local connection");
                    this.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl fmt::Debug for LocalIncoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalIncoming").field(&self.listener).finish()
    }
}

/// A channel to the socket at `path`, connected when it is first used.
pub fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    http2::endpoint("http://local").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

/// Whether a process listens at `path`.
pub fn is_served(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::tls::PeerInfo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_stream::StreamExt as _;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_says_who_connects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/socket");
        assert!(!is_served(&path));
        let mut incoming = listen(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut connection = incoming.next().await.unwrap().unwrap();
        let uid = std::fs::metadata(dir.path()).unwrap().uid();
        assert_eq!(*connection.peer(), PeerInfo::Local { uid });
        let mut hello = [0; 5];
        connection.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
    }

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/socket");
        let first = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(LocalError::InUse { .. })));
        drop(first);
        assert!(path.exists());
        let second = listen(&path).unwrap();
        assert!(is_served(&path));
        drop(second);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path), Err(LocalError::NoSocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn no_socket_is_made_where_others_may_enter_or_the_name_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("open");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(
            listen(&folder.join("socket")),
            Err(LocalError::Exposed { mode: 0o750, .. })
        ));
        assert!(!folder.join("socket").exists());
        assert!(matches!(
            listen(&dir.path().join("x".repeat(120))),
            Err(LocalError::TooLong { .. })
        ));
    }
}
