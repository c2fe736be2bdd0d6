//! A pod worker without a cluster and without Azure, for the tests of this module.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;

use super::PodWorker;
use crate::aci::names::GroupName;
use crate::node::pods::controller::PodUpdate;
use crate::node::pods::fixtures::context;
use crate::node::pods::group_list::ListedState;
use crate::node::watched_pod::WatchedPod;

/// An API server that answers every request with `status`.
pub(in super::super) fn kubernetes(status: &Arc<AtomicU16>) -> kube::Client {
    let status = status.clone();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let code = status.load(Ordering::Relaxed);
        let body = if code < 400 {
            json!({"metadata": {}, "involvedObject": {}})
        } else {
            json!({"kind": "Status", "status": "Failure", "reason": "", "message": "", "code": code})
        };
        let answer = http::Response::builder().status(code);
        std::future::ready(answer.body(Body::from(body.to_string().into_bytes())))
    });
    kube::Client::new(service, "default")
}

/// A worker that has received `listed` from the last LIST.
pub(in super::super) fn listed_worker(client: kube::Client, listed: ListedState) -> PodWorker {
    let context = context(client);
    let pod = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
        "spec": {"containers": []},
    });
    let observed: WatchedPod = serde_json::from_value(pod).expect("a pod");
    let name = GroupName::from_pod("c", &observed.pod);
    let (sender, updates) = watch::channel(PodUpdate::None);
    let listed = watch::channel(listed).1;
    PodWorker::new(
        Arc::new(context),
        observed,
        name,
        (Arc::new(sender), updates),
        listed,
    )
}
