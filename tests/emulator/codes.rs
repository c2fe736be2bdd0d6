//! What the service refuses, and with which code.

use burstpool::emulator::group::validate::ASSUMED_CODES;
use reqwest::Method;
use serde_json::{Value, json};

use crate::azure::{Azure, RESOURCE_GROUP, SUBSCRIPTION, body, body_with, group, within};

/// A body with one thing changed: a JSON pointer and the new value (null takes the field away).
fn with(changes: &[(&str, Value)]) -> Value {
    let mut body = body(&[]);
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        let parent = body.pointer_mut(parent).expect("the parent is there");
        match (parent, value) {
            (Value::Object(object), Value::Null) => drop(object.remove(field)),
            (Value::Object(object), value) => drop(object.insert(field.to_owned(), value.clone())),
            (parent, _) => panic!("{pointer}: {parent} is no object"),
        }
    }
    body
}

const CONTAINER: &str = "/properties/containers/0/properties";

fn container(field: &str, value: Value) -> Value {
    with(&[(&format!("{CONTAINER}/{field}"), value)])
}

fn requests(cpu: f64, memory: f64) -> Value {
    container(
        "resources",
        json!({"requests": {"cpu": cpu, "memoryInGB": memory}}),
    )
}

fn volumes(volumes: Value, mounts: Value) -> Value {
    with(&[
        ("/properties/volumes", volumes),
        (&format!("{CONTAINER}/volumeMounts"), mounts),
    ])
}

fn address(address: Value) -> Value {
    with(&[("/properties/ipAddress", address)])
}

fn probe(probe: Value) -> Value {
    container("livenessProbe", probe)
}

