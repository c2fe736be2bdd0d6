//! Changes of a running pod that ACI does not support: a resize in place, an ephemeral container.
//!
//! The operator says so in the pod's status, and leaves the group unchanged.

use std::process::Output;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::node_in_process::{Burst, is_running};
use crate::support::Cluster;

/// Runs kubectl in the test's namespace.
async fn kubectl(burst: &Burst, arguments: &[&str]) -> Output {
    let mut command = Command::from(Cluster::shared().await.kubectl());
    command
        .args(["-n", &burst.tenant.namespace])
        .args(arguments);
    command.output().await.expect("kubectl")
}

async fn ask_to_resize(burst: &Burst, spec: &Value) -> Output {
    let patch = json!({"spec": spec}).to_string();
    let resize = ["--subresource", "resize", "--patch", &patch];
    kubectl(burst, &[&["patch", "pod", "web"][..], &resize].concat()).await
}

async fn resize(burst: &Burst, spec: &Value) {
    let patched = ask_to_resize(burst, spec).await;
    assert!(patched.status.success(), "{patched:?}");
}

fn pending(pod: Option<&Pod>) -> Option<PodCondition> {
    let conditions = pod?.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "PodResizePending")
        .cloned()
}

fn is_infeasible(pod: Option<&Pod>) -> bool {
    pending(pod).is_some_and(|condition| {
        condition.status == "True" && condition.reason.as_deref() == Some("Infeasible")
    })
}

#[tokio::test]
async fn a_resize_in_place_is_infeasible_and_changes_nothing() {
    let burst = Burst::start("resize").await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    let cpu = |cpu: &str| json!({"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]});
    resize(&burst, &cpu("2")).await;
    burst
        .until("web", "the resize to be infeasible", is_infeasible)
        .await;
    let pod = burst.read("web").await;
    let message = pending(Some(&pod)).and_then(|condition| condition.message);
    assert!(
        message
            .as_deref()
            .is_some_and(|message| message.contains("main")),
        "{message:?}"
    );
    let status = pod.status.as_ref().expect("a status");
    let given = status
        .container_statuses
        .as_ref()
        .and_then(|all| all[0].allocated_resources.as_ref());
    assert_eq!(given.expect("it is told")["cpu"].0, "1");
    assert!(is_running(Some(&pod)));
    assert_eq!(burst.puts(), 1);

    resize(&burst, &cpu("1")).await;
    burst
        .until("web", "what was wished to be what is given", |pod| {
            pending(pod).is_none()
        })
        .await;
}

#[tokio::test]
async fn the_api_server_refuses_to_resize_a_whole_pod_on_a_node_without_that_feature() {
    let burst = Burst::start("resize-pod").await;
    let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let resources = json!({"requests": amounts("1", "1Gi"), "limits": amounts("2", "2Gi")});
    burst
        .create("web", &json!({"spec": {"resources": resources}}))
        .await;
    burst.until("web", "the pod to run", is_running).await;
    let more = json!({"resources": {"requests": {"cpu": "1500m"}}});
    let output = ask_to_resize(&burst, &more).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("InPlacePodLevelResourcesVerticalScaling"),
        "{said}"
    );
    assert!(is_running(Some(&burst.read("web").await)));
}

#[tokio::test]
async fn an_ephemeral_container_waits_and_says_that_it_cannot_run() {
    let burst = Burst::start("debug").await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    let added = kubectl(
        &burst,
        &[
            "debug",
            "pod/web",
            "--image",
            "busybox",
            "--container",
            "debugger",
            "--",
            "true",
        ],
    )
    .await;
    assert!(added.status.success(), "{added:?}");
    let says_why = |pod: Option<&Pod>| {
        let statuses =
            pod.and_then(|pod| pod.status.as_ref()?.ephemeral_container_statuses.as_ref());
        let waiting = statuses.and_then(|all| all.first()?.state.as_ref()?.waiting.clone());
        waiting.is_some_and(|waiting| {
            let message = waiting.message.unwrap_or_default();
            waiting.reason.as_deref() == Some("Unsupported")
                && message.contains("Azure Container Instances")
        })
    };
    burst
        .until("web", "the ephemeral container to say why", says_why)
        .await;
    assert!(is_running(Some(&burst.read("web").await)));
    assert_eq!(burst.puts(), 1);
}
