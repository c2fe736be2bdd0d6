//! Outages: pods on ACI survive a stopped operator and a deleted node, an administrator's cordon
//! survives a placement that closes and opens, and the node's heartbeat goes on while nothing changes.

use std::collections::BTreeSet;
use std::time::Instant;

use burstpool::node::node_object::Unavailable;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::net::TcpListener;

use crate::node::Kept;
use crate::node_post_bind::{bound, is_settled};
use crate::support::{Cluster, Options, objects, wait};
use crate::world::{World, is_closed, is_running};

/// The node controller gives a node up 20 s after its last heartbeat (leases are renewed every 10 s),
/// and deletes its pods 5 s later.
const IMPATIENT: Options = Options {
    metrics_server: false,
    api_server: &[
        "--default-not-ready-toleration-seconds=5",
        "--default-unreachable-toleration-seconds=5",
    ],
    controller_manager: &[
        "--node-monitor-grace-period=20s",
        "--node-monitor-period=1s",
        "--node-eviction-rate=10",
    ],
};

fn is_leaving(pod: Option<&Pod>) -> bool {
    pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(ResourceExt::uid).collect()
}

/// The sample's three pods, once all are as `wanted`.
async fn replicas(world: &World, what: &str, wanted: impl Fn(&Pod) -> bool) -> Vec<Pod> {
    let ours = watcher::Config::default().labels("app=nginx");
    let all = |pods: &[Pod]| pods.len() == 3 && pods.iter().all(&wanted);
    match wait::until_all(world.pods(), ours, what, all).await {
        Ok(pods) => pods,
        Err(error) => unreachable!("{error}\n{}", world.tail()),
    }
}

/// Waits until this many of the sample's pods are ready endpoints of its Service.
async fn until_endpoints(world: &World, count: usize) {
    let slices: Api<EndpointSlice> = Api::namespaced(world.client.clone(), "default");
    let ours = watcher::Config::default().labels("kubernetes.io/service-name=nginx");
    let ready = |slices: &[EndpointSlice]| {
        let all = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        let is_ready = |conditions: Option<bool>| conditions == Some(true);
        all.filter(|endpoint| is_ready(endpoint.conditions.as_ref().and_then(|c| c.ready)))
            .count()
            == count
    };
    wait::until_all(slices, ours, "the endpoints", ready)
        .await
        .expect("they change with the pods' readiness");
}

/// Creates a node that was Ready once and sends no more heartbeats, with a pod. When that pod is
/// deleted, Kubernetes has given up every node that fell silent before it, and their pods.
async fn witness(world: &World) {
    let (now, room) = (
        Timestamp::now(),
        json!({"cpu": "1", "memory": "1Gi", "pods": "10"}),
    );
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "silent"},
        "status": {"capacity": room, "allocatable": room, "conditions": [{
            "type": "Ready", "status": "True", "reason": "Once", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }]},
    });
    let node: Node = serde_json::from_value(node).expect("a node");
    Api::<Node>::all(world.client.clone())
        .create(&PostParams::default(), &node)
        .await
        .expect("a node");
    world.create(bound("witness", "silent")).await;
}

