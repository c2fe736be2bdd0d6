//! What spills: workloads, limits and accepted losses.

use burstpool::api::AcceptedLoss;
use serde_json::{Value, json};

use super::{accepted, explained, pool, refused, with};
use crate::support::Cluster;

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

/// Changes of a workload that are rejected, and a part of the message.
const REJECTED_WORKLOADS: [(&str, &str); 7] = [
    (
        r#"{"selector": SELECTOR}"#,
        "exactly one of target and selector",
    ),
    (r#"{"target": null}"#, "exactly one of target and selector"),
    (
        r#"{"target": null, "selector": SELECTOR, "spill": {"maxReplicas": "5%"}}"#,
        "must be a number if selector is set",
    ),
    (r#"{"name": "Web"}"#, "spec.workloads[0].name"),
    (r#"{"weight": 0}"#, "spec.workloads[0].weight"),
    (r#"{"spill": {"after": "soon"}}"#, "such as 15s"),
    (r#"{"spill": {"maxReplicas": -1}}"#, "maxReplicas"),
];

/// A JSON pointer into a pool, a value that is rejected there, and a part of the message.
const REJECTED: [(&str, &str, &str); 7] = [
    ("/spec/spill", r#"{"after": "-5s"}"#, "such as 15s"),
    ("/spec/spill", r#"{"after": "25h"}"#, "at most 24h"),
    (
        "/spec/spill",
        r#"{"maxReplicas": "101%"}"#,
        "spec.spill.maxReplicas",
    ),
    (
        "/spec/spill",
        r#"{"rate": {"pods": 0}}"#,
        "spec.spill.rate.pods",
    ),
    ("/spec/spill", r#"{"rate": {"per": "2h"}}"#, "from 1s to 1h"),
    ("/spec/scaleIn", r#"{"cooldown": "a while"}"#, "such as 5m"),
    ("/spec/mode", r#""Maybe""#, "spec.mode"),
];

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

    let mut of_nothing = pool("one")["spec"].clone();
    of_nothing["workloads"] = workload(&json!({"target": null, "selector": selector}));
    of_nothing["spill"] = json!({"maxReplicas": "30%"});
    let answer = refused(cluster, &with("/spec", of_nothing));
    let said = "must be a number if no workload has a target";
    assert!(answer.contains(said), "{said}: {answer}");
    for (changes, said) in REJECTED_WORKLOADS {
        let changes = changes.replace("SELECTOR", &selector.to_string());
        let changes = serde_json::from_str(&changes).expect("JSON");
        let answer = refused(cluster, &with("/spec/workloads", workload(&changes)));
        assert!(answer.contains(said), "{said}: {answer}");
    }
    for (pointer, value, said) in REJECTED {
        let value = serde_json::from_str(value).expect(value);
        let answer = refused(cluster, &with(pointer, value));
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
