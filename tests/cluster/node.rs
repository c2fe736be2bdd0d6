//! The virtual node on a real cluster: registered, updated, closed, removed, without effect on home
//! nodes.

use std::collections::BTreeMap;

use burstpool::aci::client::GroupScope;
use burstpool::api::Placement;
use burstpool::node::capacity::{NodeResourceStatus, NodeResources};
use burstpool::node::last_placement::LastPlacement;
use burstpool::node::node_controller;
use burstpool::node::node_object::{AZURE_CONDITION, CLOSED_TAINT, NodeConfig, Unavailable};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, Options, objects, wait};
use crate::world::home_node;

/// A registered node. Drop ends the registration.
pub struct Kept {
    pub name: String,
    pub facts: watch::Sender<NodeConfig>,
    pub nodes: Api<Node>,
    cancel: CancellationToken,
    _task: JoinHandle<()>,
}

/// A node of this pool with room for a hundred pods.
pub fn facts(pool: &str) -> NodeConfig {
    let scope = GroupScope {
        subscription: "s".to_owned(),
        resource_group: "rg".to_owned(),
    };
    let placement = Placement {
        name: "weu".to_owned(),
        region: "westeurope".to_owned(),
        ..Placement::default()
    };
    let room = NodeResources {
        cpu_milli: 100_000,
        memory_bytes: 400 << 30,
        pods: 100,
    };
    NodeConfig {
        pool: pool.to_owned(),
        pool_uid: format!("uid-of-{pool}"),
        last_placement: LastPlacement::new(&scope, &placement),
        address: "127.0.0.1".to_owned(),
        port: 10250,
        offer: NodeResourceStatus {
            allocatable: room,
            capacity: room,
        },
        region_notice: None,
        region_unavailable: None,
        creates_failing: None,
        probe_path: None,
        kubernetes_minor: 37,
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Kept {
    pub async fn start(cluster: &Cluster, pool: &str) -> Self {
        let client = cluster.client().expect("a client");
        let facts = facts(pool);
        let (name, nodes) = (facts.name(), Api::all(client.clone()));
        let (facts, changes) = watch::channel(facts);
        let cancel = CancellationToken::new();
        let ends = cancel.clone();
        let task = tokio::spawn(async move {
            node_controller::run(client, changes, ends).await;
        });
        let kept = Self {
            name,
            facts,
            nodes,
            cancel,
            _task: task,
        };
        kept.until("the node to be ready", |node| node.is_some_and(is_usable))
            .await;
        kept
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(Option<&Node>) -> bool) {
        wait::until(self.nodes.clone(), &self.name, what, wanted)
            .await
            .expect("it comes to be so");
    }
}

fn is_usable(node: &Node) -> bool {
    objects::is_ready(node) && taints(node).contains(&"burstpool.io/last-resort".to_owned())
}

fn taints(node: &Node) -> Vec<String> {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints.map(|taint| taint.key.clone()).collect()
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let all = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    all.into_iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.status.as_str())
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

#[tokio::test]
async fn a_virtual_node_is_registered_as_existing_manifests_select_it_and_has_a_lease() {
    let cluster = Cluster::shared().await;
    let kept = Kept::start(cluster, "registered").await;
    let node = kept.nodes.get(&kept.name).await.expect("the node");
    for (key, value) in [
        ("type", Some("virtual-kubelet")),
        ("kubernetes.io/role", Some("agent")),
        ("kubernetes.io/os", Some("linux")),
        ("beta.kubernetes.io/os", Some("linux")),
        ("kubernetes.azure.com/managed", Some("false")),
        ("node.kubernetes.io/exclude-disruption", Some("true")),
        ("burstpool.io/pool", Some("registered")),
        ("kubernetes.io/hostname", None),
        ("topology.kubernetes.io/zone", None),
    ] {
        assert_eq!(label(&node, key), value, "{key}");
    }
    let version = node
        .status
        .as_ref()
        .and_then(|s| s.node_info.as_ref())
        .map(|i| i.kubelet_version.as_str());
    assert!(
        version.is_some_and(|version| version.starts_with("v1.37.0-burstpool-")),
        "{version:?}"
    );
    let leases: Api<Lease> =
        Api::namespaced(cluster.client().expect("a client"), "kube-node-lease");
    let renewed = |lease: Option<&Lease>| {
        let time = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        time.map(|time| time.0)
    };
    let first = wait::get(leases.clone(), &kept.name, "a lease", renewed)
        .await
        .expect("a lease");
    let later = |lease: Option<&Lease>| renewed(lease).is_some_and(|at| at > first);
    wait::until(leases, &kept.name, "the lease to be renewed", later)
        .await
        .expect("it is renewed");

    node_controller::unregister(
        &cluster.client().expect("a client"),
        "burst-none-weu",
        |_| true,
    )
    .await
    .expect("nothing to remove");
}

/// Removes from the node what is burstpool's, and writes what others may write.
async fn strip(kept: &Kept) {
    let theirs = json!({
        "metadata": {"labels": {"theirs": "yes", "type": "stolen", "burstpool.io/pool": null}},
        "spec": {"unschedulable": true, "taints": [{"key": "theirs", "effect": "NoSchedule"}]},
    });
    kept.nodes
        .patch(&kept.name, &PatchParams::default(), &Patch::Merge(&theirs))
        .await
        .expect("stripped");
    let condition_of_theirs = json!({"status": {"conditions": [
        {"type": "TheirCondition", "status": "True", "reason": "Theirs", "message": ""}]}});
    kept.nodes
        .patch_status(
            &kept.name,
            &PatchParams::default(),
            &Patch::Strategic(&condition_of_theirs),
        )
        .await
        .expect("a condition of theirs");
}

fn assert_theirs_stays(node: &Node) {
    assert_eq!(label(node, "theirs"), Some("yes"));
    assert!(
        taints(node).contains(&"theirs".to_owned()),
        "{:?}",
        taints(node)
    );
    assert_eq!(
        node.spec.as_ref().and_then(|spec| spec.unschedulable),
        Some(true),
        "their cordon"
    );
    assert_eq!(condition(node, "TheirCondition"), Some("True"));
}

/// azure-aci did not create a deleted node again.
#[tokio::test]
async fn a_node_that_is_stripped_or_deleted_is_put_back_and_what_others_wrote_stays() {
    let kept = Kept::start(Cluster::shared().await, "stripped").await;
    let nodes = &kept.nodes;
    strip(&kept).await;
    kept.until("the node to be put right", |node| {
        node.is_some_and(|node| {
            // Do not check "ready": the node controller adds a taint of its own for a cordon.
            taints(node).contains(&"burstpool.io/last-resort".to_owned())
                && label(node, "type") == Some("virtual-kubelet")
                && label(node, "burstpool.io/pool") == Some("stripped")
        })
    })
    .await;
    let node = nodes.get(&kept.name).await.expect("the node");
    assert_theirs_stays(&node);

    kept.facts.send_modify(|facts| {
        let labels = &mut facts.last_placement.placement.labels;
        labels.insert("tier".to_owned(), "burst".to_owned());
    });
    let tier =
        |node: Option<&Node>| node.and_then(|node| label(node, "tier").map(ToOwned::to_owned));
    kept.until("the placement's label to be set", |node| {
        tier(node).as_deref() == Some("burst")
    })
    .await;

    let old = node.metadata.uid;
    nodes
        .delete(&kept.name, &DeleteParams::default())
        .await
        .expect("deleted");
    kept.until("the node to be back", |node| {
        node.is_some_and(|node| node.metadata.uid != old && is_usable(node))
    })
    .await;
    // The label came with the node's creation this time, and still goes with the placement's.
    let node = nodes.get(&kept.name).await.expect("the node");
    assert_eq!(label(&node, "tier"), Some("burst"));
    kept.facts
        .send_modify(|facts| facts.last_placement.placement.labels.clear());
    kept.until("the placement's label to be removed", |node| {
        node.is_some_and(|node| label(node, "tier").is_none())
    })
    .await;
}

#[tokio::test]
async fn a_closed_placement_takes_no_pods_and_stays_ready_until_it_opens_again() {
    let kept = Kept::start(Cluster::shared().await, "closed").await;
    let closed = Unavailable {
        reason: "Unreachable".to_owned(),
        message: "no answer".to_owned(),
    };
    kept.facts
        .send_modify(|facts| facts.region_unavailable = Some(closed));
    kept.until("the node to be closed", |node| {
        node.is_some_and(|node| {
            taints(node).contains(&CLOSED_TAINT.to_owned())
                && condition(node, AZURE_CONDITION) == Some("False")
                && condition(node, "Ready") == Some("True")
        })
    })
    .await;
    kept.facts
        .send_modify(|facts| facts.region_unavailable = None);
    kept.until("the node to be open", |node| {
        node.is_some_and(|node| {
            !taints(node).contains(&CLOSED_TAINT.to_owned())
                && condition(node, AZURE_CONDITION) == Some("True")
        })
    })
    .await;
}

/// A Deployment of six pods spread evenly over host names (maximum skew 1): three on each of two nodes.
fn spread() -> Deployment {
    let mut deployment =
        serde_json::to_value(objects::deployment("spread", 6, "500m", "64Mi", &[])).expect("JSON");
    deployment["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}},
    }]);
    serde_json::from_value(deployment).expect("a Deployment")
}

