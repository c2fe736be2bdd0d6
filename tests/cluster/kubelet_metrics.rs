//! What pods on ACI use, as metrics-server, kubectl top and an autoscaler see it.

use std::time::Duration;

use burstpool::emulator::Options as AzureOptions;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use serde_json::{Value, json};

use crate::kubelet_home::Load;
use crate::support::{Options, wait};
use crate::telemetry::assert_well_formed;
use crate::world::{World, is_running};
use crate::{home, kubelet_home};

/// An autoscaler that looks often, and believes of a pod what is measured from its beginning on.
const HASTY: [&str; 3] = [
    "--horizontal-pod-autoscaler-sync-period=2s",
    "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
];
/// Azure's minutes take seconds. Its clock is behind, so that they are over for us, too: until it has caught
/// up with ours, which takes three minutes at a speed of 20.
fn fast(speed: f64) -> AzureOptions {
    AzureOptions {
        speed,
        behind: Duration::from_secs(3500),
        ..AzureOptions::default()
    }
}

async fn started(cluster: Options) -> World {
    let mut world = World::without_operator(cluster, fast(20.0)).await;
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
    all_that_is_looked_at(&world).await;
    world.end().await;
}

/// A Prometheus that is set up for kubelets looks at all of these, and takes an error for a kubelet that is
/// down.
async fn all_that_is_looked_at(world: &World) {
    for (path, line) in [
        ("/metrics", "kubelet_node_name{node=\"burst-shop-weu\"} 1"),
        ("/metrics", "kubelet_running_pods 3"),
        (
            "/metrics/cadvisor",
            "container_memory_working_set_bytes{container=\"main\",namespace=\"default\",pod=\"told\",image=\"nginx\"} 104857600 ",
        ),
        ("/metrics/probes", "#"),
        (
            "/metrics/slis",
            "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1",
        ),
        (
            "/metrics/resource",
            "node_memory_working_set_bytes 104857600 ",
        ),
        (
            "/metrics/resource/burst-shop-weu",
            "node_cpu_usage_seconds_total ",
        ),
    ] {
        let text = get(world, path).await;
        assert!(
            text.lines().any(|told| told.starts_with(line)),
            "{path}: {line}: {text}"
        );
        assert_well_formed(&text);
    }
    let summary: Value = serde_json::from_str(&get(world, "/stats/summary").await).expect("JSON");
    let node = &summary["node"];
    assert_eq!(node["memory"]["workingSetBytes"], 104_857_600, "{node}");
    assert_eq!(node["cpu"]["usageNanoCores"], 250_000_000, "{node}");
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
    world.make::<Deployment>(deployment).await;
    let deployments = world.deployments();
    autoscale(&world, (1, 4)).await;

    until_replicas(&deployments, 4, &world).await;
    let top = world.kubectl(&["top", "pod", "--no-headers"]);
    let first = top.lines().next().expect("a pod is shown");
    let shown: Vec<&str> = first.split_whitespace().skip(1).collect();
    assert_eq!(shown, ["900m", "100Mi"], "{top}");
    wait::by_and_by("the node to be shown with all its pods", async || {
        // CPU, its share, memory, its share.
        let top = world.kubectl(&["top", "node", "burst-shop-weu", "--no-headers"]);
        let shown: Vec<&str> = top.split_whitespace().skip(1).collect();
        let cpu = shown[0].strip_suffix('m').and_then(|cpu| cpu.parse().ok());
        cpu.is_some_and(|cpu: u32| (3590..=3610).contains(&cpu)) && shown[2] == "400Mi"
    })
    .await;

    idle(&world);
    until_replicas(&deployments, 1, &world).await;
    world.end().await;
}

/// Pods without numbers count as busy when an autoscaler would scale in: the idle ones at home never would
/// go as long as those on ACI had none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_on_cpu_scales_a_workload_at_home_and_on_aci_out_and_in_again() {
    let cluster = Options {
        metrics_server: true,
        controller_manager: &HASTY,
        ..Options::default()
    };
    let mut world = World::without_operator(cluster, fast(10.0)).await;
    world.run();
    world.furnish(&json!({})).await;
    let load = Load::of(1800);
    for node in ["home-a", "home-b"] {
        kubelet_home::serve(&world.client, node, &load).await;
    }
    let mut web = home::deployment("web", 2);
    let spec = web.spec.template.spec.as_mut().expect("a pod");
    spec.containers[0].env = serde_json::from_value(uses("1800")["env"].clone()).ok();
    world.deploy_this(&web).await;
    autoscale(&world, (2, 8)).await;

    // Half of the replicas have no room at home.
    until_replicas(&world.deployments(), 8, &world).await;
    world.until_spread(4, 4, 0).await;
    let shown = async || {
        let top = world.kubectl(&["top", "pod", "--no-headers"]);
        let millicores = |line: &str| {
            let cpu = line.split_whitespace().nth(1)?.strip_suffix('m')?;
            cpu.parse::<u32>().ok()
        };
        let busy = |cpu: &u32| (1700..=1900).contains(cpu);
        top.lines().filter_map(millicores).filter(busy).count() == 8
    };
    wait::by_and_by("all pods to be shown as busy", shown).await;

    load.set(10);
    idle(&world);
    until_replicas(&world.deployments(), 2, &world).await;
    world.until_spread(2, 0, 0).await;
    world.end().await;
}

/// Nobody in Azure has anything to do any more.
fn idle(world: &World) {
    for group in world.azure.shared().store().groups.values_mut() {
        for run in &mut group.containers {
            run.script.cpu = Some(10.0);
        }
    }
}

/// An autoscaler of `web` that wants half of what pods ask for to be used.
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
