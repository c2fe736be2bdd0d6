//! The plan and the real scheduler agree: the scheduler does not place a pod that the plan refuses for
//! topology, and places one that the plan grants.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burstpool::aci::translate;
use burstpool::api::BurstPool;
use burstpool::burst::facts::neighbors::{ListResult, NeighborNode};
use burstpool::burst::facts::pod::PodStage;
use burstpool::burst::{
    ClaimStates, ClusterInputs, EligibilityCache, LeaderState, Leadership, NamespaceLabels,
    Neighbors, PlacementFacts, PodFacts, PodOutcome, PoolInputs, TargetScales, observe, plan,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Taint};
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::{Cluster, Options, objects, wait};

const AWAY: &str = "burst-shop-weu";
const ZONE: &str = "topology.kubernetes.io/zone";
const RACK: &str = "example.com/rack";
/// How many random cases are added to those of the table.
const RANDOM: u64 = 24;

/// Running pods, and one pod to be placed, in namespaces of their own.
struct Case {
    name: String,
    labels: Value,
    spec: Value,
    others: Vec<Value>,
}

#[tokio::test]
async fn the_plan_and_the_scheduler_agree_on_what_can_be_placed_beside_the_pods_that_run() {
    // Topology spread counts all nodes of a cluster, so this needs its own cluster.
    let cluster = Cluster::start(Options::default()).await.expect("a cluster");
    let client = cluster.client().expect("a client");
    furnish(&client).await;
    let table = include_str!("../../src/burst/rules/topology/cases.json");
    let table: Vec<Value> = serde_json::from_str(table).expect("cases");
    let cases = table.iter().map(|case| Case {
        name: case["name"].as_str().expect("a name").to_owned(),
        labels: case["labels"].clone(),
        spec: case["spec"].clone(),
        others: case["others"].as_array().expect("pods").clone(),
    });
    let cases: Vec<Case> = cases.chain((0..RANDOM).map(random)).collect();
    let others = cases.iter().enumerate();
    let others = others.map(|(number, case)| run_others(&cluster, number, case));
    futures::future::join_all(others).await;
    let known = Known::read(&client).await;
    let mut verdicts = BTreeMap::new();
    for (number, case) in cases.iter().enumerate() {
        verdicts.insert(own(number), known.verdict(number, case));
        let pods: Api<Pod> = Api::namespaced(client.clone(), &own(number));
        let pod = asked(number, case, true);
        let created = pods.create(&PostParams::default(), &pod).await;
        created.expect("a pod");
    }
    for (row, case) in table.iter().enumerate() {
        let is_refused = verdicts[&own(row)].is_err();
        assert_eq!(is_refused, case["refused"].is_string(), "{}", case["name"]);
    }
    let refused = verdicts.values().filter(|verdict| verdict.is_err()).count();
    assert!(
        refused > 20 && verdicts.len() - refused > 20,
        "{refused} are refused"
    );
    let as_planned = |pods: &[Pod]| {
        let decided = pods.iter().filter(|pod| {
            let namespace = pod.namespace().unwrap_or_default();
            match verdicts[&namespace] {
                Ok(()) => objects::node_of(pod) == Some(AWAY),
                Err(_) => objects::is_refused(pod),
            }
        });
        decided.count() == cases.len()
    };
    let pods: Api<Pod> = Api::all(client.clone());
    let config = watcher::Config::default().labels("asked=yes");
    let waited = wait::until_all(pods.clone(), config, "agreement", as_planned).await;
    let asked = pods.list(&ListParams::default().labels("asked=yes")).await;
    for pod in asked.expect("the pods").items {
        let namespace = pod.namespace().unwrap_or_default();
        let number: usize = namespace[5..].parse().expect("a number");
        let (verdict, node) = (&verdicts[&namespace], objects::node_of(&pod));
        assert_eq!(
            verdict.is_ok(),
            node == Some(AWAY),
            "{}: the plan says {verdict:?}, and the scheduler {:?}",
            cases[number].name,
            pod.status.and_then(|status| status.conditions)
        );
    }
    waited.expect("all are decided");
}

fn own(number: usize) -> String {
    format!("case-{number}")
}

/// A namespace of the case: `own` or `other`.
fn namespace(number: usize, which: &str) -> String {
    let own = own(number);
    if which == "own" {
        own
    } else {
        format!("{own}-other")
    }
}

