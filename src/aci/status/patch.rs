//! Decides whether to write a pod's status, and builds the patch.
//!
//! In: a live and a wanted status. Out: whether a write would change anything, and the patch. It compares and sends
//! only the fields that the node owns. `qosClass`, `nominatedNodeName`, the statuses of resource claims, and other
//! writers' conditions are left alone.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use serde_json::{Map, Value, json};

use super::condition;
use super::pre_stop::PRE_STOP;

/// The status fields that the node owns. Of `conditions`, it owns some elements.
const OWNED_FIELDS: [&str; 13] = [
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
/// The lists of [`OWNED_FIELDS`] that a strategic merge patch merges, each with its merge key. The patch replaces all
/// other lists.
const MERGED_LISTS: [(&str, &str); 3] =
    [("conditions", "type"), ("hostIPs", "ip"), ("podIPs", "ip")];
/// Fields that an API server drops if their feature gates are off (in-place resize before 1.33,
/// `observedGeneration` before 1.34). The patch contains them, but a live status without them counts as equal;
/// otherwise the same write would repeat forever.
const FEATURE_GATED_FIELDS: [&str; 3] = ["observedGeneration", "allocatedResources", "resources"];

/// Whether two statuses are equal in the fields that the node owns. The order of conditions and containers,
/// transition times, fractions of seconds, and different ways to write an empty value do not count.
pub fn is_same_status(live: &PodStatus, wanted: &PodStatus) -> bool {
    let (live, mut wanted) = (
        canonical(owned_fields(live)),
        canonical(owned_fields(wanted)),
    );
    drop_unsupported_fields(&live, &mut wanted);
    live == wanted
}

/// Whether `wanted` should be written without delay: phase, readiness or pod IP differ, and controllers act on
/// them; or another leader must know how far the `preStop` hooks are. Other differences matter to human readers only.
pub fn is_urgent(live: &PodStatus, wanted: &PodStatus) -> bool {
    fn find<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == kind)
    }
    let ready = |status| find(status, "Ready").is_some_and(|condition| condition.status == "True");
    let hooks = |status| find(status, PRE_STOP).map(|condition| &condition.message);
    live.phase.as_deref().unwrap_or("Pending") != wanted.phase.as_deref().unwrap_or("Pending")
        || ready(live) != ready(wanted)
        || hooks(live) != hooks(wanted)
        || live.pod_ip.as_deref().unwrap_or_default()
            != wanted.pod_ip.as_deref().unwrap_or_default()
}

/// The strategic merge patch of the pod's `status`, like the kubelet's. The UID in it is a precondition, so that a
/// new pod of the same name is never written to. It is not a server-side apply, because that takes the API server
/// half as long again (5.3 to 6.6 ms instead of 3.6 to 4.8 ms on Kubernetes 1.37.2) and does not remove fields that
/// another writer has set.
pub fn status_patch(pod: &Pod, status: &PodStatus) -> Value {
    let metadata = &pod.metadata;
    let live = pod.status.as_ref().map(owned_fields).unwrap_or_default();
    let mut owned = owned_fields(status);
    for (list, key) in MERGED_LISTS {
        let (Some(live), Some(owned)) = (live.get(list), owned.get_mut(list)) else {
            continue;
        };
        if let (Some(live), Some(owned)) = (live.as_array(), owned.as_array_mut()) {
            mark_removed_elements(live, owned, key);
        }
    }
    mark_removed_fields(&live, &mut owned);
    json!({
        "metadata": {"uid": metadata.uid},
        "status": owned,
    })
}

/// Adds to a merged list what the patch must delete: whole elements, and fields of elements.
fn mark_removed_elements(live: &[Value], owned: &mut Vec<Value>, key: &str) {
    for old in live {
        match owned.iter_mut().find(|element| element[key] == old[key]) {
            Some(new) => {
                if let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) {
                    mark_removed_fields(old, new);
                }
            }
            None => owned.push(json!({"$patch": "delete", key: old[key]})),
        }
    }
}

/// Adds `null` for every field that the patch must delete.
fn mark_removed_fields(live: &Map<String, Value>, owned: &mut Map<String, Value>) {
    for field in live.keys().filter(|field| !live[*field].is_null()) {
        owned.entry(field).or_insert(Value::Null);
    }
}

/// The fields of a status that the node owns.
fn owned_fields(status: &PodStatus) -> Map<String, Value> {
    let is_own = |condition: &&PodCondition| condition::is_own_condition(condition);
    let conditions: Vec<_> = status.conditions.iter().flatten().filter(is_own).collect();
    let mut fields = serde_json::to_value(status).unwrap_or_default();
    fields["conditions"] = serde_json::to_value(conditions).unwrap_or_default();
    let fields = fields
        .as_object_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    fields
        .into_iter()
        .filter(|(field, _)| OWNED_FIELDS.contains(&field.as_str()))
        .collect()
}

/// Normalizes a status: removes transition times, and sorts lists whose order does not matter.
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

/// Removes nulls and empty values, and truncates times to seconds in one format.
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

/// Removes from `wanted` the fields of [`FEATURE_GATED_FIELDS`] that `live` does not have.
fn drop_unsupported_fields(live: &Value, wanted: &mut Value) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            let dropped =
                |field: &str| FEATURE_GATED_FIELDS.contains(&field) && !live.contains_key(field);
            wanted.retain(|field, _| !dropped(field));
            for (field, wanted) in wanted {
                if let Some(live) = live.get(field) {
                    drop_unsupported_fields(live, wanted);
                }
            }
        }
        (Value::Array(live), Value::Array(wanted)) => {
            let pairs = live.iter().zip(wanted);
            pairs.for_each(|(live, wanted)| drop_unsupported_fields(live, wanted));
        }
        _ => {}
    }
}
