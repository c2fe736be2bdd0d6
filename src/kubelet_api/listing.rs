//! The pods of nodes.
//!
//! In: nodes. Out: lists of their pods.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
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
