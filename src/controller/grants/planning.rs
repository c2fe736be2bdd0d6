//! Makes a pool's plan from the watched objects, for the grant loop and for `burstpool explain`.
//!
//! In: the inputs of all pools ([`PlanInputs`]) and of this pool ([`PlannedPool`]). Out: a [`BurstPlan`]. For
//! pods that have not been evaluated yet, this module calls the translation, and the [`EligibilityCache`] caches
//! its result.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::Snapshot;
use crate::aci::translate::{self, IdentityNamespaces};
use crate::api::BurstPool;
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
    verdicts: &mut EligibilityCache,
    seen: &PlanInputs,
    pool: &BurstPool,
    own: &PlannedPool<'_>,
    node: &HostSettings<'_>,
    now: Timestamp,
) -> BurstPlan {
    let view = &seen.snapshot;
    let pools: Vec<&BurstPool> = view.pools.values().map(Arc::as_ref).collect();
    let waiting: Vec<&PodFacts> = view.waiting.values().map(|one| &*one.facts).collect();
    let labelled: Vec<&PodFacts> = view.labelled.values().map(Arc::as_ref).collect();
    let placed: Vec<&PodFacts> = seen
        .on_pool_nodes
        .values()
        .flatten()
        .map(Arc::as_ref)
        .collect();
    let nodes = view.nodes.values().filter_map(|node| {
        let pool = last_placement::pool_from_labels(node)?.to_owned();
        Some((node.metadata.name.clone()?, pool))
    });
    let nodes = nodes.collect();
    let world = ClusterInputs {
        pools: &pools,
        nodes: &nodes,
        waiting: &waiting,
        labelled: &labelled,
        on_pool_nodes: &placed,
        scales: &seen.scales,
        namespaces: &view.namespaces,
        claims: &seen.claims,
        neighbors: &seen.neighbors,
    };
    let unjudged = {
        let seen = observe(pool, &world, own, verdicts);
        let unjudged = pods_to_evaluate(&seen);
        if unjudged.is_empty() {
            return burst::plan(pool, &seen, now);
        }
        unjudged
    };
    for waits in unjudged.iter().filter_map(|uid| view.waiting.get(uid)) {
        let Some(pod) = waits.pod() else { continue };
        for placement in translation_targets(pool, own.placements, node) {
            verdicts.evaluate(&pod, &waits.unknown_fields, &placement);
        }
    }
    burst::plan(pool, &observe(pool, &world, own, verdicts), now)
}

/// The settings that all virtual nodes share in the translation.
#[derive(Clone, Copy)]
pub(crate) struct HostSettings<'a> {
    /// The IP address of the nodes.
    pub node_address: Option<&'a str>,
    /// The namespaces whose pods may choose managed identities.
    pub identities: &'a IdentityNamespaces,
}

/// The pool's placements, as inputs of the translation.
pub(crate) fn translation_targets<'a>(
    pool: &'a BurstPool,
    places: &'a [PlacementFacts],
    node: &HostSettings<'a>,
) -> impl Iterator<Item = translate::TranslationTarget<'a>> {
    let specs = pool.spec.placements.iter().zip(places);
    let HostSettings {
        node_address: address,
        identities,
    } = *node;
    specs.map(move |(spec, place)| translate::TranslationTarget {
        spec,
        tags: &pool.spec.azure.tags,
        node: &place.node,
        node_address: address,
        identities,
    })
}

/// The state of the pool's placements; `closed` holds, by placement, why it takes no pods.
pub(crate) fn placement_facts(
    view: &Snapshot,
    pool: &BurstPool,
    closed: &BTreeMap<String, String>,
) -> Vec<PlacementFacts> {
    let name = pool.name_any();
    let all = pool.spec.placements.iter().map(|placement| {
        let node = node_object::name(&name, &placement.name);
        let why = closed.get(&placement.name).map(String::as_str);
        let live = view.nodes.get(&node).map(Arc::as_ref);
        PlacementFacts::new(&placement.name, &node, live, why)
    });
    all.collect()
}

fn observe<'a>(
    pool: &'a BurstPool,
    world: &ClusterInputs<'a>,
    own: &'a PlannedPool<'a>,
    verdicts: &'a EligibilityCache,
) -> ObservedPool<'a> {
    let own = burst::PoolInputs {
        placements: own.placements,
        bound: &own.bound,
        eligibility: verdicts,
        leader_state: own.leader_state,
        is_triggered: own.is_triggered,
        leadership: own.leadership,
        identity: own.identity,
        ahead: own.ahead,
    };
    burst::observe(pool, world, &own)
}

/// The UIDs of refused pods for which the translation has not been called for some placement.
fn pods_to_evaluate(seen: &ObservedPool<'_>) -> Vec<String> {
    let candidates = seen.pending_pods.iter();
    let missing = candidates.filter(|candidate| {
        matches!(candidate.pod.stage, PodStage::Unschedulable(_))
            && candidate.refusals.iter().any(Option::is_none)
    });
    missing
        .map(|candidate| candidate.pod.id.uid.clone())
        .collect()
}
