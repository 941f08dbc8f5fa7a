//! Who is let in: workers, what their processes say of themselves, and tokens of people, programs and nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tresor_proto::ids::TokenId;

use super::entry::Time;

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// Its name, unique; by default the host's.
    pub name: String,
    /// The join token that it showed, used up by this.
    pub token: Option<TokenId>,
}

/// What a worker's process can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFacts {
    /// Its host.
    pub host: String,
    /// Its program.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Jobs that it runs at a time.
    pub permits: u32,
    /// Prefixes of the store URLs that it reaches; empty: all.
    pub stores: Vec<String>,
    /// `host:port` at which other workers reach it; empty: it answers for no slots of the index.
    pub serves: String,
    /// Whether it runs jobs.
    pub jobs: bool,
    /// Where it stands; may be empty.
    pub region: String,
}

impl Default for WorkerFacts {
    /// Nothing is known but that it runs jobs.
    fn default() -> Self {
        Self {
            host: String::new(),
            version: String::new(),
            labels: BTreeMap::new(),
            permits: 0,
            stores: Vec::new(),
            serves: String::new(),
            jobs: true,
            region: String::new(),
        }
    }
}

/// A token of a person or a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiTokenSpec {
    /// Drawn.
    pub token: TokenId,
    /// For people.
    pub name: String,
    /// `admin`, `operator`, `restorer`, `auditor`, `read-only`: checked.
    pub role: String,
    /// Hash of the secret.
    pub hash: [u8; 32],
    /// Until when it is good; none: until revoked.
    pub expires: Option<Time>,
}

/// A token with which nodes join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinTokenSpec {
    /// Drawn.
    pub token: TokenId,
    /// `coordinator` or `worker`: checked.
    pub role: String,
    /// Hash of the secret.
    pub hash: [u8; 32],
    /// Until when it is good.
    pub expires: Time,
    /// How often.
    pub uses: u32,
}
