//! What is checked of the body of a container group.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use burstpool::emulator::group::id::GroupId;
use burstpool::emulator::group::model::GroupBody;
use burstpool::emulator::group::validate::validate;
use burstpool::k8s::quantity::NanoAmount;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::plausible::SECRET;

/// The service knows every field of the body and accepts it.
pub fn accepted(body: &Value) -> Result<(), TestCaseError> {
    let mut unknown = Vec::new();
    let read: Result<GroupBody, _> =
        serde_ignored::deserialize(body.clone(), |path| unknown.push(path.to_string()));
    let read = read.map_err(|error| TestCaseError::fail(format!("{error}: {body}")))?;
    prop_assert!(unknown.is_empty(), "unknown to the service: {unknown:?}");
    let id = GroupId {
        subscription: "s".into(),
        resource_group: "g".into(),
        name: "shop-web-0123456789abcdef".into(),
    };
    let answer = validate(&id, &read);
    prop_assert!(answer.is_ok(), "{answer:?}: {body:#}");
    Ok(())
}

/// Each container is present and gets at least what it requests.
pub fn kept(pod: &Pod, body: &Value) -> Result<(), TestCaseError> {
    let spec = pod.spec.as_ref().expect("a pod that was translated");
    let list = |name: &str| {
        body["properties"][name]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let (proper, init) = (list("containers"), list("initContainers"));
    prop_assert_eq!(proper.len(), spec.containers.len());
    prop_assert_eq!(
        init.len(),
        spec.init_containers.as_ref().map_or(0, Vec::len)
    );
    let given = |container: &Value, field: &str, unit: f64| {
        let amount = container.pointer(&format!("/properties/resources/{field}"));
        amount.and_then(Value::as_f64).expect("an amount") * unit
    };
    let mut totals = [0.0, 0.0];
    for (asked, container) in spec.containers.iter().zip(&proper) {
        prop_assert_eq!(&container["name"], &Value::from(asked.name.clone()));
        let cpu = given(container, "requests/cpu", 1e3);
        let memory = given(container, "requests/memoryInGB", 1e9);
        let limit = given(container, "limits/memoryInGB", 1e9);
        totals = [totals[0] + cpu, totals[1] + memory];
        prop_assert!(
            cpu + 1e-6 >= asks(asked, "requests", "cpu", 1),
            "{cpu}: {asked:?}"
        );
        prop_assert!(
            memory + 1.0 >= asks(asked, "requests", "memory", 1000),
            "{memory}: {asked:?}"
        );
        if spec.resources.is_none() {
            prop_assert!(
                limit + 1.0 >= asks(asked, "limits", "memory", 1000),
                "{limit}: {asked:?}"
            );
        }
    }
    let whole = |name: &str, by| amount(spec.resources.as_ref(), "requests", name, by);
    prop_assert!(totals[0] + 1e-6 >= whole("cpu", 1), "{:?}", spec.resources);
    prop_assert!(
        totals[1] + 1.0 >= whole("memory", 1000),
        "{:?}",
        spec.resources
    );
    for asked in spec.init_containers.iter().flatten() {
        prop_assert!(totals[0] + 1e-6 >= asks(asked, "requests", "cpu", 1));
        prop_assert!(totals[1] + 1.0 >= asks(asked, "requests", "memory", 1000));
    }
    Ok(())
}

/// A container's request or limit in thousandths, divided by `by`; zero if it has none.
fn asks(container: &Container, list: &str, name: &str, by: u64) -> f64 {
    amount(container.resources.as_ref(), list, name, by)
}

fn amount(resources: Option<&ResourceRequirements>, list: &str, name: &str, by: u64) -> f64 {
    let amounts = resources.and_then(|resources| match list {
        "limits" => resources.limits.as_ref(),
        _ => resources.requests.as_ref(),
    });
    let amount = amounts.and_then(|amounts| NanoAmount::from_quantity(amounts.get(name)?));
    let steps = amount.map_or(0, |amount| amount.in_steps_of(NanoAmount::thousandths(by)));
    f64::from(u32::try_from(steps).expect("small amounts"))
}

/// Secrets occur only in `secureValue`, `password`, a share's key and secret volumes.
pub fn secrets_are_hidden(body: &Value) -> Result<(), TestCaseError> {
    let mut found = Vec::new();
    search(body, String::new(), &mut found);
    for path in found {
        let volume = path.starts_with("/properties/volumes/") && path.contains("/secret/");
        let fields = [
            "/secureValue",
            "/password",
            "/azureFile/storageAccountKey",
            "/properties/protectedSettings/kubeConfig",
        ];
        let hidden = volume || fields.iter().any(|field| path.ends_with(field));
        prop_assert!(hidden, "a secret is readable at {path}");
    }
    Ok(())
}

/// The paths of all strings that contain a secret, in clear or in base64.
fn search(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let decoded = STANDARD.decode(text).unwrap_or_default();
            let decoded = String::from_utf8_lossy(&decoded).into_owned();
            if text.contains(SECRET) || decoded.contains(SECRET) {
                found.push(path);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                search(item, format!("{path}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let part = if name.contains(SECRET) {
                    "SECRET"
                } else {
                    name
                };
                search(field, format!("{path}/{part}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_search_for_secrets_finds_them() {
    let mut found = Vec::new();
    let encoded = STANDARD.encode(format!("-{SECRET}-"));
    let body = json!({"a": [{"b": format!("x{SECRET}")}, "y"], "c": encoded});
    search(&body, String::new(), &mut found);
    assert_eq!(found, ["/a/0/b", "/c"]);
}
