//! Ten facts about the service that influence burstpool's design, with one test each.

use reqwest::Method;
use serde_json::json;

use crate::azure::{Azure, body, body_with, group, location, within};

#[tokio::test]
async fn fact_1_a_list_has_no_instance_view_and_a_get_has() {
    let azure = Azure::start().await;
    let read = azure.running("one", &body(&[])).await;
    assert_eq!(read["properties"]["instanceView"]["state"], "Running");
    let container = &read["properties"]["containers"][0]["properties"];
    assert_eq!(
        container["instanceView"]["currentState"]["state"],
        "Running"
    );
    for list in [
        group("").replace("containerGroups/", "containerGroups"),
        whole_subscription(),
    ] {
        let listed = azure.get(&list).await.body;
        assert_eq!(listed["value"][0]["name"], "one");
        assert_eq!(
            listed["value"][0]["properties"]["provisioningState"],
            "Succeeded"
        );
        assert!(!listed.to_string().contains("instanceView"), "{listed}");
    }
}

#[tokio::test]
async fn fact_2_secrets_are_never_echoed() {
    let azure = Azure::start().await;
    let mut body = body(&[]);
    let properties = &mut body["properties"];
    properties["containers"][0]["properties"]["environmentVariables"] =
        json!([{"name": "PASSWORD", "secureValue": "HIDE"}]);
    properties["imageRegistryCredentials"] =
        json!([{"server": "r.example", "username": "u", "password": "HIDE"}]);
    properties["volumes"] = json!([
        {"name": "secrets", "secret": {"key": "SElERQ=="}},
        {"name": "files", "azureFile": {"shareName": "s", "storageAccountName": "a", "storageAccountKey": "HIDE"}},
    ]);
    properties["diagnostics"] =
        json!({"logAnalytics": {"workspaceId": "w", "workspaceKey": "HIDE"}});
    let created = azure.put("one", &body).await;
    assert_eq!(created.status, 201, "{}", created.body);
    azure.advance(60.0);
    let read = azure.get(&group("one")).await.body;
    let listed = azure.get(&whole_subscription()).await.body;
    for answer in [created.body, read.clone(), listed] {
        assert!(!answer.to_string().contains("HIDE") && !answer.to_string().contains("SElERQ"));
    }
    let properties = &read["properties"];
    assert_eq!(
        properties["volumes"][0],
        json!({"name": "secrets", "secret": {}})
    );
    assert_eq!(
        properties["diagnostics"]["logAnalytics"],
        json!({"workspaceId": "w"})
    );
    let variables = &properties["containers"][0]["properties"]["environmentVariables"];
    assert_eq!(variables, &json!([{"name": "PASSWORD"}]));
}

