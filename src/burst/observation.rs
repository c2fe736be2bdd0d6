//! Selects what concerns one pool from all watched objects.
//!
//! In: [`ClusterInputs`], which is the same for every pool, and [`PoolInputs`], which is known about this pool only. Out:
//! [`ObservedPool`], which borrows from both. The module assigns pods to pools and workloads, and decides nothing
//! else.
//!
//! Slots are counted from one watch only: that of the pool label. A pod that moves from the watch of pending
//! pods to the watch of a node is in neither for a moment (decision D1a). A grant that only another watch shows
//! still counts through its reservation.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::facts::assignment::{Assignment, NamespaceLabels, TargetScale, TargetScales};
use super::facts::eligibility::{ClaimStates, EligibilityCache};
use super::facts::placement::PlacementFacts;
use super::facts::pod::{PodFacts, PodStage, provider_taint};
use super::leader_state::LeaderState;
use super::rules::hold::by;
use super::rules::topology::Neighbors;
use super::select::reservations::VersionComparison;
use crate::aci::translate::Unsupported;
use crate::api::names::node_name;
use crate::api::{BurstPool, Reservation, Workload};

/// The state of the cluster, the same for every pool.
pub struct ClusterInputs<'a> {
    /// All pools.
    pub pools: &'a [&'a BurstPool],
    /// The pool of each virtual node, by the node's name.
    pub nodes: &'a HashMap<String, String>,
    /// Pods without a node, from the watch with the field selector `spec.nodeName=`.
    pub waiting: &'a [&'a PodFacts],
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
    fn is_node_of(&self, node: &str, pool: &str) -> bool {
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
    /// The leadership state. [`observe()`] lowers it to `Unclaimed` unless `status.leader` equals `identity`.
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

/// Everything that concerns one pool.
pub struct ObservedPool<'a> {
    /// The pool's name.
    pub pool: &'a str,
    /// Whether this instance may decide for the pool.
    pub leadership: Leadership,
    /// This instance's identity in the present term.
    pub identity: &'a str,
    /// The pool's workloads, in the order of its spec.
    pub workloads: Vec<ObservedWorkload<'a>>,
    /// Pending pods of its workloads, without those that hold a grant.
    pub pending_pods: Vec<PendingPod<'a>>,
    /// Pods that the pool has granted, on any node or without one, except finished pods and expired grants.
    pub granted: Vec<GrantedPod<'a>>,
    /// Pending pods whose grants by this pool have expired, with the index of their workload.
    pub expired: Vec<(&'a PodFacts, Option<usize>)>,
    /// User-placed pods: on the pool's nodes without a grant by the pool, with the index of their workload.
    pub user_placed: Vec<(&'a PodFacts, Option<usize>)>,
    /// The pool's placements.
    pub placements: &'a [PlacementFacts],
    /// The persistent volume claims of pending pods, with what they are bound to.
    pub claims: &'a ClaimStates,
    /// Nodes and pods that affect where pending pods may run (affinity, topology spread).
    pub neighbors: &'a Neighbors,
    /// Labels of namespaces.
    pub namespaces: &'a NamespaceLabels,
    /// The pool's reservations, with what the watches show of their pods.
    pub reservations: Vec<ReservedPod<'a>>,
    /// Whether at least one of its triggers is active.
    pub is_triggered: bool,
    /// The leader's memory of this pool.
    pub leader_state: &'a LeaderState,
    /// How far the API server's clock is ahead of the operator's monotonic clock.
    pub ahead: SignedDuration,
}

impl ObservedPool<'_> {
    /// Converts a time that was written by the API server's clock (of grants, stamps and bindings) to the
    /// operator's monotonic clock.
    pub(super) fn by_our_clock(&self, written: Timestamp) -> Timestamp {
        by(written, -self.ahead)
    }

    /// When the pod was granted, by the operator's monotonic clock.
    pub(super) fn granted_at(&self, pod: &PodFacts) -> Option<Timestamp> {
        let at = pod.grant.as_ref()?.granted_at?;
        Some(self.by_our_clock(at))
    }
}

/// A workload, with what the watches show of it.
pub struct ObservedWorkload<'a> {
    /// The entry in `spec.workloads`.
    pub spec: &'a Workload,
    /// The scale subresource of its target. `None` if there is no target, or the scale could not be read.
    pub scale: Option<&'a TargetScale>,
    /// Why the operator cannot determine the workload's pods.
    pub selection_error: Option<String>,
    /// The workload before it that selects the same pods and therefore owns all of them.
    pub shadowed_by: Option<String>,
    /// Pods that this workload selects but that count for another workload: their number, by that workload's
    /// name. Pods on the cluster's own nodes that were never granted are in no watch, so they are not counted.
    pub owned_by_others: HashMap<String, usize>,
    /// How many pods that it selects count elsewhere and are not on the cluster's own nodes: pods that count
    /// for other workloads, and user-placed pods on other pools' nodes.
    pub running_elsewhere: u64,
}

