//! What the operator reports to Kubernetes about its pods, and how it ends. Each test covers a defect of the Go
//! provider azure-aci.
//!
//! `node_groups.rs` has the tests of what the operator does in Azure.

use std::collections::BTreeMap;

use burstpool::emulator::group::model::{Properties, Volume};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::node_in_process::{Burst, is_running, phase, told};
use crate::support::objects::condition;
use crate::support::{OPERATOR, wait};
use crate::world::{self, World};

/// The state of a container by name: `running`, or the reason for which it waits or has ended.
fn state(pod: Option<&Pod>, name: &str) -> String {
    let status = pod.and_then(|pod| pod.status.as_ref());
    let statuses = status.and_then(|status| status.container_statuses.as_deref());
    let mut found = statuses
        .unwrap_or_default()
        .iter()
        .filter(|status| status.name == name);
    let Some(state) = found.next().and_then(|status| status.state.clone()) else {
        return String::new();
    };
    let reason = state
        .waiting
        .and_then(|waiting| waiting.reason)
        .or_else(|| state.terminated.and_then(|ended| ended.reason));
    reason.unwrap_or_else(|| "running".to_owned())
}

/// azure-aci reported nothing about a pod until all of its containers had started.
#[tokio::test]
async fn a_pod_that_starts_partly_shows_what_runs_and_what_waits() {
    let burst = Burst::start("partly").await;
    let never = json!([{"name": "ACI_EMULATOR_NEVER_START", "value": "true"}]);
    let resources = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
    let containers = json!([
        {"name": "fast", "image": "fast", "resources": resources},
        {"name": "slow", "image": "slow", "resources": resources, "env": never},
    ]);
    burst
        .create("web", &json!({"spec": {"containers": containers}}))
        .await;
    burst
        .until(
            "web",
            "the one container to run and the other to wait",
            |pod| {
                (state(pod, "fast"), state(pod, "slow"))
                    == ("running".to_owned(), "ContainerCreating".to_owned())
            },
        )
        .await;
    let pod = burst.read("web").await;
    assert_eq!(
        (phase(&pod), condition(&pod, "Ready")),
        ("Running", Some("False"))
    );
}

/// In azure-aci, a pod was Ready whatever its readiness probe said.
#[tokio::test]
async fn a_pod_whose_readiness_probe_fails_runs_and_is_not_ready() {
    let burst = Burst::start("unready").await;
    let unready = json!([{"name": "ACI_EMULATOR_UNREADY_AFTER", "value": "1ms"}]);
    let probe = json!({"exec": {"command": ["false"]}});
    let container = json!({"env": unready, "readinessProbe": probe});
    burst
        .create("web", &json!({"spec": {"containers": [container]}}))
        .await;
    burst
        .until("web", "the pod to run", |pod| {
            pod.is_some_and(|pod| phase(pod) == "Running")
        })
        .await;
    let pod = burst.read("web").await;
    assert_eq!(state(Some(&pod), "main"), "running");
    for kind in ["Ready", "ContainersReady"] {
        assert_eq!(condition(&pod, kind), Some("False"), "{kind}");
    }
    assert!(pod.status.is_some_and(|status| {
        let statuses = status.container_statuses.unwrap_or_default();
        statuses.iter().all(|status| !status.ready)
    }));
}

