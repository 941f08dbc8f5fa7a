//! Policies: made, changed as a whole, previewed before they do anything.

use tresor_proto::ids::{PointId, PolicyId};
use tresor_proto::v1;

use super::vaults::draw;
use crate::lead::plans::Plan;
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::kinds::Kind;
use crate::rpc::page::Page;
use crate::rpc::policy::{BUILT_IN, built_in, read, words};
use crate::rpc::refused::Refused;
use crate::rpc::{convert, fields, resolve};
use crate::schedule::preview::{Holds, RUNS_MAX, holds, next_runs};
use crate::schedule::{PointView, Verdict, plan};
use crate::state::command::{Command, PolicySpec};
use crate::state::entry::Time;
use crate::state::{State, Subject};

/// Runs that a preview shows if the caller does not say.
const RUNS_DEFAULT: usize = 5;
/// Most points of an item that a preview decides on, the newest: about a megabyte of answer.
const POINTS_MAX: usize = 5000;

impl Services {
    /// Makes a policy.
    pub(crate) async fn create_policy(
        &self,
        caller: &Caller,
        message: v1::CreatePolicyRequest,
    ) -> Result<v1::Policy, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let spec = read(message.spec.as_ref(), &self.zone)?;
        let policy = PolicyId(*draw()?);
        let made = self
            .change(caller, Kind::CreatePolicy, key, |_| {
                Ok(Command::CreatePolicy { policy, spec })
            })
            .await?;
        self.policy_of(made.about)
    }

    fn policy_of(&self, about: Subject) -> Result<v1::Policy, Refused> {
        let Subject::Policy(id) = about else {
            return Err(Refused::OtherChange);
        };
        self.handle.read(|state| policy_message(state, id))
    }

    /// One policy.
    pub(crate) async fn get_policy(&self, _: &Caller, message: v1::GetPolicyRequest) -> Result<v1::Policy, Refused> {
        self.look(|state| policy_message(state, resolve::policy(state, &message.name)?))
            .await
    }

    /// Policies by name.
    pub(crate) async fn list_policies(
        &self,
        _: &Caller,
        message: v1::ListPoliciesRequest,
    ) -> Result<v1::ListPoliciesResponse, Refused> {
        let page = Page::<String>::read("policies", &(), message.page_size, &message.page_token)?;
        self.look(|state| {
            let after = page.after.as_deref();
            let rows = state
                .policies_by_name()
                .filter(|(name, _)| after.is_none_or(|after| *name > after))
                .map(|(name, id)| (name.to_owned(), id));
            let (policies, next_page_token) = page.fill(rows, |_, id| policy_message(state, id).ok());
            Ok(v1::ListPoliciesResponse {
                policies,
                next_page_token,
            })
        })
        .await
    }

    /// Changes a policy as a whole.
    pub(crate) async fn update_policy(
        &self,
        caller: &Caller,
        message: v1::UpdatePolicyRequest,
    ) -> Result<v1::Policy, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let spec = read(message.spec.as_ref(), &self.zone)?;
        let made = self
            .change(caller, Kind::UpdatePolicy, key, |state| {
                Ok(Command::UpdatePolicy {
                    policy: resolve::policy(state, &message.name)?,
                    version: message.version,
                    spec,
                })
            })
            .await?;
        self.policy_of(made.about)
    }

    /// Removes a policy that no item uses.
    pub(crate) async fn remove_policy(
        &self,
        caller: &Caller,
        message: v1::RemovePolicyRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let made = self
            .change(caller, Kind::RemovePolicy, key, |state| {
                let policy = resolve::policy(state, &message.name)?;
                Ok(Command::RemovePolicy { policy })
            })
            .await?;
        match made.about {
            Subject::Policy(_) => Ok(v1::Empty {}),
            _ => Err(Refused::OtherChange),
        }
    }

    /// What a policy would do: one that is there, or one that is not made yet.
    pub(crate) async fn preview_policy(
        &self,
        _: &Caller,
        message: v1::PreviewPolicyRequest,
    ) -> Result<v1::PreviewPolicyResponse, Refused> {
        let asked = message
            .spec
            .as_ref()
            .map(|spec| read(Some(spec), &self.zone))
            .transpose()?;
        let runs = match usize::try_from(message.runs).unwrap_or(RUNS_MAX) {
            0 => RUNS_DEFAULT,
            runs => runs.min(RUNS_MAX),
        };
        let (spec, anchor, points, now) = self
            .look(|state| {
                let now = self.now(state);
                let (spec, anchor) = match (asked, message.name.as_str()) {
                    (Some(spec), _) => (spec, now),
                    (None, "") => return Err(Refused::invalid("name", "or a spec is needed")),
                    (None, name) => spec_named(state, name, &self.zone, now)?,
                };
                let points = match message.item.as_str() {
                    "" => Vec::new(),
                    name => {
                        let item = resolve::item(state, name, "")?;
                        retained(state, item).take(POINTS_MAX).collect()
                    }
                };
                Ok((spec, anchor, points, now))
            })
            .await?;
        // Simulating the runs of forty years takes up to a tenth of a second.
        tokio::task::spawn_blocking(move || preview(&spec, anchor, &points, now, runs))
            .await
            .map_err(|_| Refused::Bug {
                why: "a preview panicked",
            })?
    }
}

