//! Answers that are remembered, so that a change sent again is made once.
//!
//! Only changes that were made are remembered. One that was refused left nothing to protect: sent again, it is looked at again, and may be possible by
//! then (the vault is ready, the other job has ended). So a refusal never outlives its cause, and refusals cannot push out answers that matter.
//!
//! A key counts for one kind of change: of a request that becomes two changes (an item is made and backed up), both are made, once.

use super::command::Command;
use super::entry::IdempotencyKey;
use super::reply::Reply;
use super::rows::Answered;
use super::{ANSWERS_MAX, ANSWERS_MS, State, Subject};

impl State {
    /// The answer to the same change, if it was made already.
    pub(super) fn remembered(&self, key: IdempotencyKey, command: &Command) -> Option<Reply> {
        let number = self.views.answers.get(&(key, command.kind()))?;
        self.answers.get(number).map(|answer| answer.reply.clone())
    }

    pub(super) fn remember_answer(&mut self, key: IdempotencyKey, command: &Command, reply: Reply) {
        let number = self.clock.answers_next;
        self.clock.answers_next += 1;
        let at = self.clock.now;
        let kind = command.kind();
        let about = Subject::of(command, &reply);
        let answer = Answered {
            key,
            kind,
            at,
            reply,
            about,
        };
        self.answers.insert(number, answer);
        self.views.answers.insert((key, kind), number);
        // At most two go for each that comes: the work of an entry is bounded, and the table shrinks to its bound.
        for _ in 0..2 {
            let Some((&oldest, answer)) = self.answers.first() else {
                break;
            };
            if self.answers.len() <= ANSWERS_MAX && at.since(answer.at) < ANSWERS_MS {
                break;
            }
            let key = (answer.key, answer.kind);
            self.answers.remove(&oldest);
            self.views.answers.remove(&key);
        }
    }
}
