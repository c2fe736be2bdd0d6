//! The custom resource on a real API server: what it accepts, and the messages with which it rejects
//! the rest.

use std::process::Output;

use burstpool::api::{AcceptedLoss, BurstPool};
use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::support::{Cluster, wait};

const SUBNET: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n";

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

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn the_resource_is_served_explained_and_checked_at_apply_time() {
    let cluster = Cluster::shared().await;
    // The folder as it is, as users apply it.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/");
    let applied = cluster
        .kubectl()
        .args(["apply", "--server-side", "-f", folder])
        .output()
        .expect("kubectl");
    assert!(
        applied.status.success(),
        "{}",
        String::from_utf8_lossy(&applied.stderr)
    );
    assert!(
        !String::from_utf8_lossy(&applied.stderr).contains("Warning"),
        "the server warns: {}",
        String::from_utf8_lossy(&applied.stderr)
    );
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client().expect("a client"));
    let established = |definition: Option<&CustomResourceDefinition>| {
        let status = definition.and_then(|d| d.status.as_ref());
        let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.any(|c| c.type_ == "Established" && c.status == "True")
    };
    wait::until(
        definitions,
        "burstpools.burstpool.io",
        "the resource to be served",
        established,
    )
    .await
    .expect("it is served");

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

    let placement = |name: &str, region: &str| json!({"name": name, "region": region});
    let changed = |field: &str, value: Value| {
        let mut placement = json!({"name": "weu", "region": "westeurope", "subnetId": SUBNET});
        placement[field] = value;
        placement
    };
    let network = |subnet: bool, network: Value| {
        let mut placement = json!({"name": "weu", "region": "westeurope", "network": network});
        if subnet {
            placement["subnetId"] = SUBNET.into();
        }
        with("/spec/placements", json!([placement]))
    };
    let dns = |servers: &[&str]| network(true, json!({"dns": {"nameServers": servers}}));
    let domain = |domain: &str| {
        network(
            true,
            json!({"dns": {"nameServers": ["10.0.0.10"], "clusterDomain": domain}}),
        )
    };
    let spot = |field: &str, value: Value| {
        let mut placement = json!({"name": "weu", "region": "westeurope", "priority": "Spot"});
        placement[field] = value;
        with("/spec/placements", json!([placement]))
    };
    let kube_proxy = json!({"kubeProxy": true});
    for right in [
        network(true, kube_proxy.clone()),
        network(false, json!({"kubeProxy": false})),
        dns(&["10.0.0.10", "168.63.129.16", "255.255.255.255"]),
        domain("cluster.local"),
        domain("k8s"),
        spot("sku", json!("Standard")),
        spot("zones", json!([])),
        with(
            "/spec/placements",
            json!([changed("capacity", json!({"cpu": 4, "memory": "1.5Gi"}))]),
        ),
        with(
            "/spec/placements",
            json!([changed(
                "labels",
                json!({"example.com/tier": "", "team": "A_b.c-1"})
            )]),
        ),
    ] {
        accepted(cluster, &right);
        let one = cluster.kubectl().args(["delete", "bp", "one"]).output();
        assert!(one.expect("kubectl").status.success());
    }
    for (wrong, field) in [
        (
            network(false, kube_proxy),
            "network.kubeProxy needs subnetId",
        ),
        (
            network(false, json!({"dns": {"nameServers": ["10.0.0.10"]}})),
            "network.dns needs subnetId",
        ),
        (dns(&[]), "spec.placements[0].network.dns.nameServers"),
        (
            dns(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]),
            "spec.placements[0].network.dns.nameServers",
        ),
        (dns(&["10.0.0.256"]), "nameServers must be IPv4 addresses"),
        (dns(&["10.0.0.1."]), "nameServers must be IPv4 addresses"),
        (dns(&["dns.example"]), "nameServers must be IPv4 addresses"),
        (dns(&["fd00::1"]), "nameServers must be IPv4 addresses"),
        (domain("Cluster.local"), "clusterDomain must be a DNS name"),
        (domain("cluster.local."), "clusterDomain must be a DNS name"),
        (domain("a..b"), "clusterDomain must be a DNS name"),
        (domain(""), "clusterDomain must be a DNS name"),
        (
            spot("zones", json!(["1"])),
            "priority Spot cannot be combined with zones",
        ),
        (
            spot("sku", json!("Confidential")),
            "priority Spot needs sku Standard",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("zones", json!(["west"]))]),
            ),
            "spec.placements[0].zones",
        ),
        (
            with("/spec/placements", json!([changed("zones", json!(["w"]))])),
            "zones must contain the number of an availability zone",
        ),
        (with("/metadata/name", json!("9-lives")), "metadata.name"),
        (
            with("/spec/azure/subscriptionId", json!("mine")),
            "spec.azure.subscriptionId",
        ),
        (
            with("/spec/azure/colour", json!("red")),
            "spec.azure.colour",
        ),
        (with("/spec/placements", json!([])), "spec.placements"),
        (
            with("/spec/placements", json!([placement("W", "westeurope")])),
            "spec.placements[0].name",
        ),
        (
            with("/spec/placements", json!([placement("weu", "West Europe")])),
            "spec.placements[0].region",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("priority", json!("Spot"))]),
            ),
            "subnetId",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("subnetId", json!("v/s"))]),
            ),
            "subnetId",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("labels", json!({"kubernetes.io/hostname": "x"}))]),
            ),
            "kubernetes.io/hostname",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("labels", json!({"tier": "not so"}))]),
            ),
            "spec.placements[0].labels.tier",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("capacity", json!({"cpu": "lots"}))]),
            ),
            "spec.placements[0].capacity.cpu",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("capacity", json!({"memory": "-1Gi"}))]),
            ),
            "spec.placements[0].capacity.memory",
        ),
        (
            with(
                "/spec/placements",
                json!([changed("capacity", json!({"cpu": -1}))]),
            ),
            "spec.placements[0].capacity.cpu",
        ),
        (
            with(
                "/spec/placements",
                json!([placement("a", "westus"), placement("a", "eastus")]),
            ),
            "spec.placements",
        ),
    ] {
        let said = refused(cluster, &wrong);
        assert!(said.contains(field), "{field}: {said}");
    }
    for (field, value) in [("region", "northeurope"), ("subnetId", SUBNET)] {
        let mut moved = pool("shop");
        moved["spec"]["placements"][0][field] = value.into();
        let said = refused(cluster, &moved);
        assert!(said.contains("add another placement instead"), "{said}");
    }
}

