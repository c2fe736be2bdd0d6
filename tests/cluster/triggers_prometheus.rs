//! A real Prometheus scales a real Deployment: up, onto ACI, through an outage, and back.

use burstpool::api::{BurstPool, TriggerStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::own_nodes::{AWAY, target};
use crate::support::monitoring::{Load, Prometheus};
use crate::support::{objects, wait};
use crate::world::{World, said};

/// A trigger on the load at `address`: one replica per 100, active above 50.
pub fn requests(address: &str) -> Value {
    json!({"name": "requests", "prometheus": {"serverAddress": address, "query": "sum(load)",
        "threshold": "100", "activationThreshold": "50", "interval": "1s", "timeout": "1s"}})
}

/// The workload `web`, scaled by these triggers, with an immediate scale-in.
pub fn scaled(triggers: &[&str], min: i32, max: i32) -> Value {
    let mut workload = target("web", "web");
    workload["scale"] = json!({"minReplicas": min, "maxReplicas": max, "triggers": triggers,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}});
    workload
}

/// The status of a trigger.
pub fn trigger(pool: Option<&BurstPool>, name: &str) -> TriggerStatus {
    let status = pool.and_then(|pool| pool.status.as_ref());
    let mut all = status.iter().flat_map(|status| &status.triggers);
    all.find(|one| one.name == name)
        .cloned()
        .unwrap_or_default()
}

/// Waits until the status of a trigger is as wanted.
pub async fn until_trigger(
    world: &World,
    name: &str,
    what: &str,
    wanted: impl Fn(&TriggerStatus) -> bool,
) {
    let what = format!("trigger {name}: {what}");
    world
        .until_pool("shop", &what, |pool| wanted(&trigger(pool, name)))
        .await;
}

/// Waits until the Deployment's spec has this many replicas.
pub async fn until_replicas(world: &World, replicas: i32) {
    let is = |deployment: Option<&k8s_openapi::api::apps::v1::Deployment>| {
        deployment.and_then(|deployment| deployment.spec.replicas) == Some(replicas)
    };
    let what = format!("{replicas} replicas");
    if let Err(error) = wait::until(world.deployments(), "web", &what, is).await {
        unreachable!("{error}\n{}", world.tail());
    }
}

async fn generation(world: &World) -> Option<i64> {
    let web = world
        .deployments()
        .get("web")
        .await
        .expect("the Deployment");
    web.metadata.generation
}

/// Waits until the pool's status has what the trigger asks for.
async fn until_scale_is_told(world: &World) {
    world
        .until_pool("shop", "the workload's scale to be told", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let scale = status.and_then(|status| status.workloads.first()?.scale.clone());
            scale.is_some_and(|scale| {
                (scale.wanted, scale.trigger.as_deref()) == (Some(8), Some("requests"))
            })
        })
        .await;
}

/// Stops Prometheus at a load of 800, and starts it again.
async fn assert_an_outage_moves_nothing(world: &World, load: &Load, prometheus: &mut Prometheus) {
    let before = generation(world).await;
    prometheus.stop().await;
    load.set(0.0);
    until_trigger(world, "requests", "unknown and kept", |one| {
        one.active && one.unknown_since.is_some() && one.message.contains("kept until")
    })
    .await;
    world
        .until_pool("shop", "the condition", |pool| {
            pool.is_some_and(|pool| said(pool, "TriggersHealthy").0 == "False")
        })
        .await;
    load.set(800.0);
    prometheus.again().await;
    until_trigger(world, "requests", "known again", |one| {
        one.active && one.unknown_since.is_none()
    })
    .await;
    assert_eq!(generation(world).await, before, "nothing moved");
    world.until_spread(4, 4, 0).await;
}

/// The names of the pods on the cluster's own nodes.
fn names_at_home(pods: &[Pod]) -> Vec<String> {
    let home = pods
        .iter()
        .filter(|pod| objects::node_of(pod) != Some(AWAY));
    let mut names: Vec<String> = home.map(kube::ResourceExt::name_any).collect();
    names.sort();
    names
}

async fn assert_only_its_scale_is_written(world: &World) {
    let web = world
        .deployments()
        .get("web")
        .await
        .expect("the Deployment");
    assert!(
        web.labels().is_empty() && web.annotations().len() <= 1,
        "only its scale is written"
    );
}

#[tokio::test]
async fn load_raises_replicas_that_spill_at_once_and_go_first_and_an_outage_moves_nothing() {
    if !Prometheus::is_found() {
        return;
    }
    let load = Load::start().await;
    let mut prometheus = Prometheus::start(&load).await;
    let world = World::with_home(&json!({
        // With this hold, only the trigger makes pods spill in this test.
        "spill": {"after": "10m", "afterWhenTriggered": "0s", "maxReplicas": 10},
        "workloads": [scaled(&["requests"], 2, 8)],
        "triggers": [requests(&prometheus.address())],
    }))
    .await;
    world.deploy(2).await;
    world.until_spread(2, 0, 0).await;
    until_trigger(&world, "requests", "quiet", |one| {
        !one.active && one.value.as_deref() == Some("0")
    })
    .await;

    load.set(800.0);
    let peak = world.until_spread(4, 4, 0).await;
    world
        .until_told("web", "Scaled", "trigger requests of pool shop asks for 8")
        .await;
    until_trigger(&world, "requests", "active", |one| {
        one.active && one.value.as_deref() == Some("800")
    })
    .await;
    assert!(
        world.kubectl(&["get", "bp", "shop"]).contains("requests"),
        "the column TRIGGER"
    );
    until_scale_is_told(&world).await;
    assert_an_outage_moves_nothing(&world, &load, &mut prometheus).await;

    load.set(400.0);
    let left = world.until_spread(4, 0, 0).await;
    let gone = |pods: &[Pod]| pods.len() == 4;
    let web = watcher::Config::default().labels("app=web");
    let all = wait::until_all(world.pods(), web, "four pods", gone).await;
    all.expect("those on ACI are gone");
    assert_eq!(
        names_at_home(&left),
        names_at_home(&peak),
        "exactly those on ACI went"
    );
    load.set(0.0);
    world.until_spread(2, 0, 0).await;
    until_replicas(&world, 2).await;
    world
        .until_told("web", "Scaled", "all triggers of pool shop are quiet")
        .await;
    assert_only_its_scale_is_written(&world).await;
}

#[tokio::test]
async fn a_workload_goes_from_zero_to_many_and_back_and_nothing_is_left_of_it() {
    let load = Load::start().await;
    let world = World::with_home(&json!({
        "spill": {"after": "1s", "maxReplicas": 10},
        "workloads": [scaled(&["requests"], 0, 6)],
        "triggers": [requests(&load.address("ok"))],
    }))
    .await;
    world.deploy(0).await;
    load.set(600.0);
    world.until_spread(4, 2, 0).await;
    load.set(0.0);
    until_replicas(&world, 0).await;
    world.until_pods("web", "none", <[_]>::is_empty).await;
    world
        .until_pool("shop", "the pool to count none", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                let counts = status.pods.unwrap_or_default();
                status.reservations.is_empty()
                    && (counts.spilled, counts.granted, counts.holding) == (0, 0, 0)
            })
        })
        .await;
    assert_eq!(world.groups(), Vec::<String>::new());
}
