//! The pods that a drain evicts from a virtual node, read from the API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

use super::Error;
use crate::k8s::call;
use crate::node::daemon_set;
use crate::node::watched_pod::WatchedPod;

/// The timeout of a LIST of the pods on one node.
const LIST_TIMEOUT: Duration = Duration::from_secs(15);

/// The pods that are on a node now, without those of `DaemonSet`s, whose controller would recreate them at once
/// after each eviction. As with `kubectl drain` they stay, and the pod garbage collector deletes them after the
/// node is removed.
pub(super) async fn list_drainable_pods(client: &Client, node: &str) -> Result<Vec<Pod>, Error> {
    // `WatchedPod` accepts every pod: one unusual pod must not stop a drain.
    let pods: Api<WatchedPod> = Api::all(client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = call::with_timeout(LIST_TIMEOUT, pods.list(&on_node)).await;
    let pods = pods.map_err(|source| Error::ListPods {
        node: node.to_owned(),
        source,
    })?;
    let pods = pods.items.into_iter().map(|observed| observed.pod);
    Ok(pods
        .filter(|pod| !daemon_set::is_daemon_set_pod(pod))
        .collect())
}
