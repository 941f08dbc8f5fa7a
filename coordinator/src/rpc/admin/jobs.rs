//! Jobs: started, shown, cancelled, tried again.

use serde::Serialize;
use tresor_proto::ids::{ItemId, JobId, VaultId};
use tresor_proto::v1;

use super::items::vault_for;
use super::points::point_named;
use super::vaults::draw;
use crate::rpc::caller::Caller;
use crate::rpc::context::{Services, made_before};
use crate::rpc::kinds::Kind;
use crate::rpc::page::Page;
use crate::rpc::permissions::Access;
use crate::rpc::refused::Refused;
use crate::rpc::{convert, fields, resolve};
use crate::security::Permission;
use crate::state::command::{Command, ItemSpec, JobSpec, RestoreTarget, Work};
use crate::state::entry::IdempotencyKey;
use crate::state::rows::{Attempt, JobState};
use crate::state::{State, Subject};

/// What a verify looks at if the caller does not say: everything but the contents.
const LEVEL_DEFAULT: &str = "checks";
/// Levels of a verify.
const LEVELS: [&str; 5] = ["names", "checks", "contents", "recipes", "all"];
/// Longest name of a host, bytes: as long as the system lets one be.
const HOST_BYTES_MAX: usize = 255;
/// Greatest priority, either way.
const PRIORITY_MAX: i32 = 1000;

fn priority(field: &str, priority: i32) -> Result<i32, Refused> {
    if priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
        return Err(Refused::invalid(
            field,
            format!("must be between -{PRIORITY_MAX} and {PRIORITY_MAX}"),
        ));
    }
    Ok(priority)
}

fn vault_of_item(state: &State, item: ItemId) -> Result<VaultId, Refused> {
    let row = state.items().get(&item).ok_or_else(|| Refused::missing("item", item))?;
    Ok(row.spec.vault)
}

