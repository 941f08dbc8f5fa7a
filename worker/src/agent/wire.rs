//! Between the port's words and the messages of `agent.proto`. What arrives is checked here, once.

use std::collections::BTreeMap;
use std::time::Duration;

use tresor_proto::ids::WorkerId;
use tresor_proto::ids::{Epoch, JobId};
use tresor_proto::v1::{self, lease::Work as WorkMessage};
use tresor_storage::Kind;
use tresor_storage::catalog::{HELD_MAX, HIDDEN_MAX, Hidden, STATE_MAX};
use tresor_storage::ids::{ClusterId, ItemId, PointId, SessionId, VaultId};
use tresor_storage::keys::Key;
use tresor_storage::vault::claim::ListedClaim;

use super::failure::Failure;
use super::port::{
    AdoptedPoint, BackupWork, Beat, CallError, CatalogueContent, Completion, Facts, Lease, LeaseId, LeaseProgress,
    LeaseVault, Life, LoggedPoint, Offer, OthersLease, Outcome, PointMade, Registered, RestoreWork, VerifyWork,
    WatchUpdate, Work, WorkDisk, WorkHelper,
};
use crate::limits::{LimitsTold, SharesGiven};
use crate::slots::SlotMap;
use tresor_storage::throttle::Rates;

/// Shortest and longest of a lease's terms and of the time between beats: what is outside was not meant.
const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// Vaults of a cluster.
const VAULTS_MAX: usize = 1 << 16;
/// Disks of an item.
const DISKS_MAX: usize = 1024;

