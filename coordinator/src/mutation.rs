//! Rules that tests take out of the production code, one at a time, to show that their checks would find it. Only compiled into tests.

use std::cell::Cell;

use crate::store::faulty::Lie;

/// A rule that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The disk, or what writes to it, breaks a promise.
    Disk(Lie),
    /// A report is taken whatever its epoch.
    StaleEpoch,
    /// A lease gets the session number of the attempt before.
    SessionReused,
    /// A session that was aborted may commit.
    AbortedCommits,
    /// An occurrence of a schedule becomes a job whenever somebody says so.
    OccurrenceTwice,
    /// A commit counts whatever became of the slots that it rests on.
    MovedSlots,
    /// A slot counts as kept whatever the worker says of its database.
    Lineage,
    /// A read is answered without asking a majority.
    UnconfirmedReads,
}

thread_local! {
    static MISSING: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Whether a rule is missing in this thread.
pub(crate) fn mutated(mutation: Mutation) -> bool {
    MISSING.get() == Some(mutation)
}

/// The promise that disks break in this thread.
pub(crate) fn disk_lie() -> Option<Lie> {
    match MISSING.get() {
        Some(Mutation::Disk(lie)) => Some(lie),
        _ => None,
    }
}

/// Runs something without a rule.
pub(crate) fn with_mutation<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            MISSING.set(None);
        }
    }
    let _restore = Restore;
    MISSING.set(Some(mutation));
    run()
}
