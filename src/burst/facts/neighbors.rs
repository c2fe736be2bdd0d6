//! The nodes and pods of the cluster that affect where a pod may run.
//!
//! In: nodes and bound pods that the operator lists when a pending pod has constraints on them. Out:
//! [`Neighbors`], which `topology` checks constraints against.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::assignment::NamespaceLabels;
use super::pod::PodFacts;

/// Objects that the operator reads from the cluster on demand.
#[derive(Clone, Debug, Default)]
pub enum ListResult<T> {
    /// The list call is still running.
    #[default]
    Awaited,
    /// The list call failed. Nothing is concluded from it.
    Unknown,
    /// The complete list.
    Listed(T),
}

impl<T> ListResult<T> {
    /// The list, if it is complete.
    pub(in crate::burst) fn listed(&self) -> Option<&T> {
        match self {
            Self::Listed(all) => Some(all),
            Self::Awaited | Self::Unknown => None,
        }
    }
}

/// The parts of a Node that affect where other pods may run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NeighborNode {
    /// The node's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
}

impl NeighborNode {
    /// Extracts these parts from `node`.
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec
                .and_then(|spec| spec.taints.clone())
                .unwrap_or_default(),
        }
    }
}

/// The nodes and pods of the cluster. The operator reads them only if a pod has such constraints.
#[derive(Clone, Debug, Default)]
pub struct Neighbors {
    /// All nodes.
    pub nodes: ListResult<Vec<Arc<NeighborNode>>>,
    /// The pods bound to nodes, by namespace. Nothing is known about a namespace without an entry.
    pub pods: HashMap<String, ListResult<Vec<Arc<PodFacts>>>>,
}

impl Neighbors {
    /// Whether `pod` must wait because a list call that its constraints need is still running.
    pub fn is_awaited(&self, pod: &PodFacts, namespaces: &NamespaceLabels) -> bool {
        let Some(rules) = pod.rules.as_deref() else {
            return false;
        };
        let awaits = |one: String| matches!(self.pods.get(&one), Some(ListResult::Awaited));
        let mut all = rules.namespaces(&pod.id.namespace, namespaces).into_iter();
        matches!(self.nodes, ListResult::Awaited) || all.any(awaits)
    }

    /// The pods of a namespace. `None` if they are not known.
    pub(in crate::burst) fn of_namespace(&self, namespace: &str) -> Option<&Vec<Arc<PodFacts>>> {
        self.pods.get(namespace)?.listed()
    }
}
