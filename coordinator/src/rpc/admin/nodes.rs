//! Workers and coordinators.

use tresor_proto::ids::WorkerId;
use tresor_proto::v1;

use crate::lead::placement;
use crate::node::handle::{Membership, Standing};
use crate::node::presence::Presence;
use crate::rpc::caller::Caller;
use crate::rpc::context::{Services, made_before};
use crate::rpc::convert::SlotCounts;
use crate::rpc::kinds::Kind;
use crate::rpc::page::Page;
use crate::rpc::refused::Refused;
use crate::rpc::{convert, fields, resolve};
use crate::state::command::Command;
use crate::state::{State, Subject};

impl Services {
    /// Workers by name, but those that were removed.
    pub(crate) async fn list_workers(
        &self,
        _: &Caller,
        message: v1::ListWorkersRequest,
    ) -> Result<v1::ListWorkersResponse, Refused> {
        let page = Page::<String>::read("workers", &(), message.page_size, &message.page_token)?;
        let (presence, now_ms) = (self.presence(), self.clock.monotonic_ms());
        self.look(|state| {
            let slots = SlotCounts::new(state);
            let after = page.after.as_deref();
            let rows = state
                .workers_by_name()
                .filter(|(name, _)| after.is_none_or(|after| *name > after))
                .map(|(name, id)| (name.to_owned(), id));
            let (workers, next_page_token) = page.fill(rows, |_, id| {
                let row = state.workers().get(&id)?;
                Some(convert::worker(state, &presence, &slots, id, row, now_ms))
            });
            Ok(v1::ListWorkersResponse {
                workers,
                next_page_token,
            })
        })
        .await
    }

