//! What happens when: one night of backups as events in virtual time.
//!
//! A disk is read in windows, two ahead. Each window waits for its worker's disk, then for its cores (what is unchanged is seen to be, what changed is cut and
//! named), then for the owners of its ids, then for the cores again (compressed, sealed). Packs are put while the next fills, two at most of a backup, and hold
//! up the reading when more wait. A pack is put through the worker's link, the store's link and the store's requests, and is then inserted at the
//! owners. Owners answer in the order in which they are asked, and take it from their own backups' cores.

use std::collections::{BTreeMap, VecDeque};

use tresor_storage::limits::{INDEX_BATCH, PACK_TARGET, PACKS_IN_FLIGHT};

use crate::control::{Control, Lease};
use crate::inputs::Inputs;
use crate::resource::Resource;
use crate::usage::{Busy, Usage};
use crate::workload::Disk;

/// What is read and worked on at once. Less would only make more events: 40 segments are in work in a backup on eight cores.
const WINDOW: f64 = 256.0 * 1024.0 * 1024.0;
/// Windows of one backup on their way, the one that is being read among them.
const WINDOWS_AHEAD: u32 = 3;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// The leader looks.
    Pass,
    /// A worker with a free permit asks.
    Ask(usize),
    /// The first requests of a backup are answered.
    Begun(usize),
    /// So many bytes are read, …
    Read(usize, f64),
    /// … are cut and named as far as they changed, …
    Cut(usize, f64),
    /// … are looked up, …
    Known(usize, f64),
    /// … and what is new is in frames.
    Sealed(usize, f64),
    /// A pack of so many bytes has passed the worker's link, …
    Sent(usize, f64),
    /// … is stored, …
    Put(usize, f64),
    /// … and is in the index.
    Indexed(usize),
    /// The manifest is put.
    Told(usize),
    /// The log has taken the point.
    Ended(usize),
}

#[derive(Debug, Clone, Default)]
struct Worker {
    source: Resource,
    cores: Resource,
    nic: Resource,
    owner: Resource,
    running: u32,
    /// Since when it runs anything.
    busy_since: f64,
}

#[derive(Debug)]
struct Backup {
    lease: Lease,
    worker: usize,
    changed_share: f64,
    unread: f64,
    is_reading: bool,
    windows: u32,
    /// In the pack that fills, in packs that wait, and how many are being put.
    filling: f64,
    waiting: VecDeque<f64>,
    putting: usize,
    is_ending: bool,
}

/// A night while it goes on.
pub(crate) struct Night<'a> {
    inputs: &'a Inputs,
    disks: &'a [Disk],
    control: Control,
    /// By time and number. Times are above zero, so their bits are in their order.
    events: BTreeMap<(u64, u64), Event>,
    event: u64,
    now: f64,
    shares: Vec<f64>,
    workers: Vec<Worker>,
    backups: Vec<Backup>,
    idle: VecDeque<usize>,
    store: Resource,
    requests: Resource,
    log: Resource,
    leader: Resource,
    busy_workers: f64,
    stored: f64,
}

impl<'a> Night<'a> {
    /// Lets so many workers back all disks up.
    pub(crate) fn run(workers: u32, disks: &'a [Disk], inputs: &'a Inputs) -> Usage {
        let control = Control::new(workers, disks.len(), inputs.permits as u32);
        let mut night = Self {
            inputs,
            disks,
            shares: control.shares(),
            control,
            events: BTreeMap::new(),
            event: 0,
            now: 0.0,
            workers: vec![Worker::default(); workers as usize],
            backups: Vec::with_capacity(disks.len()),
            idle: (0..workers as usize).collect(),
            store: Resource::default(),
            requests: Resource::default(),
            log: Resource::default(),
            leader: Resource::default(),
            busy_workers: 0.0,
            stored: 0.0,
        };
        night.at(0.0, Event::Pass);
        while let Some(((time, _), event)) = night.events.pop_first() {
            night.now = f64::from_bits(time);
            night.happens(event);
        }
        assert_eq!(night.control.points(), disks.len(), "every disk has a point");
        night.usage()
    }

