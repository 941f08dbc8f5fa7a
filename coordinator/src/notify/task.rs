//! What a leader does all the time: it decides, proposes, sends what waits, and proposes what came of it. Nobody waits for it, and it waits for nobody but
//! receivers: one message of a channel is under way at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tresor_proto::ids::hex;

use super::decide::{Digests, due};
use super::secret::Secret;
use super::send::{self, Letter, NotTaken};
use super::text::{self, Letterhead};
use crate::node::NodeError;
use crate::rpc::context::Services;
use crate::state::State;
use crate::state::channels::{Channel, Parcel, SendOutcome};
use crate::state::command::Command;
use crate::state::entry::{Actor, Time};

/// How often the leader looks.
const EVERY: Duration = Duration::from_secs(5);
/// A look may have this share of the time at most, as one part in so many: it holds the state.
const SHARE: u32 = 20;
/// How long after attempts in a row that were not taken a channel is tried again, milliseconds.
const BACKOFF_MS: [i64; 6] = [30_000, 60_000, 120_000, 300_000, 900_000, 3_600_000];
/// How old a message becomes that nobody takes, milliseconds: who looks after a day finds it in `tresor status`.
pub const KEPT_MS: i64 = 24 * 3600 * 1000;
/// Attempts of a message that its receiver refuses each time: others that wait may be taken.
const REFUSED_MAX: u32 = 3;

/// What came of an attempt: what is to be noted. `refused` is how often the receiver refused this message before. Pure.
pub fn outcome(sent: Result<(), NotTaken>, channel: &Channel, parcel: &Parcel, refused: u32, now: Time) -> SendOutcome {
    let Err(NotTaken { why: error, is_refusal }) = sent else {
        return SendOutcome::Taken;
    };
    let failed = channel.trouble.as_ref().map_or(0, |trouble| trouble.attempts) as usize;
    let pause = BACKOFF_MS[failed.min(BACKOFF_MS.len() - 1)];
    let next = now.plus(pause);
    if now.since(parcel.message.at) >= KEPT_MS {
        // Others may be as old: at a pause for each they would outlive their time by days.
        return SendOutcome::Lost { error, next: now };
    }
    match is_refusal && refused + 1 >= REFUSED_MAX {
        true => SendOutcome::Lost { error, next },
        false => SendOutcome::Later { error, next },
    }
}

/// The letterhead of a channel.
pub fn letterhead(state: &State, channel: &str) -> Letterhead {
    let cluster = state.cluster();
    Letterhead {
        cluster: cluster.map(|cluster| hex(&cluster.id)).unwrap_or_default(),
        cluster_name: cluster.map(|cluster| cluster.name.clone()).unwrap_or_default(),
        channel: channel.to_owned(),
    }
}

/// A message that is to be sent now.
struct Due {
    number: u64,
    channel: Channel,
    parcel: Parcel,
    head: Letterhead,
    refused: u32,
}

/// The oldest message of each channel that may be tried and has none under way.
fn to_send(state: &State, under_way: &BTreeSet<String>, refused: &BTreeMap<u64, u32>, now: Time) -> Vec<Due> {
    let mut seen = under_way.clone();
    let mut all = Vec::new();
    for (number, parcel) in state.outbox().iter() {
        let Some(channel) = state.channels().get(&parcel.channel) else {
            continue;
        };
        let rests = channel.trouble.as_ref().is_some_and(|trouble| trouble.next > now);
        if rests || !seen.insert(parcel.channel.clone()) {
            continue;
        }
        all.push(Due {
            number: *number,
            channel: channel.clone(),
            parcel: parcel.clone(),
            head: letterhead(state, &parcel.channel),
            refused: refused.get(number).copied().unwrap_or_default(),
        });
    }
    all
}

/// What came of one attempt.
struct Attempt {
    number: u64,
    channel: String,
    outcome: SendOutcome,
    is_refusal: bool,
}

/// Tells while this coordinator leads, until `stop`.
pub async fn run(services: Services, stop: CancellationToken) {
    let mut teller = Teller {
        services,
        digests: Digests::default(),
        under_way: BTreeSet::new(),
        refused: BTreeMap::new(),
        attempts: JoinSet::new(),
    };
    let mut pause = EVERY;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {
                let leads = teller.services.handle.leadership().borrow().is_me;
                pause = EVERY;
                if leads {
                    pause = EVERY.max(teller.look().await * SHARE);
                }
            }
            Some(attempt) = teller.attempts.join_next() => {
                teller.note(attempt).await;
                // What waits behind it need not wait for the next look.
                teller.begin();
            }
            // What is under way is left: whoever leads next sends it again under its number.
            () = stop.cancelled() => return,
        }
    }
}