/// A Deployment of three pods with anti-affinity by host name: only two fit on two nodes.
fn apart() -> Deployment {
    let mut deployment =
        serde_json::to_value(objects::deployment("apart", 3, "100m", "64Mi", &[])).expect("JSON");
    deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"] = json!({
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "apart"}},
        }],
    });
    serde_json::from_value(deployment).expect("a Deployment")
}

#[tokio::test]
async fn registering_and_removing_a_node_leaves_home_as_it_is() {
    // Topology spread and anti-affinity by host name count all nodes, so this needs its own cluster.
    let cluster = Cluster::start(Options::default()).await.expect("a cluster");
    let client = cluster.client().expect("a client");
    for name in ["home-a", "home-b"] {
        home_node(&client, name).await;
    }
    let before = placed(&cluster, "before").await;
    let kept = Kept::start(&cluster, "neutral").await;
    let with = placed(&cluster, "with").await;
    kept.cancel.cancel();
    node_controller::unregister(&client, &kept.name, |_| true)
        .await
        .expect("removed");
    let after = placed(&cluster, "after").await;
    let expected = BTreeMap::from([
        ("apart home-a".to_owned(), 1),
        ("apart home-b".to_owned(), 1),
        ("apart refused".to_owned(), 1),
        ("spread home-a".to_owned(), 3),
        ("spread home-b".to_owned(), 3),
    ]);
    assert_eq!(
        [before, with, after],
        [expected.clone(), expected.clone(), expected]
    );
}

