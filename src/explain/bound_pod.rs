//! What a pod on a virtual node is doing, in a few words.
//!
//! In: the pod. Out: that it runs, or that it is starting and what it waits for. Pure.

use k8s_openapi::api::core::v1::Pod;

use crate::k8s::containers::container_statuses;

/// What a pod on a virtual node is doing.
pub fn describe_state(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    if status.and_then(|status| status.phase.as_deref()) == Some("Running") {
        return "runs".to_owned();
    }
    let containers = status.into_iter().flat_map(container_statuses);
    let mut waiting_containers = containers.filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let parts = [&waiting.reason, &waiting.message];
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        (!parts.is_empty()).then(|| format!(" ({} waits: {})", container.name, parts.join(": ")))
    });
    format!(
        "is starting{}",
        waiting_containers.next().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_bound_pod_is_starting_with_the_reason_until_it_runs() {
        let described = |status: Value| {
            let pod = serde_json::from_value(json!({"metadata": {}, "status": status}));
            describe_state(&pod.expect("a pod"))
        };
        let waiting = |waiting: Value| {
            json!([{"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": waiting}}])
        };
        assert_eq!(described(json!({"phase": "Running"})), "runs");
        assert_eq!(described(json!({"phase": "Pending"})), "is starting");
        let creating = waiting(json!({"reason": "ContainerCreating"}));
        assert_eq!(
            described(json!({"phase": "Pending", "containerStatuses": creating})),
            "is starting (web waits: ContainerCreating)"
        );
        let refused = waiting(json!({"reason": "CreateContainerError", "message": "no quota"}));
        assert_eq!(
            described(
                json!({"phase": "Pending", "initContainerStatuses": refused, "containerStatuses": creating})
            ),
            "is starting (web waits: CreateContainerError: no quota)"
        );
    }
}
