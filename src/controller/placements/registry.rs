//! The tasks of pools' nodes: this module starts, changes and stops them to match the specs, and restores them
//! from the nodes of placements that no spec lists.
//!
//! In: pools, and nodes that belong to no spec. Out: a [`PlacementTask`] for each placement, and its state for
//! the grant loop and the statuses. After the last pod and container group of a drained placement are gone, its
//! node is removed, and then its tasks end.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`task`] | runs the tasks of one placement |
//! | [`running`] | finds the tasks of a placement or of a pool |
//! | [`placement_change`] | decides whether and how a placement whose tasks do not run is started |
//! | [`scope_change`] | decides whether a pool may use the scope that its spec names |
//! | [`drain_state`] | what the drain asks about placements, and how their tasks end |
//! | [`report`] | reports the placements to the pool's status and to the grant loop |

mod drain_state;
mod placement_change;
mod report;
mod running;
mod scope_change;
mod task;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use tokio::sync::Mutex;

use self::placement_change::{LiveNode, PlacementChange, placement_change};
use self::running::RunningPlacements;
use self::task::{PlacementSpec, PlacementTask, TaskContext};
use super::PlacementId;
use super::validation::{self, InvalidSpec};
use crate::aci::client::GroupScope;
use crate::api::BurstPool;
use crate::node::last_placement::{self, DiscoveredNode};

pub use self::report::PlacementReport;
pub use self::task::PlacementParts;

/// The placements whose tasks run.
pub(in crate::controller) struct PlacementRegistry {
    context: TaskContext,
    running: Mutex<RunningPlacements>,
}

impl PlacementRegistry {
    /// A registry without running tasks.
    pub fn new(parts: PlacementParts) -> Self {
        Self {
            context: TaskContext::new(parts),
            running: Mutex::default(),
        }
    }

    /// Starts the tasks of placements that the spec lists and that do not run, and applies changes of the spec to
    /// those that do. Only a change to another node, such as one in another resource group, restarts a
    /// placement's tasks. `nodes` are the existing nodes of placements whose tasks do not run.
    ///
    /// Every leader rejects a spec with an invalid value with [`InvalidSpec`]. Running placements then continue
    /// unchanged; after a change of leader they continue with the settings that their node records.
    pub async fn apply_spec(&self, pool: &BurstPool, nodes: &[Node]) -> Result<(), InvalidSpec> {
        let scope = self.allowed_scope(pool).await;
        // Wait without the lock: the grant loop reads the registry all the time.
        stop_tasks(
            self.apply_changes_and_take_obsolete(pool, scope.as_ref().ok())
                .await,
        )
        .await;
        let started = self.start_missing_tasks(pool, nodes, &scope).await;
        scope.and(started)
    }

    /// Applies the spec to the running tasks. Takes out the placements that need another node, and those that
    /// were drained or ended and that the spec lists again. These take no pods until their tasks are started
    /// again.
    async fn apply_changes_and_take_obsolete(
        &self,
        pool: &BurstPool,
        scope: Option<&GroupScope>,
    ) -> Vec<PlacementTask> {
        let mut running = self.running.lock().await;
        let changed = pool.spec.placements.iter().filter_map(|placement| {
            let id = PlacementId::new(&pool.name_any(), &placement.name);
            let task = running.get_mut(&id)?;
            // While the pool is being deleted, the placement stays closed.
            let is_listed_again = pool.metadata.deletion_timestamp.is_none() && task.is_draining();
            // An invalid spec is not applied.
            let changed_spec = scope.map(|scope| PlacementSpec::from_pool(pool, placement, scope));
            let changed_spec = changed_spec.filter(|changed_spec| task.spec != *changed_spec);
            let is_other_node =
                |changed_spec: &PlacementSpec| !task.spec.is_same_node(changed_spec);
            if changed_spec.as_ref().is_some_and(is_other_node)
                || task.has_lost_node()
                || is_listed_again && scope.is_some()
            {
                return running.take(&id);
            }
            if let Some(changed_spec) = changed_spec {
                task.change(changed_spec, &self.context);
            }
            None
        });
        changed.collect()
    }

    /// Starts the tasks of the placements that the spec lists and that do not run. Returns the first error: one
    /// invalid placement does not stop the others.
    async fn start_missing_tasks(
        &self,
        pool: &BurstPool,
        nodes: &[Node],
        scope: &Result<GroupScope, InvalidSpec>,
    ) -> Result<(), InvalidSpec> {
        let all_pools = self.context.parts.cache.all_pools();
        let mut running = self.running.lock().await;
        let mut first_mistake = Ok(());
        for placement in &pool.spec.placements {
            let id = PlacementId::new(&pool.name_any(), &placement.name);
            if running.get(&id).is_some() {
                continue;
            }
            let name = id.node_name();
            let mut nodes = nodes.iter();
            let read = nodes.find(|node| node.metadata.name.as_ref() == Some(&name));
            // `nodes` was listed while tasks that were stopped above still ran, so that their node is missing in
            // it. The watch shows whether another owner has taken that node meanwhile.
            let watched = self.context.parts.cache.node(&name);
            let live = LiveNode {
                read,
                watched: watched.as_deref(),
            };
            let change = match running.node_holder(&name) {
                Some(holder) => PlacementChange::Reject(validation::node_owned_by_other(
                    &placement.name,
                    &name,
                    &holder,
                )),
                None => placement_change(pool, placement, scope, live, &all_pools),
            };
            let (spec, mistake) = change.into_parts();
            first_mistake = first_mistake.and(mistake.map_or(Ok(()), Err));
            let Some(spec) = spec else { continue };
            // After a change of leader, the node advertises the same as before until Azure has answered.
            let advertised = live.latest().and_then(|node| {
                let found = last_placement::discovered_node(node, &id.pool, &id.placement);
                found.advertised_for(&spec.last_placement())
            });
            let task = PlacementTask::start(spec, advertised, &self.context).await;
            running.insert(id, task);
        }
        first_mistake
    }

