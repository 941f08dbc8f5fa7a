//! From what workers send to what the log is asked: every field checked, each refusal with its name and rule.

use std::collections::BTreeMap;

use tresor_proto::ids::{Epoch, JobId, PointId, SessionId};
use tresor_proto::v1;
use tresor_proto::v1::complete_request::Outcome as OutcomeMessage;

use super::super::refused::Refused;
use crate::lead::shares::{Given, WHOLE};
use crate::node::presence::{JobProgress, SaidLease};
use crate::state::State;
use crate::state::command::{
    AdoptedPoint, CommittedPoint, Completion, Consistency, Counts, Failure, FailureKind, Outcome, VaultClaim,
    WorkerFacts,
};
use crate::state::entry::Time;
use crate::state::limits::LimitSubject;

/// Longest name, version, stage or label, bytes.
const TEXT_BYTES_MAX: usize = 255;
/// Labels of a worker.
const LABELS_MAX: usize = 64;
/// Jobs that a worker may run at a time: more than any machine has cores for.
const PERMITS_MAX: u32 = 1024;
/// Prefixes of stores of a worker, and the longest.
const STORES_MAX: usize = 64;
const STORE_BYTES_MAX: usize = 2048;
/// Longest text of a failure that is kept, characters: the attempt is a row.
const FAILURE_CHARS_MAX: usize = 1000;
/// Points that one completion calls harmed: what a message carries anyway.
const HARMED_MAX: usize = 100_000;
/// Harmed points that a worker tells of a verify: of one that tells so many there may be more.
const HARMED_TOLD_MAX: usize = 10_000;
/// Harmed points of one entry of the log: more come in others.
pub(super) const HARMED_AN_ENTRY: usize = 5_000;
/// Longest name of an item that is adopted, characters: it was written by somebody else, and the log cleans it.
const ITEM_NAME_CHARS_MAX: usize = 1000;
/// Bytes of the reason of a hold: as many as the log takes.
const REASON_BYTES_MAX: usize = 255;
/// Points of one message that are adopted.
pub(super) const ADOPTED_MAX: usize = 10_000;

/// Bytes of a fixed length.
fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], Refused> {
    bytes
        .try_into()
        .map_err(|_| Refused::invalid(field, format!("must have {N} bytes")))
}

/// The life of a process.
pub(super) fn life(bytes: &[u8]) -> Result<[u8; 16], Refused> {
    let life = fixed("life", bytes)?;
    if life == [0; 16] {
        return Err(Refused::invalid("life", "must be drawn at random"));
    }
    Ok(life)
}

/// The life that used the databases of a worker's slots last, if there was one.
pub(super) fn kept_life(bytes: &[u8]) -> Result<Option<[u8; 16]>, Refused> {
    match bytes {
        [] => Ok(None),
        bytes => fixed("kept_life", bytes).map(Some),
    }
}

/// A lease by its job and epoch.
pub(super) fn lease_id(id: Option<&v1::LeaseId>) -> Result<(JobId, Epoch), Refused> {
    id.map(|id| (JobId(id.job), Epoch(id.epoch)))
        .ok_or_else(|| Refused::invalid("id", "must name the lease"))
}

fn text(field: &'static str, text: String, bytes_max: usize) -> Result<String, Refused> {
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        let rule = format!("must have at most {bytes_max} bytes and no control characters");
        return Err(Refused::invalid(field, rule));
    }
    Ok(text)
}

/// What a worker says that it can do.
pub(super) fn facts(request: v1::RegisterRequest) -> Result<WorkerFacts, Refused> {
    if request.labels.len() > LABELS_MAX {
        return Err(Refused::invalid("labels", format!("must be {LABELS_MAX} at most")));
    }
    if request.stores.len() > STORES_MAX {
        return Err(Refused::invalid("stores", format!("must be {STORES_MAX} at most")));
    }
    if request.permits > PERMITS_MAX {
        return Err(Refused::invalid("permits", format!("must be {PERMITS_MAX} at most")));
    }
    let labels = request.labels.into_iter().map(|(key, value)| {
        Ok((
            text("labels", key, TEXT_BYTES_MAX)?,
            text("labels", value, TEXT_BYTES_MAX)?,
        ))
    });
    let stores = request
        .stores
        .into_iter()
        .map(|store| text("stores", store, STORE_BYTES_MAX));
    Ok(WorkerFacts {
        host: text("host", request.host, TEXT_BYTES_MAX)?,
        version: text("version", request.version, TEXT_BYTES_MAX)?,
        labels: labels.collect::<Result<BTreeMap<_, _>, Refused>>()?,
        permits: request.permits,
        stores: stores.collect::<Result<_, _>>()?,
        serves: text("serves", request.serves, TEXT_BYTES_MAX)?,
        jobs: !request.no_jobs,
        region: text("region", request.region, TEXT_BYTES_MAX)?,
    })
}

