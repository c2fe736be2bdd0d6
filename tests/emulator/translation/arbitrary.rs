//! Random pods, and random volumes behind their claims: everything that the schema of Kubernetes
//! allows, and some invalid ones.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use rand::prelude::*;
use schemars::{JsonSchema as _, SchemaGenerator};
use serde_json::{Map, Value};

use super::plausible::{Case, pick};

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut generator = SchemaGenerator::default();
    let pod = Pod::json_schema(&mut generator);
    let volume = PersistentVolume::json_schema(&mut generator);
    let mut definitions = generator.take_definitions(true);
    definitions.insert("Pod".to_owned(), pod.to_value());
    definitions.insert("PersistentVolume".to_owned(), volume.to_value());
    definitions
});

/// Strings that have a meaning in some field, and others.
const TEXTS: [&str; 41] = [
    "",
    "a",
    "web",
    "a--b",
    "A_B",
    "nginx",
    "a.io/b:1",
    "/mnt",
    "/",
    "a/b",
    "..",
    "$(A)",
    "$$(A)",
    "$(",
    "é\u{0}",
    "Always",
    "Never",
    "TCP",
    "UDP",
    "SCTP",
    "HTTP",
    "ClusterFirst",
    "None",
    "Linux",
    "windows",
    "Memory",
    "RuntimeDefault",
    "metadata.labels['a']",
    "metadata.name",
    "status.podIP",
    "limits.cpu",
    "requests.memory",
    "cpu",
    "memory",
    "1",
    "250m",
    "1.5Gi",
    "-1",
    "1e999",
    "file.csi.azure.com",
    "rg#account#share##uuid#shop",
];

/// A random pod.
pub fn pod(seed: u64) -> Case {
    let rng = &mut StdRng::seed_from_u64(seed);
    let chance = rng.random_range(0.02..0.5);
    let mut pod = value(&DEFINITIONS["Pod"], chance, rng);
    for not_read in ["kind", "apiVersion", "status"] {
        pod.as_object_mut().and_then(|pod| pod.remove(not_read));
    }
    Case::of(pod, seed, rng)
}

/// A random volume of a claim. Every other one belongs to the CSI driver.
pub fn volume(seed: u64) -> Value {
    let rng = &mut StdRng::seed_from_u64(seed);
    let chance = rng.random_range(0.02..0.5);
    let mut volume = value(&DEFINITIONS["PersistentVolume"], chance, rng);
    if rng.random_bool(0.5) {
        volume["spec"]["csi"]["driver"] = "file.csi.azure.com".into();
        volume["spec"]["csi"]["volumeHandle"] = pick(rng, &TEXTS).into();
    }
    volume
}

/// A random value of a schema. `chance` is the probability of each optional field.
fn value(schema: &Value, chance: f64, rng: &mut StdRng) -> Value {
    let reference = schema.pointer("/allOf/0/$ref").or(schema.get("$ref"));
    if let Some(name) = reference
        .and_then(Value::as_str)
        .and_then(|r| r.rsplit('/').next())
    {
        return match DEFINITIONS.get(name) {
            Some(schema) => value(schema, chance, rng),
            None => Value::Null,
        };
    }
    let kind = schema.get("type");
    let kind = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    match kind {
        Some("object") => object(schema, chance, rng),
        Some("array") => {
            let count = rng.random_range(0..3);
            let item = schema.get("items").unwrap_or(&Value::Null);
            (0..count).map(|_| value(item, chance, rng)).collect()
        }
        Some("boolean") => rng.random_bool(0.5).into(),
        Some("integer") => pick(rng, &[0, 1, 22, 80, 1000, -1, 65536, i64::from(i32::MAX)]).into(),
        Some("string")
            if schema
                .get("format")
                .is_some_and(|format| format == "date-time") =>
        {
            "2026-01-02T03:04:05Z".into()
        }
        Some("string") => pick(rng, &TEXTS).into(),
        _ => {
            if rng.random_bool(0.5) {
                pick(rng, &[80, 0, -7]).into()
            } else {
                pick(rng, &TEXTS).into()
            }
        }
    }
}

fn object(schema: &Value, chance: f64, rng: &mut StdRng) -> Value {
    let mut fields = Map::new();
    let required = schema.get("required").and_then(Value::as_array);
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        let must = required.is_some_and(|names| names.iter().any(|n| n == name));
        // A pod without containers would be rejected too early.
        if must || name == "spec" || rng.random_bool(chance) {
            let value = match name.as_str() {
                // The API allows no other keys in a Secret.
                "key" => pick(rng, &["k", "a.b", "USER"]).into(),
                _ => value(schema, chance * 0.8, rng),
            };
            fields.insert(name.clone(), value);
        }
    }
    if let Some(schema) = schema.get("additionalProperties").filter(|s| s.is_object()) {
        for _ in 0..rng.random_range(0..3) {
            let name = pick(rng, &TEXTS).to_owned();
            fields.insert(name, value(schema, chance, rng));
        }
    }
    if rng.random_bool(0.01) {
        fields.insert("novel".to_owned(), pick(rng, &TEXTS).into());
    }
    Value::Object(fields)
}