fn unreadable(why: impl Into<String>) -> CallError {
    CallError::Unreadable { why: why.into() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn array<const N: usize>(what: &str, bytes: &[u8]) -> Result<[u8; N], String> {
    bytes
        .try_into()
        .map_err(|_| format!("{what} has {} bytes, not {N}", bytes.len()))
}

fn none_if_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn id_message(id: LeaseId) -> v1::LeaseId {
    v1::LeaseId {
        job: id.job.0,
        epoch: id.epoch.0,
    }
}

pub(super) fn some_id(id: LeaseId) -> Option<v1::LeaseId> {
    Some(id_message(id))
}

fn id_of(message: Option<v1::LeaseId>) -> Option<LeaseId> {
    message.map(|id| LeaseId {
        job: JobId(id.job),
        epoch: Epoch(id.epoch),
    })
}

pub(super) fn register(life: Life, facts: &Facts) -> v1::RegisterRequest {
    v1::RegisterRequest {
        life: life.0.to_vec().into(),
        host: facts.host.clone(),
        version: facts.version.clone(),
        labels: facts.labels.clone(),
        permits: facts.permits,
        stores: facts.stores.clone(),
        serves: facts.serves.clone().unwrap_or_default(),
        no_jobs: facts.no_jobs,
        region: facts.region.clone(),
        kept_life: facts.kept_life.map(|life| life.0.to_vec().into()).unwrap_or_default(),
    }
}

pub(super) fn watch_update(message: v1::WatchUpdate) -> Result<WatchUpdate, CallError> {
    let slots = message.slots.map(SlotMap::read).transpose();
    Ok(WatchUpdate {
        slots: slots.map_err(|error| unreadable(error.to_string()))?,
        vaults: message.vaults,
        removed: message.removed.map(|removed| removed.workers).unwrap_or_default(),
        limits: message.limits.map(limits),
    })
}

pub(super) fn index_vaults(message: v1::IndexVaultsResponse) -> Result<Vec<LeaseVault>, CallError> {
    if message.vaults.len() > VAULTS_MAX {
        return Err(unreadable(format!("{} vaults", message.vaults.len())));
    }
    let vaults = message.vaults.into_iter().map(lease_vault).collect::<Result<_, _>>();
    vaults.map_err(unreadable)
}

pub(super) fn others_lease(message: v1::LeaseOfResponse) -> Result<OthersLease, CallError> {
    let work = message
        .work
        .ok_or_else(|| unreadable("a lease that is about nothing"))?;
    Ok(OthersLease {
        session: SessionId(message.session),
        start_epoch: message.start_epoch,
        vault: VaultId(array("vault id", &message.vault).map_err(unreadable)?),
        claim: ListedClaim {
            number: message.claim,
            cluster: ClusterId(message.cluster),
        },
        work: backup_work(work).map_err(unreadable)?,
    })
}

pub(super) fn registered(message: v1::RegisterResponse) -> Result<Registered, CallError> {
    let registered = Registered {
        name: message.name,
        lease: Duration::from_millis(message.lease_ms.into()),
        beat: Duration::from_millis(message.beat_ms.into()),
    };
    if LEASES.contains(&registered.lease) && LEASES.contains(&registered.beat) && registered.beat < registered.lease {
        return Ok(registered);
    }
    Err(unreadable(format!(
        "leases of {} ms and beats every {} ms",
        message.lease_ms, message.beat_ms
    )))
}

pub(super) fn next_lease(life: Life, free: u32, wait: Duration) -> v1::NextLeaseRequest {
    v1::NextLeaseRequest {
        life: life.0.to_vec().into(),
        free,
        wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
    }
}

/// A lease that cannot be read is an offer too: its job is to go elsewhere.
pub(super) fn offer(message: v1::NextLeaseResponse) -> Result<Option<Offer>, CallError> {
    let Some(message) = message.lease else { return Ok(None) };
    let id = id_of(message.id).ok_or_else(|| unreadable("a lease without an id"))?;
    Ok(Some(match lease(id, message) {
        Ok(lease) => Offer::Lease(Box::new(lease)),
        Err(failure) => Offer::Unreadable { id, failure },
    }))
}

fn lease(id: LeaseId, message: v1::Lease) -> Result<Lease, Failure> {
    let malformed = |why: String| Failure::new(Kind::Invalid, format!("lease cannot be worked on: {why}"), "");
    let vault = message
        .vault
        .ok_or_else(|| malformed(String::from("it names no vault")))?;
    let vault = lease_vault(vault).map_err(malformed)?;
    let term = Duration::from_millis(message.lease_ms.into());
    if !LEASES.contains(&term) {
        return Err(malformed(format!("it lasts {} ms", message.lease_ms)));
    }
    let Some(work) = message.work else {
        // A kind of work that a later version has: another worker may know it.
        return Err(Failure::new(
            Kind::Unsupported,
            "the job is of a kind that this worker does not know",
            "update tresor on this worker",
        ));
    };
    Ok(Lease {
        id,
        session: SessionId(message.session),
        start_epoch: message.start_epoch,
        attempt: message.attempt,
        term,
        vault,
        findings: message.findings,
        work: work_of(work).map_err(malformed)?,
        // One that makes no sense is none.
        trace: message.traceparent.parse().ok(),
    })
}

fn lease_vault(message: v1::LeaseVault) -> Result<LeaseVault, String> {
    let claimed = message.claim != 0;
    if claimed && message.header.is_empty() {
        return Err(String::from("the vault is claimed, and its header is not known"));
    }
    Ok(LeaseVault {
        id: VaultId(array("vault id", &message.id)?),
        name: message.name,
        url: message.url,
        region: message.region,
        profile: message.profile,
        key: Key::from_bytes(array("key", &message.key)?),
        claim: claimed.then_some(ListedClaim {
            number: message.claim,
            cluster: ClusterId(message.cluster),
        }),
        header: match message.header.is_empty() {
            true => None,
            false => Some(array("header hash", &message.header)?),
        },
    })
}

fn work_of(message: WorkMessage) -> Result<Work, String> {
    Ok(match message {
        WorkMessage::Backup(work) => Work::Backup(backup_work(work)?),
        WorkMessage::Restore(work) => Work::Restore(RestoreWork {
            point: PointId(array("point id", &work.point)?),
            item: ItemId(array("item id", &work.item)?),
            manifest: array("manifest hash", &work.manifest)?,
            disk: work.disk,
            path: work.path,
            format: work.format,
            overwrite: work.overwrite,
            in_place: work.in_place,
        }),
        WorkMessage::Verify(work) => Work::Verify(VerifyWork {
            point: match work.point.is_empty() {
                true => None,
                false => Some(PointId(array("point id", &work.point)?)),
            },
            expected: match work.item.is_empty() || work.manifest.is_empty() {
                true => None,
                false => Some((
                    ItemId(array("item id", &work.item)?),
                    array("manifest hash", &work.manifest)?,
                )),
            },
            level: work.level,
        }),
        WorkMessage::Claim(work) => Work::Claim { make: work.make },
        WorkMessage::Catalogue(work) => Work::Catalogue { index: work.index },
    })
}

fn backup_work(work: v1::BackupWork) -> Result<BackupWork, String> {
    if work.disks.len() > DISKS_MAX {
        return Err(format!("{} disks, at most {DISKS_MAX} are possible", work.disks.len()));
    }
    Ok(BackupWork {
        item: ItemId(array("item id", &work.item)?),
        item_name: work.item_name,
        disks: work
            .disks
            .into_iter()
            .map(|v1::Disk { name, path, format }| WorkDisk { name, path, format })
            .collect(),
        parent: match work.parent.is_empty() {
            true => None,
            false => Some((
                PointId(array("parent's id", &work.parent)?),
                array("hash of the parent's manifest", &work.parent_manifest)?,
            )),
        },
        parent_harmed: work.parent_harmed,
        keep_until: none_if_empty(work.keep_until),
        allow_live: work.allow_live,
        allow_backing: work.allow_backing,
        helpers: work
            .helpers
            .into_iter()
            .map(|v1::Helper { worker, name, serves }| WorkHelper {
                worker: WorkerId(worker),
                name,
                serves,
            })
            .collect(),
    })
}

pub(super) fn beat(
    life: Life,
    wall_ms: i64,
    leases: Vec<LeaseProgress>,
    shares: BTreeMap<String, u32>,
) -> v1::BeatRequest {
    let progress = |lease: LeaseProgress| v1::LeaseProgress {
        id: some_id(lease.id),
        stage: lease.stage.to_owned(),
        bytes_done: lease.bytes_done,
        bytes_total: lease.bytes_total,
        bytes_stored: lease.bytes_stored,
    };
    v1::BeatRequest {
        life: life.0.to_vec().into(),
        wall_ms,
        leases: leases.into_iter().map(progress).collect(),
        shares: shares
            .into_iter()
            .map(|(of, millionths)| v1::Share { of, millionths })
            .collect(),
    }
}

pub(super) fn beat_answer(message: v1::BeatResponse) -> Beat {
    let ids = |ids: Vec<v1::LeaseId>| ids.into_iter().filter_map(|id| id_of(Some(id))).collect();
    Beat {
        held: ids(message.held),
        cancelled: ids(message.cancelled),
        drained: message.drained,
        limits: SharesGiven {
            shares: message
                .shares
                .into_iter()
                .map(|share| (share.of, share.millionths))
                .collect(),
            is_pending: message.shares_pending,
        },
    }
}

fn limits(message: v1::Limits) -> LimitsTold {
    let rates = |limit: &v1::Limit| Rates {
        upload: limit.upload,
        download: limit.download,
        // Thousandths.
        requests: limit.requests.map(|requests| u64::from(requests) * 1000),
        concurrency: limit.concurrency,
    };
    LimitsTold {
        rates: message
            .limits
            .into_iter()
            .map(|limit| {
                let rates = rates(&limit);
                (limit.of, rates)
            })
            .collect(),
        jobs: message.jobs,
    }
}

pub(super) fn complete(completion: &Completion) -> v1::CompleteRequest {
    use v1::complete_request::Outcome as Message;
    let ids = |points: &[PointId]| points.iter().map(|point| point.0.to_vec().into()).collect();
    let outcome = match &completion.outcome {
        Outcome::Point(made) => Message::Point(point_made(made)),
        Outcome::Findings(findings) => Message::Findings(v1::Findings {
            harmed: ids(&findings.harmed),
            count: findings.count,
            what: findings.what.clone(),
        }),
        Outcome::Claimed(claimed) => Message::Claimed(v1::Claimed {
            n: claimed.claim.number,
            cluster: claimed.claim.cluster.0,
            header: claimed.header.to_vec().into(),
            points_unreadable: claimed.points_unreadable,
        }),
        Outcome::Nothing => Message::Nothing(v1::Nothing {}),
    };
    v1::CompleteRequest {
        id: some_id(completion.id),
        session: completion.session.0,
        counts: Some(v1::Counts {
            bytes_read: completion.counts.bytes_read,
            bytes_new: completion.counts.bytes_new,
            bytes_stored: completion.counts.bytes_stored,
            bytes_logical: completion.counts.bytes_logical,
            took_ms: millis(completion.took),
            chunks_new: completion.counts.chunks_new,
            chunks_known: completion.counts.chunks_known,
            segments_inherited: completion.counts.segments_inherited,
            lookups: completion.counts.lookups,
            packs: completion.counts.packs,
            puts: completion.counts.requests.puts,
            gets: completion.counts.requests.gets,
            heads: completion.counts.requests.heads,
            lists: completion.counts.requests.lists,
            deletes: completion.counts.requests.deletes,
        }),
        outcome: Some(outcome),
        report: completion.report.clone(),
    }
}

fn point_made(made: &PointMade) -> v1::PointMade {
    v1::PointMade {
        point: made.point.0.to_vec().into(),
        time: made.time.clone(),
        manifest: made.manifest.to_vec().into(),
        consistency: made.consistency.name().to_owned(),
        // None: this worker asked an index of its own, and what that answered is durable where it was put.
        slots: match made.slots.is_empty() {
            true => Default::default(),
            false => made.slots.to_bytes().to_vec().into(),
        },
        slot_map: made.slot_map,
        slots_missing: match made.slots_missing.is_empty() {
            true => Default::default(),
            false => made.slots_missing.to_bytes().to_vec().into(),
        },
        findings_seen: made.findings_seen,
        harmed: made.harmed.iter().map(|point| point.0.to_vec().into()).collect(),
    }
}

pub(super) fn fail(id: LeaseId, failure: &Failure) -> v1::FailRequest {
    v1::FailRequest {
        id: some_id(id),
        kind: failure.kind.word().to_owned(),
        message: failure.message.clone(),
        hint: failure.hint.clone(),
        report: Some(v1::Report {
            of_machine: failure.of_machine,
            counts: Some(v1::Counts {
                puts: failure.requests.puts,
                gets: failure.requests.gets,
                heads: failure.requests.heads,
                lists: failure.requests.lists,
                deletes: failure.requests.deletes,
                ..Default::default()
            }),
            ..Default::default()
        }),
    }
}

/// Puts the pieces of a catalogue together.
#[derive(Debug)]
pub(super) struct Catalogue {
    content: CatalogueContent,
    state: Vec<u8>,
    /// Longest state.
    state_max: usize,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            content: CatalogueContent::default(),
            state: Vec::new(),
            state_max: STATE_MAX,
        }
    }
}