fn subnet() -> Value {
    let network = "Microsoft.Network/virtualNetworks/v/subnets/s";
    json!([{"id": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/{network}")}])
}

fn spot(changes: &[(&str, Value)]) -> Value {
    let mut all = vec![("/properties/priority", json!("Spot"))];
    all.extend(changes.iter().cloned());
    with(&all)
}

/// Bodies that the service refuses, and its codes for them.
fn refused_by_the_service() -> Vec<(Value, &'static str)> {
    let gpu = json!({"requests": {"cpu": 1, "memoryInGB": 1, "gpu": {"count": 1, "sku": "P100"}}});
    let over =
        json!({"requests": {"cpu": 1, "memoryInGB": 1}, "limits": {"cpu": 2, "memoryInGB": 1}});
    let gpu_pointer = format!("{CONTAINER}/resources");
    let public = json!({"type": "Public", "ports": [{"port": 80}]});
    vec![
        (with(&[("/location", Value::Null)]), "LocationRequired"),
        (with(&[("/location", json!(" "))]), "LocationRequired"),
        (
            with(&[("/properties", Value::Null)]),
            "InvalidRequestContent",
        ),
        (
            with(&[("/properties", json!("x"))]),
            "InvalidRequestContent",
        ),
        (with(&[("/tags", json!({"a": 1}))]), "InvalidRequestContent"),
        (
            with(&[("/tags", json!({"a/b": "1"}))]),
            "InvalidTagNameCharacters",
        ),
        (
            with(&[("/tags", json!({"a": "x".repeat(257)}))]),
            "InvalidTagValueLength",
        ),
        (
            with(&[("/properties/osType", Value::Null)]),
            "InvalidOsType",
        ),
        (
            with(&[("/properties/osType", json!("Plan9"))]),
            "InvalidOsType",
        ),
        (
            with(&[("/properties/priority", json!("Urgent"))]),
            "PriorityNotSpecified",
        ),
        (
            container("resources", over),
            "ContainerLimitGreaterThanContainerGroupTotalRequest",
        ),
        (
            container("resources", gpu.clone()),
            "ContainerGroupQuotaReached",
        ),
        (requests(31.0, 240.0), "ContainerGroupQuotaReached"),
        (
            spot(&[("/properties/ipAddress", public.clone())]),
            "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        ),
        (
            spot(&[("/properties/subnetIds", subnet())]),
            "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        ),
        (
            spot(&[("/properties/sku", json!("Confidential"))]),
            "SpotPriorityContainerGroupNotSupportedInSku",
        ),
        (
            spot(&[(&gpu_pointer, gpu.clone())]),
            "SpotPriorityContainerGroupWithGPUResourcesNotSupported",
        ),
        (
            with(&[
                ("/properties/sku", json!("Confidential")),
                ("/properties/osType", json!("Windows")),
            ]),
            "ConfidentialContainerGroupSkuIsNotSupported",
        ),
        (
            with(&[(
                "/properties/imageRegistryCredentials",
                json!([{"server": "r", "identity": "/x"}]),
            )]),
            "InvalidImageRegistryIdentity",
        ),
        (
            with(&[("/properties/subnetIds", json!([{"id": "v/s"}]))]),
            "LinkedInvalidPropertyId",
        ),
        (
            with(&[(
                "/properties/subnetIds",
                json!([{"id": "/subscriptions/s/resourceGroups/g"}]),
            )]),
            "VirtualNetworkNotFound",
        ),
        (
            with(&[(
                "/properties/containerGroupProfile",
                json!({"id": "/subscriptions/s/x/y/p", "revision": 1}),
            )]),
            "ResourceNotFound",
        ),
    ]
}

/// Bodies that break documented limits whose codes nobody has published.
#[allow(clippy::too_many_lines, reason = "a table")]
fn refused_with_a_code_of_ours() -> Vec<(Value, &'static str)> {
    let twice = |list: &str, element: Value| with(&[(list, json!([element, element]))]);
    let web = body(&[])["properties"]["containers"][0].clone();
    let empty_dir = json!([{"name": "empty", "emptyDir": {}}]);
    let mount = |path: &str| json!([{"name": "empty", "mountPath": path}]);
    let limits = |cpu, memory| json!({"requests": {"cpu": 1, "memoryInGB": 1}, "limits": {"cpu": cpu, "memoryInGB": memory}});
    let port = |port: i64| address(json!({"type": "Public", "ports": [{"port": port}]}));
    let variable = |variables| container("environmentVariables", variables);
    vec![
        (
            with(&[("/properties/containers", json!([]))]),
            "ContainerGroupMissingContainers",
        ),
        (
            with(&[("/properties/containers", Value::Null)]),
            "ContainerGroupMissingContainers",
        ),
        (
            with(&[("/properties/containers", json!(vec![web.clone(); 61]))]),
            "ContainerGroupTooManyContainers",
        ),
        (
            twice("/properties/containers", web),
            "DuplicateContainerName",
        ),
        (
            with(&[("/properties/containers", json!([{"name": "Web"}]))]),
            "InvalidContainerName",
        ),
        (container("image", Value::Null), "MissingContainerImage"),
        (container("image", json!(" ")), "MissingContainerImage"),
        (
            variable(json!([{"name": "a-b", "value": ""}])),
            "InvalidEnvironmentVariable",
        ),
        (
            variable(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])),
            "InvalidEnvironmentVariable",
        ),
        (
            variable(json!([{"name": "A", "value": "1", "secureValue": "2"}])),
            "InvalidEnvironmentVariable",
        ),
        (container("resources", json!({})), "InvalidResourceRequest"),
        (requests(1.005, 1.0), "InvalidResourceRequest"),
        (requests(1.0, 1.25), "InvalidResourceRequest"),
        (requests(0.0, 1.0), "InvalidResourceRequest"),
        (
            container("resources", limits(0.5, 1.0)),
            "ContainerLimitLessThanRequest",
        ),
        (requests(32.0, 1.0), "ContainerGroupResourceRequestTooLarge"),
        (
            requests(1.0, 240.1),
            "ContainerGroupResourceRequestTooLarge",
        ),
        (
            spot(&[(
                &format!("{CONTAINER}/resources"),
                json!({"requests": {"cpu": 5, "memoryInGB": 1}}),
            )]),
            "ContainerGroupResourceRequestTooLarge",
        ),
        (requests(0.99, 1.0), "ContainerGroupResourceRequestTooSmall"),
        (requests(1.0, 0.9), "ContainerGroupResourceRequestTooSmall"),
        (port(0), "InvalidPort"),
        (port(65536), "InvalidPort"),
        (port(22), "ReservedPort"),
        (port(1026), "ReservedPort"),
        (port(19390), "ReservedPort"),
        (port(49152), "ReservedPort"),
        (
            container("ports", json!([{"port": 80}, {"port": 80}])),
            "DuplicatePort",
        ),
        (
            address(
                json!({"type": "Public", "ports": [{"port": 80}, {"port": 80, "protocol": "tcp"}]}),
            ),
            "DuplicatePort",
        ),
        (
            address(json!({"type": "Public", "ports": []})),
            "InvalidIpAddress",
        ),
        (
            address(json!({"type": "Private", "ports": [{"port": 80}]})),
            "InvalidIpAddress",
        ),
        (
            address(
                json!({"type": "Public", "ports": (1..=6).map(|p| json!({"port": p})).collect::<Vec<_>>()}),
            ),
            "InvalidIpAddress",
        ),
        (
            address(json!({"type": "Public", "ports": [{"port": 80}], "dnsNameLabel": "abc"})),
            "InvalidIpAddress",
        ),
        (
            with(&[(
                "/properties/dnsConfig",
                json!({"nameServers": ["a.example"]}),
            )]),
            "InvalidDnsConfig",
        ),
        (
            volumes(json!([{"name": "four", "emptyDir": {}}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(json!([{"name": "no--such", "emptyDir": {}}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(json!([{"name": "empty"}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(
                json!([{"name": "empty", "emptyDir": {}, "secret": {}}]),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (
            volumes(json!([{"name": "empty", "secret": {"k": "?"}}]), json!([])),
            "InvalidVolume",
        ),
        (
            volumes(
                json!([{"name": "empty", "secret": {"../k": ""}}]),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (
            volumes(
                json!([{"name": "files", "azureFile": {"shareName": "s"}}]),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (
            twice("/properties/volumes", empty_dir[0].clone()),
            "InvalidVolume",
        ),
        (
            volumes(
                json!(
                    (0..21)
                        .map(|n| json!({"name": format!("volume{n}"), "emptyDir": {}}))
                        .collect::<Vec<_>>()
                ),
                json!([]),
            ),
            "InvalidVolume",
        ),
        (volumes(json!([]), mount("/a")), "InvalidVolumeMount"),
        (volumes(empty_dir.clone(), mount("a")), "InvalidVolumeMount"),
        (
            volumes(empty_dir.clone(), json!([mount("/a")[0], mount("/a")[0]])),
            "InvalidVolumeMount",
        ),
        (probe(json!({})), "InvalidProbe"),
        (probe(json!({"tcpSocket": {"port": 80}})), "InvalidProbe"),
        (probe(json!({"grpc": {"port": 80}})), "InvalidProbe"),
        (probe(json!({"exec": {"command": []}})), "InvalidProbe"),
        (probe(json!({"httpGet": {"port": 0}})), "InvalidProbe"),
        (
            probe(json!({"httpGet": {"port": 80, "scheme": "ftp"}})),
            "InvalidProbe",
        ),
        (
            probe(json!({"httpGet": {"port": 80}, "periodSeconds": 0})),
            "InvalidProbe",
        ),
        (
            with(&[("/properties/restartPolicy", json!("Sometimes"))]),
            "InvalidRestartPolicy",
        ),
        (with(&[("/properties/sku", json!("Gold"))]), "InvalidSku"),
    ]
}

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
