//! A placement as the scheduler sees it.
//!
//! In: the placement's Node as the watch shows it, and why the region takes no pods, if it takes none. Out:
//! [`PlacementFacts`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::resource_amounts;
use super::resource_amounts::ResourceAmounts;
use crate::api::names::{CLOSED_TAINT, LAST_RESORT_TAINT, PROVIDER_TAINT};

/// Taints that repeat other fields of the Node, and come and go.
const TRANSIENT_TAINTS: [&str; 3] = [
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// A placement as the scheduler sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlacementFacts {
    /// The placement's name.
    pub placement: String,
    /// The name of its virtual node.
    pub node: String,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// The node's taints, except burstpool's own and those that repeat other fields of the Node.
    pub taints: Vec<Taint>,
    /// The node's `status.allocatable`, from which the scheduler subtracts pod requests.
    pub allocatable: ResourceAmounts,
    /// The node's `status.capacity`, from which container groups are subtracted.
    pub capacity: ResourceAmounts,
    /// Why it takes no pods at present, apart from failed creates.
    pub unavailable: Option<String>,
}

impl PlacementFacts {
    /// Reads the placement `placement` with the node `name`. `closed` is why the region takes no pods. It is
    /// passed in because the node's taint is the same when the plan itself closes the placement.
    pub fn new(placement: &str, name: &str, node: Option<&Node>, closed: Option<&str>) -> Self {
        let spec = node.and_then(|node| node.spec.as_ref());
        let taints = spec
            .into_iter()
            .flat_map(|spec| spec.taints.iter().flatten());
        let known = [PROVIDER_TAINT, LAST_RESORT_TAINT, CLOSED_TAINT];
        let own = |key: &str| known.contains(&key) || TRANSIENT_TAINTS.contains(&key);
        Self {
            placement: placement.to_owned(),
            node: name.to_owned(),
            labels: node
                .and_then(|node| node.metadata.labels.clone())
                .unwrap_or_default(),
            taints: taints.filter(|taint| !own(&taint.key)).cloned().collect(),
            allocatable: node.map(resource_amounts::allocatable).unwrap_or_default(),
            capacity: node.map(resource_amounts::capacity).unwrap_or_default(),
            unavailable: unavailable_reason(name, node).or_else(|| closed.map(str::to_owned)),
        }
    }
}

fn unavailable_reason(name: &str, node: Option<&Node>) -> Option<String> {
    let Some(node) = node else {
        return Some(format!("its node {name} is not registered"));
    };
    if node.metadata.deletion_timestamp.is_some() {
        return Some(format!("its node {name} is being deleted"));
    }
    let spec = node.spec.as_ref();
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        return Some(format!("its node {name} is cordoned"));
    }
    let mut conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
    (!ready).then(|| format!("its node {name} is not ready"))
}

/// The placements that could run a pod: one bit each, in the order of the pool's spec. At most 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacementSet(u32);

impl PlacementSet {
    /// Adds the placement at `index`.
    #[must_use]
    pub fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index.min(31))
    }

    /// Whether the set contains the placement at `index`.
    pub fn contains(self, index: usize) -> bool {
        self.0 & (1 << index.min(31)) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn place(changes: &[(&str, Value)], closed: Option<&str>) -> PlacementFacts {
        let mut node = json!({
            "metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"taints": [
                {"key": "virtual-kubelet.io/provider", "value": "shop", "effect": "NoSchedule"},
                {"key": "burstpool.io/last-resort", "effect": "PreferNoSchedule"},
                {"key": "burstpool.io/closed", "effect": "NoSchedule"},
                {"key": "team", "value": "x", "effect": "NoSchedule"},
            ]},
            "status": {
                "allocatable": {"cpu": "1500m", "memory": "2Ki", "pods": "3", "ephemeral-storage": "4k"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        for (pointer, value) in changes {
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
            node.pointer_mut(parent).expect("it is there")[field] = value.clone();
        }
        let node: Node = serde_json::from_value(node).expect("a node");
        PlacementFacts::new("weu", "n", Some(&node), closed)
    }

    #[test]
    fn what_a_node_offers_and_whose_taints_matter_is_read() {
        let open = place(&[], None);
        let offers = ResourceAmounts {
            cpu_milli: 1500,
            memory: 2048,
            storage: 4000,
            pods: 3,
        };
        assert_eq!((open.allocatable, open.unavailable), (offers, None));
        let keys: Vec<&str> = open.taints.iter().map(|taint| taint.key.as_str()).collect();
        assert_eq!(keys, ["team"]);
    }

    #[test]
    fn a_node_that_is_missing_cordoned_leaving_or_not_ready_takes_nothing() {
        let said = |place: PlacementFacts| place.unavailable.unwrap_or_default();
        assert!(said(PlacementFacts::new("weu", "n", None, None)).contains("not registered"));
        let leaving = json!("2026-01-01T00:00:00Z");
        for (pointer, value, word) in [
            ("/spec/unschedulable", json!(true), "cordoned"),
            ("/metadata/deletionTimestamp", leaving, "deleted"),
            ("/status/conditions", json!([]), "not ready"),
            (
                "/status/conditions",
                json!([{"type": "Ready", "status": "Unknown"}]),
                "not ready",
            ),
        ] {
            assert!(
                said(place(&[(pointer, value)], None)).contains(word),
                "{word}"
            );
        }
        assert_eq!(said(place(&[], Some("no quota"))), "no quota");
    }
}
