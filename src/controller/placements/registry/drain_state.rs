//! What the drain asks about running placements, and how their tasks end.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::task::PlacementTask;
use super::{PlacementRegistry, stop_tasks};
use crate::controller::placements::PlacementId;
use crate::controller::placements::drain_pace::{self, CountAction, EvictionPacer};
use crate::node::{last_placement, node_controller};

impl PlacementRegistry {
    /// Closes placements' nodes for good.
    pub async fn start_draining(&self, ids: &[PlacementId]) {
        let running = self.running.lock().await;
        for task in ids.iter().filter_map(|id| running.get(id)) {
            task.start_draining();
        }
    }

    /// Whether a spec lists a placement again that was to be drained, for example because a pool of that name was
    /// created again.
    pub async fn is_requested_again(&self, id: &PlacementId) -> bool {
        let running = self.running.lock().await;
        running.get(id).is_some_and(|task| !task.is_draining())
    }

    /// Whether a placement's tasks ended because its node belongs to another owner.
    pub async fn has_lost_node(&self, id: &PlacementId) -> bool {
        let running = self.running.lock().await;
        running.get(id).is_some_and(PlacementTask::has_lost_node)
    }

    /// Whether a pod worker still runs on a placement, for a pod or for the container group of a deleted pod. Pods
    /// of `DaemonSet`s do not count.
    pub async fn has_pod_workers(&self, id: &PlacementId) -> bool {
        let running = self.running.lock().await;
        running.get(id).is_some_and(|task| task.pods.is_any_kept())
    }

    /// The number of container groups of a placement; `None` if it is not known.
    pub async fn count_groups(&self, id: &PlacementId) -> Option<usize> {
        // Do not hold the registry's lock: Azure may take a minute to answer, and all pools need the registry.
        let (pods, counts) = {
            let running = self.running.lock().await;
            let task = running.get(id)?;
            (task.pods.clone(), task.group_counts.clone())
        };
        let mut counts = counts.lock().await;
        if let CountAction::UseKnown(groups) =
            counts.next_action(pods.group_count(), Instant::now())
        {
            return groups;
        }
        let counted = pods.count_groups().await;
        counts.record_count(counted, pods.group_count(), Instant::now());
        counted
    }

    /// Whether Azure forbids the operator to list the container groups of a placement.
    pub async fn is_list_forbidden(&self, id: &PlacementId) -> bool {
        let running = self.running.lock().await;
        running
            .get(id)
            .is_some_and(|task| task.pods.is_list_forbidden())
    }

    /// The record of evictions of a placement's pods, if its tasks run.
    pub async fn eviction_pacer(&self, id: &PlacementId) -> Option<Arc<Mutex<EvictionPacer>>> {
        let running = self.running.lock().await;
        Some(running.get(id)?.evictions.clone())
    }

    /// How soon the drain of a pool continues; `left` is what is left of it.
    pub async fn next_drain_delay(&self, pool: &str, left: &[String]) -> Duration {
        let mut running = self.running.lock().await;
        running
            .drain_delay_mut(pool)
            .map_or(drain_pace::MAX_DRAIN_RETRY_INTERVAL, |delay| {
                delay.next_delay(left, Instant::now())
            })
    }

    /// Removes the node of a placement that drains. Its pod workers continue, because the scheduler may have bound
    /// a pod until then. If the node cannot be removed, its registration continues until the next try.
    pub async fn delete_node(&self, id: &PlacementId) -> Result<(), kube::Error> {
        let (registration, uid) = {
            let running = self.running.lock().await;
            match running.get(id) {
                Some(task) if task.is_draining() && !task.has_lost_node() => {
                    (task.registration.clone(), task.spec.pool_uid.clone())
                }
                // A spec lists it again, or the node belongs to another owner.
                _ => return Ok(()),
            }
        };
        registration.stop().await;
        let client = &self.context.parts.client;
        let is_ours = |node: &Node| last_placement::other_owner(node, &id.pool, &uid).is_none();
        let removed = node_controller::unregister(client, &id.node_name(), is_ours).await;
        if removed.is_err() {
            let mut running = self.running.lock().await;
            let task = running.get_mut(id).filter(|task| task.is_draining());
            if let Some(task) = task {
                task.register(client);
            }
        }
        removed
    }

    /// Ends the tasks of those of a pool's placements that are drained and whose nodes are removed.
    pub async fn end_placements(&self, pool: &str, ids: &[PlacementId]) {
        let ended = self.running.lock().await.take_drained(pool, ids);
        stop_tasks(ended).await;
    }
}
