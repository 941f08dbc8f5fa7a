//! A store that forgets, at a crash, what was not synced: for tests of the order of writes.
//!
//! As on a disk, an object is seen as soon as its put has begun to show, and is safe only when the put has returned. Each put takes a
//! seeded number of turns to become safe, so puts that nobody waited for become safe in another order than they were begun: a step that
//! is lost, or done too early, shows after [`Forgetful::crash`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::memory::{cut, join};
use super::random::Random;
use super::{Backend, BackendError, Listed, check_name, check_prefix};

/// Turns that a put or a delete takes at most to become safe.
const TURNS_MAX: u64 = 8;

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    is_safe: bool,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Deleted, but not yet for good.
    leaving: BTreeMap<String, Bytes>,
    boots: u64,
    random: Random,
}

/// Objects in memory that know whether they are safe.
#[derive(Debug)]
pub struct Forgetful {
    state: Mutex<State>,
}

impl Forgetful {
    /// An empty store; the seed decides how long puts take and what a crash spares.
    pub fn new(seed: u64) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            leaving: BTreeMap::new(),
            boots: 0,
            random: Random::seeded(seed),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// The power goes and comes back: calls under way fail; of what was not safe each object may be there or not.
    pub fn crash(&self) {
        let State {
            objects,
            leaving,
            boots,
            random,
        } = &mut *self.lock();
        *boots += 1;
        objects.retain(|_, object| object.is_safe || random.chance(0.5));
        for (name, bytes) in std::mem::take(leaving) {
            if random.chance(0.5) {
                objects.entry(name).or_insert(Object { bytes, is_safe: true });
            }
        }
        for object in objects.values_mut() {
            object.is_safe = true;
        }
    }

    /// Names of objects that a crash may take.
    pub fn unsafe_names(&self) -> Vec<String> {
        self.lock()
            .objects
            .iter()
            .filter(|(_, object)| !object.is_safe)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, operation: &'static str, name: &str) -> Result<Bytes, BackendError> {
        check_name(operation, name)?;
        let state = self.lock();
        state
            .objects
            .get(name)
            .map(|object| object.bytes.clone())
            .ok_or_else(|| BackendError::NotFound { name: name.into() })
    }

    /// Lets others go first, then ends the call in the same life of the store, or fails it.
    async fn settle(
        &self,
        operation: &'static str,
        name: &str,
        boot: u64,
        turns: u64,
        end: impl FnOnce(&mut State) + Send,
    ) -> Result<(), BackendError> {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let mut state = self.lock();
        if state.boots != boot {
            return Err(BackendError::Refused {
                operation,
                name: name.into(),
                source: "the store crashed on purpose".into(),
            });
        }
        end(&mut state);
        Ok(())
    }
}

#[async_trait]
impl Backend for Forgetful {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        check_name("put", name)?;
        let (boot, turns) = {
            let mut state = self.lock();
            if state.objects.contains_key(name) {
                return Err(BackendError::Exists { name: name.into() });
            }
            state.objects.insert(
                name.into(),
                Object {
                    bytes: join(pieces),
                    is_safe: false,
                },
            );
            (state.boots, state.random.below(TURNS_MAX))
        };
        self.settle("put", name, boot, turns, |state| {
            if let Some(object) = state.objects.get_mut(name) {
                object.is_safe = true;
            }
        })
        .await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let bytes = self.get("read", name)?;
        if bytes.len() > max {
            return Err(BackendError::TooLarge {
                name: name.into(),
                length: bytes.len() as u64,
                max: max as u64,
            });
        }
        Ok(bytes)
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        cut(name, &self.get("read", name)?, &range)
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        Ok(self.get("read", name)?.len() as u64)
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        if let Err(error) = check_prefix(prefix) {
            return futures::stream::iter([Err(error)]).boxed();
        }
        let state = self.lock();
        let listed: Vec<_> = state
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, object)| {
                Ok(Listed {
                    name: name.clone(),
                    length: object.bytes.len() as u64,
                })
            })
            .collect();
        futures::stream::iter(listed).boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        check_name("delete", name)?;
        let (boot, turns) = {
            let mut state = self.lock();
            let Some(object) = state.objects.remove(name) else {
                return Ok(());
            };
            if object.is_safe {
                state.leaving.insert(name.into(), object.bytes);
            }
            (state.boots, state.random.below(TURNS_MAX))
        };
        self.settle("delete", name, boot, turns, |state| {
            state.leaving.remove(name);
        })
        .await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_was_waited_for_survives_and_what_was_not_may_be_lost() {
        let mut lost = 0;
        let mut kept = 0;
        for seed in 0..50 {
            let store = Forgetful::new(seed);
            store.create("waited", &[Bytes::from_static(b"x")]).await.unwrap();
            let mut dropped = store.create("dropped", &[]);
            let finished = (&mut dropped).now_or_never().is_some();
            drop(dropped);
            store.length("dropped").await.unwrap();
            assert_eq!(store.unsafe_names().is_empty(), finished);
            store.crash();
            assert_eq!(store.read("waited", 1).await.unwrap(), "x");
            match store.length("dropped").await {
                Ok(_) => kept += 1,
                Err(_) => {
                    assert!(!finished);
                    lost += 1;
                }
            }
        }
        assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
    }

    #[tokio::test]
    async fn puts_that_are_not_waited_for_become_safe_in_another_order() {
        let mut reordered = false;
        for seed in 0..20 {
            let store = Arc::new(Forgetful::new(seed));
            let tasks: Vec<_> = ["1", "2"]
                .map(|name| {
                    let store = store.clone();
                    tokio::spawn(async move { store.create(name, &[]).await })
                })
                .into();
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            reordered |= store.unsafe_names() == ["1"];
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            assert!(store.unsafe_names().is_empty());
        }
        assert!(reordered);
    }

    #[tokio::test]
    async fn a_call_under_way_at_the_crash_fails() {
        let mut failed = 0;
        for seed in 0..20 {
            let store = Arc::new(Forgetful::new(seed));
            let task = tokio::spawn({
                let store = store.clone();
                async move { store.create("a", &[]).await }
            });
            tokio::task::yield_now().await;
            store.crash();
            failed += usize::from(task.await.unwrap().is_err());
        }
        assert!(failed > 5, "{failed}");
    }
}
