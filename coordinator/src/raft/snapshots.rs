//! Receiving a snapshot: a stream with a header, pieces and an end, beside the messages.
//!
//! The header is raft-rs's message about the snapshot: where it leads, and who the members are there. It is checked when it comes, and given to
//! raft-rs only when all rows were received, checked and made into a machine. raft-rs may find by then that it is not needed any more; then it
//! is dropped. Else [`super::process`] makes it count.

use raft::eraftpb::{self, Message, MessageType};
use tresor_proto::ids::MemberId;

use super::check::{self, Refused};
use super::core::Core;
use super::limits::{NUMBER_MAX, SNAPSHOT_HEADER_BYTES_MAX};
use super::members;
use super::{CoreError, Machine};
use crate::store::tables::Tables;
use crate::store::{Membership, Piece, Position, SnapshotEnd, StoreError, plain};

/// Which snapshot a piece belongs to: two of one sender and entry are cut alike, so their pieces may be mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotId {
    /// Who sends it.
    pub from: MemberId,
    /// The last entry in it.
    pub position: Position,
}

/// Why a snapshot, or a part of it, was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Its header is not what a member sends.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// This member has everything that is in it. Its sender may call it whole.
    #[error("this member has everything up to entry {index}")]
    NotNeeded {
        /// The last entry in it.
        index: u64,
    },
    /// Another one was just received, and is made to count by [`Core::process`] first.
    #[error("another snapshot is being taken")]
    Busy,
    /// It is not the one that is being received. Harmless: a part of an older one that came late.
    #[error("no snapshot of entry {index} is being received")]
    Unknown {
        /// The last entry in it.
        index: u64,
    },
    /// A part does not fit; the snapshot is not whole.
    #[error("a snapshot does not fit together")]
    Broken(#[source] StoreError),
    /// Its rows are not understood, as after the others were upgraded.
    #[error("could not decode the rows of a snapshot")]
    Rows(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store failed: this member stopped.
    #[error("this member stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// A snapshot that is being received.
pub(super) struct Receiving<M> {
    id: SnapshotId,
    message: Message,
    /// Made of its rows, when all were there.
    machine: Option<M>,
}

impl<M> Receiving<M> {
    pub(super) fn into_machine(self) -> Option<M> {
        self.machine
    }
}

/// The members that a snapshot names.
///
/// # Errors
/// When it names none that could be, or others than its metadata.
pub(super) fn read_membership(snapshot: &eraftpb::Snapshot) -> Result<Membership, &'static str> {
    let membership: Membership = plain(&snapshot.data)?;
    membership.check()?;
    if !membership.is_known() {
        return Err("nobody votes");
    }
    if *snapshot.get_metadata().get_conf_state() != members::conf_state(&membership) {
        return Err("its metadata names other members");
    }
    Ok(membership)
}

impl<M: Machine, T: Tables> Core<M, T> {
    /// Begins to receive a snapshot, and forgets any other that was being received.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn begin_snapshot(&mut self, from: MemberId, header: &[u8]) -> Result<SnapshotId, SnapshotError> {
        self.check_receiver()?;
        if header.len() > SNAPSHOT_HEADER_BYTES_MAX {
            return Err(Refused::TooLarge { bytes: header.len() }.into());
        }
        let message = check::read(from, header, &self.situation())?;
        let malformed = |why| SnapshotError::from(Refused::Malformed { why });
        if message.msg_type != MessageType::MsgSnapshot || message.term == 0 || !message.entries.is_empty() {
            return Err(malformed("it is no snapshot"));
        }
        let metadata = message.get_snapshot().get_metadata();
        let position = Position {
            index: metadata.index,
            term: metadata.term,
        };
        let is_possible = (1..NUMBER_MAX).contains(&position.index) && (1..=message.term).contains(&position.term);
        if !is_possible {
            return Err(malformed("its place cannot be"));
        }
        let membership = read_membership(message.get_snapshot()).map_err(malformed)?;
        if !membership.contains(self.me) {
            return Err(malformed("this member is not in it"));
        }
        if self.receiving.as_ref().is_some_and(|other| other.machine.is_some()) {
            return Err(SnapshotError::Busy);
        }
        let log = &self.node.raft.raft_log;
        let is_there = log.match_term(position.index, position.term);
        if is_there || position.index <= log.committed {
            let index = position.index;
            if is_there || index < log.committed {
                // raft-rs answers it with how far this member is, so that its leader goes on from there.
                self.step(message);
            }
            return Err(SnapshotError::NotNeeded { index });
        }
        let id = SnapshotId { from, position };
        self.receiving = None;
        let begun = self.store_mut().begin_load(position);
        self.or_stop(begun)?;
        self.receiving = Some(Receiving {
            id,
            message,
            machine: None,
        });
        Ok(id)
    }

    /// Takes the next piece. One that was taken before does nothing.
    ///
    /// # Errors
    /// [`SnapshotError`]. After [`SnapshotError::Broken`] the right next piece is still taken.
    pub fn snapshot_piece(&mut self, id: SnapshotId, piece: &Piece) -> Result<(), SnapshotError> {
        self.check_receiver()?;
        self.check_receiving(id)?;
        let loaded = self.store_mut().load(piece);
        self.or_stop(loaded)
    }

    /// Ends a snapshot. True: it is whole, and [`Core::process`] makes it count. False: meanwhile it is not needed any more. Either way its sender
    /// may call it whole. Takes as long as loading the whole state.
    ///
    /// # Errors
    /// [`SnapshotError`]: it is forgotten.
    pub fn finish_snapshot(&mut self, id: SnapshotId, end: &SnapshotEnd) -> Result<bool, SnapshotError> {
        self.check_receiver()?;
        let receiving = self.check_receiving(id)?;
        if receiving.machine.is_some() {
            return Ok(true);
        }
        let message = receiving.message.clone();
        let checked = self.store_mut().finish_load(end);
        let loaded = checked.and_then(|()| self.store_mut().load_back(M::load));
        let machine = match self.or_stop(loaded) {
            Ok(Ok(machine)) => machine,
            Ok(Err(error)) => {
                self.abandon_snapshot()?;
                return Err(SnapshotError::Rows(Box::new(error)));
            }
            Err(error) => {
                if self.stopped.is_none() {
                    self.abandon_snapshot()?;
                }
                return Err(error);
            }
        };
        self.step(message);
        let is_taken = self.node.snap().is_some_and(|snapshot| {
            let metadata = snapshot.get_metadata();
            (metadata.index, metadata.term) == (id.position.index, id.position.term)
        });
        if !is_taken {
            self.abandon_snapshot()?;
            return Ok(false);
        }
        if let Some(receiving) = &mut self.receiving {
            receiving.machine = Some(machine);
        }
        Ok(true)
    }

    /// Forgets the snapshot that is being received, as when its stream broke off. One that is whole stays.
    ///
    /// # Errors
    /// [`SnapshotError::Stopped`].
    pub fn abandon_snapshot(&mut self) -> Result<(), SnapshotError> {
        self.check_receiver()?;
        if self
            .receiving
            .as_ref()
            .is_some_and(|receiving| receiving.machine.is_some())
        {
            return Ok(());
        }
        self.receiving = None;
        let abandoned = self.store_mut().abandon_load();
        self.or_stop(abandoned)
    }

    fn check_receiver(&self) -> Result<(), SnapshotError> {
        match &self.stopped {
            Some(why) => Err(SnapshotError::Stopped { why: why.clone() }),
            None => Ok(()),
        }
    }

    fn check_receiving(&self, id: SnapshotId) -> Result<&Receiving<M>, SnapshotError> {
        let receiving = self.receiving.as_ref().filter(|receiving| receiving.id == id);
        receiving.ok_or(SnapshotError::Unknown {
            index: id.position.index,
        })
    }

    /// A part that does not fit is the snapshot's fault; any other error is the disk's.
    fn or_stop<R>(&mut self, result: Result<R, StoreError>) -> Result<R, SnapshotError> {
        result.map_err(|error| match error {
            StoreError::Snapshot { .. } => SnapshotError::Broken(error),
            error => {
                let why = self.stop(&CoreError::Store(error));
                SnapshotError::Stopped { why }
            }
        })
    }
}
