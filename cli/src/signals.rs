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

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// SIGINT: a person at the terminal.
    Interrupt,
    /// SIGTERM: a program that ends us.
    Terminate,
}

/// Both signals, one after the other. From [`Self::listen`] on they no longer end the process.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system does not let us.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let open = |kind| {
            signal(kind).map_err(|source| CliError::File {
                doing: "listen for",
                path: "signals".into(),
                source,
            })
        };
        Ok(Self {
            interrupt: open(SignalKind::interrupt())?,
            terminate: open(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Came {
        tokio::select! {
            _ = self.interrupt.recv() => Came::Interrupt,
            _ = self.terminate.recv() => Came::Terminate,
        }
    }
}

/// Begins to listen; the first signal cancels the token.
///
/// # Errors
/// When the system does not let us listen.
pub(crate) fn listen(screen: &Screen, cancel: CancellationToken) -> Result<Signals, CliError> {
    let signals = Interrupts::listen()?;
    let screen = screen.clone();
    Ok(Signals {
        task: tokio::spawn(wait(signals, screen, cancel)),
    })
}

/// What is said to the first signal.
pub(crate) const STOPPING: &str = "stopping; what was stored is kept for the next attempt (again to stop at once)";

async fn wait(mut signals: Interrupts, screen: Screen, cancel: CancellationToken) {
    signals.next().await;
    screen.note(STOPPING);
    cancel.cancel();
    end_at_next(signals).await;
}

/// Ends the process at the next signal.
pub(crate) async fn end_at_next(mut signals: Interrupts) {
    signals.next().await;
    #[expect(
        clippy::disallowed_methods,
        reason = "asked for twice: whatever hangs in an orderly end is not waited for"
    )]
    std::process::exit(i32::from(Code::Interrupted.number()));
}
