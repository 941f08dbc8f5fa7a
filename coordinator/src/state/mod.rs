//! The state of the control plane, as a pure value: the log's entries are applied to it one after another, and every coordinator that applied the
//! same entries has the same state.
//!
//! [`State::apply`] knows no clock, no randomness and no order but that of keys; what it needs of them stands in the entry. It answers, and the rows
//! that it changed are collected with [`State::take_changes`], to be stored in one batch with the entry's index. A restart loads the rows.
//!
//! Read `entry` and `command` for what can be asked, `rows` for what is kept, `reply` for the answers; then `jobs` and `leases`, where it is decided
//! that nothing runs twice to completion. What always holds stands in `invariants`.

pub mod archive;
pub mod command;
pub mod entry;
pub mod error;
pub mod reply;
pub mod rows;
pub mod table;

mod actors;
mod admission;
mod adopt;
mod answers;
mod audit;
pub mod channels;
mod cluster;
mod extract;
pub mod invariants;
mod items;
mod jobs;
mod leases;
pub mod limits;
pub mod logs;
mod nodes;
mod points;
mod policies;
pub mod queue;
mod refound;
mod slots;
mod subject;
mod texts;
mod tokens;
mod vaults;
mod views;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

use tresor_proto::ids::{ItemId, JobId, MemberId, PointId, PolicyId, SessionId, TokenId, VaultId, WorkerId};

use channels::{Channel, Parcel, Told, ToldOf};
use command::Command;
use entry::{Actor, Entry, Time};
use error::LoadError;
use limits::{Limit, LimitSubject};
use reply::{Refusal, Reply};
use rows::{
    Answered, Audited, Cluster, GivenUp, Item, Job, Marks, Member, Point, Policy, Session, Slot, Token, Vault, Worker,
};
use table::{RowChange, Table};
use views::Views;

pub use audit::AuditBroken;
pub use extract::RowOf;
pub use points::UNDO_MS;
pub use refound::{FOUNDED_AGAIN, GAP, Refounded, Refounding};
pub use slots::SLOTS;
pub use subject::Subject;
pub use texts::BATCH_MAX;
pub use views::PointCounts;

/// The form of entries before the log said otherwise.
const FIRST_FORM: u16 = 1;
/// Points of a cluster: 3 million are about 800 MB of memory, with what finds them (`tests/memory.rs`).
pub const POINTS_MAX: u64 = 3_000_000;
/// Items of a cluster, those included of which only points are left.
pub const ITEMS_MAX: u64 = 200_000;
/// Points that are given up and not forgotten. A full list stops further ones; it never drops old ones, whose chunks may be going.
pub const GIVEN_UP_MAX: usize = 1_000_000;
/// Jobs that wait or run: a job for every item, twice.
pub const OPEN_JOBS_MAX: u64 = 2 * ITEMS_MAX;
/// Ended jobs that are remembered: the oldest go first.
pub const ENDED_JOBS_MAX: usize = 100_000;
/// Attempts of a job that are remembered.
pub const ATTEMPTS_KEPT: usize = 8;
/// Vaults and policies of a cluster.
pub const VAULTS_MAX: u64 = 1000;
/// Workers and coordinators, those included that are gone.
pub const NODES_MAX: u64 = 10_000;
/// Tokens, those included that were ended.
pub const TOKENS_MAX: u64 = 10_000;
/// Entries of the audit trail that are kept in the state: the oldest go first, and the chain begins at the oldest kept.
pub const AUDIT_MAX: usize = 100_000;
/// Answers that are remembered for changes sent again.
pub const ANSWERS_MAX: usize = 50_000;
/// How long an answer is remembered at most, milliseconds: a client repeats for minutes, not for days.
pub const ANSWERS_MS: i64 = 24 * 3600 * 1000;

/// All that the control plane knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    cluster: Table<(), Cluster>,
    marks: Table<(), Marks>,
    members: Table<MemberId, Member>,
    vaults: Table<VaultId, Vault>,
    policies: Table<PolicyId, Policy>,
    items: Table<ItemId, Item>,
    points: Table<PointId, Point>,
    given_up: Table<PointId, GivenUp>,
    jobs: Table<JobId, Job>,
    workers: Table<WorkerId, Worker>,
    sessions: Table<SessionId, Session>,
    slots: Table<u16, Slot>,
    tokens: Table<TokenId, Token>,
    audit: Table<u64, Audited>,
    answers: Table<u64, Answered>,
    limits: Table<LimitSubject, Limit>,
    channels: Table<String, Channel>,
    outbox: Table<u64, Parcel>,
    told: Table<ToldOf, Told>,
    /// Which logs of attempts the disk has.
    logs: logs::Logs,
    /// What is computed from the rows.
    views: Views,
    /// The rows' own clock, kept beside the table so that every entry need not write it twice.
    clock: Marks,
}

