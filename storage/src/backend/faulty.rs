//! A store that fails on purpose: for tests, of this crate and of those above it.
//!
//! Faults come by seed, so that a failing test can be replayed, or at the k-th call, so that a test can walk through every step of a
//! procedure: run it once to learn [`Faulty::calls`], then once for each k with [`Rule::call`].

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::memory::join;
use super::random::Random;
use super::{Backend, BackendError, Listed};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The call is not done: 403.
    Denied,
    /// The call is not done: 404.
    NotFound,
    /// The call is not done: the name is said to be taken.
    Exists,
    /// The call is not done: 503.
    Unavailable,
    /// The call is not done: no space.
    Full,
    /// The call is not done and never will be.
    Refused,
    /// No answer, ever; the call is not done.
    Hang,
    /// The call is done after a while.
    Slow(Duration),
    /// The call is done and its answer lost: an unclear failure. A listing breaks off half way.
    LostAnswer,
    /// The store lies: the last byte is missing, of what is put, read or measured; the last object of a listing.
    Short,
    /// The store lies: one bit is flipped, of what is put or read. Harmless elsewhere.
    Flipped,
    /// The world stops before this call: it and all others fail from here on.
    Crash,
    /// The world stops after this call was done, before its answer.
    CrashAfter,
}

/// Calls that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// All of them.
    Any,
    /// Creating.
    Put,
    /// Reading, also of ranges.
    Read,
    /// Asking for a length.
    Length,
    /// Listing.
    List,
    /// Deleting.
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    Call(u64),
    Chance(f64),
}

/// When a fault strikes. Of several rules the first that strikes counts.
#[derive(Debug, Clone)]
pub struct Rule {
    fault: Fault,
    when: When,
    on: On,
    below: String,
    seen: u64,
}

impl Rule {
    fn new(fault: Fault, when: When) -> Self {
        Self {
            fault,
            when,
            on: On::Any,
            below: String::new(),
            seen: 0,
        }
    }

    /// At every call.
    pub fn always(fault: Fault) -> Self {
        Self::new(fault, When::Always)
    }

    /// At the k-th call (from 0) of those the rule is about.
    pub fn call(k: u64, fault: Fault) -> Self {
        Self::new(fault, When::Call(k))
    }

    /// With a probability, by the store's seed.
    pub fn chance(probability: f64, fault: Fault) -> Self {
        Self::new(fault, When::Chance(probability))
    }

    /// Only at such calls.
    pub fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }

    /// Only at names (or prefixes) that begin so.
    pub fn below(mut self, prefix: &str) -> Self {
        self.below = prefix.into();
        self
    }

    fn strikes(&mut self, on: On, name: &str, random: &mut Random) -> bool {
        if (self.on != On::Any && self.on != on) || !name.starts_with(&self.below) {
            return false;
        }
        self.seen += 1;
        match self.when {
            When::Always => true,
            When::Call(k) => self.seen == k + 1,
            When::Chance(probability) => random.chance(probability),
        }
    }
}

#[derive(Debug)]
struct State {
    rules: Vec<Rule>,
    random: Random,
    trace: Vec<String>,
}

/// The store under it, with faults.
#[derive(Debug)]
pub struct Faulty<B> {
    inner: B,
    state: Mutex<State>,
    crashed: AtomicBool,
}

impl<B: Backend> Faulty<B> {
    /// Without faults so far.
    pub fn new(inner: B, seed: u64) -> Self {
        let state = State {
            rules: Vec::new(),
            random: Random::seeded(seed),
            trace: Vec::new(),
        };
        Self {
            inner,
            state: Mutex::new(state),
            crashed: AtomicBool::new(false),
        }
    }

    /// Adds a rule.
    pub fn rule(self, rule: Rule) -> Self {
        self.lock().rules.push(rule);
        self
    }

    /// The store under it.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Calls so far, those that failed too.
    pub fn calls(&self) -> u64 {
        self.lock().trace.len() as u64
    }

    /// The calls so far, as `put NAME`: for the text of a failed test.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// Whether the world stopped.
    pub fn is_crashed(&self) -> bool {
        self.crashed.load(SeqCst)
    }

