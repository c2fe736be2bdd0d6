//! Where there is room, and what happens when a placement fails.

use serde_json::{Value, json};

use crate::aci::failure::FailureClass;
use crate::burst::facts::pod::{BoundPod, OwnerKind, PodFacts, PodOwner, PodStage};
use crate::burst::fixtures::{PlanScene, at, granted, placement_facts, pod};
use crate::burst::outcome::{BlockedBy, PodOutcome};
use crate::burst::select::never_started::RescueAction;
use crate::burst::{BurstPlan, PlacementAvailability};

fn two() -> Value {
    json!({"placements": [{"name": "weu", "region": "westeurope"}, {"name": "neu", "region": "northeurope"}]})
}

fn places(plan: &BurstPlan) -> Vec<&str> {
    plan.grants()
        .map(|decision| match &decision.outcome {
            PodOutcome::Grant { placement, .. } => placement.as_str(),
            _ => "",
        })
        .collect()
}

fn starting(name: &str, second: i64) -> PodFacts {
    let mut pod = pod(name).granted("shop", "web", second);
    pod.stage = PodStage::Bound(BoundPod {
        node: "burst-shop-weu".to_owned(),
        bound_since: Some(at(second)),
        has_started: false,
        is_running: false,
        refusal: None,
        waiting_for_azure: None,
    });
    pod
}

#[test]
fn grants_fit_the_room_that_user_placed_pods_and_grants_in_flight_leave() {
    let mut scene = PlanScene::new(&json!({}), &["a", "b", "c", "d"]).spilled("web", &["g"]);
    scene.placements = vec![placement_facts("weu", 5)];
    scene.bound = vec![pod("guest").on("burst-shop-weu")];
    scene.labelled.push(pod("flying").granted("shop", "web", 3));
    let plan = scene.plan(15);
    assert_eq!(granted(&plan), ["a", "b"]);
    assert_eq!(
        scene.outcome(15, "c"),
        PodOutcome::Blocked(BlockedBy::Capacity("pods"))
    );
    scene.waiting[0].requests.cpu_milli = 9000;
    assert_eq!(
        scene.outcome(15, "a"),
        PodOutcome::Blocked(BlockedBy::Capacity("cpu"))
    );
    assert_eq!(granted(&scene.plan(15)), ["b", "c"], "smaller ones pass");
}

#[test]
fn room_is_kept_in_turns_for_a_large_pod_that_has_waited_long() {
    let mut scene = PlanScene::new(&json!({}), &["big", "small"]).spilled("web", &["g"]);
    scene.placements = vec![placement_facts("weu", 4)];
    scene.waiting[0].requests.cpu_milli = 4000;
    scene.waiting[0].created = at(-1);
    assert_eq!(granted(&scene.plan(314)), ["small"]);
    assert_eq!(granted(&scene.plan(315)), Vec::<&str>::new());
    assert_eq!(scene.plan(899).grants().count(), 0);
    assert_eq!(
        granted(&scene.plan(900)),
        ["small"],
        "but not for ever: they take turns"
    );
    scene.waiting[0].requests.cpu_milli = 5000;
    assert_eq!(
        granted(&scene.plan(315)),
        ["small"],
        "for one that never fits nothing is kept"
    );
}

#[test]
fn a_full_or_closed_placement_is_passed_over_for_the_next() {
    let mut scene = PlanScene::new(&two(), &["a", "b", "c"]);
    scene.placements = vec![placement_facts("weu", 1), placement_facts("neu", 1)];
    assert_eq!(places(&scene.plan(15)), ["weu", "neu"]);
    scene.placements[0].unavailable = Some("its node is cordoned".to_owned());
    assert_eq!(places(&scene.plan(15)), ["neu"]);
    scene.placements[1].unavailable = Some("its node is not ready".to_owned());
    let why = "weu: its node is cordoned".to_owned();
    assert_eq!(
        scene.outcome(15, "a"),
        PodOutcome::Blocked(BlockedBy::PlacementClosed(why))
    );
}

