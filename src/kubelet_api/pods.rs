//! The endpoints that list pods.
//!
//! In: nodes. Out: lists of their pods, as JSON.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::response::{self, ApiResult, HttpError};
use crate::node::pods::{ContainerInfo, PodInfo, PodsContext};
use crate::node::watched_pod::WatchedPod;

/// Timeout of one call of the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The pods as the API server has them. Only administrators who debug request this, so the list is read on request
/// instead of kept in memory a second time.
pub async fn list_pods(client: &Client, nodes: &[Arc<PodsContext>]) -> ApiResult {
    // [`WatchedPod`] always decodes: one unusual pod must not hide the others. It is listed with its metadata only.
    let api: Api<WatchedPod> = Api::all(client.clone());
    let mut items: Vec<Pod> = Vec::new();
    for node in nodes {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={}", node.owner.node));
        let listed = tokio::time::timeout(CALL_TIMEOUT, api.list(&on_node)).await;
        let Ok(Ok(listed)) = listed else {
            let message = "the API server does not list the node's pods; try again";
            return Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        items.extend(listed.items.into_iter().map(|watched| watched.pod));
    }
    response::json_response(&json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
    }))
}

/// The pods with at least one running container.
pub fn list_running_pods(nodes: &[Arc<PodsContext>]) -> ApiResult {
    let pods = nodes.iter().flat_map(|node| node.all_pods());
    let running = pods.filter(|pod| pod.containers.iter().any(is_running));
    let items: Vec<Value> = running.map(|pod| running_pod_object(&pod)).collect();
    response::json_response(&json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
    }))
}

fn is_running(container: &ContainerInfo) -> bool {
    container.running_since.is_some()
}

fn running_pod_object(pod: &PodInfo) -> Value {
    let containers = pod.containers.iter().filter(|c| is_running(c));
    let containers: Vec<Value> = containers.map(|c| json!({"name": c.name})).collect();
    json!({
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "spec": {"containers": containers},
        "status": {},
    })
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use kube::client::Body;

    use super::*;
    use crate::node::pods::fixtures::context;

    #[tokio::test]
    async fn a_pod_that_cannot_be_read_does_not_hide_the_others() {
        let service = tower::service_fn(|_: http::Request<Body>| {
            let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [
                {"metadata": {"name": "odd"}, "spec": {"containers": "none"}},
                {"metadata": {"name": "plain"}, "spec": {"containers": [{"name": "main"}]}},
            ]});
            let answer = http::Response::new(Body::from(list.to_string().into_bytes()));
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        });
        let client = Client::new(service, "default");
        let node = Arc::new(context(client.clone()));
        let Ok(listed) = list_pods(&client, &[node]).await else {
            unreachable!("the others are listed");
        };
        let body = to_bytes(listed.into_body(), usize::MAX).await;
        let list: Value = serde_json::from_slice(&body.expect("a body")).expect("JSON");
        let names = [0, 1].map(|at| list["items"][at]["metadata"]["name"].clone());
        assert_eq!(names, [json!("odd"), json!("plain")]);
        assert_eq!(list["items"][1]["spec"]["containers"][0]["name"], "main");
    }
}
