//! Containers of plausible pods.

use rand::prelude::*;
use serde_json::{Value, json};

use super::{pick, some};

/// Environment variables and sources of them.
fn environment(rng: &mut StdRng) -> (Vec<Value>, Vec<Value>) {
    let secret = json!({"secretKeyRef": {"name": "db", "key": "k"}});
    let optional = json!({"secretKeyRef": {"name": "tls", "key": "none", "optional": true}});
    let map = json!({"configMapKeyRef": {"name": "settings", "key": "k"}});
    let env = [
        json!({"name": "A", "value": "a"}),
        json!({"name": "EMPTY", "value": ""}),
        json!({"name": "PASSWORD", "valueFrom": secret}),
        json!({"name": "MAYBE", "valueFrom": optional}),
        json!({"name": "SETTING", "valueFrom": map}),
        json!({"name": "URL", "value": "db://$(USER):$(PASSWORD)@$$(A)/$(SETTING)"}),
        json!({"name": "COPY", "value": "$(URL)$(MAYBE)"}),
        json!({"name": "A", "value": "again $(A)"}),
        json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
        json!({"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}),
    ];
    let from = [
        json!({"secretRef": {"name": "db"}}),
        json!({"prefix": "X_", "configMapRef": {"name": "settings", "optional": true}}),
    ];
    (some(rng, 0.4, &env), some(rng, 0.2, &from))
}

/// Mounts of some of the volumes.
fn mounts(volumes: &[String], rng: &mut StdRng) -> Vec<Value> {
    let mounted = some(
        rng,
        0.7,
        &volumes.iter().map(|name| json!(name)).collect::<Vec<_>>(),
    );
    mounted
        .iter()
        .filter_map(Value::as_str)
        .map(|name| {
            let mut mount =
                json!({"name": name, "mountPath": format!("/mnt/{name}"), "readOnly": true});
            let often = match name {
                "nested" => 0.98,
                "tmp" | "cache" => 0.15,
                _ => 0.01,
            };
            if rng.random_bool(often) {
                let all: &[&str] = if name == "nested" {
                    &["a", "./a/"]
                } else {
                    &["a", "./a", "b", "c", "c/d"]
                };
                mount["subPath"] = pick(rng, all).into();
            }
            mount
        })
        .collect()
}

pub(super) fn container(name: &str, volumes: &[String], rng: &mut StdRng) -> Value {
    let images = [
        "nginx",
        "shop.azurecr.io/web:1",
        "quay.io/a/b@sha256:ab",
        "docker.io/redis",
    ];
    let amounts = |rng: &mut StdRng| {
        let cpu = pick(rng, &["1m", "10m", "0.333", "1", "1.981"]);
        let memory = pick(rng, &["1", "99999999", "128Mi", "1Gi", "1.55G"]);
        json!({"cpu": cpu, "memory": memory})
    };
    let mounts = mounts(volumes, rng);
    let image = pick(rng, &images);
    let (env, from) = environment(rng);
    let mut container = json!({
        "name": name, "image": image, "volumeMounts": mounts, "env": env, "envFrom": from,
    });
    let fields = [
        (
            "command",
            json!(["sh", "-c", "echo $(A) $(SETTING) $(date)"]),
        ),
        ("resources", json!({"requests": amounts(rng)})),
        ("resources", json!({"limits": amounts(rng)})),
        (
            "securityContext",
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        ),
        (
            "securityContext",
            json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
        ),
    ];
    for (field, value) in fields {
        if rng.random_bool(0.3) {
            container[field] = value;
        }
    }
    if rng.random_bool(0.1) {
        let reference = pick(
            rng,
            &["$(PASSWORD)", "$(MAYBE)", "$(COPY)", "$(USER)", "$(NODE)"],
        );
        container["args"] = json!([reference]);
    }
    container
}
