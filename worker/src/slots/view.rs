//! What this process knows of the slot map, as it comes in.

use std::sync::Arc;

use tokio::sync::watch;

use super::map::SlotMap;
use crate::agent::port::Life;

/// The newest map, and the life for which it came.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) life: Option<Life>,
    pub(crate) map: Arc<SlotMap>,
    /// Grows when vaults were added, claimed or removed.
    pub(crate) vaults: u64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            life: None,
            map: Arc::new(SlotMap::empty()),
            vaults: 0,
        }
    }
}

/// Reads the newest view.
#[derive(Debug, Clone)]
pub(crate) struct Views(watch::Receiver<View>);

impl Views {
    pub(crate) fn new(views: watch::Receiver<View>) -> Self {
        Self(views)
    }

    pub(crate) fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.0.borrow().map)
    }

    /// The newest view, marked as seen.
    pub(crate) fn latest(&mut self) -> View {
        self.0.borrow_and_update().clone()
    }

    /// Waits for a view that was not seen; for ever, when none will come.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a map with a newer grant.
    pub(crate) async fn newer_than(&mut self, version: u64) {
        if self.0.wait_for(|view| view.map.version > version).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
