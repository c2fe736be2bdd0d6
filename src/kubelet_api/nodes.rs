//! The nodes that this process serves, and the lookup of a pod for a request.
//!
//! In: the nodes that the controller runs. Out: the node that runs a pod, and the pod's data, without a call to the
//! API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::node::pods::{PodInfo, PodsContext};

type ServedNodes = Arc<RwLock<BTreeMap<String, Arc<PodsContext>>>>;

/// The nodes of the process; cheap to clone.
#[derive(Clone, Default)]
pub struct NodeRegistry(ServedNodes);

/// Guard: the node is served until this value is dropped.
pub struct ServedGuard {
    nodes: NodeRegistry,
    context: Arc<PodsContext>,
}

/// A pod, and the node that runs it.
#[derive(Clone)]
pub struct FoundPod {
    /// The node.
    pub node: Arc<PodsContext>,
    /// The pod, as it was when the request found it.
    pub pod: Arc<PodInfo>,
    nodes: NodeRegistry,
}

/// The state of a pod after a request has found it.
pub enum PodPresence {
    /// The pod exists.
    Present(Arc<PodInfo>),
    /// The pod is gone.
    Gone,
    /// This process does not serve the pod's node at the moment.
    Unknown,
}

impl NodeRegistry {
    /// Serves a node until the returned guard is dropped.
    #[must_use = "the node is served until the guard is dropped"]
    pub fn serve(&self, context: Arc<PodsContext>) -> ServedGuard {
        let name = context.owner.node.clone();
        let mut nodes = self.0.write();
        nodes.insert(name, context.clone());
        ServedGuard {
            nodes: self.clone(),
            context,
        }
    }

    /// All nodes.
    pub fn all(&self) -> Vec<Arc<PodsContext>> {
        let nodes = self.0.read();
        nodes.values().cloned().collect()
    }

    /// The pod of this name.
    pub fn find_pod(&self, namespace: &str, name: &str) -> Option<FoundPod> {
        let nodes = self.0.read();
        let mut found = nodes.values().filter_map(|node| {
            let pod = node.find_pod(namespace, name)?;
            Some(FoundPod {
                node: node.clone(),
                pod,
                nodes: self.clone(),
            })
        });
        found.next()
    }
}

impl FoundPod {
    /// The pod's present state. The lookup uses the node that is served now, because a node that was replaced gets
    /// no more updates.
    pub fn presence(&self) -> PodPresence {
        match self.nodes.find_pod(&self.pod.namespace, &self.pod.name) {
            Some(found) if found.pod.uid == self.pod.uid => PodPresence::Present(found.pod),
            Some(_) => PodPresence::Gone,
            None if self.is_node_served() => PodPresence::Gone,
            None => PodPresence::Unknown,
        }
    }

    /// Whether the pod may still exist.
    pub fn may_exist(&self) -> bool {
        !matches!(self.presence(), PodPresence::Gone)
    }

    fn is_node_served(&self) -> bool {
        let nodes = self.nodes.0.read();
        let served = nodes.get(&self.node.owner.node);
        served.is_some_and(|served| Arc::ptr_eq(served, &self.node))
    }
}

impl Drop for ServedGuard {
    fn drop(&mut self) {
        let mut nodes = self.nodes.0.write();
        // If the node was restarted, its successor is already registered under the same name.
        let name = &self.context.owner.node;
        if nodes
            .get(name)
            .is_some_and(|context| Arc::ptr_eq(context, &self.context))
        {
            nodes.remove(name);
        }
    }
}