    /// Drops all rules and lets a stopped world go on.
    pub fn heal(&self) {
        self.lock().rules.clear();
        self.crashed.store(false, SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, on: On, operation: &'static str, name: &str) -> Result<Option<Fault>, BackendError> {
        let mut state = self.lock();
        let State { rules, random, trace } = &mut *state;
        trace.push(format!("{operation} {name}"));
        if self.is_crashed() {
            return Err(crashed(operation, name));
        }
        // Every rule sees every call, also after one struck: each counts for itself.
        let mut fault = None;
        for rule in rules {
            if rule.strikes(on, name, random) {
                fault = fault.or(Some(rule.fault));
            }
        }
        if fault == Some(Fault::Crash) {
            self.crashed.store(true, SeqCst);
            return Err(crashed(operation, name));
        }
        Ok(fault)
    }

    /// What the fault does before the call.
    async fn before(&self, fault: Option<Fault>, operation: &'static str, name: &str) -> Result<(), BackendError> {
        let source = || "a fault on purpose".into();
        let name = name.to_owned();
        match fault {
            Some(Fault::Denied) => Err(BackendError::Denied {
                operation,
                name,
                source: source(),
            }),
            Some(Fault::NotFound) => Err(BackendError::NotFound { name }),
            Some(Fault::Exists) => Err(BackendError::Exists { name }),
            Some(Fault::Unavailable) => Err(BackendError::Unavailable {
                operation,
                name,
                source: source(),
            }),
            Some(Fault::Full) => Err(BackendError::Full {
                operation,
                name,
                source: source(),
            }),
            Some(Fault::Refused) => Err(BackendError::Refused {
                operation,
                name,
                source: source(),
            }),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Some(Fault::LostAnswer | Fault::Short | Fault::Flipped | Fault::Crash | Fault::CrashAfter) | None => Ok(()),
        }
    }

    /// What the fault does to an answer. A world that stopped meanwhile answers nobody.
    fn after<T>(
        &self,
        fault: Option<Fault>,
        operation: &'static str,
        name: &str,
        result: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if fault == Some(Fault::CrashAfter) {
            self.crashed.store(true, SeqCst);
        }
        if self.is_crashed() {
            return Err(crashed(operation, name));
        }
        match fault {
            Some(Fault::LostAnswer) => Err(BackendError::Unavailable {
                operation,
                name: name.into(),
                source: "the answer got lost on purpose".into(),
            }),
            _ => result,
        }
    }

    fn lie(&self, fault: Option<Fault>, bytes: Bytes) -> Bytes {
        match fault {
            Some(Fault::Short) if !bytes.is_empty() => bytes.slice(..bytes.len() - 1),
            Some(Fault::Flipped) if !bytes.is_empty() => {
                let mut bytes = bytes.to_vec();
                let bit = self.lock().random.below(bytes.len() as u64 * 8);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                bytes.into()
            }
            _ => bytes,
        }
    }
}

fn crashed(operation: &'static str, name: &str) -> BackendError {
    BackendError::Refused {
        operation,
        name: name.into(),
        source: "the world stopped on purpose".into(),
    }
}

#[async_trait]
impl<B: Backend> Backend for Faulty<B> {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        let fault = self.decide(On::Put, "put", name)?;
        self.before(fault, "put", name).await?;
        let result = match fault {
            Some(Fault::Short | Fault::Flipped) => self.inner.create(name, &[self.lie(fault, join(pieces))]).await,
            _ => self.inner.create(name, pieces).await,
        };
        self.after(fault, "put", name, result)
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let fault = self.decide(On::Read, "read", name)?;
        self.before(fault, "read", name).await?;
        let result = self.inner.read(name, max).await.map(|bytes| self.lie(fault, bytes));
        self.after(fault, "read", name, result)
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let fault = self.decide(On::Read, "read", name)?;
        self.before(fault, "read", name).await?;
        let result = self
            .inner
            .read_range(name, range)
            .await
            .map(|bytes| self.lie(fault, bytes));
        self.after(fault, "read", name, result)
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        let fault = self.decide(On::Length, "measure", name)?;
        self.before(fault, "measure", name).await?;
        let result = self.inner.length(name).await.map(|length| match fault {
            Some(Fault::Short) => length.saturating_sub(1),
            _ => length,
        });
        self.after(fault, "measure", name, result)
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        let prefix = prefix.to_owned();
        futures::stream::once(async move {
            let decided = match self.decide(On::List, "list", &prefix) {
                Ok(fault) => self.before(fault, "list", &prefix).await.map(|()| fault),
                Err(error) => Err(error),
            };
            let fault = match decided {
                Ok(fault) => fault,
                Err(error) => return futures::stream::iter(vec![Err(error)]),
            };
            let mut listed: Vec<_> = self.inner.list(&prefix).collect().await;
            match fault {
                Some(Fault::Short) => drop(listed.pop()),
                Some(Fault::LostAnswer) => listed.truncate(listed.len() / 2),
                _ => {}
            }
            if let Err(error) = self.after(fault, "list", &prefix, Ok(())) {
                listed.push(Err(error));
            }
            futures::stream::iter(listed)
        })
        .flatten()
        .boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        let fault = self.decide(On::Delete, "delete", name)?;
        self.before(fault, "delete", name).await?;
        let result = self.inner.delete(name).await;
        self.after(fault, "delete", name, result)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::backend::Memory;

