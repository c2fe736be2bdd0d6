//! The maximum is exact across leader changes and lost answers (decision D1a).

use serde_json::{Value, json};

use crate::burst::PodWriteResult;
use crate::burst::fixtures::{PlanScene, at, granted, pod, reservation};
use crate::burst::leader_state::PodWrite;
use crate::burst::outcome::{BlockedBy, PodOutcome};

fn one() -> Value {
    json!({"spill": {"maxReplicas": 1}})
}

#[test]
fn a_reserved_pod_counts_before_it_is_seen_granted_and_is_not_reserved_twice() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    assert!(plan.must_write_reservations);
    scene.write_reservations(&plan);
    scene
        .leader_state
        .record_patch_sent(&scene.waiting[0].id.clone());
    scene.leader_state.record_grant_answer(
        &scene.waiting[0].id.clone(),
        PodWriteResult::Granted,
        at(15),
    );
    let next = scene.plan(15);
    assert_eq!(
        (next.grants().count(), next.must_write_reservations),
        (0, false)
    );
    assert_eq!(scene.outcome(15, "a"), PodOutcome::InFlight);
    // Now the label's watch shows it: it counts as granted, and its reservation is removed.
    let a = scene.waiting.remove(0).granted("shop", "web", 15);
    scene.labelled.push(a);
    let seen = scene.plan(16);
    assert_eq!((seen.grants().count(), seen.counts.granted), (0, 1));
    assert!(seen.must_write_reservations && seen.reservations.is_empty());
}

#[test]
fn a_grant_in_flight_holds_its_slot_and_is_neither_sent_again_nor_released() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    let first = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&first);
    scene.placements[0].unavailable = Some("it is full".to_owned());
    let plan = scene.plan(16);
    assert_eq!((plan.grants().count(), plan.releases.len()), (0, 0));
    assert_eq!(
        (plan.reservations.len(), plan.must_write_reservations),
        (1, false)
    );
    scene.placements[0].unavailable = None;
    assert_eq!(scene.outcome(16, "a"), PodOutcome::InFlight);

    // The pod changes, and is granted again before the first grant is answered. The answer belongs to the
    // first.
    scene.waiting[0] = pod("a").at_version("2");
    let plan = scene.plan(17);
    assert_eq!(
        (granted(&plan), plan.must_write_reservations),
        (vec!["a"], true)
    );
    scene.write_reservations(&plan);
    scene
        .leader_state
        .record_patch_sent(&scene.waiting[0].id.clone());
    let denied = PodWriteResult::Denied("no".to_owned());
    scene
        .leader_state
        .record_grant_answer(&first, denied, at(17));
    let plan = scene.plan(17);
    assert_eq!(
        (plan.grants().count(), plan.must_write_reservations),
        (0, false)
    );
    assert_eq!(scene.outcome(17, "a"), PodOutcome::InFlight);
}

#[test]
fn a_grant_that_only_the_watch_of_pending_pods_shows_counts_by_its_reservation() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene
        .leader_state
        .record_patch_sent(&scene.waiting[0].id.clone());
    scene.waiting[0] = pod("a").granted("shop", "web", 15);
    assert_eq!(
        (
            scene.plan(16).grants().count(),
            scene.plan(16).reservations.len()
        ),
        (0, 1)
    );
    // The pod is bound: it has left the watch of pending pods, and the label's watch is late.
    scene.waiting.remove(0);
    let plan = scene.plan(17);
    assert_eq!(
        (plan.grants().count(), plan.unwatched_reservations.len()),
        (0, 1)
    );
}

#[test]
fn a_lost_answer_is_asked_for_again_and_counts_until_it_is_known() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    let a = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&a);
    scene
        .leader_state
        .record_grant_answer(&a, PodWriteResult::Lost, at(15));
    assert_eq!(granted(&scene.plan(16)), ["a"]);
    scene.leader_state.record_patch_sent(&a);
    scene
        .leader_state
        .record_grant_answer(&a, PodWriteResult::Denied("no".to_owned()), at(16));
    let plan = scene.plan(17);
    assert_eq!(plan.grants().count(), 0, "the first patch may come yet");
    assert_eq!(plan.releases, [a], "and does not when the pod is changed");
    scene.waiting[0].id.resource_version = "2".to_owned();
    assert_eq!(
        granted(&scene.plan(18)),
        ["b"],
        "a version after it shows that it did not"
    );
}

#[test]
fn a_pod_that_changed_without_a_grant_holds_no_slot_for_any_leader() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene.change_leader("another");
    // A patch of a frozen leader is for version 1, and fails.
    scene.waiting[0] = pod("a").at_version("2");
    scene.waiting[0].is_deleting = true;
    let plan = scene.plan(16);
    assert_eq!((granted(&plan), plan.releases.len()), (vec!["b"], 0));
    assert_eq!(plan.reservations.len(), 1);
}

