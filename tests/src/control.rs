//! A deciding side in memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use tresor_storage::ids::{ClusterId, PointId, SessionId};
use tresor_worker::control::{Commit, Control, ControlError, OpenSession, PointRecord, Session};

#[derive(Debug, Default)]
struct State {
    commits: Vec<Commit>,
    open: Vec<(SessionId, OpenSession)>,
}

/// Decides in memory.
#[derive(Debug)]
pub struct MemoryControl {
    cluster: ClusterId,
    sessions: AtomicU64,
    fenced: AtomicBool,
    state: Mutex<State>,
}

impl Default for MemoryControl {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryControl {
    /// With a cluster of its own.
    pub fn new() -> Self {
        Self {
            cluster: ClusterId::random(),
            sessions: AtomicU64::new(0),
            fenced: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Refuses every commit from now on.
    pub fn fence(&self) {
        self.fenced.store(true, Ordering::Relaxed);
    }

    /// All that was committed, in order.
    pub fn commits(&self) -> Vec<Commit> {
        self.state.lock().unwrap().commits.clone()
    }

    /// Sessions that were neither closed nor dropped with the process.
    pub fn open_sessions(&self) -> usize {
        self.state.lock().unwrap().open.len()
    }

    fn check(&self) -> Result<(), ControlError> {
        match self.fenced.load(Ordering::Relaxed) {
            true => Err(ControlError::Fenced {
                holder: String::from("elsewhere"),
                since: String::from("2026-01-01T00:00:00Z"),
            }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Control for MemoryControl {
    async fn open_session(&self, request: OpenSession) -> Result<Session, ControlError> {
        self.check()?;
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed) + 1);
        self.state.lock().unwrap().open.push((session, request));
        Ok(Session {
            cluster: self.cluster,
            session,
            start_epoch: 0,
        })
    }

    async fn commit(&self, commit: Commit) -> Result<(), ControlError> {
        self.check()?;
        let mut state = self.state.lock().unwrap();
        assert!(
            state
                .open
                .iter()
                .any(|(session, request)| *session == commit.session && request.writes),
            "commits belong to open sessions"
        );
        state.commits.push(commit);
        Ok(())
    }

    async fn points(&self) -> Result<Vec<PointRecord>, ControlError> {
        let state = self.state.lock().unwrap();
        Ok(state
            .commits
            .iter()
            .map(|commit| PointRecord {
                item: commit.item,
                point: commit.point,
                removed_at: None,
            })
            .collect())
    }

    async fn pins(&self) -> Vec<PointId> {
        self.state
            .lock()
            .unwrap()
            .open
            .iter()
            .flat_map(|(_, request)| request.pins.clone())
            .collect()
    }

    async fn close_session(&self, session: SessionId) {
        self.state.lock().unwrap().open.retain(|(open, _)| *open != session);
    }
}
