//! The operator as a process, with its own cluster and Azure: what a user sees of a pool.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher;
use serde_json::json;

use crate::support::{objects, wait};
use crate::world::{World, is_closed, is_running, said};

#[tokio::test]
async fn applying_a_pool_registers_a_node_that_runs_pods_and_deleting_it_drains_it() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "SECRET-VALUE"}});
    let secret: Secret = serde_json::from_value(secret).expect("a secret");
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "default");
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .expect("a secret");
    let from_secret = json!({"env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
    world.create_pod("web", "shop", &from_secret).await;
    world.until_pod("web", "the pod to run", is_running).await;
    world.hold_web().await;

    world.delete_pool("shop").await;
    world
        .until_pool("shop", "the pool to say what holds it", |pool| {
            pool.is_some_and(|pool| said(pool, "Ready").1.contains("default/web"))
        })
        .await;
    assert!(is_running(Some(
        &world.pods().get("web").await.expect("the pod")
    )));
    world.release_web().await;
    world.until_no_pool("shop").await;
    world
        .until_pod("web", "the pod to be gone", |pod| pod.is_none())
        .await;
    assert_eq!(world.groups(), Vec::<String>::new());

    let log = std::fs::read_to_string(world.log()).expect("a log");
    assert!(log.contains("TRACE"), "everything is logged");
    assert!(
        !log.contains("SECRET-TOKEN") && !log.contains("SECRET-VALUE"),
        "and no secret"
    );
}

#[tokio::test]
async fn the_samples_reach_three_running_replicas_behind_their_service() {
    let world = World::start().await;
    let pool = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples/burstpool.yaml");
    world.kubectl(&["apply", "-f", pool]);
    world.apply_nginx();
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "default");
    let available = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.available_replicas) == Some(3)
    };
    wait::until(deployments, "nginx", "three replicas", available)
        .await
        .expect("they run");
    let slices: Api<EndpointSlice> = Api::namespaced(world.client.clone(), "default");
    let ours = watcher::Config::default().labels("kubernetes.io/service-name=nginx");
    let three = |slices: &[EndpointSlice]| {
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints.filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .is_some_and(|c| c.ready == Some(true))
        });
        ready.count() == 3
    };
    wait::until_all(slices, ours, "three endpoints", three)
        .await
        .expect("they are behind it");
    let said = world
        .cluster
        .kubectl()
        .args(["get", "bp", "-o", "wide"])
        .output()
        .expect("kubectl");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let message = "every node is registered and takes pods";
    assert!(said.contains("True") && said.contains(message), "{said}");
}

#[tokio::test]
async fn an_azure_that_fails_closes_the_node_in_its_words_and_recovery_opens_it() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let refusal = json!({"error": {"status": 403, "code": "AuthorizationFailed", "message": "You shall not pass."}});
    world.admin("faults", &json!({"fault": refusal})).await;
    world
        .until_node("burst-shop-weu", "the node to be closed", |node| {
            node.is_some_and(|node| is_closed(node) && objects::is_ready(node))
        })
        .await;
    world
        .until_pool("shop", "the pool to say why", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "NodesReady").1.contains("You shall not pass.")
                    && said(pool, "Ready").0 == "True"
            })
        })
        .await;
    world.no_faults().await;
    world
        .until_node("burst-shop-weu", "the node to be open", |node| {
            node.is_some_and(|node| !is_closed(node))
        })
        .await;
}

#[tokio::test]
async fn groups_never_stay_behind_where_a_pool_no_longer_looks() {
    let mut world = World::start().await;
    world.create_pool("shop").await;
    world.create_pod("web", "shop", &json!({})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    let groups = world.groups();
    assert_eq!(groups.len(), 1);

    // The operator would never find the groups again if it looked elsewhere.
    let elsewhere = json!({"azure": {"resourceGroup": "other"}});
    world.change_pool(&elsewhere).await;
    until_said(&world, "in resource group rg of subscription 0").await;
    assert_eq!(world.groups(), groups);
    world
        .change_pool(&json!({"azure": {"resourceGroup": null}}))
        .await;
    until_said(&world, "").await;

    // An operator whose flags do not name the resource group reads it from the node.
    world.terminate().await;
    world.arguments = ["--resource-group", ""].map(str::to_owned).to_vec();
    world.run();
    until_said(&world, "spec.azure.resourceGroup is not set").await;
    assert_eq!(world.groups(), groups);
    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    assert_eq!(world.groups(), Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn a_pool_says_how_many_groups_it_has_without_waiting_for_the_next_list() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let listed = r#"operation="ContainerGroups_ListByResourceGroup",status="200""#;
    wait::by_and_by("the first list", async || {
        world.azure.shared().counters.text().contains(listed)
    })
    .await;
    // Azure no longer answers lists, so the count must come from the pod workers.
    let silent =
        json!({"error": {"status": 503, "code": "ServiceUnavailable", "message": "Later."}});
    let lists = json!({"fault": silent, "operation": "ContainerGroups_ListByResourceGroup"});
    world.admin("faults", &lists).await;
    world.create_pod("web", "shop", &json!({})).await;
    until_groups(&world, 1).await;
    world.delete_pod("web").await;
    until_groups(&world, 0).await;
    world.end().await;
}

/// Waits until the pool's status counts this many groups for its placement.
async fn until_groups(world: &World, count: i64) {
    world
        .until_pool("shop", "the pool to count its groups", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let placement = status.and_then(|status| status.placements.first());
            placement.is_some_and(|placement| placement.groups == count)
        })
        .await;
}

/// Waits until the pool is not ready, with these words in the message; if `words` is empty, until it is
/// ready.
async fn until_said(world: &World, words: &str) {
    world
        .until_pool("shop", "the pool to say so", |pool| {
            pool.is_some_and(|pool| {
                let (is_ready, why) = said(pool, "Ready");
                (is_ready == "True") == words.is_empty() && why.contains(words)
            })
        })
        .await;
}
