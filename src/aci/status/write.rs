//! What of a status is written, and when.
//!
//! In: a live and a wanted status. Out: whether writing would say anything new, and the patch.
//! Only what this node owns is compared and sent: `qosClass`, `nominatedNodeName`, the claims'
//! statuses and other writers' conditions are theirs.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use serde_json::{Map, Value, json};

use super::condition;

/// The fields of a status that belong to the node; of `conditions`, some do.
const OURS: [&str; 13] = [
    "phase",
    "reason",
    "message",
    "startTime",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "observedGeneration",
    "conditions",
];
/// Fields that an API server drops whose feature gates are off (in-place resize before 1.33,
/// observedGeneration before 1.34). They are sent along, but their absence is no reason to write:
/// that would never end.
const DROPPABLE: [&str; 3] = ["observedGeneration", "allocatedResources", "resources"];

/// Whether two statuses say the same, as far as it is the node's to say: the order of conditions and
/// containers, transition times, fractions of seconds and the ways to write nothing do not matter.
pub fn same(live: &PodStatus, wanted: &PodStatus) -> bool {
    let (live, mut wanted) = (canonical(owned(live)), canonical(owned(wanted)));
    drop_what_the_server_dropped(&live, &mut wanted);
    live == wanted
}

/// Whether somebody waits for `wanted`: the phase, readiness or an address is another one. What else
/// differs is for people to read.
pub fn is_urgent(live: &PodStatus, wanted: &PodStatus) -> bool {
    let ready = |status: &PodStatus| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    live.phase.as_deref().unwrap_or("Pending") != wanted.phase.as_deref().unwrap_or("Pending")
        || ready(live) != ready(wanted)
        || live.pod_ip.as_deref().unwrap_or_default()
            != wanted.pod_ip.as_deref().unwrap_or_default()
}

/// The patch for a server-side apply to the pod's `status`. The UID is a precondition: another pod of
/// the same name is never written to.
pub fn apply_patch(pod: &Pod, status: &PodStatus) -> Value {
    let metadata = &pod.metadata;
    let mut ours = owned(status);
    let live = pod.status.as_ref();
    let was = [
        ("reason", live.and_then(|live| live.reason.as_deref())),
        ("message", live.and_then(|live| live.message.as_deref())),
    ];
    for (field, was) in was {
        // Leaving a field out removes it only if nobody else has ever set it; empty always does
        // (tried on Kubernetes 1.37.2).
        if was.is_some_and(|was| !was.is_empty()) && ours.get(field).is_none() {
            ours.insert(field.to_owned(), "".into());
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "status": ours,
    })
}

/// The part of a status that is the node's.
fn owned(status: &PodStatus) -> Map<String, Value> {
    let is_ours = |condition: &&PodCondition| condition::is_ours(condition);
    let conditions: Vec<_> = status.conditions.iter().flatten().filter(is_ours).collect();
    let mut all = serde_json::to_value(status).unwrap_or_default();
    all["conditions"] = serde_json::to_value(conditions).unwrap_or_default();
    let all = all.as_object_mut().map(std::mem::take).unwrap_or_default();
    all.into_iter()
        .filter(|(field, _)| OURS.contains(&field.as_str()))
        .collect()
}

/// A status without what does not matter.
fn canonical(owned: Map<String, Value>) -> Value {
    let mut value = Value::Object(owned);
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastTransitionTime");
            condition.remove("lastProbeTime");
        }
    }
    for (list, key) in [
        ("conditions", "type"),
        ("initContainerStatuses", "name"),
        ("containerStatuses", "name"),
        ("ephemeralContainerStatuses", "name"),
    ] {
        let key = |element: &Value| element[key].as_str().unwrap_or_default().to_owned();
        if let Some(list) = value.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(key);
        }
    }
    prune(&mut value);
    value
}

/// Takes away nulls and everything empty, and writes times one way.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !is_empty(value));
        }
        Value::Array(elements) => elements.iter_mut().for_each(prune),
        Value::String(text) if text.ends_with('Z') => {
            if let Ok(time) = text.parse::<Timestamp>() {
                *text = time.as_second().to_string();
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Forgets in `wanted` the fields of [`DROPPABLE`] that `live` has not.
fn drop_what_the_server_dropped(live: &Value, wanted: &mut Value) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            let dropped = |field: &str| DROPPABLE.contains(&field) && !live.contains_key(field);
            wanted.retain(|field, _| !dropped(field));
            for (field, wanted) in wanted {
                if let Some(live) = live.get(field) {
                    drop_what_the_server_dropped(live, wanted);
                }
            }
        }
        (Value::Array(live), Value::Array(wanted)) => {
            let pairs = live.iter().zip(wanted);
            pairs.for_each(|(live, wanted)| drop_what_the_server_dropped(live, wanted));
        }
        _ => {}
    }
}