impl Services {
    /// Backs an item up now; with a spec, one is made first if there is none.
    pub(crate) async fn start_backup(
        &self,
        caller: &Caller,
        message: v1::StartBackupRequest,
    ) -> Result<v1::Job, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let priority = priority("priority", message.priority)?;
        if let Some(spec) = &message.spec {
            self.protect_for_backup(caller, key, &message, spec).await?;
        }
        let name = item_name(&message)?;
        let vault_name = match (&message.spec, message.vault.as_str()) {
            (Some(spec), "") => &spec.vault,
            _ => &message.vault,
        };
        let made = self
            .change(caller, Kind::Enqueue, key, |state| {
                let item = resolve::protected_item(state, name, vault_name)?;
                let now = self.now(state);
                Ok(Command::Enqueue(JobSpec {
                    vault: vault_of_item(state, item)?,
                    work: Work::Backup {
                        item,
                        keep_until: fields::future("keep_until", &message.keep_until, now)?,
                    },
                    priority,
                    not_before: state.now(),
                    occurrence: None,
                }))
            })
            .await?;
        self.job_of(made.about, "backup")
    }

    /// Makes the item of a backup if there is none; without a policy, so that its points stay until somebody removes them.
    async fn protect_for_backup(
        &self,
        caller: &Caller,
        key: IdempotencyKey,
        message: &v1::StartBackupRequest,
        spec: &v1::ItemSpec,
    ) -> Result<(), Refused> {
        let name = item_name(message)?;
        if !spec.name.is_empty() && spec.name != name {
            return Err(Refused::invalid("spec.name", "is another than item"));
        }
        if !message.vault.is_empty() && !spec.vault.is_empty() && spec.vault != message.vault {
            return Err(Refused::invalid("spec.vault", "is another than vault"));
        }
        let vault_name = match message.vault.as_str() {
            "" => &spec.vault,
            name => name,
        };
        let is_there = self
            .look(|state| {
                // The whole was made before: whatever became of the item, nothing is protected again.
                if made_before(state, Kind::Enqueue, &key).is_some() {
                    return Ok(true);
                }
                // Before anything is made for it.
                fields::future("keep_until", &message.keep_until, self.now(state))?;
                match resolve::protected_item(state, name, vault_name) {
                    Ok(item) => check_same(state, item, spec).map(|()| true),
                    Err(Refused::Missing { what: "item", .. } | Refused::Held { .. }) => Ok(false),
                    Err(refused) => Err(refused),
                }
            })
            .await?;
        if is_there {
            return Ok(());
        }
        let item = ItemId(*draw()?);
        self.change(caller, Kind::Protect, key, |state| {
            let vault = vault_for(state, vault_name)?;
            let mut asked = convert::item_spec(state, spec, vault)?;
            name.clone_into(&mut asked.name);
            Ok(Command::Protect {
                item,
                spec: asked,
                also: false,
            })
        })
        .await?;
        Ok(())
    }

    /// Writes a point's disks to a worker's machine.
    pub(crate) async fn start_restore(
        &self,
        caller: &Caller,
        message: v1::StartRestoreRequest,
    ) -> Result<v1::Job, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let target = RestoreTarget {
            disk: message.disk,
            path: fields::path("path", &message.path)?,
            format: fields::format("format", &message.format)?,
            overwrite: message.overwrite,
            in_place: message.in_place,
        };
        let made = self
            .change(caller, Kind::Enqueue, key, |state| {
                let point = point_named(state, &message.point)?;
                let row = state
                    .points()
                    .get(&point)
                    .ok_or_else(|| Refused::missing("point", point))?;
                let worker = resolve::worker(state, &message.host)?;
                Ok(Command::Enqueue(JobSpec {
                    vault: vault_of_item(state, row.item)?,
                    work: Work::Restore {
                        point,
                        host: convert::worker_name(state, worker),
                        target,
                    },
                    priority: 0,
                    not_before: state.now(),
                    occurrence: None,
                }))
            })
            .await?;
        self.job_of(made.about, "restore")
    }

    /// Takes down a restore that the caller makes by itself: for the audit trail.
    pub(crate) async fn note_restore(
        &self,
        caller: &Caller,
        message: v1::NoteRestoreRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let path = fields::path("path", &message.path)?;
        let host = message.host;
        if host.len() > HOST_BYTES_MAX || host.chars().any(char::is_control) {
            let rule = format!("must have at most {HOST_BYTES_MAX} bytes and no control characters");
            return Err(Refused::invalid("host", rule));
        }
        self.change(caller, Kind::Note, key, |state| {
            let point = point_named(state, &message.point)?;
            let damage = if message.allow_damage { ", damage allowed" } else { "" };
            Ok(Command::Note {
                action: String::from("restore by command"),
                object: format!("point {point} to {host}:{path}{damage}"),
            })
        })
        .await?;
        Ok(v1::Empty {})
    }

    /// Proves a point, or a vault as a whole.
    pub(crate) async fn start_verify(
        &self,
        caller: &Caller,
        message: v1::StartVerifyRequest,
    ) -> Result<v1::Job, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let level = match message.level.as_str() {
            "" => String::from(LEVEL_DEFAULT),
            level => fields::one_of("level", level, &LEVELS)?,
        };
        let made = self
            .change(caller, Kind::Enqueue, key, |state| {
                let (vault, point) = match message.point.as_str() {
                    "" => (vault_for(state, &message.vault)?, None),
                    name => {
                        let point = point_named(state, name)?;
                        let row = state
                            .points()
                            .get(&point)
                            .ok_or_else(|| Refused::missing("point", point))?;
                        (vault_of_item(state, row.item)?, Some(point))
                    }
                };
                if !message.vault.is_empty() && resolve::vault(state, &message.vault)? != vault {
                    return Err(Refused::invalid("vault", "is another than the point's"));
                }
                Ok(Command::Enqueue(JobSpec {
                    vault,
                    work: Work::Verify { point, level },
                    priority: 0,
                    not_before: state.now(),
                    occurrence: None,
                }))
            })
            .await?;
        self.job_of(made.about, "verify")
    }

    /// One job, with how far it is.
    pub(crate) async fn get_job(&self, _: &Caller, message: v1::GetJobRequest) -> Result<v1::Job, Refused> {
        self.handle.barrier().await?;
        self.job_now(JobId(message.id))
    }

    /// A job as it is here.
    pub(crate) fn job_now(&self, id: JobId) -> Result<v1::Job, Refused> {
        let progress = self.progress(id);
        let (mut job, reported) = self.handle.read(|state| {
            let row = state.jobs().get(&id).ok_or_else(|| Refused::missing("job", id))?;
            let is_done = matches!(row.state, JobState::Done { .. });
            let reports = |attempt: &&Attempt| is_done || attempt.failure.is_some();
            let reported = row.attempts.last().filter(reports).map(|attempt| attempt.epoch);
            Ok::<_, Refused>((convert::job(state, id, row, progress.as_ref()), reported))
        })?;
        job.report = reported.and_then(|epoch| self.report(id, epoch));
        Ok(job)
    }

    /// The job that a change was about, if it is of the kind that was asked for: jobs of all kinds are queued by one kind of change.
    pub(crate) fn job_of(&self, about: Subject, kind: &str) -> Result<v1::Job, Refused> {
        let Subject::Job(id) = about else {
            return Err(Refused::OtherChange);
        };
        let job = self.job_now(id)?;
        match job.kind == kind {
            true => Ok(job),
            false => Err(Refused::OtherChange),
        }
    }

    fn any_job_of(&self, about: Subject) -> Result<v1::Job, Refused> {
        match about {
            Subject::Job(id) => self.job_now(id),
            _ => Err(Refused::OtherChange),
        }
    }

    /// Jobs, the newest first.
    pub(crate) async fn list_jobs(
        &self,
        _: &Caller,
        message: v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, Refused> {
        #[derive(Serialize)]
        struct Filters<'m>(&'m str, &'m str, &'m str);
        let filters = Filters(&message.item, &message.vault, &message.state);
        let page = Page::<u64>::read("jobs", &filters, message.page_size, &message.page_token)?;
        if !message.state.is_empty() {
            fields::one_of("state", &message.state, &convert::JOB_STATES)?;
        }
        let presence = self.presence();
        self.look(|state| {
            let of = match message.vault.as_str() {
                "" => None,
                name => Some(resolve::vault(state, name)?),
            };
            let item = match message.item.as_str() {
                "" => None,
                name => Some(resolve::item(state, name, &message.vault)?),
            };
            let rows = state.jobs().range(..JobId(page.after.unwrap_or(u64::MAX))).rev();
            let (jobs, next_page_token) = page.fill(rows.map(|(id, job)| (id.0, (*id, job))), |_, (id, job)| {
                let passes = of.is_none_or(|of| job.spec.vault == of)
                    && item.is_none_or(|item| convert::item_of(state, job) == Some(item))
                    && (message.state.is_empty() || convert::job_state_text(job.state) == message.state);
                passes.then(|| convert::job(state, id, job, presence.progress(id)))
            });
            Ok(v1::ListJobsResponse { jobs, next_page_token })
        })
        .await
    }

    /// Ends a job, now or as soon as its worker hears of it. Who may not manage jobs ends those that they began.
    pub(crate) async fn cancel_job(&self, caller: &Caller, message: v1::CancelJobRequest) -> Result<v1::Job, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let made = self
            .change(caller, Kind::Cancel, key, |state| {
                let job = resolve::job(state, message.id)?;
                let is_own = state.jobs().get(&job).is_some_and(|row| row.by == caller.actor);
                if !is_own && !Access::With(Permission::ManageJobs).is_given_to(&caller.role) {
                    return Err(Refused::NotOwn {
                        job,
                        name: caller.name.clone(),
                        role: caller.role.clone(),
                    });
                }
                Ok(Command::Cancel { job })
            })
            .await?;
        self.any_job_of(made.about)
    }

    /// Queues a job that failed or was cancelled once more.
    pub(crate) async fn retry_job(&self, caller: &Caller, message: v1::RetryJobRequest) -> Result<v1::Job, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let made = self
            .change(caller, Kind::Retry, key, |state| {
                let job = resolve::job(state, message.id)?;
                Ok(Command::Retry { job })
            })
            .await?;
        self.any_job_of(made.about)
    }
}

