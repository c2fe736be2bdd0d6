//! The pods of a pool's reservations: what the watches show of them, and whether each reservation still counts.

use std::collections::{HashMap, HashSet};

use super::inputs::{ClusterInputs, PoolInputs};
use super::observed_pool::{LimitedBy, ReservedPod};
use crate::api::{BurstPool, Reservation};
use crate::burst::facts::assignment::Assignment;
use crate::burst::facts::pod::PodFacts;
use crate::burst::facts::versions::VersionComparison;

/// Finds the pods of the pool's reservations in the watches.
pub(super) fn find<'a>(
    pool: &'a BurstPool,
    cluster: &ClusterInputs<'a>,
    inputs: &PoolInputs<'a>,
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
    let (waiting, labelled) = (find(cluster.waiting), find(cluster.labelled));
    let departed = find(cluster.departed);
    let entries = all.into_iter().map(|entry| {
        let uid = entry.uid.as_str();
        let (waits, labelled) = (waiting.get(uid).copied(), labelled.get(uid).copied());
        let is_settled = labelled.is_some_and(|pod| supersedes_reservation(entry, pod, name))
            || waits.is_some_and(PodFacts::is_done_without_grant)
            || inputs.leader_state.is_settled(entry)
            || inputs.leader_state.is_unmarked(uid);
        let is_out_of_sight = !is_settled && waits.is_none() && labelled.is_none();
        let departed = departed.get(uid).copied().filter(|_| is_out_of_sight);
        let last_seen = waits.or(labelled).or(departed);
        ReservedPod {
            reservation: entry,
            limited_by: limited_by(pool, entry, last_seen, assignment),
            departed,
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
