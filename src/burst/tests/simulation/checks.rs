//! The invariants: what must hold whatever happens.

mod churn;
mod doors;
pub mod peaks;
mod refused;
mod slots;

pub use churn::ChurnCheck;
pub use doors::DoorCheck;
pub use peaks::PeakCheck;
pub use refused::RefusalCheck;
pub use slots::{SlotCounts, held, held_knowingly, limits, no_slot_more, within_limits};

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::cluster::{APPS, Cluster, NEVER, NODE, SimPod};
use super::operator::{InstanceClocks, Operator};
use crate::burst::PodDecision;
use crate::burst::facts::pod::PodStage;
use crate::burst::facts::resource_amounts::ResourceAmounts;
use crate::burst::outcome::{HoldReason, PodOutcome};
use crate::burst::plan::BurstPlan;
use crate::burst::rules::hold::NOMINATION_HOLD;
use crate::burst::select::never_started::START_TIMEOUT;
use crate::k8s::time::later;

/// No pod is granted twice, too early, or in vain.
pub fn grant(cluster: &Cluster, pod: &SimPod) {
    let facts = &pod.facts;
    let name = &facts.id.name;
    assert!(facts.grant.is_none(), "{name} is granted twice");
    assert!(!pod.is_foreign, "{name} tolerates the node by itself");
    // The plan cannot know in advance that a pod that tolerates the node by itself will run there.
    let other = cluster.keeps_out(pod).find(|other| !other.is_foreign);
    let other = other.map(|other| &other.facts.id.name);
    assert!(
        other.is_none(),
        "{name} is granted beside {other:?}, which keeps it out"
    );
    assert!(
        !pod.is_ineligible,
        "{name} is granted, and ACI cannot run it"
    );
    assert!(!facts.is_deleting, "{name} is granted while it is deleted");
    assert!(
        matches!(facts.stage, PodStage::Unschedulable(_)),
        "{name} is granted at {:?}",
        facts.stage
    );
    let is_held = facts.is_nominated && !is_nominated_before(pod, cluster.now);
    assert!(
        !is_held,
        "{name} is granted while the scheduler makes room for it"
    );
}

/// Only a pod that had its time to start, and whose owner replaces it, is deleted.
pub fn rescue(pod: &SimPod, now: Timestamp) {
    let facts = &pod.facts;
    let since = facts.bound().and_then(|bound| bound.bound_since);
    let is_late = since.is_some_and(|since| later(since, START_TIMEOUT) <= now);
    assert!(
        is_late && facts.owner.is_some(),
        "{} is deleted, bound since {since:?}",
        facts.id.name
    );
}

/// No more is bound than Azure can start, by container group sizes and together with the other placement of the
/// region. Exceptions are pods that were granted while Azure had more capacity and bound later, pods that users
/// place, and a quota that is still exceeded after it was reduced.
pub fn starts_all(cluster: &Cluster) {
    let taken: i64 = ours(cluster)
        .map(|pod| pod.facts.node_usage().cpu_milli)
        .sum();
    let other = cluster.region.other * 1000;
    let is_excused = cluster.region.is_exceeded || ours(cluster).any(|pod| pod.is_late);
    assert!(
        taken + other <= cluster.capacity * 1000 || is_excused,
        "{taken} thousandths of a core are bound beside {other} of another placement, of {} cores",
        cluster.capacity
    );
}

/// No more pods wait for a create than Azure still takes creates.
pub fn creates_all(cluster: &Cluster) {
    let waits = |pod: &&SimPod| pod.facts.bound().is_some_and(|bound| !bound.has_started);
    let uncreated = i64::try_from(ours(cluster).filter(waits).count()).expect("few");
    let creates = cluster.creates_left().unwrap_or(i64::MAX);
    assert!(
        uncreated <= creates || ours(cluster).any(|pod| pod.is_late),
        "{uncreated} pods wait for a create, and {creates} creates are left"
    );
}

/// The granted pods on the node.
fn ours(cluster: &Cluster) -> impl Iterator<Item = &SimPod> {
    let all = cluster.pods.values().filter(|pod| !pod.is_foreign);
    all.filter(|pod| pod.facts.bound().is_some_and(|bound| bound.node == NODE))
}

