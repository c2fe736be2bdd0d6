//! When a grant expires: the scheduler places the pod on no virtual node, although one is open and has room.
//!
//! In: granted pods without a node. Out: the grants that expire now, and the pods whose time runs. The
//! scheduler may keep a pod off every placement by topology spread or anti-affinity, which depend on all pods
//! of the cluster. Without expiry such a pod would hold its slot forever. The API server does not let a
//! toleration be removed. So a pending pod whose grant has expired holds no slot. It holds one again if the
//! scheduler places it on ACI after all. While it is pending, the operator grants no other pod of its template.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::burst::facts::pod::{PodFacts, PodReference, PodStage};
use crate::burst::facts::resource_amounts::ResourceAmounts;
use crate::burst::leader_state::PodWrite;
use crate::burst::leader_state::placement_health::PlacementAvailability;
use crate::burst::observation::{Leadership, ObservedPool};
use crate::k8s::time::later;

/// For how long the scheduler may leave a granted pod without a node while there is room: 330 seconds. The
/// scheduler retries each unschedulable pod at least every 5 minutes.
pub const EXPIRY_TIMEOUT: Duration = Duration::from_secs(330);

/// A grant that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantExpiry {
    /// The granted pod.
    pub pod: PodReference,
    /// The scheduler's message that says why it placed the pod on no virtual node.
    pub why: String,
}

/// Granted pods without a node that the scheduler has refused although there is room.
pub(in crate::burst) struct UnplacedGrants {
    /// The grants that expire now.
    pub(in crate::burst) expiries: Vec<GrantExpiry>,
    /// UIDs of all these pods.
    pub(in crate::burst) uids: Vec<String>,
    /// When the next grant expires.
    pub(in crate::burst) next: Option<Timestamp>,
}

/// Finds these pods. While the operator may not write, no grant expires.
pub(in crate::burst) fn stuck(
    observed: &ObservedPool<'_>,
    is_dry_run: bool,
    now: Timestamp,
) -> UnplacedGrants {
    let may_write = observed.leadership == Leadership::Leading && !is_dry_run;
    let mut all = UnplacedGrants {
        expiries: Vec::new(),
        uids: Vec::new(),
        next: None,
    };
    let granted = observed.granted.iter().map(|granted| granted.pod);
    let waiting: Vec<&PodFacts> = granted.filter(|pod| is_passed_by(pod)).collect();
    if waiting.is_empty() {
        return all;
    }
    let open = open(observed, now);
    for pod in waiting {
        let has_room = open.iter().any(|(at, left)| {
            let place = &observed.placements[*at];
            let ruled = pod
                .node_constraints
                .refusal(&place.node, &place.labels, &place.taints);
            ruled.is_none() && pod.requests.shortage_in(*left).is_none()
        });
        if !has_room {
            continue;
        }
        all.uids.push(pod.id.uid.clone());
        let since = observed
            .leader_state
            .stuck_since(&pod.id.uid)
            .unwrap_or(now);
        let paused = observed
            .leader_state
            .write_retry_at(PodWrite::Expire, &pod.id.uid);
        let due = later(since, EXPIRY_TIMEOUT).max(paused.unwrap_or(since));
        if now < due {
            all.next = Some(all.next.map_or(due, |next| next.min(due)));
        } else if may_write {
            let refused = pod.grant.as_ref().and_then(|grant| grant.refused.clone());
            all.expiries.push(GrantExpiry {
                pod: pod.id.clone(),
                why: refused.unwrap_or_default(),
            });
        }
    }
    all
}

/// UIDs of pending pods whose grants have expired.
pub(in crate::burst) fn uids(observed: &ObservedPool<'_>) -> Vec<String> {
    let expired = observed.expired.iter();
    expired.map(|(pod, _)| pod.id.uid.clone()).collect()
}

/// Pods that the scheduler placed on ACI since the last plan, after their grants had expired. They count as
/// granted pods, so the pool may exceed its maximum.
pub(in crate::burst) fn late(observed: &ObservedPool<'_>) -> Vec<PodReference> {
    let spilled = observed.granted.iter().filter(|granted| granted.is_spilled);
    let late = spilled.filter(|granted| observed.leader_state.had_expired(&granted.pod.id.uid));
    late.map(|granted| granted.pod.id.clone()).collect()
}

/// Whether the scheduler has tried the pod since it was granted, and placed it nowhere. While no scheduler
/// runs, no grant expires: otherwise the slots would go to other pods, and the scheduler could later place
/// both.
fn is_passed_by(pod: &PodFacts) -> bool {
    let grant = pod.grant.as_ref();
    let is_refused = grant.is_some_and(|grant| grant.refused.is_some());
    matches!(pod.stage, PodStage::Unschedulable(_)) && is_refused && !pod.is_deleting
}