    fn at(&mut self, time: f64, event: Event) {
        self.event += 1;
        self.events.insert((time.to_bits(), self.event), event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Pass => self.pass(),
            Event::Ask(worker) => self.ask(worker),
            Event::Begun(backup) => self.read(backup),
            Event::Read(backup, bytes) => {
                self.backups[backup].is_reading = false;
                self.read(backup);
                let inputs = self.inputs;
                let changed = bytes * self.backups[backup].changed_share;
                let seconds = (bytes - changed) / inputs.unchanged_bytes_per_s + changed / inputs.cut_bytes_per_s;
                let done = self.compute(backup, seconds);
                self.at(done, Event::Cut(backup, bytes));
            }
            Event::Cut(backup, bytes) => {
                let ids = bytes * self.backups[backup].changed_share / self.inputs.chunk_bytes;
                let questions = ids / INDEX_BATCH as f64;
                let seconds = ids / self.inputs.lookups_per_s + questions * self.inputs.question_s;
                let done = self.ask_owners(seconds);
                self.at(done, Event::Known(backup, bytes));
            }
            Event::Known(backup, bytes) => {
                let inputs = self.inputs;
                let new = bytes * self.backups[backup].changed_share * (1.0 - inputs.shared_share);
                let stored = new * inputs.stored_share;
                let seconds = new / inputs.zstd_bytes_per_s + stored / inputs.seal_bytes_per_s;
                let done = self.compute(backup, seconds);
                self.at(done, Event::Sealed(backup, stored));
            }
            Event::Sealed(backup, stored) => {
                let of = &mut self.backups[backup];
                of.windows -= 1;
                of.filling += stored;
                let pack = PACK_TARGET as f64;
                while of.filling >= pack {
                    of.filling -= pack;
                    of.waiting.push_back(pack);
                }
                self.goes_on(backup);
            }
            Event::Sent(backup, bytes) => {
                let inputs = self.inputs;
                let requests = inputs.requests_per_pack;
                let taken = self.requests.serve(self.now, requests / inputs.store_requests_per_s);
                let moved = self.store.serve(self.now, bytes / inputs.store_bytes_per_s);
                let streamed = self.now + bytes / inputs.stream_bytes_per_s;
                let done = taken.max(moved).max(streamed) + requests * inputs.store_latency_s;
                self.stored += bytes;
                self.at(done, Event::Put(backup, bytes));
            }
            Event::Put(backup, bytes) => {
                let entries = bytes / self.inputs.stored_share / self.inputs.chunk_bytes;
                let done = self.ask_owners(entries / self.inputs.inserts_per_s + self.inputs.question_s);
                self.at(done, Event::Indexed(backup));
            }
            Event::Indexed(backup) => {
                self.backups[backup].putting -= 1;
                self.goes_on(backup);
            }
            Event::Told(backup) => {
                let done = self.commit();
                self.at(done, Event::Ended(backup));
            }
            Event::Ended(backup) => self.ended(backup),
        }
    }

    /// The leader queues what is due, until nothing is: from then on its looks cost the same, and are added at the end.
    fn pass(&mut self) {
        let count = self.control.pass();
        for _ in 0..count {
            self.log.serve(self.now, 1.0 / self.inputs.log_entries_per_s);
        }
        if count > 0 {
            for worker in std::mem::take(&mut self.idle) {
                self.at(self.now, Event::Ask(worker));
            }
            self.at(self.now + self.inputs.pass_every_s, Event::Pass);
        }
    }

    /// A worker gets one job at a time, so that all have one before any has two.
    fn ask(&mut self, worker: usize) {
        if self.workers[worker].running >= self.inputs.permits as u32 {
            return;
        }
        let chosen = self.leader.serve(self.now, self.inputs.choice_s);
        let Some(lease) = self.control.gives(worker) else {
            if !self.idle.contains(&worker) {
                self.idle.push_back(worker);
            }
            return;
        };
        let of = &mut self.workers[worker];
        if of.running == 0 {
            of.busy_since = self.now;
        }
        of.running += 1;
        let disk = self.disks[lease.disk];
        self.backups.push(Backup {
            lease,
            worker,
            changed_share: disk.changed_share,
            unread: disk.bytes,
            is_reading: false,
            windows: 0,
            filling: 0.0,
            waiting: VecDeque::new(),
            putting: 0,
            is_ending: false,
        });
        let leased = self.commit().max(chosen + self.inputs.commit_s);
        self.at(leased, Event::Ask(worker));
        // Two thirds of a job's requests come before its first byte, one after another.
        let begun = self.request(leased, self.inputs.requests_per_job * 2.0 / 3.0);
        self.at(begun, Event::Begun(self.backups.len() - 1));
    }

