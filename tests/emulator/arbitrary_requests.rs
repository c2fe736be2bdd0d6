//! Arbitrary requests: the emulator never panics, and never answers a 5xx without a fault rule.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Map, Value};

use crate::azure::{Azure, body, group};

/// JSON of any shape. Names of the service's fields are more frequent than others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any_name(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = String> {
    let names = [
        "location",
        "properties",
        "containers",
        "initContainers",
        "name",
        "image",
        "command",
        "ports",
        "port",
        "resources",
        "requests",
        "limits",
        "cpu",
        "memoryInGB",
        "gpu",
        "volumes",
        "volumeMounts",
        "mountPath",
        "secret",
        "emptyDir",
        "ipAddress",
        "type",
        "osType",
        "sku",
        "priority",
        "tags",
        "environmentVariables",
        "value",
        "secureValue",
        "restartPolicy",
        "subnetIds",
        "id",
        "dnsConfig",
        "livenessProbe",
        "httpGet",
        "exec",
        "identity",
        "zones",
        "provisioningTimeoutInSeconds",
    ];
    prop_oneof![4 => prop::sample::select(names.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn any_text() -> impl Strategy<Value = String> {
    let texts = [
        "Linux", "Spot", "Public", "Private", "westus", "Never", "a", "/a", "1", "9999h", "TCP",
    ];
    prop_oneof![3 => prop::sample::select(texts.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

/// A valid body in which one value is replaced by any JSON.
fn nearly_right() -> impl Strategy<Value = Value> {
    let pointers = [
        "/location",
        "/tags",
        "/properties/osType",
        "/properties/containers",
        "/properties/volumes",
        "/properties/ipAddress",
        "/properties/containers/0/name",
        "/properties/containers/0/properties/image",
        "/properties/containers/0/properties/resources/requests/cpu",
        "/properties/containers/0/properties/resources/requests/memoryInGB",
        "/properties/containers/0/properties/environmentVariables",
        "/properties/provisioningTimeoutInSeconds",
        "/properties/restartPolicy",
    ];
    (prop::sample::select(pointers.to_vec()), any_json()).prop_map(|(pointer, value)| {
        let mut body = body(&[("ACI_EMULATOR_EXIT_AFTER", "1s")]);
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        body.pointer_mut(parent).expect("it is there")[field] = value;
        body
    })
}

/// A path with any query. Segments of the service's paths are more frequent than others.
fn any_path() -> impl Strategy<Value = String> {
    let known = [
        "subscriptions",
        "s",
        "resourceGroups",
        "g",
        "providers",
        "Microsoft.ContainerInstance",
        "containerGroups",
        "one",
        "containers",
        "web",
        "logs",
        "exec",
        "attach",
        "stop",
        "start",
        "restart",
        "locations",
        "westus",
        "usages",
        "operations",
        "Microsoft.Network",
        "virtualNetworks",
        "subnets",
        "_emulator",
        "faults",
        "metadata",
        "endpoints",
        "oauth2",
        "v2.0",
        "token",
        "execstream",
        "sessionId",
        "%00",
        "%ff",
        "..",
        "%2F",
        "00000000-0000-0000-0000-000000000000",
    ];
    let part = prop_oneof![6 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[ -~]{0,12}"];
    let query = prop_oneof![
        Just("api-version=2023-05-01".to_owned()),
        Just("api-version=2023-05-01&tail=-1&timestamps=x&$skiptoken=%ff".to_owned()),
        "[ -~]{0,30}",
    ];
    (prop::collection::vec(part, 0..10), query).prop_map(|(parts, query)| {
        let path: Vec<String> = parts
            .iter()
            .map(|part| part.replace(['?', '#'], "_"))
            .collect();
        format!("/{}?{}", path.join("/"), query.replace('#', "_"))
    })
}

fn any_method() -> impl Strategy<Value = Method> {
    let methods = [
        Method::GET,
        Method::PUT,
        Method::POST,
        Method::DELETE,
        Method::PATCH,
        Method::HEAD,
        Method::OPTIONS,
    ];
    prop::sample::select(methods.to_vec())
}

/// Runs `cases` of `strategy` against one emulator. `send` returns the status of each response.
fn never_5xx<S: Strategy>(strategy: &S, cases: u32, send: &impl AsyncFn(&Azure, S::Value) -> u16) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let azure = runtime.block_on(Azure::start());
    let lifted = ["reads", "writes", "deletes", "groupCreates", "groupDeletes"]
        .map(|name| (name, Value::Null));
    let lifted = Value::from_iter(lifted);
    runtime.block_on(azure.admin(Method::PUT, "limits", lifted));
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(strategy, |value| {
        azure.advance(7.0);
        let status = runtime.block_on(send(&azure, value));
        prop_assert!(status < 500, "answered {status}");
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("{failure}");
    }
    assert_eq!(
        runtime.block_on(azure.get(&group("alive"))).status,
        404,
        "it still answers"
    );
}

#[test]
fn arbitrary_bodies_are_accepted_or_refused() {
    never_5xx(
        &prop_oneof![any_json(), nearly_right()],
        3000,
        &async |azure, value| azure.put("one", &value).await.status.as_u16(),
    );
}

#[test]
fn arbitrary_paths_queries_and_bodies_are_answered() {
    never_5xx(
        &(any_method(), any_path(), any_json()),
        3000,
        &async |azure, (method, path, body)| {
            // The HTTP client does not send invalid paths.
            match azure.try_call(method, &path, Some(&body)).await {
                Ok(answer) => answer.status.as_u16(),
                Err(error) if error.is_builder() => 0,
                Err(error) => panic!("{path}: {error:?}"),
            }
        },
    );
}
