//! How far verifying is, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Objects are listed and index segments read; totals are not known.
    Names,
    /// Objects are read; bytes are the store's.
    Objects,
    /// Recipes are walked; bytes are those of disks, holes counted.
    Recipes,
    /// Recovery points that are harmed by what was found are looked for; bytes are those of disks.
    Harm,
}

/// Numbers that verifying raises and anybody may read.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    objects_total: AtomicU64,
    objects_done: AtomicU64,
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    findings: AtomicU64,
    /// Bytes of objects and disks that were gone through in all phases: the numbers of a phase begin anew with it.
    bytes_all: AtomicU64,
    stopped: AtomicBool,
}

/// What [`Progress`] says at one moment; totals and sums are those of the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// What is being done.
    pub phase: Phase,
    /// Objects (disks, when recipes are walked) of this phase; 0 while not known.
    pub objects_total: u64,
    /// Those dealt with.
    pub objects_done: u64,
    /// Bytes of this phase; 0 while not known.
    pub bytes_total: u64,
    /// Those dealt with.
    pub bytes_done: u64,
    /// Places where something was found so far, in all phases.
    pub findings: u64,
}

impl Progress {
    /// Asks to stop soon. What was found until then is reported, as incomplete.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The numbers now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        ProgressSnapshot {
            phase: match self.phase.load(Ordering::Relaxed) {
                0 => Phase::Names,
                1 => Phase::Objects,
                2 => Phase::Recipes,
                _ => Phase::Harm,
            },
            objects_total: get(&self.objects_total),
            objects_done: get(&self.objects_done),
            bytes_total: get(&self.bytes_total),
            bytes_done: get(&self.bytes_done),
            findings: get(&self.findings),
        }
    }

    /// Bytes of objects and disks that were gone through so far, in all phases.
    pub fn bytes_all(&self) -> u64 {
        self.bytes_all.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self, phase: Phase, objects: u64, bytes: u64) {
        self.objects_done.store(0, Ordering::Relaxed);
        self.bytes_done.store(0, Ordering::Relaxed);
        self.objects_total.store(objects, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
        let code = match phase {
            Phase::Names => 0,
            Phase::Objects => 1,
            Phase::Recipes => 2,
            Phase::Harm => 3,
        };
        self.phase.store(code, Ordering::Relaxed);
    }

    pub(super) fn add_total(&self, objects: u64, bytes: u64) {
        self.objects_total.fetch_add(objects, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_done(&self, objects: u64, bytes: u64) {
        self.objects_done.fetch_add(objects, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_all.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_finding(&self) {
        self.findings.fetch_add(1, Ordering::Relaxed);
    }
}
