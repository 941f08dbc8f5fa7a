//! Who may ask at all. What a person's role allows is decided before an entry is proposed; what is decided here holds whoever proposed it, and in the
//! order of the log: nothing of a node or token counts that comes after its removal.

use super::State;
use super::command::Command;
use super::entry::{Actor, Entry};
use super::reply::Refusal;
use super::rows::TokenUse;

impl State {
    /// ◆ A node that is removed, or that the log does not know, is refused by its number.
    pub(super) fn check_actor(&self, entry: &Entry) -> Result<(), Refusal> {
        let actor = &entry.actor;
        match actor {
            Actor::Worker(id) => {
                if self.workers.get(id).is_none_or(|worker| worker.removed) {
                    return Err(Refusal::denied(format!("worker {id} was removed")));
                }
                let its_own = match &entry.command {
                    Command::Register { worker, .. } | Command::Lease { worker, .. } => worker == id,
                    // Whether the lease is its own is looked at with the lease.
                    Command::ExpireLease { .. } | Command::Complete(_) | Command::Fail { .. } => true,
                    Command::KeepLog { .. } => true,
                    Command::AdoptPoints { .. } | Command::ReportFindings { .. } | Command::Note { .. } => true,
                    _ => false,
                };
                if !its_own {
                    return Err(Refusal::denied("this is not for a worker to ask"));
                }
            }
            Actor::Member(id) => {
                if self.members.get(id).is_none_or(|member| member.removed) {
                    return Err(Refusal::denied(format!("coordinator {id} was removed")));
                }
            }
            Actor::Token(id) => {
                let good = self.tokens.get(id).is_some_and(|token| {
                    matches!(token.used_for, TokenUse::Api { .. }) && token.is_good(self.clock.now)
                });
                if !good {
                    return Err(Refusal::denied("this token was ended, or is too old"));
                }
            }
            Actor::Cluster | Actor::Local { .. } | Actor::Founder => {}
        }
        let person = matches!(actor, Actor::Token(_) | Actor::Local { .. } | Actor::Founder);
        if matches!(entry.command, Command::ConfirmClock) && !person {
            return Err(Refusal::denied("a person is to look at the clocks"));
        }
        Ok(())
    }
}
