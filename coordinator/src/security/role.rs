//! Who may do what: one table, asked by every service before it does anything.
//!
//! | permission | admin | operator | restorer | auditor | read-only | coordinator | worker | joining |
//! |---|---|---|---|---|---|---|---|---|
//! | read-state | x | x | x | x | x | x |  |  |
//! | read-audit | x |  |  | x |  |  |  |  |
//! | run-backup | x | x |  |  |  |  |  |  |
//! | run-restore | x | x | x |  |  |  |  |  |
//! | run-verify | x | x |  |  |  |  |  |  |
//! | manage-jobs | x | x |  |  |  |  |  |  |
//! | manage-items | x | x |  |  |  |  |  |  |
//! | manage-policies | x | x |  |  |  |  |  |  |
//! | manage-holds | x | x |  |  |  |  |  |  |
//! | remove-points | x |  |  |  |  |  |  |  |
//! | manage-vaults | x |  |  |  |  |  |  |  |
//! | manage-keys | x |  |  |  |  |  |  |  |
//! | manage-cluster | x |  |  |  |  |  |  |  |
//! | manage-tokens | x |  |  |  |  |  |  |  |
//! | peer |  |  |  |  |  | x |  |  |
//! | agent |  |  |  |  |  |  | x |  |
//! | index |  |  |  |  |  |  | x |  |
//! | renew |  |  |  |  |  | x | x |  |
//! | join |  |  |  |  |  |  |  | x |
//!
//! What people expect of these words decided it. An operator runs the daily business and can undo all of it: whatever destroys recovery points
//! for good, gives out keys, or gives more rights to anybody is an admin's. A restorer can read every byte that was ever backed up, so that is
//! a role of its own and not part of reading. Auditors see who did what; nobody else needs to. Nodes do what nodes do and nothing that people
//! do: a stolen worker cannot ask for a restore.
//!
//! The Unix socket of an embedded node is an admin: who may enter it owns the files anyway. Health and versions need no permission.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tresor_proto::tls::Role as NodeRole;

/// What a person or a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Admin,
    /// The daily business: items, policies, jobs, backups, restores, holds.
    Operator,
    /// Looks and restores.
    Restorer,
    /// Looks, also at who did what.
    Auditor,
    /// Looks.
    ReadOnly,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Admin,
        Self::Operator,
        Self::Restorer,
        Self::Auditor,
        Self::ReadOnly,
    ];

    /// Its name, as people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Restorer => "restorer",
            Self::Auditor => "auditor",
            Self::ReadOnly => "read-only",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a role: admin, operator, restorer, auditor or read-only")]
pub struct RoleError {
    /// What was given, shortened.
    pub text: String,
}

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError {
                text: text.chars().take(40).collect(),
            })
    }
}

/// As what somebody asks, once it is known who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// With an API token of this role, or over the local socket.
    Person(Role),
    /// With a node's certificate.
    Node(NodeRole),
    /// With a join token, to become such a node.
    Joining(NodeRole),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(role) => role.fmt(f),
            Self::Node(role) => role.fmt(f),
            Self::Joining(role) => write!(f, "joining {role}"),
        }
    }
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// See everything but the audit trail: items, points, jobs, vaults, policies, members, reports.
    ReadState,
    /// See and verify the audit trail.
    ReadAudit,
    /// Start a backup.
    RunBackup,
    /// Start a restore, serve or mount a point, read files out of one: everything that gives out what was backed up.
    RunRestore,
    /// Start a verification.
    RunVerify,
    /// Cancel and retry jobs.
    ManageJobs,
    /// Discover, protect, rename and unprotect items; what is kept of them stays.
    ManageItems,
    /// Make, change and remove policies.
    ManagePolicies,
    /// Hold, release and undelete points.
    ManageHolds,
    /// Remove points before their time.
    RemovePoints,
    /// Make, change, take over and remove vaults, and their stores.
    ManageVaults,
    /// Recovery kits, and adding, rotating and removing keys of vaults.
    ManageKeys,
    /// Members, workers, settings, upgrades, the clock, backups of the cluster itself.
    ManageCluster,
    /// API tokens and join tokens.
    ManageTokens,
    /// Raft between coordinators, and calls that one forwards to the leader in the name of who made them.
    Peer,
    /// What a worker asks of coordinators: leases, reports, sessions, commits.
    Agent,
    /// What a worker asks of the owner of an index slot.
    Index,
    /// A new certificate under the caller's own name.
    Renew,
    /// Become a node.
    Join,
}

