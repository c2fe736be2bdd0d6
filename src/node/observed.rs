//! A pod as it is watched.
//!
//! In: what the API server sends. Out: [`Observed`], the typed pod and the names of the fields that our
//! types do not know (design D18). What nobody here reads, and is most of a pod's size in memory, is
//! dropped: the managed fields, but for a leader's.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::aci::translate;
use crate::api::names::LEADER_FIELD_MANAGER;

/// A pod as it was watched.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The pod.
    pub pod: Pod,
    /// Fields that our types do not know.
    pub unknown: Vec<String>,
    /// Why it could not be read, if it could not; of the pod there is only the metadata then.
    pub unreadable: Option<String>,
}

impl<'de> Deserialize<'de> for Observed {
    /// Never fails for a pod's sake: one that cannot be read must not end the watch of all.
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        let mut raw = Value::deserialize(raw)?;
        if let Some(metadata) = raw["metadata"].as_object_mut() {
            drop_managed(metadata);
        }
        let metadata = raw["metadata"].clone();
        let observed = match translate::decode(raw) {
            Ok((pod, unknown)) => Self {
                pod,
                unknown,
                unreadable: None,
            },
            Err(error) => Self {
                pod: Pod {
                    metadata: serde_json::from_value(metadata).unwrap_or_default(),
                    ..Pod::default()
                },
                unknown: Vec::new(),
                unreadable: Some(error.to_string()),
            },
        };
        Ok(observed)
    }
}

/// Drops the managed fields, which are larger than the rest of most pods, but for a leader's: of a grant by an early
/// version nothing else proves that it is one.
fn drop_managed(metadata: &mut Map<String, Value>) {
    let Some(Value::Array(mut entries)) = metadata.remove("managedFields") else {
        return;
    };
    entries.retain(|entry| entry["manager"] == LEADER_FIELD_MANAGER);
    if !entries.is_empty() {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

impl Resource for Observed {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_cannot_be_read_is_named_and_does_not_fail_the_watch() {
        let raw = json!({
            "metadata": {"name": "a", "uid": "u", "managedFields": [{"manager": "m"}]},
            "spec": {"containers": "none"},
        });
        let observed: Observed = serde_json::from_value(raw).expect("it is never an error");
        assert_eq!(observed.pod.metadata.uid.as_deref(), Some("u"));
        assert!(observed.unreadable.is_some());
    }

    #[test]
    fn of_managed_fields_only_a_leaders_are_kept() {
        let raw = json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "kubelet"}, {"manager": LEADER_FIELD_MANAGER}]},
            "spec": {"containers": []},
        });
        let observed: Observed = serde_json::from_value(raw).expect("it is never an error");
        let kept = observed.pod.metadata.managed_fields.unwrap_or_default();
        let kept: Vec<_> = kept
            .iter()
            .filter_map(|one| one.manager.as_deref())
            .collect();
        assert_eq!(kept, [LEADER_FIELD_MANAGER]);
    }

    #[test]
    fn unknown_fields_are_named_and_managed_fields_dropped() {
        let raw = json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "m"}]},
            "spec": {"containers": [], "novel": 1},
        });
        let observed: Observed = serde_json::from_value(raw).expect("it is never an error");
        assert_eq!(observed.unknown, ["spec.novel"]);
        assert_eq!(observed.pod.metadata.managed_fields, None);
    }
}
