//! One stream to one member.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tresor_proto::v1::RaftMessage;
use tresor_proto::v1::peer_client::PeerClient;

use crate::state::entry::ENTRY_FORM;

/// Messages handed to the connection and not yet sent.
const IN_FLIGHT_MAX: usize = 256;
/// The first pause after a broken stream: below an election timeout.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: a member that comes back is found within it.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A stream that lasted so long was good: the next pause is the shortest again.
const GOOD: Duration = Duration::from_secs(5);

/// Sends what comes through `waiting` until `stop`; between two streams everything that comes is dropped.
pub(super) async fn run(
    dial: impl Fn() -> Option<Channel> + Send,
    mut waiting: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let begun = Instant::now();
        if let Some(channel) = dial() {
            let (stream, messages) = mpsc::channel(IN_FLIGHT_MAX);
            let mut client = PeerClient::new(channel);
            let mut call = Box::pin(client.messages(ReceiverStream::new(messages)));
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    ended = &mut call => {
                        if let Err(status) = ended {
                            tracing::debug!(code = ?status.code(), message = status.message(), "a stream to a coordinator broke");
                        }
                        break;
                    }
                    message = waiting.recv() => {
                        let Some(message) = message else { return };
                        let wall_ms = jiff::Timestamp::now().as_millisecond();
                        let message = RaftMessage { message, wall_ms, form: u32::from(ENTRY_FORM) };
                        // Full: the other side takes them slower than they come. Raft sends again.
                        let _ = stream.try_send(message);
                    }
                }
            }
        }
        if begun.elapsed() >= GOOD {
            pause = PAUSE_MIN;
        }
        let rest = tokio::time::sleep(pause);
        tokio::pin!(rest);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut rest => break,
                message = waiting.recv() => if message.is_none() { return },
            }
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
