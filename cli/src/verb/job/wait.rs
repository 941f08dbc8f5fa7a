//! Waiting for a job: its progress is shown, a lost connection is made again, and who interrupts is asked what is to become of the job.

use std::time::Duration;

use tokio::time::sleep;
use tresor_proto::v1::{Attempt, CancelJobRequest, Job, WatchJobRequest};
use tresor_storage::Kind;

use super::shown::about;
use crate::app::App;
use crate::cluster::{Cluster, ClusterError, kind_of};
use crate::confirm::ask;
use crate::error::CliError;
use crate::metrics::Requests;
use crate::screen::Watch;
use crate::signals::{Came, Interrupts, STOPPING, end_at_next};

/// Pause before a stream is asked for again that ended before its job: a server that shuts down ends all of them at once.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to become of a job whose watcher goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Cancel,
    Leave,
    Wait,
}

/// Why a stream of a job was left.
enum Left {
    /// It ended; the job may have, too.
    Ended,
    /// A signal came.
    Signal(Came),
}

/// Waits until a job has ended, however it ends.
///
/// # Errors
/// [`CliError::Interrupted`] when a signal ends the waiting; the cluster's own.
pub(crate) async fn wait(app: &App, cluster: &Cluster, mut job: Job) -> Result<Job, CliError> {
    let mut signals = Interrupts::listen()?;
    app.awaits(job.id);
    let item = Some(job.item.as_str()).filter(|item| !item.is_empty());
    let name = about(&job.kind, item, &job.vault);
    let mut bar = app.screen.follow(&name);
    // What an attempt of an earlier process failed at is no news.
    let known = job.attempts.len();
    let gives_up = |job: &Job| app.is_node_brief() && job.attempts.len() > known && is_put_off(job);
    while !has_ended(&job) {
        if gives_up(&job) {
            // Whose the node is may have changed since it was looked at.
            if let Some(seat) = app.seat() {
                seat.look_again().await?;
            }
            if gives_up(&job) {
                // Nobody is there to try again once the commands have ended, so the person hears of it now.
                return give_up(app, cluster, job).await;
            }
        }
        let came = match follow(cluster, &bar, &mut job, &mut signals, &gives_up).await? {
            Left::Ended if has_ended(&job) || gives_up(&job) => continue,
            Left::Ended => {
                sleep(PAUSE).await;
                continue;
            }
            Left::Signal(came) => came,
        };
        // Nothing is drawn while a person reads and types.
        drop(bar);
        match wish(app, &job, came, &mut signals).await? {
            Wish::Wait => bar = app.screen.follow(&name),
            Wish::Leave => {
                let id = job.id;
                app.screen.say(&format!(
                    "job {id} goes on: tresor job watch {id} waits for it, tresor job cancel {id} ends it"
                ));
                return Err(CliError::Interrupted);
            }
            Wish::Cancel => {
                let request = CancelJobRequest {
                    id: job.id,
                    ..Default::default()
                };
                if app.is_node() {
                    app.screen.note(STOPPING);
                    tokio::spawn(end_at_next(signals));
                }
                cluster.cancel_job(request).await?;
                if !app.is_node() {
                    app.screen.say(&format!("job {} is asked to end", job.id));
                }
                return Err(CliError::Interrupted);
            }
        }
    }
    Ok(job)
}

/// Whether an attempt failed and another one is to follow. One that was lost, with the process that was the node, has failed at nothing: the next one is
/// made within seconds.
fn is_put_off(job: &Job) -> bool {
    let failed = |last: &Attempt| !last.failure.is_empty() && last.kind != "lost";
    job.state == "queued" && job.attempts.last().is_some_and(failed)
}

/// Ends a job whose attempt failed; it is shown as failed for the reason of that attempt.
async fn give_up(app: &App, cluster: &Cluster, mut job: Job) -> Result<Job, CliError> {
    let request = CancelJobRequest {
        id: job.id,
        ..Default::default()
    };
    match cluster.cancel_job(request).await {
        // Another command that waits for it has given it up.
        Err(ClusterError::Refused(_)) => {}
        cancelled => drop(cancelled?),
    }
    app.screen.note(&format!(
        "job {} is not tried again: that only tresor node start does, and it does not run",
        job.id
    ));
    job.state = String::from("failed");
    Ok(job)
}

/// Follows one stream of a job to its end.
async fn follow(
    cluster: &Cluster,
    bar: &Watch,
    job: &mut Job,
    signals: &mut Interrupts,
    gives_up: &impl Fn(&Job) -> bool,
) -> Result<Left, CliError> {
    show(bar, job);
    let opening = cluster.watch_job(WatchJobRequest { id: job.id });
    let mut stream = tokio::select! {
        stream = opening => stream?,
        came = signals.next() => return Ok(Left::Signal(came)),
    };
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            came = signals.next() => return Ok(Left::Signal(came)),
        };
        match message {
            Ok(Some(now)) => {
                *job = now;
                show(bar, job);
                if has_ended(job) || gives_up(job) {
                    return Ok(Left::Ended);
                }
            }
            Ok(None) => return Ok(Left::Ended),
            Err(status) => {
                cluster.forgive(&status)?;
                return Ok(Left::Ended);
            }
        }
    }
}

fn show(bar: &Watch, job: &Job) {
    let worker = if job.worker.is_empty() {
        String::new()
    } else {
        format!(" on {}", job.worker)
    };
    let stage = if job.stage.is_empty() { &job.state } else { &job.stage };
    bar.heard(&format!("{stage}{worker}"), job.bytes_done, job.bytes_total);
}