/// azure-aci lost events, or reported them twice.
#[tokio::test]
async fn every_event_of_azure_is_reported_once_also_across_a_restart() {
    let mut burst = Burst::start("events").await;
    burst.create("before", &json!({})).await;
    burst.until("before", "the pod to run", is_running).await;
    burst.create("meanwhile", &json!({})).await;
    burst
        .eventually("its group", |burst| burst.groups().len() == 2)
        .await;
    burst.stop().await;
    // Everything happens to the second pod's group while no operator runs.
    burst
        .eventually("both to run", |burst| {
            burst.timeline().iter().all(|entry| entry.running.is_some())
        })
        .await;
    burst.run().await;
    burst.until("meanwhile", "the pod to run", is_running).await;

    let mut happened: BTreeMap<(String, String, String), i32> = BTreeMap::new();
    for group in burst.emulator.shared().store().groups.values() {
        let pod = group.body.tags.as_ref().expect("tags")["burstpool-pod"].clone();
        for event in group.containers.iter().flat_map(|run| &run.events) {
            let what = (pod.clone(), event.name.clone(), event.message.clone());
            *happened.entry(what).or_default() +=
                i32::try_from(event.count).expect("a small number");
        }
    }
    assert!(happened.len() >= 6, "{happened:?}");
    let told = async |burst: &Burst| {
        let events = burst
            .tenant
            .api::<Event>()
            .list(&ListParams::default())
            .await;
        let mut told: BTreeMap<(String, String, String), i32> = BTreeMap::new();
        for event in events.expect("a list").items {
            if event.reporting_component.as_deref() == Some("burstpool") {
                let text = |text: Option<String>| text.unwrap_or_default();
                let pod = text(event.involved_object.name);
                let what = (pod, text(event.reason), text(event.message));
                *told.entry(what).or_default() += event.count.unwrap_or(1);
            }
        }
        told
    };
    let mut again = tokio::time::interval(std::time::Duration::from_millis(100));
    let all = async {
        // The operator writes Events after the status for which the test waited.
        while told(&burst).await.len() < happened.len() {
            again.tick().await;
        }
    };
    let waited = tokio::time::timeout(wait::DEADLINE, all).await;
    assert_eq!(told(&burst).await, happened, "{waited:?}");
}

/// azure-aci silently left out a volume whose Secret or `ConfigMap` was missing.
#[tokio::test]
async fn a_pod_waits_for_a_required_secret_and_config_map_and_reports_it() {
    let burst = Burst::start("missing").await;
    let volumes = json!([
        {"name": "one", "secret": {"secretName": "keys"}},
        {"name": "two", "configMap": {"name": "settings"}},
    ]);
    let mounts =
        json!([{"name": "one", "mountPath": "/one"}, {"name": "two", "mountPath": "/two"}]);
    let spec = json!({"volumes": volumes, "containers": [{"volumeMounts": mounts}], "automountServiceAccountToken": false});
    burst.create("web", &json!({"spec": spec})).await;
    burst
        .until("web", "the pod to wait", |pod| {
            state(pod, "main") == "CreateContainerConfigError"
        })
        .await;
    let said = told(&burst, "web", "FailedMount").await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("keys") && said[0].contains("settings"),
        "{said:?}"
    );
    assert_eq!(burst.puts(), 0);

    let secret = json!({"metadata": {"name": "keys"}, "stringData": {"k": "v"}});
    let secret: Secret = serde_json::from_value(secret).expect("a secret");
    burst.tenant.create(&secret).await.expect("a secret");
    let map = json!({"metadata": {"name": "settings"}, "data": {"k": "v"}});
    let map: ConfigMap = serde_json::from_value(map).expect("a map");
    burst.tenant.create(&map).await.expect("a map");
    burst.until("web", "the pod to run", is_running).await;
    let bodies = burst.bodies();
    let volumes: Vec<&Volume> = bodies
        .values()
        .filter_map(|body| body.properties.as_ref())
        .flat_map(Properties::volumes)
        .collect();
    let content = |volume: &&Volume| {
        volume
            .secret
            .as_ref()
            .and_then(|files| files.get("k").cloned())
    };
    let files: Vec<_> = volumes.iter().filter_map(content).collect();
    assert_eq!(files, ["dg=="; 2]);
}

/// azure-aci ignored SIGTERM.
#[tokio::test]
async fn a_terminated_operator_ends_and_leaves_everything_to_the_next() {
    let mut world = World::start().await;
    world.create_pool("shop").await;
    world.create_pod("web", "shop", &json!({})).await;
    world
        .until_pod("web", "the pod to run", world::is_running)
        .await;
    let before = world.groups();

    let ended = world.terminate().await;
    assert!(ended.success(), "{ended:?}\n{}", world.tail());
    assert_eq!((before.len(), world.groups()), (1, before));
    assert!(world::is_running(
        world
            .pods()
            .get_opt("web")
            .await
            .expect("an answer")
            .as_ref()
    ));
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), OPERATOR);
    let lease = leases.get("burstpool").await.expect("the lease");
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(
        holder.as_deref().unwrap_or_default(),
        "",
        "it was given back"
    );

    world.run();
    world.create_pod("next", "shop", &json!({})).await;
    world
        .until_pod("next", "the next one's pod to run", world::is_running)
        .await;
    assert_eq!(world.groups().len(), 2);
}
