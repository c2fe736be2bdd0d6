//! Native sidecars: a Deployment with one bursts where the pool accepts that the sidecar starts and ends together with
//! the containers.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use serde_json::json;

use crate::own_nodes::{AWAY, deployment};
use crate::support::objects;
use crate::world::World;

fn sidecar(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == "proxy")
}

/// The containers of the only group, each with the CPU that it requests.
fn requested(world: &World) -> Vec<(String, f64)> {
    let store = world.azure.shared().store();
    let group = store.groups.values().next().expect("a group");
    let properties = group.body.properties.clone().unwrap_or_default();
    let containers = properties.containers.unwrap_or_default().into_iter();
    let requests = containers.map(|container| {
        let resources = container.properties.unwrap_or_default().resources;
        let requests = resources.unwrap_or_default().requests.unwrap_or_default();
        (
            container.name.unwrap_or_default(),
            requests.cpu.unwrap_or_default(),
        )
    });
    requests.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_sidecar_runs_beside_its_container_where_the_pool_accepts_its_order() {
    let world = World::with_home(&json!({})).await;
    let proxy = json!({
        "name": "proxy", "image": "envoy", "restartPolicy": "Always",
        "env": [{"name": "ACI_EMULATOR_LOG", "value": "listening"}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    });
    let mut web = deployment("web", 3);
    let spec = web.spec.template.spec.as_mut().expect("a pod");
    spec.init_containers = Some(vec![serde_json::from_value(proxy).expect("a container")]);
    world.deploy_this(&web).await;
    // With its sidecar, a pod takes three of the four cores of a home node.
    world.until_spread(2, 0, 1).await;
    world
        .until_pool("shop", "the pool to name the remedy", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let web = status.and_then(|status| status.workloads.first());
            web.is_some_and(|web| {
                let remedy = "or accept it: spill.accept: [sidecarOrder]";
                web.message.contains(remedy)
                    && web.message.contains("initContainers[0].restartPolicy")
            })
        })
        .await;

    let accept = json!({"spill": {"accept": ["sidecarOrder"]}});
    world.change_pool(&accept).await;
    let pods = world.until_spread(2, 1, 0).await;
    let away = pods
        .iter()
        .find(|pod| objects::node_of(pod) == Some(AWAY))
        .expect("one is on ACI");
    assert_eq!(away.annotations()["burstpool.io/not-kept"], "sidecarOrder");
    let name = away.name_any();
    world
        .until_pod(&name, "the pod and its sidecar to be ready", |pod| {
            pod.is_some_and(|pod| {
                objects::is_pod_ready(pod)
                    && sidecar(pod).is_some_and(|proxy| {
                        let state = proxy.state.clone().unwrap_or_default();
                        proxy.ready && proxy.started == Some(true) && state.running.is_some()
                    })
            })
        })
        .await;
    let shown = world.kubectl(&["get", "pod", &name]);
    assert!(
        shown.contains("2/2") && shown.contains("Running"),
        "{shown}"
    );
    let log = world.kubectl(&["logs", &name, "-c", "proxy"]);
    assert_eq!(log, "listening\n");
    let ran = world.kubectl(&["exec", &name, "-c", "proxy", "--", "hostname", "-f"]);
    assert_eq!(ran, "hostname -f: simulated\n");
    assert_eq!(
        requested(&world),
        [("proxy".to_owned(), 1.0), ("main".to_owned(), 2.0)]
    );
    world.end().await;
}
