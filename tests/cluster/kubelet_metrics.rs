//! CPU and memory of pods on ACI, as metrics-server, `kubectl top` and Prometheus see them.

use std::time::Duration;

use burstpool::emulator::{EmulatorOptions as AzureOptions, ShownTime, SubnetAddresses};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::support::monitoring::Prometheus;
use crate::support::{Options, wait};
use crate::telemetry::assert_well_formed;
use crate::world::{World, is_running};

const SUBNET: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";
/// An Azure whose minutes pass in seconds, also in the times that it shows. Its clock starts behind the
/// host's, so that its minutes are over for the operator, too. It catches up after about three minutes
/// at a speed of 20.
pub fn fast(speed: f64) -> AzureOptions {
    AzureOptions {
        speed,
        shows: ShownTime::EmulatedTime {
            behind: Duration::from_secs(3500),
        },
        ..AzureOptions::default()
    }
}

pub async fn started(cluster: Options) -> World {
    let mut world = World::without_operator(cluster, fast(20.0)).await;
    world.run();
    world.create_pool("shop").await;
    world
}

/// The kubelet API's answer to the administrator.
async fn get(world: &World, path: &str) -> String {
    let url = format!("{}{path}", world.kubelet("burst-shop-weu").await);
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true);
    let asked = client.build().expect("a client").get(url);
    let answer = asked.bearer_auth(world.cluster.token()).send().await;
    let answer = answer.expect("an answer");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.text().await.expect("a body")
}

/// Environment variables that set a simulated container's CPU and memory use.
pub fn uses(millicores: &str) -> Value {
    json!({"env": [
        {"name": "ACI_EMULATOR_CPU", "value": millicores},
        {"name": "ACI_EMULATOR_MEMORY", "value": "104857600"},
    ]})
}

/// In azure-aci, one pod without metrics broke the summary of the whole node, and with it every
/// autoscaler.
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

/// Azure Monitor has no metrics of one pod, and the extension cannot answer for the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_in_a_subnet_says_itself_what_its_containers_use() {
    let azure = AzureOptions {
        subnet_addresses: SubnetAddresses::Loopback,
        ..fast(20.0)
    };
    let mut world = World::without_operator(Options::default(), azure).await;
    world.run();
    let placement = json!({"name": "weu", "region": "westeurope", "subnetId": SUBNET});
    world.add_pool(&json!({"placements": [placement]})).await;
    let fault = json!({"operation": "Metrics_List", "group": "default-told", "fault": {"error": {"status": 500}}});
    world.admin("faults", &fault).await;
    world.create_pod("told", "shop", &uses("250")).await;
    world.until_pod("told", "the pod to run", is_running).await;
    until_used(&world, "told", 250_000_000).await;
    for group in world.azure.shared().store().groups.values_mut() {
        group.containers[0].script.cpu = Some(500.0);
    }
    until_used(&world, "told", 500_000_000).await;

    // A container uses the extension's port, so the extension cannot answer and the operator asks
    // Azure Monitor.
    let mut taken = uses("125");
    taken["ports"] = json!([{"containerPort": 18899}]);
    world.create_pod("taken", "shop", &taken).await;
    world.until_pod("taken", "the pod to run", is_running).await;
    until_used(&world, "taken", 125_000_000).await;
    until_used(&world, "told", 500_000_000).await;
    world.end().await;
}

/// Waits until the summary shows this CPU use of a pod, in nanocores.
async fn until_used(world: &World, pod: &str, nanocores: u64) {
    let is_so = async || {
        let summary: Value =
            serde_json::from_str(&get(world, "/stats/summary").await).expect("JSON");
        let pods = summary["pods"].as_array().expect("pods");
        let told = pods.iter().find(|told| told["podRef"]["name"] == pod);
        told.is_some_and(|told| told["cpu"]["usageNanoCores"] == nanocores)
    };
    wait::by_and_by(&format!("{pod} to use {nanocores}"), is_so).await;
}

/// A Prometheus that scrapes kubelets reads all of these paths, and takes an error for a kubelet that
/// is down.
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

/// The job of `config/prometheus` with static targets: Debian's Prometheus is built without Kubernetes
/// discovery.
async fn job(world: &World) -> Value {
    let text = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/prometheus/kubelet.yaml"
    );
    let text = std::fs::read_to_string(text).expect("a file");
    let config: Value = serde_yaml::from_str(&text).expect("YAML");
    let mut job = config["scrape_configs"][0].clone();
    let finds = job.as_object_mut().expect("a job");
    let finds = finds
        .remove("kubernetes_sd_configs")
        .expect("what it looks for");
    let label = finds[0]["selectors"][0]["label"].as_str().expect("a label");
    let nodes: Api<Node> = Api::all(world.client.clone());
    let nodes = nodes.list(&ListParams::default().labels(label)).await;
    let mut targets = Vec::new();
    for node in nodes.expect("nodes") {
        let name = node.name_any();
        let address = world.kubelet(&name).await.replace("https://", "");
        let labels = json!({"instance": name, "__meta_kubernetes_node_name": name});
        targets.push(json!({"targets": [address], "labels": labels}));
    }
    assert_eq!(targets.len(), 2, "{targets:?}");
    job["static_configs"] = targets.into();
    job["authorization"] = json!({"credentials": world.cluster.token()});
    job
}

/// Virtual nodes share one address. If Prometheus scraped it once per node, every pod would count
/// several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_with_the_job_of_the_manifests_counts_each_pod_once() {
    if !Prometheus::is_found() {
        return;
    }
    let mut world = World::without_operator(Options::default(), fast(20.0)).await;
    world.run();
    let placements = [("weu", "westeurope"), ("neu", "northeurope")];
    world.create_pool_in("shop", &json!({}), &placements).await;
    world.create_pod("told", "shop", &uses("250")).await;
    world.until_pod("told", "the pod to run", is_running).await;

    let prometheus = Prometheus::of(&json!([job(&world).await])).await;

    let asked = async |path: &str| -> Value {
        let answer = reqwest::get(format!("{}/api/v1/{path}", prometheus.address())).await;
        let text = answer.expect("an answer").text().await.expect("a body");
        serde_json::from_str(&text).expect("JSON")
    };
    let memory = "series?match[]=container_memory_working_set_bytes";
    let is_told = async || !asked(memory).await["data"][0].is_null();
    wait::by_and_by("a pod's memory in Prometheus", is_told).await;
    let targets = asked("targets").await["data"].clone();
    let (active, found) = (&targets["activeTargets"], &targets["droppedTargets"]);
    assert_eq!(active.as_array().map(Vec::len), Some(1), "{active} {found}");
    assert_eq!(active[0]["health"], "up", "{active}");
    let series = asked(memory).await["data"].clone();
    assert_eq!(series.as_array().map(Vec::len), Some(1), "{series}");
    for (label, value) in [
        ("pod", "told"),
        ("namespace", "default"),
        ("job", "kubelet"),
    ] {
        assert_eq!(series[0][label], value, "{series}");
    }
    world.end().await;
}