/// Leases that a worker says it has.
pub(super) fn said(leases: Vec<v1::LeaseProgress>) -> Result<Vec<SaidLease>, Refused> {
    if leases.len() > PERMITS_MAX as usize {
        return Err(Refused::invalid("leases", format!("must be {PERMITS_MAX} at most")));
    }
    let read = |lease: v1::LeaseProgress| {
        let (job, epoch) = lease_id(lease.id.as_ref())?;
        Ok(SaidLease {
            job,
            epoch,
            progress: JobProgress {
                stage: text("stage", lease.stage, TEXT_BYTES_MAX)?,
                bytes_done: lease.bytes_done,
                bytes_total: lease.bytes_total,
                bytes_stored: lease.bytes_stored,
            },
        })
    };
    leases.into_iter().map(read).collect()
}

fn time(field: &'static str, text: &str) -> Result<Time, Refused> {
    text.parse::<jiff::Timestamp>()
        .map(Time::from)
        .map_err(|_| Refused::invalid(field, "must be RFC 3339"))
}

fn time_or_none(field: &'static str, text: &str) -> Result<Option<Time>, Refused> {
    match text {
        "" => Ok(None),
        text => time(field, text).map(Some),
    }
}

fn consistency(text: &str) -> Result<Consistency, Refused> {
    match text {
        "crash" => Ok(Consistency::Crash),
        "filesystem" => Ok(Consistency::Filesystem),
        "application" => Ok(Consistency::Application),
        _ => Err(Refused::invalid(
            "consistency",
            "must be crash, filesystem or application",
        )),
    }
}

fn points(field: &'static str, ids: &[bytes::Bytes]) -> Result<Vec<PointId>, Refused> {
    if ids.len() > HARMED_MAX {
        return Err(Refused::invalid(field, format!("must be {HARMED_MAX} at most")));
    }
    ids.iter().map(|id| fixed(field, id).map(PointId)).collect()
}

fn counts(counts: Option<v1::Counts>) -> Counts {
    let counts = counts.unwrap_or_default();
    Counts {
        bytes_read: counts.bytes_read,
        bytes_new: counts.bytes_new,
        bytes_stored: counts.bytes_stored,
        bytes_logical: counts.bytes_logical,
        took: counts.took_ms,
        chunks_new: counts.chunks_new,
        chunks_known: counts.chunks_known,
        segments_inherited: counts.segments_inherited,
        lookups: counts.lookups,
        packs: counts.packs,
        puts: counts.puts,
        gets: counts.gets,
        heads: counts.heads,
        lists: counts.lists,
        deletes: counts.deletes,
    }
}

/// The end of a good attempt, and points of its vault that are to be called harmed after it.
pub(super) fn completion(request: v1::CompleteRequest) -> Result<(Completion, Vec<PointId>), Refused> {
    let (job, epoch) = lease_id(request.id.as_ref())?;
    let counts = counts(request.counts);
    let mut harmed_after = Vec::new();
    let outcome = match request.outcome {
        Some(OutcomeMessage::Point(point)) => {
            harmed_after = points("harmed", &point.harmed)?;
            Outcome::Backup(CommittedPoint {
                point: PointId(fixed("point", &point.point)?),
                time: time("time", &point.time)?,
                manifest: fixed("manifest", &point.manifest)?,
                consistency: consistency(&point.consistency)?,
                slots: point.slots.to_vec(),
                slot_map: point.slot_map,
                slots_missing: point.slots_missing.to_vec(),
                findings_seen: point.findings_seen,
                counts,
            })
        }
        Some(OutcomeMessage::Findings(findings)) => {
            let mut harmed = points("harmed", &findings.harmed)?;
            // What is split off is reported right after, and is harmed again then.
            let is_all = harmed.len() < HARMED_TOLD_MAX;
            harmed_after = harmed.split_off(harmed.len().min(HARMED_AN_ENTRY));
            Outcome::Verified {
                counts,
                harmed,
                findings: findings.count,
                is_all,
            }
        }
        Some(OutcomeMessage::Claimed(claimed)) => Outcome::Claimed(VaultClaim {
            n: claimed.n,
            cluster: claimed.cluster,
            header: fixed("header", &claimed.header)?,
        }),
        Some(OutcomeMessage::Nothing(v1::Nothing {})) => Outcome::Done { counts },
        None => return Err(Refused::invalid("outcome", "must say what was made")),
    };
    let completion = Completion {
        job,
        epoch,
        session: SessionId(request.session),
        outcome,
    };
    Ok((completion, harmed_after))
}

