//! Replays every recorded exchange with the real service and compares status, important headers, and
//! the shape of the body.

use std::time::Duration;

use burstpool::emulator::EmulatorOptions;
use reqwest::Method;
use serde_json::{Value, json};

use crate::azure::{Answer, Azure};

/// Headers whose values must equal the recorded ones.
const EQUAL: [&str; 7] = [
    "cache-control",
    "content-type",
    "expires",
    "pragma",
    "strict-transport-security",
    "x-content-type-options",
    "x-ms-failure-cause",
];
/// Headers that must be present if the recording has them.
const PRESENT: [&str; 3] = [
    "azure-asyncoperation",
    "x-ms-ratelimit-remaining-subscription-writes",
    "x-ms-ratelimit-remaining-subscription-resource-requests-pt5m",
];

fn recordings() -> Vec<Value> {
    let text = include_str!("../fixtures/aci/recordings/azure-cli-recordings.json");
    let all: Value = serde_json::from_str(text).expect("the recordings are JSON");
    all["exchanges"].as_array().expect("a list").clone()
}

fn recorded(name: &str) -> Value {
    recordings()
        .into_iter()
        .find(|exchange| exchange["name"] == name)
        .expect("a recording")
}

/// Sends the recorded request, to `path` if the recorded path is not known in advance.
async fn replay(azure: &Azure, exchange: &Value, path: Option<&str>) -> Answer {
    let request = &exchange["request"];
    let method: Method = request["method"]
        .as_str()
        .expect("a method")
        .parse()
        .expect("a method");
    let path = path.unwrap_or(request["path"].as_str().expect("a path"));
    let body = request.get("body").filter(|body| !body.is_null());
    azure.call(method, path, body).await
}

/// Compares a response with the recorded one.
fn same(exchange: &Value, answer: &Answer) {
    let (name, response) = (&exchange["name"], &exchange["response"]);
    assert_eq!(
        u64::from(answer.status.as_u16()),
        response["status"],
        "{name}: {}",
        answer.body
    );
    let headers = response["headers"].as_object().expect("headers");
    for header in EQUAL.iter().filter(|header| headers.contains_key(**header)) {
        assert_eq!(answer.header(header), headers[*header], "{name}: {header}");
    }
    for header in PRESENT
        .iter()
        .filter(|header| headers.contains_key(**header))
    {
        assert!(
            !answer.header(header).is_empty(),
            "{name}: {header} is missing"
        );
    }
    assert!(
        answer.header("retry-after").is_empty(),
        "{name}: none was ever recorded"
    );
    same_shape(&name.to_string(), &response["body"], &answer.body);
}

/// Compares the properties of two bodies and their types, and the values unless they differ each time
/// (times, ids, addresses, passwords).
fn same_shape(at: &str, expected: &Value, actual: &Value) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                let mut keys: Vec<String> = object.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(expected), keys(actual), "properties at {at}");
            for (key, value) in expected {
                same_shape(&format!("{at}.{key}"), value, &actual[key]);
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            assert_eq!(expected.len(), actual.len(), "{at}: {actual:?}");
            for (n, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                same_shape(&format!("{at}[{n}]"), expected, actual);
            }
        }
        (Value::String(expected), Value::String(actual)) if is_of_one_occasion(at) => {
            assert_eq!(expected.is_empty(), actual.is_empty(), "{at}");
        }
        _ => assert_eq!(expected, actual, "{at}"),
    }
}

fn is_of_one_occasion(at: &str) -> bool {
    let field = at.rsplit('.').next().unwrap_or_default();
    field.ends_with("Time")
        || field.ends_with("Timestamp")
        || ["ip", "password", "webSocketUri", "message"].contains(&field)
}

#[tokio::test]
async fn creating_running_and_failing_with_a_public_address_is_as_recorded() {
    let azure = Azure::start().await;
    // The recorded command is not a valid shell program: it ended with 2 after 4.35 s.
    let script = json!({"exitCode": 2, "exitAfter": "4s 353ms"});
    let ends =
        json!({"group": "clicontainer000002", "container": "clicontainer000002", "script": script});
    azure.admin(Method::PUT, "scripts", ends).await;
    let create = recorded("create_public_201");
    let created = replay(&azure, &create, None).await;
    same(&create, &created);
    let operation = created.header("azure-asyncoperation").to_owned();
    same_after(&azure, "operation_pending_200", &operation, 1.0).await;
    // The service showed an operation's events only after a while, the emulator shows them at once.
    azure.advance(12.0);
    let read = azure.get(&operation).await.body;
    same_shape(
        "operation",
        &recorded("operation_pending_200")["response"]["body"]["id"],
        &read["id"],
    );
    azure.advance(10.0);
    let get = recorded("get_terminated_with_events_200");
    same(&get, &replay(&azure, &get, None).await);
}