pub fn workload(changes: &Value) -> Value {
    let mut workload = json!({
        "name": "web",
        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"},
    });
    for (field, value) in changes.as_object().expect("changes") {
        workload[field] = value.clone();
    }
    json!([workload])
}

#[tokio::test]
async fn what_spills_is_checked_at_apply_time_and_has_columns() {
    let cluster = Cluster::shared().await;
    cluster
        .install_crds()
        .await
        .expect("the resource is served");

    let selector = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}});
    let batch = json!({"name": "batch", "selector": selector, "spill": {"maxReplicas": 5}});
    let mut full = pool("spills");
    full["spec"]["workloads"] = workload(
        &json!({"spill": {"after": "1m30s", "maxReplicas": "50%", "accept": ["fsGroup"]}, "weight": 3}),
    );
    full["spec"]["workloads"]
        .as_array_mut()
        .expect("a list")
        .push(batch);
    full["spec"]["spill"] = json!({"after": "0s", "maxReplicas": "30%", "rate": {"pods": 5, "per": "1m"}, "accept": AcceptedLoss::ALL});
    full["spec"]["scaleIn"] = json!({"deletionCost": -5, "cooldown": "5m"});
    full["spec"]["mode"] = json!("DryRun");
    accepted(cluster, &full);
    let listed = cluster
        .kubectl()
        .args(["get", "bp", "spills"])
        .output()
        .expect("kubectl");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for shown in ["READY", "SPILLED", "HOLDING", "MAX", "AGE", "30%"] {
        assert!(listed.contains(shown), "{shown}: {listed}");
    }
    explained(cluster, "burstpool.spec.spill.after", "autoscaler go first").await;

    let both = json!({"selector": selector});
    let mut of_nothing = pool("one")["spec"].clone();
    of_nothing["workloads"] = workload(&json!({"target": null, "selector": selector}));
    of_nothing["spill"] = json!({"maxReplicas": "30%"});
    let percent = json!({"target": null, "selector": selector, "spill": {"maxReplicas": "5%"}});
    for (wrong, said) in [
        (
            with("/spec/workloads", workload(&both)),
            "exactly one of target and selector",
        ),
        (
            with("/spec/workloads", workload(&json!({"target": null}))),
            "exactly one of target and selector",
        ),
        (
            with("/spec/workloads", workload(&percent)),
            "must be a number if selector is set",
        ),
        (
            with("/spec", of_nothing),
            "must be a number if no workload has a target",
        ),
        (
            with("/spec/workloads", workload(&json!({"name": "Web"}))),
            "spec.workloads[0].name",
        ),
        (
            with("/spec/workloads", workload(&json!({"weight": 0}))),
            "spec.workloads[0].weight",
        ),
        (
            with(
                "/spec/workloads",
                workload(&json!({"spill": {"after": "soon"}})),
            ),
            "such as 15s",
        ),
        (
            with(
                "/spec/workloads",
                workload(&json!({"spill": {"maxReplicas": -1}})),
            ),
            "maxReplicas",
        ),
        (with("/spec/spill", json!({"after": "-5s"})), "such as 15s"),
        (with("/spec/spill", json!({"after": "25h"})), "at most 24h"),
        (
            with("/spec/spill", json!({"maxReplicas": "101%"})),
            "spec.spill.maxReplicas",
        ),
        (
            with("/spec/spill", json!({"rate": {"pods": 0}})),
            "spec.spill.rate.pods",
        ),
        (
            with("/spec/spill", json!({"rate": {"per": "2h"}})),
            "from 1s to 1h",
        ),
        (
            with("/spec/scaleIn", json!({"cooldown": "a while"})),
            "such as 5m",
        ),
        (with("/spec/mode", json!("Maybe")), "spec.mode"),
    ] {
        let answer = refused(cluster, &wrong);
        assert!(answer.contains(said), "{said}: {answer}");
    }
}

