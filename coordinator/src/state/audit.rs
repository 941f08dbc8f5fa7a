//! The audit trail: every change that a person, a program or a joining node asked for, every restore, and what the cluster itself hides or gives up.
//!
//! Each entry's hash covers the one before, so that a changed, dropped or inserted entry breaks the chain from there on. The trail in the state is
//! bounded; it begins at the oldest entry that is kept, with the hash of the one before that as its anchor.
//!
//! What is written here is part of what entries mean: members of two versions have to write the same, or their chains part. A text is changed only with
//! a new form of entries.

use super::command::{Command, Work};
use super::entry::{Actor, Entry};
use super::limits::LimitSubject;
use super::reply::Reply;
use super::rows::Audited;
use super::texts::shortened;
use super::{AUDIT_MAX, State, is_outside};

/// What the key of an entry's hash is derived for.
const CONTEXT: &str = "tresor 2026 audit trail entry";
/// Longest text of an object or outcome, bytes.
const TEXT_MAX: usize = 512;

/// The first entry that does not follow from the one before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the chain of the audit trail breaks at entry {seq}")]
pub struct AuditBroken {
    /// Its number.
    pub seq: u64,
}

/// What is remembered of an entry: said before it is applied, since an object may be gone after.
pub(super) struct Described {
    action: String,
    object: String,
}

impl Described {
    /// Of something that is no entry.
    pub(super) fn new(action: &str, object: &str) -> Self {
        Self {
            action: action.to_owned(),
            object: shortened(object, TEXT_MAX),
        }
    }

    /// None where it is not for the trail.
    pub(super) fn of(state: &State, entry: &Entry) -> Option<Self> {
        let by_cluster = match &entry.command {
            Command::HidePoints { .. } | Command::GiveUpPoints { .. } | Command::StopExpiry { .. } => true,
            // It is made to stand there, whoever it is about.
            Command::Note { .. } => true,
            Command::Enqueue(job) => matches!(job.work, Work::Restore { .. }),
            _ => false,
        };
        if !is_outside(&entry.actor) && !by_cluster {
            return None;
        }
        let (action, object) = describe(state, &entry.command);
        Some(Self {
            action: action.to_owned(),
            object: shortened(&object, TEXT_MAX),
        })
    }
}

fn item_name(state: &State, id: tresor_proto::ids::ItemId) -> String {
    state
        .items()
        .get(&id)
        .map_or_else(|| format!("item {id}"), |item| format!("item {}", item.spec.name))
}

fn point_name(state: &State, id: tresor_proto::ids::PointId) -> String {
    let item = state.points().get(&id).map(|point| point.item);
    let of = item
        .map(|item| format!(" of {}", item_name(state, item)))
        .unwrap_or_default();
    format!("point {id}{of}")
}

fn points_names(state: &State, points: &[tresor_proto::ids::PointId]) -> String {
    let mut text = format!("{}: ", points.len());
    for (place, point) in points.iter().enumerate() {
        // Of a long list the beginning; each of them says when it was hidden, or given up.
        if text.len() > TEXT_MAX {
            break;
        }
        if place > 0 {
            text.push_str(", ");
        }
        text.push_str(&point_name(state, *point));
    }
    text
}

fn vault_name(state: &State, id: tresor_proto::ids::VaultId) -> String {
    state
        .vaults()
        .get(&id)
        .map_or_else(|| format!("vault {id}"), |vault| format!("vault {}", vault.spec.name))
}

fn limit_name(state: &State, subject: &LimitSubject, windows: Option<&[String]>) -> String {
    let name = match subject {
        LimitSubject::Worker(id) => match state.workers().get(id) {
            Some(worker) => format!("worker {} ({id})", worker.name),
            None => subject.to_string(),
        },
        _ => subject.to_string(),
    };
    match windows {
        None | Some([]) => name,
        Some(windows) => format!("{name}, {}", windows.join("; ")),
    }
}

