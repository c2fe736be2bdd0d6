//! An operator without a cluster, for the tests of this module: no server answers its calls to Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};

use super::cache::cluster::ClusterCache;
use super::{ControllerParts, PlacementParts, triggers};
use crate::aci::client::{AciClient, CloudEndpoints, Credential, GroupScope};
use crate::aci::image::{ImageReader, ImageReaderSettings};
use crate::aci::translate::IdentityNamespaces;

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

/// What the controller of an operator with this Azure endpoint needs.
pub(super) fn parts(arm: &str) -> ControllerParts {
    let cache = Arc::<ClusterCache>::default();
    ControllerParts {
        client: unreachable_client(),
        client_no_retry: unreachable_client(),
        placements: placement_parts(arm, cache.clone()),
        cache,
        metrics: Arc::default(),
        identity: "test".to_owned(),
        lease_namespace: "default".to_owned(),
        monitor_hosts: Vec::new(),
        alert_receiver: None,
    }
}

/// What the placements of an operator with this Azure endpoint need.
pub(super) fn placement_parts(arm: &str, cache: Arc<ClusterCache>) -> PlacementParts {
    PlacementParts {
        client: unreachable_client(),
        azure: azure(arm),
        default_scope: GroupScope {
            subscription: "s".to_owned(),
            resource_group: "rg".to_owned(),
        },
        cluster_uid: "cluster".to_owned(),
        node_address: "127.0.0.1".to_owned(),
        kubelet_port: 10250,
        kubernetes_minor: 37,
        list_interval: Duration::from_secs(60),
        kube_proxy: None,
        identity_namespaces: IdentityNamespaces::default(),
        images: ImageReader::new(ImageReaderSettings::without_identity()).expect("a client"),
        served_nodes: crate::kubelet_api::NodeRegistry::default(),
        cache,
    }
}

/// A Kubernetes client whose calls no server answers.
pub(super) fn unreachable_client() -> Client {
    let config = Config::new("http://127.0.0.1:1".parse().expect("a URL"));
    Client::try_from(config).expect("a client")
}

fn azure(arm: &str) -> AciClient {
    let cloud = CloudEndpoints::default().with_arm(arm.parse().expect("a URL"));
    let token = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/token");
    let token = Credential::File(token.into());
    AciClient::new(&cloud, token, reqwest::Client::new())
}
