//! The admission policies that narrow the operator's own account, on a real API server: what the rights
//! alone would let it do, and no burst needs, is refused.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::install::installed;
use crate::support::wait::by_and_by;
use crate::world::World;

/// The annotation of a pod's deletion cost.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// As the operator's account.
async fn as_operator(world: &World) -> Client {
    let operator = world.cluster.operator().expect("a token");
    let config = world.cluster.config_of(&operator).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

/// What came of an attempt: the refusal's words.
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

/// What no burst needs, on a pod that waits, one at home and one on a virtual node, and the refusal's words.
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

/// The toleration that the pods have.
fn own() -> Value {
    json!({"key": "mine", "operator": "Exists"})
}

/// Adds a toleration; admission has given the pod some besides.
fn tolerate(one: &Value) -> Value {
    json!({"op": "add", "path": "/spec/tolerations/-", "value": one})
}

/// A list of operations, or what is to be merged.
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

/// Pods that wait, are at home and on a virtual node; returns when the policies are in force.
async fn guarded(world: &World, pods: &Api<Pod>, nodes: &Api<Node>) {
    for name in ["home-a", "burst-shop-weu"] {
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
    // They come into force by and by, and there is nothing to watch.
    by_and_by("the policies to be in force", async || {
        let changed = pods.patch("waits", &PatchParams::default(), &image()).await;
        let node = nodes.delete("home-a", &gone).await;
        changed.is_err() && node.is_err() && pods.delete("home", &gone).await.is_err()
    })
    .await;
}

fn image() -> Patch<Value> {
    Patch::Strategic(json!({"spec": {"containers": [{"name": "main", "image": "evil"}]}}))
}

#[tokio::test]
async fn the_operators_account_can_change_only_what_a_burst_is_made_of() {
    let world = Box::pin(installed()).await;
    let client = as_operator(&world).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let nodes: Api<Node> = Api::all(client);
    guarded(&world, &pods, &nodes).await;

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
    denied(nodes.delete("home-a", &now).await, "only its own nodes");
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    denied(
        nodes.patch("home-a", &params, &cordon).await,
        "only its own nodes",
    );

    let grant = json!([
        tolerate(&provider()),
        {"op": "add", "path": "/metadata/labels/burstpool.io~1pool", "value": "shop"},
        {"op": "add", "path": "/metadata/annotations/burstpool.io~1workload", "value": "web"},
    ]);
    let granted = pods.patch("waits", &params, &as_patch(grant)).await;
    granted.expect("a grant");
    let cost = |cost: &str| as_patch(json!({"metadata": {"annotations": {COST: cost}}}));
    let given = pods.patch("away", &params, &cost("-1000")).await;
    given.expect("a deletion cost");
    denied(pods.patch("away", &params, &cost("5")).await, "once");
    pods.delete("away", &now).await.expect("its own");
    world.end().await;
}
