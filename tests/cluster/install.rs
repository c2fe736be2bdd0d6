//! The manifests that install the operator, on a real API server, and the operator under exactly the
//! rights that they give it.
//!
//! What is shown: every manifest is accepted; a whole burst, from the pool to its removal, needs nothing
//! that is forbidden, and uses every rule; the admission policies refuse what the rights alone would let
//! the operator do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use burstpool::emulator::Options as AzureOptions;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::binding::by_and_by;
use crate::home::deployment;
use crate::support::{Cluster, Options};
use crate::world::World;

/// The account that the manifests give the operator.
const ACCOUNT: &str = "system:serviceaccount:burstpool:burstpool";
/// What a burst needs that does not show in this one: a pod is read by name before a group that seems to
/// be left of it is deleted, after two minutes; an Event that recurs is counted up; an Event that is
/// applied for the first time needs the right to create it, but is written down as a patch; a class is read
/// where a claim is not bound yet; and one that leads at once does not come to watch the lease.
const RARE: [(&str, &str, &str); 5] = [
    ("coordination.k8s.io", "leases", "watch"),
    ("storage.k8s.io", "storageclasses", "get"),
    ("", "pods", "get"),
    ("events.k8s.io", "events", "patch"),
    ("", "events", "create"),
];
/// The annotation of a pod's deletion cost.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Everything that it asks the API server is written down, on the API server's standard output.
const AUDITED: Options = Options {
    metrics_server: false,
    api_server: &[
        concat!(
            "--audit-policy-file=",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/audit.yaml"
        ),
        "--audit-log-path=-",
    ],
    controller_manager: &[],
};

