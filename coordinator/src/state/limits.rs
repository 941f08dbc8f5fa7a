//! Limits of use: of a store, a worker, a host or a job. What their hours mean was checked by who proposed them; here only what they are of, and how many.

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{JobId, WorkerId};

use super::State;
use super::reply::{Refusal, Reply};
use super::table::RowKey;
use super::texts::{LONG_LINE_MAX, check_label, check_line, check_long_line};

/// Limits of a cluster: every coordinator looks at all of them each second.
pub const LIMITS_MAX: usize = 1000;
/// Rules of a limit: one for each hour of a day.
const RULES_MAX: usize = 24;
/// Windows of a rule: more than the schedule reads.
const WINDOWS_MAX: usize = 32;
/// Fewest bytes a second: shared by a thousand workers it is some bytes a second each still, and no put of any size would end below.
pub const BYTES_MIN: u64 = 1000;

/// What a limit binds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LimitSubject {
    /// All stores whose URL is this or lies below it, of all workers together.
    Store(String),
    /// A worker, alone.
    Worker(WorkerId),
    /// The disks of a host, of all workers there together.
    Host(String),
    /// A job, alone; it ends with the job.
    Job(JobId),
}

impl RowKey for LimitSubject {
    fn to_bytes(&self) -> Vec<u8> {
        let (kind, key) = match self {
            Self::Store(url) => (0, url.as_bytes().to_vec()),
            Self::Worker(id) => (1, id.to_bytes()),
            Self::Host(name) => (2, name.as_bytes().to_vec()),
            Self::Job(id) => (3, id.to_bytes()),
        };
        [vec![kind], key].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, key) = bytes.split_first()?;
        let text = || String::from_utf8(key.to_vec()).ok();
        match kind {
            0 => text().map(Self::Store),
            1 => WorkerId::from_bytes(key).map(Self::Worker),
            2 => text().map(Self::Host),
            3 => JobId::from_bytes(key).map(Self::Job),
            _ => None,
        }
    }
}

impl LimitSubject {
    /// Whether a URL is a store's, or lies below it.
    pub fn has_store(&self, url: &str) -> bool {
        let Self::Store(prefix) = self else { return false };
        url.strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl std::fmt::Display for LimitSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(url) => write!(f, "store {url}"),
            Self::Worker(id) => write!(f, "worker {id}"),
            Self::Host(name) => write!(f, "host {name}"),
            Self::Job(id) => write!(f, "job {id}"),
        }
    }
}

/// How much. Absent: not limited by this rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitRates {
    /// Bytes a second into the store, or from the host's disks.
    pub upload: Option<u64>,
    /// Bytes a second from the store, or onto the host's disks.
    pub download: Option<u64>,
    /// Requests a second.
    pub requests: Option<u32>,
    /// Of a job: requests at a time. Of others: jobs at a time.
    pub concurrency: Option<u32>,
}

/// One rule of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitRule {
    /// When it holds: `mon-fri 08:00-18:00`; none: always.
    pub windows: Vec<String>,
    /// The IANA time zone of the windows.
    pub zone: String,
    /// How much.
    pub rates: LimitRates,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Its rules: no two have the same windows.
    pub rules: Vec<LimitRule>,
    /// The log index that changed it last.
    pub version: u64,
    /// The log index that made it: before, nobody had a share of it.
    pub since: u64,
}

fn check_rule(rule: &LimitRule) -> Result<(), Refusal> {
    if rule.windows.len() > WINDOWS_MAX {
        return Err(Refusal::invalid("windows", format!("at most {WINDOWS_MAX} fit")));
    }
    for window in &rule.windows {
        check_line("windows", window)?;
    }
    check_line("zone", &rule.zone)?;
    let rates = rule.rates;
    for (field, bytes) in [("upload", rates.upload), ("download", rates.download)] {
        if bytes.is_some_and(|bytes| bytes < BYTES_MIN) {
            return Err(Refusal::invalid(
                field,
                format!("must be at least {BYTES_MIN} bytes a second"),
            ));
        }
    }
    for (field, count) in [("requests", rates.requests), ("concurrency", rates.concurrency)] {
        if count == Some(0) {
            return Err(Refusal::invalid(field, "must be at least 1"));
        }
    }
    if rates == LimitRates::default() {
        return Err(Refusal::invalid("rates", "limit nothing: remove the limit instead"));
    }
    Ok(())
}

impl State {
    fn check_limit_subject(&self, subject: &LimitSubject) -> Result<(), Refusal> {
        match subject {
            LimitSubject::Store(url) => {
                check_label("store", url.get(..url.len().min(200)).unwrap_or("-"))?;
                check_long_line("store", url, LONG_LINE_MAX)
            }
            LimitSubject::Host(name) => check_label("host", name),
            LimitSubject::Worker(id) => match self.workers.get(id) {
                Some(worker) if !worker.removed => Ok(()),
                _ => Err(Refusal::missing("worker", id)),
            },
            LimitSubject::Job(id) => match self.jobs.get(id) {
                Some(job) if !job.state.is_final() => Ok(()),
                Some(_) => Err(Refusal::held(format!("job {id} has ended"))),
                None => Err(Refusal::missing("job", id)),
            },
        }
    }

    pub(super) fn set_limit(&mut self, index: u64, subject: &LimitSubject, rule: &LimitRule) -> Result<Reply, Refusal> {
        check_rule(rule)?;
        self.check_limit_subject(subject)?;
        let mut rules = self
            .limits
            .get(subject)
            .map_or_else(Vec::new, |limit| limit.rules.clone());
        rules.retain(|other| other.windows != rule.windows);
        rules.push(rule.clone());
        rules.sort_by(|a, b| a.windows.cmp(&b.windows));
        if rules.len() > RULES_MAX {
            return Err(Refusal::Full {
                what: format!("rules of {subject}"),
                max: RULES_MAX as u64,
            });
        }
        if !self.limits.contains(subject) && self.limits.len() >= LIMITS_MAX {
            return Err(Refusal::Full {
                what: String::from("limits"),
                max: LIMITS_MAX as u64,
            });
        }
        let since = self.limits.get(subject).map_or(index, |limit| limit.since);
        let row = Limit {
            rules,
            version: index,
            since,
        };
        self.limits.insert(subject.clone(), row);
        Ok(Reply::Done)
    }

    /// Removes all rules of a limit, or those of these windows.
    pub(super) fn remove_limit(
        &mut self,
        index: u64,
        subject: &LimitSubject,
        windows: Option<&[String]>,
    ) -> Result<Reply, Refusal> {
        let missing = || Refusal::missing("limit of", subject);
        let limit = self.limits.get(subject).ok_or_else(missing)?;
        let mut rules = limit.rules.clone();
        match windows {
            None => rules.clear(),
            Some(windows) => rules.retain(|rule| rule.windows != windows),
        }
        if rules.len() == limit.rules.len() {
            return Err(missing());
        }
        match rules.is_empty() {
            true => {
                self.limits.remove(subject);
            }
            false => {
                let row = Limit {
                    rules,
                    version: index,
                    since: limit.since,
                };
                self.limits.insert(subject.clone(), row);
            }
        }
        Ok(Reply::Done)
    }

    /// The limit of what is over ends with it.
    pub(super) fn drop_limit(&mut self, subject: &LimitSubject) {
        if self.limits.contains(subject) {
            self.limits.remove(subject);
        }
    }
}