/// A pending pod.
pub struct PendingPod<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// The index of its workload in `spec.workloads`.
    pub workload: usize,
    /// For each placement: the fields that translation refuses. `None` if the pod was not translated for it
    /// yet.
    pub refusals: Vec<Option<&'a [Unsupported]>>,
    /// Whether the pod tolerates the pool's taint although no pool has granted it.
    pub is_user_placed: bool,
    /// Whether that toleration was copied from another pod's grant: the pod carries that grant's annotations.
    pub has_foreign_grant: bool,
}

/// A pod that the pool has granted.
pub struct GrantedPod<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// The index of the workload whose maximum it counts against: the workload that selects the pod now.
    pub workload: Option<usize>,
    /// Whether it is bound to one of the pool's nodes.
    pub is_spilled: bool,
    /// Whether it is bound to a node outside the pool, such as one of the cluster's own nodes.
    pub is_home: bool,
}

/// A reservation, with what the watches show of its pod.
pub struct ReservedPod<'a> {
    /// The entry in `status.reservations`.
    pub reservation: &'a Reservation,
    /// The workload of the pool whose maximum it counts against.
    pub limited_by: LimitedBy,
    /// The pod in the watch of pending pods, if this pool has not granted it.
    pub waiting: Option<&'a PodFacts>,
    /// The pod in the watch of pending pods, if this pool has granted it.
    pub in_flight: Option<&'a PodFacts>,
    /// Whether the reservation no longer counts: the pod counts as granted itself, cannot be granted any longer
    /// (for example because it is bound), was granted by another pool, or is gone.
    pub is_settled: bool,
    /// Whether the pod is in no watch and the reservation still counts.
    pub is_unwatched: bool,
}

/// The workload whose maximum a reservation counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// The workload at this index in `spec.workloads`. It selects the pod now.
    Workload(usize),
    /// No workload of the pool selects the pod.
    NoWorkload,
    /// Unknown: the pod is in no watch, and no workload has the name in the reservation. It counts against the
    /// maximum of every workload.
    Unknown,
}

/// Collects everything that concerns `pool`.
pub fn observe<'a>(
    pool: &'a BurstPool,
    world: &ClusterInputs<'a>,
    own: &PoolInputs<'a>,
) -> ObservedPool<'a> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let mut assignment = Assignment::new(world.pools, world.scales, world.namespaces);
    let mut workloads = workloads(pool, world, &assignment);
    let candidates = pending_pods(pool, world, own, &mut assignment, &mut workloads);
    count_pods_of_others(name, world, own, &mut assignment, &mut workloads);
    let guests = user_placed_pods(name, own, &mut assignment);
    ObservedPool {
        pool: name,
        leadership: current_leadership(pool, own),
        identity: own.identity,
        is_triggered: own.is_triggered,
        granted: granted(name, world, own, &mut assignment),
        expired: expired(name, world, &mut assignment),
        reservations: reservations(pool, world, own, &mut assignment),
        workloads,
        pending_pods: candidates,
        user_placed: guests,
        placements: own.placements,
        claims: world.claims,
        neighbors: world.neighbors,
        namespaces: world.namespaces,
        leader_state: own.leader_state,
        ahead: own.ahead,
    }
}

/// An instance leads only if the pool status that it plans from names it. That status also contains the
/// reservations that must be counted, and its `resourceVersion` fences the next write.
fn current_leadership(pool: &BurstPool, own: &PoolInputs<'_>) -> Leadership {
    let leader = pool.status.as_ref().and_then(|s| s.leader.as_deref());
    if leader == Some(own.identity) {
        own.leadership
    } else {
        Leadership::Unclaimed
    }
}

fn workloads<'a>(
    pool: &'a BurstPool,
    world: &ClusterInputs<'a>,
    assignment: &Assignment<'a>,
) -> Vec<ObservedWorkload<'a>> {
    let name = pool.name_any();
    let all = pool.spec.workloads.iter().enumerate();
    all.map(|(index, spec)| ObservedWorkload {
        spec,
        scale: spec
            .target
            .as_ref()
            .and_then(|_| world.scales.get(&(name.clone(), spec.name.clone())))
            .and_then(|scale| scale.as_ref().ok()),
        selection_error: assignment.selection_error(&name, index).map(str::to_owned),
        shadowed_by: assignment
            .shadowed_by(&name, index)
            .map(|owner| describe_workload(owner.pool, owner.workload, &name)),
        owned_by_others: HashMap::new(),
        running_elsewhere: 0,
    })
    .collect()
}