fn config(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(directory)
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Output {
    let output = cluster.kubectl().args(arguments).output();
    output.expect("kubectl runs")
}

/// Applies a kustomization, and it is accepted.
fn apply(cluster: &Cluster, directory: &str, more: &[&str]) {
    let path = config(directory);
    let path = path.to_str().expect("a plain path");
    let arguments = [&["apply", "--server-side", "-k", path], more].concat();
    let output = kubectl(cluster, &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{directory}: {said}");
}

#[tokio::test]
async fn every_manifest_is_accepted_by_the_api_server() {
    let cluster = Cluster::start(Options::default()).await.expect("a cluster");
    cluster
        .install_crds()
        .await
        .expect("the resource is served");
    kubectl(&cluster, &["create", "namespace", "burstpool"]);
    kubectl(&cluster, &["create", "namespace", "argocd"]);
    let dry = ["--dry-run=server"];
    for directory in [
        "default",
        "namespace",
        "cluster-wide",
        "admission",
        "kube-proxy",
        "argocd",
    ] {
        apply(&cluster, directory, &dry);
    }
    for sample in std::fs::read_dir(config("samples")).expect("samples") {
        let path = sample.expect("a sample").path();
        let path = path.to_str().expect("a plain path");
        let output = kubectl(&cluster, &["apply", "--dry-run=server", "-f", path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path}: {said}");
    }
}

/// A world in which the operator has exactly the rights that the manifests give it.
async fn installed() -> World {
    let azure = AzureOptions {
        speed: 20.0,
        ..AzureOptions::default()
    };
    let mut world = World::without_operator(AUDITED, azure).await;
    apply(&world.cluster, "default", &["--force-conflicts"]);
    apply(&world.cluster, "namespace", &["--namespace", "default"]);
    // The operator is this process's child: the one in the cluster would need its image.
    let none = [
        "scale",
        "-n",
        "burstpool",
        "deployment/burstpool",
        "--replicas=0",
    ];
    assert!(kubectl(&world.cluster, &none).status.success());
    let asked = ["create", "token", "burstpool", "-n", "burstpool"];
    let token = kubectl(&world.cluster, &asked);
    assert!(token.status.success(), "{token:?}");
    let token = String::from_utf8_lossy(&token.stdout).trim().to_owned();
    let kubeconfig = world
        .cluster
        .kubeconfig_of("operator", &json!({ "token": token }));
    world.run_as(kubeconfig.expect("a file"), "burstpool");
    world
}

/// As the operator's account.
async fn as_operator(world: &World) -> Client {
    let output = kubectl(
        &world.cluster,
        &["create", "token", "burstpool", "-n", "burstpool"],
    );
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let config = world.cluster.config_of(&json!({ "token": token })).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

/// What the operator asked of the API server: group, resource and verb; and what it was refused.
fn asked(world: &World) -> (BTreeSet<(String, String, String)>, Vec<String>) {
    let log = world.cluster.directory().join("logs/kube-apiserver.log");
    let log = std::fs::read_to_string(log).expect("the API server's log");
    let mut refused = Vec::new();
    let mut all = BTreeSet::new();
    for line in log
        .lines()
        .filter(|line| line.starts_with("{\"kind\":\"Event\""))
    {
        let event: Value = serde_json::from_str(line).expect("an audit event");
        assert_eq!(event["user"]["username"], ACCOUNT);
        let (object, verb) = (&event["objectRef"], event["verb"].as_str());
        let word = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        if event["responseStatus"]["code"] == 403 {
            refused.push(event["requestURI"].to_string());
        }
        let resource = match word("subresource").as_str() {
            "" => word("resource"),
            sub => format!("{}/{sub}", word("resource")),
        };
        all.insert((
            word("apiGroup"),
            resource,
            verb.unwrap_or_default().to_owned(),
        ));
    }
    (all, refused)
}

/// Every verb on every resource of a rule of the operator's roles.
fn granted(cluster: &Cluster) -> BTreeSet<(String, String, String)> {
    let output = kubectl(cluster, &["get", "clusterroles,roles", "-A", "-o", "json"]);
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let words = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|one| Some(one.as_str()?.to_owned()))
            .collect()
    };
    let mut granted = BTreeSet::new();
    for role in all["items"].as_array().expect("roles") {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        if !name.starts_with("burstpool") {
            continue;
        }
        for rule in role["rules"].as_array().into_iter().flatten() {
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        granted.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
    }
    granted
}

/// Pods with all that the namespace's role is for, of each kind of target.
fn workloads(world: &World) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/workloads.yaml");
    let output = kubectl(&world.cluster, &["apply", "-f", path]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The kubelet API knows its callers: the API server by its certificate, and others by their tokens.
async fn kubelet_api(world: &World) {
    let output = kubectl(&world.cluster, &["logs", "deployment/web"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", world.tail());
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true);
    let url = format!("{}/healthz", world.kubelet("burst-shop-weu").await);
    let asked = client.build().expect("a client").get(url);
    let answer = asked.bearer_auth(world.cluster.token()).send().await;
    assert_eq!(answer.expect("an answer").status().as_u16(), 200);
}

// Azure answers while kubectl is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_burst_needs_nothing_that_is_forbidden_and_uses_every_rule() {
    let mut world = Box::pin(installed()).await;
    for name in ["home-a", "home-b"] {
        world.home_node(name).await;
    }
    world.run();
    let target = |kind: &str, name: &str| {
        json!({"name": name, "target":
            {"apiVersion": "apps/v1", "kind": kind, "namespace": "default", "name": name}})
    };
    let pool = json!({"workloads": [
        target("Deployment", "web"), target("StatefulSet", "db"), target("ReplicaSet", "bare"),
    ]});
    world.add_pool(&pool).await;
    world.deploy_this(&deployment("filler", 4)).await;
    world.until_spread_of("filler", 4, 0, 0).await;
    workloads(&world);
    for app in ["web", "db", "bare"] {
        world.until_spread_of(app, 0, 1, 0).await;
    }

    kubelet_api(&world).await;
    world.scale_this("web", 0).await;
    world.until_pods("web", "none", <[Pod]>::is_empty).await;
    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    assert_eq!(world.groups(), Vec::<String>::new());

    let (asked, refused) = asked(&world);
    assert_eq!(refused, Vec::<String>::new(), "it may do all that it tries");
    let mut granted = granted(&world.cluster);
    for (group, resource, verb) in RARE {
        let rare = (group.to_owned(), resource.to_owned(), verb.to_owned());
        assert!(granted.remove(&rare), "{rare:?} is not granted any more");
    }
    let unused: Vec<_> = granted.difference(&asked).collect();
    assert!(unused.is_empty(), "rights that nothing needs: {unused:?}");
    let log = std::fs::read_to_string(world.log()).expect("a log");
    assert!(
        !log.to_lowercase().contains("forbidden"),
        "{}",
        world.tail()
    );
    world.end().await;
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
