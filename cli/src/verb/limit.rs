//! `tresor limit …`.

use serde::Serialize;
use tresor_proto::v1::{self, LimitRule, LimitSubject, ListLimitsRequest, RemoveLimitRequest, SetLimitRequest};

use super::shown::some;
use crate::app::App;
use crate::args::{LimitOf, LimitRemoveArgs, LimitSetArgs, LimitVerb};
use crate::error::{CliError, Doing as _};
use crate::human::{self, Table};
use crate::screen::Answer;

/// A rule as it is shown.
#[derive(Debug, Serialize)]
struct RuleShown {
    when: Vec<String>,
    zone: Option<String>,
    upload_bytes: Option<u64>,
    download_bytes: Option<u64>,
    requests: Option<u32>,
    concurrency: Option<u32>,
}

/// A limit as it is shown.
#[derive(Debug, Serialize)]
struct LimitShown {
    kind: &'static str,
    name: String,
    jobs: u64,
    now: RuleShown,
    rules: Vec<RuleShown>,
}

#[derive(Serialize)]
struct Limits {
    limits: Vec<LimitShown>,
}

#[derive(Serialize)]
struct Removed {
    kind: &'static str,
    name: String,
    removed: bool,
}

impl From<LimitRule> for RuleShown {
    fn from(rule: LimitRule) -> Self {
        Self {
            when: rule.windows,
            zone: some(rule.zone),
            upload_bytes: rule.upload,
            download_bytes: rule.download,
            requests: rule.requests,
            concurrency: rule.concurrency,
        }
    }
}

impl From<v1::LimitRow> for LimitShown {
    fn from(row: v1::LimitRow) -> Self {
        let subject = row.subject.unwrap_or_default();
        let (kind, name) = if !subject.store.is_empty() {
            ("store", human::url(&subject.store))
        } else if !subject.worker.is_empty() {
            ("worker", subject.worker)
        } else if !subject.host.is_empty() {
            ("host", subject.host)
        } else {
            ("job", subject.job.to_string())
        };
        Self {
            kind,
            name,
            jobs: row.jobs,
            now: row.now.unwrap_or_default().into(),
            rules: row.rules.into_iter().map(RuleShown::from).collect(),
        }
    }
}

impl RuleShown {
    /// `upload 50 MB/s, 4 at a time`.
    fn rates(&self) -> String {
        let bytes = |word: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{word} {}/s", human::size(bytes)));
        let parts = [
            bytes("upload", self.upload_bytes),
            bytes("download", self.download_bytes),
            self.requests.map(|requests| format!("{requests} requests/s")),
            self.concurrency.map(|count| format!("{count} at a time")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => String::from("-"),
            false => parts.join(", "),
        }
    }

    fn hours(&self) -> String {
        match (self.when.is_empty(), &self.zone) {
            (true, _) => String::from("always"),
            (false, None) => self.when.join("; "),
            (false, Some(zone)) => format!("{} {zone}", self.when.join("; ")),
        }
    }
}

fn kind(of: LimitOf) -> &'static str {
    match of {
        LimitOf::Store => "store",
        LimitOf::Worker => "worker",
        LimitOf::Host => "host",
        LimitOf::Job => "job",
    }
}

fn subject(of: LimitOf, name: &str) -> Result<LimitSubject, CliError> {
    let mut subject = LimitSubject::default();
    match of {
        LimitOf::Store => name.clone_into(&mut subject.store),
        LimitOf::Worker => name.clone_into(&mut subject.worker),
        LimitOf::Host => name.clone_into(&mut subject.host),
        LimitOf::Job => {
            let number = name.parse().ok().filter(|number| *number > 0);
            subject.job = number.ok_or_else(|| {
                CliError::usage_hint(
                    format!("{} is no number of a job", human::plain(name)),
                    "tresor job list shows them",
                )
            })?;
        }
    }
    Ok(subject)
}

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: LimitVerb) -> Result<Answer, CliError> {
    match verb {
        LimitVerb::Set(args) => set(app, args).await,
        LimitVerb::List => list(app).await,
        LimitVerb::Remove(args) => remove(app, args).await,
    }
}

async fn set(app: &App, args: LimitSetArgs) -> Result<Answer, CliError> {
    if (args.upload, args.download).eq(&(None, None)) && (args.requests, args.concurrency).eq(&(None, None)) {
        return Err(CliError::usage_hint(
            "nothing is limited".to_owned(),
            "name what is: --upload, --download, --requests or --concurrency",
        ));
    }
    let name = human::plain(&args.name);
    let request = SetLimitRequest {
        subject: Some(subject(args.of, &args.name)?),
        rule: Some(LimitRule {
            windows: args.windows,
            zone: args.zone.unwrap_or_default(),
            upload: args.upload,
            download: args.download,
            requests: args.requests,
            concurrency: args.concurrency,
        }),
        ..Default::default()
    };
    let limit = app.need_cluster("limit set")?.set_limit(request).await;
    let limit = LimitShown::from(limit.doing(|| format!("could not limit {} {name}", kind(args.of)))?);
    Ok(app.screen.answer(&limit, || {
        let name = human::plain(&limit.name);
        format!("{} {name} is limited, now: {}", limit.kind, limit.now.rates())
    }))
}

async fn list(app: &App) -> Result<Answer, CliError> {
    let listed = app.need_cluster("limit list")?.list_limits(ListLimitsRequest {}).await;
    let listed = listed.doing(|| String::from("could not list limits"))?;
    let shown = Limits {
        limits: listed.limits.into_iter().map(LimitShown::from).collect(),
    };
    Ok(app.screen.answer(&shown, || {
        if shown.limits.is_empty() {
            return String::from("no limits; tresor limit set makes one");
        }
        let mut table = Table::new(&["KIND", "NAME", "HOURS", "LIMIT", "NOW", "JOBS"]);
        for limit in &shown.limits {
            for (place, rule) in limit.rules.iter().enumerate() {
                let first = |text: String| if place == 0 { text } else { String::new() };
                table.row([
                    first(limit.kind.to_owned()),
                    first(human::plain(&limit.name)),
                    rule.hours(),
                    rule.rates(),
                    first(limit.now.rates()),
                    first(limit.jobs.to_string()),
                ]);
            }
        }
        table.render()
    }))
}

async fn remove(app: &App, args: LimitRemoveArgs) -> Result<Answer, CliError> {
    let name = human::plain(&args.name);
    let request = RemoveLimitRequest {
        subject: Some(subject(args.of, &args.name)?),
        windows: args.windows,
        only_always: args.always,
        ..Default::default()
    };
    let removed = app.need_cluster("limit remove")?.remove_limit(request).await;
    removed.doing(|| format!("could not remove the limit of {} {name}", kind(args.of)))?;
    let shown = Removed {
        kind: kind(args.of),
        name: args.name,
        removed: true,
    };
    Ok(app
        .screen
        .answer(&shown, || format!("the limit of {} {name} is removed", shown.kind)))
}
