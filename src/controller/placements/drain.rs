//! Drains placements: removes their pods before their nodes are removed.
//!
//! In: placements. Out: one text for each pod, set of container groups and node that still exists; none when all
//! are deleted and the tasks of the placements have ended. Pods are removed through the Eviction API, so `PodDisruptionBudget`s apply. Pod workers
//! delete the container groups of evicted pods.

mod evictions;

use std::sync::Arc;

use futures::future::join_all;
use kube::Client;

use super::drainable_pods::list_drainable_pods;
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
    pub async fn drain_and_remove_each(
        &self,
        removed: &[PlacementId],
    ) -> Result<Vec<String>, Error> {
        let left = removed
            .iter()
            .map(|id| self.drain_and_remove_together(&id.pool, std::slice::from_ref(id)));
        let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
        Ok(left?.concat())
    }

    /// Drains placements of a pool together, and removes their nodes when nothing is left on any of them. Returns
    /// what is left.
    ///
    /// The scheduler can bind pods to a node until the node is deleted. Therefore pods and container groups are
    /// checked again after the deletion, and the pod workers end last.
    pub async fn drain_and_remove_together(
        &self,
        pool: &str,
        ids: &[PlacementId],
    ) -> Result<Vec<String>, Error> {
        self.registry.start_draining(ids).await;
        let left = self.evict_and_list_remaining(ids).await?;
        if !left.is_empty() {
            return Ok(left);
        }
        let deleted = join_all(ids.iter().map(|id| self.delete_node(id))).await;
        let left: Vec<String> = deleted.into_iter().filter_map(Result::err).collect();
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
        let pods = list_drainable_pods(&self.client, &node).await?;
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
                 if the resource group was deleted, create it again and assign the role on it"
            )],
            None => vec![format!(
                "the container groups of {node}: their number is unknown, because the last list request to Azure \
                 failed"
            )],
        })
    }

    /// Deletes a placement's node. The error is a text for the pool's status.
    async fn delete_node(&self, id: &PlacementId) -> Result<(), String> {
        self.registry.delete_node(id).await.map_err(|error| {
            let why = match error {
                kube::Error::Api(status) => status.message,
                error => error.to_string(),
            };
            format!("node {} ({why})", id.node_name())
        })
    }
}
