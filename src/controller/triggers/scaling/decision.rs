//! The decision for a target, and its message.
//!
//! In: the proposals of the triggers, and the target's scale. Out: the replicas to set, from [`scale`].

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;

use crate::api::WorkloadScale;
use crate::scale::{self, DesiredReplicas, ReplicaStep, ScalingHistory, TriggerRequest};
use crate::trigger::ReplicaProposal;

/// The decision for a target.
pub(super) struct ScalingDecision {
    /// The current `spec.replicas`.
    pub(super) current: i32,
    /// What the triggers ask for.
    pub(super) desired: DesiredReplicas,
    /// The replicas to be set now.
    pub(super) step: ReplicaStep,
}

/// Decides from the target's `spec.replicas`, not from `status.replicas`, which is higher while a rollout
/// surges and lower while pods are missing. A scale without replicas counts as 0: the API server omits a 0, and
/// returns an error if the target itself has no replicas field.
pub(super) fn decide(
    spec: &WorkloadScale,
    proposals: &[(String, ReplicaProposal)],
    scale: &Scale,
    history: &mut ScalingHistory,
    now: Timestamp,
) -> ScalingDecision {
    let current = scale.spec.as_ref().and_then(|spec| spec.replicas);
    let current = current.unwrap_or(0);
    let requests = proposals.iter().map(|(trigger, proposal)| TriggerRequest {
        trigger,
        proposal: *proposal,
    });
    let requests: Vec<TriggerRequest<'_>> = requests.collect();
    let desired = scale::desired_replicas(spec, &requests, current);
    let step = scale::step(spec, history, current, desired.replicas, now);
    ScalingDecision {
        current,
        desired,
        step,
    }
}

/// The status message about a decision.
pub(super) fn decision_message(desired: &DesiredReplicas, step: &ReplicaStep) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(trigger) = &desired.held_by {
        parts.push(format!(
            "the value of trigger {trigger} is not known: no replicas are removed"
        ));
    }
    if let Some(trigger) = &desired.without_replicas {
        parts.push(format!(
            "trigger {trigger} is active but does not say how many replicas it needs: set its threshold or replicas"
        ));
    }
    parts.extend(step.limited_by.map(str::to_owned));
    parts.join("; ")
}

#[cfg(test)]
mod tests;
