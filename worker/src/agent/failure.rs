//! Why an attempt failed, as the coordinator keeps it: a kind that decides what happens next, a message and a hint for people.

use std::fmt;

use tresor_storage::Kind;
use tresor_storage::backend::BackendError;
use tresor_storage::vault::VaultError;

use super::error::JobError;
use crate::control::Requests;
use crate::error::WorkerError;

/// Longest message and hint, bytes: chains of causes with names of objects in them have some hundred.
const TEXT_MAX: usize = 1000;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What helps.
    pub kind: FailureKind,
    /// What failed and why, outermost first, without control characters.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
    /// Whether it is a disk's or the index's on this machine, and not the vault's or its store's.
    pub of_machine: bool,
    /// What was asked of the store until then.
    pub requests: Requests,
}

/// What helps against a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// As for any error.
    Of(Kind),
    /// Nothing: it was cancelled.
    Cancelled,
    /// Another worker, or the next process of this one: it is stopping, and the job has failed at nothing.
    Stopping,
}

impl FailureKind {
    /// Its word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Of(kind) => match kind {
                Kind::Retry => "retry",
                Kind::Invalid => "invalid",
                Kind::Missing => "missing",
                Kind::Corrupt => "corrupt",
                Kind::Unsupported => "unsupported",
                Kind::Fenced => "fenced",
                Kind::Full => "full",
                Kind::Denied => "denied",
                Kind::Bug => "bug",
            },
            Self::Cancelled => "cancelled",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: Kind, message: impl AsRef<str>, hint: impl AsRef<str>) -> Self {
        Self {
            kind: FailureKind::Of(kind),
            message: plain(message.as_ref()),
            hint: plain(hint.as_ref()),
            of_machine: false,
            requests: Requests::default(),
        }
    }

    /// The worker stops before the job is done.
    pub fn stopping() -> Self {
        Self {
            kind: FailureKind::Stopping,
            message: String::from("the worker is stopping"),
            hint: String::new(),
            of_machine: false,
            requests: Requests::default(),
        }
    }

    /// It was cancelled.
    pub fn cancelled() -> Self {
        Self {
            kind: FailureKind::Cancelled,
            message: String::from("cancelled"),
            hint: String::new(),
            of_machine: false,
            requests: Requests::default(),
        }
    }

    /// What an error of a job is for others. `vault` is the vault's name, for hints.
    pub(crate) fn of(error: &JobError, vault: &str) -> Self {
        Self {
            of_machine: is_of_machine(error),
            ..Self::new(error.kind(), chain(error), hint(error, vault))
        }
    }
}

/// Whether a disk or the index of this machine failed. A disk that cannot be read is no store that cannot be reached, and a broken image no damage of a
/// vault: who calls is told the one from the other.
fn is_of_machine(error: &JobError) -> bool {
    fn is_index(error: &tresor_storage::Error) -> bool {
        match error {
            tresor_storage::Error::Index(_) => true,
            tresor_storage::Error::While { source, .. } => is_index(source),
            _ => false,
        }
    }
    match error {
        JobError::Worker(WorkerError::Source { .. } | WorkerError::Sink { .. }) => true,
        JobError::Worker(WorkerError::Storage(error)) => is_index(error),
        _ => false,
    }
}

/// Fit for logs and tables: paths and names of objects come from elsewhere.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len().min(TEXT_MAX));
    for c in text.chars().filter(|c| !c.is_control()) {
        if plain.len() + c.len_utf8() > TEXT_MAX {
            break;
        }
        plain.push(c);
    }
    plain
}

/// The chain as one line, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// What a person can do.
fn hint(error: &JobError, vault: &str) -> String {
    let known = match error {
        JobError::Refused { hint, .. } if !hint.is_empty() => Some(hint.clone()),
        JobError::Worker(WorkerError::Source { source, .. }) => source.hint().map(String::from),
        JobError::Worker(WorkerError::Sink { source, .. }) => source.hint().map(String::from),
        JobError::Worker(WorkerError::Changed { .. }) => Some(String::from(
            "stop the machine, back up a snapshot of the disk, or allow live reading of the item for points marked as such",
        )),
        JobError::Worker(WorkerError::Control(crate::control::ControlError::Refused { hint, .. }))
            if !hint.is_empty() =>
        {
            Some(hint.clone())
        }
        JobError::Worker(WorkerError::Home(error)) => error.hint(),
        JobError::Worker(WorkerError::Storage(error)) => of_storage(error),
        JobError::NotAsMade { .. } => Some(format!(
            "tresor vault remove {vault} forgets it here (its data stays), and tresor vault take-over {vault} claims it with the points that are in it; who writes to it now may not from then on"
        )),
        JobError::Header { .. } => Some(String::from(
            "the store may have been replaced or rolled back: compare it with its copies before anything is written to it",
        )),
        _ => None,
    };
    known.or_else(|| of_kind(error.kind(), vault)).unwrap_or_default()
}

