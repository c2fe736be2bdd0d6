//! The admission policies that restrict the operator's account, on a real API server: they deny writes
//! that RBAC allows but no burst needs.

#[path = "install_admission/grants.rs"]
mod grants;

use burstpool::api::BurstPool;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::install::installed;
use crate::support::OPERATOR;
use crate::support::wait::by_and_by;
use crate::world::World;
use grants::{a_stale_mark_of_losses_is_removed, grants_are_its_own};

/// The annotation for a pod's deletion cost.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A client with the operator's account.
async fn as_operator(world: &World) -> Client {
    let operator = world.cluster.operator().expect("a token");
    let config = world.cluster.config_of(&operator).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

/// Asserts that a policy denied the attempt, with these words in the message.
fn denied<T: std::fmt::Debug>(attempt: kube::Result<T>, words: &str) {
    let Err(kube::Error::Api(status)) = attempt else {
        unreachable!("not denied, as '{words}' wants: {attempt:?}");
    };
    assert!(
        status.message.contains(words),
        "{} has no '{words}'",
        status.message
    );
}

/// Writes that no burst needs, to a pending pod, one at home and one on a virtual node; each with the
/// denial's words.
fn attempts() -> Vec<(&'static str, Value, &'static str)> {
    let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
    let note = |key: &str, value: Value| json!({"metadata": {"annotations": {key: value}}});
    let tolerate = |one: Value| json!([tolerate(&one)]);
    let (labels, notes) = ("may change no label", "may change no annotation");
    vec![
        ("waits", label("app", json!("other")), labels),
        ("waits", label("app", Value::Null), labels),
        ("waits", label("team", json!("x")), labels),
        ("waits", note("mine", json!("2")), notes),
        ("waits", note("mine", Value::Null), notes),
        ("waits", note(COST, json!("1")), notes),
        (
            "waits",
            json!({"spec": {"activeDeadlineSeconds": 1}}),
            "may not change deadlines",
        ),
        (
            "waits",
            json!({"metadata": {"finalizers": ["a/b"]}}),
            "may not change finalizers",
        ),
        (
            "waits",
            tolerate(json!({"operator": "Exists"})),
            "the toleration of its pool",
        ),
        ("waits", tolerate(provider()), "the toleration of its pool"),
        (
            "home",
            note(COST, json!("-1000")),
            "only pods that wait and pods on its own nodes",
        ),
        ("away", label("burstpool.io/pool", json!("shop")), labels),
        (
            "away",
            tolerate(json!({"key": "any", "operator": "Exists"})),
            "tolerations of an outage",
        ),
        ("away", tolerate(provider()), "tolerations of an outage"),
    ]
}

/// A toleration that the test's pods have.
fn own() -> Value {
    json!({"key": "mine", "operator": "Exists"})
}

/// A JSON Patch operation that adds a toleration. It appends, because admission has given the pod some.
fn tolerate(one: &Value) -> Value {
    json!({"op": "add", "path": "/spec/tolerations/-", "value": one})
}

/// A JSON Patch for a list of operations, otherwise a merge patch.
fn as_patch(patch: Value) -> Patch<Value> {
    if patch.is_array() {
        Patch::Json(serde_json::from_value(patch).expect("a JSON Patch"))
    } else {
        Patch::Merge(patch)
    }
}

/// The toleration of a grant.
fn provider() -> Value {
    json!({"key": "virtual-kubelet.io/provider", "operator": "Equal", "value": "shop", "effect": "NoSchedule"})
}

/// Creates pods that are pending, at home and on a virtual node. Returns when the policies are in
/// force.
async fn guarded(world: &World, client: &Client, pods: &Api<Pod>, nodes: &Api<Node>) {
    // The last node is the cluster's own, although its name looks like a virtual node's.
    for name in ["home-a", "burst-shop-weu", "burst-in-01"] {
        world.home_node(name).await;
    }
    let all = [
        ("waits", None),
        ("home", Some("home-a")),
        ("away", Some("burst-shop-weu")),
    ];
    for (name, node) in all {
        let metadata =
            json!({"name": name, "labels": {"app": "web"}, "annotations": {"mine": "1"}});
        let pod = json!({"metadata": metadata, "spec": {
            "nodeName": node, "nodeSelector": {"no": "such"}, "tolerations": [own()],
            "containers": [{"name": "main", "image": "nginx"}],
        }});
        world.make::<Pod>(pod).await;
    }
    let gone = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    // Dry run: a real change of the image could not be repeated.
    let tried = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::apply("x").force()
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    // The API server applies policies after a delay, and no watch shows when.
    by_and_by("the policies to be in force", async || {
        let changed = pods.patch("waits", &tried, &image()).await;
        let node = nodes.delete("home-a", &gone).await;
        let lease = leases.patch("home-a", &dry, &lease("home-a")).await;
        let all = [changed.is_err(), node.is_err(), lease.is_err()];
        all == [true; 3] && pods.delete("home", &gone).await.is_err()
    })
    .await;
}

/// A heartbeat: a node's Lease.
fn lease(name: &str) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name}, "spec": {"holderIdentity": name},
    }))
}