fn pending_pods<'a>(
    pool: &'a BurstPool,
    world: &ClusterInputs<'a>,
    own: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
    workloads: &mut [ObservedWorkload<'a>],
) -> Vec<PendingPod<'a>> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let taint = provider_taint(name);
    let asked: Vec<_> = own
        .placements
        .iter()
        .map(|place| {
            let mut specs = pool.spec.placements.iter();
            let spec = specs.find(|spec| spec.name == place.placement)?;
            own.eligibility
                .target_id(spec, &pool.spec.azure.tags, &place.node)
        })
        .collect();
    let mut candidates = Vec::new();
    for pod in world.waiting {
        let is_granted = assignment.is_granted(pod) || own.leader_state.is_unmarked(&pod.id.uid);
        if is_granted || !matches!(pod.stage, PodStage::Undecided | PodStage::Unschedulable(_)) {
            continue;
        }
        let mut members = assignment.workloads_of(pod);
        let Some(first) = members.next() else {
            continue;
        };
        for other in members.filter(|other| other.pool == name) {
            workloads[other.index]
                .add_owned_by_other(describe_workload(first.pool, first.workload, name), false);
        }
        if first.pool == name {
            candidates.push(PendingPod {
                pod,
                workload: first.index,
                refusals: asked
                    .iter()
                    .map(|asked| own.eligibility.get(&pod.id, (*asked)?))
                    .collect(),
                is_user_placed: pod.node_constraints.tolerates(&taint),
                has_foreign_grant: pod.foreign_grant.is_some(),
            });
        }
    }
    candidates
}

/// Counts the pods that other workloads own: pods granted for them, and user-placed pods on other pools' nodes.
fn count_pods_of_others<'a>(
    name: &str,
    world: &ClusterInputs<'a>,
    own: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
    workloads: &mut [ObservedWorkload<'a>],
) {
    let granted = world.labelled.iter().filter_map(|pod| {
        let grant = pod.grant.as_ref()?;
        Some((*pod, grant.pool.as_str(), grant.workload.as_str()))
    });
    for (pod, by, of) in granted.filter(|(pod, ..)| pod.stage != PodStage::Finished) {
        let node = pod.bound().map(|bound| world.is_node_of(&bound.node, by));
        let is_known = assignment.is_granted(pod);
        let limits = (by == name).then(|| assignment.limiting_workload(name, pod, of));
        let of = limits.flatten().map_or(of, |member| member.workload);
        for member in assignment
            .workloads_of(pod)
            .filter(|member| member.pool == name)
        {
            let workload = &mut workloads[member.index];
            if is_known && (member.pool, member.workload) != (by, of) {
                workload.add_owned_by_other(describe_workload(by, of, name), node == Some(false));
            } else if !is_known && node == Some(true) {
                workload.running_elsewhere += 1;
            }
        }
    }
    let ours: HashSet<&str> = own.bound.iter().map(|pod| pod.id.uid.as_str()).collect();
    let guests = world.on_pool_nodes.iter().filter(|pod| {
        pod.grant.is_none() && pod.bound().is_some() && !ours.contains(pod.id.uid.as_str())
    });
    for pod in guests {
        for member in assignment
            .workloads_of(pod)
            .filter(|member| member.pool == name)
        {
            workloads[member.index].running_elsewhere += 1;
        }
    }
}

/// The name of a workload for messages in the pool `to`: with its pool's name if that is another pool.
fn describe_workload(pool: &str, workload: &str, to: &str) -> String {
    if pool == to {
        format!("workload {workload}")
    } else {
        format!("workload {workload} of pool {pool}")
    }
}

impl ObservedWorkload<'_> {
    fn add_owned_by_other(&mut self, to: String, is_at_home: bool) {
        *self.owned_by_others.entry(to).or_default() += 1;
        self.running_elsewhere += u64::from(!is_at_home);
    }
}