#[tokio::test]
async fn an_operation_that_succeeded_is_as_recorded() {
    let azure = Azure::start().await;
    let created = replay(&azure, &recorded("create_vnet_201"), None).await;
    let operation = created.header("azure-asyncoperation").to_owned();
    same_after(&azure, "operation_vnet_succeeded_200", &operation, 61.0).await;
}

#[tokio::test]
async fn a_spot_group_is_as_recorded() {
    let azure = Azure::start().await;
    let create = recorded("create_spot_201");
    same(&create, &replay(&azure, &create, None).await);
    azure.advance(34.0);
    let get = recorded("get_running_spot_200");
    same(&get, &replay(&azure, &get, None).await);
}

#[tokio::test]
async fn a_group_in_a_subnet_is_as_recorded() {
    let azure = Azure::start().await;
    let create = recorded("create_vnet_201");
    let created = replay(&azure, &create, None).await;
    same(&create, &created);
    assert!(
        created.body["properties"].get("ipAddress").is_none(),
        "not in the answer to the PUT"
    );
    azure.advance(61.0);
    let get = recorded("get_running_vnet_200");
    same(&get, &replay(&azure, &get, None).await);
}

#[tokio::test]
async fn a_list_is_as_recorded() {
    let azure = Azure::start().await;
    let list = recorded("list_has_no_instanceView_200");
    let (path, query) = list["request"]["path"]
        .as_str()
        .unwrap()
        .split_once('?')
        .unwrap();
    // The group that the recording's client had created, reconstructed from the list.
    let mut body = list["response"]["body"]["value"][0].clone();
    body["properties"]["volumes"][0]["secret"] = json!({"key": "dmFsdWU="});
    body["properties"]["ipAddress"]
        .as_object_mut()
        .unwrap()
        .remove("fqdn");
    let created = azure
        .call(
            Method::PUT,
            &format!("{path}/clicontainer000002?{query}"),
            Some(&body),
        )
        .await;
    assert_eq!(created.status, 201, "{}", created.body);
    azure.advance(60.0);
    same(&list, &replay(&azure, &list, None).await);
}

#[tokio::test]
async fn exec_is_as_recorded() {
    let azure = Azure::start().await;
    replay(&azure, &recorded("create_public_201"), None).await;
    azure.advance(60.0);
    let exec = recorded("exec_200");
    let answer = replay(&azure, &exec, None).await;
    same(&exec, &answer);
    let uri = answer.body["webSocketUri"].as_str().unwrap();
    assert!(
        uri.contains("/execstream/sessionId/") && uri.ends_with("?api-version=1.0&rows=24&cols=80")
    );
}

#[tokio::test]
async fn a_refusal_by_the_gateway_is_as_recorded() {
    let azure = Azure::start().await;
    let refused = recorded("create_linked_authorization_failed_403");
    // The emulator gives every client all rights, so a fault injects the recorded 403.
    let error = &refused["response"]["body"]["error"];
    let fault = json!({"error": {"status": 403, "code": error["code"], "message": error["message"], "gateway": true}});
    azure
        .admin(
            Method::POST,
            "faults",
            json!({"operation": "ContainerGroups_CreateOrUpdate", "fault": fault}),
        )
        .await;
    same(&refused, &replay(&azure, &refused, None).await);
}

