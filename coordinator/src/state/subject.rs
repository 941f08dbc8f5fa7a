//! What a change was about: remembered with its answer, so that a change that is sent again can be answered with what the first one did, whatever its
//! names mean by now.

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{ItemId, JobId, MemberId, PointId, PolicyId, TokenId, VaultId, WorkerId};

use super::command::Command;
use super::reply::Reply;

/// The one thing that a change was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// None, or several.
    Other,
    /// A coordinator.
    Member(MemberId),
    /// A vault.
    Vault(VaultId),
    /// A policy.
    Policy(PolicyId),
    /// An item.
    Item(ItemId),
    /// A point.
    Point(PointId),
    /// A job.
    Job(JobId),
    /// A worker.
    Worker(WorkerId),
    /// A token.
    Token(TokenId),
}

impl Subject {
    /// Of a command that was decided.
    pub(super) fn of(command: &Command, reply: &Reply) -> Self {
        let made = match reply {
            Reply::Made(number) => Some(*number),
            _ => None,
        };
        match command {
            Command::AddMember(_) => made.map_or(Self::Other, |made| Self::Member(MemberId(made))),
            Command::RemoveMember { member } => Self::Member(*member),
            Command::AddVault(_) | Command::Enqueue(_) => made.map_or(Self::Other, |made| Self::Job(JobId(made))),
            Command::RemoveVault { vault } => Self::Vault(*vault),
            Command::CreatePolicy { policy, .. }
            | Command::UpdatePolicy { policy, .. }
            | Command::RemovePolicy { policy } => Self::Policy(*policy),
            Command::Protect { item, .. } => Self::Item(match reply {
                Reply::Item(id) => *id,
                _ => *item,
            }),
            Command::UpdateItem { item, .. } | Command::Unprotect { item } => Self::Item(*item),
            Command::Hold { point, .. } | Command::Release { point } | Command::ShowPoint { point } => {
                Self::Point(*point)
            }
            Command::HidePoints { points, .. } => match points.as_slice() {
                [only] => Self::Point(*only),
                _ => Self::Other,
            },
            Command::Cancel { job } | Command::Retry { job } => Self::Job(*job),
            Command::AddWorker(_) => made.map_or(Self::Other, |made| Self::Worker(WorkerId(made))),
            Command::Register { worker, .. } | Command::Drain { worker, .. } | Command::RemoveWorker { worker } => {
                Self::Worker(*worker)
            }
            Command::CreateApiToken(spec) => Self::Token(spec.token),
            Command::CreateJoinToken(spec) => Self::Token(spec.token),
            Command::RevokeToken { token } => Self::Token(*token),
            Command::Found(_)
            | Command::RaiseVersion { .. }
            | Command::StopExpiry { .. }
            | Command::ConfirmClock
            | Command::GiveUpPoints { .. }
            | Command::AdoptPoints { .. }
            | Command::Lease { .. }
            | Command::ExpireLease { .. }
            | Command::Complete(_)
            | Command::Fail { .. }
            | Command::GrantSlots { .. }
            | Command::ReportFindings { .. }
            | Command::Note { .. }
            | Command::SetLimit { .. }
            | Command::RemoveLimit { .. }
            | Command::AddChannel(_)
            | Command::RemoveChannel { .. }
            | Command::Tell(_)
            | Command::NoteSent { .. }
            | Command::KeepLog { .. } => Self::Other,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::state::entry::Actor;
    use crate::testing::{Acts, MAIN, Story, item_spec};

    /// Applies a command under a key and returns what is remembered of it.
    fn about(story: &mut Story, key: u8, command: Command) -> Subject {
        let kind = command.kind();
        story.applies(Actor::Founder, Some([key; 16]), command);
        story.state.answer(&[key; 16], kind).unwrap().about
    }

    #[test]
    fn an_answer_remembers_what_its_change_was_about() {
        let mut story = Story::new();
        let item = story.protect("web", None);
        let point = story.backs_up(item);
        let hold = Command::Hold {
            point,
            reason: String::from("audit"),
        };
        assert_eq!(about(&mut story, 1, hold), Subject::Point(point));
        assert_eq!(
            about(&mut story, 1, Command::Release { point }),
            Subject::Point(point),
            "a key counts for each kind of change"
        );
        let hide = Command::HidePoints {
            points: vec![point],
            by_retention: false,
        };
        assert_eq!(about(&mut story, 2, hide), Subject::Point(point));
        assert_eq!(about(&mut story, 3, Command::Unprotect { item }), Subject::Item(item));
        let vault = VaultId([9; 16]);
        story.adds_vault(vault, "empty");
        assert_eq!(
            about(&mut story, 4, Command::RemoveVault { vault }),
            Subject::Vault(vault)
        );
        story.does(Command::StopExpiry { step: 1 });
        assert_eq!(about(&mut story, 5, Command::ConfirmClock), Subject::Other);
    }

    #[test]
    fn a_machine_that_is_protected_again_goes_on_under_its_old_id() {
        let mut story = Story::new();
        let item = story.protect("web", None);
        story.backs_up(item);
        story.does(Command::Unprotect { item });
        let again = Command::Protect {
            item: ItemId([0xee; 16]),
            spec: item_spec("web", MAIN, None),
            also: false,
        };
        assert_eq!(about(&mut story, 1, again), Subject::Item(item));
    }

    #[test]
    fn what_is_made_is_remembered_by_its_number() {
        let mut story = Story::new();
        let item = story.protect("web", None);
        let enqueue = Command::Enqueue(crate::state::command::JobSpec {
            vault: MAIN,
            work: crate::state::command::Work::Backup { item, keep_until: None },
            priority: 0,
            not_before: story.now,
            occurrence: None,
        });
        let Subject::Job(job) = about(&mut story, 1, enqueue) else {
            panic!("a job is queued")
        };
        assert!(story.state.jobs().contains(&job));
        let worker = story.adds_worker("w2");
        assert_eq!(
            about(&mut story, 2, Command::Drain { worker, drained: true }),
            Subject::Worker(worker)
        );
    }

    #[test]
    fn vaults_count_their_points_through_everything_that_makes_and_ends_them() {
        let mut story = Story::new();
        let item = story.protect("web", None);
        let first = story.backs_up(item);
        story.backs_up(item);
        let counts = |story: &Story| {
            let counts = story.state.points_in(MAIN);
            (counts.all, counts.harmed)
        };
        assert_eq!(counts(&story), (2, 0));
        for _ in 0..2 {
            story.does(Command::ReportFindings {
                vault: MAIN,
                harmed: vec![first],
            });
            assert_eq!(counts(&story), (2, 1), "harm is counted once");
        }
        story.does(Command::HidePoints {
            points: vec![first],
            by_retention: false,
        });
        story.advance(crate::state::UNDO_MS);
        story.does(Command::GiveUpPoints { points: vec![first] });
        assert_eq!(counts(&story), (1, 0));
        // Every entry was followed by a check that the counts are as if counted anew.
        story.state.check_invariants(1_000_000).unwrap();
    }

    #[test]
    fn items_are_listed_by_name_from_any_of_them_on() {
        let mut story = Story::new();
        let worker = story.worker;
        story.makes_vault(VaultId([0x22; 16]), "archive", worker);
        for name in ["b", "a", "c"] {
            story.protect(name, None);
        }
        story.protects("b", VaultId([0x22; 16]), None);
        let all: Vec<(String, ItemId)> = story
            .state
            .items_by_name_from("", ItemId([0; 16]))
            .map(|(name, id)| (name.to_owned(), id))
            .collect();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "b", "c"]);
        assert!(all.is_sorted());
        for at in 0..all.len() {
            let (name, id) = &all[at];
            let rest: Vec<ItemId> = story.state.items_by_name_from(name, *id).map(|(_, id)| id).collect();
            let expected: Vec<ItemId> = all[at..].iter().map(|(_, id)| *id).collect();
            assert_eq!(rest, expected);
        }
        assert_eq!(story.state.items_by_name_from("bb", ItemId([0; 16])).count(), 1);
    }
}