/// A pod that is bound starts, or is given back where its owner makes another.
pub fn every_bound_pod_starts(cluster: &Cluster, calm: Timestamp) {
    let waits = cluster.pods.values().filter(|pod| {
        let facts = &pod.facts;
        !pod.is_stuck && !facts.is_deleting && facts.grant.is_some() && facts.owner.is_some()
    });
    for pod in waits {
        let bound = pod
            .facts
            .bound()
            .filter(|bound| bound.node == NODE && !bound.has_started);
        let since = bound
            .and_then(|bound| bound.bound_since)
            .map(|since| since.max(calm));
        assert!(
            since.is_none_or(|since| cluster.now <= later(since, START_TIMEOUT * 2)),
            "{} is bound since {since:?}, and does not start",
            pod.facts.id.name
        );
    }
}

/// Whether the pod has no nomination, or one so old that no plan waits for it.
fn is_nominated_before(pod: &SimPod, time: Timestamp) -> bool {
    let nominated = pod.nominated_at;
    nominated.is_none_or(|at| later(at, NOMINATION_HOLD) <= time)
}

/// No pod is granted before its hold ends. Returns whether the hold was shorter than without a trigger.
/// `is_triggered` is what the deciding instance knows.
pub fn hold(cluster: &Cluster, pod: &SimPod, is_triggered: bool) -> bool {
    let spec = &cluster.pool.spec;
    let own = spec.workloads[pod.app].spill.as_ref();
    let own = own.and_then(|spill| spill.after);
    let after: Duration = own.unwrap_or(spec.spill.after).into();
    let triggered = spec.spill.after_when_triggered.map(Duration::from);
    let least = if is_triggered {
        after.min(triggered.unwrap_or_default())
    } else {
        after
    };
    let first = pod.first_refused.expect("it was refused");
    assert!(
        later(first, least) <= cluster.now,
        "{} is granted before its hold is over",
        pod.facts.id.name
    );
    cluster.now < later(first, after)
}

/// While nothing fails, no pod is held for longer after its refusal than the spec says, whatever the clocks of
/// the instances and of the scheduler show.
pub fn held_no_longer(plan: &BurstPlan, cluster: &Cluster) {
    let spec = &cluster.pool.spec;
    for decision in &plan.decisions {
        let PodOutcome::Hold {
            why: HoldReason::TooEarly,
            ..
        } = decision.outcome
        else {
            continue;
        };
        let Some(pod) = cluster.pods.get(&decision.pod.uid) else {
            continue;
        };
        let own = spec.workloads[pod.app].spill.as_ref();
        let own = own.and_then(|spill| spill.after);
        let after: Duration = own.unwrap_or(spec.spill.after).into();
        // If a pod's spec was changed, its hold begins with the first plan. Instances pause for seconds between
        // plans.
        let most = after + Duration::from_secs(20);
        let first = pod.first_refused.expect("it was refused");
        assert!(
            first <= cluster.calm_from.max(cluster.disturbed) || cluster.now < later(first, most),
            "{} is held since {first}, for longer than {after:?}",
            pod.facts.id.name
        );
    }
}

