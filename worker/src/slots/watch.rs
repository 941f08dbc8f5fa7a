//! What coordinators say of the map, from the registration of a life to its end.

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::watch::Sender;
use tokio::time::sleep;
use tresor_storage::Kind;

use super::revoked::Revoked;
use super::view::View;
use crate::agent::calls::{Backoff, Patience, random};
use crate::agent::port::{CallError, Coordinator, Life, WatchUpdate};
use crate::limits::Limits;

/// Follows for one life; ends when it is not the worker's last any more.
pub(super) async fn follow(
    coordinator: Arc<dyn Coordinator>,
    life: Life,
    views: Sender<View>,
    revoked: Revoked,
    limits: Arc<Limits>,
) {
    let heard = |mut update: WatchUpdate| {
        if let Some(told) = update.limits.take() {
            limits.take(told);
        }
        take(&views, &revoked, life, update);
    };
    follow_with(coordinator, life, heard).await;
}

/// As [`follow`], for whoever takes limits only.
pub(crate) async fn follow_limits(coordinator: Arc<dyn Coordinator>, life: Life, limits: Arc<Limits>) {
    let heard = |update: WatchUpdate| {
        if let Some(told) = update.limits {
            limits.take(told);
        }
    };
    follow_with(coordinator, life, heard).await;
}

async fn follow_with(coordinator: Arc<dyn Coordinator>, life: Life, heard: impl Fn(WatchUpdate)) {
    let mut backoff = Backoff::new(Patience::ENDLESS);
    loop {
        let error = match coordinator.watch(life).await {
            Ok(mut updates) => loop {
                match updates.next().await {
                    Some(Ok(update)) => {
                        backoff.reset();
                        heard(update);
                    }
                    Some(Err(error)) => break error,
                    None => {
                        break CallError::Unanswered {
                            why: String::from("the coordinator ended it"),
                        };
                    }
                }
            },
            Err(error) => error,
        };
        if let CallError::Refused { kind: Kind::Fenced, .. } = error {
            // The agent's own calls hear the same, and begin another life.
            return;
        }
        let wait = backoff.next(random());
        tracing::debug!(%error, wait_ms = wait.as_millis(), "changes of the cluster are not heard, asked again later");
        sleep(wait).await;
    }
}

fn take(views: &Sender<View>, revoked: &Revoked, life: Life, update: WatchUpdate) {
    revoked.add(update.removed);
    views.send_if_modified(|view| {
        let mut is_changed = view.life != Some(life);
        view.life = Some(life);
        if let Some(map) = update.slots {
            // Another coordinator may be behind the one that was asked before.
            let is_older = (map.version, map.applied) < (view.map.version, view.map.applied);
            if !is_older && *view.map != map {
                view.map = Arc::new(map);
                is_changed = true;
            }
        }
        if update.vaults > view.vaults {
            view.vaults = update.vaults;
            is_changed = true;
        }
        is_changed
    });
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use tokio::sync::watch;

    use super::super::map::SlotMap;
    use super::super::map::tests::{message, owner, run};
    use super::*;

    fn update(version: u64) -> WatchUpdate {
        let map = SlotMap::read(message(vec![owner(1, "a:1")], vec![run(0, 4096, 0, version)])).unwrap();
        WatchUpdate {
            slots: Some(map),
            ..WatchUpdate::default()
        }
    }

    #[test]
    fn a_coordinator_that_is_behind_takes_nothing_back() {
        let (views, mut seen) = watch::channel(View::default());
        let (revoked, life) = (Revoked::default(), Life([1; 16]));
        take(&views, &revoked, life, update(9));
        assert_eq!(seen.borrow_and_update().map.version, 9);
        take(&views, &revoked, life, update(5));
        assert!(!seen.has_changed().unwrap());
        assert_eq!(seen.borrow_and_update().map.version, 9);
        take(&views, &revoked, life, WatchUpdate::default());
        assert!(!seen.has_changed().unwrap(), "nothing new is no news");
    }
}