/// How many tables there are in memory; logs of attempts are one more, on disks alone.
const TABLES: u8 = 19;

/// Runs `$body` for every table (`&` or `&mut`) with its number. A number is never given to another table.
macro_rules! each_table {
    (&mut $state:expr, |$table:ident, $number:ident| $body:expr) => {
        each_table!(@all exclusive, $state, $table, $number, $body)
    };
    (&$state:expr, |$table:ident, $number:ident| $body:expr) => {
        each_table!(@all shared, $state, $table, $number, $body)
    };
    (@all $borrow:ident, $state:expr, $table:ident, $number:ident, $body:expr) => {
        each_table!(@each $borrow, $state, $table, $number, $body,
            (0, cluster) (1, marks) (2, members) (3, vaults) (4, policies) (5, items) (6, points) (7, given_up) (8, jobs) (9, workers)
            (10, sessions) (11, slots) (12, tokens) (13, audit) (14, answers) (15, limits)
            (16, channels) (17, outbox) (18, told))
    };
    (@each $borrow:ident, $state:expr, $table:ident, $number:ident, $body:expr, $(($n:literal, $field:ident))*) => {
        $({
            let $number: u8 = $n;
            let $table = each_table!(@$borrow $state.$field);
            $body
        })*
    };
    (@exclusive $place:expr) => { &mut $place };
    (@shared $place:expr) => { &$place };
}

impl State {
    /// Loads what [`Self::take_changes`] gave, in any order.
    ///
    /// # Errors
    /// [`LoadError`] for a row that this program cannot read.
    pub fn load(rows: impl IntoIterator<Item = (u8, Vec<u8>, Vec<u8>)>) -> Result<Self, LoadError> {
        let mut state = Self::default();
        for (number, key, value) in rows {
            if number == logs::LOGS_TABLE {
                state.logs.load(&key, &value)?;
                continue;
            }
            let mut found = false;
            each_table!(&mut state, |table, n| if n == number {
                table.load(number, &key, &value)?;
                found = true;
            });
            if !found {
                return Err(LoadError::Table { table: number });
            }
        }
        state.clock = state.marks.get(&()).cloned().unwrap_or_default();
        state.views = Views::of(&state);
        Ok(state)
    }

