//! Coordinators and workers: joined by a token, registered, drained, removed for good.

use tresor_proto::ids::{MemberId, WorkerId};

use super::command::{MemberSpec, WorkerFacts, WorkerSpec};
use super::entry::Time;
use super::limits::LimitSubject;
use super::reply::{Refusal, Reply};
use super::rows::{Member, Worker};
use super::texts::{LONG_LINE_MAX, check_label, check_labels, check_line, check_long_line};
use super::{NODES_MAX, State};

/// Prefixes of stores that a worker reaches.
const STORES_MAX: usize = 64;

fn check_facts(facts: &WorkerFacts) -> Result<(), Refusal> {
    check_line("host", &facts.host)?;
    check_line("version", &facts.version)?;
    check_labels("labels", &facts.labels)?;
    if facts.stores.len() > STORES_MAX {
        return Err(Refusal::invalid("stores", format!("at most {STORES_MAX} fit")));
    }
    for store in &facts.stores {
        check_long_line("stores", store, LONG_LINE_MAX)?;
    }
    check_line("region", &facts.region)?;
    check_line("serves", &facts.serves)?;
    if !facts.serves.is_empty() && !is_address(&facts.serves) {
        return Err(Refusal::invalid("serves", "must be host:port"));
    }
    Ok(())
}

/// Whether a text is `host:port`; the host is not looked up.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let digits = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && digits
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

impl State {
    pub(super) fn add_member(&mut self, index: u64, spec: &MemberSpec) -> Result<Reply, Refusal> {
        check_label("name", &spec.name)?;
        check_label("address", &spec.address)?;
        let present = |member: &&Member| !member.removed;
        if self
            .members
            .values()
            .filter(present)
            .any(|member| member.name == spec.name)
        {
            return Err(Refusal::exists("coordinator", &spec.name));
        }
        if self
            .members
            .values()
            .filter(present)
            .any(|member| member.address == spec.address)
        {
            return Err(Refusal::Exists {
                what: String::from("coordinator"),
                name: spec.name.clone(),
                beside: format!(" at {}", spec.address),
            });
        }
        let joined = self.members.values().filter(|row| self.is_of_this_cluster(row.joined));
        if joined.count() as u64 >= NODES_MAX {
            return Err(full());
        }
        let id = if spec.member == MemberId(0) {
            MemberId(index)
        } else {
            spec.member
        };
        if self.members.contains(&id) {
            return Err(Refusal::exists("coordinator", id));
        }
        self.use_join_token(spec.token, "coordinator")?;
        let row = Member {
            name: spec.name.clone(),
            address: spec.address.clone(),
            joined: self.clock.now,
            removed: false,
        };
        self.members.insert(id, row);
        Ok(Reply::Made(id.0))
    }

    /// Whether a node joined this cluster, and not the lost one that it was founded again from. The clock never goes back.
    fn is_of_this_cluster(&self, joined: Time) -> bool {
        self.cluster().is_none_or(|cluster| joined >= cluster.created)
    }

    pub(super) fn remove_member(&mut self, id: MemberId) -> Result<Reply, Refusal> {
        let left = self.members.values().filter(|member| !member.removed).count();
        let Some(member) = self.members.get(&id).filter(|member| !member.removed) else {
            return Err(Refusal::missing("coordinator", id));
        };
        if left == 1 {
            return Err(Refusal::held(format!("coordinator {} is the only one", member.name)));
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.removed = true;
        }
        Ok(Reply::Done)
    }

    pub(super) fn add_worker(&mut self, index: u64, spec: &WorkerSpec) -> Result<Reply, Refusal> {
        check_label("name", &spec.name)?;
        if self.views.worker_names.contains_key(&spec.name) {
            return Err(Refusal::exists("worker", &spec.name));
        }
        let joined = self.workers.values().filter(|row| self.is_of_this_cluster(row.joined));
        if joined.count() as u64 >= NODES_MAX {
            return Err(full());
        }
        self.use_join_token(spec.token, "worker")?;
        let id = WorkerId(index);
        self.views.worker_names.insert(spec.name.clone(), id);
        let row = Worker {
            name: spec.name.clone(),
            joined: self.clock.now,
            life: None,
            facts: WorkerFacts::default(),
            drained: false,
            removed: false,
            kept_life: None,
        };
        self.workers.insert(id, row);
        Ok(Reply::Made(index))
    }

    fn worker_mut(&mut self, id: WorkerId) -> Result<&mut Worker, Refusal> {
        match self.workers.get(&id) {
            Some(worker) if !worker.removed => Ok(self.workers.get_mut(&id).expect("it was just there")),
            _ => Err(Refusal::missing("worker", id)),
        }
    }

    pub(super) fn register(
        &mut self,
        index: u64,
        id: WorkerId,
        life: [u8; 16],
        facts: &WorkerFacts,
        kept_life: Option<[u8; 16]>,
    ) -> Result<Reply, Refusal> {
        check_facts(facts)?;
        if kept_life == Some(life) {
            return Err(Refusal::invalid(
                "kept_life",
                "is the life that begins: it has used nothing yet",
            ));
        }
        let worker = self.worker_mut(id)?;
        worker.life = Some(life);
        worker.facts = facts.clone();
        worker.kept_life = kept_life;
        if facts.serves.is_empty() {
            self.free_slots(index, id);
        }
        Ok(Reply::Done)
    }

    pub(super) fn drain(&mut self, id: WorkerId, drained: bool) -> Result<Reply, Refusal> {
        self.worker_mut(id)?.drained = drained;
        Ok(Reply::Done)
    }

    pub(super) fn remove_worker(&mut self, index: u64, id: WorkerId) -> Result<Reply, Refusal> {
        let worker = self.worker_mut(id)?;
        worker.removed = true;
        worker.life = None;
        worker.kept_life = None;
        let name = worker.name.clone();
        self.views.worker_names.remove(&name);
        self.free_slots(index, id);
        self.drop_limit(&LimitSubject::Worker(id));
        self.clock.removals = index;
        Ok(Reply::Done)
    }
}

fn full() -> Refusal {
    Refusal::Full {
        what: String::from("nodes, removed ones included"),
        max: NODES_MAX,
    }
}