    /// Drains a placement that no spec lists, with the settings that its node records. If its tasks run already,
    /// they continue unchanged. Returns whether the tasks run now.
    pub async fn drain_unlisted_node(&self, found: DiscoveredNode) -> bool {
        let id = PlacementId::new(&found.pool, &found.placement);
        let mut running = self.running.lock().await;
        if running.get(&id).is_some() {
            return true;
        }
        let Some(spec) = PlacementSpec::from_node(found) else {
            return false;
        };
        let task = PlacementTask::start(spec, None, &self.context).await;
        task.start_draining();
        running.insert(id, task);
        true
    }

    /// Runs a placement with the settings that its node records, because its pool cannot be read; it is not
    /// drained. If its tasks run already, they continue unchanged. A node without a record is left alone. So is a
    /// node that belongs to another pool: one that runs its tasks, or one whose UID the node carries.
    pub async fn resume_from_node(&self, found: DiscoveredNode) {
        let id = PlacementId::new(&found.pool, &found.placement);
        let (node, advertised) = (found.node.clone(), found.advertised.clone());
        let owner = self.owner_by_uid(&found);
        let mut running = self.running.lock().await;
        if running.get(&id).is_some() {
            return;
        }
        if let Some(owner) = owner.or_else(|| running.node_holder(&node)) {
            let pool = &id.pool;
            tracing::warn!(%node, %pool, %owner, "the node belongs to another pool and is left alone");
            return;
        }
        let Some(spec) = PlacementSpec::from_node(found) else {
            tracing::warn!(%node, "cannot resume the placement of this node: its pool cannot be read, and the node records no settings");
            return;
        };
        let task = PlacementTask::start(spec, advertised, &self.context).await;
        tracing::info!(%node, "resumed a placement with the settings that its node records");
        running.insert(id, task);
    }

    /// The pool of another name whose UID the node carries, as text, if it exists.
    fn owner_by_uid(&self, found: &DiscoveredNode) -> Option<String> {
        let all_pools = self.context.parts.cache.all_pools();
        let mut others = all_pools
            .iter()
            .filter(|pool| pool.name_any() != found.pool);
        let owner = others.find(|pool| found.pool_uid.is_some() && pool.uid() == found.pool_uid)?;
        Some(format!("pool {}", owner.name_any()))
    }

    /// The names of the pools whose placements have run under this leader. A pool stays in the list until all its
    /// placements are drained.
    pub async fn tracked_pool_names(&self) -> Vec<String> {
        self.running.lock().await.pool_names().cloned().collect()
    }

    /// Whether a placement of this pool has run under this leader, and not all have been drained.
    pub async fn is_tracked(&self, pool: &str) -> bool {
        self.running.lock().await.is_tracked(pool)
    }

    /// The placements of a pool whose tasks run.
    pub async fn running_placements(&self, pool: &str) -> Vec<PlacementId> {
        let running = self.running.lock().await;
        running.of_pool(pool).map(|(id, _)| id.clone()).collect()
    }

    /// The placements that the spec lists and whose tasks do not run.
    pub async fn placements_not_running(&self, pool: &BurstPool) -> Vec<PlacementId> {
        let running = self.running.lock().await;
        let listed = pool.spec.placements.iter();
        let listed = listed.map(|placement| PlacementId::new(&pool.name_any(), &placement.name));
        let not_running = listed.filter(|id| {
            let task = running.get(id);
            task.is_none_or(PlacementTask::has_lost_node)
        });
        not_running.collect()
    }

    /// The placements whose tasks run and that the spec does not list now, even if the rest of the spec is
    /// invalid.
    pub async fn removed_placements(&self, pool: &BurstPool) -> Vec<PlacementId> {
        let running = self.running_placements(&pool.name_any()).await;
        let removed = running.into_iter();
        removed
            .filter(|id| !has_placement(pool, &id.placement))
            .collect()
    }

    /// Watches the cluster's Services for the pods of all nodes, until all tasks end.
    pub async fn watch_services(&self) {
        let context = &self.context;
        let watch = Box::pin(context.services.watch(context.parts.client.clone()));
        context.shutdown.run_until_cancelled(watch).await;
    }

    /// Ends all tasks, when this instance stops leading or shuts down. Nodes, pods and container groups stay.
    pub fn cancel_all(&self) {
        self.context.shutdown.cancel();
    }

    /// Waits until all tasks have ended, after [`PlacementRegistry::cancel_all`].
    pub async fn wait_until_stopped(&self) {
        for task in self.running.lock().await.drain() {
            task.stop().await;
        }
    }
}

/// Whether the pool's spec lists a placement of this name.
pub fn has_placement(pool: &BurstPool, placement: &str) -> bool {
    let mut listed = pool.spec.placements.iter();
    listed.any(|listed| listed.name == placement)
}

/// Ends these tasks; all are cancelled first, so that they end in parallel.
async fn stop_tasks(tasks: Vec<PlacementTask>) {
    for task in &tasks {
        task.cancel.cancel();
    }
    for task in tasks {
        task.stop().await;
    }
}

#[cfg(test)]
mod tests;
