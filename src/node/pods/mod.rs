//! The pods that are bound to a virtual node. Each pod has a pod worker: a task of its own.
//!
//! In: the watch of the node's pods, and the LIST of container groups. Out: for each pod a container group in Azure
//! and a status in Kubernetes; when the pod is deleted, the worker deletes its group and then removes its object.
//! [`pod_plan`](super::pod_plan) decides, and the pod worker executes the decision and learns from the answer, so a
//! slow or throttled call for one pod does not delay another pod. The workers of a node share [`PodsContext`]:
//! clients, the rate limiter for reads, how long starts take.
//!
//! ```text
//! watch of the node's pods ─▶ pod controller ─▶ pod worker (one per pod) ─▶ actions ─▶ Azure
//!                                                 ▲       └──▶ status writer ─▶ status, Events ─▶ API server
//! garbage collection (LIST each minute) ─▶ group list ─┘  groups that vanished; groups without a pod
//! ```
//!
//! Urgent calls come first. A PUT or a DELETE waits only for its own back-off and for one of 64 permits. A status
//! that changes the phase, the readiness or an address is written at once, at most eight at a time. Everything else
//! (that containers are being created, details, Events) is written one at a time, so that a thousand pods that start
//! together do not keep the API server from binding the next pod.
//!
//! A GET waits for the rate limiter. While pod workers wait in the read queue, the operator lists the groups about
//! once a second: a LIST has no instance views, but it gives the provisioning state of all groups at once, which is
//! enough to report a pod with `restartPolicy: Always` as running. The pod's GET adds the details.

mod config;
mod context;
mod controller;
mod create_results;
mod daemon_sets;
#[cfg(test)]
pub(crate) mod fixtures;
mod garbage_collection;
mod group_list;
mod list_failures;
mod pod_index;
mod post_bind;
mod read_queue;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::core::Status;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{PodSettings, PodsConfig};
pub use context::PodsContext;
use controller::PodController;
pub use create_results::CreateResult;
pub use pod_index::{ContainerInfo, PodInfo};

/// Default interval between two LISTs of the container groups.
pub const LIST_INTERVAL: Duration = Duration::from_secs(60);
/// How long a group must have been without a pod before it is deleted, by default: the watch may not have delivered
/// a pod that was just bound, and a group without a pod is not urgent.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(120);

/// Whether the API server rejects the write itself. With any other status it is overloaded or failing, and may
/// accept the same write later.
fn is_permanent_rejection(status: &Status) -> bool {
    (400..429).contains(&status.code)
}

/// Runs the pods of the node until `cancel`. After that the groups and pods stay as they are.
pub async fn run(context: Arc<PodsContext>, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    tasks.spawn(garbage_collection::run(context.clone(), cancel.clone()));
    let (probes, cancel_probes) = (context.probes.clone(), cancel.clone());
    let prober = context.prober.clone();
    tasks.spawn(async move { probes.run(prober, cancel_probes).await });
    let mut controller = PodController {
        context,
        cancel: cancel.clone(),
        tasks: tasks.clone(),
        workers: HashMap::new(),
        post_bind_states: HashMap::new(),
    };
    tokio::select! {
        () = controller.run() => {}
        () = cancel.cancelled() => {}
    }
    tasks.close();
    tasks.wait().await;
}
