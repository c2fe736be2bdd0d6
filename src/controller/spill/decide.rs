//! From what is watched to a pool's plan, for whoever carries it out and for whoever explains it.
//!
//! In: everything that was [`Seen`], and what is known of the pool ([`Own`]). Out: a [`Plan`]; translation
//! is asked about pods that it has not been asked about, and [`Verdicts`] remember what it said.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::View;
use crate::aci::translate::{self, Identities};
use crate::api::BurstPool;
use crate::burst::pod::Stage;
use crate::burst::{
    self, Claims, Memory, Neighbors, Observed, Place, Plan, PodFacts, Scales, Standing, Verdicts,
    World,
};
use crate::node::{object, record};

/// What every pool is planned with in one turn.
pub(super) struct Seen {
    pub view: Arc<View>,
    pub scales: Scales,
    pub claims: Claims,
    /// Nodes and pods that bear on where pods that wait may run.
    pub neighbors: Neighbors,
    /// Pods on pools' nodes, by pool.
    pub placed: BTreeMap<String, Vec<Arc<PodFacts>>>,
}

/// What is known of one pool.
pub(super) struct Own<'a> {
    pub places: &'a [Place],
    /// Pods on the pool's nodes.
    pub bound: Vec<&'a PodFacts>,
    pub standing: Standing,
    pub memory: &'a Memory,
    pub is_triggered: bool,
    pub identity: &'a str,
    /// How far the API server's clock is ahead of the plan's.
    pub ahead: SignedDuration,
}

/// Plans; asks translation about pods that it has not been asked about.
pub(super) fn plan(
    verdicts: &mut Verdicts,
    seen: &Seen,
    pool: &BurstPool,
    own: &Own<'_>,
    node: &Host<'_>,
    now: Timestamp,
) -> Plan {
    let view = &seen.view;
    let pools: Vec<&BurstPool> = view.pools.values().map(Arc::as_ref).collect();
    let waiting: Vec<&PodFacts> = view.waiting.values().map(|one| &*one.facts).collect();
    let labelled: Vec<&PodFacts> = view.labelled.values().map(Arc::as_ref).collect();
    let placed: Vec<&PodFacts> = seen.placed.values().flatten().map(Arc::as_ref).collect();
    let nodes = view.nodes.values().filter_map(|node| {
        let pool = record::pool_of(node)?.to_owned();
        Some((node.metadata.name.clone()?, pool))
    });
    let nodes = nodes.collect();
    let world = World {
        pools: &pools,
        nodes: &nodes,
        waiting: &waiting,
        labelled: &labelled,
        placed: &placed,
        scales: &seen.scales,
        namespaces: &view.namespaces,
        claims: &seen.claims,
        neighbors: &seen.neighbors,
    };
    let unjudged = {
        let seen = observe(pool, &world, own, verdicts);
        let unjudged = unjudged(&seen);
        if unjudged.is_empty() {
            return burst::plan(pool, &seen, now);
        }
        unjudged
    };
    for waits in unjudged.iter().filter_map(|uid| view.waiting.get(uid)) {
        let Some(pod) = waits.pod() else { continue };
        for placement in asked(pool, own.places, node) {
            verdicts.judge(&pod, &waits.unknown, &placement);
        }
    }
    burst::plan(pool, &observe(pool, &world, own, verdicts), now)
}

/// What all nodes of the operator have in common for translation.
#[derive(Clone, Copy)]
pub(super) struct Host<'a> {
    /// Their address.
    pub address: Option<&'a str>,
    /// The namespaces whose pods may choose managed identities.
    pub identities: &'a Identities,
}

/// The pool's placements, as translation is asked about them.
pub(super) fn asked<'a>(
    pool: &'a BurstPool,
    places: &'a [Place],
    node: &Host<'a>,
) -> impl Iterator<Item = translate::Placement<'a>> {
    let specs = pool.spec.placements.iter().zip(places);
    let Host {
        address,
        identities,
    } = *node;
    specs.map(move |(spec, place)| translate::Placement {
        spec,
        tags: &pool.spec.azure.tags,
        node: &place.node,
        node_address: address,
        identities,
    })
}

/// The pool's placements as they are; `closed` says why some take no pods.
pub(super) fn places(
    view: &View,
    pool: &BurstPool,
    closed: &BTreeMap<String, String>,
) -> Vec<Place> {
    let name = pool.name_any();
    let all = pool.spec.placements.iter().map(|placement| {
        let node = object::name(&name, &placement.name);
        let why = closed.get(&placement.name).map(String::as_str);
        let live = view.nodes.get(&node).map(Arc::as_ref);
        Place::of(&placement.name, &node, live, why)
    });
    all.collect()
}

fn observe<'a>(
    pool: &'a BurstPool,
    world: &World<'a>,
    own: &'a Own<'a>,
    verdicts: &'a Verdicts,
) -> Observed<'a> {
    let own = burst::Own {
        places: own.places,
        bound: &own.bound,
        verdicts,
        memory: own.memory,
        is_triggered: own.is_triggered,
        standing: own.standing,
        identity: own.identity,
        ahead: own.ahead,
    };
    burst::observe(pool, world, &own)
}

/// Refused pods about which translation has not been asked in some place.
fn unjudged(seen: &Observed<'_>) -> Vec<String> {
    let candidates = seen.candidates.iter();
    let missing = candidates.filter(|candidate| {
        matches!(candidate.pod.stage, Stage::Refused(_))
            && candidate.refusals.iter().any(Option::is_none)
    });
    missing
        .map(|candidate| candidate.pod.id.uid.clone())
        .collect()
}
