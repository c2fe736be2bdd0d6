//! Whether there is a load peak, according to Prometheus, a schedule or an alert, and what follows. Pure.
//!
//! In: query responses, webhook payloads and the time, from `controller::triggers`, which makes the calls. Out:
//! a [`TriggerState`] for each trigger: whether it is active, and how many replicas it proposes. The code has no
//! clock and no client: `now` is an argument.
//!
//! ```text
//! body ─▶ query_response ─▶ MetricValue or error ─┐
//! spec ─▶ cron, window ─▶ WindowState ────────────┼─▶ evaluation ─▶ TriggerState ─▶ hold, scale, status
//! body ─▶ alert ─▶ ActiveAlerts ──────────────────┘
//! ```
//!
//! | file | decides |
//! | --- | --- |
//! | [`query_response`] | the value in Prometheus' response, or why it has none |
//! | [`evaluation`] | the state of a trigger, while its value is known and while it is not |
//! | [`cron`], [`window`] | when a schedule's window is open |
//! | [`alert`] | which alerts fire |
//!
//! A trigger has three kinds of state: active, inactive, and unknown. A pool's hold is short while any of its
//! triggers is active. A trigger with an unknown value keeps its last state for `onError.keepFor`, and then
//! takes the state in `onError.then`. A trigger whose value was never known is inactive during `keepFor`.

pub mod alert;
pub mod cron;
pub mod evaluation;
pub mod query_response;
pub mod window;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{FiringAlert, TriggerStatus};

/// How many replicas a trigger proposes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ReplicaProposal {
    /// None: the trigger is not active.
    #[default]
    Inactive,
    /// None: the trigger is active, but its spec contains no replicas.
    ActiveOnly,
    /// No fewer than now, because the trigger's value is unknown.
    Hold,
    /// This number of replicas.
    Replicas(i32),
    /// Enough replicas that each takes at most `threshold` of `value`.
    PerReplica {
        /// The query's value.
        value: f64,
        /// What one replica can take.
        threshold: f64,
    },
}

/// Why a query has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// Prometheus gave no usable response. The operator repeats the query after the interval.
    Unknown(String),
    /// The operator sends no query until a user edits the object that the message names.
    InvalidSpec(String),
}

impl From<String> for QueryError {
    fn from(why: String) -> Self {
        Self::Unknown(why)
    }
}

/// The state of a trigger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TriggerState {
    /// Whether it is active.
    pub active: bool,
    /// How many replicas it proposes.
    pub proposal: ReplicaProposal,
    /// The last known value of its query.
    pub value: Option<f64>,
    /// Since when it has been active, or inactive.
    pub since: Option<Timestamp>,
    /// Since when its value has been unknown. `None` while it is known.
    pub unknown_since: Option<Timestamp>,
    /// The alerts that fire.
    pub alerts: Vec<FiringAlert>,
    /// A message for `status.triggers`.
    pub message: String,
    /// What a user must edit before the value can be known.
    pub spec_error: Option<String>,
}

impl TriggerState {
    /// Restores the state from `status.triggers`, for a new leader.
    pub fn from_status(status: &TriggerStatus) -> Self {
        Self {
            active: status.active,
            proposal: ReplicaProposal::Hold,
            value: status.value.as_ref().and_then(|value| value.parse().ok()),
            since: status.since.as_ref().map(|time| time.0),
            unknown_since: status.unknown_since.as_ref().map(|time| time.0),
            alerts: status.alerts.clone(),
            message: status.message.clone(),
            spec_error: None,
        }
    }

    /// Converts the state to its entry in `status.triggers`.
    pub fn to_status(&self, name: &str) -> TriggerStatus {
        TriggerStatus {
            name: name.to_owned(),
            active: self.active,
            value: self.value.map(|value| value.to_string()),
            since: self.since.map(truncated_time),
            unknown_since: self.unknown_since.map(truncated_time),
            alerts: self.alerts.clone(),
            message: self
                .spec_error
                .clone()
                .unwrap_or_else(|| self.message.clone()),
        }
    }

    /// The state of a trigger with an invalid spec: never active. It keeps the present replicas, as an HPA does
    /// for a metric that it cannot read.
    pub fn invalid(why: String, before: &Self, now: Timestamp) -> Self {
        Self {
            spec_error: Some(why),
            proposal: ReplicaProposal::Hold,
            ..Self::default()
        }
        .with_since(before, now)
    }

    /// The same state, marked as unreachable since `since`, with the reason.
    #[must_use]
    pub fn unreachable(self, why: String, since: Timestamp) -> Self {
        Self {
            unknown_since: Some(since),
            message: why,
            ..self
        }
    }

    /// Whether its value is known and its spec is valid.
    pub fn is_known(&self) -> bool {
        self.unknown_since.is_none() && self.spec_error.is_none()
    }

    /// Sets `since`: the earlier time if `active` has not changed, otherwise `now`.
    #[must_use]
    fn with_since(mut self, before: &Self, now: Timestamp) -> Self {
        let is_unchanged = self.active == before.active;
        self.since = before.since.filter(|_| is_unchanged).or(Some(now));
        self
    }
}

/// A time without fractions of a second. A status stores whole seconds, and must equal itself when it is read
/// back.
fn truncated_time(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_restores_the_state_from_the_status() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let before = TriggerState {
            active: true,
            proposal: ReplicaProposal::Hold,
            value: Some(1520.5),
            since: Some(at(5)),
            unknown_since: Some(at(9)),
            alerts: vec![FiringAlert {
                fingerprint: "f".to_owned(),
                expires: Time(at(90)),
            }],
            message: "no answer".to_owned(),
            spec_error: None,
        };
        let status = before.to_status("requests");
        assert_eq!(status.value.as_deref(), Some("1520.5"));
        assert_eq!(TriggerState::from_status(&status), before);
    }
}
