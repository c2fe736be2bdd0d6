//! Where a pod is in its life, by its object: deleted, finished, run, ready.
//!
//! In: a pod as the API server has it. Out: answers to single questions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::aci::status::{DEADLINE_EXCEEDED, active_deadline};

/// Whether the pod has a deletion timestamp.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod's phase is Succeeded or Failed.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Whether the pod's phase is Failed.
pub(super) fn has_failed(pod: &Pod) -> bool {
    phase(pod) == Some("Failed")
}

/// Whether the pod's status says that it exceeded its `activeDeadlineSeconds`.
pub fn has_exceeded_deadline(pod: &Pod) -> bool {
    let reason = pod
        .status
        .as_ref()
        .and_then(|status| status.reason.as_deref());
    has_failed(pod) && reason == Some(DEADLINE_EXCEEDED)
}

/// Whether the pod is not finished although its `activeDeadlineSeconds` are over.
pub fn is_past_deadline(pod: &Pod, now: Timestamp) -> bool {
    !is_finished(pod) && active_deadline(pod).is_some_and(|deadline| deadline <= now)
}

/// Whether the pod's status in Kubernetes says that it runs: such a pod is never started a second time.
pub fn has_run(pod: &Pod) -> bool {
    phase(pod) == Some("Running")
}

/// Whether an operator has written a status of the pod: it has a start time.
pub(super) fn has_start_time(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .is_some_and(|status| status.start_time.is_some())
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Ready")
}

/// Whether the pod's condition Ready is true.
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is not ready. A pod that has ended became unready at its end or before.
pub(super) fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = ready_condition(pod).filter(|condition| condition.status != "True")?;
    Some(condition.last_transition_time.as_ref()?.0)
}

/// Whether the pod's containers are restarted whenever they end.
pub(super) fn always_restarts(pod: &Pod) -> bool {
    matches!(restart_policy(pod), None | Some("Always"))
}

/// Whether the pod's containers run at most once.
pub fn never_restarts(pod: &Pod) -> bool {
    restart_policy(pod) == Some("Never")
}

fn restart_policy(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.restart_policy.as_deref()
}

/// When the last container ended.
pub(super) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends = statuses.iter().filter_map(|status| {
        status
            .state
            .as_ref()?
            .terminated
            .as_ref()?
            .finished_at
            .as_ref()
            .map(|time| time.0)
    });
    ends.max()
}