#[tokio::test]
async fn the_losses_that_a_workload_accepts_are_among_those_of_its_pool() {
    let cluster = Cluster::shared().await;
    let served = cluster.install_crds().await;
    served.expect("the resource is served");
    let of_workload = |accept: &Value| workload(&json!({"spill": {"accept": accept}}));
    let mut narrowed = pool("accepts");
    narrowed["spec"]["spill"]["accept"] = json!(["fsGroup", "seccomp"]);
    for accept in [json!(["fsGroup"]), json!([]), Value::Null] {
        narrowed["spec"]["workloads"] = of_workload(&accept);
        accepted(cluster, &narrowed);
    }
    for (wrong, said) in [
        (
            with("/spec/spill", json!({"accept": ["runAsUser"]})),
            "spec.spill.accept[0]",
        ),
        (
            with("/spec/spill", json!({"accept": ["fsGroup", "fsGroup"]})),
            ".spec.spill.accept: duplicate entries",
        ),
        (
            with("/spec/workloads", of_workload(&json!(["fsGroup"]))),
            "spec.workloads[].spill.accept may contain only what spec.spill.accept contains",
        ),
    ] {
        let answer = refused(cluster, &wrong);
        assert!(answer.contains(said), "{said}: {answer}");
    }
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

/// JSON pointers to everything in a value.
fn pointers(all: &mut Vec<String>, path: &str, value: &Value) {
    all.push(path.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(all, &format!("{path}/{index}"), item);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(all, &format!("{path}/{name}"), field);
            }
        }
        _ => {}
    }
}

/// What the API server would store. `None` if it rejects the pool.
async fn stored(client: &Client, pool: &Value) -> Option<String> {
    // Send the JSON unchanged, as other programs may. A typed client would drop fields.
    let path = "/apis/burstpool.io/v1alpha1/burstpools?dryRun=All&fieldValidation=Ignore";
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(pool.to_string().into_bytes());
    match client.request_text(request.expect("a request")).await {
        Ok(stored) => Some(stored),
        Err(kube::Error::Api(_)) => None,
        Err(error) => unreachable!("no answer: {error}"),
    }
}

/// The operator's types accept every pool that the definition accepts. For each field the test tries a
/// value of another kind, and reads what the API server stores after it has added its defaults.
#[tokio::test]
async fn whatever_the_api_server_accepts_the_types_read() {
    let cluster = Cluster::shared().await;
    let served = cluster.install_crds().await;
    served.expect("the resource is served");
    let client = cluster.client().expect("a client");
    let sample = include_str!("../../config/samples/burstpool-every-field.yaml");
    let sample: Value = serde_yaml::from_str(sample).expect("YAML");
    let mut fields = Vec::new();
    pointers(&mut fields, "/spec", &sample["spec"]);
    let odd = json!([
        null, true, 0, -1, 3_000_000_000_i64, i64::MAX, 1.5, 1e300, "", " ", "lots", "-1", "1e99", "0s", [], {},
        [null], {"a": null}
    ]);
    let all = fields.iter().flat_map(|field| {
        let odd = odd.as_array().into_iter().flatten();
        odd.map(|value| (field.clone(), value.clone()))
    });
    let read = futures::stream::iter(all).map(async |(field, value)| {
        let mut pool = sample.clone();
        *pool.pointer_mut(&field).expect("it is there") = value.clone();
        let stored = stored(&client, &pool).await?;
        let read = serde_json::from_str::<BurstPool>(&stored);
        Some(read.map_err(|error| format!("{field}: {value}: {error}")))
    });
    let read: Vec<_> = read.buffer_unordered(8).collect().await;
    let read: Vec<_> = read.into_iter().flatten().collect();
    let (right, wrong): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
    assert!(right.len() > 100, "{} were accepted", right.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
