//! How many pods of each workload the plan grants.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::burst::PodWriteResult;
use crate::burst::facts::node_constraints::NodeConstraints;
use crate::burst::facts::pod::PodStage;
use crate::burst::fixtures::{PlanScene, at, granted, pod, reservation, scale_of, scales, target};
use crate::burst::outcome::{BlockedBy, HoldReason, IgnoreReason, PodOutcome};

fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("p{n:04}")).collect()
}

fn names(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

fn max(limit: &Value) -> Value {
    json!({"spill": {"maxReplicas": limit, "rate": {"pods": 5000}}})
}

#[test]
fn no_more_than_the_maximum_are_granted_of_five_hundred_at_once() {
    let mut scene = PlanScene::new(&max(&json!(50)), &names(&many(500)));
    scene.placements[0].allocatable.pods = 1000;
    scene.placements[0].allocatable.cpu_milli = 1_000_000;
    scene.placements[0].allocatable.memory <<= 4;
    let plan = scene.plan(15);
    assert_eq!((plan.grants().count(), plan.reservations.len()), (50, 50));
    assert_eq!(
        scene.outcome(15, "p0050"),
        PodOutcome::Blocked(BlockedBy::PoolLimit(50))
    );
    scene.execute(&plan, 15);
    assert_eq!(scene.plan(16).grants().count(), 0);
}

#[test]
fn grants_in_flight_count() {
    let mut scene = PlanScene::new(&max(&json!(5)), &["x", "y", "z"]);
    scene.labelled = (0..5)
        .map(|n| pod(&format!("g{n}")).granted("shop", "web", 1))
        .collect();
    let plan = scene.plan(15);
    assert_eq!((plan.grants().count(), plan.counts.granted), (0, 5));
}

#[test]
fn a_granted_pod_that_landed_home_or_is_finished_frees_its_slot() {
    let mut scene = PlanScene::new(&max(&json!(1)), &["x"]);
    scene.labelled = vec![pod("g").granted("shop", "web", 1).on("home-1")];
    let plan = scene.plan(15);
    assert_eq!((granted(&plan), plan.counts.spilled), (vec!["x"], 0));
    scene.labelled[0].stage = PodStage::Finished;
    assert_eq!(granted(&scene.plan(15)), ["x"]);
    scene.labelled = vec![pod("g").granted("shop", "web", 1).on("burst-shop-weu")];
    assert_eq!(scene.plan(15).grants().count(), 0);
    scene.labelled[0].is_deleting = true;
    assert_eq!(
        scene.plan(15).grants().count(),
        0,
        "until it is gone it costs"
    );
}

#[test]
fn a_percentage_is_of_the_desired_replicas_rounded_up_and_follows_them() {
    let mut scene = PlanScene::new(&max(&json!("30%")), &["a", "b", "c", "d", "e"]);
    for (desired, granted) in [(7, 3), (10, 3), (11, 4), (0, 0)] {
        scene.scales = scales(&[("web", desired, desired)]);
        let plan = scene.plan(15);
        assert_eq!(plan.grants().count(), granted, "30% of {desired}");
        assert_eq!(
            plan.workloads[0].limit,
            i64::try_from(granted).expect("small")
        );
    }
}

#[test]
fn a_limit_that_falls_takes_nothing_back_and_gives_nothing_more() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let scene = PlanScene::new(&max(&json!(4)), &["x"]).spilled("web", &names);
    let plan = scene.plan(15);
    assert_eq!(
        (
            plan.grants().count(),
            plan.never_started.len(),
            plan.counts.spilled
        ),
        (0, 0, 9)
    );
}

#[test]
fn a_workloads_own_limit_holds_beside_the_pools() {
    let mut limited = target("web");
    limited["spill"] = json!({"maxReplicas": 1});
    let spec = json!({"workloads": [limited, target("db")], "spill": {"maxReplicas": 3}});
    let mut scene = PlanScene::new(&spec, &["a", "b"]);
    scene.scales = scales(&[("web", 10, 10), ("db", 10, 10)]);
    scene
        .waiting
        .extend(["c", "d", "e"].map(|name| pod(name).of_app("db")));
    assert_eq!(granted(&scene.plan(15)), ["a", "c", "d"]);
    assert_eq!(
        scene.outcome(15, "b"),
        PodOutcome::Blocked(BlockedBy::WorkloadLimit(1))
    );
    assert_eq!(
        scene.outcome(15, "e"),
        PodOutcome::Blocked(BlockedBy::PoolLimit(3))
    );
}

