//! A store in memory for the tests of this folder, with the habits of bad ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::backend::{Backend, BackendError, Listed};

#[derive(Default)]
pub(crate) struct TestStore {
    objects: Mutex<BTreeMap<String, Bytes>>,
    overwrites: AtomicBool,
    hides: AtomicBool,
    puts: AtomicU64,
    puts_left: Mutex<Option<u64>>,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Answers a second put of a name with success, and takes the new bytes.
    pub(crate) fn overwrite_instead_of_refusing(&self) {
        self.overwrites.store(true, Ordering::Relaxed);
    }

    /// Lists nothing at all.
    pub(crate) fn hide_everything_from_lists(&self) {
        self.hides.store(true, Ordering::Relaxed);
    }

    /// Fails every put after the next `puts`; `None` ends that.
    pub(crate) fn fail_after_puts(&self, puts: Option<u64>) {
        *self.puts_left.lock().expect("tests do not poison it") = puts;
    }

    pub(crate) fn puts(&self) -> u64 {
        self.puts.load(Ordering::Relaxed)
    }

    pub(crate) fn plant(&self, name: &str, bytes: &[u8]) {
        self.with(|objects| drop(objects.insert(name.to_owned(), Bytes::copy_from_slice(bytes))));
    }

    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        self.with(|objects| {
            objects
                .keys()
                .filter(|name| name.starts_with(prefix))
                .cloned()
                .collect()
        })
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<Bytes> {
        self.with(|objects| objects.get(name).cloned())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T) -> T {
        act(&mut self.objects.lock().expect("tests do not poison it"))
    }

    fn whole(&self, name: &str) -> Result<Bytes, BackendError> {
        self.bytes(name)
            .ok_or_else(|| BackendError::NotFound { name: name.to_owned() })
    }
}

#[async_trait]
impl Backend for TestStore {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        tokio::task::yield_now().await;
        self.puts.fetch_add(1, Ordering::Relaxed);
        if let Some(left) = self.puts_left.lock().expect("tests do not poison it").as_mut() {
            *left = left.checked_sub(1).ok_or_else(|| BackendError::Unavailable {
                operation: "put",
                name: name.to_owned(),
                source: "the test says so".into(),
            })?;
        }
        let overwrites = self.overwrites.load(Ordering::Relaxed);
        self.with(|objects| {
            if objects.contains_key(name) && !overwrites {
                return Err(BackendError::Exists { name: name.to_owned() });
            }
            objects.insert(name.to_owned(), pieces.concat().into());
            Ok(())
        })
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        tokio::task::yield_now().await;
        let bytes = self.whole(name)?;
        if bytes.len() > max {
            let (length, max) = (bytes.len() as u64, max as u64);
            return Err(BackendError::TooLarge {
                name: name.to_owned(),
                length,
                max,
            });
        }
        Ok(bytes)
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let bytes = self.whole(name)?;
        if range.end > bytes.len() as u64 {
            return Err(BackendError::Range {
                name: name.to_owned(),
                end: range.end,
            });
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        tokio::task::yield_now().await;
        Ok(self.whole(name)?.len() as u64)
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        let listed: Vec<_> = self.with(|objects| {
            objects
                .iter()
                .filter(|(name, _)| name.starts_with(prefix) && !self.hides.load(Ordering::Relaxed))
                .map(|(name, bytes)| {
                    Ok(Listed {
                        name: name.clone(),
                        length: bytes.len() as u64,
                    })
                })
                .collect()
        });
        futures::stream::iter(listed).boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.with(|objects| drop(objects.remove(name)));
        Ok(())
    }
}
