//! The deadline of a pod: `spec.activeDeadlineSeconds`.
//!
//! In: a pod. Out: when it is over, by the start time that its status has. The start time is that of the first status,
//! so it survives a change of the leader, and includes the time that Azure takes to start the group. The source is
//! `pkg/kubelet/active_deadline.go` of Kubernetes 1.37.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

/// Reason of a pod that was active longer than its `activeDeadlineSeconds`, and of the Event about it: a kubelet's.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
/// Message of a pod with the reason [`DEADLINE_EXCEEDED`]: a kubelet's.
pub const DEADLINE_EXCEEDED_MESSAGE: &str =
    "Pod was active on the node longer than the specified deadline";

/// When the pod may be active no longer; `None` if it has no deadline or no start time yet.
pub fn active_deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let started_at = pod.status.as_ref()?.start_time.as_ref()?.0;
    let allowed = Duration::from_secs(u64::try_from(seconds).ok()?);
    started_at.checked_add(allowed).ok()
}