/// The indexes of the placements that are not closed, with what the pods bound to their nodes leave free.
fn open(observed: &ObservedPool<'_>, now: Timestamp) -> Vec<(usize, ResourceAmounts)> {
    let mut used: HashMap<&str, ResourceAmounts> = HashMap::new();
    let granted = observed.granted.iter().map(|granted| granted.pod);
    for pod in granted.chain(observed.user_placed.iter().map(|(pod, _)| *pod)) {
        if let Some(bound) = pod.bound() {
            let used = used.entry(bound.node.as_str()).or_default();
            *used = used.plus(pod.requests);
        }
    }
    let places = observed.placements.iter().enumerate();
    let open = places.filter(|(_, place)| {
        let health = observed
            .leader_state
            .placement_health()
            .get(&place.placement);
        let is_closed = health.is_some_and(|one| {
            matches!(one.availability(now), PlacementAvailability::Closed { .. })
        });
        place.unavailable.is_none() && !is_closed
    });
    open.map(|(at, place)| {
        let used = used.get(place.node.as_str()).copied().unwrap_or_default();
        (at, place.allocatable.minus(used))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::burst::fixtures::{PlanScene, at, granted, pod};
    use crate::burst::leader_state::PodWrite;
    use crate::burst::outcome::PodOutcome;
    use crate::burst::{PodDecision, PodWriteResult};

    /// The pool's maximum is 1. A granted pod has no node. Two pods wait: one of another template, one of the
    /// same.
    fn scene() -> PlanScene {
        let mut scene = PlanScene::new(&json!({"spill": {"maxReplicas": 1}}), &["other", "same"]);
        let owner = scene.waiting[0].owner.as_mut().expect("an owner");
        owner.template = "web-2/".to_owned();
        let mut stuck = pod("stuck").granted("shop", "web", 0);
        stuck.grant.as_mut().expect("a grant").refused = Some("no zone".to_owned());
        scene.labelled.push(stuck);
        scene
    }

    fn expires_at(scene: &mut PlanScene, seconds: &[i64]) -> Vec<bool> {
        let mut expire = |second: &i64| {
            let plan = scene.plan(*second);
            scene.record(&plan, *second);
            plan.expiries.len() == 1 && plan.expiries[0].why == "no zone"
        };
        seconds.iter().map(&mut expire).collect()
    }

    #[test]
    fn a_grant_expires_if_the_scheduler_long_leaves_its_pod_unplaced_despite_room() {
        let mut all = scene();
        assert_eq!(expires_at(&mut all, &[10, 339, 340]), [false, false, true]);
        let mut full = scene();
        full.placements[0].allocatable.pods = 0;
        assert_eq!(expires_at(&mut full, &[10, 340, 1000]), [false; 3]);
        full.placements[0].allocatable.pods = 5;
        assert_eq!(
            expires_at(&mut full, &[1001, 1330, 1331]),
            [false, false, true]
        );
        let mut shut = scene();
        shut.placements[0].unavailable = Some("it is full".to_owned());
        assert_eq!(expires_at(&mut shut, &[10, 340, 1000]), [false; 3]);
        let mut unseen = scene();
        unseen.labelled[0].grant.as_mut().expect("a grant").refused = None;
        assert_eq!(expires_at(&mut unseen, &[10, 340, 1000]), [false; 3]);
        let id = all.labelled[0].id.clone();
        let denied = PodWriteResult::Denied("no".to_owned());
        all.leader_state
            .record_write(&id, PodWrite::Expire, &denied, at(340));
        assert_eq!(expires_at(&mut all, &[341, 349, 350]), [false, false, true]);
    }

    #[test]
    fn in_a_dry_run_no_grant_expires() {
        let mut scene = scene();
        scene.pool.spec.mode = crate::api::Mode::DryRun;
        assert_eq!(expires_at(&mut scene, &[10, 340, 1000]), [false; 3]);
    }

    #[test]
    fn a_grant_that_has_expired_holds_no_slot_and_keeps_off_other_pods_of_its_template() {
        let mut scene = scene();
        assert_eq!(granted(&scene.plan(100)), [""; 0]);
        let grant = scene.labelled[0].grant.as_mut().expect("a grant");
        grant.is_expired = true;
        let plan = scene.plan(100);
        assert_eq!(granted(&plan), ["other"]);
        let same = plan.decisions.iter().find(|one| one.pod.name == "same");
        let Some(PodDecision {
            outcome: PodOutcome::Refuse(why),
            ..
        }) = same
        else {
            unreachable!("it is granted: {same:?}");
        };
        assert_eq!(
            why[0].why,
            "the scheduler places the pod shop/stuck of its template on no virtual node; that pod's condition \
             PodScheduled says why"
        );
        assert_eq!((plan.counts.refused, plan.counts.granted), (2, 1));
        scene.record(&plan, 100);
        assert_eq!(scene.plan(101).late, []);
        // The scheduler places it after all: it counts, and the plan reports it once.
        scene.labelled[0] = scene.labelled[0].clone().on("burst-shop-weu");
        let plan = scene.plan(102);
        assert_eq!(granted(&plan), [""; 0]);
        assert_eq!((plan.counts.spilled, plan.counts.refused), (1, 0));
        let late: Vec<&str> = plan.late.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(late, ["stuck"]);
        scene.record(&plan, 102);
        assert_eq!(scene.plan(103).late, []);
    }

    #[test]
    fn what_the_scheduler_says_of_expired_grants_changes_no_message() {
        let mut scene = scene();
        let mut stuck = scene.labelled.remove(0);
        stuck.grant.as_mut().expect("a grant").is_expired = true;
        let mut said = |order: [&str; 2], words: [&str; 2]| {
            let pods = order.iter().zip(words).map(|(name, words)| {
                let mut one = stuck.clone();
                (one.id.name, one.id.uid) = ((*name).to_owned(), (*name).to_owned());
                one.grant.as_mut().expect("a grant").refused = Some(words.to_owned());
                one
            });
            scene.labelled = pods.collect();
            let message = scene.plan(100).workloads[0].message.clone();
            (scene.outcome(100, "same").to_string(), message)
        };
        let first = said(["stuck-1", "stuck-2"], ["0/5 nodes", "0/5 nodes"]);
        assert_eq!(
            said(["stuck-2", "stuck-1"], ["0/6 nodes", "0/5 nodes"]),
            first
        );
        assert_eq!(
            said(["stuck-1", "stuck-2"], ["0/6 nodes", "0/7 nodes"]),
            first
        );
        assert!(first.0.contains("shop/stuck-1"), "{}", first.0);
    }
}
