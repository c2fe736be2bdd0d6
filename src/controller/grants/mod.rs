//! The grant loop: for every pool it makes a plan from the watched objects, and executes it.
//!
//! In: the cluster cache, the targets' scales, the volumes behind claims, the neighbors of pending pods, and the
//! results of creates in Azure. Out: grants, and for each pool a [`PlanSummary`] for its status.
//!
//! `burst` makes all decisions. A new leader first claims each pool and counts its pods, and grants only then
//! (decision D1a). Pools are executed independently: while calls for a pool are slow, the loop makes no new
//! plan for it, and no other pool waits. Only grants ([`in_flight`]) stay in flight while the next plans are
//! made.
//!
//! ```text
//! ClusterCache ─▶ Snapshot ─┐
//! scales, claims, neighbors ┼─▶ planning ─▶ burst::plan ─▶ executor ─▶ in_flight ─▶ API server
//! pods on virtual nodes ────┘                  │                                        │
//!                                              ├─▶ events         LeaderState, cache ◀─┘ answers
//!                                              └─▶ PlanSummary ─▶ controller::status
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`grant_loop`] | plans for the pools again after changes, and starts executing the plans |
//! | [`planning`] | gathers the inputs of a pool's plan and makes the plan |
//! | [`leadership`] | keeps the state of a pool's leadership term |
//! | [`executor`] | executes a plan: claims, counts, reserves, grants |
//! | [`in_flight`] | sends grants while the next plans are made |
//! | [`rescue`] | deletes or evicts pods that never started |
//! | [`patches`] | builds the JSON Patches to pods |
//! | [`events`] | publishes Events about plans and grants |
//! | [`summary`] | summarizes a plan for the pool's status |

mod events;
mod executor;
#[cfg(test)]
mod fixtures;
mod grant_loop;
mod in_flight;
mod leadership;
mod patches;
pub(crate) mod planning;
mod rescue;
mod summary;

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use super::cache::cluster::ClusterCache;
use super::cache::cluster::Snapshot;
use super::placements::registry::PlacementRegistry;
use super::triggers::TriggerTasks;
use crate::aci::translate::IdentityNamespaces;
use events::EventPublisher;
pub use executor::ExecutorParts;
use grant_loop::GrantLoop;
pub use summary::{PlanSummaries, PlanSummary};

/// What the grant loop needs.
pub(super) struct GrantParts {
    /// The Kubernetes client, with retries: for watches, reads and Events.
    pub client: Client,
    /// What executing plans needs.
    pub executor: Arc<ExecutorParts>,
    /// The running tasks of placements: which pods are on their nodes, and which creates failed.
    pub registry: Arc<PlacementRegistry>,
    /// The triggers: an active one shortens the hold.
    pub triggers: Arc<TriggerTasks>,
    /// Receives the summary of each pool's last plan, for its status.
    pub summaries: watch::Sender<PlanSummaries>,
    /// The IP address of the virtual nodes.
    pub node_address: String,
    /// The namespaces whose pods may choose managed identities.
    pub identity_namespaces: IdentityNamespaces,
}

/// Plans and executes until `cancel` is cancelled. Returns after all tasks that it started have ended.
pub(super) async fn run(parts: GrantParts, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    let (event_publisher, write_events) =
        EventPublisher::new(parts.client.clone(), &parts.executor.identity);
    let cache = parts.executor.cache.clone();
    let mut grant_loop = GrantLoop::new(parts, event_publisher, tasks.clone(), &cancel);
    let plan_and_execute = async {
        cache.wait_until_synced().await;
        grant_loop.run().await;
    };
    tokio::select! {
        () = plan_and_execute => {}
        () = write_events => {}
        () = cancel.cancelled() => {}
    }
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
}
