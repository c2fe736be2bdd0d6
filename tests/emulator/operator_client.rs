//! The operator's own client against the emulator.

mod rights;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use burstpool::aci::client::{
    AciClient, ClientSettings, CloudEndpoints, Credential, GroupDeletion, GroupScope, http_client,
};
use burstpool::aci::error::Error;
use burstpool::aci::failure::FailureClass;
use burstpool::aci::rate_limiter::RateLimiter;
use burstpool::emulator::{EmulatorOptions, TlsOptions};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::json;

use crate::azure::{Azure, RESOURCE_GROUP, SUBSCRIPTION, body};

fn scope() -> GroupScope {
    GroupScope {
        subscription: SUBSCRIPTION.to_owned(),
        resource_group: RESOURCE_GROUP.to_owned(),
    }
}

/// The secret in the first volume of the emulator's first group.
fn kept_secret(azure: &Azure) -> String {
    let store = azure.emulator.shared().store();
    let group = store.groups.values().next().unwrap();
    let volumes = group.body.properties.as_ref().unwrap().volumes();
    volumes[0].secret.as_ref().unwrap()["key"].clone()
}

/// A client with a token from a file, and the file.
fn client(azure: &Azure) -> (AciClient, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "SECRET-TOKEN\n").unwrap();
    let cloud = CloudEndpoints::default().with_arm(azure.emulator.url().parse().unwrap());
    let settings = ClientSettings {
        cloud: cloud.clone(),
        extra_ca: Vec::new(),
    };
    let credential = Credential::File(file.path().to_owned());
    (
        AciClient::new(&cloud, credential, http_client(&settings).unwrap()),
        file,
    )
}

/// Reads the logs of the group `one`, and starts a command in it.
async fn assert_logs_and_session(client: &AciClient) {
    assert_eq!(
        client
            .logs(&scope(), "one", "web", Some(5), false)
            .await
            .unwrap(),
        "hello\n"
    );
    let session = client
        .exec(&scope(), "one", "web", "/bin/sh", (30, 120))
        .await
        .unwrap();
    assert!(
        session.web_socket_uri.ends_with("rows=30&cols=120"),
        "{}",
        session.web_socket_uri
    );
}

/// Deletes the group `one`, which runs, twice, and `four`, which is being created.
async fn assert_deletions(client: &AciClient) {
    assert_eq!(
        client.delete(&scope(), "one").await.unwrap(),
        GroupDeletion::Deleted
    );
    assert_eq!(
        client.delete(&scope(), "one").await.unwrap(),
        GroupDeletion::NotFound,
        "there is none"
    );
    assert_eq!(
        client.delete(&scope(), "four").await.unwrap(),
        GroupDeletion::Started
    );
    assert!(
        client
            .get(&scope(), "one")
            .await
            .unwrap_err()
            .verdict()
            .class
            == FailureClass::NotFound
    );
}

#[tokio::test]
async fn it_creates_reads_lists_and_deletes_and_keeps_secret_volumes() {
    let azure = Azure::with(EmulatorOptions {
        page_size: 2,
        ..EmulatorOptions::default()
    })
    .await;
    azure.emulator.shared().clock.pause();
    let (client, _file) = client(&azure);
    let mut with_secret = body(&[("ACI_EMULATOR_LOG", "hello")]);
    with_secret["properties"]["volumes"] =
        json!([{"name": "secret", "secret": {"key": "dmFsdWU="}}]);
    for name in ["one", "three", "two"] {
        let created = client.put(&scope(), name, &with_secret).await.unwrap();
        assert_eq!(created["properties"]["provisioningState"], "Pending");
    }
    assert_eq!(
        kept_secret(&azure),
        "dmFsdWU=",
        "the crate's own model would lose it"
    );
    azure.advance(60.0);
    let read = client.get(&scope(), "one").await.unwrap();
    assert_eq!(read["properties"]["instanceView"]["state"], "Running");
    let listed = client
        .list(&scope(), &RateLimiter::default())
        .await
        .unwrap();
    let names = listed.groups.iter().map(|group| group.name.as_deref());
    let names: Vec<_> = names.flatten().collect();
    assert_eq!(names, ["one", "three", "two"]);
    assert_eq!((listed.page_count, listed.unreadable_count), (2, 0));
    assert_logs_and_session(&client).await;
    let usages = client.usages(&scope(), "westus").await.unwrap();
    let cores = usages
        .iter()
        .find(|usage| usage.name == "StandardCores")
        .unwrap();
    assert_eq!((cores.used, cores.limit), (3, 100));
    client.put(&scope(), "four", &with_secret).await.unwrap();
    assert_deletions(&client).await;
    client.stop(&scope(), "two").await.unwrap();
}

#[tokio::test]
async fn all_containers_of_a_group_are_measured_however_many_there_are() {
    let azure = Azure::start().await;
    azure.emulator.shared().clock.pause();
    let (client, _file) = client(&azure);
    let mut twelve = body(&[]);
    let one = twelve["properties"]["containers"][0].clone();
    let names: Vec<String> = (0..12).map(|number| format!("c{number:02}")).collect();
    let containers = names.iter().map(|name| {
        let mut container = one.clone();
        container["name"] = json!(name);
        container["properties"]["resources"]["requests"] = json!({"cpu": 0.1, "memoryInGB": 0.1});
        container
    });
    twelve["properties"]["containers"] = containers.collect();
    client.put(&scope(), "many", &twelve).await.unwrap();
    let since = azure.emulator.shared().clock.now();
    azure.advance(600.0);
    let until = azure.emulator.shared().clock.now();
    let known = client
        .container_usage(&scope(), "many", (since, until))
        .await
        .unwrap();
    let known: Vec<String> = known.into_keys().collect();
    assert_eq!(known, names);
}

