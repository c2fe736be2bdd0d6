//! The operator with 1, 100, 300 and 1,000 pods: real API server, the emulator 50 ms away, 3 s from PUT
//! to running, without limits of creates and deletes.
//!
//! Times are of the emulator's clock, which is the host's here. A pod is bound when it is created (it
//! names its node), so that the scheduler's own pace is not measured.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::time::Duration;

use burstpool::api::BurstPool;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::emulator::{Emulator, quantile};
use super::support::{Cluster, Options, objects, wait};

/// How many pods.
const SIZES: [usize; 4] = [1, 100, 300, 1000];
const NODE: &str = "burst-bench-weu";

/// When pods were first seen bound, running and marked for deletion, by name.
type Times = HashMap<String, (Timestamp, Option<Timestamp>, Option<Timestamp>)>;

struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures, and prints.
pub async fn run() {
    let arguments = [
        "--no-limits",
        "--rtt",
        "50ms",
        "--start-latency",
        "3s",
        "--quota",
        "ContainerGroups=5000",
        "--quota",
        "StandardCores=5000",
    ];
    let azure = Emulator::start(&arguments);
    let cluster = Cluster::start(Options::default()).await.expect("a cluster");
    let client = cluster.client().expect("a client");
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "any").expect("it is written");
    cluster
        .install_crds()
        .await
        .expect("the resource is served");
    let operator = start(&cluster, &azure, token.path());
    pool(&client).await;
    println!(
        "\npods | bound to PUT | running to Running | all Running | GETs per start | deleted to DELETE | left after | memory"
    );
    for size in SIZES {
        measure(&client, &azure, &operator, size).await;
    }
}

fn start(cluster: &Cluster, azure: &Emulator, token: &std::path::Path) -> Operator {
    let child = Command::new(super::built("burstpool"))
        .arg("run")
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args([
            "--arm-endpoint",
            &azure.url,
            "--subscription-id",
            "s",
            "--resource-group",
            "g",
        ])
        .args([
            "--node-address",
            "127.0.0.1",
            "--namespace",
            "default",
            "--arm-token-file",
        ])
        .arg(token)
        .env("RUST_LOG", "error")
        .spawn();
    Operator(child.expect("the operator starts"))
}

async fn pool(client: &Client) {
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": "bench"},
        "spec": {"azure": {}, "placements": [{"name": "weu", "region": "westeurope",
            "capacity": {"cpu": "5000", "memory": "10Ti", "pods": 5000}}]},
    });
    let pool: BurstPool = serde_json::from_value(pool).expect("a pool");
    Api::all(client.clone())
        .create(&PostParams::default(), &pool)
        .await
        .expect("a pool");
    let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
    wait::until(Api::all(client.clone()), NODE, "the node", ready)
        .await
        .expect("a node");
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": NODE,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{"name": "main", "image": "nginx", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
        },
    }))
    .expect("a pod")
}

async fn measure(client: &Client, azure: &Emulator, operator: &Operator, size: usize) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let (times, watched) = watch_pods(pods.clone());
    let reads = counted(azure, "ContainerGroups_Get").await;
    let began = Timestamp::now();
    let names: Vec<String> = (0..size).map(|n| format!("bench-{size}-{n}")).collect();
    let created = futures::stream::iter(&names).map(|name| {
        let (pods, pod) = (pods.clone(), pod(name));
        async move { pods.create(&PostParams::default(), &pod).await }
    });
    created
        .buffer_unordered(32)
        .try_collect::<Vec<_>>()
        .await
        .expect("pods");
    let mut seen = times.clone();
    let all = |times: &Times| {
        times
            .values()
            .filter(|(_, running, _)| running.is_some())
            .count()
            == size
    };
    // What is waited for comes with a lock on it, which must not be kept.
    let running = tokio::time::timeout(Duration::from_secs(300), seen.wait_for(all))
        .await
        .is_ok();
    let took = Timestamp::now().duration_since(began).as_secs_f64();
    let reads = counted(azure, "ContainerGroups_Get").await - reads;
    if !running {
        println!("{size} | not all Running after 300 s");
    }
    let memory = super::memory(operator.0.id());
    let delete = DeleteParams::default().grace_period(0);
    // With grace 0 the API server would remove the object at once; 1 s lets the operator do it.
    let gentle = DeleteParams {
        grace_period_seconds: Some(1),
        ..delete
    };
    let deleted = futures::stream::iter(&names).map(|name| {
        let (pods, gentle) = (pods.clone(), gentle.clone());
        async move { pods.delete(name, &gentle).await.map(drop) }
    });
    deleted
        .buffer_unordered(32)
        .try_collect::<Vec<_>>()
        .await
        .expect("deleted");
    let gone = tokio::time::timeout(Duration::from_secs(30), none_left(&pods)).await;
    let left = match gone {
        Ok(()) => 0,
        Err(_) => pods
            .list(&ListParams::default())
            .await
            .map_or(size, |list| list.items.len()),
    };
    let timeline = timeline(azure).await;
    watched.abort();
    print(size, &times.borrow(), &timeline, took, reads, left, memory);
}

