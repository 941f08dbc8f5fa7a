//! Who may call what: one table of all methods. What does not stand in it is refused, and a test compares it with the services' descriptions, so that
//! a new method without a row cannot be released.

use tresor_proto::tls::Role as NodeRole;

use crate::security::{Permission, Role, Standing, allows};

/// What a caller of a method must have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing. What the request itself shows decides, or the answer tells nothing worth hiding.
    Anyone,
    /// That it may do this.
    With(Permission),
}

/// The role of who may use the socket in the home of an embedded node: an administrator's rights.
pub const LOCAL: &str = "local";

/// As what a caller with this role asks. A role that this program does not know may nothing.
pub fn standing(role: &str) -> Option<Standing> {
    match role {
        LOCAL => Some(Standing::Person(Role::Admin)),
        role => match (role.parse::<Role>(), role.parse::<NodeRole>()) {
            (Ok(role), _) => Some(Standing::Person(role)),
            (_, Ok(role)) => Some(Standing::Node(role)),
            _ => None,
        },
    }
}

impl Access {
    /// Whether a role has it; an empty one is nobody's.
    pub fn is_given_to(self, role: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::With(permission) => standing(role).is_some_and(|standing| allows(standing, permission)),
        }
    }

    /// Whether a token can have it; else only a node's certificate can.
    pub fn is_for_people(self) -> bool {
        Role::ALL.into_iter().any(|role| self.is_given_to(role.as_str()))
    }

    /// Who has it, for people: `admin or auditor`.
    pub fn holders(self) -> String {
        let people = Role::ALL.map(Role::as_str);
        let nodes = NodeRole::ALL.map(NodeRole::as_str);
        let names: Vec<&str> = people
            .into_iter()
            .chain(nodes)
            .filter(|role| self.is_given_to(role))
            .collect();
        names.join(" or ")
    }
}

use Access::{Anyone, With};
use Permission as P;

