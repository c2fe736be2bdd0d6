//! A pod from a watch.
//!
//! In: the JSON that the API server sends. Out: [`WatchedPod`], the typed pod and the names of the fields that the
//! operator's types do not know (decision D18). The managed fields are dropped, because they are most of a pod's
//! size in memory, except for a leader's entry and the time of the scheduler's condition.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::aci::translate;
use crate::api::names::LEADER_FIELD_MANAGER;
use crate::burst::facts::pod::SCHEDULED_FIELD;

/// A pod from a watch.
#[derive(Clone, Debug, Default)]
pub struct WatchedPod {
    /// The pod.
    pub pod: Pod,
    /// Fields that the operator's types do not know.
    pub unknown_fields: Vec<String>,
    /// Why the pod could not be decoded, if so; `pod` then has only the metadata.
    pub decode_error: Option<String>,
}

impl<'de> Deserialize<'de> for WatchedPod {
    /// Never fails because of a pod's content: a pod that cannot be decoded must not end the watch of all pods.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut raw = Value::deserialize(deserializer)?;
        let has_no_node = raw["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
        if let Some(metadata) = raw["metadata"].as_object_mut() {
            drop_managed_fields(metadata, has_no_node);
        }
        let metadata = raw["metadata"].clone();
        let observed = match translate::decode(raw) {
            Ok((pod, unknown_fields)) => Self {
                pod,
                unknown_fields,
                decode_error: None,
            },
            Err(error) => Self {
                pod: Pod {
                    metadata: serde_json::from_value(metadata).unwrap_or_default(),
                    ..Pod::default()
                },
                unknown_fields: Vec::new(),
                decode_error: Some(error.to_string()),
            },
        };
        Ok(observed)
    }
}

/// Drops the managed fields except for two: a leader's entry, because nothing else marks a grant by an early
/// version; and, while the pod has no node, the entry that holds the time of the scheduler's condition.
fn drop_managed_fields(metadata: &mut Map<String, Value>, has_no_node: bool) {
    let Some(Value::Array(entries)) = metadata.remove("managedFields") else {
        return;
    };
    let kept = entries.into_iter().filter_map(|mut entry| {
        if entry["manager"] == LEADER_FIELD_MANAGER {
            return Some(entry);
        }
        let conditions = &entry["fieldsV1"]["f:status"]["f:conditions"];
        conditions.get(SCHEDULED_FIELD).filter(|_| has_no_node)?;
        entry["fieldsV1"] = json!({"f:status": {"f:conditions": {SCHEDULED_FIELD: {}}}});
        Some(entry)
    });
    let kept: Vec<Value> = kept.collect();
    if !kept.is_empty() {
        metadata.insert("managedFields".to_owned(), Value::Array(kept));
    }
}

impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.pod.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.pod.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::facts::pod::refusal_written;

    #[test]
    fn a_pod_that_cannot_be_decoded_keeps_its_metadata_and_does_not_end_the_watch() {
        let raw = json!({
            "metadata": {"name": "a", "uid": "u", "managedFields": [{"manager": "m"}]},
            "spec": {"containers": "none"},
        });
        let observed: WatchedPod = serde_json::from_value(raw).expect("it is never an error");
        assert_eq!(observed.pod.metadata.uid.as_deref(), Some("u"));
        assert!(observed.decode_error.is_some());
    }

    #[test]
    fn only_the_managed_fields_of_a_leader_and_of_the_schedulers_condition_are_kept() {
        let written = |manager: &str, condition: &str| {
            json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "subresource": "status",
                "time": "2026-01-01T00:00:07Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:status": {"f:conditions": {condition: {".": {}, "f:status": {}}}}}})
        };
        let raw = json!({
            "metadata": {"name": "a", "managedFields": [
                written("kube-scheduler", SCHEDULED_FIELD),
                written("kubelet", r#"k:{"type":"Ready"}"#),
                written(LEADER_FIELD_MANAGER, "k:"),
            ]},
            "spec": {"containers": []},
        });
        let observed: WatchedPod = serde_json::from_value(raw).expect("it is never an error");
        let kept = observed.pod.metadata.managed_fields.as_deref();
        let kept: Vec<_> = kept
            .expect("entries")
            .iter()
            .map(|entry| entry.manager.as_deref())
            .collect();
        assert_eq!(kept, [Some("kube-scheduler"), Some(LEADER_FIELD_MANAGER)]);
        let time = "2026-01-01T00:00:07Z".parse().expect("a time");
        assert_eq!(refusal_written(&observed.pod), Some(time));
    }

    #[test]
    fn unknown_fields_are_named_and_managed_fields_dropped() {
        let raw = json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "m"}]},
            "spec": {"containers": [], "novel": 1},
        });
        let observed: WatchedPod = serde_json::from_value(raw).expect("it is never an error");
        assert_eq!(observed.unknown_fields, ["spec.novel"]);
        assert_eq!(observed.pod.metadata.managed_fields, None);
    }
}
