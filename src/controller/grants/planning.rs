//! Makes a pool's plan from the watched objects, for the grant loop and for `burstpool explain`.
//!
//! In: the inputs of all pools ([`PlanInputs`]) and of this pool ([`PlannedPool`]). Out: a [`BurstPlan`]. For
//! pods that have not been evaluated yet, this module calls the translation, and the [`EligibilityCache`] caches
//! its result.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::Snapshot;
use crate::aci::translate::{self, IdentityNamespaces};
use crate::api::{BurstPool, NO_LOSSES};
use crate::burst::facts::pod::PodStage;
use crate::burst::{
    self, BurstPlan, ClaimStates, ClusterInputs, EligibilityCache, LeaderState, Leadership,
    Neighbors, ObservedPool, PlacementFacts, PodFacts, TargetScales,
};
use crate::node::{last_placement, node_object};

/// The inputs that all pools share in one round.
pub(crate) struct PlanInputs {
    pub snapshot: Arc<Snapshot>,
    pub scales: TargetScales,
    pub claims: ClaimStates,
    /// The nodes and pods that affect where waiting pods may run (affinity and topology spread).
    pub neighbors: Neighbors,
    /// By pool, the pods on its nodes.
    pub on_pool_nodes: BTreeMap<String, Vec<Arc<PodFacts>>>,
}

/// The inputs of one pool, beside its spec.
pub(crate) struct PlannedPool<'a> {
    pub placements: &'a [PlacementFacts],
    /// The pods on the pool's nodes.
    pub bound: Vec<&'a PodFacts>,
    pub leadership: Leadership,
    pub leader_state: &'a LeaderState,
    /// Whether a trigger of the pool is active.
    pub is_triggered: bool,
    /// The identity of this instance in its leadership term.
    pub identity: &'a str,
    /// How far the API server's clock is ahead of the plan's clock.
    pub ahead: SignedDuration,
}

/// Makes a plan; calls the translation for pods that have not been evaluated yet.
pub(crate) fn plan(
    eligibility: &mut EligibilityCache,
    inputs: &PlanInputs,
    pool: &BurstPool,
    planned_pool: &PlannedPool<'_>,
    host_settings: &HostSettings<'_>,
    now: Timestamp,
) -> BurstPlan {
    let snapshot = &inputs.snapshot;
    let pools: Vec<&BurstPool> = snapshot.pools.values().map(Arc::as_ref).collect();
    let waiting: Vec<&PodFacts> = snapshot.waiting.values().map(|pod| &*pod.facts).collect();
    let departed = references(&snapshot.departed);
    let labelled = references(snapshot.labelled.values());
    let placed = references(inputs.on_pool_nodes.values().flatten());
    let nodes = pools_of_nodes(snapshot);
    let cluster_inputs = ClusterInputs {
        pools: &pools,
        nodes: &nodes,
        waiting: &waiting,
        departed: &departed,
        labelled: &labelled,
        on_pool_nodes: &placed,
        scales: &inputs.scales,
        namespaces: &snapshot.namespaces,
        claims: &inputs.claims,
        neighbors: &inputs.neighbors,
    };
    let not_evaluated = {
        let observed = observe(pool, &cluster_inputs, planned_pool, eligibility);
        let not_evaluated = pods_to_evaluate(&observed);
        if not_evaluated.is_empty() {
            return burst::plan(pool, &observed, now);
        }
        not_evaluated
    };
    for uid in not_evaluated {
        let Some(waiting) = snapshot.waiting.get(&uid) else {
            continue;
        };
        let Some(pod) = waiting.pod() else {
            continue;
        };
        for placement in translation_targets(pool, planned_pool.placements, host_settings) {
            eligibility.evaluate(&pod, &waiting.unknown_fields, &placement);
        }
    }
    let observed = observe(pool, &cluster_inputs, planned_pool, eligibility);
    burst::plan(pool, &observed, now)
}

/// The pool of each virtual node, by the node's name.
fn pools_of_nodes(snapshot: &Snapshot) -> HashMap<String, String> {
    let nodes = snapshot.nodes.values().filter_map(|node| {
        let pool = last_placement::pool_from_labels(node)?.to_owned();
        Some((node.metadata.name.clone()?, pool))
    });
    nodes.collect()
}

fn references<'a>(pods: impl IntoIterator<Item = &'a Arc<PodFacts>>) -> Vec<&'a PodFacts> {
    pods.into_iter().map(Arc::as_ref).collect()
}

/// The settings that all virtual nodes share in the translation.
#[derive(Clone, Copy)]
pub(crate) struct HostSettings<'a> {
    /// The IP address of the nodes.
    pub node_address: Option<&'a str>,
    /// The namespaces whose pods may choose managed identities.
    pub identities: &'a IdentityNamespaces,
}

/// The pool's placements, as inputs of the translation, which then refuses every loss: what a pod may lose depends on its
/// workload.
pub(crate) fn translation_targets<'a>(
    pool: &'a BurstPool,
    facts: &'a [PlacementFacts],
    host_settings: &HostSettings<'a>,
) -> impl Iterator<Item = translate::TranslationTarget<'a>> {
    let specs = pool.spec.placements.iter().zip(facts);
    let HostSettings {
        node_address: address,
        identities,
    } = *host_settings;
    specs.map(move |(spec, facts)| translate::TranslationTarget {
        spec,
        tags: &pool.spec.azure.tags,
        node: &facts.node,
        node_address: address,
        identities,
        accepted: &NO_LOSSES,
    })
}

/// The state of the pool's placements; `unavailable` holds, by placement, why it takes no pods.
pub(crate) fn placement_facts(
    snapshot: &Snapshot,
    pool: &BurstPool,
    unavailable: &BTreeMap<String, String>,
) -> Vec<PlacementFacts> {
    let name = pool.name_any();
    let facts = pool.spec.placements.iter().map(|placement| {
        let node = node_object::name(&name, &placement.name);
        let why = unavailable.get(&placement.name).map(String::as_str);
        let live = snapshot.nodes.get(&node).map(Arc::as_ref);
        PlacementFacts::new(&placement.name, &node, live, why)
    });
    facts.collect()
}

fn observe<'a>(
    pool: &'a BurstPool,
    cluster_inputs: &ClusterInputs<'a>,
    planned_pool: &'a PlannedPool<'a>,
    eligibility: &'a EligibilityCache,
) -> ObservedPool<'a> {
    let pool_inputs = burst::PoolInputs {
        placements: planned_pool.placements,
        bound: &planned_pool.bound,
        eligibility,
        leader_state: planned_pool.leader_state,
        is_triggered: planned_pool.is_triggered,
        leadership: planned_pool.leadership,
        identity: planned_pool.identity,
        ahead: planned_pool.ahead,
    };
    burst::observe(pool, cluster_inputs, &pool_inputs)
}

/// The UIDs of refused pods for which the translation has not been called for some placement.
fn pods_to_evaluate(observed: &ObservedPool<'_>) -> Vec<String> {
    let candidates = observed.pending_pods.iter();
    let not_evaluated = candidates.filter(|candidate| {
        matches!(candidate.pod.stage, PodStage::Unschedulable(_))
            && candidate.refusals.iter().any(Option::is_none)
    });
    not_evaluated
        .map(|candidate| candidate.pod.id.uid.clone())
        .collect()
}
