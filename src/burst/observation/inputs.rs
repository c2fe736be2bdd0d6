//! What [`observe`](super::observe()) reads.

use std::collections::HashMap;

use jiff::SignedDuration;

use crate::api::BurstPool;
use crate::api::names::node_name;
use crate::burst::facts::assignment::{NamespaceLabels, TargetScales};
use crate::burst::facts::eligibility::{ClaimStates, EligibilityCache};
use crate::burst::facts::neighbors::Neighbors;
use crate::burst::facts::placement::PlacementFacts;
use crate::burst::facts::pod::PodFacts;
use crate::burst::leader_state::LeaderState;

/// The state of the cluster, the same for every pool.
pub struct ClusterInputs<'a> {
    /// All pools.
    pub pools: &'a [&'a BurstPool],
    /// The pool of each virtual node, by the node's name.
    pub nodes: &'a HashMap<String, String>,
    /// Pods without a node, from the watch with the field selector `spec.nodeName=`.
    pub waiting: &'a [&'a PodFacts],
    /// Pods that left the watch of pending pods within the last minute, as it last showed them. Most have been
    /// bound, and another watch will show them soon.
    pub departed: &'a [&'a PodFacts],
    /// Pods that have the label of any pool, from one watch.
    pub labelled: &'a [&'a PodFacts],
    /// Pods on the virtual nodes of any pool, both granted and user-placed, from the watches by node.
    pub on_pool_nodes: &'a [&'a PodFacts],
    /// The scale subresources of the workloads' targets.
    pub scales: &'a TargetScales,
    /// Labels of namespaces.
    pub namespaces: &'a NamespaceLabels,
    /// The persistent volume claims of pending pods, with what they are bound to.
    pub claims: &'a ClaimStates,
    /// Nodes and pods that affect where pending pods may run (affinity, topology spread).
    pub neighbors: &'a Neighbors,
}

impl ClusterInputs<'_> {
    /// Whether a node belongs to a pool: by the Node object, or, if there is none now, by the pool's
    /// placements.
    pub(super) fn is_node_of(&self, node: &str, pool: &str) -> bool {
        if let Some(owner) = self.nodes.get(node) {
            return owner == pool;
        }
        let asks = |other: &&&BurstPool| {
            let mut all = other.spec.placements.iter();
            other.metadata.name.as_deref() == Some(pool)
                && all.any(|placement| node_name(pool, &placement.name) == node)
        };
        self.pools.iter().any(|other| asks(&other))
    }
}

/// What is known about this pool only.
pub struct PoolInputs<'a> {
    /// The pool's placements, in the order of its spec.
    pub placements: &'a [PlacementFacts],
    /// Pods on the pool's nodes, both granted and user-placed, from the watches by node.
    pub bound: &'a [&'a PodFacts],
    /// The cached results of `aci::translate` for pods.
    pub eligibility: &'a EligibilityCache,
    /// The leader's memory of this pool.
    pub leader_state: &'a LeaderState,
    /// Whether at least one of the pool's triggers is active.
    pub is_triggered: bool,
    /// The leadership state. [`observe`](super::observe()) lowers it to `Unclaimed` unless `status.leader` equals `identity`.
    pub leadership: Leadership,
    /// This instance's identity in the present term of leadership. Each term has a new identity: a leader in
    /// between may have adopted a reservation of an earlier term and still have its grant in flight.
    pub identity: &'a str,
    /// How far the API server's clock is ahead of the operator's monotonic clock.
    pub ahead: SignedDuration,
}

/// Whether this instance may decide for a pool (decision D1a).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// `status.leader` does not contain this instance's identity yet.
    #[default]
    Unclaimed,
    /// `status.leader` names this instance, but it has not listed the pods with the pool's label since then.
    Uncounted,
    /// `status.leader` names this instance, and it has listed the pods since then.
    Leading,
}
