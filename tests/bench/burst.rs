//! How soon pods are granted after their hold: 1,000 pods that the scheduler could not place on home
//! nodes, with a real API server and scheduler, and a rate and maximum that delay none of them.
//!
//! The hold starts when a watch shows the pod refused, because the condition's own time has whole
//! seconds. A scheduler usually refuses about 50 pods a second; when all pods are created at once, it
//! refuses some hundreds a second. The same watch shows when the pod has the toleration.

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
/// The pause after each created pod.
const PACES: [(&str, Duration); 2] = [
    ("50 a second", Duration::from_millis(20)),
    ("at once", Duration::ZERO),
];
/// How long the benchmark waits for all grants.
const PATIENCE: Duration = Duration::from_secs(180);

/// When a pod's hold ended, when the operator sent its grant, and when a watch showed the grant.
#[derive(Clone, Copy, Default)]
struct Times {
    due: Option<Timestamp>,
    sent: Option<Timestamp>,
    seen: Option<Timestamp>,
}

/// Measures and prints.
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

/// Watches until all pods are granted, at most for [`PATIENCE`].
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

/// The times since the end of the hold, sorted.
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
