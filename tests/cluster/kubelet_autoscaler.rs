//! A `HorizontalPodAutoscaler` on CPU with pods on ACI and a real metrics-server.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use serde_json::json;

use crate::kubelet_metrics::{fast, started, uses};
use crate::kubelet_own_node::Load;
use crate::support::{Options, wait};
use crate::world::World;
use crate::{kubelet_own_node, own_nodes};

/// Flags for an autoscaler that syncs often and trusts a pod's metrics from its start.
const HASTY: [&str; 3] = [
    "--horizontal-pod-autoscaler-sync-period=2s",
    "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_on_cpu_scales_a_workload_on_aci_out_and_in_again() {
    let cluster = Options {
        metrics_server: true,
        controller_manager: &HASTY,
        ..Options::default()
    };
    let world = started(cluster).await;
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                    "nodeSelector": {"burstpool.io/pool": "shop"},
                    "containers": [{
                        "name": "main", "image": "nginx", "env": uses("900")["env"],
                        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                    }],
                },
            },
        },
    });
    world.make::<Deployment>(deployment).await;
    autoscale(&world, (1, 4)).await;

    until_replicas(&world, 4).await;
    let is_shown = async || top(&world, "pod").contains(&(900, "100Mi".to_owned()));
    wait::by_and_by("a pod to be shown", is_shown).await;
    let is_whole = async || {
        let used = top(&world, "node");
        let mut used = used.iter();
        used.any(|(cpu, memory)| (3590..=3610).contains(cpu) && memory == "400Mi")
    };
    wait::by_and_by("the node to be shown with all its pods", is_whole).await;

    idle(&world);
    until_replicas(&world, 1).await;
    world.end().await;
}

/// When an autoscaler wants to scale in, it counts pods without metrics as busy. Idle pods at home
/// would never go if those on ACI had no metrics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_on_cpu_scales_a_workload_at_home_and_on_aci_out_and_in_again() {
    let load = Load::of(1800);
    let world = furnished(&load, 2).await;
    autoscale(&world, (2, 8)).await;

    // Half of the replicas do not fit at home.
    until_replicas(&world, 8).await;
    world.until_spread(4, 4, 0).await;
    let are_busy = async || {
        let used = top(&world, "pod");
        used.len() == 8 && used.iter().all(|(cpu, _)| (1700..=1900).contains(cpu))
    };
    wait::by_and_by("all pods to be shown as busy", are_busy).await;

    load.set(10);
    idle(&world);
    until_replicas(&world, 2).await;
    world.until_spread(2, 0, 0).await;
    world.end().await;
}

/// CPU in millicores and memory of pods or nodes, from `kubectl top`. Empty while there are no metrics.
fn top(world: &World, of: &str) -> Vec<(u32, String)> {
    let asked = world
        .cluster
        .kubectl()
        .args(["top", of, "--no-headers"])
        .output();
    let told = asked.expect("kubectl").stdout;
    let told = String::from_utf8_lossy(&told);
    let used = |line: &str| {
        // For nodes, percentages are in between.
        let mut words = line
            .split_whitespace()
            .skip(1)
            .filter(|word| !word.ends_with('%'));
        let cpu = words.next()?.strip_suffix('m')?.parse().ok()?;
        Some((cpu, words.next()?.to_owned()))
    };
    told.lines().filter_map(used).collect()
}

/// Pods without metrics count as busy when the autoscaler wants to scale in. So four idle pods at home
/// and four without metrics all stay until there are metrics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_takes_nothing_away_while_nothing_is_known_of_the_pods_on_aci() {
    let load = Load::of(10);
    let world = furnished(&load, 8).await;
    let silent = json!({"operation": "Metrics_List", "fault": {"error": {"status": 500}}});
    world.admin("faults", &silent).await;
    world.until_spread(4, 4, 0).await;
    autoscale(&world, (2, 8)).await;

    let autoscalers = Api::namespaced(world.client.clone(), "default");
    let judges = |autoscaler: Option<&HorizontalPodAutoscaler>| {
        let status = autoscaler.and_then(|autoscaler| autoscaler.status.as_ref());
        let metrics = status.and_then(|status| status.current_metrics.as_ref());
        let used = metrics.and_then(|metrics| {
            metrics
                .first()?
                .resource
                .as_ref()?
                .current
                .average_utilization
        });
        used.is_some_and(|used| used < 10)
    };
    wait::until(autoscalers, "web", "the idle ones to be seen", judges)
        .await
        .expect("numbers of home");
    let judged = world.kubectl(&[
        "get",
        "hpa",
        "web",
        "-o",
        "jsonpath={.status.desiredReplicas}",
    ]);
    assert_eq!(judged.trim(), "8");

    world.azure.shared().store().faults.remove(None);
    idle(&world);
    until_replicas(&world, 2).await;
    world.end().await;
}

/// Two home nodes whose pods use as much CPU as `load` says, and this many replicas of `web`.
async fn furnished(load: &Load, replicas: i32) -> World {
    let cluster = Options {
        metrics_server: true,
        controller_manager: &HASTY,
        ..Options::default()
    };
    let mut world = World::without_operator(cluster, fast(10.0)).await;
    world.run();
    world.furnish(&json!({})).await;
    for node in ["home-a", "home-b"] {
        kubelet_own_node::serve(&world.client, node, load).await;
    }
    let mut web = own_nodes::deployment("web", replicas);
    let spec = web.spec.template.spec.as_mut().expect("a pod");
    spec.containers[0].env = serde_json::from_value(uses("1800")["env"].clone()).ok();
    world.deploy_this(&web).await;
    world
}

/// Makes all containers in Azure idle.
fn idle(world: &World) {
    for group in world.azure.shared().store().groups.values_mut() {
        for run in &mut group.containers {
            run.script.cpu = Some(10.0);
        }
    }
}

/// Creates an autoscaler for `web` with a target of half the requested CPU.
async fn autoscale(world: &World, (least, most): (i32, i32)) {
    let autoscaler = json!({
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": least, "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
            }}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    });
    world.make::<HorizontalPodAutoscaler>(autoscaler).await;
}

/// Waits for this many replicas. Metrics arrive every minute, and a rate needs two of them.
async fn until_replicas(world: &World, replicas: i32) {
    let is_scaled = |deployment: Option<&Deployment>| {
        deployment.is_some_and(|deployment| deployment.spec.replicas == Some(replicas))
    };
    let mut waited = Ok(());
    for _ in 0..4 {
        let what = format!("{replicas} replicas");
        waited = wait::until(world.deployments(), "web", &what, is_scaled).await;
        if waited.is_ok() {
            return;
        }
    }
    let said = world.kubectl(&["describe", "hpa", "web"]);
    unreachable!("{waited:?}: {said}\n{}", world.tail());
}
