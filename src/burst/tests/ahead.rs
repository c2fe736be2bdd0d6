//! Pods are reserved shortly before their hold ends, and no other pod is worse off for it.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::burst::decision::SlotState;
use crate::burst::facts::pod::{PodFacts, PodStage};
use crate::burst::fixtures::{PlanScene, at, granted, pod};
use crate::burst::outcome::PodOutcome;
use crate::burst::plan::BurstPlan;

fn millis(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).expect("in range")
}

/// A pod that was created and refused at this second.
fn refused(name: &str, second: i64) -> PodFacts {
    let mut pod = pod(name);
    pod.created = at(second);
    pod.stage = PodStage::Unschedulable(Some(at(second)));
    pod
}

/// A scene with pods whose holds end at these seconds.
fn scene(spec: &Value, pods: &[(&str, i64)]) -> PlanScene {
    let mut scene = PlanScene::new(spec, &[]);
    let pods = pods.iter();
    scene.waiting = pods.map(|(name, end)| refused(name, end - 15)).collect();
    scene
}

fn reserved(plan: &BurstPlan) -> Vec<&str> {
    let entries = plan.reservations.iter();
    entries.map(|entry| entry.name.as_str()).collect()
}

#[test]
fn a_pod_is_reserved_a_second_before_its_hold_ends_and_granted_without_a_write() {
    let mut scene = scene(&json!({}), &[("a", 30)]);
    let early = scene.plan_at(millis(28_900));
    assert_eq!(
        (reserved(&early), early.must_write_reservations),
        (vec![], false)
    );
    let until = std::time::Duration::from_millis(100);
    assert_eq!(early.replan_after, Some(until));

    let plan = scene.plan(29);
    assert_eq!(
        (reserved(&plan), plan.must_write_reservations),
        (vec!["a"], true)
    );
    assert_eq!((plan.grants().count(), plan.counts.holding), (0, 1));
    scene.execute(&plan, 29);
    let meanwhile = scene.plan_at(millis(29_500));
    let is_quiet = !meanwhile.must_write_reservations && meanwhile.releases.is_empty();
    assert!(is_quiet && meanwhile.grants().count() == 0);
    assert_eq!(meanwhile.reservations, plan.reservations);

    let due = scene.plan(30);
    assert_eq!(
        (granted(&due), due.must_write_reservations),
        (vec!["a"], false)
    );
    assert_eq!(due.decisions[0].slot, SlotState::Reserved);
}

#[test]
fn who_is_ready_has_the_slot_that_another_had_reserved_ahead() {
    let one = json!({"spill": {"maxReplicas": 1}});
    let mut scene = scene(&one, &[("a", 30)]);
    let plan = scene.plan(29);
    scene.execute(&plan, 29);
    scene.waiting.push(refused("b", 14));
    let plan = scene.plan_at(millis(29_100));
    assert_eq!((granted(&plan), reserved(&plan)), (vec!["b"], vec!["b"]));
    assert!(plan.must_write_reservations && plan.releases.is_empty());
}

#[test]
fn only_what_those_that_are_ready_leave_of_slots_rate_and_room_is_reserved_ahead() {
    let pods = [("a", 29), ("b", 30), ("c", 30)];
    let most = json!({"spill": {"maxReplicas": 2}});
    assert_eq!(reserved(&scene(&most, &pods).plan(29)), ["a", "b"]);
    let rate = json!({"spill": {"rate": {"pods": 2}}});
    assert_eq!(reserved(&scene(&rate, &pods).plan(29)), ["a", "b"]);
    let mut narrow = scene(&json!({}), &pods);
    narrow.placements[0].allocatable.cpu_milli = 2500;
    assert_eq!(reserved(&narrow.plan(29)), ["a", "b"]);
    assert!(matches!(narrow.outcome(29, "c"), PodOutcome::Hold { .. }));
    let shown = scene(&json!({"mode": "DryRun"}), &pods);
    assert_eq!(reserved(&shown.plan(29)), Vec::<&str>::new());
}

#[test]
fn a_dry_run_keeps_nothing_that_was_reserved_ahead() {
    let mut scene = scene(&json!({}), &[("a", 30)]);
    let plan = scene.plan(29);
    scene.execute(&plan, 29);
    scene.pool.spec.mode = crate::api::Mode::DryRun;
    let plan = scene.plan(30);
    assert_eq!(
        (reserved(&plan), plan.must_write_reservations),
        (vec![], true)
    );
    assert_eq!(plan.decisions[0].slot, SlotState::None);
}

#[test]
fn what_no_grant_waits_for_is_written_twice_a_second_at_most() {
    let mut scene = scene(&json!({}), &[("a", 30), ("b", 31)]);
    let plan = scene.plan(29);
    scene.execute(&plan, 29);
    scene.waiting.push(refused("c", 15));
    let soon = scene.plan_at(millis(29_100));
    assert_eq!(
        (reserved(&soon), soon.must_write_reservations),
        (vec!["a"], false)
    );
    let left = std::time::Duration::from_millis(400);
    assert_eq!(soon.replan_after, Some(left));
    let plan = scene.plan_at(millis(29_500));
    assert_eq!(
        (reserved(&plan), plan.must_write_reservations),
        (vec!["a", "c"], true)
    );

    // A grant does not wait for the pace of other reservations.
    scene.waiting.push(refused("d", 14));
    let plan = scene.plan_at(millis(29_100));
    assert_eq!(
        (granted(&plan), plan.must_write_reservations),
        (vec!["d"], true)
    );
}

#[test]
fn a_pod_that_finds_room_at_home_meanwhile_is_not_looked_for() {
    let mut scene = scene(&json!({}), &[("a", 30)]);
    let plan = scene.plan(29);
    scene.execute(&plan, 29);
    scene.waiting.clear();
    let plan = scene.plan_at(millis(29_500));
    assert_eq!(
        (
            plan.unwatched_reservations.len(),
            plan.must_write_reservations
        ),
        (0, true)
    );
    assert_eq!(reserved(&plan), Vec::<&str>::new());
}

#[test]
fn a_new_leader_leaves_what_was_reserved_ahead_and_grants_it_when_it_is_due() {
    let mut scene = scene(
        &json!({"spill": {"maxReplicas": 1}}),
        &[("a", 30), ("b", 30)],
    );
    let plan = scene.plan(29);
    scene.execute(&plan, 29);
    scene.change_leader("another");
    let plan = scene.plan_at(millis(29_500));
    assert_eq!((plan.grants().count(), plan.releases.len()), (0, 0));
    assert_eq!(
        (reserved(&plan), plan.must_write_reservations),
        (vec!["a"], false)
    );
    let due = scene.plan(30);
    assert_eq!(
        (granted(&due), due.must_write_reservations),
        (vec!["a"], false)
    );

    // Its hold would now be longer. It is unknown whether another leader may still grant it, so the pod is
    // changed.
    scene.pool.spec.spill.after = std::time::Duration::from_secs(60).into();
    assert_eq!(scene.plan(30).releases, [scene.waiting[0].id.clone()]);
}
