//! How soon pods whose hold is over are granted: 1,000 that home has refused, real API server and
//! scheduler, a rate and a maximum that hold none of them back.
//!
//! A hold is over `after` a watch has shown the pod refused: the condition itself tells whole seconds. 50
//! a second is a scheduler's usual pace; of all at once, some hundreds are refused in a second. The
//! toleration is written when the same watch shows it.

use std::collections::HashMap;
use std::time::Duration;

use burstpool::api::BurstPool;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::emulator::quantile;
use super::pods::{Parts, start};
use super::support::{objects, wait};

const PODS: u32 = 1000;
const AFTER: Duration = Duration::from_secs(20);
/// How long after each pod the next is made.
const PACES: [(&str, Duration); 2] = [
    ("50 a second", Duration::from_millis(20)),
    ("at once", Duration::ZERO),
];
/// How long it may take until all are granted.
const PATIENCE: Duration = Duration::from_secs(180);

/// When a pod's hold was over, when its grant was sent, and when it was seen.
#[derive(Clone, Copy, Default)]
struct Times {
    due: Option<Timestamp>,
    sent: Option<Timestamp>,
    seen: Option<Timestamp>,
}

/// Measures, and prints.
pub async fn run() {
    println!(
        "\npods made | granted | hold over to patch sent, p50/p99/most | hold over to toleration seen"
    );
    for (pace, pause) in PACES {
        let times = measure(pause).await;
        let (sent, seen) = (since(&times, |one| one.sent), since(&times, |one| one.seen));
        let (count, sent, seen) = (seen.len(), told(&sent), told(&seen));
        println!("{pace} | {count} of {PODS} | {sent} | {seen}");
    }
}

async fn measure(pause: Duration) -> HashMap<String, Times> {
    let parts = Parts::start().await;
    let _operator = start(&parts);
    pool(&parts.client).await;
    let pods: Api<Pod> = Api::namespaced(parts.client.clone(), "default");
    let watched = tokio::spawn(watch(pods.clone()));
    let began = tokio::time::Instant::now();
    let create = async |number: u32| {
        tokio::time::sleep_until(began + pause * number).await;
        pods.create(&PostParams::default(), &pod(number)).await
    };
    let created = futures::stream::iter(0..PODS).map(create);
    let created = created.buffer_unordered(32).try_collect::<Vec<_>>().await;
    created.expect("pods");
    watched.await.expect("the watch goes on")
}

async fn pool(client: &Client) {
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": "bench"},
        "spec": {
            "azure": {},
            "placements": [{"name": "weu", "region": "westeurope",
                "capacity": {"cpu": "5000", "memory": "10Ti", "pods": 5000}}],
            "workloads": [{"name": "web", "selector": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
                "podSelector": {"matchLabels": {"app": "web"}}}}],
            "spill": {"after": format!("{}s", AFTER.as_secs()), "maxReplicas": PODS,
                "rate": {"pods": PODS, "per": "1s"}},
        },
    });
    let pool: BurstPool = serde_json::from_value(pool).expect("a pool");
    let pools: Api<BurstPool> = Api::all(client.clone());
    pools
        .create(&PostParams::default(), &pool)
        .await
        .expect("a pool");
    let open = |node: Option<&Node>| {
        let taints = node.and_then(|node| node.spec.as_ref()?.taints.as_ref());
        let is_closed = taints.is_some_and(|taints| {
            let mut keys = taints.iter().map(|taint| taint.key.as_str());
            keys.any(|key| key == "burstpool.io/closed")
        });
        node.is_some_and(objects::is_ready) && !is_closed
    };
    wait::until(
        Api::all(client.clone()),
        "burst-bench-weu",
        "the node",
        open,
    )
    .await
    .expect("a node");
}

fn pod(number: u32) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("web-{number}"), "labels": {"app": "web"}},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{"name": "main", "image": "nginx", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
        },
    }))
    .expect("a pod")
}

/// Watches until all are granted, or for as long as that may take.
async fn watch(pods: Api<Pod>) -> HashMap<String, Times> {
    let mut times: HashMap<String, Times> = HashMap::new();
    let until = tokio::time::Instant::now() + PATIENCE;
    let events = watcher(pods, watcher::Config::default()).default_backoff();
    let mut events = Box::pin(events.applied_objects());
    while times.values().filter(|one| one.seen.is_some()).count() < PODS as usize {
        let Ok(Some(event)) = tokio::time::timeout_at(until, events.next()).await else {
            break;
        };
        let Ok(pod) = event else { continue };
        let now = Timestamp::now();
        let entry = times.entry(pod.name_any()).or_default();
        if entry.due.is_none() && is_refused(&pod) {
            entry.due = Some(now + AFTER);
        }
        if entry.seen.is_none() && pod.labels().contains_key("burstpool.io/pool") {
            entry.seen = Some(now);
            let sent = pod.annotations().get("burstpool.io/granted-at");
            entry.sent = sent.and_then(|sent| sent.parse().ok());
        }
    }
    times
}

fn is_refused(pod: &Pod) -> bool {
    let mut conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|one| one.type_ == "PodScheduled" && one.status == "False")
}

/// What passed since the hold was over, sorted.
fn since(
    times: &HashMap<String, Times>,
    what: impl Fn(&Times) -> Option<Timestamp>,
) -> Vec<Duration> {
    let took = times.values().filter_map(|one| {
        let took = what(one)?.duration_since(one.due?);
        Some(Duration::try_from(took).unwrap_or_default())
    });
    let mut took: Vec<Duration> = took.collect();
    took.sort_unstable();
    took
}

fn told(took: &[Duration]) -> String {
    let Some(most) = took.last() else {
        return "-".to_owned();
    };
    let millis = |share| quantile(took, share).as_millis();
    format!("{}/{}/{} ms", millis(0.5), millis(0.99), most.as_millis())
}
