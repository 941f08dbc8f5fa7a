//! What limits say now: rules compiled once for each version, asked by the time. Pure.
//!
//! Of one limit, each of its rates is the lowest that a rule with open hours says; where none says one, that of the rule without hours counts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tresor_proto::ids::{VaultId, WorkerId};

use crate::schedule::window::OpenHours;
use crate::schedule::{Windows, WindowsError, zone};
use crate::state::State;
use crate::state::command::Work;
use crate::state::limits::{LimitRates, LimitRule, LimitSubject};
use crate::state::rows::Worker;

/// Why a rule means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Its hours.
    #[error(transparent)]
    Windows(#[from] WindowsError),
    /// Its time zone.
    #[error(transparent)]
    Zone(#[from] zone::UnknownZone),
}

#[derive(Debug, Clone)]
struct Compiled {
    /// None: always.
    hours: Option<(OpenHours, TimeZone)>,
    rates: LimitRates,
}

impl Compiled {
    fn of(rule: &LimitRule) -> Result<Self, RuleError> {
        let hours = match rule.windows.as_slice() {
            [] => None,
            windows => {
                let windows: Windows = windows.join("; ").parse()?;
                Some((OpenHours::new(&windows)?, zone::find(&rule.zone)?))
            }
        };
        Ok(Self {
            hours,
            rates: rule.rates,
        })
    }
}

/// Checks that a rule can be followed.
///
/// # Errors
/// [`RuleError`].
pub fn check_rule(rule: &LimitRule) -> Result<(), RuleError> {
    Compiled::of(rule).map(drop)
}

/// All limits, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct LimitPlans {
    of: BTreeMap<LimitSubject, (u64, Vec<Compiled>)>,
}

impl LimitPlans {
    /// Compiles what is new, forgets what is gone.
    pub fn refresh(&mut self, state: &State) {
        self.of.retain(|subject, _| state.limits().contains(subject));
        for (subject, limit) in state.limits().iter() {
            if self
                .of
                .get(subject)
                .is_some_and(|(version, _)| *version == limit.version)
            {
                continue;
            }
            let compiled = limit.rules.iter().map(|rule| match Compiled::of(rule) {
                Ok(compiled) => compiled,
                Err(error) => {
                    // Checked when it was set; a newer release of the time zone database may have dropped a zone. Better limited at all hours than not.
                    tracing::error!(%subject, %error, "hours of a limit cannot be followed: it holds always");
                    Compiled {
                        hours: None,
                        rates: rule.rates,
                    }
                }
            });
            self.of.insert(subject.clone(), (limit.version, compiled.collect()));
        }
    }

    /// What a limit says now; nothing where there is none.
    pub fn rates(&self, subject: &LimitSubject, now: Timestamp) -> LimitRates {
        self.of
            .get(subject)
            .map_or_else(LimitRates::default, |(_, rules)| rates_of(rules, now))
    }