/// No span that contains this grant has more grants than the rate allows, unless memory was lost. Grants count
/// from the time of the decision, because a patch may arrive late.
pub fn rate(cluster: &Cluster, new: Timestamp) {
    let rate = &cluster.pool.spec.spill.rate;
    let per = Duration::from(rate.per).saturating_sub(InstanceClocks::EXACT);
    let grants = cluster.granted_at.iter().rev().take(100);
    for end in grants
        .clone()
        .filter(|end| new <= **end && **end < later(new, per))
    {
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

/// After a time without changes, every pod that could be granted has been. The only reservations left are of
/// pods whose grant a policy has just denied again.
pub fn no_pod_starves(cluster: &Cluster, leader: &Operator) {
    let is_denied = |uid: &str| {
        let pod = cluster.pods.get(uid);
        pod.is_some_and(|pod| cluster.now < pod.denied_until)
    };
    let mut left = cluster.reservations().iter();
    let left = left.find(|entry| !is_denied(&entry.uid));
    assert!(left.is_none(), "reserved still: {left:?}");
    let (calm, free) = (
        earlier(cluster, Duration::from_secs(900)),
        FreeSlots::of(cluster),
    );
    for pod in cluster.pods.values() {
        assert!(
            !free.has_place_for(pod, calm),
            "{} starves: {:?}",
            pod.facts.id.name,
            last_decision(leader, pod)
        );
    }
}

/// For each workload: since when it has been passed by, and how many of its pods had been granted by then.
pub type PassedBy = [(Timestamp, u64); 3];

/// While pods come and go, nothing fails and Azure does not throttle, a workload that holds less than its own
/// share is not passed by for long, even if other workloads take slots all the time.
pub fn no_workload_is_passed_by(cluster: &Cluster, leader: &Operator, since: &mut PassedBy) {
    if !cluster.is_calm || cluster.shut().is_some() {
        *since = cluster.granted.map(|granted| (cluster.now, granted));
        return;
    }
    let workloads = &cluster.pool.spec.workloads;
    let weights: u64 = workloads.iter().map(|one| u64::from(one.weight)).sum();
    let free = FreeSlots::of(cluster);
    let ready = earlier(cluster, Duration::from_secs(60));
    let rate = u64::from(cluster.pool.spec.spill.rate.pods);
    let waiting = cluster
        .pods
        .values()
        .filter(|pod| pod.facts.grant.is_none());
    let patience = Duration::from_secs(1800 + waiting.count() as u64 * 60 / rate);
    for (app, since) in since.iter_mut().enumerate() {
        let own = free.limits.0 * u64::from(workloads[app].weight) / weights;
        let mut pods = cluster.pods.values().filter(|pod| pod.app == app);
        let waits = pods.find(|pod| free.has_place_for(pod, ready));
        let granted = cluster.granted[app];
        match waits {
            Some(pod) if free.held.1[app] < own && granted == since.1 => assert!(
                cluster.now <= later(since.0, patience),
                "{} is passed by since {}, with {} of {own} slots: {:?}",
                APPS[app],
                since.0,
                free.held.1[app],
                last_decision(leader, pod)
            ),
            _ => *since = (cluster.now, granted),
        }
    }
}

/// The free slots and capacity.
struct FreeSlots {
    held: SlotCounts,
    limits: SlotCounts,
    room: ResourceAmounts,
    groups: ResourceAmounts,
    /// Pods that others keep out of the placement's zone.
    kept_out: BTreeSet<String>,
}

impl FreeSlots {
    fn of(cluster: &Cluster) -> Self {
        // A pod with foreign marks takes room too, or may at any time.
        let is_on_node = |pod: &&SimPod| {
            let bound = pod.facts.bound();
            let waits = pod.is_foreign && bound.is_none() && pod.facts.requests.cpu_milli < NEVER;
            let is_there = bound.is_some_and(|bound| bound.node == NODE);
            pod.facts.grant.is_none() && (is_there || waits)
        };
        let away = cluster.away();
        let away = away.iter().map(|uid| &cluster.pods[*uid]);
        let there = away.chain(cluster.pods.values().filter(is_on_node));
        let (mut room, mut groups) = (cluster.offers(), cluster.groups());
        for pod in there {
            (room, groups) = (
                room.minus(pod.facts.requests),
                groups.minus(pod.facts.node_usage()),
            );
        }
        let kept_out = cluster.pods.values();
        let kept_out = kept_out.filter(|pod| cluster.keeps_out(pod).next().is_some());
        Self {
            held: held(cluster),
            limits: limits(cluster),
            room,
            groups,
            kept_out: kept_out.map(|pod| pod.facts.id.uid.clone()).collect(),
        }
    }

    /// Whether only a decision keeps the pod from being granted, and nothing else has since `since`.
    fn has_place_for(&self, pod: &SimPod, since: Timestamp) -> bool {
        self.held.0 < self.limits.0
            && pod.facts.grant.is_none()
            && pod.kept_off_until.is_none()
            && !pod.is_foreign
            && matches!(pod.facts.stage, PodStage::Unschedulable(_))
            && pod.first_refused.is_some_and(|first| first < since)
            && !pod.is_ineligible
            && !pod.facts.is_deleting
            && pod.denied_until < since
            && is_nominated_before(pod, since)
            && self.held.1[pod.app] < self.limits.1[pod.app]
            && pod.facts.requests.shortage_in(self.room).is_none()
            && pod.facts.node_usage().shortage_in(self.groups).is_none()
            && !self.kept_out.contains(&pod.facts.id.uid)
    }
}

/// The last decision about the pod.
fn last_decision<'a>(leader: &'a Operator, pod: &SimPod) -> Option<&'a PodDecision> {
    let mut decisions = leader.last.decisions.iter();
    decisions.find(|decision| decision.pod.uid == pod.facts.id.uid)
}

fn earlier(cluster: &Cluster, by: Duration) -> Timestamp {
    cluster.now.saturating_sub(by).expect("in range")
}