/// Why an attempt failed. A kind that this program does not know is a defect of one of both.
pub(super) fn failure(request: &v1::FailRequest) -> Failure {
    let kind = match request.kind.as_str() {
        "retry" => FailureKind::Retry,
        "invalid" => FailureKind::Invalid,
        "missing" => FailureKind::Missing,
        "corrupt" => FailureKind::Corrupt,
        "unsupported" => FailureKind::Unsupported,
        "fenced" => FailureKind::Fenced,
        "full" => FailureKind::Full,
        "denied" => FailureKind::Denied,
        "cancelled" => FailureKind::Cancelled,
        // As if it were not heard of any more, and sooner known.
        "stopping" => FailureKind::Lost,
        _ => FailureKind::Bug,
    };
    // Text for people is shortened and cleaned, never a reason to lose the report.
    let clean = |text: &str| -> String {
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        plain.take(FAILURE_CHARS_MAX).collect()
    };
    Failure {
        kind,
        message: clean(&request.message),
        hint: clean(&request.hint),
    }
}

/// Which of the points found in a vault are held, as its catalogue says, and why.
pub(super) fn held(points: &[v1::AdoptedPoint]) -> Result<Vec<(PointId, String)>, Refused> {
    let held = points.iter().filter(|point| !point.held.is_empty());
    let read = |point: &v1::AdoptedPoint| {
        let mut reason: String = point
            .held
            .chars()
            .filter(|c| !c.is_control())
            .take(REASON_BYTES_MAX)
            .collect();
        while reason.len() > REASON_BYTES_MAX {
            reason.pop();
        }
        let reason = if reason.is_empty() {
            String::from("held")
        } else {
            reason
        };
        Ok((PointId(fixed("point", &point.point)?), reason))
    };
    held.map(read).collect()
}

/// Points found in a vault that was taken over.
pub(super) fn adopted(points: Vec<v1::AdoptedPoint>) -> Result<Vec<AdoptedPoint>, Refused> {
    if points.len() > ADOPTED_MAX {
        return Err(Refused::invalid(
            "points",
            format!("must be {ADOPTED_MAX} at most in one call"),
        ));
    }
    let read = |point: v1::AdoptedPoint| {
        Ok(AdoptedPoint {
            point: PointId(fixed("point", &point.point)?),
            item: tresor_proto::ids::ItemId(fixed("item", &point.item)?),
            item_name: point.item_name.chars().take(ITEM_NAME_CHARS_MAX).collect(),
            time: time("time", &point.time)?,
            keep_until: time_or_none("keep_until", &point.keep_until)?,
            manifest: fixed("manifest", &point.manifest)?,
            consistency: consistency(&point.consistency)?,
            hidden: time_or_none("hidden_at", &point.hidden_at)?,
        })
    };
    points.into_iter().map(read).collect()
}

/// The shares of limits that a worker says it acts on; limits that are not there any more are nobody's.
pub(super) fn shares(state: &State, said: &[v1::Share]) -> BTreeMap<LimitSubject, u32> {
    let said: BTreeMap<&str, u32> = said.iter().map(|share| (share.of.as_str(), share.millionths)).collect();
    let known = state.limits().iter().filter_map(|(subject, _)| {
        let share = said.get(subject.to_string().as_str())?;
        Some((subject.clone(), (*share).min(WHOLE)))
    });
    known.collect()
}