#[tokio::test]
async fn pods_outlive_an_operator_that_is_down_and_serve_again_when_it_is_back() {
    let mut world = World::on(IMPATIENT).await;
    world.home_node("home").await;
    world.create_pool("shop").await;
    world.apply_nginx();
    let both = |pod: &Pod| objects::is_pod_ready(pod) && is_settled(pod);
    let before = replicas(&world, "three pods, ready and settled", both).await;
    until_endpoints(&world, 3).await;
    assert_eq!(
        world.groups().into_iter().collect::<BTreeSet<_>>(),
        uids(&before)
    );

    world.kill().await;
    witness(&world).await;
    world
        .until_pod("witness", "a silent node's pod to be deleted", is_leaving)
        .await;
    let down = replicas(&world, "the pods not to be ready", |pod| {
        !objects::is_pod_ready(pod)
    })
    .await;
    assert!(!down.iter().any(|pod| is_leaving(Some(pod))), "{down:?}");
    until_endpoints(&world, 0).await;
    let given_up = |node: Option<&Node>| {
        let taints = node.and_then(|node| node.spec.as_ref()?.taints.clone());
        let mut taints = taints.into_iter().flatten();
        taints.any(|one| one.key == "node.kubernetes.io/unreachable" && one.effect == "NoExecute")
    };
    world
        .until_node("burst-shop-weu", "the node to be given up", given_up)
        .await;

    world.run();
    let back = Instant::now();
    let after = replicas(&world, "the pods to be ready again", objects::is_pod_ready).await;
    let ready = back.elapsed();
    until_endpoints(&world, 3).await;
    eprintln!(
        "after the operator's start: pods ready in {ready:?}, in their Service in {:?}",
        back.elapsed()
    );
    world
        .until_node("burst-shop-weu", "the node to be itself", |node| {
            node.is_some_and(|node| objects::is_ready(node) && !is_closed(node))
        })
        .await;
    let last = replicas(&world, "the pods to stay ready", objects::is_pod_ready).await;
    for pods in [&down, &after, &last] {
        assert_eq!(uids(pods), uids(&before), "the same pods");
    }
    assert_eq!(
        world.groups().into_iter().collect::<BTreeSet<_>>(),
        uids(&before)
    );
    assert_eq!(world.puts(), 3, "and no second PUT");
}

#[tokio::test]
async fn a_node_that_is_deleted_is_back_before_its_pods_are_given_up() {
    let mut world = World::start().await;
    world.create_pool("shop").await;
    world.create_pod("web", "shop", &json!({})).await;
    let settled =
        |pod: Option<&Pod>| pod.is_some_and(|pod| objects::is_pod_ready(pod) && is_settled(pod));
    world.until_pod("web", "the pod to run", settled).await;
    let before = world.pods().get("web").await.expect("the pod");
    let nodes: Api<Node> = Api::all(world.client.clone());
    let name = "burst-shop-weu";
    for is_down in [false, true] {
        let old = nodes.get(name).await.expect("the node").metadata.uid;
        if is_down {
            world.kill().await;
        }
        nodes
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
        if is_down {
            // The garbage collector deletes pods of nodes that do not exist: this pod shows when it
            // runs.
            world.create(bound("ghost", "never")).await;
            world.run();
        }
        world
            .until_node(name, "the node to be back", |node| {
                node.is_some_and(|node| {
                    node.metadata.uid != old && objects::is_ready(node) && !is_closed(node)
                })
            })
            .await;
    }
    // The collector runs every 20 s, and deletes pods 40 s after it first missed their node.
    for _ in 0..2 {
        let gone = |pod: Option<&Pod>| pod.is_none();
        let seen = wait::until(world.pods(), "ghost", "the ghost to be collected", gone).await;
        if seen.is_ok() {
            break;
        }
    }
    let ghost = world.pods().get_opt("ghost").await.expect("an answer");
    assert!(
        ghost.is_none(),
        "pods without a node are collected: {ghost:?}"
    );
    world.until_pod("web", "the pod to run on", settled).await;
    let after = world.pods().get("web").await.expect("the pod");
    assert_eq!(after.metadata.uid, before.metadata.uid, "the same pod");
    assert!(!is_leaving(Some(&after)) && is_running(Some(&after)));
    assert_eq!(world.groups(), [after.metadata.uid.expect("a UID")]);
    assert_eq!(world.puts(), 1, "and no second PUT");
}

