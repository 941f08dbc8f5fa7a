//! What must hold, whatever happens.
//!
//! 1. All members apply the same commands at the same places, and have the same state after each; also after a restart or a snapshot.
//! 2. In a term at most one member leads.
//! 3. A write that was acknowledged stands where it was acknowledged, for ever.
//! 4. A read, and a write, sees everything that was acknowledged or read before it was asked for (linearizability: the log is the order, so
//!    that it is enough to compare places).
//! 5. A ticket has one outcome.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::MemberId;

use super::subject::Seen;

#[derive(Debug, Default)]
pub(super) struct Checker {
    /// What the first member that applied an entry saw.
    history: BTreeMap<u64, Seen>,
    commands: BTreeMap<u64, u64>,
    leaders: BTreeMap<u64, MemberId>,
    trusted: BTreeSet<u64>,
    /// The last place that anybody outside knows of.
    floor: u64,
}

impl Checker {
    pub(super) fn applied(&mut self, member: MemberId, index: u64, seen: Seen) -> Result<(), String> {
        let first = *self.history.entry(index).or_insert(seen);
        if first != seen {
            return Err(format!(
                "{member} applied {seen:?} at {index}, another member {first:?}"
            ));
        }
        let place = *self.commands.entry(seen.command).or_insert(index);
        if place != index {
            return Err(format!("one command stands at {place} and at {index}"));
        }
        Ok(())
    }

    /// The state of a member that applied everything up to `index`, by itself or by a snapshot.
    pub(super) fn state(&self, member: MemberId, index: u64, state: u64) -> Result<(), String> {
        match self.history.range(..=index).next_back() {
            Some((last, seen)) if seen.state != state => Err(format!(
                "{member} has another state at {index} than others had after {last}"
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn leads(&mut self, member: MemberId, term: u64) -> Result<(), String> {
        let first = *self.leaders.entry(term).or_insert(member);
        if first == member {
            Ok(())
        } else {
            Err(format!("{first} and {member} lead in term {term}"))
        }
    }

    pub(super) fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// What whoever asks now must see at least.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn acknowledged(&mut self, index: u64, command: u64, floor: u64) -> Result<(), String> {
        if self.history.get(&index).is_none_or(|seen| seen.command != command) {
            return Err(format!("a write was acknowledged at {index}, where another stands"));
        }
        if index <= floor {
            return Err(format!(
                "a write stands at {index}, before what was known when it was asked for: {floor}"
            ));
        }
        self.floor = self.floor.max(index);
        Ok(())
    }

    /// A write that somebody takes for done without knowing where it stands.
    pub(super) fn trusted(&mut self, command: u64) {
        self.trusted.insert(command);
    }

    pub(super) fn read(&mut self, index: u64, floor: u64) -> Result<(), String> {
        if index < floor {
            return Err(format!(
                "a read saw the state at {index}, though {floor} was known when it was asked for"
            ));
        }
        self.floor = self.floor.max(index);
        Ok(())
    }

    /// When everybody agrees, in the end.
    pub(super) fn finish(&self, applied: u64) -> Result<(), String> {
        let last = self.history.keys().next_back().copied().unwrap_or_default();
        if self.floor > applied || last > applied {
            return Err(format!(
                "{} was acknowledged and {last} applied, but all end at {applied}",
                self.floor
            ));
        }
        match self.trusted.iter().find(|command| !self.commands.contains_key(command)) {
            None => Ok(()),
            Some(_) => Err(String::from("a write that was taken for done stands nowhere")),
        }
    }
}
