//! raft-rs logs to slog; its lines go to `tracing`.

use slog::{Drain, Level, Logger, OwnedKVList, Record, o};

/// Where raft-rs logs to.
pub(super) fn logger() -> Logger {
    Logger::root(ToTracing, o!())
}

/// Hands lines over one level lower than raft-rs means them: what it calls information, like every vote, is a detail of ours, and a change of
/// roles is reported by who drives the core.
struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        // The values are left out: they are formatted at a cost, and raft-rs puts what matters into the message.
        let message = record.msg();
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "tresor::raft", "{message}"),
            Level::Warning => tracing::warn!(target: "tresor::raft", "{message}"),
            Level::Info => tracing::debug!(target: "tresor::raft", "{message}"),
            Level::Debug | Level::Trace => tracing::trace!(target: "tresor::raft", "{message}"),
        }
        Ok(())
    }
}