#[test]
fn a_pod_is_granted_only_at_the_version_that_is_reserved() {
    let mut scene = PlanScene::new(&one(), &["a"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene.waiting[0] = pod("a").at_version("2");
    let again = scene.plan(16);
    assert_eq!(
        (granted(&again), again.must_write_reservations),
        (vec!["a"], true)
    );
    assert_eq!(again.reservations[0].resource_version, "2");
    scene.write_reservations(&again);
    assert!(!scene.plan(16).must_write_reservations);
    // Another instance leads, and its watch is behind: the pod may be granted already.
    scene.change_leader("another");
    scene.waiting[0] = pod("a").at_version("1");
    let plan = scene.plan(17);
    assert_eq!((plan.grants().count(), plan.releases.len()), (0, 0));
    assert_eq!(
        (plan.reservations, plan.must_write_reservations),
        (again.reservations, false)
    );
    assert_eq!(scene.outcome(17, "a"), PodOutcome::InFlight);
    scene.waiting[0] = pod("a").at_version("10");
    assert_eq!(granted(&scene.plan(18)), ["a"], "10 is later than 2");
}

#[test]
fn a_reservation_that_comes_to_nothing_is_given_back_by_changing_its_pod() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene.change_leader("another");
    scene.placements[0].unavailable = Some("it is full".to_owned());
    let a = scene.waiting[0].id.clone();
    let plan = scene.plan(16);
    assert_eq!(
        (&plan.releases, plan.reservations.len()),
        (&vec![a.clone()], 1)
    );
    scene
        .leader_state
        .record_write(&a, PodWrite::Release, &PodWriteResult::Lost, at(16));
    let plan = scene.plan(17);
    assert_eq!(plan.releases, [], "it is not asked for again at once");
    assert_eq!(plan.replan_after, Some(std::time::Duration::from_secs(9)));
    assert_eq!(scene.plan(26).releases, [a]);
    scene.waiting[0] = pod("a").at_version("2");
    let plan = scene.plan(27);
    assert_eq!((plan.releases.len(), plan.reservations.len()), (0, 0));
}

#[test]
fn a_reserved_pod_that_the_scheduler_placed_elsewhere_frees_its_slot() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    scene.change_leader("another");
    let a = scene.waiting.remove(0).on("home-1");
    let entry = reservation(&pod("a"), "me");
    scene.leader_state.record_lookup(&entry, Some(&a));
    let plan = scene.plan(18);
    assert_eq!(granted(&plan), ["b"]);
    assert_eq!(plan.reservations.len(), 1);
}

#[test]
fn a_reserved_pod_counts_against_the_rate_and_frees_its_slot_when_the_limit_falls() {
    let mut scene = PlanScene::new(&json!({"spill": {"rate": {"pods": 2}}}), &["a", "b", "c"]);
    let plan = scene.plan(15);
    assert_eq!(granted(&plan), ["a", "b"]);
    scene.write_reservations(&plan);
    scene.change_leader("another");
    assert_eq!(granted(&scene.plan(16)), ["a", "b"]);
    scene.pool.spec.spill.max_replicas = crate::api::MaxReplicas::Count(1);
    let plan = scene.plan(16);
    assert_eq!(granted(&plan), ["a"]);
    assert_eq!(plan.releases, [scene.waiting[1].id.clone()]);
    assert_eq!(
        scene.outcome(16, "b"),
        PodOutcome::Blocked(BlockedBy::PoolLimit(1))
    );
    assert_eq!(plan.reservations.len(), 2, "until they are changed");
    scene.pool.spec.spill.max_replicas = crate::api::MaxReplicas::Count(0);
    assert_eq!(scene.plan(16).releases.len(), 2);
}

#[test]
fn a_pod_that_was_reported_gone_and_is_patched_again_holds_its_slot() {
    let mut scene = PlanScene::new(&one(), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    let a = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&a);
    scene
        .leader_state
        .record_grant_answer(&a, PodWriteResult::Gone, at(15));
    scene.record(&plan, 15);
    let plan = scene.plan(16);
    assert_eq!(granted(&plan), ["a"]);
    scene.leader_state.record_patch_sent(&a);
    scene.record(&plan, 16);
    let plan = scene.plan(16);
    assert_eq!((plan.grants().count(), plan.reservations.len()), (0, 1));
}

#[test]
fn a_lost_grant_counts_against_the_rate_for_as_long_as_it_may_yet_be_given() {
    let mut scene = PlanScene::new(
        &json!({"spill": {"rate": {"pods": 1, "per": "1m"}}}),
        &["a", "b"],
    );
    let plan = scene.plan(15);
    assert_eq!(granted(&plan), ["a"]);
    scene.write_reservations(&plan);
    let a = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&a);
    scene
        .leader_state
        .record_grant_answer(&a, PodWriteResult::Lost, at(15));
    assert_eq!(
        granted(&scene.plan(80)),
        ["a"],
        "one in this minute, not two"
    );
}
