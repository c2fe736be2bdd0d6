//! Makes a pool's plan from what is watched, for the loop that executes plans and for `burstpool explain`.
//!
//! In: the inputs of all pools ([`Seen`]) and of this pool ([`Own`]). Out: a [`Plan`]. For pods that have not
//! been evaluated yet, the translation is called, and [`Verdicts`] cache its result.

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

/// The inputs that all pools share in one round.
pub(super) struct Seen {
    pub view: Arc<View>,
    pub scales: Scales,
    pub claims: Claims,
    /// The nodes and pods that affect where waiting pods may run (affinity and topology spread).
    pub neighbors: Neighbors,
    /// By pool, the pods on its nodes.
    pub placed: BTreeMap<String, Vec<Arc<PodFacts>>>,
}

/// The inputs of one pool.
pub(super) struct Own<'a> {
    pub places: &'a [Place],
    /// The pods on the pool's nodes.
    pub bound: Vec<&'a PodFacts>,
    pub standing: Standing,
    pub memory: &'a Memory,
    pub is_triggered: bool,
    pub identity: &'a str,
    /// How far the API server's clock is ahead of the plan's clock.
    pub ahead: SignedDuration,
}

/// Makes a plan; calls the translation for pods that have not been evaluated yet.
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

/// The settings that all virtual nodes share in the translation.
#[derive(Clone, Copy)]
pub(super) struct Host<'a> {
    /// The IP address of the nodes.
    pub address: Option<&'a str>,
    /// The namespaces whose pods may choose managed identities.
    pub identities: &'a Identities,
}

/// The pool's placements, as inputs of the translation.
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

/// The state of the pool's placements; `closed` holds why some take no pods.
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

/// The UIDs of refused pods for which the translation has not been called for some placement.
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
