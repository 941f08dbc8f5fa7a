//! Limits of use: set rule by rule, removed, listed with what they come to now.

use tresor_proto::v1;

use crate::lead::limits::{LimitPlans, check_rule, running};
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::fields;
use crate::rpc::kinds::Kind;
use crate::rpc::refused::Refused;
use crate::rpc::{convert, resolve};
use crate::schedule::{Windows, WindowsError, zone};
use crate::state::State;
use crate::state::command::Command;
use crate::state::limits::{LimitRates, LimitRule, LimitSubject};

/// Longest text of windows that is read, bytes.
const WINDOWS_TEXT_MAX: usize = 2048;

impl Services {
    /// Sets a rule of a limit.
    pub(crate) async fn set_limit(
        &self,
        caller: &Caller,
        message: v1::SetLimitRequest,
    ) -> Result<v1::LimitRow, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let rule = read_rule(message.rule.as_ref(), &self.zone)?;
        self.change(caller, Kind::SetLimit, key, |state| {
            let subject = subject(state, message.subject.as_ref())?;
            Ok(Command::SetLimit { subject, rule })
        })
        .await?;
        self.handle.read(|state| {
            let of = subject(state, message.subject.as_ref())?;
            let mut plans = LimitPlans::default();
            plans.refresh(state);
            self.limit_row(state, &plans, &of)
                .ok_or_else(|| Refused::missing("limit of", of.to_string()))
        })
    }

    /// Removes a limit, or one rule of it.
    pub(crate) async fn remove_limit(
        &self,
        caller: &Caller,
        message: v1::RemoveLimitRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let windows = match (message.windows.is_empty(), message.only_always) {
            (true, true) => Some(Vec::new()),
            (true, false) => None,
            (false, false) => Some(read_windows(&message.windows)?),
            (false, true) => return Err(Refused::invalid("only_always", "means nothing with windows")),
        };
        self.change(caller, Kind::RemoveLimit, key, |state| {
            let subject = subject(state, message.subject.as_ref())?;
            Ok(Command::RemoveLimit { subject, windows })
        })
        .await?;
        Ok(v1::Empty {})
    }

    /// All limits: there are a thousand at most.
    pub(crate) async fn list_limits(
        &self,
        _: &Caller,
        _: v1::ListLimitsRequest,
    ) -> Result<v1::ListLimitsResponse, Refused> {
        self.look(|state| {
            let mut plans = LimitPlans::default();
            plans.refresh(state);
            let rows = state.limits().iter();
            let limits = rows.filter_map(|(subject, _)| self.limit_row(state, &plans, subject));
            Ok(v1::ListLimitsResponse {
                limits: limits.collect(),
            })
        })
        .await
    }

    fn limit_row(&self, state: &State, plans: &LimitPlans, subject: &LimitSubject) -> Option<v1::LimitRow> {
        let limit = state.limits().get(subject)?;
        let now = plans.rates(subject, self.now(state).timestamp());
        let message = match subject {
            LimitSubject::Store(url) => v1::LimitSubject {
                store: url.clone(),
                ..v1::LimitSubject::default()
            },
            LimitSubject::Worker(id) => v1::LimitSubject {
                worker: convert::worker_name(state, *id),
                ..v1::LimitSubject::default()
            },
            LimitSubject::Host(name) => v1::LimitSubject {
                host: name.clone(),
                ..v1::LimitSubject::default()
            },
            LimitSubject::Job(id) => v1::LimitSubject {
                job: id.0,
                ..v1::LimitSubject::default()
            },
        };
        Some(v1::LimitRow {
            subject: Some(message),
            rules: limit.rules.iter().map(rule_message).collect(),
            now: Some(rule_message(&LimitRule {
                rates: now,
                ..LimitRule::default()
            })),
            jobs: running(state, subject).values().sum(),
        })
    }
}

fn rule_message(rule: &LimitRule) -> v1::LimitRule {
    v1::LimitRule {
        windows: rule.windows.clone(),
        zone: rule.zone.clone(),
        upload: rule.rates.upload,
        download: rule.rates.download,
        requests: rule.rates.requests,
        concurrency: rule.rates.concurrency,
    }
}

/// What is meant by a message: exactly one thing.
fn subject(state: &State, message: Option<&v1::LimitSubject>) -> Result<LimitSubject, Refused> {
    let rule = "must name one store, worker, host or job";
    let Some(message) = message else {
        return Err(Refused::invalid("subject", rule));
    };
    match (
        message.store.trim(),
        message.worker.as_str(),
        message.host.as_str(),
        message.job,
    ) {
        (store, "", "", 0) if !store.is_empty() => store_url(state, store).map(LimitSubject::Store),
        ("", worker, "", 0) if !worker.is_empty() => resolve::worker(state, worker).map(LimitSubject::Worker),
        ("", "", host, 0) if !host.is_empty() => Ok(LimitSubject::Host(host.to_owned())),
        ("", "", "", job) if job != 0 => resolve::job(state, job).map(LimitSubject::Job),
        _ => Err(Refused::invalid("subject", rule)),
    }
}

/// The URL of a store: as it is given, or of the vault of that name.
fn store_url(state: &State, store: &str) -> Result<String, Refused> {
    let url = match store.contains("://") {
        true => store.to_owned(),
        false => {
            let id = resolve::vault(state, store)?;
            let vault = state.vaults().get(&id);
            vault.map(|vault| vault.spec.url.clone()).unwrap_or_default()
        }
    };
    Ok(url.trim_end_matches('/').to_owned())
}

fn read_windows(texts: &[String]) -> Result<Vec<String>, Refused> {
    let text = texts.join("; ");
    if text.len() > WINDOWS_TEXT_MAX {
        let rule = format!("must have at most {WINDOWS_TEXT_MAX} bytes");
        return Err(Refused::invalid("rule.windows", rule));
    }
    let windows: Windows = text
        .parse()
        .map_err(|error: WindowsError| Refused::invalid("rule.windows", error.to_string()))?;
    Ok(windows.0.iter().map(ToString::to_string).collect())
}

fn read_rule(message: Option<&v1::LimitRule>, home: &str) -> Result<LimitRule, Refused> {
    let message = message.ok_or_else(|| Refused::invalid("rule", "is needed"))?;
    let (windows, zone) = match message.windows.as_slice() {
        [] if message.zone.trim().is_empty() => (Vec::new(), String::new()),
        [] => return Err(Refused::invalid("rule.zone", "means nothing without windows")),
        windows => {
            let named = match message.zone.trim() {
                "" => home,
                zone => zone,
            };
            let zone = zone::find(named).map_err(|error| Refused::invalid("rule.zone", error.to_string()))?;
            (read_windows(windows)?, zone.iana_name().unwrap_or("UTC").to_owned())
        }
    };
    let rule = LimitRule {
        windows,
        zone,
        rates: LimitRates {
            upload: message.upload,
            download: message.download,
            requests: message.requests,
            concurrency: message.concurrency,
        },
    };
    check_rule(&rule).map_err(|error| Refused::invalid("rule.windows", error.to_string()))?;
    Ok(rule)
}
