//! Names and tags of container groups.
//!
//! In: a cluster and a pod. Out: the name of the pod's container group, and its tags. The name depends on the pod's
//! UID: two pods that use the same name one after the other (in a `StatefulSet`) get different groups, and two
//! clusters in one resource group never collide. burstpool owns a group only if its tags name this cluster, this
//! pool and this node; it never changes any other.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use sha2::{Digest as _, Sha256};

/// The longest name of a container group, in characters.
const MAX_NAME_LENGTH: usize = 63;
/// Hex digits of the part that makes a name unique: 64 bits.
const UNIQUE_SUFFIX_LENGTH: usize = 16;

/// Tag: the UID of the cluster's `kube-system` namespace.
pub const CLUSTER_TAG: &str = "burstpool-cluster";
/// Tag: the pool's name.
pub const POOL_TAG: &str = "burstpool-pool";
/// Tag: the virtual node's name.
pub const NODE_TAG: &str = "burstpool-node";
/// Tag: the pod's namespace.
pub const NAMESPACE_TAG: &str = "burstpool-namespace";
/// Tag: the pod's name.
pub const POD_TAG: &str = "burstpool-pod";
/// Tag: the pod's UID.
pub const POD_UID_TAG: &str = "burstpool-pod-uid";

/// The name of a container group: a readable prefix and a unique suffix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    /// The name of the pod's container group, made from the cluster and the pod's namespace, name and UID.
    pub fn from_pod(cluster: &str, pod: &Pod) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        let digest = Sha256::digest(format!("{cluster}/{}", text(&pod.metadata.uid)));
        let unique = u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
        let readable = dns_label_prefix(
            &format!("{namespace}-{name}"),
            MAX_NAME_LENGTH - UNIQUE_SUFFIX_LENGTH - 1,
        );
        Self(format!("{readable}-{unique:0UNIQUE_SUFFIX_LENGTH$x}"))
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The owner of a virtual node's container groups: the values that their tags must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOwner {
    /// The UID of the cluster's `kube-system` namespace.
    pub cluster: String,
    /// The pool's name.
    pub pool: String,
    /// The virtual node's name.
    pub node: String,
}

impl GroupOwner {
    /// Whether this owner owns a group with these tags.
    pub fn owns(&self, tags: &BTreeMap<String, String>) -> bool {
        let has_tag = |tag: &str, value: &str| tags.get(tag).is_some_and(|actual| actual == value);
        has_tag(CLUSTER_TAG, &self.cluster)
            && has_tag(NODE_TAG, &self.node)
            && has_tag(POOL_TAG, &self.pool)
    }

    /// The tags for the pod's container group.
    pub fn tags(&self, pod: &Pod) -> BTreeMap<String, String> {
        let metadata = &pod.metadata;
        let tags = [
            (CLUSTER_TAG, Some(&self.cluster)),
            (POOL_TAG, Some(&self.pool)),
            (NODE_TAG, Some(&self.node)),
            (NAMESPACE_TAG, metadata.namespace.as_ref()),
            (POD_TAG, metadata.name.as_ref()),
            (POD_UID_TAG, metadata.uid.as_ref()),
        ];
        let tags = tags
            .into_iter()
            .filter_map(|(tag, value)| Some((tag.to_owned(), value?.clone())));
        tags.collect()
    }
}

/// The namespace, name and UID of the pod that the tags name; `None` if a tag is missing.
pub fn pod_from_tags(tags: &BTreeMap<String, String>) -> Option<(&str, &str, &str)> {
    let tag = |name: &str| tags.get(name).map(String::as_str);
    Some((tag(NAMESPACE_TAG)?, tag(POD_TAG)?, tag(POD_UID_TAG)?))
}

/// Converts `text` to the start of a DNS label: lower-case letters, digits and single inner hyphens, at most
/// `longest` characters, never empty.
fn dns_label_prefix(text: &str, longest: usize) -> String {
    let mut label = String::new();
    for letter in text.to_lowercase().chars() {
        if letter.is_ascii_alphanumeric() {
            label.push(letter);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(longest);
    let label = label.trim_end_matches('-');
    if label.is_empty() {
        "pod".to_owned()
    } else {
        label.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn pod(namespace: &str, name: &str, uid: &str) -> Pod {
        let text = |text: &str| Some(text.to_owned());
        let metadata = ObjectMeta {
            namespace: text(namespace),
            name: text(name),
            uid: text(uid),
            ..ObjectMeta::default()
        };
        Pod {
            metadata,
            ..Pod::default()
        }
    }

    #[test]
    fn a_name_is_a_dns_label_for_every_name_of_a_pod() {
        let long = "a".repeat(253);
        for (namespace, name) in [
            ("shop", "web-1"),
            (&*long, &*long),
            ("-", "..."),
            ("shop", "web.example"),
        ] {
            let name = GroupName::from_pod("cluster", &pod(namespace, name, "1")).to_string();
            assert!(name.len() <= 63 && name.len() > 17, "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
            assert!(!name.starts_with('-') && !name.contains("--"), "{name}");
        }
        assert!(
            GroupName::from_pod("c", &pod("shop", "web-1", "1"))
                .as_str()
                .starts_with("shop-web-1-")
        );
    }

    #[test]
    fn names_differ_by_uid_and_by_cluster() {
        let name = |cluster: &str, pod: &Pod| GroupName::from_pod(cluster, pod);
        assert_ne!(
            name("c", &pod("a-b", "c", "1")),
            name("c", &pod("a", "b-c", "2"))
        );
        assert_ne!(
            name("c", &pod("a", "b", "1")),
            name("c", &pod("a", "b", "2"))
        );
        assert_ne!(
            name("c", &pod("a", "b", "1")),
            name("d", &pod("a", "b", "1"))
        );
        assert_eq!(
            name("c", &pod("a", "b", "1")),
            name("c", &pod("a", "b", "1"))
        );
    }

    #[test]
    fn a_group_is_ours_only_if_cluster_pool_and_node_match() {
        let owner = |cluster: &str, node: &str| GroupOwner {
            cluster: cluster.into(),
            pool: "shop".into(),
            node: node.into(),
        };
        // The same node name in another pool.
        let other = GroupOwner {
            pool: "shop-eu".into(),
            ..owner("c", "n")
        };
        let tags = owner("c", "n").tags(&pod("a", "b", "1"));
        assert!(owner("c", "n").owns(&tags));
        assert!(!owner("c", "m").owns(&tags) && !owner("d", "n").owns(&tags));
        assert!(!owner("c", "n").owns(&BTreeMap::new()) && !other.owns(&tags));
        assert_eq!(pod_from_tags(&tags), Some(("a", "b", "1")));
    }
}
