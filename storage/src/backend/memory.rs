//! Objects in this process's memory: `memory://NAME`, and the store of most tests.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{Backend, BackendError, Listed, check_name, check_prefix, range_length};

/// A store of this process. Clones share their objects.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

static NAMED: LazyLock<Mutex<HashMap<String, Memory>>> = LazyLock::new(Mutex::default);

impl Memory {
    /// An empty store of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The one store of that name in this process, made at first use.
    pub fn named(name: &str) -> Self {
        NAMED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.into())
            .or_default()
            .clone()
    }

    /// All objects. For tests that compare or carry over a whole store.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.lock().clone()
    }

    /// Puts or replaces an object behind the port's back. For tests that damage a store.
    pub fn replace(&self, name: &str, bytes: impl Into<Bytes>) {
        self.lock().insert(name.into(), bytes.into());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // No change of the map is ever half done when its holder panics.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, operation: &'static str, name: &str) -> Result<Bytes, BackendError> {
        check_name(operation, name)?;
        self.lock()
            .get(name)
            .cloned()
            .ok_or_else(|| BackendError::NotFound { name: name.into() })
    }
}

/// One object of pieces: the memory of a single piece is shared, several are copied together.
pub(super) fn join(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [one] => one.clone(),
        _ => pieces.concat().into(),
    }
}

/// The bytes of a range, or the error that says why not.
pub(super) fn cut(name: &str, object: &Bytes, range: &Range<u64>) -> Result<Bytes, BackendError> {
    range_length(name, range)?;
    if range.end > object.len() as u64 {
        return Err(BackendError::Range {
            name: name.into(),
            end: range.end,
        });
    }
    // Not beyond the object, which is in memory.
    Ok(object.slice(range.start as usize..range.end as usize))
}

#[async_trait]
impl Backend for Memory {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        check_name("put", name)?;
        let object = join(pieces);
        match self.lock().entry(name.into()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(BackendError::Exists { name: name.into() }),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(object);
                Ok(())
            }
        }
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let object = self.get("read", name)?;
        if object.len() > max {
            return Err(BackendError::TooLarge {
                name: name.into(),
                length: object.len() as u64,
                max: max as u64,
            });
        }
        Ok(object)
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
        let listed: Vec<_> = self
            .lock()
            .range(prefix.to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, object)| {
                Ok(Listed {
                    name: name.clone(),
                    length: object.len() as u64,
                })
            })
            .collect();
        futures::stream::iter(listed).boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        check_name("delete", name)?;
        self.lock().remove(name);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_opens_of_one_name_see_one_store_and_of_two_names_two() {
        let bytes = Bytes::from_static(b"x");
        Memory::named("one-store")
            .create("a", std::slice::from_ref(&bytes))
            .await
            .unwrap();
        assert_eq!(Memory::named("one-store").read("a", 1).await.unwrap(), bytes);
        assert!(matches!(
            Memory::named("other-store").read("a", 1).await,
            Err(BackendError::NotFound { .. })
        ));
        assert!(matches!(
            Memory::new().read("a", 1).await,
            Err(BackendError::NotFound { .. })
        ));
    }
}