    /// Applies one entry. What is refused changes nothing but the clock and the audit trail.
    ///
    /// # Panics
    /// When `index` is not greater than that of every entry before: the numbers of jobs, leases and sessions rest on it.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Reply {
        assert!(
            index > self.clock.applied,
            "entry {index} comes after entry {} of the log: each is applied once, in order",
            self.clock.applied
        );
        self.clock.applied = index;
        self.clock.now = self.clock.now.max(entry.now);
        if let Some(reply) = entry.key.and_then(|key| self.remembered(key, &entry.command)) {
            self.keep_clock();
            return reply;
        }
        let what = audit::Described::of(self, entry);
        let reply = match self.decide(index, entry) {
            Ok(reply) => reply,
            Err(refusal) => Reply::Refused(refusal),
        };
        if let Some(what) = what {
            self.remember(what, &entry.actor, &reply);
        }
        if let (Some(key), false) = (entry.key, matches!(reply, Reply::Refused(_))) {
            self.remember_answer(key, &entry.command, reply.clone());
        }
        self.keep_clock();
        #[cfg(debug_assertions)]
        self.assert_invariants(index);
        reply
    }

    fn keep_clock(&mut self) {
        self.marks.insert((), self.clock.clone());
    }

    /// Makes the change or refuses it: every refusal comes before the first change.
    fn decide(&mut self, index: u64, entry: &Entry) -> Result<Reply, Refusal> {
        let actor = &entry.actor;
        match &entry.command {
            Command::Found(founding) => return self.found(index, founding),
            _ if self.cluster.is_empty() => return Err(Refusal::held("the cluster is not founded yet")),
            _ => self.check_actor(entry)?,
        }
        match &entry.command {
            Command::Found(_) => unreachable!("decided above"),
            Command::RaiseVersion { to } => self.raise_version(*to),
            Command::StopExpiry { step } => self.stop_expiry(*step),
            Command::ConfirmClock => self.confirm_clock(),
            Command::AddMember(spec) => self.add_member(index, spec),
            Command::RemoveMember { member } => self.remove_member(*member),
            Command::AddVault(spec) => self.add_vault(index, actor, spec),
            Command::RemoveVault { vault } => self.remove_vault(*vault),
            Command::CreatePolicy { policy, spec } => self.create_policy(index, *policy, spec),
            Command::UpdatePolicy { policy, version, spec } => self.update_policy(index, *policy, *version, spec),
            Command::RemovePolicy { policy } => self.remove_policy(*policy),
            Command::Protect { item, spec, also } => self.protect(index, *item, spec, *also),
            Command::UpdateItem { item, version, spec } => self.update_item(index, *item, *version, spec),
            Command::Unprotect { item } => self.unprotect(*item),
            Command::Hold { point, reason } => self.hold(*point, reason),
            Command::Release { point } => self.release(*point),
            Command::HidePoints { points, by_retention } => self.hide_points(points, *by_retention),
            Command::ShowPoint { point } => self.show_point(*point),
            Command::GiveUpPoints { points } => self.give_up_points(points),
            Command::AdoptPoints { vault, points } => self.adopt_points(*vault, points),
            Command::Enqueue(spec) => self.enqueue(index, actor, spec),
            Command::Lease { job, worker, life } => self.lease(index, *job, *worker, *life),
            Command::ExpireLease { job, epoch, retry_at } => self.expire_lease(actor, *job, *epoch, *retry_at),
            Command::Complete(completion) => self.complete(index, actor, completion),
            Command::Fail {
                job,
                epoch,
                failure,
                retry_at,
            } => self.fail(actor, *job, *epoch, failure, *retry_at),
            Command::Cancel { job } => self.cancel(*job),
            Command::Retry { job } => self.retry(*job),
            Command::AddWorker(spec) => self.add_worker(index, spec),
            Command::Register {
                worker,
                life,
                facts,
                kept_life,
            } => self.register(index, *worker, *life, facts, *kept_life),
            Command::Drain { worker, drained } => self.drain(*worker, *drained),
            Command::RemoveWorker { worker } => self.remove_worker(index, *worker),
            Command::GrantSlots { seen, grants } => self.grant_slots(index, *seen, grants),
            Command::ReportFindings { vault, harmed } => self.report_findings(index, *vault, harmed),
            Command::CreateApiToken(spec) => self.create_api_token(spec),
            Command::CreateJoinToken(spec) => self.create_join_token(spec),
            Command::RevokeToken { token } => self.revoke_token(*token),
            Command::Note { .. } => Ok(Reply::Done),
            Command::SetLimit { subject, rule } => self.set_limit(index, subject, rule),
            Command::RemoveLimit { subject, windows } => self.remove_limit(index, subject, windows.as_deref()),
            Command::AddChannel(spec) => self.add_channel(index, spec),
            Command::RemoveChannel { name } => self.remove_channel(name),
            Command::Tell(telling) => self.tell(index, telling),
            Command::NoteSent { message, outcome } => self.note_sent(*message, outcome),
            Command::KeepLog { job, epoch, log } => self.keep_log(actor, *job, *epoch, log),
        }
    }

    /// The rows that changed since the last call, as they are stored.
    pub fn take_changes(&mut self) -> Vec<RowChange> {
        let mut changes = Vec::new();
        each_table!(&mut self, |table, n| table.collect_changes(n, &mut changes));
        self.logs.collect_changes(&mut changes);
        changes
    }

    /// How many rows there are, without logs of attempts.
    pub fn rows_count(&self) -> usize {
        let mut count = 0;
        each_table!(&self, |table, _number| count += table.len());
        count
    }

    /// Every row as it is stored, in order of table and key, without logs of attempts, which are not here. They are encoded one by one, since all of them
    /// together are as much again as the state.
    pub fn each_row(&self, mut take: impl FnMut(RowChange)) {
        each_table!(&self, |table, n| table.all(n).for_each(&mut take));
    }

    /// As [`Self::each_row`].
    pub fn all_rows(&self) -> Vec<RowChange> {
        let mut rows = Vec::new();
        self.each_row(|row| rows.push(row));
        rows
    }

    /// The rows alone, to be read from while the state goes on. Costs a copy of all of them, and nothing of what is computed from them.
    fn copy_of_rows(&self) -> Self {
        Self {
            cluster: self.cluster.clone(),
            marks: self.marks.clone(),
            members: self.members.clone(),
            vaults: self.vaults.clone(),
            policies: self.policies.clone(),
            items: self.items.clone(),
            points: self.points.clone(),
            given_up: self.given_up.clone(),
            jobs: self.jobs.clone(),
            workers: self.workers.clone(),
            sessions: self.sessions.clone(),
            slots: self.slots.clone(),
            tokens: self.tokens.clone(),
            audit: self.audit.clone(),
            answers: self.answers.clone(),
            limits: self.limits.clone(),
            channels: self.channels.clone(),
            outbox: self.outbox.clone(),
            told: self.told.clone(),
            logs: logs::Logs::default(),
            views: Views::default(),
            clock: self.clock.clone(),
        }
    }

    /// Rows of a table after a key, in order, until so many bytes are reached.
    fn rows_after(&self, table: u8, key: Option<&[u8]>, bytes_max: usize) -> Vec<RowChange> {
        let mut rows = Vec::new();
        each_table!(&self, |rows_of, n| if n == table {
            rows = rows_of.after(n, key, bytes_max);
        });
        rows
    }

    /// A hash of all rows: equal states have equal ones.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.each_row(|row| {
            let value = row.value.unwrap_or_default();
            hasher.update(&[row.table]);
            for part in [&row.key, &value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        });
        *hasher.finalize().as_bytes()
    }
}

