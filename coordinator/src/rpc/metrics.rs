//! Numbers of a coordinator for Prometheus: what it was asked, how it stands, and, where it leads, how all that it leads stands. What each means stands in
//! `docs/metrics.md`, which a test keeps in step with what is shown here.
//!
//! Labels are words of this program, methods of the table of permissions, and names of vaults, policies, workers and coordinators, of which there are
//! hundreds and of which only so many have series. Items have none unless somebody asks for it, and then only so many.
//!
//! Read `fleet` (counted in steps, between scrapes), `ended` (jobs), `now` (read off the state at a scrape), then `watching`.

mod ended;
mod fleet;
mod now;
mod page;
pub(super) mod process;
mod watching;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tonic::Code;
use tresor_proto::tls::SharedIdentity;

use crate::node::handle::Standing;
use crate::node::presence::Presence;
use crate::state::State;
use crate::state::entry::Time;
use ended::Ended;
use page::{Page, encode, float, seconds};

pub use fleet::{Counting, Fleet, ITEM_SERIES_MAX};
pub(crate) use watching::Watching;

/// What is counted here.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    denied: IntCounterVec,
    forwarded: IntCounter,
    leader_changes: IntCounter,
    ended: Mutex<Ended>,
    shows_items: bool,
    fleet: Mutex<Option<Arc<Fleet>>>,
    room: Mutex<Option<Room>>,
}

/// What the folder of a coordinator takes and what is left, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free: u64,
    pub(crate) size: u64,
    pub(crate) used: u64,
}

/// What a coordinator is, beside its numbers.
#[derive(Debug, Clone)]
pub struct Around {
    /// Its certificate.
    pub identity: SharedIdentity,
    /// Its folder; none: it is not looked at.
    pub folder: Option<PathBuf>,
}

/// What a scrape is answered from.
pub(crate) struct Seen<'s> {
    pub(crate) standing: &'s Standing,
    pub(crate) is_leader: bool,
    pub(crate) has_leader: bool,
    pub(crate) presence: &'s Presence,
    pub(crate) now: Time,
    pub(crate) now_ms: u64,
    pub(crate) around: &'s Around,
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
    const ALL: [Self; 6] = [
        Self::Method,
        Self::Nothing,
        Self::Token,
        Self::Certificate,
        Self::Guesses,
        Self::Role,
    ];

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

impl Metrics {
    /// All at zero, in a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counts = |name: &str, help: &str, labels: &[&str]| {
            let options = Opts::new(format!("tresor_coordinator_{name}"), help);
            let counters = IntCounterVec::new(options, labels).expect("the names are constants");
            registry
                .register(Box::new(counters.clone()))
                .expect("each name is used once");
            counters
        };
        let count = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("tresor_coordinator_{name}"), help).expect("the names are constants");
            registry
                .register(Box::new(counter.clone()))
                .expect("each name is used once");
            counter
        };
        let denied = counts(
            "requests_denied_total",
            "Calls turned away before a service saw them, by reason.",
            &["reason"],
        );
        // Shown before the first of them: of a series that begins with 1 nobody sees that it rose.
        for why in Denied::ALL {
            denied.with_label_values(&[why.as_str()]).inc_by(0);
        }
        Self {
            requests: counts(
                "requests_total",
                "Calls answered, by service, method and code; of streams, by how they began.",
                &["service", "method", "code"],
            ),
            denied,
            forwarded: count("requests_forwarded_total", "Calls handed on to the leader."),
            leader_changes: count(
                "leader_changes_total",
                "Times that this coordinator learnt that another one leads, or that none does.",
            ),
            ended: Mutex::new(Ended::new(&registry)),
            shows_items: false,
            fleet: Mutex::default(),
            room: Mutex::default(),
            registry,
        }
    }

    /// Shows items by themselves, too: at most [`ITEM_SERIES_MAX`].
    #[must_use]
    pub fn with_items(mut self, shows_items: bool) -> Self {
        self.shows_items = shows_items;
        self
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

    /// Another one leads, or none does.
    pub(crate) fn leader_changed(&self) {
        self.leader_changes.inc();
    }

    /// Whether items are shown by themselves.
    pub(crate) fn shows_items(&self) -> bool {
        self.shows_items
    }

    /// Looks at jobs that ended.
    pub(crate) fn look_at_jobs(&self, state: &State, leads: bool) {
        locked(&self.ended).look(state, leads);
    }

    /// How all items stand; none: this coordinator does not lead, and does not know.
    pub(crate) fn note_fleet(&self, fleet: Option<Fleet>) {
        *locked(&self.fleet) = fleet.map(Arc::new);
    }

    /// What the folder takes and what is left.
    pub(crate) fn note_room(&self, room: Option<Room>) {
        *locked(&self.room) = room;
    }

    /// All of them, in Prometheus' text format (version 0.0.4).
    pub(crate) fn text(&self, state: &State, seen: &Seen<'_>) -> String {
        let page = Page::default();
        now::show_raft(&page, seen.standing, seen.is_leader, seen.has_leader);
        now::show_state(&page, state);
        if seen.is_leader {
            now::show_members(&page, state, seen.standing);
            now::show_workers(&page, state, seen.presence, seen.now_ms);
            now::show_vaults(&page, state, seen.now);
            now::show_channels(&page, state, seen.now);
            let fleet = locked(&self.fleet).clone();
            if let Some(fleet) = fleet {
                fleet.show(&page, seen.now);
            }
        }
        self.show_around(&page, seen.around);
        encode(&self.registry) + &page.text()
    }

    fn show_around(&self, page: &Page, around: &Around) {
        let identity = around.identity.current();
        let ends = |seconds_since: i64| seconds(seconds_since.saturating_mul(1000));
        page.gauge(
            "tresor_coordinator_certificate_end_timestamp_seconds",
            "When this coordinator's certificate ends.",
            ends(identity.validity().not_after),
        );
        page.gauge(
            "tresor_coordinator_authority_end_timestamp_seconds",
            "When the certificate of the cluster's authority ends.",
            ends(identity.ca().validity().not_after),
        );
        let Some(room) = *locked(&self.room) else { return };
        page.gauge(
            "tresor_coordinator_disk_free_bytes",
            "Room left on the file system of the coordinator's folder.",
            float(room.free),
        );
        page.gauge(
            "tresor_coordinator_disk_size_bytes",
            "Size of that file system.",
            float(room.size),
        );
        page.gauge(
            "tresor_coordinator_store_bytes",
            "Files of the coordinator's log and state.",
            float(room.used),
        );
    }

    /// For others that count: their metrics are shown beside ours.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

fn locked<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
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
        let text = encode(&metrics.registry);
        for line in [
            r#"tresor_coordinator_requests_total{code="ok",method="WhoAmI",service="Admin"} 2"#,
            r#"tresor_coordinator_requests_total{code="unauthenticated",method="Join",service="Join"} 1"#,
            r#"tresor_coordinator_requests_denied_total{reason="guesses"} 1"#,
            "# TYPE tresor_coordinator_leader_changes_total counter",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn what_raft_and_the_state_have_is_shown() {
        let standing = Standing {
            term: 3,
            commit: 17,
            applied: 16,
            ..Standing::default()
        };
        let page = Page::default();
        now::show_raft(&page, &standing, true, true);
        now::show_state(&page, &State::default());
        let text = page.text();
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
