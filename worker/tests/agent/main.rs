//! Agents at work for a coordinator: leases taken, lost, repeated and given back, on real stores.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cluster;
mod ends;
mod jobs;
mod limits;
mod sharing;
mod takeover;

use std::path::Path;
use std::time::Duration;

use tresor_storage::Kind;
use tresor_storage::ids::{ItemId, VaultId};
use tresor_storage::keys::{Key, KeyFile};
use tresor_storage::limits::SEGMENT;
use tresor_storage::manifest::Consistency;
use tresor_worker::agent::port::{LeaseVault, Work};
use tresor_worker::agent::{self, AgentConfig, AgentError, FailureKind};
use tresor_worker::backup::{self, BackupDisk, BackupRequest, Changes, Effort, Steering};
use tresor_worker::home::{
    CreateOptions, Home, HomeKeys, MAIN, StoreConfigs, WritableVault, create_vault, open_for_writing,
};
use tresor_worker::source::{self, SourceSpec};

use cluster::coordinator::{Terms, Trouble};
use cluster::{Cluster, noise, until};

const ITEM: ItemId = ItemId([5; 16]);
const SIZE: usize = 3 * SEGMENT as usize + 5000;

/// Leases so short that a test can wait for their end.
const SHORT: Terms = Terms {
    lease: Duration::from_millis(1500),
    beat: Duration::from_millis(100),
};