fn of_storage(error: &tresor_storage::Error) -> Option<String> {
    match error {
        tresor_storage::Error::While { source, .. } => of_storage(source),
        tresor_storage::Error::Backend(BackendError::Denied { .. }) => Some(String::from(
            "check the credentials of the store on this worker, and what they permit",
        )),
        tresor_storage::Error::Backend(BackendError::Configuration { .. } | BackendError::Refused { .. }) => Some(
            String::from("check the vault's URL, and [stores.\"URL\"] in this worker's configuration"),
        ),
        tresor_storage::Error::Vault(VaultError::NoVault { .. }) => Some(String::from(
            "nothing is at the vault's URL: is its disk mounted on this worker?",
        )),
        _ => None,
    }
}

fn of_kind(kind: Kind, vault: &str) -> Option<String> {
    match kind {
        Kind::Corrupt => Some(format!("tresor vault verify {vault} --level contents")),
        Kind::Unsupported => Some(String::from("a newer version wrote it: update tresor on this worker")),
        Kind::Fenced => None,
        Kind::Full => Some(String::from("free space; what was stored is not stored twice")),
        Kind::Denied => Some(String::from("check what this worker may read and write")),
        Kind::Bug => Some(String::from(
            "this is a fault of tresor: please report it, with this worker's log",
        )),
        Kind::Retry | Kind::Missing | Kind::Invalid => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ControlError;
    use crate::source::SourceError;

    #[test]
    fn a_failure_says_what_failed_and_why_in_one_plain_line() {
        let error = JobError::from(WorkerError::Source {
            disk: String::from("vda"),
            source: SourceError::Missing {
                path: "/vm/\u{1b}[2Jweb.img".into(),
            },
        });
        let failure = Failure::of(&error, "main");
        assert_eq!(failure.kind.word(), "missing");
        assert!(failure.message.starts_with("could not read disk vda: "), "{failure}");
        assert!(!failure.message.contains('\u{1b}'), "{failure}");
        let long = Failure::new(Kind::Bug, "ä".repeat(5000), "x".repeat(5000));
        assert_eq!((long.message.len(), long.hint.len()), (TEXT_MAX, TEXT_MAX));
    }

    #[test]
    fn a_failing_disk_is_told_from_a_failing_store() {
        let source = SourceError::Missing {
            path: "/vm/web.img".into(),
        };
        let disk = String::from("vda");
        let of_disk = JobError::from(WorkerError::Source { disk, source });
        let of_store = JobError::from(WorkerError::from(tresor_storage::Error::from(BackendError::NotFound {
            name: String::from("packs/x"),
        })));
        assert!(Failure::of(&of_disk, "main").of_machine);
        assert!(!Failure::of(&of_store, "main").of_machine);
    }

    #[test]
    fn a_vault_that_is_not_as_it_was_made_comes_with_the_way_to_have_it() {
        let error = JobError::NotAsMade {
            url: String::from("s3://b"),
            what: String::from("somebody has written points to it"),
        };
        let failure = Failure::of(&error, "main");
        assert!(failure.hint.contains("vault take-over main"), "{failure:?}");
    }

    #[test]
    fn what_the_coordinator_hints_at_goes_before_what_a_kind_does() {
        let refused = |hint: &str| {
            JobError::from(WorkerError::from(ControlError::Refused {
                kind: Kind::Corrupt,
                why: String::from("no"),
                hint: hint.to_owned(),
            }))
        };
        assert_eq!(Failure::of(&refused("look there"), "main").hint, "look there");
        assert!(Failure::of(&refused(""), "main").hint.contains("verify main"));
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let kinds = [
            Kind::Retry,
            Kind::Invalid,
            Kind::Missing,
            Kind::Corrupt,
            Kind::Unsupported,
            Kind::Fenced,
            Kind::Full,
            Kind::Denied,
            Kind::Bug,
        ];
        let mut words: Vec<_> = kinds.into_iter().map(|kind| FailureKind::Of(kind).word()).collect();
        words.extend([FailureKind::Cancelled.word(), FailureKind::Stopping.word()]);
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), kinds.len() + 2);
    }
}
