//! How far an attempt is, and how it is told to stop.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;
use tresor_storage::verify;

use super::log::Log;
use super::port::{LeaseId, LeaseProgress};
use crate::progress::{Progress, ProgressSnapshot};

/// What an attempt does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// An earlier attempt in this process is to end first.
    Waiting,
    /// The vault's header and keys are read.
    Opening,
    /// The index is opened, or made anew.
    Indexing,
    /// Disks are read and stored.
    Reading,
    /// Disks are written.
    Writing,
    /// Objects are checked.
    Verifying,
    /// The vault is made or claimed.
    Claiming,
    /// A catalogue is put.
    Cataloguing,
    /// The coordinator is told.
    Reporting,
}

impl Stage {
    const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Opening,
        Self::Indexing,
        Self::Reading,
        Self::Writing,
        Self::Verifying,
        Self::Claiming,
        Self::Cataloguing,
        Self::Reporting,
    ];

    /// Its word.
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Opening => "opening",
            Self::Indexing => "indexing",
            Self::Reading => "reading",
            Self::Writing => "writing",
            Self::Verifying => "verifying",
            Self::Claiming => "claiming",
            Self::Cataloguing => "cataloguing",
            Self::Reporting => "reporting",
        }
    }
}

/// What of an attempt is counted.
#[derive(Debug)]
enum Part {
    Pipeline(Arc<Progress>),
    Verify(Arc<verify::Progress>),
}

/// What one or many attempts did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// In pipelines.
    pub(crate) pipeline: ProgressSnapshot,
    /// Bytes that verifies went through.
    pub(crate) bytes_verified: u64,
    /// Places where they found something.
    pub(crate) findings: u64,
}

impl Totals {
    /// Adds what another one did.
    pub(crate) fn add(&mut self, more: &Self) {
        self.pipeline.add(&more.pipeline);
        self.bytes_verified += more.bytes_verified;
        self.findings += more.findings;
    }
}

/// How far an attempt is: raised by its tasks, read for beats.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    stage: AtomicU8,
    /// Known before the parts know theirs; 0: the sum of the parts.
    total: AtomicU64,
    parts: Mutex<Vec<Part>>,
    log: Arc<Log>,
}

impl Activity {
    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stage.
    pub(crate) fn enter(&self, stage: Stage) {
        let at = Stage::ALL.iter().position(|other| *other == stage).unwrap_or_default();
        self.stage
            .store(u8::try_from(at).unwrap_or_default(), Ordering::Relaxed);
        self.log.enter(stage.word());
    }

    /// What is logged of it.
    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Sets the bytes of all parts, those that have not begun among them.
    pub(crate) fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Counts one more disk, or all disks of a backup.
    pub(crate) fn count(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.parts().push(Part::Pipeline(Arc::clone(&progress)));
        progress
    }

    /// Counts what is verified.
    pub(crate) fn count_verify(&self) -> Arc<verify::Progress> {
        let progress = Arc::new(verify::Progress::default());
        self.parts().push(Part::Verify(Arc::clone(&progress)));
        progress
    }

    /// The word of the stage that it is in.
    pub(crate) fn stage_word(&self) -> &'static str {
        Stage::ALL[usize::from(self.stage.load(Ordering::Relaxed)) % Stage::ALL.len()].word()
    }

    /// All that was counted, of all parts.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for part in self.parts().iter() {
            match part {
                Part::Pipeline(progress) => totals.pipeline.add(&progress.snapshot()),
                Part::Verify(progress) => {
                    totals.bytes_verified += progress.bytes_all();
                    totals.findings += progress.snapshot().findings;
                }
            }
        }
        totals
    }

    /// As a beat says it.
    pub(crate) fn report(&self, id: LeaseId) -> LeaseProgress {
        let mut report = LeaseProgress {
            id,
            stage: self.stage_word(),
            bytes_done: 0,
            bytes_total: 0,
            bytes_stored: 0,
        };
        for part in self.parts().iter() {
            let (done, total, stored) = match part {
                Part::Pipeline(progress) => {
                    let now = progress.snapshot();
                    (now.bytes_done, now.bytes_total, now.bytes_stored)
                }
                Part::Verify(progress) => {
                    let now = progress.snapshot();
                    (now.bytes_done, now.bytes_total, 0)
                }
            };
            report.bytes_done += done;
            report.bytes_total += total;
            report.bytes_stored += stored;
        }
        let known = self.total.load(Ordering::Relaxed);
        if known > 0 {
            report.bytes_total = known;
        }
        report
    }
}

/// Why an attempt was stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// Nobody wants the job any more.
    Cancelled,
    /// The coordinator says that the lease is over.
    NotHeld,
    /// The lease is over by the holder's own clock, and the job must not go on without one.
    Expired,
    /// The worker stops.
    Stopping,
    /// A later attempt of the same job has come to this worker.
    Superseded,
}

/// Stops an attempt, once, and remembers why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    inner: Arc<StopInner>,
}

#[derive(Debug, Default)]
struct StopInner {
    token: CancellationToken,
    cause: OnceLock<StopCause>,
    deciding: AtomicBool,
}

impl Stop {
    /// Stops the attempt, unless its report is on the way: then its answer says what is so, and a beat that says "not held" may only mean that the
    /// report was taken.
    pub(crate) fn stop(&self, cause: StopCause) {
        if self.inner.deciding.load(Ordering::SeqCst) {
            return;
        }
        if self.inner.cause.set(cause).is_ok() {
            self.inner.token.cancel();
        }
    }

    /// The report is sent from here on.
    pub(crate) fn begin_deciding(&self) {
        self.inner.deciding.store(true, Ordering::SeqCst);
    }

    /// The report was answered, and the attempt goes on to its end.
    pub(crate) fn end_deciding(&self) {
        self.inner.deciding.store(false, Ordering::SeqCst);
    }

    /// Whether the report is on the way.
    pub(crate) fn is_deciding(&self) -> bool {
        self.inner.deciding.load(Ordering::SeqCst)
    }

    /// Why it was stopped, if it was.
    pub(crate) fn cause(&self) -> Option<StopCause> {
        self.inner.cause.get().copied()
    }

    /// For pipelines.
    pub(crate) fn token(&self) -> CancellationToken {
        self.inner.token.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tresor_proto::ids::{Epoch, JobId};

    const ID: LeaseId = LeaseId {
        job: JobId(1),
        epoch: Epoch(2),
    };

    #[test]
    fn disks_of_an_attempt_are_counted_together() {
        let activity = Activity::default();
        assert_eq!(activity.report(ID).stage, "waiting");
        activity.enter(Stage::Writing);
        activity.set_total(100);
        let (first, second) = (activity.count(), activity.count());
        first.set_total(60);
        first.add_done(60);
        second.add_done(5);
        second.add_stored(7);
        let report = activity.report(ID);
        assert_eq!(report.stage, "writing");
        assert_eq!(
            (report.bytes_done, report.bytes_total, report.bytes_stored),
            (65, 100, 7)
        );
    }

    #[test]
    fn an_attempt_is_stopped_once_and_not_while_its_report_is_on_the_way() {
        let stop = Stop::default();
        stop.begin_deciding();
        stop.stop(StopCause::NotHeld);
        assert_eq!((stop.cause(), stop.token().is_cancelled()), (None, false));
        stop.end_deciding();
        stop.stop(StopCause::Cancelled);
        stop.stop(StopCause::NotHeld);
        assert_eq!(
            (stop.cause(), stop.token().is_cancelled()),
            (Some(StopCause::Cancelled), true)
        );
    }
}
