//! Rollouts during a burst: both revisions count, costs are written once, and a blocked rollout is
//! reported.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::own_nodes::{AWAY, deployment, holds_a_slot, is_granted};
use crate::support::objects;
use crate::world::{World, is_running};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A Deployment of eight replicas with this surge and unavailability.
async fn deploy(world: &World, surge: i32, unavailable: i32) {
    let mut deployment = serde_json::to_value(deployment("web", 8)).expect("JSON");
    deployment["spec"]["strategy"] = json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    let deployment = serde_json::from_value(deployment).expect("a Deployment");
    world.deploy_this(&deployment).await;
    world.until_spread(4, 4, 0).await;
}

/// Waits until all eight pods have the new revision. Returns the maximum number of used slots.
async fn until_rolled_out(world: &World, marker: &str) -> usize {
    let most = AtomicUsize::new(0);
    let is_new = |pod: &Pod| pod.labels().get("revision").map(String::as_str) == Some(marker);
    let done = |pods: &[Pod]| {
        let held = pods.iter().filter(|pod| holds_a_slot(pod)).count();
        most.fetch_max(held, Ordering::Relaxed);
        pods.len() == 8 && pods.iter().all(|pod| is_new(pod) && is_running(Some(pod)))
    };
    world
        .until_pods("web", "the rollout to be over", done)
        .await;
    most.into_inner()
}

fn revision(marker: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"labels": {"revision": marker}}}}})
}

fn roll_out(world: &World, marker: &str) {
    let patch = revision(marker).to_string();
    world.kubectl(&["patch", "deployment", "web", "-p", &patch]);
}

#[tokio::test]
async fn a_rollout_of_both_revisions_never_has_more_than_the_limit() {
    let world =
        World::with_home(&json!({"spill": {"maxReplicas": 4, "rate": {"pods": 1000}}})).await;
    deploy(&world, 2, 2).await;
    roll_out(&world, "new");
    let most = until_rolled_out(&world, "new").await;
    assert!((1..=4).contains(&most), "{most} slots were held");
    let pods = world.until_spread(4, 4, 0).await;
    for pod in pods
        .iter()
        .filter(|pod| objects::node_of(pod) == Some(AWAY))
    {
        assert!(is_granted(pod));
        assert_eq!(pod.annotations()[COST], "-1000");
    }
    world.end().await;
}

#[tokio::test]
async fn a_rollout_that_may_only_surge_says_what_it_lacks_and_goes_on_when_it_has_it() {
    let world =
        World::with_home(&json!({"spill": {"maxReplicas": 4, "rate": {"pods": 1000}}})).await;
    deploy(&world, 1, 0).await;
    roll_out(&world, "new");
    world
        .until_pool("shop", "the rollout to be said to stand still", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                let message = &status.workloads[0].message;
                message.contains("it needs 1 above the limit of 4")
            })
        })
        .await;
    world
        .change_pool(&json!({"spill": {"maxReplicas": 5}}))
        .await;
    let most = until_rolled_out(&world, "new").await;
    assert_eq!(most, 5);
    world.end().await;
}

#[tokio::test]
async fn a_users_own_cost_is_kept_and_pods_at_home_get_none() {
    let world = World::with_home(&json!({})).await;
    let mut own = serde_json::to_value(deployment("web", 5)).expect("JSON");
    own["spec"]["template"]["metadata"]["annotations"] = json!({COST: "7"});
    world
        .deploy_this(&serde_json::from_value(own).expect("a Deployment"))
        .await;
    let pods = world.until_spread(4, 1, 0).await;
    for pod in &pods {
        assert_eq!(pod.annotations()[COST], "7");
    }
    // The day-long toleration of an unreachable node is only for pods on virtual nodes.
    let home = pods
        .iter()
        .filter(|pod| objects::node_of(pod) != Some(AWAY));
    for pod in home {
        let tolerations =
            serde_json::to_string(&pod.spec.as_ref().and_then(|s| s.tolerations.clone()));
        assert!(!tolerations.expect("JSON").contains("86400"));
    }
    world.end().await;
}
