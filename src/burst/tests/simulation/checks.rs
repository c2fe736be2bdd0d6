//! What must hold, whatever happens.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::{APPS, Cluster, NODE, SimPod};
use super::operator::Operator;
use crate::burst::amounts::Amounts;
use crate::burst::hold::later;
use crate::burst::pod::Stage;

/// The pods that hold a slot: granted and not at home, or reserved and not at home or gone.
pub fn slots(cluster: &Cluster) -> BTreeSet<&str> {
    let reserved = cluster.reservations().iter().filter_map(|entry| {
        let pod = cluster.pods.get(&entry.uid)?;
        (!pod.facts.is_past_granting()).then_some(entry.uid.as_str())
    });
    let home = |uid: &&str| {
        let bound = cluster.pods[*uid].facts.bound();
        bound.is_none_or(|bound| bound.node == NODE)
    };
    reserved.filter(home).chain(cluster.away()).collect()
}

/// The most that the pool, and each workload, may have.
fn limits(cluster: &Cluster) -> (u64, [u64; 3]) {
    let spec = &cluster.pool.spec;
    let pool = spec.spill.max_replicas.of(cluster.desired.iter().sum());
    let mut each = [u64::MAX; 3];
    for (index, workload) in spec.workloads.iter().enumerate() {
        if let Some(max) = workload.spill.as_ref().and_then(|spill| spill.max_replicas) {
            each[index] = max.of(cluster.desired[index]);
        }
    }
    (pool, each)
}

/// How many slots the pool holds, and each workload.
pub fn held(cluster: &Cluster) -> (u64, [u64; 3]) {
    let slots = slots(cluster);
    let mut each = [0; 3];
    for uid in &slots {
        each[cluster.pods[*uid].app] += 1;
    }
    (slots.len() as u64, each)
}

/// No slot is taken above the limit that is in force: whoever has more than before has no more than
/// that.
pub fn within_limits(cluster: &Cluster, before: (u64, [u64; 3])) {
    let (after, most) = (held(cluster), limits(cluster));
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

/// A grant never takes a slot: its reservation has.
pub fn no_slot_more(cluster: &Cluster, before: (u64, [u64; 3])) {
    let after = held(cluster);
    assert!(
        after.0 <= before.0,
        "a grant took a slot that was not reserved: {after:?} after {before:?}"
    );
}

/// No pod is granted twice, early, or in vain.
pub fn grant(cluster: &Cluster, pod: &SimPod) {
    let facts = &pod.facts;
    let name = &facts.id.name;
    assert!(facts.grant.is_none(), "{name} is granted twice");
    assert!(
        !pod.is_ineligible,
        "{name} is granted, and ACI cannot run it"
    );
    assert!(!facts.is_deleting, "{name} is granted while it is deleted");
    assert!(
        matches!(facts.stage, Stage::Refused(_)),
        "{name} is granted at {:?}",
        facts.stage
    );
    let spec = &cluster.pool.spec;
    let workload = spec
        .workloads
        .iter()
        .find(|w| w.name == facts.labels["app"]);
    let own = workload.and_then(|workload| workload.spill.as_ref()?.after);
    let after: Duration = own.unwrap_or(spec.spill.after).into();
    let first = pod.first_refused.expect("it was refused");
    assert!(
        later(first, after) <= cluster.now,
        "{name} is granted before its hold is over"
    );
}

/// No minute has more grants than the rate allows, if nobody forgot any. They count from when they
/// were decided: a patch may come late.
pub fn rate(cluster: &Cluster) {
    let rate = &cluster.pool.spec.spill.rate;
    let per = Duration::from(rate.per);
    let grants = cluster.granted_at.iter().rev().take(100);
    for end in grants.clone() {
        let since = end.saturating_sub(per).expect("in range");
        let count = grants.clone().filter(|at| **at > since && *at <= end);
        let count = count.count();
        let is_known = later(cluster.disturbed, per) < since;
        assert!(
            !is_known || count <= rate.pods as usize,
            "{count} grants in a minute"
        );
    }
}

/// After a time in which nothing changed, whoever could be granted has been, and no reservation is left.
/// While anything changes, a pod may wait for long though it could be granted: where pods come and go,
/// each workload has its share, and a slot is free for the moment until the next one has it.
pub fn nobody_starves(cluster: &Cluster, leader: &Operator) {
    let left = cluster.reservations();
    assert!(left.is_empty(), "reserved still: {left:?}");
    let (held, (pool, each)) = (held(cluster), limits(cluster));
    if held.0 >= pool {
        return;
    }
    let used = cluster.away().iter().fold(Amounts::default(), |sum, uid| {
        sum.plus(cluster.pods[*uid].facts.asks)
    });
    let left = cluster.offers().minus(used);
    let calm = cluster
        .now
        .saturating_sub(Duration::from_secs(900))
        .expect("in range");
    for pod in cluster.pods.values() {
        let could = pod.facts.grant.is_none()
            && matches!(pod.facts.stage, Stage::Refused(_))
            && pod.first_refused.is_some_and(|first| first < calm)
            && !pod.is_ineligible
            && !pod.facts.is_deleting
            && pod.denied_until < calm
            && held.1[pod.app] < each[pod.app]
            && pod.facts.asks.lacks(left).is_none();
        assert!(
            !could,
            "{} starves: {:?}",
            pod.facts.id.name,
            leader
                .last
                .decisions
                .iter()
                .find(|decision| decision.pod.uid == pod.facts.id.uid)
        );
    }
}
