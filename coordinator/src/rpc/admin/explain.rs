//! Why a thing is so: why a job waits, why an item is late, why a point stays. Pure, but for the question itself.

mod item;
mod job;
mod point;

use tresor_proto::ids::JobId;
use tresor_proto::v1;

use super::points::point_named;
use super::status::Seen;
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::fields::one_of;
use crate::rpc::refused::Refused;
use crate::rpc::resolve;

pub use item::explain_item;
pub use job::explain_job;
pub use point::explain_point;

/// What can be explained.
const KINDS: [&str; 3] = ["job", "item", "point"];

/// What a thing is, and the reasons for it, the most important first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What it is.
    pub what: String,
    /// Sentences.
    pub because: Vec<String>,
}

impl Services {
    /// Why it is so.
    pub(crate) async fn explain(
        &self,
        _: &Caller,
        message: v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, Refused> {
        let kind = one_of("kind", &message.kind, &KINDS)?;
        self.handle.barrier().await?;
        let (presence, now_ms) = (self.presence(), self.clock.monotonic_ms());
        let plans = self.plans();
        let explained = self.handle.read(|state| {
            let seen = Seen {
                state,
                plans: &plans,
                presence: &presence,
                now: self.now(state),
                now_ms,
                coordinators: &[],
            };
            match kind.as_str() {
                "job" => {
                    let number = message.name.parse::<JobId>();
                    let id = number.map_err(|_| Refused::missing("job", &message.name))?;
                    explain_job(seen, id)
                }
                "item" => explain_item(seen, resolve::item(state, &message.name, "")?),
                _ => explain_point(seen, point_named(state, &message.name)?),
            }
        })?;
        Ok(v1::ExplainResponse {
            what: explained.what,
            because: explained.because,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