#[test]
fn a_workload_that_is_renamed_or_takes_another_ones_name_keeps_its_maximum() {
    let mut web = target("web");
    web["spill"] = json!({"maxReplicas": 2});
    let named = |name: &str, target: &serde_json::Value| {
        let mut renamed = target.clone();
        renamed["name"] = json!(name);
        renamed
    };
    let selecting = json!({"name": "all", "selector": {"namespaceSelector": {},
        "podSelector": {"matchLabels": {"app": "web"}}}, "spill": {"maxReplicas": 2}});
    for (case, workloads) in [
        ("as it was", json!([web])),
        ("renamed", json!([named("shop-front", &web)])),
        (
            "names swapped",
            json!([named("db", &web), named("web", &target("db"))]),
        ),
        ("a selector instead of a target", json!([selecting])),
        ("moved behind another", json!([target("db"), web])),
    ] {
        let mut scene = PlanScene::new(&json!({ "workloads": workloads }), &["a", "b"]);
        let scales = workloads
            .as_array()
            .expect("a list")
            .iter()
            .map(|workload| {
                let name = workload["name"].as_str().expect("a name").to_owned();
                let app = workload["target"]["name"].as_str().unwrap_or_default();
                (("shop".to_owned(), name), Ok(scale_of(app, 10, 10)))
            });
        scene.scales = scales.collect();
        let mut scene = scene.spilled("web", &["x", "y"]);
        let plan = scene.plan(15);
        assert_eq!(granted(&plan), [""; 0], "{case}");
        let of_web = plan.workloads.iter().find(|one| one.limit == 2);
        assert_eq!(of_web.map(|one| one.spilled), Some(2), "{case}");
        // The same for a reservation: with one reservation, one more pod has a slot.
        scene.labelled.pop();
        let entry = reservation(&scene.waiting[0], "another");
        let status = scene.pool.status.get_or_insert_default();
        status.reservations = vec![entry];
        assert_eq!(granted(&scene.plan(15)), ["a"], "{case}");
        if case == "names swapped" {
            // For a pod that is in no watch, only the name in the reservation says which workload it belongs
            // to.
            continue;
        }
        scene.waiting.remove(0);
        assert_eq!(
            granted(&scene.plan(15)),
            [""; 0],
            "{case}: its pod is in no watch"
        );
    }
}

#[test]
fn marks_of_another_pods_grant_hold_no_slot_and_are_told() {
    let mut scene = PlanScene::new(&max(&json!(1)), &["a", "copy"]);
    let copy = &mut scene.waiting[1];
    let spec = json!({"containers": [], "tolerations": [{"key": "virtual-kubelet.io/provider",
        "value": "shop", "effect": "NoSchedule"}]});
    copy.node_constraints =
        NodeConstraints::from_pod_spec(&serde_json::from_value(spec).expect("a spec"));
    copy.foreign_grant = Some("shop".to_owned());
    scene.labelled.push(copy.clone());
    let plan = scene.plan(15);
    assert_eq!(granted(&plan), ["a"]);
    let ignored = PodOutcome::Ignore(IgnoreReason::ForeignGrant);
    assert_eq!(scene.outcome(15, "copy"), ignored);
    let message = &plan.workloads[0].message;
    assert!(
        message.starts_with("1 pod ignored: it carries"),
        "{message}"
    );
}