#[tokio::test]
async fn a_placement_that_closes_and_opens_does_not_change_an_administrators_cordon() {
    let kept = Kept::start(Cluster::shared().await, "cordoned").await;
    let closed = Unavailable {
        reason: "Unreachable".to_owned(),
        message: "no answer".to_owned(),
    };
    for cordoned in [true, false] {
        let cordon = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
        kept.nodes
            .patch(&kept.name, &PatchParams::default(), &cordon)
            .await
            .expect("an administrator may");
        for closed in [Some(&closed), None] {
            kept.facts
                .send_modify(|facts| facts.region_unavailable = closed.cloned());
            kept.until("the placement to close or open", |node| {
                node.is_some_and(|node| is_closed(node) == closed.is_some())
            })
            .await;
            let node = kept.nodes.get(&kept.name).await.expect("the node");
            let spec = node.spec.expect("a spec");
            assert_eq!(
                spec.unschedulable.unwrap_or_default(),
                cordoned,
                "{closed:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_unchanged_node_renews_its_heartbeat() {
    let cluster = Cluster::shared().await;
    let kept = Kept::start(cluster, "heard").await;
    let (nodes, name) = (kept.nodes.clone(), &kept.name);
    let client = cluster.client().expect("a client");
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");

    let renewed = |lease: Option<&Lease>| Some(lease?.spec.as_ref()?.renew_time.as_ref()?.0);
    let mut last = None;
    for _ in 0..4 {
        let later = |lease: Option<&Lease>| renewed(lease).filter(|at| Some(*at) > last);
        let at = wait::get(leases.clone(), name, "the lease to be renewed", later).await;
        last = Some(at.expect("it is renewed"));
    }
    let heartbeat = |node: Option<&Node>| {
        let mut conditions = node?.status.as_ref()?.conditions.iter().flatten();
        let ready = conditions.find(|condition| condition.type_ == "Ready")?;
        Some(ready.last_heartbeat_time.as_ref()?.0)
    };
    let first = wait::get(nodes.clone(), name, "a heartbeat", heartbeat)
        .await
        .expect("it has one");
    let later = |node: Option<&Node>| heartbeat(node).is_some_and(|at| at > first);
    wait::until(nodes, name, "another heartbeat", later)
        .await
        .expect("the status is written although it says nothing new");
}

/// A webhook that accepts connections and never answers. The API server rejects writes of a pool's
/// nodes only after its timeout.
async fn slow_writes(cluster: &Cluster, pool: &str) -> (TcpListener, impl Future<Output = ()>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}/", silent.local_addr().expect("an address"));
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": pool},
        "webhooks": [{
            "name": "slow.example.com", "clientConfig": {"url": url}, "timeoutSeconds": 30,
            "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "objectSelector": {"matchLabels": {"burstpool.io/pool": pool}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                "resources": ["nodes", "nodes/status"]}],
        }],
    });
    let webhook: ValidatingWebhookConfiguration =
        serde_json::from_value(webhook).expect("a webhook");
    let webhooks: Api<ValidatingWebhookConfiguration> =
        Api::all(cluster.client().expect("a client"));
    let created = webhooks.create(&PostParams::default(), &webhook).await;
    created.expect("a webhook");
    let end = async move {
        let name = webhook.name_any();
        let deleted = webhooks.delete(&name, &DeleteParams::default()).await;
        deleted.expect("deleted");
    };
    (silent, end)
}

#[tokio::test]
async fn a_node_renews_its_heartbeat_while_writes_to_the_node_are_slow() {
    let cluster = Cluster::shared().await;
    let kept = Kept::start(cluster, "slow").await;
    let (silent, end) = slow_writes(cluster, "slow").await;
    // A label, a taint and the status: three writes, and each takes the full timeout.
    kept.facts.send_modify(|facts| {
        let labels = &mut facts.last_placement.placement.labels;
        labels.insert("example.com/new".to_owned(), "yes".to_owned());
        facts.region_unavailable = Some(Unavailable {
            reason: "Unreachable".to_owned(),
            message: "no answer".to_owned(),
        });
    });
    let asked = tokio::time::timeout(wait::DEADLINE, silent.accept()).await;
    asked.expect("it is asked").expect("a connection");

    let client = cluster.client().expect("a client");
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let renewed = |lease: Option<&Lease>| Some(lease?.spec.as_ref()?.renew_time.as_ref()?.0);
    let mut times: Vec<Timestamp> = Vec::new();
    for _ in 0..4 {
        let later = |lease: Option<&Lease>| renewed(lease).filter(|at| Some(at) > times.last());
        let at = wait::get(leases.clone(), &kept.name, "the lease to be renewed", later).await;
        times.push(at.expect("it is renewed"));
    }
    end.await;
    // Three calls that fail take 30 s: enough to miss two of three renewals.
    let gaps = times.windows(2).map(|two| two[1].duration_since(two[0]));
    let longest = gaps.max().expect("three of them");
    assert!(longest.as_secs() < 25, "{times:?}");
}
