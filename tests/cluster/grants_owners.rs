//! Pods of every kind of owner burst, including custom ones.

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{PostParams, ResourceExt as _};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::own_nodes::{AWAY, is_granted, marks, pod, selected, template};
use crate::support::{objects, wait};
use crate::world::World;

fn scaled(name: &str, api_version: &str, kind: &str) -> Value {
    json!({"name": name, "target":
        {"apiVersion": api_version, "kind": kind, "namespace": "default", "name": name}})
}

/// A custom kind with a scale. The test plays its controller.
async fn serve_rollouts(client: &Client) {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let crd = json!({
        "metadata": {"name": "rollouts.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Rollout", "plural": "rollouts", "singular": "rollout"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema, "status": schema}}},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector"}},
            }],
        },
    });
    let crd: CustomResourceDefinition = serde_json::from_value(crd).expect("a CRD");
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let created = crds.create(&PostParams::default(), &crd).await;
    created.expect("a CRD");
    let served = |crd: Option<&CustomResourceDefinition>| {
        let status = crd.and_then(|crd| crd.status.as_ref());
        let conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|c| c.type_ == "Established" && c.status == "True")
    };
    wait::until(
        crds,
        "rollouts.example.com",
        "the kind to be served",
        served,
    )
    .await
    .expect("it is served");
}

#[tokio::test]
async fn pods_of_stateful_sets_replica_sets_jobs_cron_jobs_and_foreign_kinds_spill() {
    let world = World::with_full_home(&json!({"workloads": [
        scaled("db", "apps/v1", "StatefulSet"), scaled("rs", "apps/v1", "ReplicaSet"),
        selected("job"), selected("cron"), selected("bare"),
        scaled("rollout", "example.com/v1", "Rollout"),
    ], "spill": {"maxReplicas": 12}}))
    .await;
    let set = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"replicas": 2, "serviceName": name,
            "selector": {"matchLabels": {"app": name}}, "template": template(name)}})
    };
    let mut replica_set = set("rs");
    replica_set["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("serviceName");
    let job = |name: &str| {
        let mut template = template(name);
        template["spec"]["restartPolicy"] = "Never".into();
        json!({"parallelism": 2, "completions": 2, "template": template})
    };
    let cron = json!({"metadata": {"name": "cron"}, "spec":
        {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job("cron")}}});
    let _: StatefulSet = world.make(set("db")).await;
    let _: ReplicaSet = world.make(replica_set).await;
    let _: Job = world
        .make(json!({"metadata": {"name": "job"}, "spec": job("job")}))
        .await;
    let _: CronJob = world.make(cron).await;
    world.kubectl(&["create", "job", "cron-now", "--from=cronjob/cron"]);
    world.create(pod("bare", "bare", &json!({}))).await;
    for (app, count) in [("db", 2), ("rs", 2), ("job", 2), ("cron", 2), ("bare", 1)] {
        world.until_spread_of(app, 0, count, 0).await;
        let pods = world.until_spread_of(app, 0, count, 0).await;
        for pod in pods {
            assert_eq!(marks(&pod)["burstpool.io/workload"], app);
        }
        let count = i64::try_from(count).expect("few");
        world.until_counted(app, (0, 0, count, 0)).await;
    }
    foreign(&world).await;
    world.end().await;
}

/// A kind that the operator does not know, and that the API server serves only later. The limit is a
/// percentage of its scale.
async fn foreign(world: &World) {
    world
        .until_pool("shop", "the kind to be missing", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let mut workloads = status.iter().flat_map(|status| &status.workloads);
            workloads.any(|one| one.name == "rollout" && one.message.contains("does not serve"))
        })
        .await;
    // As the manifests advise: before the kind is served, so that no request is forbidden meanwhile.
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "burstpool-rollouts",
            "labels": {"burstpool.io/aggregate-to-targets": "true"}},
        "rules": [
            {"apiGroups": ["example.com"], "resources": ["rollouts"], "verbs": ["list", "watch"]},
            {"apiGroups": ["example.com"], "resources": ["rollouts/scale"], "verbs": ["get"]},
        ],
    });
    let path = world.cluster.directory().join("role.json");
    std::fs::write(&path, role.to_string()).expect("it is written");
    world.kubectl(&["create", "-f", &path.to_string_lossy()]);
    serve_rollouts(&world.client).await;
    let object = json!({"apiVersion": "example.com/v1", "kind": "Rollout",
        "metadata": {"name": "rollout", "namespace": "default"}, "spec": {"replicas": 3}});
    let path = world.cluster.directory().join("rollout.json");
    std::fs::write(&path, object.to_string()).expect("it is written");
    world.kubectl(&["create", "-f", &path.to_string_lossy()]);
    let status = r#"{"status":{"replicas":3,"selector":"app=rollout"}}"#;
    world.kubectl(&[
        "patch",
        "rollouts.example.com",
        "rollout",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ]);
    for n in 0..3 {
        let owner = world.kubectl(&[
            "get",
            "rollouts.example.com",
            "rollout",
            "-o",
            "jsonpath={.metadata.uid}",
        ]);
        let owned = json!({"metadata": {"ownerReferences": [{"apiVersion": "example.com/v1",
            "kind": "Rollout", "name": "rollout", "uid": owner, "controller": true}]}});
        world
            .create(pod("rollout", &format!("rollout-{n}"), &owned))
            .await;
    }
    world.until_spread_of("rollout", 0, 3, 0).await;
    world
        .until_pool("shop", "the scale to be read", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let mut workloads = status.iter().flat_map(|status| &status.workloads);
            workloads.any(|one| one.name == "rollout" && one.desired == Some(3) && one.spilled == 3)
        })
        .await;
}

#[tokio::test]
async fn a_selector_that_changes_decides_on_new_pods_and_those_on_aci_still_count() {
    let world = World::with_full_home(&json!({
        "workloads": [selected("one")], "spill": {"maxReplicas": 3},
    }))
    .await;
    for name in ["one-a", "one-b"] {
        world.create(pod("one", name, &json!({}))).await;
    }
    world.until_spread_of("one", 0, 2, 0).await;
    world
        .change_pool(&json!({"workloads": [selected("two")]}))
        .await;
    world
        .until_pool("shop", "the new workload", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| status.workloads.iter().any(|one| one.name == "two"))
        })
        .await;
    for name in ["two-a", "two-b"] {
        world.create(pod("two", name, &json!({}))).await;
    }
    world.create(pod("one", "one-c", &json!({}))).await;
    // The two earlier pods use two of the three slots, and keep running.
    world.until_counted("two", (1, 0, 1, 0)).await;
    let pods = world.pods().list(&kube::api::ListParams::default()).await;
    let away = |pod: &&Pod| objects::node_of(pod) == Some(AWAY);
    let pods = pods.expect("a list").items;
    assert_eq!(pods.iter().filter(away).count(), 3);
    let old = pods.iter().find(|pod| pod.name_any() == "one-c");
    assert!(!is_granted(old.expect("the pod")));
    world.delete_pod("one-a").await;
    world.until_spread_of("two", 0, 2, 0).await;
    world.end().await;
}
