//! The operations of the service and of ARM, one by one.

use burstpool::emulator::EmulatorOptions;
use reqwest::Method;
use serde_json::{Value, json};

use crate::azure::{Azure, RESOURCE_GROUP, SUBSCRIPTION, VERSION, body, group, location, within};

fn provider(rest: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/{rest}?api-version={VERSION}"
    )
}

#[tokio::test]
async fn paths_compare_without_regard_to_case_and_regions_without_blanks() {
    let azure = Azure::start().await;
    let mut spelled = body(&[]);
    spelled["location"] = "West US".into();
    azure.running("one", &spelled).await;
    let shouted = group("ONE")
        .replace("resourceGroups", "RESOURCEGROUPS")
        .replace("rg-test", "RG-Test");
    let read = azure.get(&shouted).await;
    assert_eq!(
        (
            read.status.as_u16(),
            &read.body["name"],
            &read.body["location"]
        ),
        (200, &json!("one"), &json!("westus"))
    );
    let usages = azure
        .get(&location("usages").replace("westus", "West%20US"))
        .await;
    assert_eq!(usages.body["value"][0]["currentValue"], 1);
}

#[tokio::test]
async fn tags_are_patched_without_a_restart() {
    let azure = Azure::start().await;
    let before = azure.running("one", &body(&[])).await;
    let tags = json!({"tags": {"team": "shop"}});
    let patched = azure.call(Method::PATCH, &group("one"), Some(&tags)).await;
    assert_eq!(
        (patched.status.as_u16(), &patched.body["tags"]),
        (200, &tags["tags"])
    );
    let after = azure.get(&group("one")).await.body;
    assert_eq!(
        (&after["tags"], &after["properties"]),
        (&tags["tags"], &before["properties"])
    );
    let missing = azure.call(Method::PATCH, &group("two"), Some(&tags)).await;
    assert_eq!(missing.error(), (404, "ResourceNotFound"));
}