/// Refuses a backup of disks that its item does not have: those that it has would be read in their place.
fn check_same(state: &State, item: ItemId, asked: &v1::ItemSpec) -> Result<(), Refused> {
    let row = state.items().get(&item).ok_or_else(|| Refused::missing("item", item))?;
    let known = &row.spec;
    let asked = convert::item_spec(state, asked, known.vault)?;
    let rule = |what: &str| {
        format!(
            "{what} than item {} has: change the item first, or name none",
            known.name
        )
    };
    if !asked.disks.is_empty() && asked.disks != known.disks {
        return Err(Refused::invalid("spec.disks", rule("are others")));
    }
    if !asked.host.is_empty() && !known.host.is_empty() && asked.host != known.host {
        return Err(Refused::invalid("spec.host", rule("is another")));
    }
    let ways = |spec: &ItemSpec| (spec.allow_live, spec.allow_backing);
    if !asked.disks.is_empty() && ways(&asked) != ways(known) {
        return Err(Refused::invalid("spec.allow_live", rule("allows other reading")));
    }
    Ok(())
}

/// The item's name: of the request, or else of its spec.
fn item_name(message: &v1::StartBackupRequest) -> Result<&str, Refused> {
    let in_spec = message.spec.as_ref().map_or("", |spec| spec.name.as_str());
    match (message.item.as_str(), in_spec) {
        ("", "") => Err(Refused::invalid("item", "is needed")),
        ("", name) => Ok(name),
        (name, _) => Ok(name),
    }
}
