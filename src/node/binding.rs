//! What is written on a pod once it is bound to a virtual node.
//!
//! In: the pod. Out: one patch, or nothing when the pod is right already. Pure; `pods::settle` sends it.
//!
//! - The deletion cost (decision D4): a `ReplicaSet` that shrinks takes its pods on ACI first. A cost that
//!   the user gave stays.
//! - Tolerations of a node that is not ready or not reachable (decision D15): such a node only means that the
//!   operator is down, while its pods run on. Kubernetes would delete them after 300 s; so they last a
//!   day. A toleration for longer, or for ever, stays; so does every other one.
//!
//! Not at grant time: until it is bound, a pod may still land at home, where both would be wrong.
//!
//! A JSON Patch with tests of what it was made from, and no `resourceVersion`: right after binding the
//! status is being written too, and would make it a conflict most of the time. Tried on Kubernetes
//! 1.37.2: tolerations of a bound pod may be added anywhere in the list, and of the existing ones only
//! `tolerationSeconds` may be changed; a test of a missing key against null passes.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use serde_json::{Value, json};

use super::daemon;
use super::plan::{is_deleting, is_finished};
use crate::burst::fit::tolerates;

/// The annotation that holds the deletion cost.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// How long pods outlive an operator that is down, in seconds: a day.
const OUTLIVE: i64 = 24 * 60 * 60;
/// The taints of a node whose agent is not heard of.
const OUTAGE: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
/// The annotation of a pod that stands for one that a kubelet read from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The patch that a bound pod needs.
pub fn patch(pod: &Pod, deletion_cost: i32) -> Option<json_patch::Patch> {
    let mut operations = cost(pod, deletion_cost);
    operations.extend(tolerations(pod));
    of(pod, operations)
}

/// The patch of a pod that has had its own, and has lost the tolerations since: the deletion cost is the
/// user's to take away.
pub fn restore(pod: &Pod) -> Option<json_patch::Patch> {
    of(pod, tolerations(pod))
}

fn of(pod: &Pod, mut operations: Vec<Value>) -> Option<json_patch::Patch> {
    let is_left_alone = is_deleting(pod) || is_finished(pod) || daemon::is_daemon(pod);
    if is_left_alone || annotation(pod, MIRROR).is_some() {
        return None;
    }
    if operations.is_empty() {
        return None;
    }
    // Another pod of this name is never written to.
    let same = json!({"op": "test", "path": "/metadata/uid", "value": pod.metadata.uid});
    operations.insert(0, same);
    let patch = serde_json::from_value(Value::Array(operations));
    Some(patch.expect("the operations above are a JSON Patch"))
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(key)
}

fn cost(pod: &Pod, cost: i32) -> Vec<Value> {
    if annotation(pod, COST).is_some() {
        return Vec::new();
    }
    let cost = cost.to_string();
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.is_none_or(std::collections::BTreeMap::is_empty) {
        return absent("/metadata/annotations", &json!({ COST: cost }));
    }
    let key = COST.replace('/', "~1");
    absent(&format!("/metadata/annotations/{key}"), &json!(cost))
}

/// Adds what is not there, and nothing if it has come meanwhile.
fn absent(path: &str, value: &Value) -> Vec<Value> {
    vec![
        json!({"op": "test", "path": path, "value": null}),
        json!({"op": "add", "path": path, "value": value}),
    ]
}

fn tolerations(pod: &Pod) -> Vec<Value> {
    let has = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    let has = has.map(Vec::as_slice).unwrap_or_default();
    let (mut changed, mut added) = (Vec::new(), Vec::new());
    for taint in OUTAGE {
        // Kubernetes goes by the first that matches.
        let outage = Taint {
            key: taint.to_owned(),
            effect: "NoExecute".to_owned(),
            ..Taint::default()
        };
        let first = has.iter().position(|one| tolerates(one, &outage));
        let seconds = first.map(|index| has[index].toleration_seconds);
        match (first, seconds) {
            (_, Some(None)) => {}
            (_, Some(Some(seconds))) if seconds >= OUTLIVE => {}
            (Some(index), _) if has[index].key.as_deref() == Some(taint) => {
                changed.extend(raise(index, &has[index]));
            }
            // None matches, or one of all keys, which is about other taints too.
            _ => added.push(toleration(taint)),
        }
    }
    if has.is_empty() && !added.is_empty() {
        return absent("/spec/tolerations", &json!(added));
    }
    // In front, so that they are the first that match; and last, since indices move.
    let front = |one| json!({"op": "add", "path": "/spec/tolerations/0", "value": one});
    changed.extend(added.into_iter().map(front));
    changed
}

fn raise(index: usize, old: &Toleration) -> Vec<Value> {
    let path = |field: &str| format!("/spec/tolerations/{index}/{field}");
    let (key, seconds) = (path("key"), path("tolerationSeconds"));
    vec![
        json!({"op": "test", "path": key, "value": old.key}),
        json!({"op": "test", "path": seconds, "value": old.toleration_seconds}),
        json!({"op": "replace", "path": seconds, "value": OUTLIVE}),
    ]
}

fn toleration(taint: &str) -> Toleration {
    Toleration {
        key: Some(taint.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(OUTLIVE),
        value: None,
    }
}

#[cfg(test)]
mod tests;