fn describe(state: &State, command: &Command) -> (&'static str, String) {
    match command {
        Command::Found(founding) => ("found cluster", founding.name.clone()),
        Command::RaiseVersion { to } => ("raise version", to.to_string()),
        Command::StopExpiry { step } => ("stop expiry", format!("the clock stepped by {step} ms")),
        Command::ConfirmClock => ("confirm clock", String::new()),
        Command::AddMember(spec) => ("add coordinator", format!("{} at {}", spec.name, spec.address)),
        Command::RemoveMember { member } => {
            let name = state.members().get(member).map_or("?", |member| &member.name);
            ("remove coordinator", format!("{name} ({member})"))
        }
        Command::AddVault(spec) => ("add vault", format!("{} at {}", spec.name, spec.url)),
        Command::RemoveVault { vault } => ("remove vault", vault_name(state, *vault)),
        Command::CreatePolicy { spec, .. } => ("create policy", spec.name.clone()),
        Command::UpdatePolicy { spec, .. } => ("change policy", spec.name.clone()),
        Command::RemovePolicy { policy } => {
            let name = state.policies().get(policy).map(|policy| policy.spec.name.clone());
            ("remove policy", name.unwrap_or_else(|| policy.to_string()))
        }
        Command::Protect { spec, .. } => (
            "protect item",
            format!("{} in {}", spec.name, vault_name(state, spec.vault)),
        ),
        Command::UpdateItem { spec, .. } => ("change item", spec.name.clone()),
        Command::Unprotect { item } => ("unprotect item", item_name(state, *item)),
        Command::Hold { point, reason } => ("hold point", format!("{}: {reason}", point_name(state, *point))),
        Command::Release { point } => ("release point", point_name(state, *point)),
        Command::HidePoints { points, .. } => ("remove points", points_names(state, points)),
        Command::ShowPoint { point } => ("undelete point", point_name(state, *point)),
        Command::GiveUpPoints { points } => ("give up points", points_names(state, points)),
        Command::AdoptPoints { vault, points } => (
            "adopt points",
            format!("{} in {}", points.len(), vault_name(state, *vault)),
        ),
        Command::Enqueue(spec) => match &spec.work {
            Work::Backup { item, .. } => ("start backup", item_name(state, *item)),
            Work::Restore { point, host, target } => (
                "start restore",
                format!("{} to {host}:{}", point_name(state, *point), target.path),
            ),
            Work::Verify { point, level } => {
                let what = point.map_or_else(|| vault_name(state, spec.vault), |point| point_name(state, point));
                ("start verify", format!("{what}, {level}"))
            }
            Work::Claim => ("claim vault", vault_name(state, spec.vault)),
            Work::Catalogue => ("start catalogue", vault_name(state, spec.vault)),
        },
        Command::Lease { job, .. } => ("lease", format!("job {job}")),
        Command::ExpireLease { job, .. } => ("expire lease", format!("job {job}")),
        Command::Complete(completion) => ("complete", format!("job {}", completion.job)),
        Command::Fail { job, .. } => ("fail", format!("job {job}")),
        Command::Cancel { job } => ("cancel job", job.to_string()),
        Command::Retry { job } => ("retry job", job.to_string()),
        Command::AddWorker(spec) => ("add worker", spec.name.clone()),
        Command::Register { worker, .. } => ("register worker", worker.to_string()),
        Command::Drain { worker, drained } => {
            let name = state.workers().get(worker).map_or("?", |worker| &worker.name);
            (
                if *drained { "drain worker" } else { "undrain worker" },
                name.to_owned(),
            )
        }
        Command::RemoveWorker { worker } => {
            let name = state.workers().get(worker).map_or("?", |worker| &worker.name);
            ("remove worker", format!("{name} ({worker})"))
        }
        Command::GrantSlots { grants, .. } => ("grant slots", grants.len().to_string()),
        Command::ReportFindings { vault, .. } => ("report findings", vault_name(state, *vault)),
        Command::CreateApiToken(spec) => ("create token", format!("{} ({}), {}", spec.name, spec.role, spec.token)),
        Command::CreateJoinToken(spec) => ("create join token", format!("{} ({})", spec.token, spec.role)),
        Command::RevokeToken { token } => ("revoke token", token.to_string()),
        Command::Note { action, object } => ("note", format!("{action}: {object}")),
        Command::SetLimit { subject, rule } => ("set limit", limit_name(state, subject, Some(&rule.windows))),
        Command::RemoveLimit { subject, windows } => ("remove limit", limit_name(state, subject, windows.as_deref())),
        Command::AddChannel(spec) => ("add channel", format!("{} to {}", spec.name, spec.target)),
        Command::RemoveChannel { name } => ("remove channel", name.clone()),
        Command::Tell(telling) => ("tell", telling.messages.len().to_string()),
        Command::NoteSent { message, .. } => ("note sent", message.to_string()),
        Command::KeepLog { job, .. } => ("keep log", format!("job {job}")),
    }
}

/// The hash of an entry: of its number, all its fields with their lengths, and the hash before.
fn chain(seq: u64, entry: &Audited) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&entry.previous);
    hasher.update(&seq.to_le_bytes());
    hasher.update(&entry.time.0.to_le_bytes());
    for text in [&entry.actor.to_string(), &entry.action, &entry.object, &entry.outcome] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl State {
    pub(super) fn remember(&mut self, what: Described, actor: &Actor, reply: &Reply) {
        let outcome = match reply {
            Reply::Refused(refusal) => format!("refused: {}", refusal.code()),
            Reply::Made(number) => format!("done: {number}"),
            Reply::Changed(count) => format!("done: {count}"),
            Reply::Done | Reply::Item(_) | Reply::Leased { .. } => String::from("done"),
        };
        let seq = self.clock.audit_next;
        let mut entry = Audited {
            time: self.clock.now,
            actor: actor.clone(),
            action: what.action,
            object: what.object,
            outcome: shortened(&outcome, TEXT_MAX),
            previous: self.clock.audit_head,
            hash: [0; 32],
        };
        entry.hash = chain(seq, &entry);
        self.clock.audit_head = entry.hash;
        self.clock.audit_next += 1;
        self.audit.insert(seq, entry);
        for _ in 0..2 {
            if self.audit.len() <= AUDIT_MAX {
                break;
            }
            let Some(oldest) = self.audit.first().map(|(seq, _)| *seq) else {
                break;
            };
            self.audit.remove(&oldest);
        }
    }

    /// Checks the chain from the oldest entry that is kept to the newest, and that none is missing that would still be kept.
    ///
    /// # Errors
    /// The first entry that does not follow.
    pub fn verify_audit(&self) -> Result<(), AuditBroken> {
        let start = match self.audit.first() {
            Some((&first, entry)) if self.audit.len() >= AUDIT_MAX => (first, entry.previous),
            // Nothing was dropped yet: it begins with the first there was.
            _ => (0, [0; 32]),
        };
        let (mut next, mut head) = start;
        for (&seq, entry) in self.audit.iter() {
            if seq != next || entry.previous != head || chain(seq, entry) != entry.hash {
                return Err(AuditBroken { seq: next });
            }
            (next, head) = (seq + 1, entry.hash);
        }
        if (next, head) != (self.clock.audit_next, self.clock.audit_head) {
            return Err(AuditBroken { seq: next });
        }
        Ok(())
    }
}
