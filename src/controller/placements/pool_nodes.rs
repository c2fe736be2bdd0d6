//! The nodes of pools, and those that no spec lists.
//!
//! In: the nodes of this cluster, and the pools. Out: tasks for the nodes of placements that a spec has lost
//! while another instance led, until they are drained; and the existing nodes of placements that a spec lists.
//!
//! The node records what the drain of its placement needs (see [`last_placement`]). A node without that record
//! is left as it is, and logged: with a guessed subscription, the drain would find nothing and report success
//! while everything still runs. If the node was removed by hand, this module cannot find its container groups;
//! only their tags identify them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};

use super::registry::{PlacementRegistry, has_placement};
use super::{Error, PlacementId};
use crate::api::BurstPool;
use crate::controller::cache::cluster::ClusterCache;
use crate::k8s::{call, watch_health};
use crate::node::last_placement::{self, DiscoveredNode};
use crate::node::node_object;

/// The timeout of a call. It is short because a node's Lease expires 40 s after its last renewal, and no task
/// renews it yet.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the nodes of pools, and drains those that no spec lists.
#[derive(Clone)]
pub(in crate::controller) struct PoolNodes {
    /// The Kubernetes client, with retries.
    pub client: Client,
    /// The watched objects.
    pub cache: Arc<ClusterCache>,
    /// The running tasks of placements.
    pub registry: Arc<PlacementRegistry>,
}

impl PoolNodes {
    /// The nodes of a pool, read from the API server: a watch may still show one that was just removed.
    pub async fn list(&self, pool: &str) -> Result<Vec<DiscoveredNode>, Error> {
        let nodes: Api<DeserializeGuard<Node>> = Api::all(self.client.clone());
        let labelled = ListParams::default().labels(&format!("{}={pool}", node_object::POOL_LABEL));
        let nodes = call::with_timeout(CALL_TIMEOUT, nodes.list(&labelled)).await;
        let nodes = nodes.map_err(|source| Error::ListNodes {
            pool: pool.to_owned(),
            source,
        })?;
        let pools = self.cache.all_pools();
        let discovered = nodes.into_iter().filter_map(watch_health::ok_or_log);
        let discovered = discovered.filter_map(|node| last_placement::discover(&node));
        let discovered = discovered.filter(|discovered| !belongs_to_other_pool(discovered, &pools));
        Ok(discovered.collect())
    }

    /// Starts draining the pool's nodes that its spec does not list, once under each leader: later the running
    /// tasks show which placements the spec has lost.
    pub async fn drain_unlisted(&self, pool: &BurstPool) -> Result<(), Error> {
        let name = pool.name_any();
        if self.registry.is_tracked(&name).await {
            return Ok(());
        }
        let found = self.list(&name).await?.into_iter();
        for found in found.filter(|found| !has_placement(pool, &found.placement)) {
            self.start_drain(found).await;
        }
        Ok(())
    }

    /// Starts draining a node that no spec lists.
    pub async fn start_drain(&self, found: DiscoveredNode) {
        let node = found.node.clone();
        if self.registry.drain_unlisted_node(found).await {
            tracing::info!(%node, "draining a node that no spec lists");
        } else {
            tracing::warn!(%node, "cannot drain a node that no spec lists: it has no annotation burstpool.io/last-placement");
        }
    }

    /// The existing nodes of placements that the spec lists and whose tasks do not run. They are read by name, not
    /// by label: a node with another owner has another label, or none, and the owner must be known.
    pub async fn of_placements_not_running(&self, pool: &BurstPool) -> Result<Vec<Node>, Error> {
        let mut existing_nodes = Vec::new();
        for id in self.registry.placements_not_running(pool).await {
            existing_nodes.extend(self.get(&id).await?);
        }
        Ok(existing_nodes)
    }

    /// The node of a placement, if it exists.
    async fn get(&self, id: &PlacementId) -> Result<Option<Node>, Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let name = id.node_name();
        let found = call::find(CALL_TIMEOUT, &nodes, &name).await;
        found.map_err(|source| Error::ReadNode { node: name, source })
    }
}

/// Whether the node carries the UID of an existing pool with another name than that in the node's label.
pub(super) fn belongs_to_other_pool(found: &DiscoveredNode, pools: &[Arc<BurstPool>]) -> bool {
    let mut others = pools.iter().filter(|pool| pool.name_any() != found.pool);
    found.pool_uid.is_some() && others.any(|pool| pool.uid() == found.pool_uid)
}
