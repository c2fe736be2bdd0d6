//! What pods on ACI use, as metrics-server, kubectl top and an autoscaler see it.

use std::time::Duration;

use burstpool::emulator::Options as AzureOptions;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support::{Options, wait};
use crate::world::{World, is_running};

/// An autoscaler that looks often, and believes of a pod what is measured from its beginning on.
const HASTY: [&str; 3] = [
    "--horizontal-pod-autoscaler-sync-period=2s",
    "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
];
/// Azure's minutes take three seconds. Its clock is behind, so that they are over for us, too.
fn fast() -> AzureOptions {
    AzureOptions {
        speed: 20.0,
        behind: Duration::from_secs(3500),
        ..AzureOptions::default()
    }
}

async fn started(cluster: Options) -> World {
    let mut world = World::without_operator(cluster, fast()).await;
    world.run();
    world.create_pool("shop").await;
    world
}

/// What the kubelet API answers the administrator.
async fn get(world: &World, path: &str) -> String {
    let url = format!("{}{path}", world.kubelet("burst-shop-weu").await);
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true);
    let asked = client.build().expect("a client").get(url);
    let answer = asked.bearer_auth(world.cluster.token()).send().await;
    let answer = answer.expect("an answer");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.text().await.expect("a body")
}

/// A container's environment in which a simulated container does so.
fn uses(millicores: &str) -> Value {
    json!({"env": [
        {"name": "ACI_EMULATOR_CPU", "value": millicores},
        {"name": "ACI_EMULATOR_MEMORY", "value": "104857600"},
    ]})
}

/// azure-aci C15: one pod without numbers broke the summary of the whole node, and every autoscaler with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_numbers_does_not_spoil_those_of_the_others() {
    let world = started(Options::default()).await;
    world.create_pod("told", "shop", &uses("250")).await;
    world.create_pod("failing", "shop", &uses("250")).await;
    let unmeasured = json!({"env": [{"name": "ACI_EMULATOR_UNMEASURED", "value": "true"}]});
    world.create_pod("unmeasured", "shop", &unmeasured).await;
    for name in ["told", "failing", "unmeasured"] {
        world.until_pod(name, "the pod to run", is_running).await;
    }
    let fault = json!({"operation": "Metrics_List", "group": "default-failing", "fault": {"error": {"status": 500}}});
    world.admin("faults", &fault).await;

    let summary = async {
        loop {
            let text = get(&world, "/stats/summary").await;
            let summary: Value = serde_json::from_str(&text).expect("a summary");
            let pods = summary["pods"].as_array().expect("pods").clone();
            let of = |name: &str| {
                let mut pods = pods.iter();
                pods.find(|pod| pod["podRef"]["name"] == name).cloned()
            };
            let told = of("told").expect("the pod");
            if !told["cpu"].is_null() {
                return (told, of("failing"), of("unmeasured"));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let summary = tokio::time::timeout(wait::DEADLINE, summary).await;
    let (told, failing, unmeasured) = summary.expect("numbers in time");
    assert_eq!(told["cpu"]["usageNanoCores"], 250_000_000);
    assert_eq!(
        told["containers"][0]["memory"]["workingSetBytes"],
        104_857_600
    );
    for pod in [failing, unmeasured] {
        let pod = pod.expect("it is listed");
        assert!(pod["cpu"].is_null(), "{pod}");
        assert_eq!(pod["containers"][0]["name"], "main");
    }
    let text = get(&world, "/metrics/resource/burst-shop-weu").await;
    let measured: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("pod_cpu_usage_seconds_total{"))
        .collect();
    assert!(
        measured.len() == 1 && measured[0].contains("pod=\"told\""),
        "{text}"
    );
    world.end().await;
}

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
    let deployment: Deployment = serde_json::from_value(deployment).expect("a Deployment");
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "default");
    let create = PostParams::default();
    deployments
        .create(&create, &deployment)
        .await
        .expect("it is created");
    let autoscaler = json!({
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
            }}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    });
    let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(autoscaler).expect("an HPA");
    let autoscalers: Api<HorizontalPodAutoscaler> =
        Api::namespaced(world.client.clone(), "default");
    autoscalers
        .create(&create, &autoscaler)
        .await
        .expect("it is created");

    until_replicas(&deployments, 4, &world).await;
    let top = world.kubectl(&["top", "pod", "--no-headers"]);
    let first = top.lines().next().expect("a pod is shown");
    let shown: Vec<&str> = first.split_whitespace().skip(1).collect();
    assert_eq!(shown, ["900m", "100Mi"], "{top}");

    for group in world.azure.shared().store().groups.values_mut() {
        for run in &mut group.containers {
            run.script.cpu = Some(10.0);
        }
    }
    until_replicas(&deployments, 1, &world).await;
    world.end().await;
}

/// Waits for so many replicas; numbers come every minute, and it takes two to know a rate.
async fn until_replicas(deployments: &Api<Deployment>, replicas: i32, world: &World) {
    let is_scaled = |deployment: Option<&Deployment>| {
        deployment.is_some_and(|deployment| deployment.spec.replicas == Some(replicas))
    };
    let mut waited = Ok(());
    for _ in 0..4 {
        let what = format!("{replicas} replicas");
        waited = wait::until(deployments.clone(), "web", &what, is_scaled).await;
        if waited.is_ok() {
            return;
        }
    }
    let said = world.kubectl(&["describe", "hpa", "web"]);
    unreachable!("{waited:?}: {said}\n{}", world.tail());
}