#[tokio::test]
async fn a_refusal_keeps_azures_message_and_differs_from_a_lost_answer() {
    let azure = Azure::start().await;
    let (client, _file) = client(&azure);
    let refused = client
        .put(&scope(), "Bad_Name", &body(&[]))
        .await
        .unwrap_err();
    let failure = refused.failure().expect("Azure answered");
    assert_eq!(
        (failure.status, failure.body.code.as_str()),
        (400, "InvalidContainerGroupName")
    );
    assert!(
        refused
            .to_string()
            .starts_with("creating container group Bad_Name: InvalidContainerGroupName The")
    );
    let fault =
        json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": "loseAnswer"});
    azure.admin(Method::POST, "faults", fault).await;
    let lost = client.put(&scope(), "one", &body(&[])).await.unwrap_err();
    assert!(matches!(lost, Error::NoAnswer { .. }), "{lost:?}");
    assert!(
        client.get(&scope(), "one").await.is_ok(),
        "it was done all the same"
    );
}

#[tokio::test]
async fn after_a_429_the_same_class_waits_as_long_as_azure_said_and_others_go_on() {
    let azure = Azure::start().await;
    let (client, _file) = client(&azure);
    let throttle = json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1,
        "fault": {"error": {"status": 429, "retryAfter": 3600}}});
    azure.admin(Method::POST, "faults", throttle).await;
    let first = client.put(&scope(), "one", &body(&[])).await.unwrap_err();
    assert_eq!(
        first.failure().unwrap().retry_after,
        Some(Duration::from_secs(3600))
    );
    let second = client.put(&scope(), "one", &body(&[])).await.unwrap_err();
    assert!(
        matches!(second, Error::Waiting { wait, .. } if wait > Duration::from_secs(3500)),
        "{second:?}"
    );
    assert!(
        client
            .get(&scope(), "one")
            .await
            .unwrap_err()
            .verdict()
            .class
            == FailureClass::NotFound,
        "reads go on, nothing was sent"
    );
}

#[tokio::test]
async fn a_missing_or_replaced_token_is_noticed_at_the_next_request() {
    let azure = Azure::start().await;
    let (client, file) = client(&azure);
    assert!(client.list(&scope(), &RateLimiter::default()).await.is_ok());
    std::fs::write(file.path(), "").unwrap();
    let error = client
        .list(&scope(), &RateLimiter::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Credential { .. }), "{error:?}");
    assert!(
        error.error_chain().contains("is empty"),
        "{}",
        error.error_chain()
    );
    std::fs::write(file.path(), "another").unwrap();
    assert!(client.list(&scope(), &RateLimiter::default()).await.is_ok());
}

#[tokio::test]
async fn it_logs_in_with_a_client_secret_over_tls() {
    let azure = Azure::with(EmulatorOptions {
        tls: Some(TlsOptions::default()),
        ..EmulatorOptions::default()
    })
    .await;
    let url = azure.emulator.url();
    let ca = std::fs::read(azure.emulator.ca_file().unwrap()).unwrap();
    let cloud = CloudEndpoints::default()
        .with_arm(url.parse().unwrap())
        .with_authority(url);
    let http = http_client(&ClientSettings {
        cloud: cloud.clone(),
        extra_ca: ca,
    })
    .unwrap();
    let environment = |name: &str| {
        let value = match name {
            "AZURE_TENANT_ID" => "11111111-1111-1111-1111-111111111111",
            "AZURE_CLIENT_ID" => "22222222-2222-2222-2222-222222222222",
            "AZURE_CLIENT_SECRET" => "any",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let credential = Credential::from_environment(environment, &cloud, &http).unwrap();
    assert_eq!(format!("{credential:?}"), "ClientSecret");
    let client = AciClient::new(&cloud, credential, http);
    let listed = client
        .list(&scope(), &RateLimiter::default())
        .await
        .unwrap();
    assert!(listed.groups.is_empty());
}

/// A buffer that collects the log.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The only test that reads logs, because it needs a subscriber for the whole process: one for its
/// thread would miss what other threads logged first.
#[tokio::test]
async fn no_log_at_any_level_shows_a_token_or_a_secret() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("there is no other");
    let azure = Azure::start().await;
    let (client, _file) = client(&azure);
    let mut secret = body(&[]);
    secret["properties"]["containers"][0]["properties"]["environmentVariables"] =
        json!([{"name": "PASSWORD", "secureValue": "SECRET-VALUE"}]);
    client.put(&scope(), "one", &secret).await.unwrap();
    client.put(&scope(), "Bad_Name", &secret).await.unwrap_err();
    client
        .list(&scope(), &RateLimiter::default())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&kept.0.lock()).into_owned();
    assert!(text.contains("the following request"), "{text}");
    assert!(
        !text.contains("SECRET-TOKEN") && !text.contains("SECRET-VALUE"),
        "{text}"
    );
}
