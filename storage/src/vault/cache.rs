//! A cache in which each value is fetched once, however many ask at the same time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

struct Slot<V> {
    cell: Arc<OnceCell<V>>,
    weight: usize,
}

struct State<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Oldest first.
    order: VecDeque<K>,
    weight: usize,
}

/// Values by key, oldest dropped first, bounded by the sum of their weights.
pub(crate) struct Cache<K, V> {
    state: Mutex<State<K, V>>,
    weight_max: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Cache<K, V> {
    pub(crate) fn new(weight_max: usize) -> Self {
        let state = State {
            slots: HashMap::new(),
            order: VecDeque::new(),
            weight: 0,
        };
        Self {
            state: Mutex::new(state),
            weight_max,
        }
    }

    /// Gets a value, fetching it if need be; an error is not kept.
    pub(crate) async fn get<E, F>(&self, key: K, weigh: impl Fn(&V) -> usize, fetch: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        let cell = {
            let mut state = self.state.lock().expect("no panic while held");
            match state.slots.get(&key) {
                Some(slot) => Arc::clone(&slot.cell),
                None => {
                    let cell = Arc::new(OnceCell::new());
                    state.slots.insert(
                        key,
                        Slot {
                            cell: Arc::clone(&cell),
                            weight: 0,
                        },
                    );
                    state.order.push_back(key);
                    cell
                }
            }
        };
        if let Some(value) = cell.get() {
            return Ok(value.clone());
        }
        let fetched = cell.get_or_try_init(fetch).await.cloned();
        let mut state = self.state.lock().expect("no panic while held");
        match &fetched {
            Ok(value) => {
                let weight = weigh(value).max(1);
                // Only the cell that is still in the map is weighed, and only once.
                if let Some(slot) = state.slots.get_mut(&key)
                    && Arc::ptr_eq(&slot.cell, &cell)
                    && slot.weight == 0
                {
                    slot.weight = weight;
                    state.weight += weight;
                }
                while state.weight > self.weight_max {
                    let Some(oldest) = state.order.pop_front() else { break };
                    if let Some(slot) = state.slots.remove(&oldest) {
                        state.weight -= slot.weight;
                    }
                }
            }
            Err(_) => {
                if state
                    .slots
                    .get(&key)
                    .is_some_and(|slot| Arc::ptr_eq(&slot.cell, &cell) && slot.cell.get().is_none())
                {
                    state.slots.remove(&key);
                    state.order.retain(|k| *k != key);
                }
            }
        }
        fetched
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn values_are_fetched_once_and_the_oldest_go() {
        let cache = Cache::new(10);
        let fetches = AtomicUsize::new(0);
        let get = async |key: u32| {
            let fetch = || async {
                fetches.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok::<_, ()>(key)
            };
            cache.get(key, |_| 4, fetch).await
        };
        let all = futures::future::join_all((0..8).map(|_| get(1))).await;
        assert!(all.iter().all(|v| *v == Ok(1)));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        for key in [2, 3] {
            assert_eq!(get(key).await, Ok(key));
        }
        assert_eq!(get(1).await, Ok(1));
        assert_eq!(fetches.load(Ordering::Relaxed), 4, "1 was dropped when 3 came");
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let cache = Cache::new(10);
        assert_eq!(cache.get(1, |_: &u32| 1, || async { Err("no") }).await, Err("no"));
        assert_eq!(cache.get(1, |_| 1, || async { Ok::<_, &str>(7) }).await, Ok(7));
    }
}
