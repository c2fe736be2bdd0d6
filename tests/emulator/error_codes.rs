//! Requests that the service rejects, and its error codes.

#[path = "error_codes/bodies.rs"]
mod bodies;

use burstpool::emulator::group::validate::ASSUMED_CODES;
use reqwest::Method;
use serde_json::{Value, json};

use self::bodies::{
    CONTAINER, address, container, refused_by_the_service, refused_with_a_code_of_ours, requests,
    spot, subnet, volumes, with,
};
use crate::azure::{Azure, body, body_with, group, location, within};

#[tokio::test]
async fn a_wrong_body_is_refused_with_the_services_code() {
    let azure = Azure::start().await;
    azure
        .admin(
            Method::PUT,
            "limits",
            json!({"reads": null, "writes": null, "groupCreates": null}),
        )
        .await;
    azure
        .admin(Method::PUT, "quotas", json!({"StandardCores": 30}))
        .await;
    for (body, code) in refused_by_the_service() {
        let refused = azure.put("one", &body).await;
        assert_eq!(refused.error().1, code, "{body} {}", refused.body);
        assert!(refused.status.is_client_error(), "{code}");
        assert!(!ASSUMED_CODES.contains(&code), "{code} is not ours");
    }
    assert_eq!(
        azure.get(&group("one")).await.error(),
        (404, "ResourceNotFound")
    );
}

#[tokio::test]
async fn a_body_beyond_a_documented_limit_is_refused_and_every_code_of_ours_is_produced() {
    let azure = Azure::start().await;
    azure
        .admin(
            Method::PUT,
            "limits",
            json!({"reads": null, "writes": null, "groupCreates": null}),
        )
        .await;
    let mut seen = Vec::new();
    for (body, code) in refused_with_a_code_of_ours() {
        let refused = azure.put("one", &body).await;
        assert_eq!(refused.error(), (400, code), "{body} {}", refused.body);
        seen.push(code);
    }
    for code in ASSUMED_CODES {
        assert!(
            seen.contains(&code),
            "{code} is declared, and no body is refused with it"
        );
    }
}

