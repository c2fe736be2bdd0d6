//! Pods that depend on the configurations of their images, with a real registry.

use burstpool::aci::image::RegistryHostGuard;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod};
use serde_json::{Value, json};

use crate::node_in_process::{Burst, Setup, container, is_running, told};
use crate::support::registry::{Tenant, host};

/// A node that reads images from the registry of this tenant, and from `more` hosts.
async fn start(hint: &str, registry: &Tenant, more: &[&str]) -> Burst {
    let own = [registry.host(), host(&registry.addresses.storage)];
    let guard = RegistryHostGuard::for_tests(own.into_iter().chain(more.iter().copied()), []);
    let images = registry.reader_with(guard, std::time::Duration::from_secs(20));
    let setup = Setup {
        images: Some(images),
        ..Setup::default()
    };
    Burst::with(hint, setup).await
}

fn image(registry: &Tenant, suffix: &str) -> String {
    format!("{}/{}{suffix}", registry.host(), registry.repository())
}

/// Fields of the pod's one container.
fn with(fields: &Value) -> Value {
    json!({"spec": {"containers": [fields]}})
}

/// The first container in the body of the one group.
fn body(burst: &Burst) -> Value {
    let bodies = burst.bodies();
    let (_, body) = bodies.iter().next().expect("a group");
    let body = serde_json::to_value(body).expect("JSON");
    body["properties"]["containers"][0]["properties"].clone()
}

fn waiting(pod: Option<&Pod>) -> Option<ContainerStateWaiting> {
    let status = pod?.status.as_ref()?;
    let containers = status.container_statuses.as_ref()?;
    containers.first()?.state.clone()?.waiting
}

fn waits_for(pod: Option<&Pod>, reason: &str) -> bool {
    waiting(pod).is_some_and(|waiting| waiting.reason.as_deref() == Some(reason))
}

fn message(pod: &Pod) -> String {
    let waiting = waiting(Some(pod)).expect("it waits");
    waiting.message.unwrap_or_default()
}

#[tokio::test]
async fn args_follow_the_images_entrypoint_and_the_image_is_pinned() {
    let registry = Tenant::new("node-args").await.expect("a registry");
    let config = json!({"Entrypoint": ["/entry"], "User": "65532:65532", "WorkingDir": "/srv"});
    let pushed = registry.push_image("1", ("linux", "amd64"), config).await;
    let burst = start("image-args", &registry, &[]).await;
    let image = image(&registry, ":1");
    let fields = json!({
        "image": image, "args": ["--port", "$(PORT)"], "env": [{"name": "PORT", "value": "80"}],
        "workingDir": "/srv", "securityContext": {"runAsNonRoot": true},
    });
    burst.create("web", &with(&fields)).await;
    burst.until("web", "the pod to run", is_running).await;
    let body = body(&burst);
    let pinned = image.replace(":1", &format!("@{}", pushed.digest));
    assert_eq!(body["image"], pinned);
    assert_eq!(body["command"], json!(["/entry", "--port", "80"]));
    assert_eq!(
        body["securityContext"],
        json!({"runAsUser": 65532, "runAsGroup": 65532})
    );
    let pod = burst.read("web").await;
    let status = container(&pod);
    assert_eq!((&status.image, &status.image_id), (&image, &pinned));
    // Another pod of the same image costs no further request.
    let requests = registry.requests().await.len();
    burst.create("again", &with(&fields)).await;
    burst.until("again", "the pod to run", is_running).await;
    assert_eq!(registry.requests().await.len(), requests);
}

#[tokio::test]
async fn an_image_of_root_does_not_run_where_run_as_non_root_is_set() {
    let registry = Tenant::new("node-root").await.expect("a registry");
    let config = json!({"Entrypoint": ["/entry"]});
    registry.push_image("1", ("linux", "amd64"), config).await;
    let burst = start("image-root", &registry, &[]).await;
    let fields =
        json!({"image": image(&registry, ":1"), "securityContext": {"runAsNonRoot": true}});
    burst.create("web", &with(&fields)).await;
    burst
        .until("web", "the pod to wait", |pod| {
            waits_for(pod, "CreateContainerConfigError")
        })
        .await;
    let said = message(&burst.read("web").await);
    assert!(
        said.contains("container has runAsNonRoot and image will run as root"),
        "{said}"
    );
    assert_eq!(burst.puts(), 0);
}

#[tokio::test]
async fn an_image_for_another_platform_is_not_sent_to_azure() {
    let registry = Tenant::new("node-arm64").await.expect("a registry");
    registry.push("1", "/app").await;
    let burst = start("image-arm64", &registry, &[]).await;
    let fields = json!({"image": image(&registry, ":arm64"), "args": ["a"]});
    burst.create("web", &with(&fields)).await;
    burst
        .until("web", "the pod to wait", |pod| {
            waits_for(pod, "ErrImagePull")
        })
        .await;
    let said = message(&burst.read("web").await);
    assert!(said.contains("its platforms: linux/arm64"), "{said}");
    assert_eq!(burst.puts(), 0);
}

#[tokio::test]
async fn a_pod_waits_for_a_registry_that_is_down_and_other_pods_do_not() {
    let registry = Tenant::new("node-down").await.expect("a registry");
    registry.push("1", "/app").await;
    registry.set(json!({"hang": "/v2/"})).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let down = closed.local_addr().expect("an address").to_string();
    drop(closed);
    let burst = start("image-down", &registry, &[&down]).await;
    let down = format!("{down}/app");
    burst
        .create("down", &with(&json!({"image": down, "args": ["a"]})))
        .await;
    let hangs = json!({"image": image(&registry, ":1"), "args": ["a"]});
    burst.create("hangs", &with(&hangs)).await;
    burst.create("plain", &json!({})).await;
    burst.until("plain", "the pod to run", is_running).await;
    burst
        .until("down", "the pod to wait", |pod| {
            waits_for(pod, "ErrImagePull") || waits_for(pod, "ImagePullBackOff")
        })
        .await;
    let events = told(&burst, "down", "Failed").await;
    let expected = format!("Failed to pull image \"{down}\": the registry ");
    assert!(events[0].starts_with(&expected), "{events:?}");
    // A pod whose read hangs can be deleted.
    burst.delete("hangs", None).await;
    burst.until_gone("hangs").await;
    burst
        .until("down", "the pod to wait longer", |pod| {
            waits_for(pod, "ImagePullBackOff")
        })
        .await;
    let said = message(&burst.read("down").await);
    assert!(said.starts_with("Back-off pulling image"), "{said}");
}

#[tokio::test]
async fn a_pod_runs_once_its_registry_answers_again() {
    let registry = Tenant::new("node-repaired").await.expect("a registry");
    registry.push("1", "/app").await;
    registry.set(json!({"status": 503})).await;
    let burst = start("image-repaired", &registry, &[]).await;
    let fields = json!({"image": image(&registry, ":1"), "args": ["a"]});
    burst.create("web", &with(&fields)).await;
    burst
        .until("web", "the pod to wait", |pod| {
            waits_for(pod, "ErrImagePull")
        })
        .await;
    registry.set(json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    assert_eq!(body(&burst)["command"], json!(["/app", "a"]));
}