    fn commit(&mut self) -> f64 {
        let taken = self.log.serve(self.now, 1.0 / self.inputs.log_entries_per_s);
        taken + self.inputs.commit_s
    }

    fn request(&mut self, from: f64, count: f64) -> f64 {
        let taken = self.requests.serve(self.now, count / self.inputs.store_requests_per_s);
        taken.max(from) + count * self.inputs.store_latency_s
    }

    /// All cores of the backup's worker, one piece of work after another.
    fn compute(&mut self, backup: usize, core_seconds: f64) -> f64 {
        let worker = &mut self.workers[self.backups[backup].worker];
        worker.cores.serve(self.now, core_seconds / self.inputs.cores)
    }

    /// Every owner does its share of so many seconds; returns when the last has answered.
    fn ask_owners(&mut self, seconds: f64) -> f64 {
        if seconds <= 0.0 {
            return self.now;
        }
        let heard = self.now + self.inputs.round_trip_s / 2.0;
        let mut last = heard;
        for (worker, share) in self.workers.iter_mut().zip(&self.shares) {
            last = last.max(worker.owner.serve(heard, seconds * share));
            worker.cores.serve(self.now, seconds * share / self.inputs.cores);
        }
        last + self.inputs.round_trip_s / 2.0
    }

    /// Reads the next window, if there is room for it.
    fn read(&mut self, backup: usize) {
        let of = &mut self.backups[backup];
        let is_full = of.windows >= WINDOWS_AHEAD || of.waiting.len() >= PACKS_IN_FLIGHT;
        if of.is_reading || is_full || of.unread <= 0.0 {
            return;
        }
        let bytes = of.unread.min(WINDOW);
        of.unread -= bytes;
        of.is_reading = true;
        of.windows += 1;
        let source = &mut self.workers[of.worker].source;
        let done = source.serve(self.now, bytes / self.inputs.source_bytes_per_s);
        self.at(done, Event::Read(backup, bytes));
    }

    /// Puts what is to be put, reads on, and ends when there is nothing of either.
    fn goes_on(&mut self, backup: usize) {
        self.read(backup);
        let of = &mut self.backups[backup];
        let is_read = of.unread <= 0.0 && of.windows == 0;
        if is_read && of.filling > 0.0 {
            of.waiting.push_back(std::mem::take(&mut of.filling));
        }
        while let Some(bytes) = of.waiting.front().copied().filter(|_| of.putting < PACKS_IN_FLIGHT) {
            of.waiting.pop_front();
            of.putting += 1;
            let link = &mut self.workers[of.worker].nic;
            let sent = link.serve(self.now, bytes / self.inputs.nic_bytes_per_s);
            self.event += 1;
            self.events
                .insert((sent.to_bits(), self.event), Event::Sent(backup, bytes));
        }
        self.read(backup);
        let of = &mut self.backups[backup];
        if is_read && of.putting == 0 && of.waiting.is_empty() && !of.is_ending {
            of.is_ending = true;
            let told = self.request(self.now, self.inputs.requests_per_job / 3.0);
            self.at(told, Event::Told(backup));
        }
    }

    fn ended(&mut self, backup: usize) {
        let Backup { lease, worker, .. } = self.backups[backup];
        self.control.takes(&lease);
        let of = &mut self.workers[worker];
        of.running -= 1;
        if of.running == 0 {
            self.busy_workers += self.now - of.busy_since;
        }
        // One more may run in the vault: who has waited longest asks, and this one.
        if let Some(waiting) = self.idle.pop_front() {
            self.at(self.now, Event::Ask(waiting));
        }
        self.at(self.now, Event::Ask(worker));
    }

    fn usage(&self) -> Usage {
        let looks = self.now / self.inputs.pass_every_s * self.inputs.pass_s_per_item * self.disks.len() as f64;
        let of = |resource: fn(&Worker) -> Resource| self.workers.iter().map(|worker| resource(worker).busy()).sum();
        Usage::new(
            self.workers.len(),
            self.now,
            self.stored,
            self.inputs,
            &Busy {
                sources: of(|worker| worker.source),
                cores: of(|worker| worker.cores),
                nics: of(|worker| worker.nic),
                owners: of(|worker| worker.owner),
                store: self.store.busy(),
                requests: self.requests.busy(),
                log: self.log.busy(),
                leader: self.leader.busy() + looks,
                workers: self.busy_workers,
            },
        )
    }
}