#[test]
fn a_placement_whose_creates_fail_is_closed_and_then_tried_with_one_pod() {
    let mut scene = PlanScene::new(&two(), &["a", "b", "c"]);
    scene.placements = vec![placement_facts("weu", 9), placement_facts("neu", 1)];
    scene
        .leader_state
        .placement_health_mut("weu")
        .record_failure(FailureClass::Quota, "no cores left", at(20));
    let plan = scene.plan(20);
    assert_eq!(places(&plan), ["neu"], "the other one is used");
    let why = "no cores left".to_owned();
    assert_eq!(
        plan.availability["weu"],
        PlacementAvailability::Closed {
            until: Some(at(50)),
            why
        }
    );
    assert_eq!(
        plan.limit_message.as_deref(),
        Some("pods of web wait: no placement that can run it has enough pods left")
    );
    scene.placements[1].unavailable = Some("it has no node".to_owned());
    let plan = scene.plan(49);
    assert_eq!(plan.replan_after, Some(std::time::Duration::from_secs(1)));
    let plan = scene.plan(50);
    assert_eq!(
        (places(&plan), plan.availability["weu"].clone()),
        (vec!["weu"], PlacementAvailability::OneProbe)
    );
    scene.execute(&plan, 50);
    assert_eq!(
        scene.plan(51).grants().count(),
        0,
        "the probe is on its way"
    );
    scene.labelled[0] = starting("a", 51);
    assert_eq!(scene.plan(52).grants().count(), 0, "the probe is there");
    scene
        .leader_state
        .placement_health_mut("weu")
        .record_success(at(53));
    assert_eq!(scene.plan(53).grants().count(), 2, "it works again");
}

#[test]
fn pods_that_never_started_are_deleted_if_that_costs_nothing_or_else_reported() {
    let mut scene = PlanScene::new(&json!({}), &[]);
    let owned = |name: &str, kind: OwnerKind| {
        let mut pod = starting(name, 10);
        pod.owner = Some(PodOwner {
            kind,
            name: name.to_owned(),
            uid: name.to_owned(),
            template: format!("{name}/"),
        });
        pod
    };
    let job = owned("job", OwnerKind::Job);
    let other = owned("other", OwnerKind::Other);
    let mut leaving = starting("leaving", 10);
    leaving.is_deleting = true;
    let mut fine = starting("fine", 10);
    fine = fine.on("burst-shop-weu");
    scene.labelled = vec![starting("web", 10), job, other, leaving, fine];
    assert_eq!(
        scene.plan(1000).never_started,
        [],
        "where creates do not fail, an image may take its time"
    );
    scene
        .leader_state
        .placement_health_mut("weu")
        .record_failure(FailureClass::Capacity, "no room", at(20));
    let plan = scene.plan(309);
    assert_eq!(
        (plan.never_started.len(), plan.replan_after),
        (0, Some(std::time::Duration::from_secs(1)))
    );
    let rescues = scene.plan(310).never_started;
    let reported: Vec<_> = rescues
        .iter()
        .map(|one| (one.pod.name.as_str(), one.action))
        .collect();
    let all = [
        ("web", RescueAction::Delete),
        ("job", RescueAction::AskJob),
        ("other", RescueAction::Report),
    ];
    assert_eq!(reported, all);
    let why =
        "placement weu starts no pods: no room; it is to be deleted, and its owner makes another";
    assert_eq!(rescues[0].why, why);
    assert_eq!(rescues[1].why, "placement weu starts no pods: no room");
    assert_eq!(rescues[1].owner.as_ref().map(|job| &*job.name), Some("job"));
    assert!(
        rescues[2]
            .why
            .ends_with("it has no owner that makes another")
    );
}

/// The API server writes by its own clock since when a pod is bound.
#[test]
fn the_time_to_start_does_not_depend_on_the_api_servers_clock() {
    let mut scene = PlanScene::new(&json!({}), &[]);
    scene
        .leader_state
        .placement_health_mut("weu")
        .record_failure(FailureClass::Capacity, "no room", at(20));
    for ahead in [-3600, -90, 90, 3600] {
        scene.ahead = jiff::SignedDuration::from_secs(ahead);
        scene.labelled = vec![starting("web", 10 + ahead)];
        let rescued = [309, 310].map(|second| scene.plan(second).never_started.len());
        assert_eq!(rescued, [0, 1], "{ahead}");
    }
}

#[test]
fn pods_that_request_little_are_granted_as_far_as_their_groups_find_cores() {
    let mut scene = PlanScene::new(&json!({}), &["a", "b", "c", "d"]).spilled("web", &["g"]);
    for pod in scene.waiting.iter_mut().chain(&mut scene.labelled) {
        pod.requests.cpu_milli = 250;
    }
    scene.placements = vec![placement_facts("weu", 100)];
    scene.placements[0].capacity.cpu_milli = 3000;
    assert_eq!(granted(&scene.plan(15)), ["a", "b"]);
    assert_eq!(
        scene.outcome(15, "c"),
        PodOutcome::Blocked(BlockedBy::Capacity("cpu"))
    );
    scene.labelled.push(pod("flying").granted("shop", "web", 3));
    assert_eq!(granted(&scene.plan(15)), ["a"]);
}

