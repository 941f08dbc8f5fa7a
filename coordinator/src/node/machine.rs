//! The state as Raft's machine.

use std::sync::{Arc, PoisonError, RwLock};

use crate::raft::{Applied, Machine};
use crate::state::State;
use crate::state::entry::Entry;
use crate::state::error::{EntryError, LoadError};
use crate::state::reply::Reply;
use crate::store::{Row, RowChange};

/// The state behind a lock, so that it can be read while the log goes on. Only the node's task writes.
#[derive(Debug, Default)]
pub struct StateMachine {
    state: Arc<RwLock<State>>,
}

/// What stops this member.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// An entry of the log.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A row.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl StateMachine {
    /// The state, shared.
    pub fn shared(&self) -> Arc<RwLock<State>> {
        Arc::clone(&self.state)
    }
}

impl Machine for StateMachine {
    type Reply = Reply;
    type Error = MachineError;

    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Applied<Reply>, MachineError> {
        let entry = Entry::decode(entry)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let reply = state.apply(index, &entry);
        let rows = state
            .take_changes()
            .into_iter()
            .map(|change| RowChange {
                table: change.table,
                key: change.key,
                value: change.value,
            })
            .collect();
        Ok(Applied { reply, rows })
    }

    fn load(rows: &mut dyn Iterator<Item = Row>) -> Result<Self, MachineError> {
        let state = State::load(rows.map(|row| (row.table, row.key, row.value)))?;
        Ok(Self {
            state: Arc::new(RwLock::new(state)),
        })
    }
}
