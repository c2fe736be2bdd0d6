//! The pods of nodes, and what they use.
//!
//! In: nodes. Out: lists of their pods. What containers use is not known here: ACI tells it through Azure
//! Monitor only, minutes late. So pods are listed without numbers, which metrics-server and an autoscaler
//! take for what it is: not measured (never for zero, on which an autoscaler would scale in).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use crate::node::pods::{Context, Hosted, HostedContainer};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pods, as the API server has them. Asked for by people who look for a mistake, so they are read
/// when somebody asks, and not kept twice.
pub async fn pods(client: &Client, nodes: &[Arc<Context>]) -> Answer {
    let api: Api<Pod> = Api::all(client.clone());
    let mut items = Vec::new();
    for node in nodes {
        let ours = ListParams::default().fields(&format!("spec.nodeName={}", node.owner.node));
        let listed = tokio::time::timeout(PATIENCE, api.list(&ours)).await;
        let Ok(Ok(listed)) = listed else {
            let message = "the API server does not list the node's pods; try again";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        items.extend(listed.items);
    }
    answer::json(&json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
    }))
}

/// The pods of which something runs.
pub fn running(nodes: &[Arc<Context>]) -> Answer {
    let all = nodes.iter().flat_map(|node| node.all_hosted());
    let running = all.filter(|pod| pod.containers.iter().any(is_running));
    let items: Vec<Value> = running.map(|pod| brief(&pod)).collect();
    answer::json(&json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
    }))
}

fn is_running(container: &HostedContainer) -> bool {
    container.running_since.is_some()
}

fn brief(pod: &Hosted) -> Value {
    let containers = pod.containers.iter().filter(|c| is_running(c));
    let containers: Vec<Value> = containers.map(|c| json!({"name": c.name})).collect();
    json!({
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "spec": {"containers": containers},
        "status": {},
    })
}

/// What the pods use, as far as it is known: since when they run.
pub fn summary(nodes: &[Arc<Context>]) -> Answer {
    let all = nodes.iter().flat_map(|node| node.all_hosted());
    let used = |pod: Arc<Hosted>| {
        let containers = pod.containers.iter().filter(|c| is_running(c));
        let containers: Vec<Value> = containers
            .map(|c| json!({"name": c.name, "startTime": c.running_since}))
            .collect();
        json!({
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "startTime": pod.started,
            "containers": containers,
        })
    };
    let pods: Vec<Value> = all.map(used).collect();
    let names: Vec<&str> = nodes.iter().map(|node| node.owner.node.as_str()).collect();
    // The listener is all nodes', and a summary has one: the first stands for them.
    let name = names.first().copied().unwrap_or_default();
    answer::json(&json!({"node": {"nodeName": name}, "pods": pods}))
}

/// The same for Prometheus.
pub fn resource(nodes: &[Arc<Context>]) -> Response<Body> {
    let mut text = String::from(
        "# HELP container_start_time_seconds [STABLE] Start time of the container since unix epoch in seconds\n\
         # TYPE container_start_time_seconds gauge\n",
    );
    for pod in nodes.iter().flat_map(|node| node.all_hosted()) {
        for container in &pod.containers {
            let Some(since) = container.running_since else {
                continue;
            };
            let (name, at) = (&container.name, since.as_second());
            let _ = writeln!(
                text,
                "container_start_time_seconds{{container=\"{name}\",namespace=\"{}\",pod=\"{}\"}} {at}",
                pod.namespace, pod.name
            );
        }
    }
    text.push_str(
        "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise\n\
         # TYPE resource_scrape_error gauge\nresource_scrape_error 0\n",
    );
    let mut response = answer::text(StatusCode::OK, text);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