impl Catalogue {
    /// Takes the next piece.
    pub(super) fn add(&mut self, piece: v1::CataloguePiece) -> Result<(), CallError> {
        if !piece.written_at.is_empty() {
            self.content.written_at = piece.written_at;
        }
        for hidden in piece.hidden {
            let read = || {
                let point = PointId(array("point id", &hidden.point)?);
                let item = ItemId(array("item id", &hidden.item)?);
                Ok::<_, String>((point, item))
            };
            let (point, item) = read().map_err(unreadable)?;
            let removed_at = hidden.hidden_at;
            self.content.hidden.insert(point, Hidden { item, removed_at });
        }
        for held in piece.held {
            let point = PointId(array("point id", &held.point).map_err(unreadable)?);
            self.content.held.insert(point, held.reason);
        }
        let are_too_many = self.content.hidden.len() > HIDDEN_MAX || self.content.held.len() > HELD_MAX;
        if are_too_many || self.state.len() + piece.state.len() > self.state_max {
            return Err(unreadable("the catalogue is larger than one can be"));
        }
        self.state.extend_from_slice(&piece.state);
        Ok(())
    }

    /// All of it, after the last piece.
    pub(super) fn finish(self) -> CatalogueContent {
        CatalogueContent {
            state: self.state.into(),
            ..self.content
        }
    }
}