/// Creates full home nodes in three zones, and a virtual node that shares a rack with one of them.
async fn furnish(client: &Client) {
    let provider = objects::no_schedule("virtual-kubelet.io/provider", "shop");
    let team = objects::no_schedule("team", "x");
    let nodes: Api<Node> = Api::all(client.clone());
    let all: [(&str, &str, &str, &str, &[Taint]); 4] = [
        ("home-a", "a", "1", "0", &[]),
        ("home-b", "b", "2", "0", &[]),
        ("home-c", "c", "3", "0", std::slice::from_ref(&team)),
        (AWAY, "aci", "1", "1000", std::slice::from_ref(&provider)),
    ];
    for (name, zone, rack, cpu, taints) in all {
        let mut node = objects::kwok_node(name, cpu, "100Gi", taints);
        let labels = node.metadata.labels.get_or_insert_default();
        labels.insert(ZONE.to_owned(), zone.to_owned());
        labels.insert(RACK.to_owned(), rack.to_owned());
        if name == AWAY {
            labels.remove("kubernetes.io/hostname");
        }
        let created = nodes.create(&PostParams::default(), &node).await;
        created.expect("a node");
    }
    let is_usable = |node: &Node| {
        let taints = node
            .spec
            .iter()
            .flat_map(|spec| spec.taints.iter().flatten());
        let mut taints = taints.filter(|taint| taint.key.starts_with("node.kubernetes.io/"));
        objects::is_ready(node) && taints.next().is_none()
    };
    let usable = |nodes: &[Node]| nodes.len() == 4 && nodes.iter().all(is_usable);
    let waited = wait::until_all(nodes, watcher::Config::default(), "4 nodes", usable).await;
    waited.expect("they are usable");
}

async fn run_others(cluster: &Cluster, number: usize, case: &Case) {
    let client = cluster.client().expect("a client");
    let names_other = case.spec.to_string().contains("OTHER");
    for which in ["own", "other"] {
        let mut there = case.others.iter().map(|other| &other["namespace"]);
        if which == "other" && !names_other && !there.any(|one| one == which) {
            continue;
        }
        let namespace = namespace(number, which);
        cluster.namespace(&namespace).await.expect("a namespace");
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let others = case.others.iter().enumerate();
        for (index, other) in others.filter(|(_, other)| other["namespace"] == which) {
            let mut spec = other["spec"].clone();
            spec["nodeName"] = other["node"].clone();
            spec["containers"] = json!([{"name": "main", "image": "nginx"}]);
            let pod = json!({"metadata": {"name": format!("other-{index}"), "labels": other["labels"]},
                "spec": named(number, &spec)});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let created = pods.create(&PostParams::default(), &pod).await;
            created.expect("a pod");
        }
    }
}

/// The spec with the name of the other namespace filled in.
fn named(number: usize, spec: &Value) -> Value {
    let spec = spec
        .to_string()
        .replace("OTHER", &namespace(number, "other"));
    serde_json::from_str(&spec).expect("JSON")
}

/// The pod to be placed, either granted or pending.
fn asked(number: usize, case: &Case, is_granted: bool) -> Pod {
    let mut spec = named(number, &case.spec);
    spec["containers"] = json!([{"name": "main", "image": "nginx", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]);
    if is_granted {
        spec["tolerations"] = json!([{"key": "virtual-kubelet.io/provider", "operator": "Equal",
            "value": "shop", "effect": "NoSchedule"}]);
    }
    let mut labels = case.labels.clone();
    labels["asked"] = "yes".into();
    let pod = json!({"metadata": {"name": "asked", "namespace": own(number), "labels": labels}, "spec": spec});
    serde_json::from_value(pod).expect("a pod")
}

/// The cluster as the operator reads it.
struct Known {
    pool: BurstPool,
    places: [PlacementFacts; 1],
    neighbors: Neighbors,
    namespaces: NamespaceLabels,
}

impl Known {
    async fn read(client: &Client) -> Self {
        let all = ListParams::default();
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes.list(&all).await.expect("nodes").items;
        let pods: Api<Pod> = Api::all(client.clone());
        let pods = pods.list(&all).await.expect("pods").items;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespaces = namespaces.list(&all).await.expect("namespaces").items;
        let of = |name: &str| {
            let facts = pods.iter().filter_map(PodFacts::from_pod);
            let of = facts.filter(|pod| pod.id.namespace == name);
            ListResult::Listed(of.map(Arc::new).collect())
        };
        let by_name = namespaces
            .iter()
            .map(|one| (one.name_any(), of(&one.name_any())));
        let away = nodes.iter().find(|node| node.name_any() == AWAY);
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"azure": {}, "placements": [{"name": "weu", "region": "westeurope"}],
                "spill": {"after": "0s", "maxReplicas": 10},
                "workloads": [{"name": "all", "selector": {"namespaceSelector": {}, "podSelector": {}}}]},
            "status": {"leader": "me"},
        });
        Self {
            pool: serde_json::from_value(pool).expect("a pool"),
            places: [PlacementFacts::new("weu", AWAY, away, None)],
            neighbors: Neighbors {
                nodes: ListResult::Listed(
                    nodes
                        .iter()
                        .map(|node| Arc::new(NeighborNode::of(node)))
                        .collect(),
                ),
                pods: by_name.collect(),
            },
            namespaces: namespaces
                .iter()
                .map(|one| (one.name_any(), one.labels().clone()))
                .collect(),
        }
    }

    /// The plan's decision about the pod: `Ok` if it is granted, otherwise the reason.
    fn verdict(&self, number: usize, case: &Case) -> Result<(), String> {
        let mut pod = asked(number, case, false);
        pod.metadata.uid = Some("asked".to_owned());
        pod.metadata.resource_version = Some("1".to_owned());
        pod.metadata.generation = Some(1);
        let created = &self.pool.metadata.creation_timestamp;
        pod.metadata.creation_timestamp.clone_from(created);
        let mut facts = PodFacts::from_pod(&pod).expect("it is created");
        facts.stage = PodStage::Unschedulable(Some(facts.created));
        let (tags, mut verdicts) = (BTreeMap::new(), EligibilityCache::default());
        let placement = translate::TranslationTarget {
            spec: &self.pool.spec.placements[0],
            tags: &tags,
            node: AWAY,
            node_address: None,
            identities: &translate::NO_IDENTITIES,
            accepted: &burstpool::api::NO_LOSSES,
        };
        verdicts.evaluate(&pod, &[], &placement);
        let world = ClusterInputs {
            pools: &[&self.pool],
            nodes: &HashMap::from([(AWAY.to_owned(), "shop".to_owned())]),
            waiting: &[&facts],
            departed: &[],
            labelled: &[],
            on_pool_nodes: &[],
            scales: &TargetScales::new(),
            namespaces: &self.namespaces,
            claims: &ClaimStates::new(),
            neighbors: &self.neighbors,
        };
        let own = PoolInputs {
            ahead: jiff::SignedDuration::ZERO,
            placements: &self.places,
            bound: &[],
            eligibility: &verdicts,
            leader_state: &LeaderState::default(),
            is_triggered: false,
            leadership: Leadership::Leading,
            identity: "me",
        };
        let decided = plan(
            &self.pool,
            &observe(&self.pool, &world, &own),
            Timestamp::now(),
        );
        match &decided.decisions[0].outcome {
            PodOutcome::Grant { .. } => Ok(()),
            PodOutcome::Refuse(_) | PodOutcome::Blocked(_) => {
                Err(decided.decisions[0].outcome.to_string())
            }
            other => unreachable!("{}: {other:?}", case.name),
        }
    }
}

