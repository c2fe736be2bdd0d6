//! When the plan grants a pod, and when it leaves a pod alone.

use jiff::SignedDuration;
use serde_json::json;

use crate::burst::PodWriteResult;
use crate::burst::facts::pod::PodStage;
use crate::burst::fixtures::{PlanScene, at, granted, pod, pool};
use crate::burst::outcome::{HoldReason, IgnoreReason, PodOutcome};
use crate::burst::plan::BurstPlan;
use crate::burst::rules::hold::NOMINATION_HOLD;

fn held(second: i64) -> PodOutcome {
    PodOutcome::Hold {
        until: at(second),
        why: HoldReason::TooEarly,
    }
}

fn ignored(why: IgnoreReason) -> PodOutcome {
    PodOutcome::Ignore(why)
}

fn is_granted(scene: &PlanScene, second: i64, name: &str) -> bool {
    matches!(scene.outcome(second, name), PodOutcome::Grant { .. })
}

#[test]
fn a_refused_pod_is_granted_after_its_hold_and_not_before() {
    let scene = PlanScene::new(&json!({}), &["a", "b"]);
    let early = scene.plan(14);
    assert_eq!(scene.outcome(14, "a"), held(15));
    assert_eq!(early.replan_after, Some(std::time::Duration::from_secs(1)));
    assert_eq!(granted(&scene.plan(15)), ["a", "b"]);
}

#[test]
fn neither_a_hold_nor_the_rate_changes_when_the_api_servers_clock_is_set() {
    let spec = json!({"spill": {"rate": {"pods": 1, "per": "1m"}}});
    let mut scene = PlanScene::new(&spec, &["a", "gated"]);
    scene.waiting[1].is_first_generation = false;
    scene.ahead = SignedDuration::from_secs(90);
    let first = scene.plan(0);
    scene.execute(&first, 0);
    assert_eq!(
        scene.waiting[1].refused_since,
        Some(at(90)),
        "the API server's time"
    );
    for ahead in [-3600, 0, 3600] {
        scene.ahead = SignedDuration::from_secs(ahead);
        for name in ["a", "gated"] {
            assert_eq!(scene.outcome(14, name), held(15), "{ahead}");
        }
        assert!(is_granted(&scene, 15, "a"), "{ahead}");
    }
    // A grant of another leader 10 s ago counts in this minute.
    for ahead in [-3600, 0, 3600] {
        scene.ahead = SignedDuration::from_secs(ahead);
        scene.labelled = vec![pod("granted").granted("shop", "web", 20 + ahead)];
        assert_eq!(granted(&scene.plan(30)), [""; 0], "{ahead}");
        assert_eq!(granted(&scene.plan(79)), [""; 0], "{ahead}");
        assert_eq!(granted(&scene.plan(80)).len(), 1, "{ahead}");
    }
}

#[test]
fn a_workloads_own_hold_replaces_the_pools() {
    let mut workload = crate::burst::fixtures::target("web");
    workload["spill"] = json!({"after": "20m"});
    let scene = PlanScene::new(&json!({"workloads": [workload]}), &["a"]);
    assert_eq!(scene.outcome(1199, "a"), held(1200));
    assert!(is_granted(&scene, 1200, "a"));
}

#[test]
fn while_a_trigger_is_active_the_hold_is_the_shorter_one_and_no_limit_is_exceeded() {
    let spec = json!({"spill": {"after": "15s", "afterWhenTriggered": "2s", "maxReplicas": 1}});
    let mut scene = PlanScene::new(&spec, &["a", "b"]);
    scene.is_triggered = true;
    assert_eq!(scene.outcome(1, "a"), held(2));
    assert_eq!(granted(&scene.plan(2)).len(), 1);
    scene.is_triggered = false;
    assert_eq!(
        scene.outcome(2, "a"),
        held(15),
        "it closes with the trigger"
    );
    let mut workload = crate::burst::fixtures::target("web");
    workload["spill"] = json!({"after": "1s"});
    let spec = json!({"spill": {"afterWhenTriggered": "2s"}, "workloads": [workload]});
    let mut own = PlanScene::new(&spec, &["a"]);
    own.is_triggered = true;
    assert!(
        is_granted(&own, 1, "a"),
        "a workload's own is shorter still"
    );
}

#[test]
fn the_hold_of_a_gated_pod_starts_at_its_first_seen_refusal_also_after_a_restart() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    scene.waiting[0].is_first_generation = false;
    assert_eq!(scene.outcome(600, "a"), held(615));
    let plan = scene.plan(600);
    assert_eq!(plan.refused_since_stamps.len(), 1);
    scene.execute(&plan, 600);
    scene.leader_state = crate::burst::LeaderState::default();
    assert_eq!(scene.plan(610).refused_since_stamps, []);
    assert_eq!(scene.outcome(610, "a"), held(615));
    assert!(is_granted(&scene, 615, "a"));
}

#[test]
fn a_stamp_that_cannot_be_written_does_not_start_the_hold_anew() {
    let mut scene = PlanScene::new(&json!({"mode": "DryRun"}), &["a"]);
    scene.waiting[0].is_first_generation = false;
    let plan = scene.plan(600);
    scene.record(&plan, 600);
    assert!(is_granted(&scene, 615, "a"));
}

