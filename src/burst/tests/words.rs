//! The messages of a pool and its workloads.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::api::{PodCounts, WorkloadStatus};
use crate::burst::fixtures::{PlanScene, at, granted, pod, pool, scales, target};
use crate::burst::plan::PeakState;

/// A workload that selects the pods with this `app` label.
fn selecting(app: &str) -> Value {
    json!({"name": app, "selector":
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}})
}

#[test]
fn every_pod_counts_once() {
    let mut scene = PlanScene::new(&json!({}), &["old", "young"]).spilled("web", &["s"]);
    scene.scales = scales(&[("web", 9, 8)]);
    scene.waiting[1].stage = crate::burst::facts::pod::PodStage::Unschedulable(Some(at(50)));
    scene.labelled.push(pod("flying").granted("shop", "web", 1));
    scene
        .labelled
        .push(pod("home").granted("shop", "web", 1).on("home-1"));
    scene.bound = vec![pod("guest").on("burst-shop-weu")];
    scene.bound.extend(scene.labelled[..1].to_vec());
    let plan = scene.plan(60);
    let counts = PodCounts {
        holding: 1,
        granted: 2,
        spilled: 1,
        running: 1,
        refused: 0,
        user_placed: 1,
    };
    assert_eq!(plan.counts, counts);
    let web = WorkloadStatus {
        name: "web".to_owned(),
        desired: Some(9),
        home: Some(3),
        holding: 1,
        granted: 2,
        spilled: 1,
        refused: 0,
        limit: 100,
        scale: None,
        message: String::new(),
    };
    assert_eq!(plan.workloads, [web]);
}

#[test]
fn pods_that_end_on_aci_are_not_taken_off_those_at_home() {
    let mut scene = PlanScene::new(&json!({}), &[]).spilled("web", &["a", "b", "c"]);
    scene.bound = scene.labelled.clone();
    for pod in scene.labelled.iter_mut().take(2) {
        pod.is_deleting = true;
    }
    // The peak is over. Of the four replicas left, one is on ACI. Two more pods on ACI are being deleted.
    scene.scales = scales(&[("web", 4, 4)]);
    let web = scene.plan(60).workloads.remove(0);
    assert_eq!((web.home, web.spilled), (Some(3), 3));
}

#[test]
fn what_others_have_of_a_workloads_pods_is_not_home_and_is_said() {
    let mut scene = PlanScene::new(&json!({}), &["w"]);
    let (mut older, mut youth) = (pool("older", &json!({})), scene.pool.clone());
    youth.metadata.creation_timestamp = Some(Time(at(9)));
    let shop = json!({"workloads": [selecting("web")]});
    older.spec = pool("older", &shop).spec;
    scene.pool = youth;
    scene.others = vec![older];
    scene.scales = scales(&[("web", 9, 9)]);
    // For the older pool: one pod is pending, one is on its way, one is on ACI, and one is user-placed. One
    // more was granted and is bound to one of the cluster's own nodes.
    let of_older = |name: &str| pod(name).granted("older", "web", 1);
    scene.labelled = vec![
        of_older("flying"),
        of_older("away").on("burst-older-weu"),
        of_older("home").on("home-1"),
    ];
    scene.placed = vec![
        pod("guest").on("burst-older-weu"),
        scene.labelled[1].clone(),
    ];
    let web = scene.plan(15).workloads.remove(0);
    let expected = "4 pods of its selection belong to workload web of pool older";
    assert_eq!((web.home, web.message.as_str()), (Some(5), expected));
    // The same if none of them is pending or on ACI, and both workloads select the same pods.
    scene.waiting.clear();
    scene.labelled.clear();
    scene.placed.clear();
    assert_eq!(scene.plan(15).workloads[0].message, "");
    scene.pool.spec.workloads = scene.others[0].spec.workloads.clone();
    let web = scene.plan(15).workloads.remove(0);
    let expected = "all pods of its selection belong to workload web of pool older";
    assert_eq!(web.message, expected);
}