async fn none_left(pods: &Api<Pod>) {
    let none = |pods: &[Pod]| pods.is_empty();
    while wait::until_all(pods.clone(), watcher::Config::default(), "no pods", none)
        .await
        .is_err()
    {}
}

fn watch_pods(pods: Api<Pod>) -> (watch::Receiver<Times>, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Times::new());
    let task = tokio::spawn(async move {
        let mut changes = Box::pin(
            watcher(pods, watcher::Config::default())
                .default_backoff()
                .applied_objects(),
        );
        while let Some(change) = changes.next().await {
            let Ok(pod) = change else { continue };
            let now = Timestamp::now();
            let is_running =
                pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            sender.send_modify(|times| {
                let entry = times.entry(pod.name_any()).or_insert((now, None, None));
                if is_running && entry.1.is_none() {
                    entry.1 = Some(now);
                }
                if pod.metadata.deletion_timestamp.is_some() && entry.2.is_none() {
                    entry.2 = Some(now);
                }
            });
        }
    });
    (receiver, task)
}

/// The emulator's timeline by pod: PUT received, running, DELETE received.
async fn timeline(azure: &Emulator) -> HashMap<String, [Option<Timestamp>; 3]> {
    let url = format!("{}/_emulator/timeline", azure.url);
    let text = reqwest::get(url)
        .await
        .expect("an answer")
        .text()
        .await
        .expect("a body");
    let timeline: Value = serde_json::from_str(&text).expect("JSON");
    let at = |entry: &Value, field: &str| entry[field].as_str().and_then(|text| text.parse().ok());
    let entries = timeline["groups"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| {
            let name = entry["group"].as_str()?.rsplit('/').next()?;
            let pod = name
                .strip_prefix("default-")?
                .rsplit_once('-')?
                .0
                .to_owned();
            Some((
                pod,
                ["putReceived", "running", "deleteReceived"].map(|field| at(entry, field)),
            ))
        })
        .collect()
}

async fn counted(azure: &Emulator, operation: &str) -> f64 {
    let url = format!("{}/_emulator/metrics", azure.url);
    let text = reqwest::get(url)
        .await
        .expect("an answer")
        .text()
        .await
        .expect("a body");
    let lines = text.lines().filter(|line| line.contains(operation));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn print(
    size: usize,
    seen: &Times,
    azure: &HashMap<String, [Option<Timestamp>; 3]>,
    took: f64,
    reads: f64,
    left: usize,
    memory: u64,
) {
    let mut columns: [Vec<Duration>; 3] = Default::default();
    for (name, (bound, running, deleted)) in seen {
        let Some([put, ran, delete]) = azure.get(name) else {
            continue;
        };
        let steps = [(Some(*bound), *put), (*ran, *running), (*deleted, *delete)];
        for (column, (from, to)) in columns.iter_mut().zip(steps) {
            if let (Some(from), Some(to)) = (from, to) {
                column.push(Duration::try_from(to.duration_since(from)).unwrap_or_default());
            }
        }
    }
    let [put, run, delete] = columns.map(|mut column| {
        column.sort_unstable();
        if column.is_empty() {
            return "-".to_owned();
        }
        let millis = |share| quantile(&column, share).as_millis();
        format!("{}/{} ms", millis(0.5), millis(0.99))
    });
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let reads = reads / size as f64;
    println!(
        "{size} | {put} | {run} | {took:.1} s | {reads:.2} | {delete} | {left} | {memory} MiB"
    );
}
