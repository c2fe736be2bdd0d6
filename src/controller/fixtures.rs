//! An operator without a cluster, for the tests of this module: no server answers its calls to Kubernetes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{ControllerContext, StatusRefusals, grants, triggers};
use crate::aci::client::{AciClient, CloudEndpoints, Credential, GroupScope};
use crate::aci::translate::IdentityNamespaces;
use crate::node::quota::QuotaRegistry;

/// The triggers of an operator that has seen no pools yet.
pub(super) fn triggers() -> triggers::TriggerTasks {
    triggers::TriggerTasks::new(triggers::TriggerParts {
        client: unreachable_client(),
        azure: azure("http://127.0.0.1:1"),
        cache: Arc::default(),
        metrics: Arc::default(),
        identity: "test".to_owned(),
        monitor_hosts: Vec::new(),
    })
}

/// An operator with this Azure endpoint.
pub(super) fn context(arm: &str) -> ControllerContext {
    ControllerContext {
        client: unreachable_client(),
        client_no_retry: unreachable_client(),
        azure: azure(arm),
        default_scope: GroupScope {
            subscription: "s".to_owned(),
            resource_group: "rg".to_owned(),
        },
        cluster_uid: "cluster".to_owned(),
        node_address: "127.0.0.1".to_owned(),
        kubelet_port: 10250,
        kubernetes_minor: 37,
        sweep_interval: Duration::from_secs(60),
        kube_proxy: None,
        identity_namespaces: IdentityNamespaces::default(),
        served_nodes: crate::kubelet_api::NodeRegistry::default(),
        rate_limiters: Mutex::default(),
        quotas: QuotaRegistry::default(),
        running_pools: Mutex::new(HashMap::new()),
        shutdown: CancellationToken::new(),
        refused_statuses: StatusRefusals::default(),
        identity: "test".to_owned(),
        lease_namespace: "default".to_owned(),
        cache: Arc::default(),
        triggers: triggers(),
        alert_receiver: None,
        plan_summaries: grants::summaries(),
        metrics: Arc::default(),
    }
}

fn unreachable_client() -> Client {
    let config = Config::new("http://127.0.0.1:1".parse().expect("a URL"));
    Client::try_from(config).expect("a client")
}

fn azure(arm: &str) -> AciClient {
    let cloud = CloudEndpoints::default().with_arm(arm.parse().expect("a URL"));
    let token = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/token");
    let token = Credential::File(token.into());
    AciClient::new(&cloud, token, reqwest::Client::new())
}
