//! The configuration of a node and fake API servers, for the tests of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use kube::Client;
use kube::client::Body;
use serde_json::json;

use super::capacity::{NodeResourceStatus, NodeResources};
use super::last_placement::LastPlacement;
use super::node_object::NodeConfig;
use crate::aci::client::GroupScope;
use crate::api::Placement;

/// A client whose requests do not reach the API server: a proxy answers each with 404 and a page.
pub(crate) fn behind_a_proxy() -> Client {
    let service = tower::service_fn(|_: http::Request<Body>| {
        let answer = http::Response::builder().status(404);
        let page = Body::from(b"404 page not found".to_vec());
        std::future::ready(answer.body(page))
    });
    Client::new(service, "default")
}

/// A client whose requests an admission policy denies, and the number of requests.
pub(crate) fn denied() -> (Client, Arc<AtomicU16>) {
    let sent = Arc::new(AtomicU16::new(0));
    let counted = sent.clone();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let status = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": "denied by a policy"});
        let answer = http::Response::builder().status(403);
        std::future::ready(answer.body(Body::from(status.to_string().into_bytes())))
    });
    (Client::new(service, "default"), sent)
}

/// The configuration of a node of the pool `shop` that offers one pod.
pub(super) fn config() -> NodeConfig {
    let scope = GroupScope {
        subscription: "s".to_owned(),
        resource_group: "rg".to_owned(),
    };
    let placement = Placement {
        name: "weu".to_owned(),
        region: "westeurope".to_owned(),
        labels: BTreeMap::from([("topology.kubernetes.io/region".into(), "westeurope".into())]),
        ..Placement::default()
    };
    let amount = NodeResources {
        cpu_milli: 1000,
        memory_bytes: 1 << 30,
        pods: 1,
    };
    NodeConfig {
        pool: "shop".into(),
        pool_uid: "u".into(),
        last_placement: LastPlacement::new(&scope, &placement),
        address: "10.0.0.1".into(),
        port: 10250,
        offer: NodeResourceStatus {
            allocatable: amount,
            capacity: amount,
        },
        region_notice: None,
        region_unavailable: None,
        creates_failing: None,
        probe_path: None,
        kubernetes_minor: 37,
    }
}
