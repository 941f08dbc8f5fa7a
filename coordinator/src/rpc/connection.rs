//! Connections that can be cut: what is still open when a server has waited long enough is closed, whoever has not read to the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A stream that fails from some moment on.
pub(crate) struct Cuttable<S> {
    stream: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    end: Option<Pin<Box<Sleep>>>,
    /// Counts against a listener's limit for as long as this lives.
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Cuttable<S> {
    /// Fails once `cut` is cancelled.
    pub(crate) fn new(stream: S, cut: CancellationToken) -> Self {
        Self {
            stream,
            cut: Box::pin(cut.cancelled_owned()),
            end: None,
            _permit: None,
        }
    }

    /// Fails also after `time`, and gives back `permit` when it is dropped.
    pub(crate) fn limited(self, time: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self {
            end: Some(Box::pin(tokio::time::sleep(time))),
            _permit: Some(permit),
            ..self
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let is_over = self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if self.cut.as_mut().poll(cx).is_ready() || is_over {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server closes this connection",
            ));
        }
        Ok(())
    }
}

impl<S: Connected> Connected for Cuttable<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_when_its_connection_is_cut() {
        let (mut far, near) = tokio::io::duplex(64);
        let cut = CancellationToken::new();
        let mut near = Cuttable::new(near, cut.clone());
        far.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        near.read_exact(&mut hello).await.unwrap();
        let waiting = tokio::spawn(async move { near.read(&mut [0; 5]).await });
        tokio::task::yield_now().await;
        cut.cancel();
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn nothing_is_written_after_the_cut() {
        let (mut far, near) = tokio::io::duplex(64);
        let cut = CancellationToken::new();
        let mut near = Cuttable::new(near, cut.clone());
        near.write_all(b"before").await.unwrap();
        cut.cancel();
        assert!(near.write_all(b"after").await.is_err());
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"before");
    }

    #[tokio::test]
    async fn a_limited_connection_ends_by_itself_and_makes_room() {
        let (_far, near) = tokio::io::duplex(64);
        let room = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&room).try_acquire_owned().unwrap();
        let mut near = Cuttable::new(near, CancellationToken::new()).limited(Duration::from_millis(10), permit);
        assert!(near.read(&mut [0; 5]).await.is_err());
        assert_eq!(room.available_permits(), 0);
        drop(near);
        assert_eq!(room.available_permits(), 1);
    }
}
