//! One hint to an error: what a person can do now.

use tresor_storage::Kind;
use tresor_storage::backend::BackendError;
use tresor_storage::index::IndexError;
use tresor_storage::keys::KeyError;
use tresor_storage::vault::VaultError;
use tresor_worker::WorkerError;
use tresor_worker::control::ControlError;
use tresor_worker::home::HomeError;

use crate::error::CliError;
use crate::exit::Failure;

/// The hint to an error that happened with the vault of that name.
pub(crate) fn hint(error: &CliError, vault: &str) -> Option<String> {
    match error {
        CliError::Usage { hint, .. } => hint.clone(),
        CliError::Settings { .. } => Some(String::from("tresor config show says where each setting comes from")),
        CliError::While { source, .. } => hint(source, vault),
        CliError::Cluster(error) => error.hint(),
        CliError::Home(error) => error.hint().or_else(|| match error {
            HomeError::Storage(error) => of_storage(error, vault),
            HomeError::Control(error) => of_control(error, vault),
            HomeError::NotWritable { source, .. } => of_control(source, vault),
            error => of_kind(Failure::Vault(error.kind()), vault),
        }),
        CliError::Worker(WorkerError::Source { source, .. }) => {
            source.hint().map(String::from).or_else(|| of_machine(source.kind()))
        }
        CliError::Worker(WorkerError::Sink { source, .. }) => {
            source.hint().map(String::from).or_else(|| of_machine(source.kind()))
        }
        CliError::Worker(WorkerError::Changed { .. }) => Some(String::from(
            "stop the VM, back up a snapshot of the disk, or pass --allow-live for a point marked as such",
        )),
        CliError::Worker(WorkerError::Storage(error)) | CliError::Storage(error) => of_storage(error, vault),
        CliError::Worker(WorkerError::Control(error)) | CliError::Control(error) => of_control(error, vault),
        CliError::Removed => Some(String::from(
            "tresor coordinator start --join … --token-file … with an empty folder makes a new one of it",
        )),
        error => of_kind(error.failure(), vault),
    }
}

fn of_control(error: &ControlError, vault: &str) -> Option<String> {
    match error {
        ControlError::Storage(error) => of_storage(error, vault),
        ControlError::Busy { .. } => Some(String::from("wait until it is done, then try again")),
        ControlError::Held { point, .. } => Some(format!(
            "tresor point release {point} --vault {vault}, if nobody needs it"
        )),
        error => of_kind(Failure::Vault(error.kind()), vault),
    }
}

fn of_storage(error: &tresor_storage::Error, vault: &str) -> Option<String> {
    match error {
        tresor_storage::Error::While { source, .. } => of_storage(source, vault),
        tresor_storage::Error::Key(KeyError::Wrong { .. }) => Some(String::from(
            "check the passphrase or file; --recovery-kit FILE opens the vault, too",
        )),
        tresor_storage::Error::Key(KeyError::None { .. }) => {
            Some(String::from("give --key-file, --recovery-kit or --passphrase-file"))
        }
        tresor_storage::Error::Key(KeyError::NotAllowed { .. }) => Some(format!(
            "open the vault with another key: tresor vault key list --vault {vault}"
        )),
        tresor_storage::Error::Key(KeyError::Removed { .. }) => Some(String::from(
            "its secret was rotated or removed; after a rotation that was cut off: --key-file HOME/keys/VAULT-ID.new",
        )),
        tresor_storage::Error::Key(_) => None,
        tresor_storage::Error::Backend(BackendError::Denied { .. }) => Some(String::from(
            "check the store's credentials and what they permit: tresor config show",
        )),
        tresor_storage::Error::Backend(BackendError::Configuration { .. } | BackendError::Refused { .. }) => Some(
            String::from("check the URL, and [stores.\"URL\"] in the configuration: tresor config show"),
        ),
        tresor_storage::Error::Vault(VaultError::NoVault { .. }) => {
            Some(String::from("tresor vault list; tresor vault create NAME --store URL"))
        }
        tresor_storage::Error::Vault(VaultError::NotThere { .. } | VaultError::Ambiguous { .. }) => {
            Some(format!("tresor point list --vault {vault}"))
        }
        tresor_storage::Error::Index(IndexError::Locked) => {
            Some(String::from("wait until the other process is done, then try again"))
        }
        tresor_storage::Error::Index(_) => Some(format!("tresor vault rebuild {vault}")),
        error => of_kind(Failure::Vault(error.kind()), vault),
    }
}

fn of_machine(kind: Kind) -> Option<String> {
    match kind {
        Kind::Denied => Some(String::from("run as a user who may do that")),
        Kind::Full => Some(String::from("free space, then try again")),
        _ => None,
    }
}

/// What helps against a kind of failure, where nothing more is known.
fn of_kind(failure: Failure, vault: &str) -> Option<String> {
    match failure {
        Failure::Usage | Failure::Interrupted => None,
        Failure::Damage => Some(format!(
            "tresor vault verify {vault} --level contents; restore the rest with --allow-damage"
        )),
        Failure::Machine(kind) => of_machine(kind),
        Failure::Vault(kind) => match kind {
            Kind::Retry => Some(String::from(
                "try again when the store answers; what was stored is not stored twice",
            )),
            Kind::Corrupt => Some(format!("tresor vault verify {vault} --level contents")),
            Kind::Unsupported => Some(String::from("a newer version wrote it: upgrade tresor")),
            Kind::Fenced => Some(format!(
                "if the holder is gone for good: tresor vault take-over {vault}"
            )),
            Kind::Full => Some(String::from(
                "free space in the store, then try again; what was stored is not stored twice",
            )),
            Kind::Denied => Some(String::from("check keys and credentials: tresor config show")),
            Kind::Bug => Some(String::from(
                "this is a fault of tresor: please report it, with the output of -vv",
            )),
            Kind::Missing | Kind::Invalid => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_that_a_person_can_mend_has_a_hint() {
        for kind in [
            Kind::Retry,
            Kind::Corrupt,
            Kind::Unsupported,
            Kind::Fenced,
            Kind::Full,
            Kind::Denied,
            Kind::Bug,
        ] {
            assert!(of_kind(Failure::Vault(kind), "main").is_some(), "{kind:?}");
        }
        assert!(of_kind(Failure::Damage, "main").is_some_and(|hint| hint.contains("verify main")));
    }

    #[test]
    fn the_hint_is_that_of_the_innermost_cause() {
        let denied = KeyError::Wrong {
            what: String::from("the passphrase"),
            vault: String::from("ab"),
        };
        let error = CliError::While {
            doing: String::from("could not open the vault"),
            source: Box::new(CliError::from(tresor_storage::Error::While {
                doing: String::from("open the keys"),
                source: Box::new(denied.into()),
            })),
        };
        assert!(hint(&error, "main").is_some_and(|hint| hint.contains("--recovery-kit")));
    }
}