/// Asks the person at the terminal; a program that ends us, and one without a terminal, leaves the job alone. So does a second signal.
async fn wish(app: &App, job: &Job, came: Came, signals: &mut Interrupts) -> Result<Wish, CliError> {
    if app.is_node() {
        // The job ends with this process.
        return Ok(Wish::Cancel);
    }
    if came == Came::Terminate || !app.screen.can_ask() {
        return Ok(Wish::Leave);
    }
    let prompt = format!(
        "\nCancel job {}? y: cancel it; n: leave it running; w: go on waiting [n] ",
        job.id
    );
    // A thread of its own and not one of the runtime's: nobody waits for it at the end of the process, should no answer come.
    let (send, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Nobody takes it any more after a second signal.
        let _ = send.send(ask(&prompt));
    });
    tokio::select! {
        line = answer => match line {
            Ok(line) => Ok(read_wish(&line?)),
            Err(_) => Ok(Wish::Leave),
        },
        _ = signals.next() => Ok(Wish::Leave),
    }
}

fn read_wish(line: &str) -> Wish {
    match line.to_ascii_lowercase().as_str() {
        "y" | "yes" => Wish::Cancel,
        "w" | "wait" => Wish::Wait,
        _ => Wish::Leave,
    }
}

/// Whether a job is over.
pub(crate) fn has_ended(job: &Job) -> bool {
    matches!(job.state.as_str(), "done" | "failed" | "cancelled")
}

/// A job that is done; any other end is an error, of the kind of its last attempt.
///
/// # Errors
/// [`ClusterError::JobFailed`], [`ClusterError::JobCancelled`].
pub(crate) fn done(job: Job) -> Result<Job, ClusterError> {
    let last = job.attempts.last();
    match job.state.as_str() {
        "done" => Ok(job),
        "cancelled" => Err(ClusterError::JobCancelled {
            job: job.id,
            why: job.why,
        }),
        _ => {
            let said = last.filter(|attempt| !attempt.failure.is_empty());
            let report = job.report.as_ref();
            let requests = report.and_then(|report| report.counts.as_ref()).map(Requests::from);
            Err(ClusterError::JobFailed {
                job: job.id,
                why: match said {
                    Some(attempt) => format!("{} (on {})", attempt.failure, attempt.worker),
                    None => job.why.clone(),
                },
                // A job that failed before any attempt was never possible.
                kind: said.map_or(Kind::Invalid, |attempt| kind_of(&attempt.kind)),
                hint: said.map(|attempt| attempt.hint.clone()).unwrap_or_default(),
                of_machine: report.is_some_and(|report| report.of_machine),
                requests: Box::new(requests.unwrap_or_default()),
            })
        }
    }
}

/// Waits until a job is done.
///
/// # Errors
/// As [`wait`] and [`done`].
pub(crate) async fn wait_done(app: &App, cluster: &Cluster, job: Job) -> Result<Job, CliError> {
    Ok(done(Box::pin(wait(app, cluster, job)).await?)?)
}

#[cfg(test)]
mod tests {
    use super::super::shown::tests::running;
    use super::*;
    use tresor_proto::v1::{Counts, Report};

    #[test]
    fn an_unclear_answer_leaves_the_job_running() {
        for (line, wish) in [
            ("y", Wish::Cancel),
            ("Yes", Wish::Cancel),
            ("w", Wish::Wait),
            ("n", Wish::Leave),
            ("", Wish::Leave),
            ("what?", Wish::Leave),
        ] {
            assert_eq!(read_wish(line), wish, "{line:?}");
        }
    }

    #[test]
    fn a_failed_job_is_an_error_of_the_kind_of_its_last_attempt() {
        let mut job = Job {
            state: String::from("failed"),
            ..running()
        };
        job.attempts[1] = tresor_proto::v1::Attempt {
            failure: String::from("no space in s3://b"),
            kind: String::from("full"),
            ..job.attempts[1].clone()
        };
        let error = done(job).expect_err("it failed");
        assert_eq!(error.to_string(), "job 812 failed: no space in s3://b (on kvm-2)");
        assert_eq!(error.failure().code().number(), 8);
    }

    #[test]
    fn a_disk_that_fails_on_a_worker_is_no_store_that_does_not_answer_and_no_damage_of_a_vault() {
        let failed = |kind: &str, of_machine| {
            let mut job = Job {
                state: String::from("failed"),
                report: Some(Report {
                    of_machine,
                    counts: Some(Counts {
                        gets: 7,
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..running()
            };
            job.attempts[1].failure = String::from("could not read disk vda");
            job.attempts[1].kind = kind.to_owned();
            done(job).expect_err("it failed")
        };
        for (kind, of_machine, code) in [
            ("retry", true, 1),
            ("corrupt", true, 1),
            ("missing", true, 4),
            ("retry", false, 7),
            ("corrupt", false, 3),
        ] {
            let error = failed(kind, of_machine);
            assert_eq!(error.failure().code().number(), code, "{kind} {of_machine}");
            assert!(matches!(error, ClusterError::JobFailed { requests, .. } if requests.get == 7));
        }
    }

    #[test]
    fn a_job_that_was_cancelled_is_not_done() {
        let job = Job {
            state: String::from("cancelled"),
            ..running()
        };
        let error = done(job).expect_err("it was cancelled");
        assert_eq!(error.to_string(), "job 812 was cancelled");
        assert_eq!(error.failure().code().number(), 1);
    }
}