#[test]
fn a_half_open_placement_is_probed_with_a_granted_pod_while_user_placed_pods_wait() {
    let mut scene = PlanScene::new(&json!({}), &["a", "b"]);
    let failed = |scene: &mut PlanScene, second| {
        let backend = scene.leader_state.placement_health_mut("weu");
        backend.record_failure(FailureClass::Capacity, "no room", at(second));
    };
    // A user-placed pod that waits for a ConfigMap that is never created.
    let mut guest = starting("guest", 1);
    guest.grant = None;
    scene.bound = vec![guest];
    failed(&mut scene, 20);
    assert_eq!(scene.plan(49).grants().count(), 0);
    assert_eq!(granted(&scene.plan(50)), ["a"]);
    // A pod that was granted before is the first probe, but its image does not exist, so it proves nothing.
    scene.labelled = vec![starting("mistyped", 10)];
    let plan = scene.plan(50);
    assert_eq!(plan.grants().count(), 0);
    assert_eq!(plan.replan_after, Some(std::time::Duration::from_secs(120)));
    assert_eq!(scene.plan(169).grants().count(), 0);
    let plan = scene.plan(170);
    assert_eq!(granted(&plan), ["a"]);
    scene.execute(&plan, 170);
    assert_eq!(scene.plan(171).grants().count(), 0, "one at a time");
    scene.labelled[1] = starting("a", 170);
    assert_eq!(granted(&scene.plan(290)), ["b"], "nor does this one");
    failed(&mut scene, 291);
    assert_eq!(scene.plan(291).grants().count(), 0, "it has failed");
}

#[test]
fn a_pod_that_waits_for_azure_is_rescued_and_one_that_waits_for_its_user_is_not() {
    let waits = |name: &str, class: Option<FailureClass>, refused: Option<&str>| {
        let mut pod = starting(name, 10);
        if let PodStage::Bound(bound) = &mut pod.stage {
            bound.waiting_for_azure = class.map(|class| (class, "please wait".to_owned()));
            bound.refusal = refused.map(str::to_owned);
        }
        pod
    };
    let mut scene = PlanScene::new(&json!({}), &[]);
    scene.labelled = vec![
        waits("throttled", Some(FailureClass::Throttled), None),
        waits("unknown", Some(FailureClass::Unknown), None),
        waits("refused", None, Some("no such sku")),
        waits("typo", None, None),
    ];
    let plan = scene.plan(10);
    scene.record(&plan, 10);
    let rescued = |second| {
        let rescues = scene.plan(second).never_started;
        let names = rescues.iter().map(|one| one.pod.name.clone());
        names.collect::<Vec<_>>()
    };
    assert!(rescued(69).is_empty());
    assert_eq!(rescued(70), ["refused"]);
    assert_eq!(rescued(310), ["throttled", "unknown", "refused"]);
    let why = &scene.plan(310).never_started[0].why;
    assert!(why.starts_with(
        "it has not started in 5 minutes, and waits for Azure (Throttled): please wait"
    ));
}

#[test]
fn a_refused_template_is_paused_for_a_while_unless_another_pod_of_it_runs() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    let mut unknown = starting("unknown", 0);
    if let PodStage::Bound(bound) = &mut unknown.stage {
        bound.waiting_for_azure = Some((FailureClass::Unknown, "an unknown code".to_owned()));
    }
    scene.labelled = vec![unknown.clone()];
    let plan = scene.plan(0);
    scene.record(&plan, 0);
    assert_eq!(granted(&scene.plan(299)), ["a"], "it may pass");
    let plan = scene.plan(300);
    scene.record(&plan, 300);
    scene.labelled.clear();
    let refused =
        |scene: &PlanScene, second| matches!(scene.outcome(second, "a"), PodOutcome::Refuse(_));
    assert!(refused(&scene, 301) && refused(&scene, 899));
    let plan = scene.plan(899);
    assert_eq!(plan.replan_after, Some(std::time::Duration::from_secs(1)));
    assert_eq!(granted(&scene.plan(900)), ["a"], "it is tried again");
    // The next pod is refused too: the pause is longer.
    unknown.id.uid = "uid-next".to_owned();
    scene.labelled = vec![unknown];
    let plan = scene.plan(1000);
    scene.record(&plan, 1000);
    let plan = scene.plan(1300);
    scene.record(&plan, 1300);
    scene.labelled.clear();
    assert!(refused(&scene, 2499) && !refused(&scene, 2500));
    scene.labelled = vec![
        pod("sibling")
            .granted("shop", "web", 3)
            .on("burst-shop-weu"),
    ];
    assert!(!refused(&scene, 1301), "it is not the template's fault");
}
