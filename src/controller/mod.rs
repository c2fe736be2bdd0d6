//! The controller of `BurstPool`s: registers a virtual node for each placement, and drains a pool before it is
//! removed.
//!
//! In: a watch of `BurstPool`s. Out: the running tasks of each placement's node, and the pool's status. When a
//! pool is deleted, the controller evicts its pods, deletes its container groups and nodes, and removes the
//! finalizer last. Placements that a spec no longer lists are drained in the same way.
//!
//! ```text
//! BurstPool ─▶ reconcile ─▶ placements (node tasks) ─▶ Azure, nodes, pods
//!                 │              └─▶ drain ─▶ evictions
//!                 └─▶ status (pure) ─▶ BurstPool.status
//! Prometheus, clock, alerts ─▶ triggers ─▶ /scale, grants, status
//! pods, nodes, scales ─▶ cache ─▶ grants (plans) ─▶ pods
//!                                    └─▶ PlanSummary ─▶ status
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | `cache` | watches and reads what plans are made from |
//! | `grants` | makes the plan of each pool and executes it |
//! | `placements` | runs the virtual node of each placement, and drains it |
//! | [`triggers`] | evaluates triggers and scales workloads |
//! | `context` | puts the modules together |
//! | `reconcile` | reconciles one pool |
//! | `change_events` | when statuses are written after changes |
//! | `status` | builds and writes the status of a pool |
//! | `metrics` | updates the metrics of a pool from its status |
//! | `unreadable_pools` | handles a stored pool that this version cannot read |

pub(crate) mod cache;
mod change_events;
mod context;
#[cfg(test)]
mod fixtures;
pub(crate) mod grants;
mod metrics;
mod placements;
mod reconcile;
mod status;
pub mod triggers;
mod unreadable_pools;

use std::sync::Arc;

use futures::StreamExt as _;
use kube::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Controller};
use kube::runtime::{
    Predicate as _, PredicateConfig, WatchStreamExt as _, predicates, reflector, watcher,
};
use tokio_util::sync::CancellationToken;

use self::change_events::{change_events, debounced};
use self::context::ControllerContext;
use self::reconcile::{error_policy, reconcile};
use crate::api::BurstPool;
use crate::k8s::watch_health::report_errors;

pub use self::context::ControllerParts;
pub use self::placements::registry::PlacementParts;

/// The finalizer that keeps a deleted pool until it is drained.
pub const FINALIZER: &str = "burstpool.io/drain";
/// The name of the Lease that the leading instance holds.
pub const LEASE_NAME: &str = "burstpool";

/// Reconciles until `cancel` is cancelled. Nodes, pods and container groups then stay as they are.
pub async fn run(parts: ControllerParts, cancel: CancellationToken) {
    run_context(Arc::new(ControllerContext::new(parts)), cancel).await;
}

async fn run_context(context: Arc<ControllerContext>, cancel: CancellationToken) {
    // Stop at once, without waiting for the last reconciliation: the next leader also registers nodes and
    // writes replicas.
    let stop_on_cancel = async {
        cancel.cancelled().await;
        context.registry.cancel_all();
        context.triggers.stop().await;
    };
    tokio::join!(
        reconcile_pools(context.clone(), cancel.clone()),
        grants::run(context.grant_parts(), cancel.clone()),
        cancel.run_until_cancelled(drain_removed_pools(&context)),
        receive_alerts(&context, &cancel),
        context.registry.watch_services(),
        stop_on_cancel
    );
    context.registry.wait_until_stopped().await;
}

/// Reconciles pools when their specs change, when their statuses are to be written, and at intervals.
async fn reconcile_pools(context: Arc<ControllerContext>, cancel: CancellationToken) {
    let pools: Api<DeserializeGuard<BurstPool>> = Api::all(context.client.clone());
    let config = controller::Config::default().concurrency(4);
    let (reader, writer) = reflector::store();
    // The predicates drop updates of statuses: the operator writes those itself, some after every few grants.
    let changes = watcher(pools, watcher::Config::default()).default_backoff();
    let changes = report_errors("BurstPools to reconcile", changes)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::finalizers),
            PredicateConfig::default(),
        );
    Controller::for_stream(changes, reader)
        .with_config(config)
        .graceful_shutdown_on(cancel.cancelled_owned())
        .reconcile_all_on(debounced(futures::stream::select(
            change_events(context.plan_summaries.subscribe()),
            change_events(context.triggers.subscribe_status_changes()),
        )))
        .run(reconcile, error_policy, context.clone())
        .for_each(|result| async {
            match result {
                Ok(_) => {}
                // The finalizer was removed by hand, so the pool was not drained: `drain_removed_pools` does that.
                Err(controller::Error::ObjectNotFound(pool)) => {
                    context.forget_pool(&pool.name).await;
                }
                Err(error) => tracing::debug!(%error, "cannot reconcile"),
            }
        })
        .await;
}

async fn drain_removed_pools(context: &ControllerContext) {
    let on_drained = |pool: &str, placements: &[placements::PlacementId]| {
        metrics::forget_removed_pool(pool, placements, &context.metrics);
        context.status_writer.forget(pool);
    };
    context.deleted_pools.drain_removed_pools(on_drained).await;
}

async fn receive_alerts(context: &ControllerContext, cancel: &CancellationToken) {
    match &context.alert_receiver {
        Some(settings) => context.triggers.run_receiver(settings, cancel).await,
        None => context.triggers.disable_receiver(),
    }
}

#[cfg(test)]
mod tests;
