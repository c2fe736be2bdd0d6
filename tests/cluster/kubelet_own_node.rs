//! The metrics endpoint of a home node's kubelet. kwok plays the rest of the kubelet, but has no
//! metrics.
//!
//! In: how much CPU each pod of the node uses. Out: `/metrics/resource` over TLS; the node's status
//! gets its port. It ends with its runtime.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::support::secure;

/// The memory that each pod uses, in bytes.
const MEMORY: u64 = 104_857_600;

/// The CPU that each home pod uses, in millicores. Cheap to clone.
#[derive(Clone)]
pub struct Load(Arc<AtomicU64>);

impl Load {
    pub fn of(millicores: u64) -> Self {
        Self(Arc::new(AtomicU64::new(millicores)))
    }

    pub fn set(&self, millicores: u64) {
        self.0.store(millicores, Ordering::Relaxed);
    }
}

/// Serves the metrics of a node's pods.
pub async fn serve(client: &Client, node: &str, load: &Load) {
    let kubelet = Kubelet {
        client: client.clone(),
        node: node.to_owned(),
        load: load.clone(),
        counted: Arc::default(),
    };
    let router = Router::new()
        .route("/metrics/resource", get(resource))
        .with_state(kubelet);
    let port = secure::serve(router).await.0.port();
    let status = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let nodes: Api<Node> = Api::all(client.clone());
    let patched = nodes
        .patch_status(node, &PatchParams::default(), &Patch::Merge(status))
        .await;
    patched.expect("the node says where its kubelet is");
}

#[derive(Clone)]
struct Kubelet {
    client: Client,
    node: String,
    load: Load,
    /// The CPU seconds so far of a pod that has existed from the beginning, and when they were counted.
    counted: Arc<tokio::sync::Mutex<Option<(f64, Instant)>>>,
}

async fn resource(State(kubelet): State<Kubelet>) -> String {
    let pods: Api<Pod> = Api::all(kubelet.client.clone());
    let ours = ListParams::default().fields(&format!("spec.nodeName={}", kubelet.node));
    let pods = pods.list(&ours).await.expect("the node's pods");
    let mut counted = kubelet.counted.lock().await;
    let (before, since) = counted.unwrap_or((1.0, Instant::now()));
    let millicores = Duration::from_millis(kubelet.load.0.load(Ordering::Relaxed));
    let used = before + millicores.as_secs_f64() * since.elapsed().as_secs_f64();
    *counted = Some((used, Instant::now()));
    let mut text = String::new();
    for pod in pods {
        let labels = format!(
            "container=\"main\",namespace=\"default\",pod=\"{}\"",
            pod.name_any()
        );
        let lines = format!(
            "container_start_time_seconds{{{labels}}} 1\n\
             container_cpu_usage_seconds_total{{{labels}}} {used}\n\
             container_memory_working_set_bytes{{{labels}}} {MEMORY}\n"
        );
        text.write_str(&lines).expect("a string takes everything");
    }
    text
}