#[test]
fn a_gated_deleting_or_not_yet_refused_pod_is_never_granted() {
    let mut scene = PlanScene::new(&json!({}), &["gated", "deleting"]);
    scene.waiting[0].stage = PodStage::Undecided;
    scene.waiting[1].is_deleting = true;
    assert_eq!(
        scene.outcome(3600, "gated"),
        ignored(IgnoreReason::NotUnschedulable)
    );
    assert_eq!(
        scene.outcome(3600, "deleting"),
        ignored(IgnoreReason::Deleting)
    );
    assert_eq!(scene.plan(3600).counts, crate::api::PodCounts::default());
}

#[test]
fn a_nominated_pod_is_granted_only_when_its_nomination_is_stale() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    scene.waiting[0].is_nominated = true;
    let span = i64::try_from(NOMINATION_HOLD.as_secs()).expect("a small number");
    // The pod has waited long. Its nomination counts from when it was seen.
    let plan = scene.plan(2000);
    let why = HoldReason::Nominated;
    let until = at(2000 + span);
    assert_eq!(plan.decisions[0].outcome, PodOutcome::Hold { until, why });
    scene.record(&plan, 2000);
    assert!(!is_granted(&scene, 2000 + span - 1, "a"));
    assert!(is_granted(&scene, 2000 + span, "a"));
}

#[test]
fn a_pod_whose_spec_changes_while_it_is_held_is_not_held_anew() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    let plan = scene.plan(10);
    scene.record(&plan, 10);
    scene.waiting[0] = pod("a").at_version("2");
    scene.waiting[0].is_first_generation = false;
    assert_eq!(scene.outcome(11, "a"), held(15));
    assert_eq!(scene.plan(11).refused_since_stamps[0].since, at(0));
}

#[test]
fn a_pod_that_tolerates_the_nodes_without_a_grant_is_left_to_its_user() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    let spec = json!({"containers": [], "tolerations": [{"operator": "Exists"}]});
    let spec = serde_json::from_value(spec).expect("a spec");
    scene.waiting[0].node_constraints =
        crate::burst::facts::node_constraints::NodeConstraints::from_pod_spec(&spec);
    assert_eq!(scene.outcome(60, "a"), ignored(IgnoreReason::UserPlaced));
    scene.bound = vec![pod("b").on("burst-shop-weu")];
    let plan = scene.plan(60);
    assert_eq!((plan.counts.user_placed, plan.counts.spilled), (1, 0));
}

#[test]
fn a_pod_that_another_pool_granted_is_not_granted_again() {
    let mut scene = PlanScene::new(&json!({}), &[]);
    scene.waiting = vec![pod("a").granted("other", "web", 3)];
    scene.others = vec![pool("other", &json!({"workloads": []}))];
    assert_eq!(scene.plan(60).decisions, []);
}

#[test]
fn a_pod_whose_grant_is_denied_is_left_alone_for_a_while_and_the_others_go_on() {
    let mut scene = PlanScene::new(&json!({"spill": {"maxReplicas": 1}}), &["a", "b"]);
    let plan = scene.plan(15);
    assert_eq!(granted(&plan), ["a"]);
    scene.write_reservations(&plan);
    let a = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&a);
    scene.leader_state.record_grant_answer(
        &a,
        PodWriteResult::Denied("Kyverno says no".to_owned()),
        at(15),
    );
    let plan = scene.plan(16);
    assert_eq!(
        granted(&plan),
        ["b"],
        "the slot is free again: nothing was granted"
    );
    let denied = &plan.decisions[0];
    assert!(denied.is_denied() && denied.outcome.to_string().contains("Kyverno says no"));
    scene.execute(&plan, 16);
    assert!(!is_granted(&scene, 25, "a"), "it has lost its turn");
}

#[test]
fn a_pod_that_changed_meanwhile_is_decided_again_when_the_watch_shows_it() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    let a = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&a);
    scene
        .leader_state
        .record_grant_answer(&a, PodWriteResult::Conflict, at(15));
    assert_eq!(
        scene.outcome(15, "a"),
        PodOutcome::InFlight,
        "the old version is not tried twice"
    );
    scene.waiting[0].id.resource_version = "2".to_owned();
    scene.waiting[0].is_deleting = true;
    assert_eq!(scene.outcome(16, "a"), ignored(IgnoreReason::Deleting));
    assert_eq!(scene.plan(16).reservations, [], "and its slot is free");
}

#[test]
fn a_dry_run_decides_the_same_and_reserves_nothing() {
    let active = PlanScene::new(&json!({"spill": {"maxReplicas": 1}}), &["a", "b"]).plan(15);
    let spec = json!({"mode": "DryRun", "spill": {"maxReplicas": 1}});
    let dry = PlanScene::new(&spec, &["a", "b"]).plan(15);
    let outcomes = |plan: &BurstPlan| -> Vec<PodOutcome> {
        let decisions = plan.decisions.iter();
        decisions.map(|decision| decision.outcome.clone()).collect()
    };
    assert_eq!(outcomes(&dry), outcomes(&active));
    assert!(dry.is_dry_run && dry.reservations.is_empty() && !dry.must_write_reservations);
    assert_eq!((dry.counts.granted, dry.counts.holding), (0, 2));
    assert_eq!((active.counts.granted, active.counts.holding), (1, 1));
}