/// The share that a worker is given.
pub(super) fn share((subject, given): (&LimitSubject, &Given)) -> v1::Share {
    v1::Share {
        of: subject.to_string(),
        millionths: given.share,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_that_is_on_the_wire_is_known_and_another_is_a_defect() {
        let kind = |kind: &str| {
            failure(&v1::FailRequest {
                kind: kind.to_owned(),
                ..v1::FailRequest::default()
            })
            .kind
        };
        let words = [
            "retry",
            "invalid",
            "missing",
            "corrupt",
            "unsupported",
            "fenced",
            "full",
            "denied",
            "cancelled",
            "stopping",
        ];
        let kinds: std::collections::BTreeSet<_> = words.map(kind).into_iter().collect();
        assert_eq!(kinds.len(), words.len());
        assert!(!kinds.contains(&FailureKind::Bug));
        assert_eq!(kind("stopping"), FailureKind::Lost);
        for other in ["bug", "", "lost", "Retry"] {
            assert_eq!(kind(other), FailureKind::Bug, "{other}");
        }
    }

    #[test]
    fn a_long_or_odd_text_of_a_failure_is_cleaned_and_not_refused() {
        let failure = failure(&v1::FailRequest {
            kind: String::from("retry"),
            message: format!("a\nb\0{}", "ü".repeat(5000)),
            ..v1::FailRequest::default()
        });
        assert!(failure.message.starts_with("a b "));
        assert_eq!(failure.message.chars().count(), FAILURE_CHARS_MAX);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_field() {
        let field = |refused: Refused| match refused {
            Refused::Invalid { field, .. } => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(life(&[1; 15]).unwrap_err()), "life");
        assert_eq!(field(life(&[0; 16]).unwrap_err()), "life");
        assert_eq!(field(lease_id(None).unwrap_err()), "id");
        let register = |change: &dyn Fn(&mut v1::RegisterRequest)| {
            let mut request = v1::RegisterRequest::default();
            change(&mut request);
            facts(request)
        };
        assert!(register(&|_| {}).is_ok());
        assert_eq!(field(register(&|r| r.host = "x".repeat(256)).unwrap_err()), "host");
        assert_eq!(
            field(register(&|r| r.version = String::from("a\n")).unwrap_err()),
            "version"
        );
        assert_eq!(
            field(register(&|r| r.permits = PERMITS_MAX + 1).unwrap_err()),
            "permits"
        );
        assert_eq!(
            field(register(&|r| r.stores = vec![String::new(); STORES_MAX + 1]).unwrap_err()),
            "stores"
        );
        let many = |n: usize| (0..n).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(
            field(register(&|r| r.labels = many(LABELS_MAX + 1)).unwrap_err()),
            "labels"
        );
    }

    fn point_made() -> v1::PointMade {
        v1::PointMade {
            point: vec![1; 16].into(),
            time: String::from("2026-11-20T02:00:00Z"),
            manifest: vec![2; 32].into(),
            consistency: String::from("filesystem"),
            ..v1::PointMade::default()
        }
    }

    fn complete(outcome: OutcomeMessage) -> Result<(Completion, Vec<PointId>), Refused> {
        completion(v1::CompleteRequest {
            report: None,
            id: Some(v1::LeaseId { job: 5, epoch: 6 }),
            session: 6,
            counts: Some(v1::Counts {
                bytes_read: 7,
                took_ms: 8,
                ..v1::Counts::default()
            }),
            outcome: Some(outcome),
        })
    }

    #[test]
    fn a_point_is_read_with_its_numbers() {
        let mut made = point_made();
        made.harmed = vec![vec![9; 16].into()];
        let (completion, harmed) = complete(OutcomeMessage::Point(made)).unwrap();
        assert_eq!(
            (completion.job, completion.epoch, completion.session),
            (JobId(5), Epoch(6), SessionId(6))
        );
        let Outcome::Backup(point) = completion.outcome else {
            panic!("it is a backup");
        };
        assert_eq!(point.time.to_string(), "2026-11-20T02:00:00Z");
        assert_eq!(point.consistency, Consistency::Filesystem);
        assert_eq!((point.counts.bytes_read, point.counts.took), (7, 8));
        assert_eq!(harmed, [PointId([9; 16])]);
    }

    #[test]
    fn a_point_with_a_wrong_field_is_no_point() {
        for change in [
            &|p: &mut v1::PointMade| p.point = vec![1; 15].into(),
            &|p: &mut v1::PointMade| p.time = String::from("yesterday"),
            &|p: &mut v1::PointMade| p.manifest = Vec::new().into(),
            &|p: &mut v1::PointMade| p.consistency = String::from("Crash"),
            &|p: &mut v1::PointMade| p.harmed = vec![vec![1].into()],
        ] as [&dyn Fn(&mut v1::PointMade); 5]
        {
            let mut made = point_made();
            change(&mut made);
            assert!(complete(OutcomeMessage::Point(made)).is_err());
        }
    }
}