fn policy_message(state: &State, id: PolicyId) -> Result<v1::Policy, Refused> {
    let row = state
        .policies()
        .get(&id)
        .ok_or_else(|| Refused::missing("policy", id))?;
    Ok(convert::policy(state, id, row))
}

/// The policy of that name, and where its spans count from; the built-in one can be looked at before it is made.
fn spec_named(state: &State, name: &str, zone: &str, now: Time) -> Result<(PolicySpec, Time), Refused> {
    match resolve::policy(state, name) {
        Ok(id) => state
            .policies()
            .get(&id)
            .map(|policy| (policy.spec.clone(), policy.since))
            .ok_or_else(|| Refused::missing("policy", name)),
        Err(_) if name == BUILT_IN => Ok((built_in(zone), now)),
        Err(missing) => Err(missing),
    }
}

/// What retention looks at: the visible points of an item, the newest first.
pub(super) fn retained(
    state: &State,
    item: tresor_proto::ids::ItemId,
) -> impl Iterator<Item = PointView<PointId>> + '_ {
    state.points_of(item).filter_map(|id| {
        let point = state.points().get(&id).filter(|point| point.hidden.is_none())?;
        Some(PointView {
            id,
            time: point.time.timestamp(),
            keep_until: point.keep_until.map(Time::timestamp),
            held: point.held.is_some(),
            damaged: point.harmed,
        })
    })
}

fn preview(
    spec: &PolicySpec,
    anchor: Time,
    points: &[PointView<PointId>],
    now: Time,
    runs: usize,
) -> Result<v1::PreviewPolicyResponse, Refused> {
    let ready = Plan::of(spec, anchor).map_err(|e| Refused::invalid(format!("spec.{}", e.field()), e.to_string()))?;
    let now = now.timestamp();
    let calendar = ready.calendar.as_ref();
    let held = match (calendar, &ready.retention) {
        (Some(calendar), Some(retention)) => Some(holds(calendar, retention, now)),
        _ => None,
    };
    let mut words = words(spec);
    if let Some(Holds {
        points_max,
        is_simulated: true,
    }) = held
    {
        words.push(format!("In the long run an item has at most {points_max} points."));
    }
    let verdict = |verdict: &Verdict<PointId>| v1::PointVerdict {
        point: verdict.id.to_string(),
        time: verdict.time.to_string(),
        stays: verdict.is_kept(),
        because: verdict.reasons.iter().map(ToString::to_string).collect(),
    };
    Ok(v1::PreviewPolicyResponse {
        words,
        runs: calendar
            .map(|calendar| {
                next_runs(calendar, now)
                    .take(runs)
                    .map(|run| run.starts_from.to_string())
                    .collect()
            })
            .unwrap_or_default(),
        points: plan(points, ready.retention.as_ref(), &ready.zone, now)
            .iter()
            .map(verdict)
            .collect(),
        points_held: held.map_or(0, |held| held.points_max),
    })
}