#[tokio::test]
async fn the_edges_of_the_limits_are_accepted() {
    let azure = Azure::start().await;
    azure
        .admin(Method::PUT, "quotas", json!({"StandardCores": 500}))
        .await;
    let two = json!([
        {"name": "a", "properties": {"image": "x", "resources": {"requests": {"cpu": 0.01, "memoryInGB": 0.1}}}},
        {"name": "b", "properties": {"image": "x", "resources": {
            "requests": {"cpu": 0.99, "memoryInGB": 0.9}, "limits": {"cpu": 1.0, "memoryInGB": 1.0}}}},
    ]);
    let accepted = [
        requests(1.0, 1.0),
        requests(31.0, 240.0),
        requests(1.07, 1.1),
        with(&[("/properties/containers", two)]),
        spot(&[(
            &format!("{CONTAINER}/resources"),
            json!({"requests": {"cpu": 4, "memoryInGB": 16}}),
        )]),
        address(
            json!({"type": "Public", "ports": [{"port": 65535}, {"port": 53}, {"port": 53, "protocol": "UDP"}]}),
        ),
        volumes(
            json!([{"name": "empty", "emptyDir": {}}]),
            json!([{"name": "empty", "mountPath": "/a"}]),
        ),
        with(&[
            ("/properties/subnetIds", subnet()),
            (
                "/properties/ipAddress",
                json!({"type": "Private", "ports": [{"port": 80}]}),
            ),
        ]),
    ];
    for (n, body) in accepted.iter().enumerate() {
        let created = azure.put(&format!("g-{n}"), body).await;
        assert_eq!(created.status, 201, "{body} {}", created.body);
    }
    let longest = "a".repeat(63);
    assert_eq!(azure.put(&longest, &requests(1.0, 1.0)).await.status, 201);
    for name in ["Upper", "-a", "a-", "a_b", &"a".repeat(64)] {
        let refused = azure.put(name, &requests(1.0, 1.0)).await;
        assert_eq!(
            refused.error(),
            (400, "InvalidContainerGroupName"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_full_quota_is_refused_in_the_services_words_and_freed_by_delete_and_by_the_end() {
    let azure = Azure::start().await;
    azure
        .admin(Method::PUT, "quotas", json!({"StandardCores": 2}))
        .await;
    assert_eq!(
        azure
            .put(
                "a",
                &body_with("Never", &[("ACI_EMULATOR_EXIT_AFTER", "1s")])
            )
            .await
            .status,
        201
    );
    assert_eq!(azure.put("b", &body(&[])).await.status, 201);
    let refused = azure.put("c", &requests(1.5, 1.0)).await;
    assert_eq!(refused.error(), (400, "ContainerGroupQuotaReached"));
    let message = "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota \
                   'StandardCores' exceeded in region 'westus'. Limit: '2', Usage: '2' Requested: '2'.";
    assert_eq!(refused.body["error"]["message"], message);
    azure.advance(60.0);
    assert_eq!(
        azure.put("c", &requests(1.0, 1.0)).await.status,
        201,
        "a has ended"
    );
    assert_eq!(
        azure.put("d", &requests(1.0, 1.0)).await.error().1,
        "ContainerGroupQuotaReached"
    );
    azure.call(Method::DELETE, &group("b"), None).await;
    assert_eq!(azure.put("d", &requests(1.0, 1.0)).await.status, 201);
}

#[tokio::test]
async fn an_existing_name_in_another_region_is_refused() {
    let azure = Azure::start().await;
    azure.running("one", &body(&[])).await;
    let refused = azure
        .put("one", &with(&[("/location", json!("East US"))]))
        .await;
    assert_eq!(refused.error(), (409, "InvalidResourceLocation"));
    let spelled = azure
        .put("one", &with(&[("/location", json!("West US"))]))
        .await;
    assert_eq!(spelled.status, 200, "the same region, spelled otherwise");
}

#[tokio::test]
async fn an_image_of_no_registry_is_not_accessible() {
    let azure = Azure::start().await;
    let refused = azure
        .put("one", &container("image", json!("registry.invalid/a:1")))
        .await;
    assert_eq!(refused.error(), (400, "InaccessibleImage"));
    let message = "The image 'registry.invalid/a:1' in container group 'one' is not accessible. Please \
                   check the image and registry credential.";
    assert_eq!(refused.body["error"]["message"], message);
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let azure = Azure::start().await;
    azure.running("one", &body(&[])).await;
    for path in [
        "two",
        "two/containers/web/logs",
        "one/containers/other/logs",
    ] {
        let path = within(path, "", "2023-05-01");
        let missing = azure.get(&path).await;
        assert_eq!(missing.error(), (404, "ResourceNotFound"), "{path}");
        assert_eq!(missing.header("x-ms-failure-cause"), "gateway");
    }
    let other = azure
        .get(&group("one").replace("containerGroups", "sandboxes"))
        .await;
    assert_eq!(other.error(), (404, "InvalidResourceType"));
    let method = azure.call(Method::POST, &group("one"), None).await;
    assert_eq!(method.error(), (405, "MethodNotAllowed"));
}

#[tokio::test]
async fn a_request_without_a_bearer_token_is_refused() {
    let azure = Azure::start().await;
    let url = format!("{}{}", azure.emulator.url(), group("one"));
    for header in ["", "Basic eDp5", "Bearer ", "Bearer"] {
        let mut request = reqwest::Client::new().get(&url);
        if !header.is_empty() {
            request = request.header("authorization", header);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{header:?}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "AuthenticationFailed");
    }
}

#[tokio::test]
async fn logs_and_exec_before_the_start_say_that_it_is_not_ready() {
    let azure = Azure::start().await;
    azure.put("one", &body(&[])).await;
    let logs = within("one", "/containers/web/logs", "2023-05-01");
    let exec = within("one", "/containers/web/exec", "2023-05-01");
    for seconds in [0.0, 4.5] {
        azure.advance(seconds);
        assert_eq!(
            azure.get(&logs).await.error().1,
            "ContainerGroupDeploymentNotReady"
        );
        let early = azure
            .call(Method::POST, &exec, Some(&json!({"command": "/bin/sh"})))
            .await;
        assert_eq!(early.error().1, "ContainerGroupDeploymentNotReady");
    }
    azure.advance(60.0);
    assert_eq!(azure.get(&logs).await.status, 200);
    let empty = azure.call(Method::POST, &exec, Some(&json!({}))).await;
    assert_eq!(empty.error(), (400, "InvalidRequestContent"));
}

#[tokio::test]
async fn a_body_that_is_too_large_or_no_json_is_refused() {
    let azure = Azure::start().await;
    let client = reqwest::Client::new();
    let url = format!("{}{}", azure.emulator.url(), group("one"));
    for (body, status, code) in [
        (String::new(), 400, "InvalidRequestContent"),
        ("{".to_owned(), 400, "InvalidRequestContent"),
        ("[]".to_owned(), 400, "InvalidRequestContent"),
        ("x".repeat((4 << 20) + 1), 413, "RequestContentTooLarge"),
    ] {
        let response = client
            .put(&url)
            .bearer_auth("x")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(
            response.json::<Value>().await.unwrap()["error"]["code"],
            code
        );
    }
}

#[tokio::test]
async fn a_group_counts_whole_cores_and_at_least_one() {
    let azure = Azure::start().await;
    azure
        .admin(Method::PUT, "quotas", json!({"StandardCores": 4}))
        .await;
    for (name, cores) in [("a", 1.0), ("b", 1.2)] {
        assert_eq!(azure.put(name, &requests(cores, 1.0)).await.status, 201);
    }
    let refused = azure.put("c", &requests(1.1, 1.0)).await;
    assert_eq!(refused.error(), (400, "ContainerGroupQuotaReached"));
    let message = refused.body["error"]["message"].as_str().expect("words");
    assert!(
        message.ends_with("Limit: '4', Usage: '3' Requested: '2'."),
        "{message}"
    );
    assert_eq!(azure.put("c", &requests(1.0, 1.0)).await.status, 201);
}

#[tokio::test]
async fn a_right_that_is_withheld_is_refused_and_no_other() {
    let azure = Azure::start().await;
    azure.running("one", &body(&[])).await;
    let usages = location("usages");
    let withhold = async |actions: serde_json::Value| {
        azure
            .admin(Method::PUT, "rights", json!({"withheld": actions}))
            .await;
    };
    withhold(json!(["Microsoft.ContainerInstance/locations/usages/read"])).await;
    let refused = azure.get(&usages).await;
    assert_eq!(refused.error(), (403, "AuthorizationFailed"));
    assert_eq!(azure.get(&group("one")).await.status, 200);
    withhold(json!(["microsoft.containerinstance/containergroups/WRITE"])).await;
    assert_eq!(azure.get(&usages).await.status, 200);
    let refused = azure.put("two", &body(&[])).await;
    assert_eq!(refused.error(), (403, "AuthorizationFailed"));
    withhold(json!([
        "Microsoft.Network/virtualNetworks/subnets/join/action"
    ]))
    .await;
    assert_eq!(azure.put("two", &body(&[])).await.status, 201);
    let subnet =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n/subnets/a";
    let inside = with(&[("/properties/subnetIds", json!([{"id": subnet}]))]);
    let refused = azure.put("three", &inside).await;
    assert_eq!(refused.error(), (403, "LinkedAuthorizationFailed"));
    withhold(json!([])).await;
    assert_eq!(azure.put("three", &inside).await.status, 201);
}
