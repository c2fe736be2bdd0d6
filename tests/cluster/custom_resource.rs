//! The custom resource on a real API server: what it accepts, and the messages with which it rejects
//! the rest.

#[path = "custom_resource/decoding.rs"]
mod decoding;
#[path = "custom_resource/placements.rs"]
mod placements;
#[path = "custom_resource/spill.rs"]
mod spill;

use std::process::Output;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use serde_json::{Value, json};

use crate::support::{Cluster, wait};
pub use spill::workload;

/// Applies an object with kubectl, as a user does.
pub fn apply(cluster: &Cluster, object: &Value) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), object.to_string()).expect("it is written");
    let path = file.path().to_str().expect("a plain name");
    cluster
        .kubectl()
        .args(["apply", "--server-side", "-f", path])
        .output()
        .expect("kubectl")
}

/// Applies the object and asserts that the API server accepts it.
fn accepted(cluster: &Cluster, object: &Value) {
    let output = apply(cluster, object);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{object}: {said}");
}

/// Applies the object, asserts that the API server rejects it, and returns kubectl's error.
pub fn refused(cluster: &Cluster, object: &Value) -> String {
    let output = apply(cluster, object);
    assert!(!output.status.success(), "{object} was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until `kubectl explain` shows `text`. The API server publishes a new resource's documentation
/// some time after it serves it, and no watch shows when, so this polls.
pub async fn explained(cluster: &Cluster, field: &str, text: &str) {
    let what = format!("kubectl explain {field} to show its documentation");
    wait::by_and_by(&what, async || {
        let said = cluster
            .kubectl()
            .args(["explain", field])
            .output()
            .expect("kubectl");
        String::from_utf8_lossy(&said.stdout).contains(text)
    })
    .await;
}

pub fn pool(name: &str) -> Value {
    json!({
        "apiVersion": "burstpool.io/v1alpha1",
        "kind": "BurstPool",
        "metadata": {"name": name},
        "spec": {
            "azure": {"resourceGroup": "rg-burst", "tags": {"team": "shop"}},
            "placements": [{"name": "weu", "region": "westeurope"}],
        },
    })
}

/// The same pool with one field changed, given as a JSON pointer.
pub fn with(pointer: &str, value: Value) -> Value {
    let mut pool = pool("one");
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    pool.pointer_mut(parent).expect("it is there")[field] = value;
    pool
}

/// A JSON pointer into a pool, a value that is rejected there, and a part of the message.
const REJECTED: [(&str, &str, &str); 3] = [
    ("/metadata/name", r#""9-lives""#, "metadata.name"),
    (
        "/spec/azure/subscriptionId",
        r#""mine""#,
        "spec.azure.subscriptionId",
    ),
    ("/spec/azure/colour", r#""red""#, "spec.azure.colour"),
];

/// Applies the folder of the definition as users do, and waits until the resource is served.
async fn serve_resource(cluster: &Cluster) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/");
    let applied = cluster
        .kubectl()
        .args(["apply", "--server-side", "-f", folder])
        .output()
        .expect("kubectl");
    let said = String::from_utf8_lossy(&applied.stderr);
    assert!(applied.status.success(), "{said}");
    assert!(!said.contains("Warning"), "the server warns: {said}");
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client().expect("a client"));
    let established = |definition: Option<&CustomResourceDefinition>| {
        let status = definition.and_then(|d| d.status.as_ref());
        let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.any(|c| c.type_ == "Established" && c.status == "True")
    };
    let what = "the resource to be served";
    wait::until(definitions, "burstpools.burstpool.io", what, established)
        .await
        .expect("it is served");
}

#[tokio::test]
async fn the_resource_is_served_explained_and_checked_at_apply_time() {
    let cluster = Cluster::shared().await;
    serve_resource(cluster).await;
    accepted(cluster, &pool("shop"));
    let listed = cluster
        .kubectl()
        .args(["get", "bp"])
        .output()
        .expect("kubectl");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("shop"));
    explained(
        cluster,
        "burstpool.spec.placements.region",
        "The Azure region",
    )
    .await;
    for (pointer, value, field) in REJECTED {
        let wrong = with(pointer, serde_json::from_str(value).expect(value));
        let said = refused(cluster, &wrong);
        assert!(said.contains(field), "{field}: {said}");
    }
    placements::are_checked(cluster);
}

/// Flux and other users of kstatus take a resource without a status for a healthy one, even if no
/// operator runs. So `status.observedGeneration` is -1 until the operator has looked at the pool.
#[tokio::test]
async fn a_new_pool_has_no_observed_generation() {
    let cluster = Cluster::shared().await;
    let served = cluster.install_crds().await;
    served.expect("the resource is served");
    accepted(cluster, &pool("unseen"));
    let seen = || {
        let path = "jsonpath={.status.observedGeneration}";
        let told = cluster.ask(&["get", "burstpool/unseen", "-o", path]);
        told.expect("a pool")
    };
    assert_eq!(seen(), "-1");
    // A new leader writes this first.
    let claim = ["--type=merge", "--patch", r#"{"status": {"leader": "we"}}"#];
    let patch = ["patch", "burstpool/unseen", "--subresource=status"];
    let claimed = cluster.ask(&[&patch[..], &claim[..]].concat());
    claimed.expect("a claim");
    assert_eq!(seen(), "-1");
}
