//! The operator with 1, 100, 300 and 1,000 pods: real API server, an emulator 50 ms away, 3 s from PUT
//! to running, no limits on creates and deletes. "One pod" means 30 pods, one every 3 s.
//!
//! Times are the emulator's, which are host time here. Each pod names its node, so that it is bound
//! when it is created and the scheduler's speed does not count.

mod azure;

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
use serde_json::json;
use tokio::sync::watch;

use super::emulator::{Emulator, quantile};
use super::support::{Cluster, Options, objects, wait};
use azure::{Calls, groups, timeline};

/// Numbers of pods, and the pause after each created pod.
const SIZES: [(usize, Duration); 4] = [
    (30, Duration::from_secs(3)),
    (100, Duration::ZERO),
    (300, Duration::ZERO),
    (1000, Duration::ZERO),
];
/// The number of pods for the steady state (calls per pod do not depend on it), and how long to
/// measure.
const STEADY: (usize, Duration) = (300, Duration::from_secs(120));
/// The pool's virtual node.
pub const NODE: &str = "burst-bench-weu";

/// By pod name, when a watch first showed it bound, running, and marked for deletion.
type Times = HashMap<String, (Timestamp, Option<Timestamp>, Option<Timestamp>)>;

/// The operator as a process. Drop kills it.
pub struct Operator(Child);

/// A cluster and an emulated Azure.
pub struct Parts {
    azure: Emulator,
    cluster: Cluster,
    /// A client of the cluster's API server.
    pub client: Client,
    token: tempfile::NamedTempFile,
}

impl Parts {
    /// Starts a cluster, and an Azure without request limits that is 50 ms away.
    pub async fn start() -> Self {
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
        Self {
            azure,
            cluster,
            client,
            token,
        }
    }
}

