//! Signals: the first asks the job to stop cleanly, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::CliError;
use crate::exit::Code;
use crate::screen::Screen;

/// Listens for SIGINT and SIGTERM while it lives. Before, both end the process as usual: a prompt that waits is nothing to clean up.
pub(crate) struct Signals {
    task: JoinHandle<()>,
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins to listen; the first signal cancels the token.
///
/// # Errors
/// When the system does not let us listen.
pub(crate) fn listen(screen: &Screen, cancel: CancellationToken) -> Result<Signals, CliError> {
    let open = |kind| {
        signal(kind).map_err(|source| CliError::File {
            doing: "listen for",
            path: "signals".into(),
            source,
        })
    };
    let (interrupt, terminate) = (open(SignalKind::interrupt())?, open(SignalKind::terminate())?);
    let screen = screen.clone();
    Ok(Signals {
        task: tokio::spawn(wait(interrupt, terminate, screen, cancel)),
    })
}

async fn wait(mut interrupt: Signal, mut terminate: Signal, screen: Screen, cancel: CancellationToken) {
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next().await;
    screen.note("stopping; what was stored is kept for the next attempt (again to stop at once)");
    cancel.cancel();
    next().await;
    #[expect(
        clippy::disallowed_methods,
        reason = "asked for twice: whatever hangs in an orderly end is not waited for"
    )]
    std::process::exit(i32::from(Code::Interrupted.number()));
}