/// What there is to read.
impl State {
    /// The cluster, once it is founded.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.get(&())
    }

    /// The clock, the versions and what else changes with every entry.
    pub fn marks(&self) -> &Marks {
        &self.clock
    }

    /// The cluster's clock.
    pub fn now(&self) -> Time {
        self.clock.now
    }

    /// Coordinators.
    pub fn members(&self) -> &Table<MemberId, Member> {
        &self.members
    }

    /// Vaults.
    pub fn vaults(&self) -> &Table<VaultId, Vault> {
        &self.vaults
    }

    /// Policies.
    pub fn policies(&self) -> &Table<PolicyId, Policy> {
        &self.policies
    }

    /// Items.
    pub fn items(&self) -> &Table<ItemId, Item> {
        &self.items
    }

    /// Points, hidden ones too.
    pub fn points(&self) -> &Table<PointId, Point> {
        &self.points
    }

    /// Points that are given up.
    pub fn given_up(&self) -> &Table<PointId, GivenUp> {
        &self.given_up
    }

    /// Limits of use.
    pub fn limits(&self) -> &Table<LimitSubject, Limit> {
        &self.limits
    }

    /// Channels of notifications, by name.
    pub fn channels(&self) -> &Table<String, Channel> {
        &self.channels
    }

    /// Messages that wait to be taken, by number: older ones have lower ones.
    pub fn outbox(&self) -> &Table<u64, Parcel> {
        &self.outbox
    }

    /// What was told.
    pub fn told(&self) -> &Table<ToldOf, Told> {
        &self.told
    }

    /// Jobs, ended ones too.
    pub fn jobs(&self) -> &Table<JobId, Job> {
        &self.jobs
    }

    /// Workers, removed ones too.
    pub fn workers(&self) -> &Table<WorkerId, Worker> {
        &self.workers
    }

    /// Open sessions.
    pub fn sessions(&self) -> &Table<SessionId, Session> {
        &self.sessions
    }

    /// Slots of the index that have an owner.
    pub fn slots(&self) -> &Table<u16, Slot> {
        &self.slots
    }

    /// Tokens, ended ones too.
    pub fn tokens(&self) -> &Table<TokenId, Token> {
        &self.tokens
    }

    /// The audit trail as far as it is kept.
    pub fn audit(&self) -> &Table<u64, Audited> {
        &self.audit
    }
}

/// Whether an actor is a person or a program, whose every change is audited.
fn is_outside(actor: &Actor) -> bool {
    !matches!(actor, Actor::Cluster | Actor::Worker(_))
}