    /// Gives a worker no new work, or gives it work again.
    pub(crate) async fn drain_worker(
        &self,
        caller: &Caller,
        message: v1::DrainWorkerRequest,
    ) -> Result<v1::Worker, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let made = self
            .change(caller, Kind::Drain, key, |state| {
                Ok(Command::Drain {
                    worker: resolve::worker(state, &message.name)?,
                    drained: message.drained,
                })
            })
            .await?;
        let id = worker_of(made.about)?;
        let (presence, now_ms) = (self.presence(), self.clock.monotonic_ms());
        self.handle.read(|state| one_worker(state, &presence, id, now_ms))
    }

    /// A worker, and what takes a look at all items and workers: how many items it can back up, and who could take its slots.
    pub(crate) async fn get_worker(&self, _: &Caller, message: v1::GetWorkerRequest) -> Result<v1::Worker, Refused> {
        let (presence, now_ms) = (self.presence(), self.clock.monotonic_ms());
        self.look_long(move |_, state| {
            let id = resolve::worker(state, &message.name)?;
            let mut worker = one_worker(state, &presence, id, now_ms)?;
            let row = state.workers().get(&id).ok_or_else(|| Refused::missing("worker", id))?;
            let items = state.items().values().filter(|item| item.protected);
            let reached = items.filter(|item| row.facts.jobs && placement::unreached(state, row, &item.spec).is_none());
            worker.items = Some(reached.count() as u64);
            Ok(worker)
        })
        .await?
    }

    /// Removes a worker for good. One that is alive and has slots of the index is drained first, so that they move while it still answers.
    pub(crate) async fn remove_worker(
        &self,
        caller: &Caller,
        message: v1::RemoveWorkerRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let (presence, now_ms) = (self.presence(), self.clock.monotonic_ms());
        let made = self
            .change(caller, Kind::RemoveWorker, key, |state| {
                let worker = resolve::worker(state, &message.name)?;
                let slots = SlotCounts::new(state).of(worker);
                if !message.force && slots > 0 && presence.is_present(state, worker, now_ms) {
                    return Err(Refused::Held {
                        why: format!("worker {} is alive and has {slots} slots of the index", message.name),
                        hint: format!("tresor worker drain {} --wait, then again; or --force", message.name),
                    });
                }
                Ok(Command::RemoveWorker { worker })
            })
            .await?;
        worker_of(made.about).map(|_| v1::Empty {})
    }

    /// Coordinators, and how each stands as this one knows it.
    pub(crate) async fn list_coordinators(
        &self,
        _: &Caller,
        _: v1::ListCoordinatorsRequest,
    ) -> Result<v1::ListCoordinatorsResponse, Refused> {
        self.handle.barrier().await?;
        let standing = self.handle.standing().await?;
        Ok(v1::ListCoordinatorsResponse {
            coordinators: self.handle.read(|state| self.coordinators(state, &standing)),
        })
    }

    pub(super) fn coordinators(&self, state: &State, standing: &Standing) -> Vec<v1::Coordinator> {
        let leader = self.handle.leadership().borrow().leader;
        let present = state.members().iter().filter(|(_, member)| !member.removed);
        present
            .map(|(id, member)| {
                let known = standing.members.iter().find(|known| known.member == *id);
                let is_me = *id == self.handle.me();
                v1::Coordinator {
                    id: id.0,
                    name: member.name.clone(),
                    address: member.address.clone(),
                    role: match known {
                        Some(known) if known.votes => String::from("voter"),
                        _ => String::from("learner"),
                    },
                    leader: leader == Some(*id),
                    term: if is_me { standing.term } else { 0 },
                    commit: if is_me { standing.commit } else { 0 },
                    applied: if is_me { standing.applied } else { 0 },
                    matched: known.map_or(0, |known| known.matched),
                    reachable: is_me || known.is_some_and(|known| known.reachable),
                    clock_ms: known.map_or(0, |known| known.clock_ms),
                }
            })
            .collect()
    }

    /// Removes a coordinator for good: first from those that decide, then from those that are let in. Whatever ends in between is finished by asking again.
    pub(crate) async fn remove_coordinator(
        &self,
        caller: &Caller,
        message: v1::RemoveCoordinatorRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let member = self
            .look(|state| {
                if made_before(state, Kind::RemoveMember, &key).is_some() {
                    return Ok(None);
                }
                let member = resolve::member(state, &message.name)?;
                let left = state.members().values().filter(|member| !member.removed).count();
                if left == 1 {
                    return Err(Refused::Held {
                        why: format!("coordinator {} is the only one", message.name),
                        hint: String::new(),
                    });
                }
                Ok(Some(member))
            })
            .await?;
        if let Some(member) = member {
            if member == self.handle.me() {
                return Err(Refused::Held {
                    why: format!("coordinator {} leads: it cannot remove itself", message.name),
                    hint: String::from("tresor coordinator transfer, then again"),
                });
            }
            let standing = self.handle.standing().await?;
            if standing.members.iter().any(|known| known.member == member) {
                self.handle.membership(Membership::Remove { member }).await?;
            }
        }
        let made = self
            .change(caller, Kind::RemoveMember, key, |state| {
                let member = resolve::member(state, &message.name)?;
                Ok(Command::RemoveMember { member })
            })
            .await?;
        match made.about {
            Subject::Member(_) => Ok(v1::Empty {}),
            _ => Err(Refused::OtherChange),
        }
    }

    /// Gives the lead to another coordinator: to the one that is named, or to any.
    pub(crate) async fn transfer_leader(
        &self,
        caller: &Caller,
        message: v1::TransferLeaderRequest,
    ) -> Result<v1::Empty, Refused> {
        let to = self
            .look(|state| match message.to.as_str() {
                "" => Ok(None),
                name => resolve::member(state, name).map(Some),
            })
            .await?;
        let note = Command::Note {
            action: String::from("transfer lead"),
            object: to.map_or_else(|| String::from("to any"), |to| format!("to coordinator {to}")),
        };
        self.handle.change(caller.actor.clone(), None, note).await?;
        self.handle.transfer(to).await?;
        Ok(v1::Empty {})
    }

    /// Says that the clock is right after it stepped.
    pub(crate) async fn confirm_clock(
        &self,
        caller: &Caller,
        message: v1::ConfirmClockRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        self.change(caller, Kind::ConfirmClock, key, |_| Ok(Command::ConfirmClock))
            .await?;
        Ok(v1::Empty {})
    }
}

/// A worker, with who could take its slots.
fn one_worker(state: &State, presence: &Presence, id: WorkerId, now_ms: u64) -> Result<v1::Worker, Refused> {
    let row = state.workers().get(&id).ok_or_else(|| Refused::missing("worker", id))?;
    let takers = state.workers().iter().filter(|(other, row)| {
        let serves = !row.removed && !row.drained && !row.facts.serves.is_empty();
        **other != id && serves && presence.is_present(state, **other, now_ms)
    });
    let takers = u32::try_from(takers.count()).unwrap_or(u32::MAX);
    Ok(v1::Worker {
        takers: Some(takers),
        ..convert::worker(state, presence, &SlotCounts::new(state), id, row, now_ms)
    })
}

fn worker_of(about: Subject) -> Result<WorkerId, Refused> {
    match about {
        Subject::Worker(id) => Ok(id),
        _ => Err(Refused::OtherChange),
    }
}