/// Every method that is served, and what its caller must be.
pub const PERMISSIONS: &[(&str, Access)] = &[
    ("/tresor.v1.Admin/WhoAmI", With(P::ReadState)),
    ("/tresor.v1.Admin/GetStatus", With(P::ReadState)),
    ("/tresor.v1.Admin/Explain", With(P::ReadState)),
    ("/tresor.v1.Admin/CreateVault", With(P::ManageVaults)),
    ("/tresor.v1.Admin/GetVault", With(P::ReadState)),
    ("/tresor.v1.Admin/ListVaults", With(P::ReadState)),
    ("/tresor.v1.Admin/RemoveVault", With(P::ManageVaults)),
    ("/tresor.v1.Admin/CreatePolicy", With(P::ManagePolicies)),
    ("/tresor.v1.Admin/GetPolicy", With(P::ReadState)),
    ("/tresor.v1.Admin/ListPolicies", With(P::ReadState)),
    ("/tresor.v1.Admin/UpdatePolicy", With(P::ManagePolicies)),
    ("/tresor.v1.Admin/RemovePolicy", With(P::ManagePolicies)),
    ("/tresor.v1.Admin/PreviewPolicy", With(P::ReadState)),
    ("/tresor.v1.Admin/ProtectItem", With(P::ManageItems)),
    ("/tresor.v1.Admin/GetItem", With(P::ReadState)),
    ("/tresor.v1.Admin/ListItems", With(P::ReadState)),
    ("/tresor.v1.Admin/UpdateItem", With(P::ManageItems)),
    ("/tresor.v1.Admin/UnprotectItem", With(P::ManageItems)),
    ("/tresor.v1.Admin/GetPoint", With(P::ReadState)),
    ("/tresor.v1.Admin/ListPoints", With(P::ReadState)),
    ("/tresor.v1.Admin/HoldPoint", With(P::ManageHolds)),
    ("/tresor.v1.Admin/ReleasePoint", With(P::ManageHolds)),
    ("/tresor.v1.Admin/RemovePoint", With(P::RemovePoints)),
    ("/tresor.v1.Admin/UndeletePoint", With(P::ManageHolds)),
    ("/tresor.v1.Admin/StartBackup", With(P::RunBackup)),
    ("/tresor.v1.Admin/StartRestore", With(P::RunRestore)),
    ("/tresor.v1.Admin/NoteRestore", With(P::RunRestore)),
    ("/tresor.v1.Admin/StartVerify", With(P::RunVerify)),
    ("/tresor.v1.Admin/GetJob", With(P::ReadState)),
    ("/tresor.v1.Admin/GetJobLog", With(P::ReadState)),
    ("/tresor.v1.Admin/ListJobs", With(P::ReadState)),
    ("/tresor.v1.Admin/WatchJob", With(P::ReadState)),
    // Who may start nothing but restores cancels those that they began; the service looks at whose it is.
    ("/tresor.v1.Admin/CancelJob", With(P::RunRestore)),
    ("/tresor.v1.Admin/RetryJob", With(P::ManageJobs)),
    ("/tresor.v1.Admin/ListWorkers", With(P::ReadState)),
    ("/tresor.v1.Admin/GetWorker", With(P::ReadState)),
    ("/tresor.v1.Admin/DrainWorker", With(P::ManageCluster)),
    ("/tresor.v1.Admin/RemoveWorker", With(P::ManageCluster)),
    ("/tresor.v1.Admin/ListCoordinators", With(P::ReadState)),
    ("/tresor.v1.Admin/RemoveCoordinator", With(P::ManageCluster)),
    ("/tresor.v1.Admin/TransferLeader", With(P::ManageCluster)),
    ("/tresor.v1.Admin/ConfirmClock", With(P::ManageCluster)),
    ("/tresor.v1.Admin/SetLimit", With(P::ManageCluster)),
    ("/tresor.v1.Admin/RemoveLimit", With(P::ManageCluster)),
    ("/tresor.v1.Admin/ListLimits", With(P::ReadState)),
    ("/tresor.v1.Admin/AddChannel", With(P::ManageCluster)),
    ("/tresor.v1.Admin/RemoveChannel", With(P::ManageCluster)),
    ("/tresor.v1.Admin/ListChannels", With(P::ReadState)),
    // It sends something outside.
    ("/tresor.v1.Admin/TestChannel", With(P::ManageCluster)),
    ("/tresor.v1.Admin/CreateJoinToken", With(P::ManageTokens)),
    ("/tresor.v1.Admin/CreateApiToken", With(P::ManageTokens)),
    ("/tresor.v1.Admin/ListTokens", With(P::ManageTokens)),
    ("/tresor.v1.Admin/RevokeToken", With(P::ManageTokens)),
    ("/tresor.v1.Admin/ListAudit", With(P::ReadAudit)),
    ("/tresor.v1.Admin/VerifyAudit", With(P::ReadAudit)),
    ("/tresor.v1.Admin/BackupCluster", With(P::ManageCluster)),
    ("/tresor.v1.Agent/Register", With(P::Agent)),
    ("/tresor.v1.Agent/NextLease", With(P::Agent)),
    ("/tresor.v1.Agent/Beat", With(P::Agent)),
    ("/tresor.v1.Agent/Complete", With(P::Agent)),
    ("/tresor.v1.Agent/Fail", With(P::Agent)),
    ("/tresor.v1.Agent/ReportLog", With(P::Agent)),
    ("/tresor.v1.Agent/Catalogue", With(P::Agent)),
    ("/tresor.v1.Agent/Points", With(P::Agent)),
    ("/tresor.v1.Agent/AdoptPoints", With(P::Agent)),
    ("/tresor.v1.Agent/Watch", With(P::Agent)),
    ("/tresor.v1.Agent/IndexVaults", With(P::Agent)),
    ("/tresor.v1.Agent/LeaseOf", With(P::Agent)),
    // The join token is in the request; the service looks at it.
    ("/tresor.v1.Join/Join", Anyone),
    ("/tresor.v1.Join/Renew", With(P::Renew)),
    ("/tresor.v1.Peer/Messages", With(P::Peer)),
    ("/tresor.v1.Peer/Snapshot", With(P::Peer)),
    // Whether this process serves, and what can be called: both stand in the source.
    ("/grpc.health.v1.Health/Check", Anyone),
    ("/grpc.health.v1.Health/Watch", Anyone),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anyone),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anyone),
];

/// The row of a method, with the path as it stands in the table.
pub fn row(path: &str) -> Option<(&'static str, Access)> {
    PERMISSIONS.iter().find(|(row, _)| *row == path).copied()
}