#[test]
fn a_rollout_that_stands_still_says_how_many_slots_it_needs() {
    let mut limited = target("web");
    limited["spill"] = json!({"maxReplicas": "20%"});
    let names = ["a", "b"];
    let mut scene =
        PlanScene::new(&json!({"workloads": [limited]}), &["x", "y", "z"]).spilled("web", &names);
    scene.scales = scales(&[("web", 10, 13)]);
    let message = scene.plan(15).workloads[0].message.clone();
    assert!(
        message.starts_with("a rollout waits for slots: it needs 3 above the limit of 2"),
        "{message}"
    );
    scene.scales = scales(&[("web", 10, 10)]);
    let message = scene.plan(15).workloads[0].message.clone();
    assert_eq!(
        message,
        "its workload has as many pods on ACI as its maxReplicas lets it: 2"
    );
}

#[test]
fn a_peak_lasts_until_nothing_has_been_on_aci_for_the_cooldown() {
    let mut scene =
        PlanScene::new(&json!({"scaleIn": {"cooldown": "5m"}}), &[]).spilled("web", &["a"]);
    let plan = scene.plan(100);
    assert_eq!(plan.peak, PeakState::Active);
    scene.record(&plan, 100);
    scene.labelled.clear();
    let plan = scene.plan(399);
    assert_eq!(plan.peak, PeakState::Cooldown);
    assert_eq!(plan.replan_after, Some(std::time::Duration::from_secs(1)));
    scene.record(&plan, 399);
    assert_eq!(scene.plan(400).peak, PeakState::None);
    scene.leader_state = crate::burst::LeaderState::default();
    scene.leader_state.record_peak(at(390));
    assert_eq!(
        scene.plan(400).peak,
        PeakState::Cooldown,
        "a new leader goes on with it"
    );
}

#[test]
fn a_limit_that_is_reached_is_said_once_for_the_pool() {
    let scene = PlanScene::new(&json!({"spill": {"maxReplicas": 1}}), &["a", "b", "c"]);
    let expected =
        "pods of web wait: the pool has as many pods on ACI as spec.spill.maxReplicas lets it: 1";
    assert_eq!(scene.plan(15).limit_message.as_deref(), Some(expected));
    assert_eq!(scene.plan(14).limit_message, None);
    // The message, and with it the pool's status, stays the same while pods are granted.
    let mut scene = scene;
    scene.waiting.pop();
    assert_eq!(scene.plan(15).limit_message.as_deref(), Some(expected));
}

#[test]
fn each_reason_why_pods_wait_is_said_with_its_workload_and_the_rate_by_the_workload() {
    let mut web = target("web");
    web["spill"] = json!({"maxReplicas": 1});
    let spec = json!({"workloads": [web, target("db")], "spill": {"rate": {"pods": 2}}});
    let mut scene = PlanScene::new(&spec, &["a", "b"]);
    scene.waiting.push(pod("d").of_app("db"));
    scene.waiting.push(pod("e").of_app("db"));
    scene.scales = scales(&[("web", 10, 10), ("db", 10, 10)]);
    let plan = scene.plan(15);
    let rate = "spec.spill.rate lets no more pods spill now";
    let own = "its workload has as many pods on ACI as its maxReplicas lets it: 1";
    assert_eq!(plan.limit_message, Some(format!("pods of web wait: {own}")));
    assert_eq!(plan.workloads[1].message, format!("{rate}"));
}

#[test]
fn a_pod_whose_grant_is_denied_again_and_again_makes_no_peak() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    let plan = scene.plan(15);
    assert_eq!((granted(&plan), plan.peak), (vec!["a"], PeakState::None));
    scene
        .leader_state
        .record_patch_sent(&scene.waiting[0].id.clone());
    assert_eq!(scene.plan(15).peak, PeakState::None);
    let a = scene.waiting.remove(0);
    scene.labelled.push(a.granted("shop", "web", 15));
    assert_eq!(scene.plan(15).peak, PeakState::Active);
}