fn image() -> Patch<Value> {
    Patch::Strategic(json!({"spec": {"containers": [{"name": "main", "image": "evil"}]}}))
}

/// A write to a pod's status also reaches its labels, annotations and finalizers. Policies on pods
/// would miss it.
async fn beside_the_status(pods: &Api<Pod>) {
    let params = PatchParams::default();
    let words = "and nothing beside it";
    for metadata in [
        json!({"labels": {"app": "other"}}),
        json!({"labels": {"app": null}}),
        json!({"annotations": {COST: "5"}}),
        json!({"finalizers": ["a/b"]}),
    ] {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        denied(pods.patch_status("away", &params, &patch).await, words);
    }
    let status = Patch::Merge(json!({"status": {"message": "x"}}));
    let written = pods.patch_status("away", &params, &status).await;
    written.expect("the status of its own pod");
}

/// A virtual node without its taint would attract pods without a grant. The heartbeats of home nodes
/// belong to their kubelets.
async fn around_its_nodes(world: &World, client: &Client) {
    let (nodes, params) = (Api::<Node>::all(client.clone()), PostParams::default());
    let node = |spec: Value| -> Node {
        let labels = json!({"burstpool.io/pool": "shop"});
        let node = json!({"metadata": {"name": "burst-shop-neu", "labels": labels}, "spec": spec});
        serde_json::from_value(node).expect("a node")
    };
    let taint = |effect: &str| json!({"taints": [{"key": "virtual-kubelet.io/provider", "value": "shop", "effect": effect}]});
    let open = "keep off pods that have no grant";
    denied(nodes.create(&params, &node(json!({}))).await, open);
    let preferring = node(taint("PreferNoSchedule"));
    denied(nodes.create(&params, &preferring).await, open);
    let made = nodes.create(&params, &node(taint("NoSchedule"))).await;
    made.expect("a virtual node");
    let opened = as_patch(json!([{"op": "remove", "path": "/spec/taints"}]));
    let opened = nodes
        .patch("burst-shop-neu", &PatchParams::default(), &opened)
        .await;
    denied(opened, open);

    // An administrator removed its label, and only the record of its placement marks it.
    world.kubectl(&["label", "node", "burst-shop-neu", "burstpool.io/pool-"]);
    world.kubectl(&[
        "annotate",
        "node",
        "burst-shop-neu",
        "burstpool.io/last-placement={}",
    ]);
    let params = PatchParams::default();
    let label = Patch::Merge(json!({"metadata": {"labels": {"burstpool.io/pool": "shop"}}}));
    let labelled = nodes.patch("burst-shop-neu", &params, &label).await;
    labelled.expect("the label of its own node");

    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let (apply, elsewhere) = (PatchParams::apply("x").force(), "only its own nodes");
    for name in ["home-a", "unborn"] {
        denied(leases.patch(name, &apply, &lease(name)).await, elsewhere);
    }
    let gone = leases.delete("home-a", &DeleteParams::default()).await;
    denied(gone, elsewhere);
    let own = "burst-shop-neu";
    let renewed = leases.patch(own, &apply, &lease(own)).await;
    renewed.expect("a heartbeat of its own node");
}