fn granted<'a>(
    name: &str,
    world: &ClusterInputs<'a>,
    own: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<GrantedPod<'a>> {
    let unmarked = world.waiting.iter().chain(own.bound);
    let unmarked = unmarked
        .filter(|pod| pod.grant.is_none() && own.leader_state.is_unmarked(&pod.id.uid))
        .map(|pod| (*pod, ""));
    let marked = world.labelled.iter().filter_map(|pod| {
        let grant = pod.grant.as_ref().filter(|grant| grant.pool == name)?;
        Some((*pod, grant.workload.as_str()))
    });
    // While one of two watches is behind, both may show the same unmarked pod.
    let mut seen = HashSet::new();
    let ours = marked.chain(unmarked).filter_map(|(pod, workload)| {
        if pod.stage == PodStage::Finished || pod.has_expired() || !seen.insert(pod.id.uid.as_str())
        {
            return None;
        }
        let node = pod.bound().map(|bound| world.is_node_of(&bound.node, name));
        let workload = assignment.limiting_workload(name, pod, workload);
        Some(GrantedPod {
            pod,
            workload: workload.map(|member| member.index),
            is_spilled: node == Some(true),
            is_home: node == Some(false),
        })
    });
    ours.collect()
}

fn expired<'a>(
    name: &str,
    world: &ClusterInputs<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<(&'a PodFacts, Option<usize>)> {
    let all = world.labelled.iter();
    let all = all.filter(|pod| pod.has_expired() && pod.is_granted_by(name));
    all.map(|pod| {
        let workload = pod
            .grant
            .as_ref()
            .and_then(|grant| assignment.limiting_workload(name, pod, &grant.workload));
        (*pod, workload.map(|member| member.index))
    })
    .collect()
}

fn user_placed_pods<'a>(
    name: &str,
    own: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<(&'a PodFacts, Option<usize>)> {
    let placed = own
        .bound
        .iter()
        .filter(|pod| pod.bound().is_some() && !pod.is_granted_by(name))
        .filter(|pod| !own.leader_state.is_unmarked(&pod.id.uid));
    placed
        .map(|pod| {
            let first = assignment.workloads_of(pod).next();
            let own = first.filter(|member| member.pool == name);
            (*pod, own.map(|member| member.index))
        })
        .collect()
}

fn reservations<'a>(
    pool: &'a BurstPool,
    world: &ClusterInputs<'a>,
    own: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<ReservedPod<'a>> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let all = pool.status.iter().flat_map(|status| &status.reservations);
    let all: Vec<&Reservation> = all.collect();
    if all.is_empty() {
        return Vec::new();
    }
    let uids: HashSet<&str> = all.iter().map(|entry| entry.uid.as_str()).collect();
    let find = |pods: &'a [&'a PodFacts]| -> HashMap<&'a str, &'a PodFacts> {
        let known = pods.iter().map(|pod| (pod.id.uid.as_str(), *pod));
        known.filter(|(uid, _)| uids.contains(uid)).collect()
    };
    let (waiting, labelled) = (find(world.waiting), find(world.labelled));
    let entries = all.into_iter().map(|entry| {
        let uid = entry.uid.as_str();
        let (waits, labelled) = (waiting.get(uid).copied(), labelled.get(uid).copied());
        let is_settled = labelled.is_some_and(|pod| supersedes_reservation(entry, pod, name))
            || waits.is_some_and(PodFacts::is_done_without_grant)
            || own.leader_state.is_settled(entry)
            || own.leader_state.is_unmarked(uid);
        let is_out_of_sight = !is_settled && waits.is_none() && labelled.is_none();
        ReservedPod {
            reservation: entry,
            limited_by: limited_by(pool, entry, waits.or(labelled), assignment),
            waiting: waits.filter(|pod| !pod.is_granted_by(name)),
            in_flight: waits.filter(|pod| pod.is_granted_by(name)),
            is_settled,
            is_unwatched: is_out_of_sight,
        }
    });
    entries.collect()
}

/// Whether the label's watch shows that a reserved pod no longer needs its reservation: this pool's grant is
/// visible, no grant can make the pod need a slot, or it has another grant at a later version.
fn supersedes_reservation(entry: &Reservation, pod: &PodFacts, pool: &str) -> bool {
    let is_anothers =
        pod.grant.is_some() && VersionComparison::compare(entry, pod) == VersionComparison::Newer;
    pod.is_granted_by(pool) || pod.is_done_without_grant() || is_anothers
}

fn limited_by<'a>(
    pool: &BurstPool,
    entry: &Reservation,
    pod: Option<&'a PodFacts>,
    assignment: &mut Assignment<'a>,
) -> LimitedBy {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let Some(pod) = pod else {
        let mut workloads = pool.spec.workloads.iter();
        let named = workloads.position(|one| one.name == entry.workload);
        return named.map_or(LimitedBy::Unknown, LimitedBy::Workload);
    };
    let member = assignment.limiting_workload(name, pod, &entry.workload);
    member.map_or(LimitedBy::NoWorkload, |member| {
        LimitedBy::Workload(member.index)
    })
}