impl Operator {
    /// Sends the signal of this name.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args([format!("-{name}"), id]).status();
        assert!(sent.expect("kill runs").success(), "it runs");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Ignore errors: it may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures and prints.
pub async fn run() {
    let parts = Parts::start().await;
    let operator = start(&parts);
    let (client, azure) = (&parts.client, &parts.azure);
    pool(client).await;
    println!(
        "\npods | bound to PUT | running to Running | all Running | calls per start: GET, LIST, PUT | \
         GET, LIST per pod and steady minute | deleted to DELETE | left after 30 s | memory | CPU per start"
    );
    for (size, pause) in SIZES {
        measure(client, azure, &operator, size, pause).await;
    }
}

/// Starts the operator.
pub fn start(parts: &Parts) -> Operator {
    let child = Command::new(super::built("burstpool"))
        .arg("run")
        .arg("--kubeconfig")
        .arg(parts.cluster.kubeconfig())
        .args([
            "--arm-endpoint",
            &parts.azure.url,
            "--subscription-id",
            "s",
            "--resource-group",
            "g",
        ])
        .args([
            "--metrics-listen",
            "127.0.0.1:0",
            "--node-address",
            "127.0.0.1",
            "--kubelet-listen",
            "127.0.0.1:0",
            "--namespace",
            "default",
            "--arm-token-file",
        ])
        .arg(parts.token.path())
        .env("RUST_LOG", "error")
        .spawn();
    Operator(child.expect("the operator starts"))
}

/// Creates a pool whose pods users place themselves. Returns when its node is ready.
pub async fn pool(client: &Client) {
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

async fn measure(
    client: &Client,
    azure: &Emulator,
    operator: &Operator,
    size: usize,
    pause: Duration,
) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let (times, watched) = watch_pods(pods.clone());
    let (calls, cpu) = (Calls::of(azure).await, super::cpu(operator.0.id()));
    let began = Timestamp::now();
    let names: Vec<String> = (0..size).map(|n| format!("bench-{size}-{n}")).collect();
    let create = async |name: &String| pods.create(&PostParams::default(), &pod(name)).await;
    if pause.is_zero() {
        let created = futures::stream::iter(&names).map(create);
        let created = created.buffer_unordered(32).try_collect::<Vec<_>>();
        created.await.expect("pods");
    } else {
        for name in &names {
            create(name).await.expect("a pod");
            tokio::time::sleep(pause).await;
        }
    }
    let mut seen = times.clone();
    let all = |times: &Times| {
        times
            .values()
            .filter(|(_, running, _)| running.is_some())
            .count()
            == size
    };
    // Do not keep the returned guard: it locks the channel.
    let running = tokio::time::timeout(Duration::from_secs(300), seen.wait_for(all))
        .await
        .is_ok();
    let took = if pause.is_zero() {
        Timestamp::now().duration_since(began).as_secs_f64()
    } else {
        slowest(&times.borrow())
    };
    if !running {
        println!("{size} | not all Running after 300 s");
    }
    let start = Calls::of(azure).await.since(&calls, size);
    let cpu = super::cpu(operator.0.id()).saturating_sub(cpu) / u32::try_from(size).unwrap_or(1);
    let steady = steady(azure, size).await;
    let memory = super::memory(operator.0.id());
    delete(&pods, &names).await;
    let left = left(azure, &pods).await;
    let timeline = timeline(azure).await;
    watched.abort();
    let [put, run, delete] = quantiles(&times.borrow(), &timeline);
    println!(
        "{size} | {put} | {run} | {took:.1} s | {:.2}, {:.3}, {:.2} | {steady} | {delete} | {left} | {memory} MiB | {cpu:?}",
        start.gets, start.lists, start.puts,
    );
}

/// GETs and LISTs per pod and minute while nothing changes.
async fn steady(azure: &Emulator, size: usize) -> String {
    let (of, time) = STEADY;
    if size != of {
        return "-".to_owned();
    }
    // Wait until the detailed reads that belong to the start are over.
    tokio::time::sleep(Duration::from_secs(size as u64 / 12 + 5)).await;
    let before = Calls::of(azure).await;
    tokio::time::sleep(time).await;
    let calls = Calls::of(azure).await.since(&before, size);
    let minutes = time.as_secs_f64() / 60.0;
    format!("{:.2}, {:.3}", calls.gets / minutes, calls.lists / minutes)
}

/// Deletes the pods with grace period 0: the API server removes the objects at once, so the operator
/// must delete the groups from what it remembers.
async fn delete(pods: &Api<Pod>, names: &[String]) {
    let now = DeleteParams::default().grace_period(0);
    let deleted = futures::stream::iter(names).map(|name| {
        let (pods, now) = (pods.clone(), now.clone());
        async move { pods.delete(name, &now).await.map(drop) }
    });
    deleted
        .buffer_unordered(32)
        .try_collect::<Vec<_>>()
        .await
        .expect("deleted");
}

/// How many pods and groups are left, after waiting up to 30 s for none.
async fn left(azure: &Emulator, pods: &Api<Pod>) -> usize {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    let _ = tokio::time::timeout_at(until, none_left(pods)).await;
    loop {
        let objects = pods.list(&ListParams::default()).await;
        let left = objects.map_or(usize::MAX, |list| list.items.len()) + groups(azure).await;
        if left == 0 || tokio::time::Instant::now() > until {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
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
        let changes = watcher(pods, watcher::Config::default()).default_backoff();
        let mut changes = Box::pin(changes);
        while let Some(change) = changes.next().await {
            let now = Timestamp::now();
            let (pod, is_gone) = match change {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => (pod, false),
                Ok(watcher::Event::Delete(pod)) => (pod, true),
                _ => continue,
            };
            let is_running =
                pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            sender.send_modify(|times| {
                let entry = times.entry(pod.name_any()).or_insert((now, None, None));
                if is_running && entry.1.is_none() {
                    entry.1 = Some(now);
                }
                if is_gone && entry.2.is_none() {
                    entry.2 = Some(now);
                }
            });
        }
    });
    (receiver, task)
}

/// The seconds from bound to Running of the slowest pod.
fn slowest(seen: &Times) -> f64 {
    let took = seen.values().filter_map(|(bound, running, _)| {
        let running = (*running)?;
        Some(running.duration_since(*bound).as_secs_f64())
    });
    took.fold(0.0, f64::max)
}

/// p50 and p99 of three durations: bound to PUT, running in Azure to Running, deletion to DELETE.
fn quantiles(seen: &Times, azure: &HashMap<String, [Option<Timestamp>; 3]>) -> [String; 3] {
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
    columns.map(|mut column| {
        column.sort_unstable();
        if column.is_empty() {
            return "-".to_owned();
        }
        let millis = |share| quantile(&column, share).as_millis();
        format!("{}/{} ms", millis(0.5), millis(0.99))
    })
}