#[tokio::test]
async fn fact_3_a_put_on_a_group_updates_it_and_any_change_restarts_all_containers() {
    let azure = Azure::start().await;
    assert_eq!(azure.put("one", &body(&[])).await.status, 201);
    let early = azure.put("one", &body(&[])).await;
    assert_eq!(early.error(), (409, "ContainerGroupTransitioning"));
    azure.advance(60.0);
    let before = azure.get(&group("one")).await.body;

    let same = azure.put("one", &body(&[])).await;
    assert_eq!(same.status, 200);
    assert_eq!(
        started(&azure.get(&group("one")).await.body),
        started(&before)
    );

    let changed = azure.put("one", &body(&[("NEW", "1")])).await;
    assert_eq!(
        (
            changed.status.as_u16(),
            changed.header("azure-asyncoperation").is_empty()
        ),
        (200, false)
    );
    assert_eq!(changed.body["properties"]["provisioningState"], "Pending");
    azure.advance(60.0);
    assert_ne!(
        started(&azure.get(&group("one")).await.body),
        started(&before)
    );

    for (path, value) in [
        ("/properties/osType", json!("Windows")),
        ("/properties/restartPolicy", json!("Never")),
        (
            "/properties/containers/0/properties/resources/requests/cpu",
            json!(2.0),
        ),
        (
            "/properties/containers/0/properties/resources/requests/memoryInGB",
            json!(2.0),
        ),
    ] {
        let mut other = body(&[]);
        *other.pointer_mut(path).unwrap() = value;
        let refused = azure.put("one", &other).await;
        assert_eq!(
            refused.error(),
            (400, "InvalidContainerGroupUpdate"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn fact_4_a_put_answers_201_pending_with_an_operation_and_no_retry_after() {
    let azure = Azure::start().await;
    let created = azure.put("one", &body(&[])).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.body["properties"]["provisioningState"], "Pending");
    assert!(created.header("retry-after").is_empty() && created.header("location").is_empty());
    let operation = created.header("azure-asyncoperation");
    assert!(operation.starts_with(azure.emulator.url()), "{operation}");
    assert_eq!(azure.get(operation).await.body["status"], "Pending");
    azure.advance(60.0);
    let ended = azure.get(operation).await.body;
    assert_eq!(ended["status"], "Succeeded");
    assert_eq!(ended["id"], created.body["id"]);
}

#[tokio::test]
async fn fact_5_a_failed_group_keeps_trying_and_stays_billable_until_stop_or_delete() {
    let azure = Azure::start().await;
    azure
        .admin(Method::PUT, "capacity/westus", json!({"failure": "async"}))
        .await;
    assert_eq!(azure.put("one", &body(&[])).await.status, 201);
    azure.advance(26.0);
    let failed = azure.get(&group("one")).await.body;
    assert_eq!(failed["properties"]["provisioningState"], "Failed");
    assert_eq!(cores(&azure).await, 1);
    azure.advance(130.0);
    let event = &azure.get(&group("one")).await.body["properties"]["instanceView"]["events"][0];
    assert_eq!(
        (&event["name"], &event["count"]),
        (&json!("InsufficientCapacity."), &json!(3))
    );

    azure
        .admin(Method::DELETE, "capacity/westus", json!({}))
        .await;
    azure.advance(120.0);
    let at_last = azure.get(&group("one")).await.body;
    assert_eq!(at_last["properties"]["instanceView"]["state"], "Running");
    azure
        .call(Method::POST, &within("one", "/stop", "2023-05-01"), None)
        .await;
    azure.advance(10.0);
    assert_eq!(cores(&azure).await, 0);
}

#[tokio::test]
async fn fact_6_the_platform_may_restart_a_failed_container_although_the_policy_is_never() {
    let azure = Azure::start().await;
    let fails = [
        ("ACI_EMULATOR_EXIT_AFTER", "5s"),
        ("ACI_EMULATOR_EXIT_CODE", "2"),
        ("ACI_EMULATOR_PLATFORM_RESTARTS", "1"),
    ];
    azure.put("one", &body_with("Never", &fails)).await;
    azure.advance(60.0);
    let read = azure.get(&group("one")).await.body;
    let view = &read["properties"]["containers"][0]["properties"]["instanceView"];
    assert_eq!(view["restartCount"], 1);
    assert_eq!(view["previousState"]["exitCode"], 2);
    assert_eq!(view["currentState"]["state"], "Terminated");
    assert_eq!(read["properties"]["instanceView"]["state"], "Failed");

    let ends_well = [
        ("ACI_EMULATOR_EXIT_AFTER", "5s"),
        ("ACI_EMULATOR_PLATFORM_RESTARTS", "1"),
    ];
    azure.put("two", &body_with("Never", &ends_well)).await;
    azure.advance(60.0);
    let read = azure.get(&group("two")).await.body;
    let view = &read["properties"]["containers"][0]["properties"]["instanceView"];
    assert_eq!(
        (&view["restartCount"], &view["currentState"]["exitCode"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(read["properties"]["instanceView"]["state"], "Succeeded");
}

#[tokio::test]
async fn fact_7_a_lack_of_capacity_shows_at_once_or_late() {
    let azure = Azure::start().await;
    let mut body = body(&[]);
    body["properties"]["containers"][0]["properties"]["resources"]["requests"] =
        json!({"cpu": 1, "memoryInGB": 2});
    azure
        .admin(
            Method::PUT,
            "capacity/westus",
            json!({"failure": "sync", "count": 1}),
        )
        .await;
    let refused = azure.put("one", &body).await;
    assert_eq!(refused.error(), (409, "ServiceUnavailable"));
    let message = "The requested resource is not available in the location 'westus' at this moment. \
                   Please retry with a different resource request or in another location. Resource \
                   requested: '1' CPU '2' GB memory 'Linux' OS";
    assert_eq!(refused.body["error"]["message"], message);

    azure
        .admin(
            Method::PUT,
            "capacity/westus",
            json!({"failure": "async", "count": 1}),
        )
        .await;
    let accepted = azure.put("one", &body).await;
    assert_eq!(accepted.status, 201);
    let operation = accepted.header("azure-asyncoperation");
    azure.advance(24.0);
    assert_eq!(azure.get(operation).await.body["status"], "Pending");
    azure.advance(2.0);
    let failed = azure.get(operation).await.body;
    assert_eq!(failed["status"], "Failed");
    assert_eq!(
        failed["properties"]["events"][0]["name"],
        "InsufficientCapacity."
    );
    assert_eq!(failed["properties"]["events"][0]["message"], message);
    assert_eq!(
        azure.put("two", &body).await.status,
        201,
        "the count is used up"
    );
}

#[tokio::test]
async fn fact_8_creates_and_deletes_have_budgets_of_their_own() {
    let azure = Azure::start().await;
    azure
        .admin(
            Method::PUT,
            "quotas",
            json!({"ContainerGroups": 500, "StandardCores": 500}),
        )
        .await;
    let first = azure.put("g-0", &body(&[])).await;
    let left = |answer: &crate::azure::Answer| {
        ["pt5m", "pt1h"].map(|window| {
            let name = format!("x-ms-ratelimit-remaining-subscription-resource-requests-{window}");
            answer.header(&name).to_owned()
        })
    };
    assert_eq!(left(&first), ["99", "299"]);
    for n in 1..100 {
        assert_eq!(azure.put(&format!("g-{n}"), &body(&[])).await.status, 201);
        azure.advance(0.1);
    }
    let refused = azure.put("g-100", &body(&[])).await;
    assert_eq!(refused.error(), (429, "TooManyRequests"));
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((200..=300).contains(&wait), "{wait}");
    azure.advance(60.0);
    let deleted = azure.call(Method::DELETE, &group("g-0"), None).await;
    assert_eq!(
        (deleted.status.as_u16(), left(&deleted)),
        (200, ["99", "299"].map(str::to_owned))
    );
    azure.advance(f64::from(u32::try_from(wait).unwrap()));
    assert_eq!(left(&azure.put("g-100", &body(&[])).await), ["99", "199"]);
}

#[tokio::test]
async fn fact_9_exec_gives_a_websocket_and_a_password_even_when_the_container_has_ended() {
    let azure = Azure::start().await;
    azure
        .put(
            "one",
            &body_with("Never", &[("ACI_EMULATOR_EXIT_AFTER", "5s")]),
        )
        .await;
    azure.advance(60.0);
    let path = within("one", "/containers/web/exec", "2023-05-01");
    let size = json!({"command": "/bin/sh", "terminalSize": {"rows": 30, "cols": 120}});
    let answer = azure.call(Method::POST, &path, Some(&size)).await;
    assert_eq!(answer.status, 200);
    let uri = answer.body["webSocketUri"].as_str().expect("a URI");
    assert!(
        uri.starts_with("ws://127.0.0.1:") && uri.ends_with("?api-version=1.0&rows=30&cols=120"),
        "{uri}"
    );
    let password = answer.body["password"].as_str().expect("a password");
    assert!((24..=32).contains(&password.len()));
}

#[tokio::test]
async fn fact_10_every_version_from_2018_10_01_on_is_spoken_and_an_unknown_one_is_refused() {
    let azure = Azure::start().await;
    azure.put("one", &body(&[])).await;
    for version in burstpool::emulator::arm::version::VERSIONS {
        assert_eq!(
            azure.get(&within("one", "", version)).await.status,
            200,
            "{version}"
        );
    }
    for version in ["2017-08-01-preview", "2099-01-01", "x"] {
        let refused = azure.get(&within("one", "", version)).await;
        assert_eq!(
            refused.error(),
            (400, "NoRegisteredProviderFound"),
            "{version}"
        );
    }
    let without = azure.get(&within("one", "", "")).await;
    assert_eq!(without.error(), (400, "MissingApiVersionParameter"));
}

fn whole_subscription() -> String {
    let all = group("");
    let (subscription, rest) = all.split_once("/resourceGroups/").expect("a path");
    let (_, rest) = rest.split_once("/providers/").expect("a path");
    format!(
        "{subscription}/providers/{}",
        rest.replace("containerGroups/", "containerGroups")
    )
}

fn started(group: &serde_json::Value) -> String {
    group["properties"]["containers"][0]["properties"]["instanceView"]["currentState"]["startTime"]
        .to_string()
}

async fn cores(azure: &Azure) -> u64 {
    let usages = azure.get(&location("usages")).await.body;
    let all = usages["value"].as_array().expect("a list");
    let cores = all
        .iter()
        .find(|usage| usage["name"]["value"] == "StandardCores");
    cores.expect("StandardCores")["currentValue"]
        .as_u64()
        .expect("a number")
}
