//! What a node's pods are run with: its clients, its owner, and the settings of its placement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::Notify;

use crate::aci::client::{AciClient as Azure, GroupScope};
use crate::aci::image::ImageReader;
use crate::aci::names::GroupOwner;
use crate::aci::rate_limiter::RateLimiter;
use crate::aci::translate::IdentityNamespaces;
use crate::api::Placement;
use crate::node::environment::KubeProxy;
use crate::node::probe::Prober;
use crate::node::quota::RegionQuota;
use crate::node::service_cache::ServiceCache;

/// What a node's [`PodsContext`](super::PodsContext) is built from.
pub struct PodsConfig {
    /// The Kubernetes client, which retries.
    pub client: Client,
    /// The Azure client.
    pub azure: Azure,
    /// The subscription and resource group of the node's container groups.
    pub scope: GroupScope,
    /// The cluster, pool and node that own the groups: the groups' tags name them.
    pub owner: GroupOwner,
    /// The settings that may change while the node's pods run, with their initial values.
    pub settings: PodSettings,
    /// The node's IP address.
    pub address: String,
    /// The cluster's Services, shared by all nodes.
    pub services: Arc<ServiceCache>,
    /// The rate limiter for reads, shared by all readers of this subscription.
    pub rate_limiter: Arc<RateLimiter>,
    /// Notified when the region must be checked immediately: Azure returned an error, or the settings changed.
    pub azure_failed: Arc<Notify>,
    /// Notified when anything about the node's pods changed.
    pub pods_changed: Arc<Notify>,
    /// The regional quota that the node's groups count against.
    pub quota: Arc<RegionQuota>,
    /// The interval between two LISTs of the groups.
    pub list_interval: Duration,
    /// How long a group must have been without a pod before it is deleted.
    pub orphan_grace: Duration,
    /// The namespaces whose pods may choose managed identities.
    pub identities: IdentityNamespaces,
    /// Reads the configurations of images.
    pub images: ImageReader,
    /// Sends probes; all nodes have clones of one.
    pub prober: Prober,
}

/// The settings of a placement and its pool that may change while pods run there. Groups that exist keep what they
/// were created with.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSettings {
    /// The placement from the pool's spec. Its name, region and subnet do not change.
    pub placement: Placement,
    /// The pool's tags for container groups.
    pub tags: BTreeMap<String, String>,
    /// The input of ACI's kube-proxy, if the placement enables it.
    pub kube_proxy: Option<KubeProxy>,
    /// The deletion cost of pods that are bound to the node from now on.
    pub deletion_cost: i32,
}

impl PodSettings {
    /// Whether every pod translates to the same group with these settings as with `other`.
    pub(super) fn translates_as(&self, other: &Self) -> bool {
        let node_only = Placement {
            labels: other.placement.labels.clone(),
            capacity: other.placement.capacity.clone(),
            ..self.placement.clone()
        };
        let same_cost = Self {
            placement: node_only,
            deletion_cost: other.deletion_cost,
            ..self.clone()
        };
        same_cost == *other
    }
}