/// What every coordinator answers from what it has applied: a thousand workers watch, and not all of them the leader.
const FOR_ALL: &[&str] = &["/tresor.v1.Agent/Watch"];

/// Whether the leader alone answers a method: it changes the state, or reads what only the leader knows.
pub fn is_for_leader(path: &str) -> bool {
    if FOR_ALL.contains(&path) {
        return false;
    }
    ["/tresor.v1.Admin/", "/tresor.v1.Agent/", "/tresor.v1.Join/"]
        .iter()
        .any(|service| path.starts_with(service))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;

    use super::*;

    // The few fields of `google/protobuf/descriptor.proto` that name methods.
    #[derive(Message)]
    struct Set {
        #[prost(message, repeated, tag = "1")]
        files: Vec<File>,
    }
    #[derive(Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        services: Vec<Service>,
    }
    #[derive(Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        methods: Vec<Method>,
    }
    #[derive(Message)]
    struct Method {
        #[prost(string, tag = "1")]
        name: String,
    }

    fn methods(descriptors: &[u8]) -> BTreeSet<String> {
        let set = Set::decode(descriptors).unwrap();
        let mut paths = BTreeSet::new();
        for file in &set.files {
            for service in &file.services {
                for method in &service.methods {
                    paths.insert(format!("/{}.{}/{}", file.package, service.name, method.name));
                }
            }
        }
        assert!(!paths.is_empty());
        paths
    }

    #[test]
    fn every_method_has_one_row_and_every_row_a_method() {
        let mut served = methods(tresor_proto::v1::DESCRIPTORS);
        // What workers serve each other.
        served.retain(|path| !path.starts_with("/tresor.v1.Slots/") && !path.starts_with("/tresor.v1.Parts/"));
        assert!(served.len() >= 57, "{}", served.len());
        served.extend(methods(tonic_health::pb::FILE_DESCRIPTOR_SET));
        served.extend(methods(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        served.extend(methods(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
        let rows: Vec<String> = PERMISSIONS.iter().map(|(path, _)| (*path).to_owned()).collect();
        let unique: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(rows.len(), unique.len(), "a method has two rows");
        assert_eq!(unique, served);
    }

    #[test]
    fn who_may_only_look_changes_nothing() {
        for (path, access) in PERMISSIONS.iter().filter(|(_, access)| *access != Anyone) {
            for role in ["read-only", "auditor", "coordinator"] {
                let method = path.rsplit('/').next().unwrap();
                let looks = ["Get", "List", "Watch", "WhoAmI", "Explain", "Preview", "VerifyAudit"];
                let nodes = ["/tresor.v1.Peer/", "/tresor.v1.Join/"];
                if access.is_given_to(role) && !nodes.iter().any(|service| path.starts_with(service)) {
                    assert!(looks.iter().any(|verb| method.starts_with(verb)), "{role} {path}");
                }
            }
        }
    }

    #[test]
    fn the_local_user_is_an_administrator_and_an_unknown_role_is_nobody() {
        for (path, access) in PERMISSIONS {
            assert_eq!(access.is_given_to(LOCAL), access.is_given_to("admin"), "{path}");
            for nobody in ["", "root", "Admin", "admin ", "joining worker"] {
                assert_eq!(access.is_given_to(nobody), *access == Anyone, "{path}");
            }
        }
    }

    #[test]
    fn who_has_a_permission_is_said_in_words() {
        assert_eq!(With(P::ReadAudit).holders(), "admin or auditor");
        assert_eq!(With(P::Agent).holders(), "worker");
        assert!(With(P::RunRestore).is_for_people() && !With(P::Peer).is_for_people());
    }

    #[test]
    fn a_path_that_is_spelled_otherwise_has_no_row() {
        for path in [
            "",
            "/",
            "/tresor.v1.Admin",
            "/tresor.v1.Admin/",
            "/tresor.v1.Admin/whoami",
            "/tresor.v1.Admin/WhoAmI/",
            "//tresor.v1.Admin/WhoAmI",
            "/tresor.v1.Admin/%57hoAmI",
            "tresor.v1.Admin/WhoAmI",
        ] {
            assert!(row(path).is_none(), "{path}");
        }
    }
}