    /// What all of them say now.
    pub fn all(&self, now: Timestamp) -> impl Iterator<Item = (&LimitSubject, LimitRates)> {
        self.of
            .iter()
            .map(move |(subject, (_, rules))| (subject, rates_of(rules, now)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

fn rates_of(rules: &[Compiled], now: Timestamp) -> LimitRates {
    let mut by_hours = LimitRates::default();
    let mut always = LimitRates::default();
    for rule in rules {
        match &rule.hours {
            None => always = lower(always, rule.rates),
            Some((hours, zone)) if hours.is_open(zone, now) => by_hours = lower(by_hours, rule.rates),
            Some(_) => {}
        }
    }
    LimitRates {
        upload: by_hours.upload.or(always.upload),
        download: by_hours.download.or(always.download),
        requests: by_hours.requests.or(always.requests),
        concurrency: by_hours.concurrency.or(always.concurrency),
    }
}

/// The lower of both, one by one.
pub fn lower(a: LimitRates, b: LimitRates) -> LimitRates {
    fn lower<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
    LimitRates {
        upload: lower(a.upload, b.upload),
        download: lower(a.download, b.download),
        requests: lower(a.requests, b.requests),
        concurrency: lower(a.concurrency, b.concurrency),
    }
}

/// Whether a worker stands on the host that a limit is of: by its own name or its host's.
pub fn is_host_of(subject: &LimitSubject, worker: &Worker) -> bool {
    matches!(subject, LimitSubject::Host(name) if *name == worker.name || *name == worker.facts.host)
}

/// How many jobs run now that a limit of a store or a host binds, by worker.
pub fn running(state: &State, subject: &LimitSubject) -> BTreeMap<WorkerId, u64> {
    let mut counts = BTreeMap::new();
    // Each vault is compared once, however many jobs run in it.
    let mut of_store: BTreeMap<VaultId, bool> = BTreeMap::new();
    for id in state.leases() {
        let Some(job) = state.jobs().get(&id) else { continue };
        let Some(attempt) = job.running() else { continue };
        let is_bound = match subject {
            LimitSubject::Store(_) => *of_store.entry(job.spec.vault).or_insert_with(|| {
                let vault = state.vaults().get(&job.spec.vault);
                vault.is_some_and(|vault| subject.has_store(&vault.spec.url))
            }),
            LimitSubject::Host(_) => {
                matches!(job.spec.work, Work::Backup { .. } | Work::Restore { .. })
                    && state
                        .workers()
                        .get(&attempt.worker)
                        .is_some_and(|worker| is_host_of(subject, worker))
            }
            LimitSubject::Worker(worker) => *worker == attempt.worker,
            LimitSubject::Job(job) => *job == id,
        };
        if is_bound {
            *counts.entry(attempt.worker).or_insert(0) += 1;
        }
    }
    counts
}

/// The limit by which a worker may not begin another job in a vault now; none: it may.
pub fn full(
    state: &State,
    limits: &LimitPlans,
    id: WorkerId,
    worker: &Worker,
    vault: VaultId,
    now: Timestamp,
) -> Option<(LimitSubject, u32)> {
    let mut all = limits.all(now);
    all.find_map(|(subject, rates)| {
        let max = rates.concurrency?;
        let binds = match subject {
            LimitSubject::Store(_) => state
                .vaults()
                .get(&vault)
                .is_some_and(|vault| subject.has_store(&vault.spec.url)),
            LimitSubject::Worker(of) => *of == id,
            LimitSubject::Host(_) => is_host_of(subject, worker),
            // Of a job it is requests that are counted.
            LimitSubject::Job(_) => false,
        };
        let is_full = binds && running(state, subject).values().sum::<u64>() >= u64::from(max);
        is_full.then(|| (subject.clone(), max))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn rule(windows: &[&str], upload: Option<u64>, requests: Option<u32>) -> LimitRule {
        LimitRule {
            windows: windows.iter().map(|window| (*window).to_owned()).collect(),
            zone: String::from("Europe/Berlin"),
            rates: LimitRates {
                upload,
                requests,
                ..LimitRates::default()
            },
        }
    }

    fn at(rules: &[LimitRule], time: &str) -> (Option<u64>, Option<u32>) {
        let rules: Vec<_> = rules.iter().map(|rule| Compiled::of(rule).unwrap()).collect();
        let rates = rates_of(&rules, time.parse().unwrap());
        (rates.upload, rates.requests)
    }

    #[test]
    fn a_limit_follows_the_clock_of_its_zone() {
        let rules = [
            rule(&[], Some(100), Some(50)),
            rule(&["mon-fri 08:00-18:00"], Some(20), None),
            rule(&["fri 12:00-24:00"], Some(10), None),
        ];
        // Friday, the 20th of November 2026; Berlin is an hour ahead of UTC.
        for (time, upload) in [
            ("2026-11-20T06:59:59Z", 100),
            ("2026-11-20T07:00:00Z", 20),
            ("2026-11-20T10:59:59Z", 20),
            ("2026-11-20T11:00:00Z", 10),
            ("2026-11-20T17:00:00Z", 10),
            ("2026-11-20T23:00:00Z", 100),
        ] {
            assert_eq!(at(&rules, time), (Some(upload), Some(50)), "{time}");
        }
        assert_eq!(
            at(&rules[1..2], "2026-11-21T10:00:00Z"),
            (None, None),
            "nothing is limited at other hours"
        );
    }

    #[test]
    fn a_rule_that_means_nothing_is_refused() {
        assert!(check_rule(&rule(&["mon 08:00-18:00"], Some(1), None)).is_ok());
        assert!(check_rule(&rule(&["always"], Some(1), None)).is_err());
        let mut lost = rule(&["mon 08:00-18:00"], Some(1), None);
        lost.zone = String::from("Atlantis");
        assert!(check_rule(&lost).is_err());
    }
}
