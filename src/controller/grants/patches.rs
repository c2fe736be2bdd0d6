//! The patches that the grant loop sends, as JSON Patches (decision D1). Pure.
//!
//! In: a pod, in the version that the plan was made from. Out: the patch that grants it, records since when it
//! is refused, invalidates a grant in flight, or marks its grant as expired. All patches name that resource
//! version: if the pod has changed, the API server answers 409, and the pod is planned again.

use jiff::Timestamp;
use json_patch::Patch as Operations;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::Patch;
use serde_json::{Map, Value, json};

use crate::api::LossSet;
use crate::api::names::{
    GRANT_EXPIRED_ANNOTATION, GRANTED_AT_ANNOTATION, GRANTED_UID_ANNOTATION, NOT_KEPT_ANNOTATION,
    POOL_LABEL, PROVIDER_TAINT, REFUSED_SINCE_ANNOTATION, RELEASED_AT_ANNOTATION,
    WORKLOAD_ANNOTATION,
};

/// A grant, as its patch records it.
#[derive(Clone, Copy, Debug)]
pub struct GrantContent<'a> {
    /// The pool that grants the pod.
    pub pool: &'a str,
    /// The workload that the pod is granted for.
    pub workload: &'a str,
    /// What the pod loses on ACI; the pool accepts that.
    pub not_kept: &'a LossSet,
    /// The time of the grant.
    pub now: Timestamp,
}

/// Grants the pod: adds the toleration of the pool's virtual nodes, and records the pool, the workload, the time, and
/// what the pod loses. Replaces or removes such a record that the pod was created with.
pub fn grant_patch(pod: &Pod, version: &str, grant: GrantContent<'_>) -> Patch<()> {
    let GrantContent {
        pool,
        workload,
        not_kept,
        now,
    } = grant;
    let toleration = json!({
        "key": PROVIDER_TAINT, "operator": "Equal", "value": pool, "effect": "NoSchedule",
    });
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let tolerate = match tolerations {
        None | Some([]) => {
            json!({"op": "add", "path": "/spec/tolerations", "value": [toleration]})
        }
        Some(_) => json!({"op": "add", "path": "/spec/tolerations/-", "value": toleration}),
    };
    let has_labels = pod.metadata.labels.is_some();
    let has_annotations = pod.metadata.annotations.is_some();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut operations = vec![version_guard(version), tolerate];
    operations.extend(add_entries(has_labels, "labels", &[(POOL_LABEL, pool)]));
    let (granted_at, not_kept) = (now.to_string(), not_kept.to_string());
    let mut annotations = vec![
        (WORKLOAD_ANNOTATION, workload),
        (GRANTED_AT_ANNOTATION, &*granted_at),
        (GRANTED_UID_ANNOTATION, uid),
    ];
    if !not_kept.is_empty() {
        annotations.push((NOT_KEPT_ANNOTATION, &*not_kept));
    } else if pod.annotations().contains_key(NOT_KEPT_ANNOTATION) {
        let path = entry_path("annotations", NOT_KEPT_ANNOTATION);
        operations.push(json!({"op": "remove", "path": path}));
    }
    operations.extend(add_entries(has_annotations, "annotations", &annotations));
    to_patch(&operations)
}

/// Records on the pod since when it is refused.
pub fn refused_since_patch(pod: &Pod, version: &str, since: Timestamp) -> Patch<()> {
    annotation_patch(pod, version, REFUSED_SINCE_ANNOTATION, since)
}

/// Changes the pod's resource version, so that a grant still in flight for the old version fails with 409.
pub fn release_patch(pod: &Pod, version: &str, now: Timestamp) -> Patch<()> {
    annotation_patch(pod, version, RELEASED_AT_ANNOTATION, now)
}

/// Records on the pod that its grant expired at `now`.
pub fn expire_patch(pod: &Pod, version: &str, now: Timestamp) -> Patch<()> {
    annotation_patch(pod, version, GRANT_EXPIRED_ANNOTATION, now)
}

fn annotation_patch(pod: &Pod, version: &str, annotation: &str, time: Timestamp) -> Patch<()> {
    let has_annotations = pod.metadata.annotations.is_some();
    let entries = [(annotation, &*time.to_string())];
    let mut operations = vec![version_guard(version)];
    operations.extend(add_entries(has_annotations, "annotations", &entries));
    to_patch(&operations)
}

fn version_guard(version: &str) -> Value {
    json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version})
}

