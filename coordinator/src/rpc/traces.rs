//! Which trace a job belongs to: that of the command which asked for it, as long as this process remembers; else one of each attempt's own.
//!
//! Not in the log: nothing depends on it. After a change of leaders the attempts of jobs that were asked for before have traces of their own.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::Span;
use tresor_proto::ids::{Epoch, JobId};
use tresor_proto::trace::{self, Traceparent};

/// Jobs whose traces are remembered: more than wait at a time in any but the largest cluster, some hundred bytes each. The oldest go first.
const TRACES_MAX: usize = 10_000;

/// Traces of jobs, by who asked for them.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    of: Mutex<BTreeMap<JobId, Traceparent>>,
}

impl Traces {
    /// Remembers that a job was asked for by the call that is answered now, if that is traced.
    pub(crate) fn note(&self, job: JobId) {
        let Some(here) = trace::current() else {
            return;
        };
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.entry(job).or_insert(here);
        while of.len() > TRACES_MAX {
            of.pop_first();
        }
    }

    /// The span of a lease that was given, and where its attempt is in a trace.
    pub(crate) fn leased(&self, cluster: &[u8], job: JobId, epoch: Epoch, worker: &str) -> (Span, Traceparent) {
        let asked = {
            let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            of.get(&job).copied()
        };
        let own = own(cluster, job, epoch);
        // Not below the call of the worker, which waits for any work.
        let span = tracing::info_span!(
            parent: None,
            "lease",
            job = job.0,
            epoch = epoch.0,
            worker,
            trace = tracing::field::Empty
        );
        if let Some(asked) = &asked {
            trace::adopt(&span, asked);
        }
        let here = trace::of(&span).or(asked).unwrap_or(own);
        span.record("trace", here.trace_id());
        (span, here)
    }
}

/// The trace of an attempt that nobody asked for: the same whoever says it, and no other's.
fn own(cluster: &[u8], job: JobId, epoch: Epoch) -> Traceparent {
    let mut hasher = blake3::Hasher::new_derive_key("tresor control v1 trace of an attempt");
    hasher.update(cluster);
    hasher.update(&job.0.to_le_bytes());
    hasher.update(&epoch.0.to_le_bytes());
    let hash = hasher.finalize();
    Traceparent::new(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn an_attempt_is_in_the_trace_of_who_asked_for_its_job_or_in_one_of_its_own() {
        tracing::subscriber::with_default(tracing_subscriber::Registry::default(), || {
            let traces = Traces::default();
            let asked: Traceparent = TEXT.parse().unwrap();
            let call = tracing::info_span!("call");
            trace::adopt(&call, &asked);
            call.in_scope(|| traces.note(JobId(7)));
            let of = |job, epoch| traces.leased(b"cluster", JobId(job), Epoch(epoch), "w1").1;
            assert_eq!((of(7, 9), of(7, 12)), (asked, asked));
            let own = of(8, 20);
            assert_ne!(own.trace, asked.trace);
            assert_eq!(own, of(8, 20));
            assert_ne!(own.trace, of(8, 21).trace, "each attempt has its own");
        });
    }

    #[test]
    fn the_oldest_are_forgotten() {
        tracing::subscriber::with_default(tracing_subscriber::Registry::default(), || {
            let traces = Traces::default();
            let call = tracing::info_span!("call");
            trace::adopt(&call, &TEXT.parse().unwrap());
            call.in_scope(|| (0..TRACES_MAX as u64 + 5).for_each(|job| traces.note(JobId(job))));
            assert_eq!(traces.of.lock().unwrap().len(), TRACES_MAX);
            let of = |job| traces.leased(b"", JobId(job), Epoch(1), "w1").1.to_string();
            assert_ne!(of(4), TEXT);
            assert_eq!(of(5), TEXT);
        });
    }
}
