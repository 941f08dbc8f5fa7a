//! Numbers for Prometheus: what this coordinator was asked, and how it stands.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tonic::Code;

use crate::node::handle::Standing;
use crate::state::State;

/// What is counted here. Labels are of closed sets: methods are rows of the table of permissions.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    denied: IntCounterVec,
    forwarded: IntCounter,
    term: IntGauge,
    commit: IntGauge,
    applied: IntGauge,
    is_leader: IntGauge,
    has_leader: IntGauge,
    members: IntGaugeVec,
    workers: IntGaugeVec,
    items: IntGauge,
    points: IntGauge,
    vaults: IntGauge,
    jobs: IntGaugeVec,
    expiry_stopped: IntGauge,
}

/// Why a call was turned away before any service saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no such method.
    Method,
    /// Nothing was shown.
    Nothing,
    /// The token is not good.
    Token,
    /// The certificate is not good any more.
    Certificate,
    /// Too many failures from there.
    Guesses,
    /// Who calls is known and may not.
    Role,
}

impl Denied {
    fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Nothing => "nothing_shown",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Guesses => "guesses",
            Self::Role => "role",
        }
    }
}

/// The name of a code, as a label.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// A number as a gauge has it.
fn gauge(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

impl Metrics {
    /// All at zero, in a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let number = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("tresor_coordinator_{name}"), help).expect("the names are constants");
            registry
                .register(Box::new(gauge.clone()))
                .expect("each name is used once");
            gauge
        };
        let numbers = |name: &str, help: &str, label: &str| {
            let options = Opts::new(format!("tresor_coordinator_{name}"), help);
            let gauges = IntGaugeVec::new(options, &[label]).expect("the names are constants");
            registry
                .register(Box::new(gauges.clone()))
                .expect("each name is used once");
            gauges
        };
        let counts = |name: &str, help: &str, labels: &[&str]| {
            let options = Opts::new(format!("tresor_coordinator_{name}"), help);
            let counters = IntCounterVec::new(options, labels).expect("the names are constants");
            registry
                .register(Box::new(counters.clone()))
                .expect("each name is used once");
            counters
        };
        let forwarded = IntCounter::new(
            "tresor_coordinator_requests_forwarded_total",
            "Calls handed on to the leader.",
        )
        .expect("the names are constants");
        registry
            .register(Box::new(forwarded.clone()))
            .expect("each name is used once");
        Self {
            requests: counts(
                "requests_total",
                "Calls answered, by service, method and code; of streams, by how they began.",
                &["service", "method", "code"],
            ),
            denied: counts(
                "requests_denied_total",
                "Calls turned away before a service saw them, by reason.",
                &["reason"],
            ),
            forwarded,
            term: number("term", "The term of Raft."),
            commit: number("commit_index", "The log is committed up to here."),
            applied: number("applied_index", "The log is applied up to here."),
            is_leader: number("is_leader", "1 where this coordinator leads."),
            has_leader: number("has_leader", "1 where this coordinator knows who leads."),
            members: numbers("members", "Coordinators, by what they are.", "role"),
            workers: numbers("workers", "Workers that are not removed, by state.", "state"),
            items: number("items", "Items, those included of which only points are left."),
            points: number("points", "Recovery points, hidden ones included."),
            vaults: number("vaults", "Vaults."),
            jobs: numbers("jobs", "Jobs that have not ended, by state.", "state"),
            expiry_stopped: number(
                "expiry_stopped",
                "1 while nothing expires because a clock stepped and nobody has confirmed it.",
            ),
            registry,
        }
    }

    /// Counts an answer. `path` is that of a row.
    pub(crate) fn request(&self, path: &'static str, code: Code) {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or(("", ""));
        let service = service.rsplit('.').next().unwrap_or(service);
        self.requests
            .with_label_values(&[service, method, code_name(code)])
            .inc();
    }

    /// Counts a call that was turned away.
    pub(crate) fn denied(&self, why: Denied) {
        self.denied.with_label_values(&[why.as_str()]).inc();
    }

    /// Counts a call that was handed on.
    pub(crate) fn forwarded(&self) {
        self.forwarded.inc();
    }

    /// Notes how Raft stands.
    pub(crate) fn note_standing(&self, standing: &Standing, is_leader: bool, has_leader: bool) {
        self.term.set(gauge(standing.term));
        self.commit.set(gauge(standing.commit));
        self.applied.set(gauge(standing.applied));
        self.is_leader.set(i64::from(is_leader));
        self.has_leader.set(i64::from(has_leader));
        let voters = standing.members.iter().filter(|member| member.votes).count();
        self.members.with_label_values(&["voter"]).set(gauge(voters));
        let learners = standing.members.len() - voters;
        self.members.with_label_values(&["learner"]).set(gauge(learners));
    }

    /// Notes what the state has. Looks at every worker and every running job, and at nothing that is counted in millions.
    pub(crate) fn note_state(&self, state: &State) {
        self.items.set(gauge(state.items().len()));
        self.points.set(gauge(state.points().len()));
        self.vaults.set(gauge(state.vaults().len()));
        let running = state.leases().count();
        let open = state.open_jobs_count();
        self.jobs.with_label_values(&["running"]).set(gauge(running));
        let queued = open.saturating_sub(running);
        self.jobs.with_label_values(&["queued"]).set(gauge(queued));
        let (mut ready, mut drained, mut joined) = (0, 0, 0);
        for worker in state.workers().values().filter(|worker| !worker.removed) {
            match (worker.drained, worker.life) {
                (true, _) => drained += 1,
                (false, Some(_)) => ready += 1,
                (false, None) => joined += 1,
            }
        }
        for (name, count) in [("registered", ready), ("drained", drained), ("joined", joined)] {
            self.workers.with_label_values(&[name]).set(count);
        }
        let stopped = state.marks().expiry_stopped.is_some();
        self.expiry_stopped.set(i64::from(stopped));
    }

    /// For others that count: their metrics are shown beside ours.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All of them, in Prometheus' text format (version 0.0.4).
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_under_its_service_method_and_code() {
        let metrics = Metrics::new();
        metrics.request("/tresor.v1.Admin/WhoAmI", Code::Ok);
        metrics.request("/tresor.v1.Admin/WhoAmI", Code::Ok);
        metrics.request("/tresor.v1.Join/Join", Code::Unauthenticated);
        metrics.denied(Denied::Guesses);
        let text = metrics.text();
        for line in [
            r#"tresor_coordinator_requests_total{code="ok",method="WhoAmI",service="Admin"} 2"#,
            r#"tresor_coordinator_requests_total{code="unauthenticated",method="Join",service="Join"} 1"#,
            r#"tresor_coordinator_requests_denied_total{reason="guesses"} 1"#,
            "# TYPE tresor_coordinator_term gauge",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn what_the_state_and_raft_have_is_shown() {
        let metrics = Metrics::new();
        let standing = Standing {
            term: 3,
            commit: 17,
            applied: 16,
            ..Standing::default()
        };
        metrics.note_standing(&standing, true, true);
        metrics.note_state(&State::default());
        let text = metrics.text();
        for line in [
            "tresor_coordinator_term 3",
            "tresor_coordinator_commit_index 17",
            "tresor_coordinator_applied_index 16",
            "tresor_coordinator_is_leader 1",
            r#"tresor_coordinator_jobs{state="queued"} 0"#,
            "tresor_coordinator_points 0",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }
}