/// Adds entries to a map of the metadata; creates the map if it does not exist.
fn add_entries(exists: bool, map: &str, entries: &[(&str, &str)]) -> Vec<Value> {
    if !exists {
        let values: Map<String, Value> = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        return vec![json!({"op": "add", "path": format!("/metadata/{map}"), "value": values})];
    }
    let operation = |(key, value): &(&str, &str)| json!({"op": "add", "path": entry_path(map, key), "value": value});
    entries.iter().map(operation).collect()
}

/// The path of an entry of a map of the metadata, as a JSON Pointer.
fn entry_path(map: &str, key: &str) -> String {
    let key = key.replace('~', "~0").replace('/', "~1");
    format!("/metadata/{map}/{key}")
}

fn to_patch(operations: &[Value]) -> Patch<()> {
    let operations = Value::Array(operations.to_vec());
    Patch::Json(serde_json::from_value::<Operations>(operations).expect("these are a JSON Patch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NO_LOSSES;

    fn content(not_kept: &LossSet) -> GrantContent<'_> {
        GrantContent {
            pool: "shop",
            workload: "web",
            not_kept,
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
        }
    }

    fn pod(pod: Value) -> Pod {
        serde_json::from_value(pod).expect("a pod")
    }

    /// The pod after the patch.
    fn after(before: &Value, patch: &Patch<()>) -> Value {
        let Patch::Json(operations) = patch else {
            unreachable!("they are JSON Patches")
        };
        let mut after = before.clone();
        json_patch::patch(&mut after, operations).expect("it applies");
        after
    }

    #[test]
    fn a_grant_adds_one_toleration_the_label_and_three_annotations_and_changes_nothing_else() {
        let bare =
            json!({"metadata": {"resourceVersion": "7", "uid": "u"}, "spec": {"containers": []}});
        let full = json!({
            "metadata": {"resourceVersion": "7", "uid": "u", "labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {"containers": [], "tolerations": [{"key": "mine", "operator": "Exists"}]},
        });
        for before in [bare, full] {
            let granted = grant_patch(&pod(before.clone()), "7", content(&NO_LOSSES));
            let after = after(&before, &granted);
            let tolerations = after["spec"]["tolerations"].as_array().expect("a list");
            let toleration = json!({"key": PROVIDER_TAINT, "operator": "Equal", "value": "shop", "effect": "NoSchedule"});
            assert_eq!(tolerations.last(), Some(&toleration));
            assert_eq!(after["metadata"]["labels"][POOL_LABEL], "shop");
            let annotations = &after["metadata"]["annotations"];
            assert_eq!(annotations[WORKLOAD_ANNOTATION], "web");
            assert_eq!(annotations[GRANTED_UID_ANNOTATION], "u");
            assert_eq!(annotations[GRANTED_AT_ANNOTATION], "2026-01-01T00:00:00Z");
            assert_eq!(annotations[NOT_KEPT_ANNOTATION], Value::Null);
            let previous = before["spec"]["tolerations"].as_array().map_or(0, Vec::len);
            assert_eq!(tolerations.len(), previous + 1);
            assert_eq!(
                before["metadata"]["labels"]["app"],
                after["metadata"]["labels"]["app"]
            );
        }
    }

    #[test]
    fn a_grant_records_what_the_pod_loses_whatever_the_pod_was_created_with() {
        let losses = LossSet::from_annotation("readOnlyRootFilesystem,fsGroup");
        let metadata = json!({"resourceVersion": "7", "uid": "u"});
        let bare = json!({"metadata": metadata, "spec": {"containers": []}});
        let mut forged = bare.clone();
        forged["metadata"]["annotations"] = json!({NOT_KEPT_ANNOTATION: "seccomp", "a": "b"});
        for before in [bare, forged] {
            for (losses, expected) in [
                (&losses, json!("fsGroup,readOnlyRootFilesystem")),
                (&NO_LOSSES, Value::Null),
            ] {
                let granted = grant_patch(&pod(before.clone()), "7", content(losses));
                let annotations = &after(&before, &granted)["metadata"]["annotations"];
                assert_eq!(annotations[NOT_KEPT_ANNOTATION], expected);
                assert_eq!(annotations["a"], before["metadata"]["annotations"]["a"]);
            }
        }
    }

    #[test]
    fn refused_since_and_release_each_add_one_annotation() {
        let time: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let before = json!({"metadata": {"resourceVersion": "7"}, "spec": {"containers": []}});
        let bare = pod(before.clone());
        for (patch, annotation) in [
            (
                refused_since_patch(&bare, "7", time),
                REFUSED_SINCE_ANNOTATION,
            ),
            (release_patch(&bare, "7", time), RELEASED_AT_ANNOTATION),
        ] {
            assert_eq!(
                after(&before, &patch)["metadata"]["annotations"],
                json!({annotation: "2026-01-01T00:00:00Z"})
            );
        }
    }
}
