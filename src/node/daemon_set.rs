//! Pods of `DaemonSet`s on a virtual node (decision D16): burstpool does not run them.
//!
//! A `DaemonSet` that tolerates every taint has a pod on every node, also on a virtual node, which has no machine.
//! In: the pod and what is known of its container group. Out: the action and the pod's status. Pure;
//! [`pods`](super::pods) calls this module before [`pod_plan`](super::pod_plan).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::pod_plan::{GroupPresence, PodAction, PodState, ScheduledAction, is_deleting};
use crate::aci::status::GroupObservation;

/// The reason in such a pod's status and Event.
pub const REASON: &str = "DaemonSetNotRun";
/// The message, with the remedy.
pub const MESSAGE: &str = "pods of DaemonSets are not run on Azure Container Instances; to keep them off \
    virtual nodes, give the DaemonSet a required node affinity with the expression \
    {key: type, operator: NotIn, values: [virtual-kubelet]}";

/// What such a pod's status shows, whatever the state of its group.
pub const GROUP_OBSERVATION: GroupObservation<'static> = GroupObservation::Waiting {
    reason: REASON,
    message: MESSAGE,
};

/// Whether a `DaemonSet` controls the pod.
pub fn is_daemon_set_pod(pod: &Pod) -> bool {
    owning_daemon_set(pod).is_some()
}

fn owning_daemon_set(pod: &Pod) -> Option<&OwnerReference> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|owner| {
        owner.controller == Some(true)
            && owner.kind == "DaemonSet"
            && owner.api_version.starts_with("apps/")
    })
}

/// The `DaemonSet` that controls the pod, as namespace/name.
pub fn daemon_set_name(pod: &Pod) -> Option<String> {
    let owner = owning_daemon_set(pod)?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{namespace}/{}", owner.name))
}

/// The action for such a pod; `None` if no `DaemonSet` controls it, or if [`pod_plan`](super::pod_plan) decides as
/// for any pod.
pub fn next_action(pod: Option<&Pod>, state: &PodState, now: Timestamp) -> Option<ScheduledAction> {
    let pod = pod.filter(|pod| is_daemon_set_pod(pod))?;
    let action = match state.group {
        GroupPresence::Exists { .. } if state.absence.next_check_at().is_none() => {
            PodAction::Delete
        }
        GroupPresence::Exists { .. } | GroupPresence::Deleting { .. } => return None,
        // Remove the pod at once, whatever Azure answers: if there is a group after all, garbage collection finds
        // it without a pod and deletes it.
        GroupPresence::Unknown | GroupPresence::Absent { .. } if is_deleting(pod) => {
            PodAction::Remove
        }
        GroupPresence::Unknown | GroupPresence::Absent { .. } => PodAction::Wait,
    };
    let pause = state.retry_times.get(action);
    let at = pause.map_or(now, |until| now.max(until));
    Some(ScheduledAction { action, at })
}

/// The pool's message about the `DaemonSet`s that have pods on one of its nodes; empty if there are none.
pub fn status_message(daemon_sets: &[String]) -> String {
    if daemon_sets.is_empty() {
        return String::new();
    }
    format!(
        "{MESSAGE} (their rollout cannot complete before): {}",
        daemon_sets.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(owner: &Value, changes: &Value) -> Pod {
        let mut pod = json!({"metadata": {"namespace": "kube-system", "ownerReferences": [owner]}});
        json_patch::merge(&mut pod, changes);
        serde_json::from_value(pod).expect("a pod")
    }

    fn owner(version: &str, kind: &str, controller: bool) -> Value {
        json!({"apiVersion": version, "kind": kind, "name": "agent", "uid": "1", "controller": controller})
    }

    fn daemon(changes: &Value) -> Pod {
        pod(&owner("apps/v1", "DaemonSet", true), changes)
    }

    fn decided(pod: &Pod, group: GroupPresence) -> Option<PodAction> {
        let state = PodState {
            group,
            ..PodState::default()
        };
        next_action(Some(pod), &state, Timestamp::UNIX_EPOCH).map(|decision| decision.action)
    }

    const EXISTING: GroupPresence = GroupPresence::Exists {
        since: Timestamp::UNIX_EPOCH,
        last_read: None,
        has_run: true,
    };
    const DELETING: GroupPresence = GroupPresence::Deleting {
        since: Timestamp::UNIX_EPOCH,
        last_read: None,
    };
    const ABSENT: GroupPresence = GroupPresence::Absent { existed: true };

    #[test]
    fn only_a_controlling_daemon_set_of_apps_counts() {
        assert_eq!(
            daemon_set_name(&daemon(&json!({}))).as_deref(),
            Some("kube-system/agent")
        );
        for other in [
            owner("apps/v1", "ReplicaSet", true),
            owner("apps/v1", "DaemonSet", false),
            owner("apps.kruise.io/v1alpha1", "DaemonSet", true),
        ] {
            let pod = pod(&other, &json!({}));
            assert_eq!(decided(&pod, GroupPresence::Unknown), None, "{other}");
            assert!(!is_daemon_set_pod(&pod));
        }
    }

    #[test]
    fn a_daemon_set_pod_gets_no_group_and_an_existing_one_is_deleted() {
        let pod = daemon(&json!({}));
        for (group, action) in [
            (GroupPresence::Unknown, Some(PodAction::Wait)),
            (ABSENT, Some(PodAction::Wait)),
            (EXISTING, Some(PodAction::Delete)),
            (DELETING, None),
        ] {
            assert_eq!(decided(&pod, group.clone()), action, "{group:?}");
        }
    }

    #[test]
    fn a_deleted_daemon_set_pod_is_removed_without_an_answer_of_azure() {
        let leaving = daemon(&json!({"metadata": {"deletionTimestamp": "2026-07-01T00:00:00Z"}}));
        assert_eq!(
            decided(&leaving, GroupPresence::Unknown),
            Some(PodAction::Remove)
        );
        assert_eq!(decided(&leaving, ABSENT), Some(PodAction::Remove));
        assert_eq!(decided(&leaving, EXISTING), Some(PodAction::Delete));
        assert_eq!(
            next_action(None, &PodState::default(), Timestamp::UNIX_EPOCH),
            None
        );
    }

    #[test]
    fn a_failed_action_is_not_retried_before_its_back_off_ends() {
        let mut state = PodState {
            group: EXISTING,
            ..PodState::default()
        };
        state
            .retry_times
            .set(PodAction::Delete, Some(Timestamp::MAX));
        let decision = next_action(Some(&daemon(&json!({}))), &state, Timestamp::UNIX_EPOCH);
        assert_eq!(decision.map(|decision| decision.at), Some(Timestamp::MAX));
    }
}