/// The nodes of both Deployments' pods, in a namespace that is deleted afterwards.
async fn placed(cluster: &Cluster, namespace: &str) -> BTreeMap<String, usize> {
    cluster.namespace(namespace).await.expect("a namespace");
    let client = cluster.client().expect("a client");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    for deployment in [spread(), apart()] {
        deployments
            .create(&PostParams::default(), &deployment)
            .await
            .expect("a Deployment");
    }
    let decided = |pod: &Pod| objects::node_of(pod).is_some() || objects::is_refused(pod);
    let all = |pods: &[Pod]| pods.len() == 9 && pods.iter().all(decided);
    let seen = wait::until_all(
        pods.clone(),
        watcher::Config::default(),
        "9 pods placed or refused",
        all,
    )
    .await
    .expect("the scheduler decides");
    let mut placed = BTreeMap::new();
    for pod in &seen {
        let app = pod
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("app"))
            .expect("a label");
        let place = objects::node_of(pod).unwrap_or("refused");
        *placed.entry(format!("{app} {place}")).or_default() += 1;
    }
    for name in ["spread", "apart"] {
        deployments
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
    }
    let none = |pods: &[Pod]| pods.is_empty();
    wait::until_all(
        pods,
        watcher::Config::default(),
        "the pods to be gone",
        none,
    )
    .await
    .expect("they go");
    placed
}