#[tokio::test]
async fn an_operation_that_failed_for_capacity_is_as_reported() {
    let azure = Azure::start().await;
    let text =
        include_str!("../fixtures/aci/recordings/operation-failed-insufficient-capacity.json");
    let reported: Value = serde_json::from_str(text).unwrap();
    azure
        .admin(Method::PUT, "capacity/uksouth", json!({"failure": "async"}))
        .await;
    let mut create = recorded("create_vnet_201");
    create["request"]["body"]["location"] = "uksouth".into();
    create["request"]["body"]["properties"]["containers"][0]["properties"]["resources"]["requests"]
        ["memoryInGB"] = 2.into();
    let created = replay(&azure, &create, None).await;
    azure.advance(26.0);
    let failed = azure.get(created.header("azure-asyncoperation")).await;
    assert_eq!(u64::from(failed.status.as_u16()), reported["status"]);
    same_shape("failed", &reported["body"], &failed.body);
    let message = |body: &Value| body["properties"]["events"][0]["message"].clone();
    assert_eq!(message(&failed.body), message(&reported["body"]));
}

#[tokio::test]
async fn starts_take_as_long_as_recorded() {
    for (name, started) in [
        ("create_public_201", 15.6),
        ("create_spot_201", 19.0),
        ("create_vnet_201", 42.8),
    ] {
        let azure = Azure::start().await;
        let create = recorded(name);
        replay(&azure, &create, None).await;
        let path = create["request"]["path"].as_str().unwrap();
        azure.advance(started - 0.2);
        assert_eq!(
            azure.get(path).await.body["properties"]["provisioningState"],
            "Creating",
            "{name}"
        );
        azure.advance(0.4);
        assert_eq!(
            azure.get(path).await.body["properties"]["provisioningState"],
            "Succeeded",
            "{name}"
        );
    }
    let options = EmulatorOptions {
        start_latency: Some(Duration::from_secs(3)),
        ..EmulatorOptions::default()
    };
    let azure = Azure::with(options).await;
    azure.emulator.shared().clock.pause();
    let create = recorded("create_vnet_201");
    replay(&azure, &create, None).await;
    azure.advance(3.01);
    let path = create["request"]["path"].as_str().unwrap();
    assert_eq!(
        azure.get(path).await.body["properties"]["provisioningState"],
        "Succeeded"
    );
}

#[tokio::test]
async fn every_recording_is_replayed_by_a_test() {
    let replayed = [
        "create_public_201",
        "operation_pending_200",
        "operation_succeeded_noevents_200",
        "get_terminated_exit2_group_failed_200",
        "operation_succeeded_events_200",
        "get_terminated_with_events_200",
        "create_spot_201",
        "get_running_spot_200",
        "create_vnet_201",
        "operation_vnet_succeeded_200",
        "get_running_vnet_200",
        "list_has_no_instanceView_200",
        "exec_200",
        "create_linked_authorization_failed_403",
    ];
    let all: Vec<Value> = recordings()
        .iter()
        .map(|exchange| exchange["name"].clone())
        .collect();
    assert_eq!(all, replayed);
}

/// Two recordings show an operation and a group without the events that earlier and later recordings
/// show. The service may leave them out, so the test allows this one difference.
#[tokio::test]
async fn what_was_recorded_without_events_is_the_same_but_for_them() {
    let azure = Azure::start().await;
    let script = json!({"exitCode": 2, "exitAfter": "4s 353ms"});
    let ends =
        json!({"group": "clicontainer000002", "container": "clicontainer000002", "script": script});
    azure.admin(Method::PUT, "scripts", ends).await;
    let created = replay(&azure, &recorded("create_public_201"), None).await;
    azure.advance(35.0);
    for (name, path) in [
        (
            "operation_succeeded_noevents_200",
            created.header("azure-asyncoperation"),
        ),
        (
            "operation_succeeded_events_200",
            created.header("azure-asyncoperation"),
        ),
        ("get_terminated_exit2_group_failed_200", ""),
    ] {
        let mut exchange = recorded(name);
        let mut answer = replay(
            &azure,
            &exchange,
            Some(path).filter(|path| !path.is_empty()),
        )
        .await;
        without_events(&mut exchange["response"]["body"]);
        without_events(&mut answer.body);
        same(&exchange, &answer);
    }
}

fn without_events(body: &mut Value) {
    body["properties"].as_object_mut().unwrap().remove("events");
    if let Some(view) = body.pointer_mut("/properties/containers/0/properties/instanceView") {
        view.as_object_mut().unwrap().remove("events");
    }
}

async fn same_after(azure: &Azure, name: &str, path: &str, seconds: f64) {
    azure.advance(seconds);
    let exchange = recorded(name);
    same(&exchange, &replay(azure, &exchange, Some(path)).await);
}