pub(super) fn logged_point(message: &v1::AgentPoint) -> Result<LoggedPoint, CallError> {
    let read = || {
        Ok::<_, String>(LoggedPoint {
            point: PointId(array("point id", &message.point)?),
            item: ItemId(array("item id", &message.item)?),
            manifest: array("manifest hash", &message.manifest)?,
            hidden_at: none_if_empty(message.hidden_at.clone()),
        })
    };
    read().map_err(unreadable)
}

pub(super) fn adopt_points(id: LeaseId, points: &[AdoptedPoint]) -> v1::AdoptPointsRequest {
    let adopted = |point: &AdoptedPoint| v1::AdoptedPoint {
        point: point.point.0.to_vec().into(),
        item: point.item.0.to_vec().into(),
        item_name: point.item_name.clone(),
        time: point.time.clone(),
        keep_until: point.keep_until.clone().unwrap_or_default(),
        manifest: point.manifest.to_vec().into(),
        consistency: point.consistency.name().to_owned(),
        hidden_at: point.hidden_at.clone().unwrap_or_default(),
        held: point.held.clone().unwrap_or_default(),
    };
    v1::AdoptPointsRequest {
        id: some_id(id),
        points: points.iter().map(adopted).collect(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn message() -> v1::Lease {
        v1::Lease {
            id: Some(v1::LeaseId { job: 3, epoch: 9 }),
            session: 9,
            start_epoch: 0,
            attempt: 1,
            lease_ms: 30_000,
            vault: Some(v1::LeaseVault {
                id: vec![1; 16].into(),
                name: String::from("main"),
                url: String::from("file:///v"),
                region: String::new(),
                profile: String::new(),
                key: vec![2; 32].into(),
                claim: 1,
                cluster: 7,
                header: vec![3; 32].into(),
            }),
            findings: 0,
            traceparent: String::from("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            work: Some(WorkMessage::Backup(v1::BackupWork {
                item: vec![4; 16].into(),
                item_name: String::from("web"),
                disks: vec![v1::Disk {
                    name: String::from("vda"),
                    path: String::from("/vm/web.img"),
                    format: String::new(),
                }],
                ..Default::default()
            })),
        }
    }

    fn read(message: v1::Lease) -> Offer {
        let answer = v1::NextLeaseResponse { lease: Some(message) };
        offer(answer).unwrap().unwrap()
    }

    #[test]
    fn a_lease_is_read_and_its_key_is_never_shown() {
        let Offer::Lease(lease) = read(message()) else {
            panic!("it can be read")
        };
        assert_eq!((lease.id.job, lease.id.epoch), (JobId(3), Epoch(9)));
        assert_eq!(
            lease.vault.claim.unwrap().object_name(),
            "cluster/0000000000000001-0000000000000007"
        );
        assert!(matches!(&lease.work, Work::Backup(work) if work.parent.is_none() && work.disks.len() == 1));
        let shown = format!("{lease:?}");
        assert!(shown.contains("Key(…)") && !shown.contains("2, 2, 2"), "{shown}");
        assert!(offer(v1::NextLeaseResponse { lease: None }).unwrap().is_none());
    }

    #[test]
    fn a_lease_that_cannot_be_read_is_named_so_that_its_job_goes_elsewhere() {
        type Edit = fn(&mut v1::Lease);
        let edits: [(&str, Edit); 7] = [
            ("unsupported", |m| m.work = None),
            ("invalid", |m| m.vault = None),
            ("invalid", |m| m.lease_ms = 0),
            ("invalid", |m| m.vault.as_mut().unwrap().key = vec![1; 31].into()),
            ("invalid", |m| m.vault.as_mut().unwrap().header.clear()),
            ("invalid", |m| m.vault.as_mut().unwrap().id.clear()),
            ("invalid", |m| {
                m.work = Some(WorkMessage::Restore(v1::RestoreWork::default()));
            }),
        ];
        for (kind, edit) in edits {
            let mut changed = message();
            edit(&mut changed);
            let Offer::Unreadable { id, failure } = read(changed) else {
                panic!("it cannot be read")
            };
            assert_eq!((id.job, failure.kind.word()), (JobId(3), kind), "{failure}");
        }
        let nameless = v1::NextLeaseResponse {
            lease: Some(v1::Lease { id: None, ..message() }),
        };
        assert!(offer(nameless).is_err());
    }

    #[test]
    fn terms_that_make_no_sense_are_refused() {
        for (lease_ms, beat_ms, right) in [
            (30_000, 10_000, true),
            (0, 0, false),
            (10_000, 10_000, false),
            (30_000, 1, false),
        ] {
            let message = v1::RegisterResponse {
                name: String::from("a"),
                lease_ms,
                beat_ms,
                ..Default::default()
            };
            assert_eq!(registered(message).is_ok(), right, "{lease_ms} {beat_ms}");
        }
    }

    #[test]
    fn pieces_of_a_catalogue_become_one_and_too_many_are_refused() {
        let hidden = |byte: u8| v1::CatalogueHidden {
            point: vec![byte; 16].into(),
            item: vec![9; 16].into(),
            hidden_at: String::from("2026-01-01T00:00:00Z"),
        };
        let mut catalogue = Catalogue::default();
        let first = v1::CataloguePiece {
            hidden: vec![hidden(1), hidden(2)],
            written_at: String::from("2026-01-02T00:00:00Z"),
            ..Default::default()
        };
        catalogue.add(first).unwrap();
        for part in [&b"ab"[..], b"", b"c"] {
            let piece = v1::CataloguePiece {
                state: part.to_vec().into(),
                ..Default::default()
            };
            catalogue.add(piece).unwrap();
        }
        let content = catalogue.finish();
        assert_eq!((content.hidden.len(), &content.state[..]), (2, &b"abc"[..]));
        assert_eq!(content.written_at, "2026-01-02T00:00:00Z");

        let mut endless = Catalogue {
            state_max: 9,
            ..Catalogue::default()
        };
        let piece = v1::CataloguePiece {
            state: vec![0; 4].into(),
            ..Default::default()
        };
        assert!(endless.add(piece.clone()).is_ok() && endless.add(piece.clone()).is_ok());
        assert!(endless.add(piece).is_err());
        let short = v1::CatalogueHidden {
            point: vec![1; 15].into(),
            ..hidden(1)
        };
        let piece = v1::CataloguePiece {
            hidden: vec![short],
            ..Default::default()
        };
        assert!(Catalogue::default().add(piece).is_err());
    }
}
