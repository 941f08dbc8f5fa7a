//! Policies ready to be asked: their texts compiled once for each version.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use tresor_proto::ids::PolicyId;

use super::limits::LimitPlans;
use crate::schedule::{
    Calendar, CalendarError, Compiled, Retention, RetentionError, Schedule, ScheduleError, Windows, WindowsError,
};
use crate::state::State;
use crate::state::command::PolicySpec;
use crate::state::entry::Time;
use crate::state::rows::Policy;

/// Why the texts of a policy mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The windows.
    #[error(transparent)]
    Windows(#[from] WindowsError),
    /// Schedule, zone, windows or jitter, together.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// The retention.
    #[error(transparent)]
    Retention(#[from] RetentionError),
    /// The time zone.
    #[error(transparent)]
    Zone(#[from] crate::schedule::zone::UnknownZone),
    /// The jitter.
    #[error("jitter: must be 0 or more")]
    Jitter,
}

impl PlanError {
    /// The field of the policy that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Schedule(_) | Self::Calendar(CalendarError::Schedule(_)) => "schedule",
            Self::Windows(_) | Self::Calendar(CalendarError::Windows(_)) => "windows",
            Self::Calendar(CalendarError::Zone(_)) | Self::Zone(_) => "zone",
            Self::Retention(_) => "retention",
            Self::Calendar(CalendarError::Jitter { .. }) | Self::Jitter => "jitter",
        }
    }
}

/// A policy ready to be asked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// When backups are due; none: never by themselves.
    pub calendar: Option<Compiled>,
    /// What is kept; none: everything.
    pub retention: Option<Retention>,
    /// The zone of its days and weeks.
    pub zone: TimeZone,
}

impl Plan {
    /// Of the texts of a policy. `anchor` is where `every` counts from.
    ///
    /// # Errors
    /// The first text that means nothing.
    pub fn of(spec: &PolicySpec, anchor: Time) -> Result<Self, PlanError> {
        let zone = crate::schedule::zone::find(&spec.zone)?;
        let calendar = calendar(spec)?
            .map(|calendar| calendar.compile(anchor.timestamp()))
            .transpose()?;
        let retention = match spec.retention.trim() {
            "" => None,
            text => {
                let retention: Retention = text.parse()?;
                retention.validate()?;
                Some(retention)
            }
        };
        Ok(Self {
            calendar,
            retention,
            zone,
        })
    }
}

/// The calendar of a policy as it is written; none where it has no schedule.
///
/// # Errors
/// The first text that means nothing.
pub fn calendar(spec: &PolicySpec) -> Result<Option<Calendar>, PlanError> {
    let text = spec.schedule.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let schedule: Schedule = text.parse()?;
    let windows: Option<Windows> = match spec.windows.as_slice() {
        [] => None,
        windows => Some(windows.join("; ").parse()?),
    };
    let jitter = u64::try_from(spec.jitter).map_err(|_| PlanError::Jitter)?;
    Ok(Some(Calendar {
        schedule,
        zone: spec.zone.clone(),
        jitter: std::time::Duration::from_millis(jitter),
        windows,
    }))
}

/// The plans of all policies and limits, each compiled when its version is first met.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    of: BTreeMap<PolicyId, (u64, Result<Plan, PlanError>)>,
    limits: LimitPlans,
}

impl Plans {
    /// Compiles what is new, forgets what is gone.
    pub fn refresh(&mut self, state: &State) {
        self.limits.refresh(state);
        self.of.retain(|id, _| state.policies().contains(id));
        for (id, policy) in state.policies().iter() {
            if self.of.get(id).is_none_or(|(version, _)| *version != policy.version) {
                self.of.insert(*id, (policy.version, Self::compile(policy)));
            }
        }
    }

    fn compile(policy: &Policy) -> Result<Plan, PlanError> {
        let plan = Plan::of(&policy.spec, policy.since);
        if let Err(error) = &plan {
            // Checked when it was made; a newer release of the time zone database may have dropped a zone.
            tracing::error!(policy = policy.spec.name, %error, "a policy cannot be followed");
        }
        plan
    }

    /// Limits of use.
    pub fn limits(&self) -> &LimitPlans {
        &self.limits
    }

    /// The plan of a policy; the reason where its texts mean nothing any more.
    pub fn get(&self, id: PolicyId) -> Option<Result<&Plan, &PlanError>> {
        self.of.get(&id).map(|(_, plan)| plan.as_ref())
    }
}
