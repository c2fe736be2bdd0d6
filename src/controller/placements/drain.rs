//! Drains placements: removes their pods before their nodes are removed.
//!
//! In: placements. Out: the pods, container groups and nodes that are left, as text; empty once they and their
//! tasks are all gone. Pods are removed through the Eviction API, so `PodDisruptionBudget`s apply. Pod workers
//! delete the container groups of evicted pods.

mod evictions;

use std::sync::Arc;

use futures::future::join_all;
use kube::Client;

use super::node_pods::list_pods_on_node;
use super::registry::PlacementRegistry;
use super::{Error, PlacementId};

/// Drains placements.
#[derive(Clone)]
pub(in crate::controller) struct PlacementDrain {
    /// The Kubernetes client, with retries.
    pub client: Client,
    /// The Kubernetes client for evictions, without retries. The API server answers 429 to an eviction that a
    /// `PodDisruptionBudget` blocks; a client with retries would repeat it for minutes inside one call.
    pub client_no_retry: Client,
    /// The running tasks of placements.
    pub registry: Arc<PlacementRegistry>,
}

impl PlacementDrain {
    /// Drains placements that the spec does not list now, and removes those that are empty. Returns what is left.
    pub async fn drain_each(&self, removed: &[PlacementId]) -> Result<Vec<String>, Error> {
        let left = removed
            .iter()
            .map(|id| self.drain_and_remove(&id.pool, std::slice::from_ref(id)));
        let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
        Ok(left?.concat())
    }

    /// Drains placements of a pool together, and removes their nodes when nothing is left on any of them. Returns
    /// what is left.
    ///
    /// The scheduler may bind a pod until the node is gone, and such a pod is drained like the others. Therefore
    /// the placements are checked again after the removal, and the pod workers end last.
    pub async fn drain_and_remove(
        &self,
        pool: &str,
        ids: &[PlacementId],
    ) -> Result<Vec<String>, Error> {
        self.registry.start_draining(ids).await;
        let left = self.evict_and_list_remaining(ids).await?;
        if !left.is_empty() {
            return Ok(left);
        }
        let removed = ids.iter().map(|id| self.unregister_node(id));
        let left: Vec<String> = join_all(removed).await.into_iter().flatten().collect();
        if !left.is_empty() {
            return Ok(left);
        }
        let left = self.evict_and_list_remaining(ids).await?;
        if left.is_empty() {
            self.registry.end_placements(pool, ids).await;
        }
        Ok(left)
    }

    /// Evicts the pods of placements, and returns what is left.
    async fn evict_and_list_remaining(&self, ids: &[PlacementId]) -> Result<Vec<String>, Error> {
        // In parallel: Azure may take a minute for each placement, and a reconciliation has a deadline.
        let left = ids.iter().map(|id| self.drain_placement(id));
        let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
        Ok(left?.concat())
    }

    async fn drain_placement(&self, id: &PlacementId) -> Result<Vec<String>, Error> {
        let node = id.node_name();
        let pods = list_pods_on_node(&self.client, &node).await?;
        // The operator must not evict pods from a node that belongs to another owner.
        if self.registry.is_requested_again(id).await || self.registry.has_lost_node(id).await {
            return Ok(Vec::new());
        }
        let left = self.evict_pods(id, &pods).await;
        if !left.is_empty() {
            return Ok(left);
        }
        // A LIST may not show a container group that was just created. The group of a pod is gone only when its
        // pod worker has ended.
        if self.registry.has_pod_workers(id).await {
            return Ok(vec![format!(
                "the container groups of {node}, whose deletion is not confirmed yet"
            )]);
        }
        Ok(match self.registry.count_groups(id).await {
            Some(0) => Vec::new(),
            Some(groups) => vec![format!("{groups} container groups of {node}")],
            None if self.registry.is_list_forbidden(id).await => vec![format!(
                "the container groups of {node}, which burstpool may not list (Azure answers 403): give its \
                 identity the permission Microsoft.ContainerInstance/containerGroups/read on their resource group; \
                 if that was deleted, create it again and assign the role there"
            )],
            None => vec![format!(
                "the container groups of {node}, which Azure does not list now"
            )],
        })
    }

    /// Removes a placement's node. Returns what is left of it, as text.
    async fn unregister_node(&self, id: &PlacementId) -> Option<String> {
        let why = match self.registry.unregister_node(id).await {
            Ok(()) => return None,
            Err(kube::Error::Api(status)) => status.message,
            Err(error) => error.to_string(),
        };
        Some(format!("node {} ({why})", id.node_name()))
    }
}
