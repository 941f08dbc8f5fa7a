//! What an agent is told when it is started.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::port::Facts;
use crate::backup::Effort;
use crate::metrics::Metrics;
use crate::slots::{Slots, SlotsConfig};

/// Most jobs at a time: each may hold some hundred megabytes.
pub const PERMITS_MAX: u32 = 64;

/// How an agent works.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Its folder: a lock, and the chunk indexes. One process of a machine has it.
    pub folder: PathBuf,
    /// This host, as it is named in claims and registered.
    pub host: String,
    /// The program and its version.
    pub version: String,
    /// Labels, by which items choose their workers.
    pub labels: BTreeMap<String, String>,
    /// Jobs that it runs at a time, 1 to [`PERMITS_MAX`].
    pub permits: u32,
    /// Prefixes of the store URLs that it reaches; none: all.
    pub reaches: Vec<String>,
    /// How much of the machine one job uses.
    pub effort: Effort,
    /// How long running jobs may still go on when the agent is told to stop; zero: they are stopped at once. What they stored is used by the next attempt.
    pub finish_time: Duration,
    /// It runs jobs; else it only answers for slots of the index.
    pub jobs: bool,
    /// Where it stands, for people and placement; may be empty.
    pub region: String,
    /// How it takes part in the index that workers share; none: it keeps one of its own.
    pub slots: Option<SlotsConfig>,
    /// Where what it does is counted.
    pub metrics: Arc<Metrics>,
}

impl AgentConfig {
    /// One job at a time on all cores, named after this host.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            host: crate::home::host_name(),
            version: crate::home::PROGRAM.to_owned(),
            labels: BTreeMap::new(),
            permits: 1,
            reaches: Vec::new(),
            effort: Effort::default(),
            finish_time: Duration::ZERO,
            jobs: true,
            region: String::new(),
            slots: None,
            metrics: Arc::default(),
        }
    }

    pub(super) fn facts(&self, slots: Option<&Slots>) -> Facts {
        Facts {
            host: self.host.clone(),
            version: self.version.clone(),
            labels: self.labels.clone(),
            permits: self.permits,
            stores: self.reaches.clone(),
            serves: slots.and_then(|slots| slots.serves().map(str::to_owned)),
            no_jobs: !self.jobs,
            region: self.region.clone(),
            kept_life: slots.and_then(Slots::kept_life),
        }
    }
}
