//! Names of nodes in certificates: `tresor://<cluster>/<role>/<id>`, the one URI among a certificate's alternative names.

use std::fmt;
use std::str::FromStr;

use crate::ids::{hex, unhex};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the log, decides.
    Coordinator,
    /// Moves data.
    Worker,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Coordinator, Self::Worker];

    /// `coordinator` or `worker`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NameError::new(text))
    }
}

/// A text that is not the name of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name a node of a cluster")]
pub struct NameError {
    /// What was found, shortened.
    pub text: String,
}

impl NameError {
    fn new(text: &str) -> Self {
        Self {
            text: text.chars().take(120).collect(),
        }
    }
}

/// Who a certificate was made for. A number is never given twice within a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName {
    /// The cluster.
    pub cluster: [u8; 16],
    /// What it is for.
    pub role: Role,
    /// Which one: the number of a coordinator or of a worker.
    pub id: u64,
}

impl PeerName {
    /// The scheme of such names. A certificate has one name of it.
    pub const SCHEME: &'static str = "tresor://";

    /// The role and the number, for people who know which cluster they talk about: `worker 7`.
    pub fn short(&self) -> String {
        format!("{} {}", self.role, self.id)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}/{}", Self::SCHEME, hex(&self.cluster), self.role, self.id)
    }
}

impl FromStr for PeerName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let read = || {
            let mut parts = text.strip_prefix(Self::SCHEME)?.split('/');
            let (cluster, role, id) = (parts.next()?, parts.next()?, parts.next()?);
            let name = Self {
                cluster: unhex(cluster)?,
                role: role.parse().ok()?,
                id: id.parse().ok()?,
            };
            // One name, one text: `+7`, `007` and a trailing slash are no second spellings of `7`.
            (name.to_string() == text).then_some(name)
        };
        read().ok_or_else(|| NameError::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_text() {
        for role in Role::ALL {
            for id in [0, 7, u64::MAX] {
                let name = PeerName {
                    cluster: [0xab; 16],
                    role,
                    id,
                };
                assert_eq!(name.to_string().parse(), Ok(name));
            }
        }
        let name = PeerName {
            cluster: [1; 16],
            role: Role::Worker,
            id: 7,
        };
        assert_eq!(name.to_string(), "tresor://01010101010101010101010101010101/worker/7");
        assert_eq!(name.short(), "worker 7");
    }

    #[test]
    fn a_name_has_one_spelling() {
        let cluster = "01".repeat(16);
        for wrong in [
            String::new(),
            format!("https://{cluster}/worker/7"),
            format!("tresor://{cluster}/worker/07"),
            format!("tresor://{cluster}/worker/+7"),
            format!("tresor://{cluster}/worker/7/"),
            format!("tresor://{cluster}/worker/7/8"),
            format!("tresor://{cluster}/worker"),
            format!("tresor://{cluster}/Worker/7"),
            format!("tresor://{cluster}/admin/7"),
            format!("tresor://{}/worker/7", "AB".repeat(16)),
            format!("tresor://{}/worker/7", "01".repeat(15)),
            format!("tresor://{cluster}/worker/18446744073709551616"),
        ] {
            assert!(wrong.parse::<PeerName>().is_err(), "{wrong}");
        }
    }
}