#[tokio::test]
async fn a_list_is_paged_and_stays_right_while_groups_come_and_go() {
    let azure = Azure::with(EmulatorOptions {
        page_size: 2,
        ..EmulatorOptions::default()
    })
    .await;
    for n in 0..5 {
        azure.put(&format!("g-{n}"), &body(&[])).await;
    }
    let mut next = provider("Microsoft.ContainerInstance/containerGroups");
    let mut seen: Vec<String> = Vec::new();
    loop {
        let page = azure.get(&next).await.body;
        let names = page["value"].as_array().unwrap().iter();
        seen.extend(names.map(|group| group["name"].as_str().unwrap().to_owned()));
        azure
            .admin(
                Method::DELETE,
                &format!("groups/{SUBSCRIPTION}/{RESOURCE_GROUP}/g-2"),
                Value::Null,
            )
            .await;
        match page["nextLink"].as_str() {
            Some(link) => next = link.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["g-0", "g-1", "g-3", "g-4"]);
}

#[tokio::test]
async fn lists_keep_to_their_subscription_and_resource_group() {
    let azure = Azure::start().await;
    azure.put("one", &body(&[])).await;
    let elsewhere = group("two").replace(RESOURCE_GROUP, "rg-other");
    azure.call(Method::PUT, &elsewhere, Some(&body(&[]))).await;
    let foreign = group("three").replace(SUBSCRIPTION, "another");
    azure.call(Method::PUT, &foreign, Some(&body(&[]))).await;
    let count = async |path: &str| {
        azure.get(path).await.body["value"]
            .as_array()
            .unwrap()
            .len()
    };
    let listed = provider("Microsoft.ContainerInstance/containerGroups");
    assert_eq!(count(&listed).await, 1);
    assert_eq!(
        count(&listed.replace(&format!("/resourceGroups/{RESOURCE_GROUP}"), "")).await,
        2
    );
    assert_eq!(count(&listed.replace(RESOURCE_GROUP, "empty")).await, 0);
}

#[tokio::test]
async fn usages_count_groups_and_the_cores_that_they_hold() {
    let azure = Azure::start().await;
    let mut spot = body(&[]);
    spot["properties"]["priority"] = "Spot".into();
    let mut half = body(&[]);
    half["properties"]["containers"][0]["properties"]["resources"]["requests"]["cpu"] = 1.5.into();
    azure.put("spot", &spot).await;
    azure.put("half", &half).await;
    azure.put("one", &body(&[])).await;
    let used = async || {
        let usages = azure.get(&location("usages")).await.body;
        let all = usages["value"].as_array().unwrap().clone();
        ["ContainerGroups", "StandardCores", "StandardSpotCores"].map(|name| {
            let usage = all
                .iter()
                .find(|usage| usage["name"]["value"] == name)
                .unwrap();
            (
                usage["currentValue"].as_u64().unwrap(),
                usage["limit"].as_u64().unwrap(),
            )
        })
    };
    assert_eq!(used().await, [(3, 100), (3, 100), (1, 10)]);
    azure.advance(60.0);
    azure
        .call(Method::POST, &within("one", "/stop", VERSION), None)
        .await;
    azure.advance(10.0);
    assert_eq!(
        used().await,
        [(3, 100), (2, 100), (1, 10)],
        "a stopped group holds no cores"
    );
    azure.call(Method::DELETE, &group("half"), None).await;
    assert_eq!(used().await, [(2, 100), (0, 100), (1, 10)]);
}

#[tokio::test]
async fn a_regions_lists_and_the_providers_operations_have_their_shapes() {
    let azure = Azure::start().await;
    let images = azure.get(&location("cachedImages")).await.body;
    assert!(images["value"][0]["image"].is_string() && images["value"][0]["osType"].is_string());
    let capabilities = azure.get(&location("capabilities")).await.body;
    assert!(capabilities["value"][0]["capabilities"]["maxCpu"].is_number());
    let operations = azure
        .get(&format!(
            "/providers/Microsoft.ContainerInstance/operations?api-version={VERSION}"
        ))
        .await;
    assert!(operations.body["value"][0]["display"]["operation"].is_string());
    azure.put("one", &body(&[])).await;
    let endpoints = azure
        .get(&within(
            "one",
            "/outboundNetworkDependenciesEndpoints",
            VERSION,
        ))
        .await;
    assert_eq!(
        (endpoints.status.as_u16(), endpoints.body),
        (200, json!([]))
    );
}

#[tokio::test]
async fn newer_versions_also_say_where_the_result_will_be() {
    let azure = Azure::start().await;
    let path = within("one", "", "2025-09-01");
    let created = azure.call(Method::PUT, &path, Some(&body(&[]))).await;
    assert_eq!(
        (created.status.as_u16(), created.header("retry-after")),
        (201, "5")
    );
    let result = created.header("location").to_owned();
    assert_eq!(azure.get(&result).await.status, 202);
    azure.advance(60.0);
    assert_eq!(azure.get(&result).await.body["name"], "one");
}

#[tokio::test]
async fn a_resource_group_is_there_until_it_is_deleted_with_all_its_groups() {
    let azure = Azure::start().await;
    let path = format!(
        "/subscriptions/{SUBSCRIPTION}/resourcegroups/{RESOURCE_GROUP}?api-version=2024-11-01"
    );
    assert!(azure.get(&path).await.body["location"].is_string());
    let made = azure
        .call(
            Method::PUT,
            &path,
            Some(&json!({"location": "northeurope"})),
        )
        .await;
    assert_eq!(
        (made.status.as_u16(), &made.body["location"]),
        (201, &json!("northeurope"))
    );
    azure.put("one", &body(&[])).await;
    assert_eq!(azure.call(Method::DELETE, &path, None).await.status, 200);
    assert_eq!(azure.call(Method::HEAD, &path, None).await.status, 404);
    for refused in [
        azure.get(&path).await,
        azure.get(&group("one")).await,
        azure.put("one", &body(&[])).await,
    ] {
        assert_eq!(refused.error(), (404, "ResourceGroupNotFound"));
    }
    azure
        .call(
            Method::PUT,
            &path,
            Some(&json!({"location": "northeurope"})),
        )
        .await;
    assert_eq!(
        azure.get(&group("one")).await.error(),
        (404, "ResourceNotFound")
    );
}

#[tokio::test]
async fn subnets_are_delegated_and_can_be_put_read_and_deleted() {
    let azure = Azure::start().await;
    let path = provider("Microsoft.Network/virtualNetworks/v/subnets/s");
    let read = azure.get(&path).await.body;
    let service = &read["properties"]["delegations"][0]["properties"]["serviceName"];
    assert_eq!(service, "Microsoft.ContainerInstance/containerGroups");
    let own = json!({"properties": {"addressPrefix": "10.1.0.0/24", "delegations": []}});
    let put = azure.call(Method::PUT, &path, Some(&own)).await;
    assert_eq!(
        (
            put.status.as_u16(),
            &put.body["properties"]["addressPrefix"]
        ),
        (201, &json!("10.1.0.0/24"))
    );
    assert_eq!(azure.get(&path).await.body, put.body);

    let mut inside = body(&[]);
    inside["properties"]["subnetIds"] = json!([{"id": put.body["id"]}]);
    azure.put("one", &inside).await;
    let used = azure.call(Method::DELETE, &path, None).await;
    assert_eq!(used.error(), (400, "InUseSubnetCannotBeDeleted"));
    azure.admin(Method::POST, "reset", Value::Null).await;
    assert_eq!(azure.call(Method::DELETE, &path, None).await.status, 200);
    assert_eq!(azure.get(&path).await.error(), (404, "ResourceNotFound"));
    assert_eq!(
        azure.put("one", &inside).await.error(),
        (400, "VirtualNetworkNotFound")
    );
    let link = format!(
        "{}/providers/Microsoft.ContainerInstance/serviceAssociationLinks/default",
        path.split('?').next().unwrap()
    );
    let unlinked = azure
        .call(
            Method::DELETE,
            &format!("{link}?api-version={VERSION}"),
            None,
        )
        .await;
    assert_eq!(unlinked.status, 204);
}

#[tokio::test]
async fn clients_log_in_with_any_credential() {
    let azure = Azure::start().await;
    let url = azure.emulator.url();
    let client = reqwest::Client::new();
    let metadata: Value = client
        .get(format!("{url}/metadata/endpoints?api-version=2022-09-01"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(metadata["resourceManager"], url);
    let older: Value = client
        .get(format!("{url}/metadata/endpoints?api-version=2019-10-01"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(older[0], metadata, "older versions answer a list of clouds");
    let tenant = "11111111-1111-1111-1111-111111111111";
    let configuration: Value = client
        .get(format!(
            "{url}/{tenant}/v2.0/.well-known/openid-configuration"
        ))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let endpoint = configuration["token_endpoint"].as_str().unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "me"),
        ("client_secret", "any"),
    ];
    let token: Value = client
        .post(endpoint)
        .form(&form)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&token["token_type"], &token["expires_in"]),
        (&json!("Bearer"), &json!(3600))
    );
    assert_eq!(
        token["access_token"].as_str().unwrap().split('.').count(),
        3
    );
    let without = client.post(endpoint).send().await.unwrap();
    assert_eq!(without.status(), 400);
    let subscriptions = azure
        .get("/subscriptions?api-version=2022-12-01")
        .await
        .body;
    assert_eq!(subscriptions["value"][0]["tenantId"], tenant);
}

#[tokio::test]
async fn arms_buckets_count_down_and_refuse_with_retry_after() {
    let azure = Azure::start().await;
    let limits = json!({"reads": {"size": 2.0, "perSecond": 0.5}});
    azure.admin(Method::PUT, "limits", limits).await;
    let name = "x-ms-ratelimit-remaining-subscription-reads";
    assert_eq!(azure.get(&group("one")).await.status, 404);
    assert_eq!(azure.get(&location("usages")).await.header(name), "0");
    let refused = azure.get(&group("one")).await;
    assert_eq!(refused.error(), (429, "SubscriptionRequestsThrottled"));
    assert_eq!(refused.header("retry-after"), "2");
    azure.advance(2.0);
    assert_eq!(azure.get(&location("usages")).await.status, 200);
    assert_eq!(
        azure.put("one", &body(&[])).await.status,
        201,
        "writes have a bucket of their own"
    );
}
