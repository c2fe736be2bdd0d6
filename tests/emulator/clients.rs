//! Azure clients of others, for which the emulator must be indistinguishable from the service.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::auth::{AccessToken, Secret, TokenCredential};
use azure_mgmt_containerinstance::package_preview_2024_05 as aci;
use burstpool::emulator::{EmulatorOptions, TlsOptions};
use futures::{SinkExt as _, StreamExt as _};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use crate::azure::{Azure, RESOURCE_GROUP, SUBSCRIPTION};
use crate::optional::skipped;

#[derive(Debug)]
struct AnyToken;

#[async_trait::async_trait]
impl TokenCredential for AnyToken {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
        let expires = time::OffsetDateTime::now_utc() + Duration::from_secs(3600);
        Ok(AccessToken {
            token: Secret::new("any"),
            expires_on: expires,
        })
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

/// The client of the crate that the operator uses, without its retries.
fn client(azure: &Azure) -> aci::Client {
    let endpoint = azure_core::Url::parse(azure.emulator.url()).expect("a URL");
    let builder = aci::Client::builder(Arc::new(AnyToken)).endpoint(endpoint);
    builder
        .retry(azure_core::RetryOptions::none())
        .build()
        .expect("a client")
}

fn model(log: &str) -> aci::models::ContainerGroup {
    use aci::models as m;
    let requests = m::ResourceRequests::new(1.0, 1.0);
    let mut properties = m::ContainerProperties::new();
    properties.image = Some("nginx".to_owned());
    properties.resources = Some(m::ResourceRequirements::new(requests));
    let mut variable = m::EnvironmentVariable::new("ACI_EMULATOR_LOG".to_owned());
    variable.value = Some(log.to_owned());
    properties.environment_variables = vec![variable];
    let container = m::Container::new("web".to_owned(), properties);
    let mut group = m::container_group_properties::Properties::new(vec![container]);
    group.os_type = Some(m::container_group_properties::properties::OsType::Linux);
    let mut whole = m::ContainerGroup::new(m::ContainerGroupProperties::new(group));
    whole.resource.location = Some("westus".to_owned());
    whole
}

/// The names of all groups of the subscription.
async fn names(client: &aci::Client) -> Vec<String> {
    let groups = client.container_groups_client();
    let mut pages = groups.list(SUBSCRIPTION).into_stream();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        names.extend(
            page.expect("a page")
                .value
                .into_iter()
                .filter_map(|group| group.resource.name),
        );
    }
    names
}

/// Reads the logs of the group `one`, and opens a shell in it.
async fn assert_logs_and_shell(client: &aci::Client) {
    let containers = client.containers_client();
    let logs = containers
        .list_logs(SUBSCRIPTION, RESOURCE_GROUP, "one", "web")
        .tail(5)
        .send()
        .await
        .expect("logs");
    assert_eq!(
        logs.into_body().await.expect("parsed").content.as_deref(),
        Some("hello\n")
    );

    let request = aci::models::ContainerExecRequest {
        command: Some("/bin/sh".to_owned()),
        terminal_size: None,
    };
    let session = containers
        .execute_command(SUBSCRIPTION, RESOURCE_GROUP, "one", "web", request)
        .send()
        .await;
    let session = session.expect("exec").into_body().await.expect("parsed");
    let (mut socket, _) = tokio_tungstenite::connect_async(session.web_socket_uri.expect("a URI"))
        .await
        .expect("connected");
    socket
        .send(Message::text(session.password.expect("a password")))
        .await
        .expect("sent");
    let prompt = socket.next().await.expect("a frame").expect("a frame");
    assert_eq!(prompt.into_text().expect("text").as_str(), "# ");
}

/// Deletes the group `one`, which is then gone.
async fn assert_deleted(client: &aci::Client) {
    let groups = client.container_groups_client();
    let deleted = groups
        .delete(SUBSCRIPTION, RESOURCE_GROUP, "one")
        .send()
        .await
        .expect("deleted");
    assert_eq!(u16::from(deleted.as_raw_response().status()), 200);
    let gone = groups
        .get(SUBSCRIPTION, RESOURCE_GROUP, "one")
        .send()
        .await
        .expect_err("gone");
    let azure_core::error::ErrorKind::HttpResponse { status, error_code } = gone.kind() else {
        panic!("{gone:?}")
    };
    assert_eq!(
        (u16::from(*status), error_code.as_deref()),
        (404, Some("ResourceNotFound"))
    );
}

#[tokio::test]
async fn the_rust_client_creates_reads_lists_runs_commands_and_deletes() {
    let azure = Azure::with(EmulatorOptions {
        page_size: 2,
        ..EmulatorOptions::default()
    })
    .await;
    azure.emulator.shared().clock.pause();
    let client = client(&azure);
    let groups = client.container_groups_client();
    for name in ["one", "three", "two"] {
        let created = groups
            .create_or_update(SUBSCRIPTION, RESOURCE_GROUP, name, model("hello"))
            .send()
            .await;
        let created = created.expect("created");
        assert_eq!(u16::from(created.as_raw_response().status()), 201);
    }
    azure.advance(60.0);
    let read = groups
        .get(SUBSCRIPTION, RESOURCE_GROUP, "one")
        .send()
        .await
        .expect("read")
        .into_body()
        .await
        .expect("parsed");
    let view = read
        .container_group_properties
        .properties
        .instance_view
        .expect("an instance view");
    assert_eq!(view.state.as_deref(), Some("Running"));

    assert_eq!(names(&client).await, ["one", "three", "two"]);
    assert_logs_and_shell(&client).await;
    let usages = client
        .location_client()
        .list_usage(SUBSCRIPTION, "westus")
        .send()
        .await
        .expect("usages");
    let usages = usages.into_body().await.expect("parsed").value;
    assert_eq!(usages[0].current_value, Some(3));

    assert_deleted(&client).await;
}

#[tokio::test]
async fn microsofts_python_client_logs_in_and_does_everything() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    if !python.exists() {
        return skipped(
            "the Python client",
            "`make python` installs it or says how to",
        );
    }
    let options = EmulatorOptions {
        tls: Some(TlsOptions::default()),
        speed: 100.0,
        page_size: 2,
        ..EmulatorOptions::default()
    };
    let emulator = burstpool::emulator::Emulator::start(options)
        .await
        .expect("the emulator starts");
    let url = emulator.url().replace("127.0.0.1", "localhost");
    let began = Instant::now();
    let child = Command::new(python)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/emulator/clients/azure_client.py"
        ))
        .args([
            url.as_ref(),
            emulator.ca_file().expect("it speaks TLS").as_os_str(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python starts");
    let output = tokio::time::timeout(Duration::from_secs(300), child.wait_with_output()).await;
    let output = output.expect("in time").expect("waited for");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "after {:?}:\n{text}",
        began.elapsed()
    );
    assert!(text.trim_end().ends_with("deleted"), "{text}");
    emulator.stop().await;
}
