//! Each right that the installation guide lists is needed, and only for its purpose.

use burstpool::aci::client::AciClient;
use burstpool::aci::error::Error;
use burstpool::aci::failure::FailureClass;
use burstpool::aci::rate_limiter::RateLimiter;
use reqwest::Method;
use serde_json::json;

use super::{client, scope};
use crate::azure::{Azure, body};

/// The actions of the role in the installation guide, including the optional one.
fn readme_actions() -> Vec<String> {
    let guide = include_str!("../../../config/README.md");
    let role = guide.split("\"Actions\": [").nth(1).expect("a role");
    let role = role.split(']').next().expect("its end");
    let actions = role.split('"').filter(|text| text.contains("Microsoft."));
    let mut actions: Vec<String> = actions.map(str::to_owned).collect();
    let (_, optional) = guide
        .split_once("optional:")
        .expect("those that it can do without");
    assert!(
        optional
            .contains("`Microsoft.ContainerInstance/locations/usages/read` on the subscription")
    );
    actions.push("Microsoft.ContainerInstance/locations/usages/read".to_owned());
    actions
}

/// Sends every request that the operator sends to Azure, and returns the result of each.
async fn ask_everything(
    client: &AciClient,
    round: usize,
) -> Vec<(&'static str, Result<(), Error>)> {
    let (scope, pace) = (scope(), RateLimiter::default());
    let mut inside = body(&[]);
    inside["properties"]["subnetIds"] = json!([{"id": "/subscriptions/s/resourceGroups/g/providers/\
        Microsoft.Network/virtualNetworks/n/subnets/a"}]);
    let (plain, inside_name) = (format!("plain-{round}"), format!("inside-{round}"));
    vec![
        ("read", client.get(&scope, "one").await.map(drop)),
        ("read", client.list(&scope, &pace).await.map(drop)),
        (
            "write",
            client.put(&scope, &plain, &body(&[])).await.map(drop),
        ),
        (
            "join",
            client.put(&scope, &inside_name, &inside).await.map(drop),
        ),
        (
            "logs",
            client
                .logs(&scope, "one", "web", None, false)
                .await
                .map(drop),
        ),
        (
            "exec",
            client
                .exec(&scope, "one", "web", "sh", (24, 80))
                .await
                .map(drop),
        ),
        ("stop", client.stop(&scope, "two").await),
        ("usages", client.usages(&scope, "westus").await.map(drop)),
        (
            "delete",
            client
                .delete(&scope, &format!("old-{round}"))
                .await
                .map(drop),
        ),
    ]
}

/// Which request of [`ask_everything`] needs this right.
fn request_that_needs(action: &str) -> &'static str {
    match action
        .rsplit_once("ContainerInstance/")
        .map_or(action, |(_, end)| end)
    {
        "containerGroups/read" => "read",
        "containerGroups/write" => "write",
        "containerGroups/delete" => "delete",
        "containerGroups/stop/action" => "stop",
        "containerGroups/containers/logs/read" => "logs",
        "containerGroups/containers/exec/action" => "exec",
        "locations/usages/read" => "usages",
        "Microsoft.Network/virtualNetworks/subnets/join/action" => "join",
        "Microsoft.Insights/metrics/read" => "metrics",
        other => unreachable!("a row without a test: {other}"),
    }
}

#[tokio::test]
async fn each_documented_right_is_needed_only_for_its_purpose_and_its_lack_is_reported() {
    let azure = Azure::start().await;
    azure
        .admin(
            Method::PUT,
            "limits",
            json!({"reads": null, "writes": null, "deletes": null, "groupCreates": null, "groupDeletes": null}),
        )
        .await;
    let (client, _file) = client(&azure);
    azure.running("one", &body(&[])).await;
    for (round, action) in readme_actions().iter().enumerate() {
        for name in ["two".to_owned(), format!("old-{round}")] {
            azure.put(&name, &body(&[])).await;
        }
        azure.advance(60.0);
        azure
            .admin(Method::PUT, "rights", json!({"withheld": [action]}))
            .await;
        let lacking = request_that_needs(action);
        for (what, became) in ask_everything(&client, round).await {
            // Putting a group into a subnet also needs the right to write groups.
            let lacks = what == lacking || (what == "join" && lacking == "write");
            match became {
                Ok(()) => assert!(!lacks, "{what} without {action}"),
                Err(error) => {
                    assert!(lacks, "{what} without {action}: {}", error.error_chain());
                    assert_eq!(error.verdict().class, FailureClass::AzureConfig, "{action}");
                    assert!(
                        error.error_chain().contains(action.as_str()),
                        "{}",
                        error.error_chain()
                    );
                }
            }
        }
        azure
            .admin(Method::PUT, "rights", json!({"withheld": []}))
            .await;
        azure
            .call(Method::DELETE, &crate::azure::group("two"), None)
            .await;
        azure.advance(600.0);
    }
}