/// A random case with a few pods and a few constraints.
fn random(seed: u64) -> Case {
    let rng = &mut StdRng::seed_from_u64(seed);
    let labels = |rng: &mut StdRng| {
        let app = ["web", "db"][rng.random_range(0..2)];
        let tier = ["front", "back"][rng.random_range(0..2)];
        json!({"app": app, "tier": tier})
    };
    let selector = |rng: &mut StdRng| match rng.random_range(0..5) {
        0 => json!({}),
        1 => json!({"matchLabels": {"tier": "back"}}),
        2 => json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}),
        _ => json!({"matchLabels": {"app": "web"}}),
    };
    let key = |rng: &mut StdRng| [ZONE, RACK][rng.random_range(0..2)];
    let terms = |rng: &mut StdRng, most: usize| {
        let count = rng.random_range(0..=most);
        let terms: Vec<Value> = (0..count)
            .map(|_| json!({"topologyKey": key(rng), "labelSelector": selector(rng)}))
            .collect();
        json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
    };
    let spread = |rng: &mut StdRng| {
        let policy = |rng: &mut StdRng| ["Honor", "Ignore"][rng.random_range(0..2)];
        json!({"topologyKey": key(rng), "maxSkew": rng.random_range(1..3), "labelSelector": selector(rng),
            "minDomains": rng.random_range(1..6), "whenUnsatisfiable": "DoNotSchedule",
            "nodeTaintsPolicy": policy(rng), "nodeAffinityPolicy": policy(rng)})
    };
    let nodes = ["home-a", "home-b", "home-c", AWAY, AWAY];
    let others = (0..rng.random_range(0..7)).map(|_| {
        let anti = if rng.random_bool(0.2) {
            terms(rng, 1)
        } else {
            json!({})
        };
        json!({"node": nodes[rng.random_range(0..5)], "labels": labels(rng),
            "spec": {"affinity": {"podAntiAffinity": anti}},
            "namespace": if rng.random_bool(0.8) { "own" } else { "other" }})
    });
    let others = others.collect();
    let mut spec = json!({});
    // A second key alone may make the difference.
    if rng.random_bool(0.6) {
        spec["topologySpreadConstraints"] = json!([spread(rng)]);
    }
    if rng.random_bool(0.5) {
        spec["affinity"]["podAntiAffinity"] = terms(rng, 2);
    }
    if rng.random_bool(0.5) {
        spec["affinity"]["podAffinity"] = terms(rng, 2);
    }
    if rng.random_bool(0.3) {
        spec["affinity"]["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions":
                [{"key": ZONE, "operator": "In", "values": ["a", "b", "aci"]}]}]}});
    }
    Case {
        name: format!("random case {seed}"),
        labels: labels(rng),
        spec,
        others,
    }
}