#[test]
fn an_unmarked_pod_holds_its_slot_and_stops_the_grants_of_its_workload() {
    let mut scene = PlanScene::new(&max(&json!(3)), &["a", "b"]);
    let plan = scene.plan(15);
    scene.write_reservations(&plan);
    let a = scene.waiting[0].id.clone();
    scene.leader_state.record_patch_sent(&a);
    let why = || "a webhook removed the label".to_owned();
    scene
        .leader_state
        .record_grant_answer(&a, PodWriteResult::Unmarked(why()), at(15));
    scene.leader_state.record_unmarkable("web", why(), at(15));
    scene.waiting[0] = pod("a").at_version("2");
    let plan = scene.plan(16);
    assert_eq!((granted(&plan), plan.counts.granted), (vec![], 1));
    assert_eq!(plan.unmarked, ["uid-a"]);
    let held = HoldReason::Denied(why());
    assert!(matches!(scene.outcome(16, "b"), PodOutcome::Hold { why, .. } if why == held));
    // It is on ACI, and still counts.
    scene.waiting.remove(0);
    scene
        .bound
        .push(pod("a").at_version("3").on("burst-shop-weu"));
    scene.record(&plan, 16);
    let plan = scene.plan(26);
    assert_eq!(
        (granted(&plan), plan.counts.spilled, plan.counts.user_placed),
        (vec!["b"], 1, 0)
    );
}

#[test]
fn a_percentage_of_an_unknown_scale_grants_nothing_and_says_so() {
    let mut limited = target("web");
    limited["spill"] = json!({"maxReplicas": "50%"});
    let batch = json!({"name": "batch", "selector": {"namespaceSelector": {}, "podSelector": {}}});
    let mut scene = PlanScene::new(&json!({"workloads": [limited, batch]}), &["a"]);
    let key = ("shop".to_owned(), "web".to_owned());
    scene
        .scales
        .insert(key, Err("the server has no apps/v9".to_owned()));
    let plan = scene.plan(15);
    assert_eq!(
        plan.decisions[0].workload, "batch",
        "its workload is unknown"
    );
    assert_eq!(plan.workloads[0].message, "the server has no apps/v9");
    assert_eq!(plan.workloads[0].desired, None);
}

#[test]
fn a_pod_that_two_workloads_or_pools_could_have_has_one_and_the_loser_says_so() {
    let again = json!({"name": "again", "selector": {"namespaceSelector": {}, "podSelector": {}}});
    let spec = json!({"workloads": [target("web"), again]});
    let mut scene = PlanScene::new(&spec, &["a"]);
    let plan = scene.plan(15);
    assert_eq!(plan.decisions.len(), 1);
    assert_eq!(plan.decisions[0].workload, "web");
    assert_eq!(
        plan.workloads[1].message,
        "1 pod of its selection belongs to workload web"
    );
    let mut older = crate::burst::fixtures::pool("first", &json!({"workloads": [again]}));
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(-9));
    older.metadata.creation_timestamp = Some(time);
    scene.others = vec![older];
    let plan = scene.plan(15);
    assert_eq!(plan.decisions, []);
    let expected = "1 pod of its selection belongs to workload again of pool first";
    assert_eq!(plan.workloads[0].message, expected);
}

#[test]
fn what_was_granted_still_counts_when_its_workload_is_gone_from_the_spec() {
    let mut scene = PlanScene::new(&max(&json!(2)), &["x", "y"]).spilled("removed", &["g"]);
    let plan = scene.plan(15);
    assert_eq!((plan.grants().count(), plan.counts.spilled), (1, 1));
    scene.labelled.clear();
    assert_eq!(scene.plan(15).grants().count(), 2);
}

#[test]
fn a_pod_is_not_deleted_when_azure_lets_it_wait_for_the_first_time() {
    use crate::aci::failure::FailureClass;
    let mut scene = PlanScene::new(&max(&json!(2)), &[]);
    let mut waits = pod("a").granted("shop", "web", 1).on("burst-shop-weu");
    // Bound at 0. Its ConfigMap was created at 1000, and the first PUT got a 503.
    if let PodStage::Bound(bound) = &mut waits.stage {
        (bound.has_started, bound.is_running) = (false, false);
        bound.waiting_for_azure = Some((FailureClass::Transient, "503".to_owned()));
    }
    (scene.labelled, scene.bound) = (vec![waits.clone()], vec![waits]);
    for (second, rescued) in [(1001, 0), (1060, 0), (1061, 1)] {
        let plan = scene.plan(second);
        assert_eq!(
            plan.never_started.len(),
            rescued,
            "{second}: {:?}",
            plan.never_started
        );
        scene
            .leader_state
            .record_plan(&plan.record(), &HashSet::new(), at(second));
    }
}
