//! The state of a trigger, while its value is known and while it is not.
//!
//! In: its spec, its state before, the query result or the alerts, and the time. Out: its [`TriggerState`].

use std::time::Duration;

use jiff::Timestamp;

use super::alert::ActiveAlerts;
use super::query_response::MetricValue;
use super::window::{ScheduleWindows, WindowState};
use super::{QueryError, ReplicaProposal, TriggerState};
use crate::api::{Alert, OnError, Prometheus, Schedule, Then};

/// The state of a Prometheus trigger after a query succeeded or failed.
pub fn evaluate_prometheus(
    spec: &Prometheus,
    on_error: &OnError,
    before: &TriggerState,
    result: Result<MetricValue, QueryError>,
    now: Timestamp,
) -> TriggerState {
    let thresholds = match PrometheusThresholds::parse(spec) {
        Ok(thresholds) => thresholds,
        Err(why) => return TriggerState::invalid(why, before, now),
    };
    let state = match result {
        Ok(value) => state_with_value(&thresholds, value),
        Err(QueryError::Unknown(why)) => state_without_value(on_error, before, &why, now),
        // The last decision stays in force for `keepFor`, as in an outage of Prometheus.
        Err(QueryError::InvalidSpec(why)) => {
            let state = state_without_value(on_error, before, &why, now);
            TriggerState {
                spec_error: Some(state.message.clone()),
                ..state
            }
        }
    };
    state.with_since(before, now)
}

/// The numbers of a Prometheus trigger, which its spec contains as text.
struct PrometheusThresholds {
    threshold: Option<f64>,
    activation: f64,
}

impl PrometheusThresholds {
    fn parse(spec: &Prometheus) -> Result<Self, String> {
        let number = |field: &str, text: &str| {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| format!("prometheus.{field}: '{text}' is not a number"))
        };
        let threshold = spec.threshold.as_ref();
        let threshold = threshold
            .map(|text| number("threshold", text))
            .transpose()?;
        if threshold.is_some_and(|threshold| threshold <= 0.0) {
            return Err("prometheus.threshold must be above 0".to_owned());
        }
        Ok(Self {
            threshold,
            activation: number("activationThreshold", &spec.activation_threshold)?,
        })
    }
}

fn state_with_value(thresholds: &PrometheusThresholds, metric: MetricValue) -> TriggerState {
    let value = metric.value;
    let active = value > thresholds.activation;
    let proposal = match (active, thresholds.threshold) {
        (false, _) => ReplicaProposal::Inactive,
        (true, None) => ReplicaProposal::ActiveOnly,
        (true, Some(threshold)) => ReplicaProposal::PerReplica { value, threshold },
    };
    TriggerState {
        active,
        proposal,
        value: Some(value),
        message: metric.warning.unwrap_or_default(),
        ..TriggerState::default()
    }
}

/// Keeps the last decision for `onError.keepFor`, then applies `onError.then`. During `keepFor` the replicas
/// are kept too: a value that was falling may have risen since.
fn state_without_value(
    on_error: &OnError,
    before: &TriggerState,
    why: &str,
    now: Timestamp,
) -> TriggerState {
    let since = before.unknown_since.unwrap_or(now).min(now);
    let keep_for = Duration::from(on_error.keep_for);
    let end = since.saturating_add(keep_for).unwrap_or(Timestamp::MAX);
    let unknown_state = TriggerState {
        value: before.value,
        unknown_since: Some(since),
        ..TriggerState::default()
    };
    if now < end {
        return TriggerState {
            active: before.active,
            proposal: ReplicaProposal::Hold,
            message: format!(
                "{why}; the last decision is kept until {}",
                truncated_to_second(end)
            ),
            ..unknown_state
        };
    }
    let active = on_error.then == Then::Active;
    let (proposal, then) = if active {
        (ReplicaProposal::Hold, "Active")
    } else {
        (ReplicaProposal::Inactive, "Inactive")
    };
    TriggerState {
        active,
        proposal,
        message: format!(
            "{why}; the trigger is {then} since {}, according to onError",
            truncated_to_second(end)
        ),
        ..unknown_state
    }
}

/// The state of a schedule trigger, and when it changes next.
pub fn evaluate_schedule(
    spec: &Schedule,
    before: &TriggerState,
    now: Timestamp,
) -> (TriggerState, Option<Timestamp>) {
    let windows = match ScheduleWindows::parse(spec) {
        Ok(windows) => windows,
        Err(why) => return (TriggerState::invalid(why, before, now), None),
    };
    let (state, next) = match windows.state_at(now) {
        WindowState::Open(end) => {
            let open = TriggerState {
                active: true,
                proposal: spec
                    .replicas
                    .map_or(ReplicaProposal::ActiveOnly, ReplicaProposal::Replicas),
                message: format!("open until {} or longer", truncated_to_second(end)),
                ..TriggerState::default()
            };
            (open, Some(end))
        }
        WindowState::Closed(next) => {
            let message = next.map_or_else(
                || "never opens again".to_owned(),
                |next| format!("opens at {}", truncated_to_second(next)),
            );
            let closed = TriggerState {
                message,
                ..TriggerState::default()
            };
            (closed, next)
        }
    };
    (state.with_since(before, now), next)
}

/// The state of an alert trigger, with the alerts that fire.
pub fn evaluate_alert(
    spec: &Alert,
    firing: &ActiveAlerts,
    before: &TriggerState,
    now: Timestamp,
) -> TriggerState {
    let active = firing.is_any_firing(now);
    let proposal = match (active, spec.replicas) {
        (false, _) => ReplicaProposal::Inactive,
        (true, None) => ReplicaProposal::ActiveOnly,
        (true, Some(replicas)) => ReplicaProposal::Replicas(replicas),
    };
    let alerts = firing.to_status(now);
    let message = match alerts.len() {
        0 => String::new(),
        1 => "1 alert fires".to_owned(),
        count => format!("{count} alerts fire"),
    };
    let state = TriggerState {
        active,
        proposal,
        alerts,
        message,
        ..TriggerState::default()
    };
    state.with_since(before, now)
}

/// A time for a message, without fractions of a second.
fn truncated_to_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
