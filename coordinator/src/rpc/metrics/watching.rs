//! What a coordinator does for its numbers between scrapes, and how it answers one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Around, Counting, Fleet, Metrics, Room, Seen};
use crate::node::handle::Standing;
use crate::rpc::context::Services;
use crate::rpc::http::Watched;

/// Between two counts of all items at least: nobody scrapes more often than every few seconds.
const EVERY: Duration = Duration::from_secs(5);
/// A count may have this share of the time at most, as one part in so many: of a million points that take a third of a second, one count every seven.
const SHARE: u32 = 20;
/// Between two looks at the folder.
const FOLDER_EVERY: Duration = Duration::from_secs(15);
/// How long the node has to say how it stands.
const STANDING_TIME: Duration = Duration::from_secs(2);
/// Entries that may be committed and not applied: a few moments of a busy cluster. More is a member that catches up.
const BEHIND_MAX: u64 = 10_000;
/// Files of the folder that are looked at: its database has some hundred.
const FILES_MAX: usize = 10_000;

/// A coordinator as machines that watch see it.
#[derive(Clone)]
pub(crate) struct Watching {
    pub(crate) services: Services,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) around: Around,
    /// Numbers of others in this process, in the same format.
    pub(crate) beside: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

/// Whether a member is of use to who asks it.
pub(crate) fn is_ready(standing: &Standing, has_leader: bool) -> Result<(), &'static str> {
    if !has_leader {
        return Err("no leader is known");
    }
    if standing.commit.saturating_sub(standing.applied) > BEHIND_MAX {
        return Err("this coordinator catches up with the log");
    }
    Ok(())
}

impl Watched for Watching {
    fn is_alive(&self) -> Result<(), String> {
        // Who answers at all lives: the node's thread ends the process when it cannot go on.
        Ok(())
    }

    fn is_ready(&self) -> BoxFuture<'_, Result<(), String>> {
        async {
            let has_leader = self.services.handle.leadership().borrow().leader.is_some();
            let standing = self.standing().await?;
            is_ready(&standing, has_leader).map_err(str::to_owned)
        }
        .boxed()
    }

    fn metrics(&self) -> BoxFuture<'_, Result<String, String>> {
        async {
            let standing = self.standing().await?;
            let lead = *self.services.handle.leadership().borrow();
            let (presence, now_ms) = (self.services.presence(), self.services.clock.monotonic_ms());
            let mut text = self.services.handle.read(|state| {
                let seen = Seen {
                    standing: &standing,
                    is_leader: lead.is_me,
                    has_leader: lead.leader.is_some(),
                    presence: &presence,
                    now: self.services.now(state),
                    now_ms,
                    around: &self.around,
                };
                self.metrics.text(state, &seen)
            });
            if let Some(beside) = &self.beside {
                text += &beside();
            }
            Ok(text)
        }
        .boxed()
    }
}

impl Watching {
    async fn standing(&self) -> Result<Standing, String> {
        match tokio::time::timeout(STANDING_TIME, self.services.handle.standing()).await {
            Ok(Ok(standing)) => Ok(standing),
            Ok(Err(_)) => Err(String::from("the coordinator stops")),
            Err(_) => Err(String::from("the coordinator does not say how it stands")),
        }
    }

    /// Counts what is counted between scrapes, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = async { tokio::join!(self.follow_lead(), self.count(), self.look_at_folder()); } => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow_lead(&self) {
        let mut leadership = self.services.handle.leadership();
        let mut leader = leadership.borrow_and_update().leader;
        while leadership.changed().await.is_ok() {
            let now = leadership.borrow_and_update().leader;
            if now != leader {
                leader = now;
                self.metrics.leader_changed();
            }
        }
    }

    async fn count(&self) {
        let mut leadership = self.services.handle.leadership();
        loop {
            let leads = leadership.borrow_and_update().is_me;
            self.services
                .handle
                .read(|state| self.metrics.look_at_jobs(state, leads));
            let took = if leads {
                self.count_fleet().await
            } else {
                Duration::ZERO
            };
            if !leads {
                self.metrics.note_fleet(None);
            }
            let pause = EVERY.max(took * SHARE);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = leadership.changed() => if changed.is_err() {
                    // The node has ended, and so does all of this soon.
                    return std::future::pending().await;
                },
            }
        }
    }

    /// Counts all items; answers how long the state was held for it.
    async fn count_fleet(&self) -> Duration {
        let services = self.services.clone();
        let shows_items = self.metrics.shows_items();
        let counted = tokio::task::spawn_blocking(move || count(&services, shows_items)).await;
        match counted {
            Ok(Some((fleet, took))) => {
                self.metrics.note_fleet(Some(fleet));
                took
            }
            // It does not lead any more.
            Ok(None) => {
                self.metrics.note_fleet(None);
                Duration::ZERO
            }
            Err(error) => {
                tracing::error!(%error, "items could not be counted for metrics");
                EVERY
            }
        }
    }

    async fn look_at_folder(&self) {
        let Some(folder) = self.around.folder.clone() else {
            return std::future::pending().await;
        };
        loop {
            let at = folder.clone();
            let room = tokio::task::spawn_blocking(move || room(&at)).await;
            self.metrics.note_room(room.ok().flatten());
            tokio::time::sleep(FOLDER_EVERY).await;
        }
    }
}

fn count(services: &Services, shows_items: bool) -> Option<(Fleet, Duration)> {
    let plans = services.plans();
    let leadership = services.handle.leadership();
    let mut held = Duration::ZERO;
    let mut counting = services
        .handle
        .read(|state| Counting::begin(state, &plans, services.now(state), shows_items));
    loop {
        if !leadership.borrow().is_me {
            return None;
        }
        let began = Instant::now();
        let whole = services.handle.read(|state| counting.step(state));
        let took = began.elapsed();
        held += took;
        if let Some(fleet) = whole {
            return Some((fleet, held));
        }
        // Whoever waits for the state has it first, and for longer.
        std::thread::sleep(took * 4);
    }
}

/// What a folder takes, and what is left where it is.
fn room(folder: &Path) -> Option<Room> {
    let seen = rustix::fs::statvfs(folder).ok()?;
    let (mut used, mut files) = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            files += 1;
            if files > FILES_MAX {
                break;
            }
            // What goes meanwhile is not counted.
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => used += found.len(),
                Err(_) => {}
            }
        }
    }
    Some(Room {
        free: seen.f_bavail.saturating_mul(seen.f_frsize),
        size: seen.f_blocks.saturating_mul(seen.f_frsize),
        used,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_what_its_files_have() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("raft")).unwrap();
        std::fs::write(folder.path().join("raft/a"), [0; 1000]).unwrap();
        std::fs::write(folder.path().join("b"), [0; 24]).unwrap();
        let room = room(folder.path()).unwrap();
        assert_eq!(room.used, 1024);
        assert!(room.size > 0 && room.free <= room.size);
    }

    #[test]
    fn a_member_that_catches_up_is_not_ready() {
        let standing = |commit| Standing {
            commit,
            applied: 5,
            ..Standing::default()
        };
        assert_eq!(is_ready(&standing(6), true), Ok(()));
        assert!(is_ready(&standing(6), false).is_err());
        assert!(is_ready(&standing(6 + BEHIND_MAX), true).is_err());
    }
}
