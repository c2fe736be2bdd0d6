//! Grants and reservations of other leaders, of earlier terms, and of other pools (decision D1a).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::burst::PodWriteResult;
use crate::burst::fixtures::{PlanScene, at, granted, pod, pool, scales, target};
use crate::burst::leader_state::PodWrite;
use crate::burst::observation::Leadership;
use crate::burst::outcome::{BlockedBy, PodOutcome};
use crate::burst::plan::Precondition;

fn one() -> Value {
    json!({"spill": {"maxReplicas": 1}})
}

#[test]
fn a_new_leader_claims_the_pool_then_counts_and_grants_only_then() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    for (standing, first) in [
        (Leadership::Unclaimed, Precondition::ClaimLeadership),
        (Leadership::Uncounted, Precondition::CountPods),
    ] {
        scene.leadership = standing;
        let plan = scene.plan(15);
        assert_eq!(
            (
                plan.precondition,
                plan.grants().count(),
                plan.must_write_reservations
            ),
            (first, 0, false)
        );
        assert_eq!(
            scene.outcome(15, "a"),
            PodOutcome::Blocked(BlockedBy::NotLeading)
        );
    }
    scene.leadership = Leadership::Leading;
    let plan = scene.plan(15);
    assert_eq!(
        (plan.precondition, granted(&plan)),
        (Precondition::Met, vec!["a"])
    );
}

#[test]
fn a_new_leader_finishes_the_reservations_that_it_finds() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene.change_leader("another");
    let plan = scene.plan(16);
    assert_eq!(
        (granted(&plan), plan.must_write_reservations),
        (vec!["a"], false)
    );
    scene.waiting.remove(0);
    let plan = scene.plan(18);
    assert_eq!(
        (plan.grants().count(), plan.unwatched_reservations.len()),
        (0, 1)
    );
    scene
        .leader_state
        .record_lookup(&plan.unwatched_reservations[0], None);
    let plan = scene.plan(18);
    assert_eq!(
        (granted(&plan), plan.unwatched_reservations.len()),
        (vec!["b"], 0)
    );
}

#[test]
fn a_new_leader_gives_nothing_back_for_a_percentage_of_what_it_does_not_know_yet() {
    let workloads = [target("web"), target("db")];
    let half = json!({"workloads": workloads, "spill": {"maxReplicas": "50%"}});
    let mut scene = PlanScene::new(&half, &["a", "b"]);
    scene.scales = scales(&[("web", 2, 2), ("db", 18, 18)]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene.change_leader("another");
    scene.scales = scales(&[("web", 2, 2)]);
    let plan = scene.plan(16);
    assert_eq!((granted(&plan), plan.releases.len()), (vec!["a", "b"], 0));
}

#[test]
fn an_instance_that_the_status_does_not_name_does_not_lead() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    scene.pool.status.get_or_insert_default().leader = Some("another".to_owned());
    let plan = scene.plan(15);
    assert_eq!(
        (plan.precondition, plan.grants().count()),
        (Precondition::ClaimLeadership, 0)
    );
    scene.pool.status = None;
    assert_eq!(scene.plan(15).precondition, Precondition::ClaimLeadership);
}

#[test]
fn a_leader_of_a_second_term_frees_old_reservations_after_it_changed_the_pods() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    // Another instance leads, adopts the reservation, and freezes with its patch in flight. Then the first
    // leads again.
    scene.change_leader("another");
    assert_eq!(granted(&scene.plan(16)), ["a"]);
    scene.change_leader("me, again");
    let a = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&a);
    scene
        .leader_state
        .record_grant_answer(&a, PodWriteResult::Denied("no".to_owned()), at(17));
    let plan = scene.plan(18);
    assert_eq!(
        plan.grants().count(),
        0,
        "the other's patch of this version may come yet"
    );
    assert_eq!(
        (plan.reservations.len(), &plan.releases),
        (1, &vec![a.clone()])
    );
    scene
        .leader_state
        .record_write(&a, PodWrite::Release, &PodWriteResult::Granted, at(18));
    scene.waiting[0] = pod("a").at_version("2");
    assert_eq!(granted(&scene.plan(19)), ["b"]);
}

#[test]
fn a_pod_that_a_deleted_pool_granted_is_granted_again_and_counts() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    scene.waiting[0] = pod("a").granted("old", "web", 1);
    scene.labelled = scene.waiting[..1].to_vec();
    let mut old = pool("old", &json!({"workloads": []}));
    scene.others = vec![old.clone()];
    assert_eq!(granted(&scene.plan(15)), ["b"], "its pool has it still");

    old.metadata.deletion_timestamp = Some(Time(at(14)));
    for others in [vec![old], Vec::new()] {
        scene.others = others;
        assert_eq!(granted(&scene.plan(15)), ["a"], "it is the oldest");
    }
    let plan = scene.plan(15);
    assert!(!plan.workloads[0].message.contains("belongs"), "{plan:?}");
    scene.write_reservations(&plan);
    // A new leader knows of no patch: the reservation stays, whatever the label's watch shows.
    scene.change_leader("other");
    let plan = scene.plan(15);
    assert_eq!((granted(&plan), plan.reservations.len()), (vec!["a"], 1));
    scene
        .leader_state
        .record_patch_sent(&scene.waiting[0].id.clone());
    let again = pod("a").granted("shop", "web", 15).at_version("2");
    scene.waiting[0] = again.clone();
    let plan = scene.plan(16);
    assert_eq!((plan.grants().count(), plan.reservations.len()), (0, 1));
    scene.labelled = vec![again];
    let plan = scene.plan(16);
    assert_eq!((plan.reservations.len(), plan.counts.granted), (0, 1));
}

#[test]
fn a_reservation_of_a_pod_that_another_pool_granted_meanwhile_is_given_back() {
    let mut scene = PlanScene::new(&one(), &["a"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene.change_leader("other");
    scene.others = vec![pool("old", &json!({"workloads": []}))];
    let theirs = pod("a").granted("old", "web", 15).at_version("2");
    scene.labelled = vec![theirs.clone()];
    scene.waiting.clear();
    assert_eq!(scene.plan(16).reservations.len(), 0, "its label tells");
    scene.labelled.clear();
    scene.waiting = vec![theirs];
    assert_eq!(scene.plan(16).reservations.len(), 0, "it waits, changed");
}

#[test]
fn a_pod_that_another_pool_granted_holds_a_slot_of_the_pool_whose_node_it_is_on() {
    let mut scene = PlanScene::new(&one(), &["a"]);
    scene.others = vec![pool("old", &json!({"workloads": []}))];
    scene.bound = vec![pod("b").granted("old", "web", 1).on("burst-shop-weu")];
    assert_eq!(
        scene.outcome(15, "a"),
        PodOutcome::Blocked(BlockedBy::PoolLimit(1))
    );
}