    fn store(rule: Rule) -> Faulty<Memory> {
        let memory = Memory::new();
        for name in ["a/1", "a/2", "b/1"] {
            memory.replace(name, vec![0; 100]);
        }
        Faulty::new(memory, 7).rule(rule)
    }

    #[tokio::test]
    async fn a_fault_strikes_at_its_call_and_nowhere_else() {
        let faulty = store(Rule::call(1, Fault::Denied).on(On::Read).below("a/"));
        faulty.length("a/1").await.unwrap();
        faulty.read("b/1", 100).await.unwrap();
        faulty.read("a/1", 100).await.unwrap();
        assert!(matches!(
            faulty.read("a/1", 100).await,
            Err(BackendError::Denied { .. })
        ));
        faulty.read("a/1", 100).await.unwrap();
        assert_eq!(faulty.calls(), 5);
        assert_eq!(faulty.trace()[1], "read b/1");
    }

    #[tokio::test]
    async fn chance_repeats_by_its_seed() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let faulty = store(Rule::chance(0.5, Fault::Unavailable));
            let mut run = Vec::new();
            for _ in 0..50 {
                run.push(faulty.length("a/1").await.is_ok());
            }
            assert!(run.contains(&true) && run.contains(&false));
            runs.push(run);
        }
        assert_eq!(runs[0], runs[1]);
    }

    #[tokio::test]
    async fn a_lying_store_changes_bytes_and_says_nothing() {
        let faulty = store(Rule::always(Fault::Flipped));
        let read = faulty.read("a/1", 100).await.unwrap();
        assert_eq!(read.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        faulty.create("c", &[Bytes::from(vec![0; 10])]).await.unwrap();
        assert_ne!(faulty.inner().objects()["c"], vec![0; 10]);

        let faulty = store(Rule::always(Fault::Short));
        assert_eq!(faulty.read_range("a/1", 0..10).await.unwrap().len(), 9);
        assert_eq!(faulty.length("a/1").await.unwrap(), 99);
        assert_eq!(faulty.list("a/").collect::<Vec<_>>().await.len(), 1);
    }

    #[tokio::test]
    async fn after_a_crash_nothing_works_until_healed() {
        let faulty = store(Rule::call(0, Fault::CrashAfter).on(On::Put));
        faulty.length("a/1").await.unwrap();
        faulty.create("c", &[]).await.unwrap_err();
        assert!(faulty.is_crashed());
        assert!(faulty.inner().objects().contains_key("c"), "done before the crash");
        faulty.length("a/1").await.unwrap_err();
        assert!(faulty.list("a/").collect::<Vec<_>>().await[0].is_err());
        faulty.heal();
        faulty.length("a/1").await.unwrap();

        let faulty = store(Rule::call(0, Fault::Crash));
        faulty.create("c", &[]).await.unwrap_err();
        assert!(!faulty.inner().objects().contains_key("c"), "not done");
    }

    #[tokio::test]
    async fn a_lost_answer_is_done_all_the_same() {
        let faulty = store(Rule::call(0, Fault::LostAnswer));
        assert!(matches!(
            faulty.delete("a/1").await,
            Err(BackendError::Unavailable { .. })
        ));
        assert!(!faulty.inner().objects().contains_key("a/1"));
    }
}
