//! Lists of packs that one owner makes for a wave of grants, and the others fetch: the store is listed once, however many slots moved to however many.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tresor_storage::ids::VaultId;

/// How long who asks waits for a list that is being made. Ten million packs are listed in some minutes; who has waited so long lists by himself.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long who asks waits for a list to be begun.
const BEGINS: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
enum List {
    Making,
    Made(Bytes),
}

/// The newest list of each vault.
#[derive(Debug)]
pub(crate) struct Lists {
    lists: watch::Sender<BTreeMap<VaultId, (u64, List)>>,
    begins: Duration,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            lists: watch::Sender::new(BTreeMap::new()),
            begins: BEGINS,
        }
    }
}

/// A list being made. Dropped without one, nobody waits for it any more.
pub(crate) struct Making<'a> {
    lists: &'a Lists,
    vault: VaultId,
    wave: u64,
    is_made: bool,
}

impl Lists {
    /// Says that the list for a wave is being made.
    pub(crate) fn begin(&self, vault: VaultId, wave: u64) -> Making<'_> {
        self.lists.send_modify(|lists| {
            lists.insert(vault, (wave, List::Making));
        });
        Making {
            lists: self,
            vault,
            wave,
            is_made: false,
        }
    }

    /// Forgets a vault's.
    pub(crate) fn forget(&self, vault: VaultId) {
        self.lists.send_modify(|lists| {
            lists.remove(&vault);
        });
    }

    /// The list of a wave or a later one; none if nobody makes one.
    pub(crate) async fn wait(&self, vault: VaultId, wave: u64) -> Option<Bytes> {
        let mut lists = self.lists.subscribe();
        // Who makes it hears of the grant at another moment than who asks.
        let begun = lists.wait_for(|lists| lists.get(&vault).is_some_and(|(of, _)| *of >= wave));
        tokio::time::timeout(self.begins, begun).await.ok()?.ok()?;
        let made = lists.wait_for(|lists| !matches!(lists.get(&vault), Some((_, List::Making))));
        let lists = tokio::time::timeout(PATIENCE, made).await.ok()?.ok()?;
        match lists.get(&vault) {
            Some((of, List::Made(bytes))) if *of >= wave => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl Making<'_> {
    /// It is made.
    pub(crate) fn made(mut self, bytes: Bytes) {
        self.is_made = true;
        let (vault, wave) = (self.vault, self.wave);
        self.lists.lists.send_modify(|lists| {
            lists.insert(vault, (wave, List::Made(bytes)));
        });
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.is_made {
            return;
        }
        let (vault, wave) = (self.vault, self.wave);
        self.lists.lists.send_modify(|lists| {
            if matches!(lists.get(&vault), Some((of, List::Making)) if *of == wave) {
                lists.remove(&vault);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: VaultId = VaultId([1; 16]);

    #[tokio::test]
    async fn who_asks_waits_for_the_list_that_is_being_made() {
        let lists = std::sync::Arc::new(Lists {
            begins: Duration::from_millis(10),
            ..Lists::default()
        });
        let making = lists.begin(VAULT, 5);
        let waiting = tokio::spawn({
            let lists = std::sync::Arc::clone(&lists);
            async move { lists.wait(VAULT, 5).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        making.made(Bytes::from_static(b"list"));
        assert_eq!(waiting.await.ok().flatten().as_deref(), Some(&b"list"[..]));
        assert!(lists.wait(VAULT, 6).await.is_none(), "an older list is none");
        assert!(lists.wait(VAULT, 4).await.is_some(), "a later one is as good");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_list_that_was_given_up() {
        let lists = Lists {
            begins: Duration::from_millis(10),
            ..Lists::default()
        };
        assert!(lists.wait(VAULT, 1).await.is_none());
        drop(lists.begin(VAULT, 1));
        assert!(lists.wait(VAULT, 1).await.is_none());
    }
}