struct Teller {
    services: Services,
    digests: Digests,
    under_way: BTreeSet<String>,
    /// How often messages that wait were refused. The next leader counts anew, and so gives them another chance.
    refused: BTreeMap<u64, u32>,
    attempts: JoinSet<Attempt>,
}

impl Teller {
    /// Decides and proposes; then sends. Returns for how long it held the state.
    async fn look(&mut self) -> Duration {
        let has_channels = self.services.handle.read(|state| !state.channels().is_empty());
        if !has_channels {
            return Duration::ZERO;
        }
        // Whatever the leader before told is applied then.
        if self.services.handle.barrier().await.is_err() {
            return Duration::ZERO;
        }
        let plans = self.services.plans();
        let mut digests = std::mem::take(&mut self.digests);
        let services = self.services.clone();
        let decided = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let telling = services.handle.read(|state| {
                digests.refresh(state);
                // While a person is asked about the clock only stamps are believed: nothing is late by a clock that stepped.
                due(state, &plans, &digests, services.now(state))
            });
            (telling, digests, began.elapsed())
        });
        let Ok((telling, digests, held)) = decided.await else {
            tracing::error!("what is to be told could not be decided");
            return Duration::ZERO;
        };
        self.digests = digests;
        if let Some(telling) = telling {
            let messages = telling.messages.len();
            match self
                .services
                .handle
                .change(Actor::Cluster, None, Command::Tell(telling))
                .await
            {
                Ok(_) if messages > 0 => tracing::info!(messages, "notifications wait to be sent"),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "nothing was told: it is looked at again"),
            }
        }
        self.begin();
        held
    }

    /// Begins to send what may be sent.
    fn begin(&mut self) {
        if !self.services.handle.leadership().borrow().is_me {
            return;
        }
        let refused = &mut self.refused;
        self.services
            .handle
            .read(|state| refused.retain(|number, _| state.outbox().contains(number)));
        let all = self
            .services
            .handle
            .read(|state| to_send(state, &self.under_way, &self.refused, self.services.now(state)));
        for due in all {
            self.under_way.insert(due.parcel.channel.clone());
            let services = self.services.clone();
            self.attempts.spawn(attempt(services, due));
        }
    }

    async fn note(&mut self, attempt: Result<Attempt, tokio::task::JoinError>) {
        let Ok(attempt) = attempt else {
            tracing::error!("sending a notification panicked");
            // Which channel it was is not known: all of them are free again once nothing else runs.
            if self.attempts.is_empty() {
                self.under_way.clear();
            }
            return;
        };
        if let SendOutcome::Later { error, .. } | SendOutcome::Lost { error, .. } = &attempt.outcome {
            tracing::warn!(channel = attempt.channel, error, "a notification was not taken");
        }
        match &attempt.outcome {
            SendOutcome::Later { .. } => {
                *self.refused.entry(attempt.number).or_default() += u32::from(attempt.is_refusal);
            }
            SendOutcome::Taken | SendOutcome::Lost { .. } => drop(self.refused.remove(&attempt.number)),
        }
        let command = Command::NoteSent {
            message: attempt.number,
            outcome: attempt.outcome,
        };
        match self.services.handle.change(Actor::Cluster, None, command).await {
            // Its channel was removed meanwhile.
            Ok(_) | Err(NodeError::Refused(_)) => {}
            Err(error) => tracing::warn!(%error, "what came of a notification could not be noted: it is sent again"),
        }
        self.under_way.remove(&attempt.channel);
    }
}

async fn attempt(services: Services, due: Due) -> Attempt {
    let Due {
        number,
        channel,
        parcel,
        head,
        refused,
    } = due;
    let letter = Letter {
        id: text::id(&head, number),
        head,
        message: parcel.message.clone(),
        is_test: false,
    };
    let sent = match Secret::unwrap(&channel.spec.secret, services.keys.as_ref()) {
        Ok(secret) => send::send(&channel.spec, &secret, &letter).await.map(drop),
        Err(error) => Err(NotTaken::unclear(error.to_string())),
    };
    let now = services.handle.read(|state| services.now(state));
    Attempt {
        number,
        is_refusal: sent.as_ref().is_err_and(|error| error.is_refusal),
        outcome: outcome(sent, &channel, &parcel, refused, now),
        channel: parcel.channel,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
