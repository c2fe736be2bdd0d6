//! Planning alone: one pool with 64 workloads, 5,000 pending pods and 500 pods on ACI. Prints the time
//! of `observe` and `plan`, and of computing a pod's facts and verdict once per version.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use burstpool::aci::translate;
use burstpool::api::BurstPool;
use burstpool::burst::{
    ClaimStates, ClusterInputs, EligibilityCache, LeaderState, Leadership, NamespaceLabels,
    Neighbors, PlacementFacts, PodFacts, PoolInputs, TargetScale, TargetScales, observe, plan,
};
use burstpool::k8s::label_selector::parse;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::emulator::quantile;

const PODS: usize = 5000;
const SPILLED: usize = 500;
const WORKLOADS: usize = 64;
const ROUNDS: usize = 200;
const NODE: &str = "burst-shop-weu";

fn pool() -> BurstPool {
    let workloads: Vec<Value> = (0..WORKLOADS)
        .map(|number| {
            json!({
                "name": format!("w{number}"),
                "weight": 1 + number % 3,
                "spill": {"maxReplicas": "50%"},
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop",
                    "name": format!("w{number}")},
            })
        })
        .collect();
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
        "metadata": {"name": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"azure": {}, "placements": [{"name": "weu", "region": "westeurope"}],
            "workloads": workloads,
            "spill": {"maxReplicas": 2000, "rate": {"pods": 1000}}},
        "status": {"leader": "bench"},
    });
    serde_json::from_value(pool).expect("a pool")
}

fn pod(number: usize, is_spilled: bool) -> Pod {
    let app = format!("w{}", number % WORKLOADS);
    let mut pod = json!({
        "metadata": {
            "namespace": "shop", "name": format!("{app}-5d9c7b8f4-{number:05}"),
            "uid": format!("00000000-0000-4000-8000-{number:012}"), "resourceVersion": format!("{number}"),
            "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": app, "pod-template-hash": "5d9c7b8f4", "team": "shop"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app,
                "uid": format!("owner-{}", number % WORKLOADS), "controller": true}],
        },
        "spec": {
            "schedulerName": "default-scheduler",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "containers": [{"name": "web", "image": "nginx", "resources":
                {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}}],
        },
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    if is_spilled {
        pod["metadata"]["labels"]["burstpool.io/pool"] = json!("shop");
        let uid = pod["metadata"]["uid"].clone();
        pod["metadata"]["annotations"] =
            json!({"burstpool.io/workload": app, "burstpool.io/granted-uid": uid});
        pod["spec"]["nodeName"] = json!(NODE);
        pod["spec"]["tolerations"] =
            json!([{"key": "virtual-kubelet.io/provider", "value": "shop"}]);
    }
    serde_json::from_value(pod).expect("a pod")
}

fn place() -> PlacementFacts {
    let node = json!({
        "metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux", "type": "virtual-kubelet"}},
        "status": {
            "allocatable": {"cpu": "5000", "memory": "10Ti", "pods": "5000", "ephemeral-storage": "1Pi"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let node: Node = serde_json::from_value(node).expect("a node");
    PlacementFacts::new("weu", NODE, Some(&node), None)
}

fn scales() -> TargetScales {
    let all = (0..WORKLOADS).map(|number| {
        let app = format!("w{number}");
        let scale = TargetScale {
            spec_replicas: 100,
            status_replicas: 100,
            selector: parse(&format!("app={app}")).expect("a selector"),
        };
        (("shop".to_owned(), app), Ok(scale))
    });
    all.collect()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (middle, most) = (quantile(&times, 0.5), quantile(&times, 0.99));
    println!("{what:<28} | {middle:>9.1?} | {most:>9.1?}");
}

/// Measures and prints.
pub fn run() {
    let (pool, scales, places) = (pool(), scales(), [place()]);
    let pods: Vec<Pod> = (0..PODS).map(|number| pod(number, false)).collect();
    let spilled: Vec<Pod> = (PODS..PODS + SPILLED).map(|n| pod(n, true)).collect();
    println!("\n{PODS} pods that wait, {WORKLOADS} workloads |       p50 |       p99");

    let mut times = Vec::new();
    let facts = |pod: &Pod| PodFacts::from_pod(pod).expect("a pod that was created");
    let waiting: Vec<PodFacts> = pods
        .iter()
        .map(|pod| {
            let began = Instant::now();
            let facts = facts(pod);
            times.push(began.elapsed());
            facts
        })
        .collect();
    report("facts, each pod", times);

    let (tags, mut verdicts, mut times) =
        (BTreeMap::new(), EligibilityCache::default(), Vec::new());
    let placement = translate::TranslationTarget {
        spec: &pool.spec.placements[0],
        tags: &tags,
        node: NODE,
        node_address: None,
        identities: &translate::NO_IDENTITIES,
        accepted: &burstpool::api::NO_LOSSES,
    };
    for pod in &pods {
        let began = Instant::now();
        verdicts.evaluate(pod, &[], &placement);
        times.push(began.elapsed());
    }
    report("verdict, each pod", times);

    let labelled: Vec<PodFacts> = spilled.iter().map(facts).collect();
    let (namespaces, memory) = (NamespaceLabels::new(), LeaderState::default());
    let (waiting, labelled): (Vec<_>, Vec<_>) =
        (waiting.iter().collect(), labelled.iter().collect());
    let nodes = HashMap::from([(NODE.to_owned(), "shop".to_owned())]);
    let world = ClusterInputs {
        pools: &[&pool],
        nodes: &nodes,
        waiting: &waiting,
        departed: &[],
        labelled: &labelled,
        on_pool_nodes: &labelled,
        scales: &scales,
        namespaces: &namespaces,
        claims: &ClaimStates::new(),
        neighbors: &Neighbors::default(),
    };
    let own = PoolInputs {
        placements: &places,
        bound: &labelled,
        eligibility: &verdicts,
        leader_state: &memory,
        is_triggered: false,
        leadership: Leadership::Leading,
        identity: "bench",
        ahead: jiff::SignedDuration::ZERO,
    };
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
    let (mut observing, mut planning, mut grants) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let seen = observe(&pool, &world, &own);
        observing.push(began.elapsed());
        let began = Instant::now();
        let plan = plan(&pool, &seen, now);
        planning.push(began.elapsed());
        grants = plan.grants().count();
    }
    report("burst::observe", observing);
    report(&format!("burst::plan, {grants} grants"), planning);
}
