//! Scaling with exactly the rights of `config/scaling`. According to the API server's audit log, the
//! operator writes once for each change, and not at all while nothing changes.

use std::sync::atomic::{AtomicU32, Ordering};

use burstpool::api::BurstPool;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::install::{asked, audited, granted, installed};
use crate::own_nodes::template;
use crate::support::monitoring::Load;
use crate::support::wait;
use crate::triggers_beside_others::until_conflict;
use crate::triggers_prometheus::requests;
use crate::world::World;

/// The kinds that the role permits, with a workload of each.
const KINDS: [(&str, &str, &str); 3] = [
    ("Deployment", "deployments", "web"),
    ("StatefulSet", "statefulsets", "db"),
    ("ReplicaSet", "replicasets", "bare"),
];

/// A workload that the trigger scales from 1 to 4 replicas, with an immediate scale-in.
fn scaled((kind, _, name): (&str, &str, &str)) -> Value {
    json!({
        "name": name,
        "target": {"apiVersion": "apps/v1", "kind": kind, "namespace": "default", "name": name},
        "scale": {"minReplicas": 1, "maxReplicas": 4, "triggers": ["requests"],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}},
    })
}

fn with_one(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template(name)},
    })
}

/// Waits until an object's spec has this many replicas. Returns its generation.
async fn until_replicas<K>(world: &World, name: &str, replicas: i32) -> i64
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Serialize + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let api: Api<K> = Api::namespaced(world.client.clone(), "default");
    let what = format!("{name} to have {replicas} replicas");
    let found = wait::get(api, name, &what, |object| {
        let spec = serde_json::to_value(object?).ok()?["spec"].take();
        (spec["replicas"] == replicas)
            .then(|| object?.meta().generation)
            .flatten()
    });
    found
        .await
        .unwrap_or_else(|error| unreachable!("{error}\n{}", world.tail()))
}

/// The same for all three workloads.
async fn until_all(world: &World, replicas: i32) -> [i64; 3] {
    [
        until_replicas::<Deployment>(world, "web", replicas).await,
        until_replicas::<StatefulSet>(world, "db", replicas).await,
        until_replicas::<ReplicaSet>(world, "bare", replicas).await,
    ]
}

/// Waits until each workload has one pod, at home.
async fn until_one_each(world: &World) {
    for (_, _, app) in KINDS {
        world.until_spread_of(app, 1, 0, 0).await;
    }
}

async fn until_running_on_aci(world: &World, pods: i64) {
    let what = format!("{pods} pods on ACI");
    let has = |pool: Option<&BurstPool>| {
        let status = pool.and_then(|pool| pool.status.as_ref());
        status.and_then(|status| status.pods).map(|all| all.running) == Some(pods)
    };
    world.until_pool("shop", &what, has).await;
}

/// The HTTP status of each request with this verb to the scale of this resource.
fn about_scale(events: &[Value], resource: &str, verb: &str) -> Vec<i64> {
    let of = |event: &&Value| {
        let about = &event["objectRef"];
        about["resource"] == resource && about["subresource"] == "scale" && event["verb"] == verb
    };
    let codes = events.iter().filter(of);
    codes
        .filter_map(|event| event["responseStatus"]["code"].as_i64())
        .collect()
}

/// Writes to workloads, autoscalers and scaled objects that do not use `/scale`.
fn other_writes(events: &[Value]) -> Vec<String> {
    let written = events.iter().filter(|event| {
        let about = &event["objectRef"];
        let group = about["apiGroup"].as_str().unwrap_or_default();
        let verb = event["verb"].as_str().unwrap_or_default();
        matches!(group, "apps" | "autoscaling" | "keda.sh")
            && !matches!(verb, "get" | "list" | "watch")
            && about["subresource"] != "scale"
    });
    written
        .map(|event| event["requestURI"].to_string())
        .collect()
}

/// Waits until the operator writes a scale. Changing metric values make it retry often; otherwise it
/// would retry only every 15 s.
async fn until_role_is_used(world: &World, load: &Load) {
    let tries = AtomicU32::new(0);
    wait::by_and_by("a scale to be written", async || {
        load.set(300.0 - f64::from(tries.fetch_add(1, Ordering::Relaxed) % 9));
        !about_scale(&audited(world), "deployments", "patch").is_empty()
    })
    .await;
}

/// The operator writes nothing while the load stays within the tolerance.
async fn stays(world: &World, load: &Load) {
    let before = audited(world).len();
    for (looks, value) in (1..).zip([310.0, 320.0, 290.0, 300.0]) {
        load.set(value);
        wait::by_and_by("all to be looked at again", async || {
            let since = &audited(world)[before..];
            let seen = |(_, resource, _)| about_scale(since, resource, "get").len() >= looks;
            KINDS.into_iter().all(seen)
        })
        .await;
    }
    for (_, resource, _) in KINDS {
        let written = about_scale(&audited(world)[before..], resource, "patch");
        assert_eq!(written, Vec::<i64>::new(), "{resource}");
    }
}

// Multi-threaded: the API server's log is read while Azure answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_needs_one_role_uses_all_of_it_and_writes_once_for_each_change() {
    let load = Load::start().await;
    load.set(300.0);
    let mut world = Box::pin(installed()).await;
    world.run();
    world
        .furnish(&json!({
            "spill": {"after": "10m", "afterWhenTriggered": "0s", "maxReplicas": 10},
            "workloads": KINDS.map(scaled),
            "triggers": [requests(&load.address("ok"))],
        }))
        .await;
    world.deploy(1).await;
    let _: StatefulSet = world.make(with_one("db")).await;
    let _: ReplicaSet = world.make(with_one("bare")).await;
    until_one_each(&world).await;
    let told = |pool: Option<&BurstPool>| {
        let status = pool.and_then(|pool| pool.status.as_ref());
        let workloads = status.map_or(&[][..], |status| &status.workloads);
        let lacks = |message: &str| message.contains("kubectl apply -k config/scaling");
        let scales = workloads.iter().filter_map(|one| one.scale.as_ref());
        scales.filter(|one| lacks(&one.message)).count() == KINDS.len()
    };
    world.until_pool("shop", "which role it lacks", told).await;
    until_conflict(&world, "shop", "Unknown", "config/scaling").await;
    assert_eq!(until_all(&world, 1).await, [1; 3], "nothing is written");

    world.cluster.apply("scaling", &[]).expect("the role");
    until_role_is_used(&world, &load).await;
    until_conflict(&world, "shop", "False", "").await;
    assert_eq!(until_all(&world, 3).await, [2; 3], "each in one step");
    until_running_on_aci(&world, 5).await;
    let since = audited(&world).len();
    stays(&world, &load).await;
    load.set(0.0);
    let generations = until_all(&world, 1).await;
    assert_eq!(generations, [3; 3], "nobody else wrote");
    until_one_each(&world).await;

    let events = audited(&world);
    for (_, resource, _) in KINDS {
        let mut answers = about_scale(&events, resource, "patch");
        // A write that meets a conflict (409) changes nothing and is repeated.
        answers.retain(|code| *code != 409);
        assert_eq!(answers, [200, 200], "{resource}: up, and down");
    }
    assert_eq!(other_writes(&events), Vec::<String>::new());
    let (asked, refused) = asked(&events[since..]);
    assert_eq!(refused, Vec::<String>::new(), "it may do all that it tries");
    let granted = granted(&world.cluster, "burstpool-scaling");
    assert_eq!(granted.len(), 5);
    let unused: Vec<_> = granted.difference(&asked).collect();
    assert!(unused.is_empty(), "rights that nothing needs: {unused:?}");
    world.end().await;
}
