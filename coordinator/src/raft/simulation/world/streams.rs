//! Snapshots on their way: streams that move a step a round, break, and repeat themselves.

use tresor_proto::ids::MemberId;

use super::super::Subject;
use super::World;
use crate::raft::{Refused, SnapshotError, SnapshotId};
use crate::store::Outgoing;
use crate::store::memory::MemoryView;

/// A snapshot on its way.
pub(super) struct Stream {
    pub(super) from: MemberId,
    pub(super) from_life: u64,
    pub(super) to: MemberId,
    pub(super) header: Vec<u8>,
    pub(super) id: Option<SnapshotId>,
    pub(super) snapshot: Outgoing<MemoryView>,
}

impl<M: Subject> World<M> {
    /// Moves each stream a step on, or breaks it.
    pub(super) fn stream(&mut self) -> Result<(), String> {
        let mut kept = Vec::new();
        for mut stream in std::mem::take(&mut self.streams) {
            let sender = &self.nodes[&stream.from];
            if sender.core.is_none() || sender.lives != stream.from_life {
                continue;
            }
            let breaks = self.settings.loses != 0 && self.random.one_in(10);
            let is_cut = self.cuts.contains(&(stream.from, stream.to));
            let mut step = || self.stream_step(&mut stream);
            let outcome = if breaks || is_cut { Some(false) } else { step()? };
            match outcome {
                None => kept.push(stream),
                Some(is_whole) => {
                    self.report.broken_streams += u64::from(!is_whole);
                    if !is_whole && let Some(core) = self.core(stream.to) {
                        // Or not: who sees no end of a stream notices later, or never.
                        let _ = core.abandon_snapshot();
                    }
                    if let Some(core) = self.core(stream.from) {
                        core.report_snapshot(stream.to, is_whole);
                    }
                }
            }
            self.process_all()?;
        }
        self.streams.extend(kept);
        Ok(())
    }

    /// One step of a stream; in the end, whether it is whole.
    fn stream_step(&mut self, stream: &mut Stream) -> Result<Option<bool>, String> {
        let old = self.old_piece.take();
        let Some(core) = self.core(stream.to) else {
            return Ok(Some(false));
        };
        if let Some((to, id, piece)) = old
            && to == stream.to
        {
            // Late, doubled, or of a snapshot that is over: it must not matter.
            let _ = core.snapshot_piece(id, &piece);
        }
        let Some(id) = stream.id else {
            return match core.begin_snapshot(stream.from, &stream.header) {
                Ok(id) => {
                    stream.id = Some(id);
                    Ok(None)
                }
                Err(SnapshotError::NotNeeded { .. }) => Ok(Some(true)),
                Err(
                    SnapshotError::Busy
                    | SnapshotError::Stopped { .. }
                    | SnapshotError::Refused(Refused::Removed { .. }),
                ) => Ok(Some(false)),
                Err(error) => Err(format!("{} refused a snapshot: {error:?}", stream.to)),
            };
        };
        let piece = stream.snapshot.next_piece().map_err(|e| e.to_string())?;
        let result = match &piece {
            Some(piece) => core.snapshot_piece(id, piece).map(|()| None),
            None => {
                let end = stream.snapshot.end().expect("no piece is left");
                core.finish_snapshot(id, &end).map(|_| Some(true))
            }
        };
        if let Some(piece) = piece {
            self.old_piece = Some((stream.to, id, piece));
        }
        match result {
            Ok(outcome) => Ok(outcome),
            // Another stream began meanwhile, or the receiver came back without it, or its disk failed.
            Err(SnapshotError::Unknown { .. } | SnapshotError::Stopped { .. }) => Ok(Some(false)),
            Err(SnapshotError::Broken(_)) => Ok(Some(false)),
            Err(error) => Err(format!("{} did not take a snapshot: {error:?}", stream.to)),
        }
    }
}