impl Permission {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 19] = [
        Self::ReadState,
        Self::ReadAudit,
        Self::RunBackup,
        Self::RunRestore,
        Self::RunVerify,
        Self::ManageJobs,
        Self::ManageItems,
        Self::ManagePolicies,
        Self::ManageHolds,
        Self::RemovePoints,
        Self::ManageVaults,
        Self::ManageKeys,
        Self::ManageCluster,
        Self::ManageTokens,
        Self::Peer,
        Self::Agent,
        Self::Index,
        Self::Renew,
        Self::Join,
    ];

    /// Its name, for answers and the audit trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadState => "read-state",
            Self::ReadAudit => "read-audit",
            Self::RunBackup => "run-backup",
            Self::RunRestore => "run-restore",
            Self::RunVerify => "run-verify",
            Self::ManageJobs => "manage-jobs",
            Self::ManageItems => "manage-items",
            Self::ManagePolicies => "manage-policies",
            Self::ManageHolds => "manage-holds",
            Self::RemovePoints => "remove-points",
            Self::ManageVaults => "manage-vaults",
            Self::ManageKeys => "manage-keys",
            Self::ManageCluster => "manage-cluster",
            Self::ManageTokens => "manage-tokens",
            Self::Peer => "peer",
            Self::Agent => "agent",
            Self::Index => "index",
            Self::Renew => "renew",
            Self::Join => "join",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether somebody of that standing may. A join token's role is compared by the call itself: it may become that and nothing else.
pub fn allows(standing: Standing, permission: Permission) -> bool {
    use Permission as P;
    match standing {
        Standing::Person(role) => {
            let roles: &[Role] = match permission {
                P::ReadState => &Role::ALL,
                P::ReadAudit => &[Role::Admin, Role::Auditor],
                P::RunRestore => &[Role::Admin, Role::Operator, Role::Restorer],
                P::RunBackup | P::RunVerify | P::ManageJobs | P::ManageItems | P::ManagePolicies | P::ManageHolds => {
                    &[Role::Admin, Role::Operator]
                }
                P::RemovePoints | P::ManageVaults | P::ManageKeys | P::ManageCluster | P::ManageTokens => {
                    &[Role::Admin]
                }
                P::Peer | P::Agent | P::Index | P::Renew | P::Join => &[],
            };
            roles.contains(&role)
        }
        Standing::Node(NodeRole::Coordinator) => matches!(permission, P::ReadState | P::Peer | P::Renew),
        Standing::Node(NodeRole::Worker) => matches!(permission, P::Agent | P::Index | P::Renew),
        Standing::Joining(_) => permission == P::Join,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_above_is_what_is_allowed() {
        let standings: Vec<Standing> = Role::ALL
            .into_iter()
            .map(Standing::Person)
            .chain(NodeRole::ALL.into_iter().map(Standing::Node))
            .chain([Standing::Joining(NodeRole::Worker)])
            .collect();
        let source = include_str!("role.rs");
        let written: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .skip(1)
            .collect();
        let allowed: Vec<String> = Permission::ALL
            .into_iter()
            .map(|permission| {
                let marks = standings
                    .iter()
                    .map(|&standing| if allows(standing, permission) { " x |" } else { "  |" });
                format!("{permission} |{}", marks.collect::<String>())
            })
            .collect();
        assert_eq!(written, allowed);
        for permission in Permission::ALL {
            assert_eq!(
                allows(Standing::Joining(NodeRole::Coordinator), permission),
                allows(Standing::Joining(NodeRole::Worker), permission)
            );
        }
    }

    #[test]
    fn all_permissions_are_in_the_table() {
        let mut all = Permission::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        // The last one is `Join`; its number is how many come before it.
        assert_eq!(all.len(), Permission::Join as usize + 1);
    }

    #[test]
    fn a_node_may_nothing_that_people_may_but_look() {
        for permission in Permission::ALL {
            let person = allows(Standing::Person(Role::Admin), permission);
            for node in NodeRole::ALL {
                let node = allows(Standing::Node(node), permission);
                assert!(!(person && node) || permission == Permission::ReadState, "{permission}");
            }
            for role in Role::ALL {
                assert!(
                    person || !allows(Standing::Person(role), permission),
                    "{role} may {permission} and an admin may not"
                );
            }
        }
    }

    #[test]
    fn roles_read_what_they_write() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).ok(), Some(format!("\"{role}\"")));
        }
        assert!("Admin".parse::<Role>().is_err());
    }
}
