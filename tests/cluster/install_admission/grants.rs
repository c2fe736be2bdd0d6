//! The marks of a grant: others than the operator and administrators may not write them.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::{as_patch, denied, provider};
use crate::support::wait::by_and_by;
use crate::world::World;

/// A client of a developer who may change pods in the namespace, as `edit` allows, and even their
/// statuses and their nodes, as a scheduler of the namespace does.
async fn as_developer(world: &World) -> Client {
    let ask = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        world.cluster.ask(&words).expect("kubectl does it")
    };
    let rights = [
        ("developer", "get,patch --resource=pods,pods/status"),
        ("scheduler", "create --resource=pods/binding"),
    ];
    for (role, verbs) in rights {
        ask(&format!("create role {role} -n default --verb={verbs}"));
        ask(&format!(
            "create rolebinding {role} -n default --role={role} --serviceaccount=default:default"
        ));
    }
    let user = json!({"token": ask("create token default -n default").trim()});
    let config = world.cluster.config_of(&user).await;
    let client = Client::try_from(config.expect("a configuration")).expect("a client");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    by_and_by("the rights to hold", async || {
        pods.get("waits").await.is_ok()
    })
    .await;
    client
}

/// A pod that waits keeps the marks of its last grant. The operator removes the mark of what that grant lost if the next
/// one loses nothing, and no other mark.
pub(super) async fn a_stale_mark_of_losses_is_removed(pods: &Api<Pod>) {
    const NOT_KEPT: &str = "burstpool.io/not-kept";
    let params = PatchParams::default();
    let set =
        |key: &str, value: Value| as_patch(json!({"metadata": {"annotations": {key: value}}}));
    let set_mark = set(NOT_KEPT, "fsGroup".into());
    let marked = pods.patch("waits", &params, &set_mark).await;
    let marked = marked.expect("the mark of a loss");
    assert_eq!(marked.annotations()[NOT_KEPT], "fsGroup");
    let workload = set("burstpool.io/workload", Value::Null);
    let words = "may remove only burstpool.io/not-kept";
    denied(pods.patch("waits", &params, &workload).await, words);
    let remove_mark = set(NOT_KEPT, Value::Null);
    let removed = pods.patch("waits", &params, &remove_mark).await;
    let removed = removed.expect("the mark is removed");
    assert_eq!(removed.annotations().get(NOT_KEPT), None);
}

/// A binding, which also changes labels and annotations of its pod, contains no mark of a grant.
async fn grants_are_in_no_binding(world: &World, pods: &Api<Pod>) {
    let bound = json!({"metadata": {"name": "bound", "annotations": {"mine": "1"}}, "spec": {
        "schedulerName": "theirs", "containers": [{"name": "main", "image": "nginx"}]}});
    world.make::<Pod>(bound).await;
    let binding = |metadata: Value| {
        let mut binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata,
            "target": {"apiVersion": "v1", "kind": "Node", "name": "home-a"}});
        binding["metadata"]["name"] = "bound".into();
        binding
    };
    let bind = async |metadata: Value| -> kube::Result<Value> {
        let params = PostParams::default();
        pods.create_subresource("binding", "bound", &params, &binding(metadata))
            .await
    };
    for marks in [
        json!({"labels": {"burstpool.io/pool": "shop"}}),
        json!({"annotations": {"burstpool.io/granted-uid": "x"}}),
        json!({"annotations": {"burstpool.io/not-kept": "seccomp"}}),
    ] {
        denied(bind(marks).await, "a binding may not write");
    }
    let theirs = bind(json!({"annotations": {"mine": "2"}})).await;
    theirs.expect("a binding of another scheduler");
    let bound = pods.get("bound").await.expect("the pod");
    let annotations = bound.metadata.annotations.unwrap_or_default();
    assert_eq!(
        annotations.get("mine").map(String::as_str),
        Some("2"),
        "a binding writes annotations"
    );
}

/// Changes of marks: the pod, the map in its metadata, the key and the value (`None` to remove it).
const MARKS: [(&str, &str, &str, Option<&str>); 8] = [
    ("waits", "labels", "burstpool.io/pool", None),
    ("waits", "labels", "burstpool.io/pool", Some("other")),
    (
        "waits",
        "annotations",
        "burstpool.io/workload",
        Some("other"),
    ),
    (
        "waits",
        "annotations",
        "burstpool.io/granted-uid",
        Some("x"),
    ),
    (
        "waits",
        "annotations",
        "burstpool.io/not-kept",
        Some("readOnlyRootFilesystem"),
    ),
    (
        "waits",
        "annotations",
        "burstpool.io/refused-since",
        Some("2026-01-01T00:00:00Z"),
    ),
    ("home", "labels", "burstpool.io/pool", Some("shop")),
    ("home", "annotations", "burstpool.io/granted-uid", Some("x")),
];

/// Only the operator and administrators may write the marks of a grant. Creating a pod from a copied
/// template is allowed.
pub(super) async fn grants_are_its_own(world: &World) {
    let pods: Api<Pod> = Api::namespaced(as_developer(world).await, "default");
    let params = PatchParams::default();
    for (pod, map, key, value) in MARKS {
        let value = value.map_or(Value::Null, Value::from);
        let patch = Patch::Merge(json!({"metadata": {map: {key: value}}}));
        let words = "only burstpool may add, change or remove";
        denied(pods.patch(pod, &params, &patch).await, words);
        denied(pods.patch_status(pod, &params, &patch).await, words);
    }
    let other = Patch::Merge(json!({"metadata": {"labels": {"theirs": "x"}}}));
    let changed = pods.patch("waits", &params, &other).await;
    changed.expect("a label of somebody else");
    let copy = json!({
        "metadata": {"name": "copy", "labels": {"burstpool.io/pool": "shop"},
            "annotations": {"burstpool.io/granted-uid": "of-another"}},
        "spec": {"containers": [{"name": "main", "image": "nginx"}], "tolerations": [provider()]},
    });
    world.make::<Pod>(copy).await;
    grants_are_in_no_binding(world, &pods).await;
}
