//! A cluster that begins again from what is left of a lost one.
//!
//! What is left may be old: entries that the lost cluster acknowledged later are not in it. So nothing is taken for granted that a later entry may have
//! changed:
//!
//! - The cluster has another identity, another authority and other coordinators: what is left of the lost one cannot be taken for it, nor it for them.
//! - Every vault is to be claimed anew, above all claims that are there. Until its claim stands nobody works in it; then whoever still writes for the lost
//!   cluster is refused by the store, and points that are there and not known here are found again.
//! - What waited or ran has ended: who ran it does not answer to this cluster.
//! - Tokens and workers are refused: one of them may have been removed since. They get new tokens, and join anew.
//! - Nothing expires until a person has looked: a point may have been held since.
//! - Numbers go on [far above](GAP) the newest that is known.
//!
//! This is no entry of a log: it is done to rows before there is a log. Nobody can ask a running cluster for it.

use std::collections::BTreeSet;

use tresor_proto::ids::{JobId, MemberId, SessionId, TokenId, VaultId, WorkerId};

use super::audit::Described;
use super::command::{ApiTokenSpec, Failure, FailureKind, JobSpec, MemberSpec, VaultOrigin, Work};
use super::entry::{Actor, Time};
use super::limits::LimitSubject;
use super::logs::Logs;
use super::reply::{Refusal, Reply};
use super::rows::{Cluster, JobState, Member, VaultState};
use super::texts::{check_blob, check_label};
use super::{FIRST_FORM, State};

/// How far above the newest entry that is known the log goes on: jobs, workers and coordinators have numbers of the log, and what the lost cluster numbered
/// later is not to be mistaken for something else. Some days of a large cluster.
pub const GAP: u64 = 1 << 20;

/// Stands where the step of a clock would stand that stopped every expiry ([`Marks::expiry_stopped`](super::rows::Marks)): no clock steps as far.
pub const FOUNDED_AGAIN: i64 = i64::MAX;

/// How a cluster begins again.
#[derive(Debug, Clone)]
pub struct Refounding {
    /// Drawn; in every certificate.
    pub cluster: [u8; 16],
    /// For people; none: as it was.
    pub name: Option<String>,
    /// The new authority's certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// The new authority's key, wrapped by the cluster key.
    pub ca_key: Vec<u8>,
    /// The only coordinator. It gets a number of the log.
    pub member: MemberSpec,
    /// The first administrator's token.
    pub admin: Option<ApiTokenSpec>,
    /// The wall clock.
    pub now: Time,
    /// What it begins from, for the audit trail.
    pub from: String,
}

/// What begins again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refounded {
    /// The index of the log that the rows are of. The first entry comes after it.
    pub index: u64,
    /// The coordinator's number.
    pub member: MemberId,
    /// Vaults that are to be claimed.
    pub vaults: u64,
    /// Jobs that waited or ran.
    pub jobs: u64,
}

impl State {
    /// Makes the state of a cluster that begins again of these rows, in which everything up to `applied` is.
    ///
    /// # Errors
    /// [`Refusal`]: for names that cannot be, or rows that contradict themselves. Then the state is of no use.
    pub fn refound(&mut self, applied: u64, refounding: &Refounding) -> Result<Refounded, Refusal> {
        self.check_refounding(refounding)?;
        let index = applied.max(self.clock.applied).saturating_add(GAP);
        self.drop_what_hangs();
        self.rename_doubles();
        self.clock.applied = index;
        // Past every moment of the lost cluster: which nodes joined which of both is told by it.
        self.clock.now = Time(self.clock.now.0.saturating_add(1)).max(refounding.now);
        self.begin_undo_anew();
        self.clock.form = self.clock.form.max(FIRST_FORM);
        self.clock.expiry_stopped = Some(FOUNDED_AGAIN);
        if self.audit.is_empty() {
            // The trail did not come along (a catalogue has none): a new one begins.
            (self.clock.audit_next, self.clock.audit_head) = (0, [0; 32]);
        }
        let jobs = self.end_jobs_of_lost();
        // They are on the disk that it is founded again from, and do not come along.
        self.logs = Logs::default();
        self.forget_nodes_before_lost();
        self.refuse_nodes_of_lost();
        self.drop_limits_of_lost();
        self.forget_tellings();
        self.refuse_tokens_of_lost(refounding)?;
        let member = self.begin_cluster(index, refounding);
        let vaults = self.claim_vaults_anew(index);
        self.clock.vaults = index;
        let what = Described::new("found cluster again", &refounding.from);
        self.remember(what, &Actor::Founder, &Reply::Done);
        self.marks.insert((), self.clock.clone());
        let checked = self.check_invariants(index);
        checked.map_err(|broken| Refusal::held(format!("the rows contradict themselves: {broken}")))?;
        Ok(Refounded {
            index,
            member,
            vaults,
            jobs,
        })
    }

