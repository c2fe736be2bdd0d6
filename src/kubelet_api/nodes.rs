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
    /// The pod, as it was then.
    pub pod: Arc<Hosted>,
    nodes: Nodes,
}

/// What has become of a pod since a request found it.
pub enum Now {
    /// The pod is like this.
    There(Arc<Hosted>),
    /// The pod is gone.
    Gone,
    /// Its node is not served here at the moment.
    Unknown,
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
                nodes: self.clone(),
            })
        });
        found.next()
    }
}

impl Found {
    /// What has become of the pod, by the node that is served now: a node that was replaced learns of no more changes.
    pub fn now(&self) -> Now {
        match self.nodes.find(&self.pod.namespace, &self.pod.name) {
            Some(found) if found.pod.uid == self.pod.uid => Now::There(found.pod),
            Some(_) => Now::Gone,
            None if self.is_served() => Now::Gone,
            None => Now::Unknown,
        }
    }

    /// Whether the pod may still be there.
    pub fn is_there(&self) -> bool {
        !matches!(self.now(), Now::Gone)
    }

    fn is_served(&self) -> bool {
        let kept = self.nodes.0.read().unwrap_or_else(PoisonError::into_inner);
        let served = kept.get(&self.node.owner.node);
        served.is_some_and(|served| Arc::ptr_eq(served, &self.node))
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
