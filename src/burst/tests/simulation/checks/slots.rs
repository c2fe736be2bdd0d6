//! How many slots are used: never more than the limits allow.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::burst::tests::simulation::cluster::{APPS, Cluster, NODE};
use crate::k8s::time::later;

/// For how long a write may be in flight whose plan did not include recent changes: longer than an instance is
/// frozen.
const UNSEEN: Duration = Duration::from_secs(300);

/// The pods that use a slot: granted and not on one of the cluster's own nodes, or reserved and neither there
/// nor gone.
fn slots(cluster: &Cluster) -> BTreeSet<&str> {
    let reserved = cluster.reservations().iter().filter_map(|entry| {
        let pod = cluster.pods.get(&entry.uid)?;
        (!pod.facts.is_done_without_grant()).then_some(entry.uid.as_str())
    });
    let home = |uid: &&str| {
        let bound = cluster.pods[*uid].facts.bound();
        bound.is_none_or(|bound| bound.node == NODE)
    };
    reserved.filter(home).chain(cluster.away()).collect()
}

/// The number of slots of the pool, and of each workload.
pub type SlotCounts = (u64, [u64; 3]);

/// The maximum of the pool, and of each workload.
pub fn limits(cluster: &Cluster) -> SlotCounts {
    let spec = &cluster.pool.spec;
    let pool = spec
        .spill
        .max_replicas
        .resolve(cluster.desired.iter().sum());
    let mut each = [u64::MAX; 3];
    for (index, workload) in spec.workloads.iter().enumerate() {
        if let Some(max) = workload.spill.as_ref().and_then(|spill| spill.max_replicas) {
            each[index] = max.resolve(cluster.desired[index]);
        }
    }
    (pool, each)
}

/// How many slots the pool and each workload use.
pub fn held(cluster: &Cluster) -> SlotCounts {
    count(cluster, &slots(cluster))
}

/// The same without pods that the scheduler placed recently after their grants had expired. The instances may
/// not have seen these yet.
pub fn held_knowingly(cluster: &Cluster) -> SlotCounts {
    let mut slots = slots(cluster);
    slots.retain(|uid| {
        let facts = &cluster.pods[*uid].facts;
        let since = facts.bound().and_then(|bound| bound.bound_since);
        let is_new = since.is_some_and(|since| cluster.now < later(since, UNSEEN));
        !is_new || !facts.grant.as_ref().is_some_and(|grant| grant.is_expired)
    });
    count(cluster, &slots)
}

fn count(cluster: &Cluster, slots: &BTreeSet<&str>) -> SlotCounts {
    let mut each = [0; 3];
    for uid in slots {
        each[cluster.pods[*uid].app] += 1;
    }
    (slots.len() as u64, each)
}

/// No slot is taken above the limit that applied when the write was planned: whatever has grown is within its
/// limit.
pub fn within_limits(cluster: &Cluster, before: SlotCounts, most: SlotCounts) {
    let after = held_knowingly(cluster);
    let is_within = |before: u64, after: u64, most: u64| after <= before || after <= most;
    assert!(
        is_within(before.0, after.0, most.0),
        "{} slots after {} at a maximum of {}",
        after.0,
        before.0,
        most.0
    );
    for (app, name) in APPS.iter().enumerate() {
        assert!(
            is_within(before.1[app], after.1[app], most.1[app]),
            "{} slots of {} after {} at a maximum of {}",
            after.1[app],
            name,
            before.1[app],
            most.1[app]
        );
    }
}

/// A grant never takes a slot: its reservation already has.
pub fn no_slot_more(cluster: &Cluster, before: SlotCounts) {
    let after = held(cluster);
    assert!(
        after.0 <= before.0,
        "a grant took a slot that was not reserved: {after:?} after {before:?}"
    );
}