    /// Says which cluster these rows are of, where they do not say so themselves, as those of catalogues.
    pub fn call(&mut self, cluster: [u8; 16], name: &str) {
        let row = Cluster {
            id: cluster,
            name: name.to_owned(),
            ca_certificate: Vec::new(),
            ca_key: Vec::new(),
            created: self.clock.now,
        };
        self.cluster.insert((), row);
    }

    /// Gives a vault another key, for tests.
    #[cfg(test)]
    pub(crate) fn give_key(&mut self, vault: VaultId, key: Vec<u8>) {
        if let Some(vault) = self.vaults.get_mut(&vault) {
            vault.spec.key = key;
        }
    }

    fn check_refounding(&self, refounding: &Refounding) -> Result<(), Refusal> {
        if let Some(name) = &refounding.name {
            check_label("name", name)?;
        }
        if refounding.name.is_none() && self.cluster.is_empty() {
            return Err(Refusal::invalid("name", "is not known: say how the cluster is called"));
        }
        check_label("member.name", &refounding.member.name)?;
        check_label("member.address", &refounding.member.address)?;
        check_blob("ca_certificate", &refounding.ca_certificate)?;
        check_blob("ca_key", &refounding.ca_key)
    }

    /// Rows whose other rows are missing, as where not all of a catalogue fitted. Points of an item that is not known are found again in their vault.
    fn drop_what_hangs(&mut self) {
        let items: Vec<_> = self.items.iter().map(|(id, item)| (*id, item.spec.clone())).collect();
        for (id, spec) in items {
            if !self.vaults.contains(&spec.vault) {
                self.items.remove(&id);
            } else if spec.policy.is_some_and(|policy| !self.policies.contains(&policy))
                && let Some(item) = self.items.get_mut(&id)
            {
                item.spec.policy = None;
            }
        }
        let hanging = |(id, item)| (!self.items.contains(&item)).then_some(id);
        let points = self.points.iter().map(|(id, point)| (*id, point.item));
        let points: Vec<_> = points.filter_map(hanging).collect();
        for id in points {
            self.points.remove(&id);
        }
        // One catalogue may be older than the giving up that another one tells of.
        let given_up: Vec<_> = self.given_up.iter().map(|(id, _)| *id).collect();
        for id in given_up {
            self.points.remove(&id);
        }
        self.views = super::views::Views::of(self);
    }

    /// Limits of workers and jobs of the lost cluster: none of both goes on. Those of stores and hosts stay.
    fn drop_limits_of_lost(&mut self) {
        let limits: Vec<_> = self.limits.iter().map(|(subject, _)| subject.clone()).collect();
        for subject in limits {
            if matches!(subject, LimitSubject::Worker(_) | LimitSubject::Job(_)) {
                self.limits.remove(&subject);
            }
        }
    }

    /// Names that two catalogues give to different things: they were told at different times. The newer keeps its name.
    fn rename_doubles(&mut self) {
        let mut policies: Vec<_> = self.policies.iter().map(|(id, row)| (row.version, *id)).collect();
        policies.sort_unstable();
        let mut taken = BTreeSet::new();
        for (_, id) in policies.into_iter().rev() {
            let Some(row) = self.policies.get_mut(&id) else {
                continue;
            };
            if !taken.insert(row.spec.name.clone()) {
                row.spec.name = beside(&row.spec.name, &id.to_string());
                taken.insert(row.spec.name.clone());
            }
        }
        let mut vaults: Vec<_> = self.vaults.iter().map(|(id, row)| (row.changed, *id)).collect();
        vaults.sort_unstable();
        let mut taken = BTreeSet::new();
        for (_, id) in vaults.into_iter().rev() {
            let Some(row) = self.vaults.get_mut(&id) else { continue };
            if !taken.insert(row.spec.name.clone()) {
                row.spec.name = beside(&row.spec.name, &id.to_string());
                taken.insert(row.spec.name.clone());
            }
        }
        self.views = super::views::Views::of(self);
    }