/// Only the owners of a pool may decide how much may burst, and which workloads.
async fn its_pools(world: &World, client: &Client) {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples/burstpool.yaml");
    world.kubectl(&["apply", "-f", sample]);
    let (pools, params) = (
        Api::<BurstPool>::all(client.clone()),
        PatchParams::default(),
    );
    for theirs in [
        json!({"spec": {"spill": {"maxReplicas": 1000}}}),
        json!({"metadata": {"labels": {"team": "x"}}}),
        json!({"metadata": {"annotations": {"a": "b"}}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]}}),
    ] {
        let patch = Patch::Merge(theirs);
        denied(
            pools.patch("shop", &params, &patch).await,
            "nothing but its finalizers",
        );
    }
    let kept = Patch::Merge(json!({"metadata": {"finalizers": ["burstpool.io/drain"]}}));
    let kept = pools.patch("shop", &params, &kept).await;
    kept.expect("its finalizer");
}

/// The operator may only request tokens of a service account for a live pod of that account.
async fn tokens(world: &World, client: &Client) {
    let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cluster-wide");
    world.kubectl(&["apply", "-k", rights]);
    let home = Api::<Pod>::namespaced(client.clone(), "default");
    let home = home.get("home").await.expect("the pod");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let params = PostParams::default();
    let request = |spec: Value| -> TokenRequest {
        serde_json::from_value(json!({"spec": spec})).expect("a request")
    };
    let (free, bound) = (
        request(json!({"audiences": []})),
        request(json!({"audiences": [], "boundObjectRef":
            {"apiVersion": "v1", "kind": "Pod", "name": "home", "uid": home.metadata.uid}})),
    );
    let given = accounts.create_token_request("default", &params, &free);
    denied(given.await, "only tokens that end with a pod");
    let given = accounts.create_token_request("default", &params, &bound);
    given.await.expect("a pod's own token");
    let kube_proxy = concat!(env!("CARGO_MANIFEST_DIR"), "/config/kube-proxy");
    world.kubectl(&["apply", "-k", kube_proxy]);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), OPERATOR);
    let given = accounts.create_token_request("burstpool-kube-proxy", &params, &free);
    given.await.expect("a kube-proxy's token");
}

#[tokio::test]
async fn the_operators_account_can_change_only_what_a_burst_is_made_of() {
    let world = Box::pin(installed()).await;
    let client = as_operator(&world).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let nodes: Api<Node> = Api::all(client.clone());
    guarded(&world, &client, &pods, &nodes).await;

    let params = PatchParams::default();
    denied(
        pods.patch("waits", &params, &image()).await,
        "may not change images",
    );
    for (pod, patch, words) in attempts() {
        denied(pods.patch(pod, &params, &as_patch(patch)).await, words);
    }
    let (now, elsewhere) = (DeleteParams::default(), "only pods on its own nodes");
    denied(pods.delete("home", &now).await, elsewhere);
    let status = Patch::Merge(json!({"status": {"message": "x"}}));
    denied(pods.patch_status("home", &params, &status).await, elsewhere);
    beside_the_status(&pods).await;
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    let claim = Patch::Merge(json!({"metadata": {"labels": {"burstpool.io/pool": "shop"}}}));
    for home in ["home-a", "burst-in-01"] {
        let words = "only its own nodes";
        denied(nodes.delete(home, &now).await, words);
        denied(nodes.patch(home, &params, &cordon).await, words);
        denied(nodes.patch(home, &params, &claim).await, words);
    }

    let grant = json!([
        tolerate(&provider()),
        {"op": "add", "path": "/metadata/labels/burstpool.io~1pool", "value": "shop"},
        {"op": "add", "path": "/metadata/annotations/burstpool.io~1workload", "value": "web"},
    ]);
    let granted = pods.patch("waits", &params, &as_patch(grant)).await;
    granted.expect("a grant");
    a_stale_mark_of_losses_is_removed(&pods).await;
    grants_are_its_own(&world).await;
    let cost = |cost: &str| as_patch(json!({"metadata": {"annotations": {COST: cost}}}));
    let given = pods.patch("away", &params, &cost("-1000")).await;
    given.expect("a deletion cost");
    denied(pods.patch("away", &params, &cost("5")).await, "once");
    pods.delete("away", &now).await.expect("its own");
    around_its_nodes(&world, &client).await;
    its_pools(&world, &client).await;
    tokens(&world, &client).await;
    world.end().await;
}
