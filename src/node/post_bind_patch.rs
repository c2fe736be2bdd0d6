//! The patch of a pod after the scheduler has bound it to a virtual node.
//!
//! In: the pod. Out: one patch, or `None` if the pod needs none. Pure; `pods::post_bind` sends it.
//!
//! - The deletion cost (decision D4): a `ReplicaSet` that is scaled down removes its pods on ACI first. A cost that
//!   the user set stays.
//! - Tolerations of a node that is not ready or unreachable (decision D15): for a virtual node this only means that
//!   the operator is down, while the pods run on. Kubernetes would delete the pods after 300 s; the patch raises
//!   this to a day. A toleration that lasts longer or has no limit stays, and so does every other one.
//!
//! The grant does not write them: until it is bound, a pod may still land on the cluster's own nodes, where both
//! would be wrong.
//!
//! The patch is a JSON Patch that tests the values it was computed from, and no `resourceVersion`: right after the
//! binding the status is written too, and most patches would fail with a conflict. Tested on Kubernetes 1.37.2:
//! tolerations may be added anywhere in the list of a bound pod, and of the existing ones only `tolerationSeconds`
//! may be changed; a test of a missing key against null passes.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use serde_json::{Value, json};

use super::daemon_set;
use super::pod_plan::{is_deleting, is_finished};
use crate::burst::facts::node_constraints::tolerates;

/// The annotation that holds the deletion cost.
const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// How long pods survive an outage of the operator, in seconds: a day.
const OUTAGE_TOLERATION_SECONDS: i64 = 24 * 60 * 60;
/// The taints that Kubernetes puts on a node whose agent stops reporting.
const OUTAGE_TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
/// The annotation of a mirror pod, which stands for a static pod of a kubelet.
const MIRROR_POD_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The patch that a bound pod needs.
pub fn patch(pod: &Pod, deletion_cost: i32) -> Option<json_patch::Patch> {
    let mut operations = deletion_cost_operations(pod, deletion_cost);
    operations.extend(toleration_operations(pod));
    patch_from(pod, operations)
}

/// The patch of a pod that was patched before and lost its tolerations. The deletion cost is not restored: a user
/// may remove it.
pub fn tolerations_patch(pod: &Pod) -> Option<json_patch::Patch> {
    patch_from(pod, toleration_operations(pod))
}

fn patch_from(pod: &Pod, mut operations: Vec<Value>) -> Option<json_patch::Patch> {
    let is_left_alone = is_deleting(pod) || is_finished(pod) || daemon_set::is_daemon_set_pod(pod);
    if is_left_alone || annotation(pod, MIRROR_POD_ANNOTATION).is_some() {
        return None;
    }
    if operations.is_empty() {
        return None;
    }
    // The patch must not change another pod of this name.
    let uid_test = json!({"op": "test", "path": "/metadata/uid", "value": pod.metadata.uid});
    operations.insert(0, uid_test);
    let patch = serde_json::from_value(Value::Array(operations));
    Some(patch.expect("the operations above are a JSON Patch"))
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(key)
}

fn deletion_cost_operations(pod: &Pod, cost: i32) -> Vec<Value> {
    if annotation(pod, DELETION_COST_ANNOTATION).is_some() {
        return Vec::new();
    }
    let cost = cost.to_string();
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.is_none_or(std::collections::BTreeMap::is_empty) {
        return add_if_absent(
            "/metadata/annotations",
            &json!({ DELETION_COST_ANNOTATION: cost }),
        );
    }
    let key = DELETION_COST_ANNOTATION.replace('/', "~1");
    add_if_absent(&format!("/metadata/annotations/{key}"), &json!(cost))
}

/// Adds a value; the test fails the patch if another client has added it meanwhile.
fn add_if_absent(path: &str, value: &Value) -> Vec<Value> {
    vec![
        json!({"op": "test", "path": path, "value": null}),
        json!({"op": "add", "path": path, "value": value}),
    ]
}

fn toleration_operations(pod: &Pod) -> Vec<Value> {
    let existing = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    let existing = existing.map(Vec::as_slice).unwrap_or_default();
    let (mut changed, mut added) = (Vec::new(), Vec::new());
    for taint in OUTAGE_TAINTS {
        // Kubernetes uses the first toleration that matches.
        let outage = Taint {
            key: taint.to_owned(),
            effect: "NoExecute".to_owned(),
            ..Taint::default()
        };
        let first = existing
            .iter()
            .position(|toleration| tolerates(toleration, &outage));
        let seconds = first.map(|index| existing[index].toleration_seconds);
        match (first, seconds) {
            (_, Some(None)) => {}
            (_, Some(Some(seconds))) if seconds >= OUTAGE_TOLERATION_SECONDS => {}
            (Some(index), _) if existing[index].key.as_deref() == Some(taint) => {
                changed.extend(extend_toleration(index, &existing[index]));
            }
            // None matches, or one without a key, which covers other taints too.
            _ => added.push(outage_toleration(taint)),
        }
    }
    if existing.is_empty() && !added.is_empty() {
        return add_if_absent("/spec/tolerations", &json!(added));
    }
    // At the front, so that they match first; and last in the patch, because they move the indices.
    let front =
        |toleration| json!({"op": "add", "path": "/spec/tolerations/0", "value": toleration});
    changed.extend(added.into_iter().map(front));
    changed
}

fn extend_toleration(index: usize, old: &Toleration) -> Vec<Value> {
    let path = |field: &str| format!("/spec/tolerations/{index}/{field}");
    let (key, seconds) = (path("key"), path("tolerationSeconds"));
    vec![
        json!({"op": "test", "path": key, "value": old.key}),
        json!({"op": "test", "path": seconds, "value": old.toleration_seconds}),
        json!({"op": "replace", "path": seconds, "value": OUTAGE_TOLERATION_SECONDS}),
    ]
}

fn outage_toleration(taint: &str) -> Toleration {
    Toleration {
        key: Some(taint.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(OUTAGE_TOLERATION_SECONDS),
        value: None,
    }
}

#[cfg(test)]
mod tests;
