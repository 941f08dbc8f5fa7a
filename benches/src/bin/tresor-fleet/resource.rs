//! What serves one after another, and how long it was busy.

/// A resource: a disk, all cores of a worker, a link, an owner of slots, a store, a log. What many of its parts do at once is taken as one part that is as fast
/// as all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resource {
    free_at: f64,
    busy: f64,
}

impl Resource {
    /// Serves somebody who comes at `now`, for so many seconds; returns when that is done.
    pub(crate) fn serve(&mut self, now: f64, seconds: f64) -> f64 {
        self.busy += seconds;
        self.free_at = self.free_at.max(now) + seconds;
        self.free_at
    }

    /// How long it was busy, seconds.
    pub(crate) fn busy(&self) -> f64 {
        self.busy
    }
}
