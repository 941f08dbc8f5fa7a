//! A gate in front of a store: requests wait before it, and tests open it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::Notify;
use tresor_storage::backend::{Backend, BackendError, Listed, OpenStore, StoreConfig, open};
use tresor_worker::home::Stores;

/// What is held, and what waits.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    held: Mutex<Vec<(&'static str, &'static str)>>,
    waiting: Mutex<Vec<String>>,
    /// How many waited at one time.
    most: AtomicUsize,
    changed: Notify,
}

impl Gate {
    /// Holds requests of an operation (`put`, `read`, `list`) on objects below a folder.
    pub(crate) fn hold(&self, operation: &'static str, folder: &'static str) {
        self.inner.held.lock().unwrap().push((operation, folder));
    }

    /// Lets everything pass.
    pub(crate) fn open(&self) {
        self.inner.held.lock().unwrap().clear();
        self.inner.changed.notify_waiters();
    }

    /// Whether somebody waits before the gate.
    pub(crate) fn is_reached(&self) -> bool {
        !self.inner.waiting.lock().unwrap().is_empty()
    }

    /// How many waited before it at one time.
    pub(crate) fn most_waited(&self) -> usize {
        self.inner.most.load(Ordering::Relaxed)
    }

    async fn pass(&self, operation: &str, name: &str) {
        let mut counted = None;
        loop {
            let changed = self.inner.changed.notified();
            let is_held = {
                let held = self.inner.held.lock().unwrap();
                held.iter()
                    .any(|(op, folder)| *op == operation && name.starts_with(folder))
            };
            if !is_held {
                return;
            }
            counted.get_or_insert_with(|| Waiting::new(&self.inner, name));
            changed.await;
        }
    }
}

struct Waiting {
    inner: Arc<Inner>,
    name: String,
}

impl Waiting {
    fn new(inner: &Arc<Inner>, name: &str) -> Self {
        let mut waiting = inner.waiting.lock().unwrap();
        waiting.push(name.to_owned());
        inner.most.fetch_max(waiting.len(), Ordering::Relaxed);
        Self {
            inner: Arc::clone(inner),
            name: name.to_owned(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.inner.waiting.lock().unwrap();
        let at = waiting.iter().position(|name| *name == self.name).unwrap();
        waiting.remove(at);
    }
}

/// Stores behind a gate.
pub(crate) struct GatedStores {
    pub(crate) gate: Gate,
}

impl Stores for GatedStores {
    fn open(&self, url: &str, create: bool) -> Result<OpenStore, BackendError> {
        let config = StoreConfig {
            create_root: create,
            ..StoreConfig::default()
        };
        let store = open(url, &config)?;
        let gate = self.gate.clone();
        Ok(store.behind(move |inner| Gated {
            gate: gate.clone(),
            inner,
        }))
    }
}

struct Gated {
    gate: Gate,
    inner: Arc<dyn Backend>,
}

#[async_trait]
impl Backend for Gated {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        self.gate.pass("put", name).await;
        self.inner.create(name, pieces).await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        self.gate.pass("read", name).await;
        self.inner.read(name, max).await
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        self.gate.pass("read", name).await;
        self.inner.read_range(name, range).await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.gate.pass("read", name).await;
        self.inner.length(name).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        let prefix = prefix.to_owned();
        let listing = async move {
            self.gate.pass("list", &prefix).await;
            let listed: Vec<_> = self.inner.list(&prefix).collect().await;
            futures::stream::iter(listed)
        };
        futures::stream::once(listing).flatten().boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.gate.pass("delete", name).await;
        self.inner.delete(name).await
    }
}
