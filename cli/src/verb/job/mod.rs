//! `tresor job …`.

mod log;
mod shown;
mod wait;

use serde::Serialize;
use tresor_proto::v1::{CancelJobRequest, GetJobLogRequest, GetJobRequest, Job, ListJobsRequest, RetryJobRequest};

use self::log::LogShown;
use super::shown::note_more;
use crate::app::App;
use crate::args::{JobListArgs, JobVerb};
use crate::cluster::Cluster;
use crate::error::{CliError, Doing as _};
use crate::exit::Code;
use crate::screen::Answer;

#[cfg(test)]
pub(crate) use shown::tests::running as running_job;
pub(crate) use shown::{JobShown, table};
pub(crate) use wait::{has_ended, wait, wait_done};

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<JobShown>,
    /// There are more.
    more: bool,
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: JobVerb) -> Result<Answer, CliError> {
    match verb {
        JobVerb::List(args) => list(app, args).await,
        JobVerb::Show(args) => {
            let cluster = app.need_cluster("job show")?;
            let id = args.id.job;
            if args.log {
                let log = cluster.get_job_log(GetJobLogRequest { id }).await;
                let log = LogShown::from(log.doing(|| format!("could not show the log of job {id}"))?);
                return Ok(app.screen.answer(&log, || log.text()));
            }
            let job = cluster.get_job(GetJobRequest { id }).await;
            let job = JobShown::from(job.doing(|| format!("could not show job {id}"))?);
            Ok(app.screen.answer(&job, || job.text()))
        }
        JobVerb::Watch(args) => watch(app, args.job).await,
        JobVerb::Cancel(args) => {
            let request = CancelJobRequest {
                id: args.job,
                ..Default::default()
            };
            let job = app.need_cluster("job cancel")?.cancel_job(request).await;
            let job = JobShown::from(job.doing(|| format!("could not cancel job {}", args.job))?);
            Ok(app.screen.answer(&job, || {
                let end = if job.state == "running" {
                    "is asked to end"
                } else {
                    "is cancelled"
                };
                format!("job {}, {}, {end}", job.job, job.about())
            }))
        }
        JobVerb::Retry(args) => {
            let request = RetryJobRequest {
                id: args.job,
                ..Default::default()
            };
            let job = app.need_cluster("job retry")?.retry_job(request).await;
            let job = JobShown::from(job.doing(|| format!("could not retry job {}", args.job))?);
            Ok(queued(app, &job))
        }
    }
}

async fn list(app: &App, args: JobListArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("job list")?;
    let request = ListJobsRequest {
        item: args.item.unwrap_or_default(),
        vault: app.cluster_vault(None),
        state: args.state.unwrap_or_default(),
        ..Default::default()
    };
    let listed = cluster
        .jobs(request, args.limit.most(app.screen.is_for_person()))
        .await
        .doing(|| String::from("could not list jobs"))?;
    let shown = Jobs {
        jobs: listed.rows.into_iter().map(JobShown::from).collect(),
        more: listed.more,
    };
    note_more(app, shown.more, shown.jobs.len());
    Ok(app.screen.answer(&shown, || {
        if shown.jobs.is_empty() {
            String::from("no jobs")
        } else {
            table(&shown.jobs, app.now)
        }
    }))
}

/// The answer is the job, however it ended; the exit code says how.
async fn watch(app: &App, id: u64) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("job watch")?;
    let job = cluster.get_job(GetJobRequest { id }).await;
    let job = job.doing(|| format!("could not watch job {id}"))?;
    let job = Box::pin(wait::wait(app, &cluster, job)).await?;
    let code = match wait::done(job.clone()) {
        Ok(job) if job.findings > 0 => Code::Damage,
        Ok(_) => Code::Done,
        Err(error) => error.failure().code(),
    };
    let shown = JobShown::from(job);
    Ok(app.screen.answer(&shown, || shown.text()).with_code(code))
}

/// The answer to a command that starts a job and does not wait for it.
pub(crate) fn queued(app: &App, job: &JobShown) -> Answer {
    app.screen.answer(job, || {
        if app.screen.is_terminal() {
            format!("job {} is {}: {}", job.job, job.state, job.about())
        } else {
            job.job.to_string()
        }
    })
}

/// What became of a job that was started.
pub(crate) enum Finished {
    /// It is not waited for: this says so.
    Detached(Answer),
    /// It is done.
    Done(Box<Job>),
}

/// Waits for a job that was started, unless it is not to be waited for.
///
/// # Errors
/// When it does not end well.
pub(crate) async fn finish(app: &App, cluster: &Cluster, job: Job, detach: bool) -> Result<Finished, CliError> {
    if detach {
        return Ok(Finished::Detached(queued(app, &JobShown::from(job))));
    }
    let job = wait::wait_done(app, cluster, job).await?;
    Ok(Finished::Done(Box::new(job)))
}
