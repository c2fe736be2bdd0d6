//! The types of a pool's conditions, and how they are set. Pure.
//!
//! In: the present conditions, and a new one. Out: the conditions for the status. As Kubernetes' API conventions
//! require, the transition time changes only with the status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::BurstPool;

/// The node of every placement is registered, and everything that the spec requests is in place.
pub const READY: &str = "Ready";
/// Every placement takes pods.
pub const NODES_READY: &str = "NodesReady";

/// Pods are on ACI or on their way there, or were a short time ago: a peak, not an error.
pub const SPILLING: &str = "Spilling";
/// Pods wait because a limit of the pool or of Azure is reached.
pub const CAPACITY_LIMITED: &str = "CapacityLimited";

/// The value of every trigger is known.
pub const TRIGGERS_HEALTHY: &str = "TriggersHealthy";
/// Another autoscaler or pool sets the replicas of a target that the pool would scale. The operator writes nothing.
pub const CONFLICT: &str = "Conflict";
/// A user must edit the spec, or another object that the message names. Absent otherwise, as kstatus requires.
pub const STALLED: &str = "Stalled";

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// The condition is true.
    True,
    /// The condition is false.
    False,
    /// The operator cannot determine whether it is true.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(is_true: bool) -> Self {
        if is_true { Self::True } else { Self::False }
    }
}

/// Builds a condition with the transition time `now`.
pub fn build(
    kind: &str,
    status: impl Into<ConditionStatus>,
    reason: &str,
    message: impl Into<String>,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: match status.into() {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        }
        .to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation,
        last_transition_time: Time(now),
    }
}

/// Replaces the condition of the same type, or adds `new`. If the status is the same, the transition time stays.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Whether the pool's status has a condition of the type `kind` that is True.
pub fn is_true(pool: &BurstPool, kind: &str) -> bool {
    let mut conditions = pool.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            build(READY, true, "Registered", "", Some(1), at(1)),
        );
        set(
            &mut conditions,
            build(READY, true, "Registered", "again", Some(2), at(2)),
        );
        assert_eq!(
            (
                conditions[0].last_transition_time.0,
                conditions[0].message.as_str()
            ),
            (at(1), "again")
        );
        set(
            &mut conditions,
            build(READY, false, "Closed", "", Some(2), at(3)),
        );
        assert_eq!(
            (conditions.len(), conditions[0].last_transition_time.0),
            (1, at(3))
        );
        set(
            &mut conditions,
            build(READY, ConditionStatus::Unknown, "Lost", "", Some(2), at(4)),
        );
        assert_eq!(
            (
                conditions[0].status.as_str(),
                conditions[0].last_transition_time.0
            ),
            ("Unknown", at(4))
        );
    }
}
