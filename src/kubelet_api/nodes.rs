//! Which nodes this process serves, and how a request finds its pod.
//!
//! In: the nodes that the controller keeps. Out: the node that runs a pod, and what is known of it; the
//! API server is not asked.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::node::pods::{Context, Hosted};

type Kept = Arc<RwLock<BTreeMap<String, Arc<Context>>>>;

/// The nodes of the process; cheap to clone.
#[derive(Clone, Default)]
pub struct Nodes(Kept);

/// A node is served for as long as this is kept.
pub struct Served {
    nodes: Nodes,
    context: Arc<Context>,
}

/// A pod, and the node that runs it.
#[derive(Clone)]
pub struct Found {
    /// The node.
    pub node: Arc<Context>,
    /// The pod.
    pub pod: Arc<Hosted>,
}

impl Nodes {
    /// Serves a node from now on.
    #[must_use = "the node is served for as long as this is kept"]
    pub fn serve(&self, context: Arc<Context>) -> Served {
        let name = context.owner.node.clone();
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        kept.insert(name, context.clone());
        Served {
            nodes: self.clone(),
            context,
        }
    }

    /// All nodes.
    pub fn all(&self) -> Vec<Arc<Context>> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kept.values().cloned().collect()
    }

    /// The pod of this name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Found> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = kept.values().filter_map(|node| {
            let pod = node.hosted(namespace, name)?;
            Some(Found {
                node: node.clone(),
                pod,
            })
        });
        found.next()
    }
}

impl Found {
    /// Whether the pod is still there.
    pub fn is_there(&self) -> bool {
        let pod = self.node.hosted(&self.pod.namespace, &self.pod.name);
        pod.is_some_and(|pod| pod.uid == self.pod.uid)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut kept = self.nodes.0.write().unwrap_or_else(PoisonError::into_inner);
        // A node that was restarted is served by its successor already.
        let name = &self.context.owner.node;
        if kept
            .get(name)
            .is_some_and(|context| Arc::ptr_eq(context, &self.context))
        {
            kept.remove(name);
        }
    }
}