    /// Points that were hidden can be shown again for the whole time from here on: what was done to them since the rows were written is not known.
    fn begin_undo_anew(&mut self) {
        let now = self.clock.now;
        let hidden: Vec<_> = self
            .points
            .iter()
            .filter(|(_, point)| point.hidden.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in hidden {
            if let Some(point) = self.points.get_mut(&id) {
                point.hidden = Some(now);
            }
        }
    }

    /// Ends what waited or ran. No session stays open, so nothing is pinned.
    fn end_jobs_of_lost(&mut self) -> u64 {
        let now = self.clock.now;
        let sessions: Vec<SessionId> = self.sessions.iter().map(|(id, _)| *id).collect();
        for session in sessions {
            self.close_session(session);
        }
        let open: Vec<JobId> = self.open_jobs().collect();
        for job in &open {
            self.change_job(*job, |job| {
                if let (JobState::Leased, Some(attempt)) = (job.state, job.attempts.last_mut()) {
                    attempt.ended = Some(now);
                    attempt.failure = Some(Failure {
                        kind: FailureKind::Lost,
                        message: String::from("the cluster was lost while it ran"),
                        hint: String::new(),
                    });
                }
            });
            self.end_job(*job, JobState::Cancelled);
            let work = self.jobs.get(job).map(|job| job.spec.work.clone());
            if let Some(Work::Backup { item, .. }) = work {
                self.drop_item_if_empty(item);
            }
        }
        open.len() as u64
    }

    /// Nodes of the cluster before the lost one, if there was one, are forgotten: what they did is long ended. Those of the lost one stay, because its jobs
    /// name them, and count against no bound of this one.
    fn forget_nodes_before_lost(&mut self) {
        let Some(begin) = self.cluster().map(|cluster| cluster.created) else {
            return;
        };
        let old: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, row)| row.joined < begin)
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.workers.remove(&id);
        }
        let old: Vec<_> = self
            .members
            .iter()
            .filter(|(_, row)| row.joined < begin)
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.members.remove(&id);
        }
    }

    /// Nodes of the lost cluster have certificates of its authority. Their names are free, so that they join anew as who they were: items name hosts.
    fn refuse_nodes_of_lost(&mut self) {
        let workers: Vec<WorkerId> = self.workers.iter().map(|(id, _)| *id).collect();
        for id in workers {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.removed = true;
                worker.life = None;
            }
        }
        self.views.worker_names.clear();
        let members: Vec<MemberId> = self.members.iter().map(|(id, _)| *id).collect();
        for id in members {
            if let Some(member) = self.members.get_mut(&id) {
                member.removed = true;
            }
        }
        // Slots of the index belonged to lives of those workers.
        let slots: Vec<u16> = self.slots.iter().map(|(slot, _)| *slot).collect();
        for slot in slots {
            self.slots.remove(&slot);
        }
        self.clock.slot_map = 0;
        // Whoever asked the lost cluster does not repeat it here.
        let answers: Vec<u64> = self.answers.iter().map(|(number, _)| *number).collect();
        for number in answers {
            self.answers.remove(&number);
        }
        self.views.answers.clear();
    }

    fn refuse_tokens_of_lost(&mut self, refounding: &Refounding) -> Result<(), Refusal> {
        let tokens: Vec<TokenId> = self.tokens.iter().map(|(id, _)| *id).collect();
        for id in tokens {
            self.revoke_token(id)?;
        }
        match &refounding.admin {
            Some(admin) => self.create_api_token(admin).map(drop),
            None => Ok(()),
        }
    }

    fn begin_cluster(&mut self, index: u64, refounding: &Refounding) -> MemberId {
        let now = self.clock.now;
        let before = self.cluster.get(&()).map(|cluster| cluster.name.clone());
        self.cluster.insert(
            (),
            Cluster {
                id: refounding.cluster,
                name: refounding.name.clone().or(before).unwrap_or_default(),
                ca_certificate: refounding.ca_certificate.clone(),
                ca_key: refounding.ca_key.clone(),
                created: now,
            },
        );
        let id = MemberId(index);
        self.members.insert(
            id,
            Member {
                name: refounding.member.name.clone(),
                address: refounding.member.address.clone(),
                joined: now,
                removed: false,
            },
        );
        id
    }

    /// Queues a claim for every vault that is not being forgotten. Their numbers end at `index`: all of them lie in the gap.
    fn claim_vaults_anew(&mut self, index: u64) -> u64 {
        let now = self.clock.now;
        let vaults: Vec<VaultId> = self.vaults.iter().map(|(id, _)| *id).collect();
        let mut claimed = 0;
        for id in vaults {
            let Some(vault) = self.vaults.get_mut(&id) else {
                continue;
            };
            // What its newest catalogue says was said by the lost cluster.
            vault.catalogue = None;
            vault.changed = index;
            if vault.state == VaultState::Removing {
                continue;
            }
            vault.state = VaultState::Claiming;
            // Also one that was still to be made: the lost cluster may have made it since, and written to it.
            vault.spec.origin = VaultOrigin::TakeOver;
            let spec = JobSpec {
                vault: id,
                work: Work::Claim,
                priority: 0,
                not_before: now,
                occurrence: None,
            };
            self.queue(index - claimed, &Actor::Founder, &spec);
            claimed += 1;
        }
        claimed
    }
}

/// A name beside one that is taken: as much of it as fits, and the beginning of the id.
fn beside(name: &str, id: &str) -> String {
    const NAME: usize = 41;
    let end = (0..=NAME.min(name.len()))
        .rev()
        .find(|end| name.is_char_boundary(*end))
        .unwrap_or(0);
    let id: String = id.chars().take(8).collect();
    format!("{}-{id}", &name[..end])
}
