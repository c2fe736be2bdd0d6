//! Selects what concerns one pool from all watched objects.
//!
//! In: [`ClusterInputs`], which is the same for every pool, and [`PoolInputs`], which is known about this pool only. Out:
//! [`ObservedPool`], which borrows from both. The module assigns pods to pools and workloads, and decides nothing
//! else.
//!
//! Slots are counted from one watch only: that of the pool label. A pod that moves from the watch of pending
//! pods to the watch of a node is in neither for a moment (decision D1a). A grant that only another watch shows
//! still counts through its reservation.

mod inputs;
mod observed_pool;
mod reserved_pods;

use std::collections::{HashMap, HashSet};

use kube::ResourceExt as _;

use super::facts::assignment::Assignment;
use super::facts::pod::{PodFacts, PodStage, provider_taint};
use crate::api::BurstPool;

pub use inputs::{ClusterInputs, Leadership, PoolInputs};
pub use observed_pool::{
    GrantedPod, LimitedBy, ObservedPool, ObservedWorkload, PendingPod, ReservedPod,
};

/// Collects everything that concerns `pool`.
pub fn observe<'a>(
    pool: &'a BurstPool,
    cluster: &ClusterInputs<'a>,
    inputs: &PoolInputs<'a>,
) -> ObservedPool<'a> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let mut assignment = Assignment::new(cluster.pools, cluster.scales, cluster.namespaces);
    let mut workloads = workloads(pool, cluster, &assignment);
    let pending_pods = pending_pods(pool, cluster, inputs, &mut assignment, &mut workloads);
    count_pods_of_others(name, cluster, inputs, &mut assignment, &mut workloads);
    let user_placed = user_placed_pods(name, inputs, &mut assignment);
    ObservedPool {
        pool: name,
        leadership: current_leadership(pool, inputs),
        identity: inputs.identity,
        is_triggered: inputs.is_triggered,
        granted: granted(name, cluster, inputs, &mut assignment),
        expired: expired(name, cluster, &mut assignment),
        reservations: reserved_pods::find(pool, cluster, inputs, &mut assignment),
        workloads,
        pending_pods,
        user_placed,
        placements: inputs.placements,
        claims: cluster.claims,
        neighbors: cluster.neighbors,
        namespaces: cluster.namespaces,
        leader_state: inputs.leader_state,
        ahead: inputs.ahead,
    }
}

/// An instance leads only if the pool status that it plans from names it. That status also contains the
/// reservations that must be counted, and its `resourceVersion` fences the next write.
fn current_leadership(pool: &BurstPool, inputs: &PoolInputs<'_>) -> Leadership {
    let leader = pool.status.as_ref().and_then(|s| s.leader.as_deref());
    if leader == Some(inputs.identity) {
        inputs.leadership
    } else {
        Leadership::Unclaimed
    }
}

fn workloads<'a>(
    pool: &'a BurstPool,
    cluster: &ClusterInputs<'a>,
    assignment: &Assignment<'a>,
) -> Vec<ObservedWorkload<'a>> {
    let name = pool.name_any();
    let all = pool.spec.workloads.iter().enumerate();
    all.map(|(index, spec)| ObservedWorkload {
        spec,
        accepted: pool.spec.spill.accepted_losses(spec),
        scale: spec
            .target
            .as_ref()
            .and_then(|_| cluster.scales.get(&(name.clone(), spec.name.clone())))
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
    cluster: &ClusterInputs<'a>,
    inputs: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
    workloads: &mut [ObservedWorkload<'a>],
) -> Vec<PendingPod<'a>> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let taint = provider_taint(name);
    let asked: Vec<_> = inputs
        .placements
        .iter()
        .map(|place| {
            let mut specs = pool.spec.placements.iter();
            let spec = specs.find(|spec| spec.name == place.placement)?;
            inputs
                .eligibility
                .target_id(spec, &pool.spec.azure.tags, &place.node)
        })
        .collect();
    let mut candidates = Vec::new();
    for pod in cluster.waiting {
        let is_granted = assignment.is_granted(pod) || inputs.leader_state.is_unmarked(&pod.id.uid);
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
                    .map(|asked| inputs.eligibility.get(&pod.id, (*asked)?))
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
    cluster: &ClusterInputs<'a>,
    inputs: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
    workloads: &mut [ObservedWorkload<'a>],
) {
    let granted = cluster.labelled.iter().filter_map(|pod| {
        let grant = pod.grant.as_ref()?;
        Some((*pod, grant.pool.as_str(), grant.workload.as_str()))
    });
    for (pod, by, of) in granted.filter(|(pod, ..)| pod.stage != PodStage::Finished) {
        let node = pod.bound().map(|bound| cluster.is_node_of(&bound.node, by));
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
    let ours: HashSet<&str> = inputs.bound.iter().map(|pod| pod.id.uid.as_str()).collect();
    let guests = cluster.on_pool_nodes.iter().filter(|pod| {
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

fn granted<'a>(
    name: &str,
    cluster: &ClusterInputs<'a>,
    inputs: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<GrantedPod<'a>> {
    let unmarked = cluster.waiting.iter().chain(inputs.bound);
    let unmarked = unmarked
        .filter(|pod| pod.grant.is_none() && inputs.leader_state.is_unmarked(&pod.id.uid))
        .map(|pod| (*pod, ""));
    let marked = cluster.labelled.iter().filter_map(|pod| {
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
        let node = pod
            .bound()
            .map(|bound| cluster.is_node_of(&bound.node, name));
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
    cluster: &ClusterInputs<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<(&'a PodFacts, Option<usize>)> {
    let all = cluster.labelled.iter();
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
    inputs: &PoolInputs<'a>,
    assignment: &mut Assignment<'a>,
) -> Vec<(&'a PodFacts, Option<usize>)> {
    let placed = inputs
        .bound
        .iter()
        .filter(|pod| pod.bound().is_some() && !pod.is_granted_by(name))
        .filter(|pod| !inputs.leader_state.is_unmarked(&pod.id.uid));
    placed
        .map(|pod| {
            let first = assignment.workloads_of(pod).next();
            let member = first.filter(|member| member.pool == name);
            (*pod, member.map(|member| member.index))
        })
        .collect()
}
