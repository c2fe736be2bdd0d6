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
//! | `status` | builds and writes the status of a pool |
//! | `metrics` | updates the metrics of a pool from its status |
//! | `unreadable_pools` | handles a stored pool that this version cannot read |

pub(crate) mod cache;
#[cfg(test)]
mod fixtures;
pub(crate) mod grants;
mod metrics;
mod placements;
mod status;
pub mod triggers;
mod unreadable_pools;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::{
    Predicate as _, PredicateConfig, WatchStreamExt as _, predicates, reflector, watcher,
};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use placements::{drain, orphans, registry};

use crate::aci::client::{AciClient, GroupScope};
use crate::aci::rate_limiter::RateLimiter;
use crate::aci::translate::IdentityNamespaces;
use crate::api::BurstPool;
use crate::k8s::watch_health::report_errors;
use crate::kubelet_api::NodeRegistry;
use crate::node::environment::KubeProxy;
use crate::node::quota::QuotaRegistry;
use crate::telemetry::Metrics;

pub use status::StatusRefusals;

/// The finalizer that keeps a deleted pool until it is drained.
pub const FINALIZER: &str = "burstpool.io/drain";
/// The name of the Lease that the leading instance holds.
pub const LEASE_NAME: &str = "burstpool";
/// How often a pool is reconciled if nothing changes: its status reports the state of its nodes.
const RESYNC_INTERVAL: Duration = Duration::from_secs(10);
/// How soon a pool is reconciled again while some of its nodes are not registered yet.
const REGISTRATION_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Debounce of status updates after new plans: how long changes are collected, and the shortest interval
/// between two rounds.
const STATUS_DEBOUNCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// The deadline of one reconciliation. It allows for LIST calls to Azure of one minute each, and for evictions
/// of a thousand pods. After a timeout the next reconciliation starts again from the current state.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a reconciliation of a pool failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server refused a call or did not answer it.
    #[error("{what}")]
    Kubernetes {
        /// What the operator attempted.
        what: &'static str,
        /// Why the call failed.
        #[source]
        source: kube::Error,
    },
    /// Setting or removing the finalizer failed.
    #[error("setting or removing the finalizer")]
    Finalizer(#[source] Box<finalizer::Error<Error>>),
    /// A deleted pool is not drained yet. This is an error only because an error keeps the finalizer.
    #[error("{} left: {}", left.len(), left.join(", "))]
    Draining {
        /// The pods, container groups and nodes that are left, as text for the status and the log.
        left: Vec<String>,
        /// How soon the drain continues.
        retry_after: Duration,
    },
    /// The reconciliation did not finish before its deadline.
    #[error("reconciling took longer than {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout(#[source] tokio::time::error::Elapsed),
}

impl Error {
    /// How soon the drain continues, if the only error is [`Error::Draining`].
    fn drain_retry_after(&self) -> Option<Duration> {
        match self {
            Self::Draining { retry_after, .. } => Some(*retry_after),
            Self::Finalizer(error) => match &**error {
                finalizer::Error::CleanupFailed(error) => error.drain_retry_after(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Converts the error of a failed call; `what` names the call.
    fn kubernetes(what: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes { what, source }
    }
}

/// The clients, settings and shared state that every reconciliation needs.
pub struct ControllerContext {
    /// The Kubernetes client, with retries.
    pub client: Client,
    /// The Kubernetes client, without retries. The API server answers 429 to an eviction that a
    /// `PodDisruptionBudget` blocks; a client with retries would repeat it for minutes inside one call.
    pub client_no_retry: Client,
    /// The Azure client.
    pub azure: AciClient,
    /// The subscription and resource group of pools that do not name their own.
    pub default_scope: GroupScope,
    /// The UID of the cluster's `kube-system` namespace; it marks the container groups that this cluster owns.
    pub cluster_uid: String,
    /// The IP address of the virtual nodes.
    pub node_address: String,
    /// The port of the kubelet API.
    pub kubelet_port: i32,
    /// The minor version of Kubernetes that the virtual nodes report.
    pub kubernetes_minor: u32,
    /// The interval between two listings of container groups.
    pub sweep_interval: Duration,
    /// What kube-proxy on ACI needs; `None` if the address of the API server is not configured.
    pub kube_proxy: Option<KubeProxy>,
    /// The namespaces whose pods may choose managed identities.
    pub identity_namespaces: IdentityNamespaces,
    /// The nodes that the kubelet API serves.
    pub served_nodes: NodeRegistry,
    /// By subscription ID, the rate limiter of reads from Azure.
    pub rate_limiters: Mutex<HashMap<String, Arc<RateLimiter>>>,
    /// The quotas of regions, which the placements of all pools share.
    pub quotas: QuotaRegistry,
    /// By pool name, the pools whose node tasks run.
    pub running_pools: Mutex<HashMap<String, registry::RunningPool>>,
    /// Cancelled when this instance stops leading or shuts down: ends all node tasks.
    pub shutdown: CancellationToken,
    /// By pool, the writes of its status that the API server refused.
    pub refused_statuses: StatusRefusals,
    /// The identity of this instance of the operator.
    pub identity: String,
    /// The namespace of the leader's Lease.
    pub lease_namespace: String,
    /// The watched objects from which grants are planned.
    pub cache: Arc<grants::ClusterCache>,
    /// The triggers, and the scaling of replicas that follows from them.
    pub triggers: triggers::TriggerTasks,
    /// The settings of the alert receiver; `None` if it is off.
    pub alert_receiver: Option<triggers::alert_receiver::ReceiverSettings>,
    /// By pool, the summary of its last plan, for its status.
    pub plan_summaries: watch::Sender<grants::PlanSummaries>,
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
}

/// Reconciles until `cancel` is cancelled. Nodes, pods and container groups then stay as they are.
pub async fn run(context: Arc<ControllerContext>, cancel: CancellationToken) {
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
    let reconciled = Controller::for_stream(changes, reader)
        .with_config(config)
        .graceful_shutdown_on(cancel.clone().cancelled_owned())
        .reconcile_all_on(debounced(futures::stream::select(
            change_events(context.plan_summaries.subscribe()),
            change_events(context.triggers.subscribe_status_changes()),
        )))
        .run(reconcile, error_policy, context.clone())
        .for_each(|result| async {
            match result {
                Ok(_) => {}
                Err(controller::Error::ObjectNotFound(pool)) => {
                    forget_pool(&pool.name, &context).await;
                }
                Err(error) => tracing::debug!(%error, "reconciling"),
            }
        });
    let alerts = async {
        match &context.alert_receiver {
            Some(settings) => context.triggers.run_receiver(settings, &cancel).await,
            None => context.triggers.disable_receiver(),
        }
    };
    // Stop at once, without waiting for the last reconciliation: the next leader also registers nodes and
    // writes replicas.
    let stop_on_cancel = async {
        cancel.cancelled().await;
        context.shutdown.cancel();
        context.triggers.stop().await;
    };
    tokio::join!(
        reconciled,
        grants::run(context.clone(), cancel.clone()),
        cancel.run_until_cancelled(orphans::drain_deleted_pools(&context)),
        alerts,
        stop_on_cancel
    );
    for (_, running) in context.running_pools.lock().await.drain() {
        running.stop().await;
    }
}

/// Drops the state of a pool that no longer exists although it was due for another reconciliation: its
/// finalizer was removed by hand, so it was not drained. [`orphans::drain_deleted_pools`] drains its nodes.
async fn forget_pool(pool: &str, context: &ControllerContext) {
    context.triggers.remove(pool).await;
    context.metrics.forget_pool(pool);
    context.refused_statuses.forget(pool);
}

/// Yields `()` every time the watched value changes.
fn change_events<T: Send + Sync + 'static>(
    receiver: watch::Receiver<T>,
) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}

/// Debounced: collects changes for 200 ms and yields at most one item per second. Changes in between are merged
/// into the next item.
fn debounced(changes: impl Stream<Item = ()> + Send + 'static) -> impl Stream<Item = ()> + Send {
    let initial = (Box::pin(changes), Instant::now());
    futures::stream::unfold(initial, |(mut changes, not_before)| async move {
        changes.next().await?;
        let (collect_time, min_interval) = STATUS_DEBOUNCE;
        tokio::time::sleep_until(not_before.max(Instant::now() + collect_time)).await;
        while let Some(Some(())) = changes.next().now_or_never() {}
        Some(((), (changes, Instant::now() + min_interval)))
    })
}

async fn reconcile(
    pool: Arc<DeserializeGuard<BurstPool>>,
    context: Arc<ControllerContext>,
) -> Result<Action, Error> {
    // Reads of the Kubernetes client have no timeout of their own. Without this one, a call that hangs would
    // block the pool.
    let reconciled = tokio::time::timeout(RECONCILE_TIMEOUT, async {
        match &pool.0 {
            Ok(pool) => reconcile_with_finalizer(pool, &context).await,
            Err(pool) => {
                unreadable_pools::reconcile_unreadable(pool, &context).await?;
                Ok(Action::requeue(RESYNC_INTERVAL))
            }
        }
    });
    reconciled.await.map_err(Error::Timeout)?
}

async fn reconcile_with_finalizer(
    pool: &BurstPool,
    context: &ControllerContext,
) -> Result<Action, Error> {
    context.metrics.clear_unreadable(&pool.name_any());
    let api: Api<BurstPool> = Api::all(context.client.clone());
    let reconciled = finalizer(&api, FINALIZER, Arc::new(pool.clone()), |event| async {
        match event {
            finalizer::Event::Apply(pool) => apply(&pool, context).await,
            finalizer::Event::Cleanup(pool) => clean_up(&pool, context).await,
        }
    });
    let reconciled = reconciled.await;
    reconciled.map_err(|error| Error::Finalizer(Box::new(error)))
}

async fn apply(pool: &BurstPool, context: &ControllerContext) -> Result<Action, Error> {
    context.triggers.ensure(pool).await;
    let existing_nodes = orphans::adopt_orphans(pool, context).await?;
    let outcome = registry::ensure(pool, &existing_nodes, context).await;
    let removed = registry::removed_placements(pool, context).await;
    let left = drain::drain_placements(&pool.name_any(), &removed, context).await?;
    let nodes = registry::report(pool, context).await;
    let requeue_after = if !left.is_empty() {
        registry::next_drain_delay(&pool.name_any(), &left, context).await
    } else if nodes.unregistered_nodes.is_empty() {
        RESYNC_INTERVAL
    } else {
        REGISTRATION_POLL_INTERVAL
    };
    let summary = context
        .plan_summaries
        .borrow()
        .get(&pool.name_any())
        .cloned();
    let trigger_status = context.triggers.status_view(pool);
    let status = status::pool_status(
        pool,
        &outcome,
        &nodes,
        &left,
        summary.as_ref(),
        &trigger_status,
    );
    metrics::record_pool(pool, &status, context);
    status::write(pool, &status, context).await?;
    Ok(Action::requeue(requeue_after))
}

/// Drains a deleted pool. Returns an error until the pool is drained, because only an error keeps the finalizer:
/// [`Error::Draining`] means "not yet" and is not a failure.
async fn clean_up(pool: &BurstPool, context: &ControllerContext) -> Result<Action, Error> {
    context.triggers.remove(&pool.name_any()).await;
    let left = drain::drain_pool(pool, context).await?;
    if left.is_empty() {
        metrics::forget_pool(pool, context);
        return Ok(Action::await_change());
    }
    let retry_after = registry::next_drain_delay(&pool.name_any(), &left, context).await;
    let nodes = registry::report(pool, context).await;
    let no_triggers = triggers::TriggerStatusView::default();
    let status = status::pool_status(pool, &Ok(()), &nodes, &left, None, &no_triggers);
    status::write(pool, &status, context).await?;
    Err(Error::Draining { left, retry_after })
}

#[allow(clippy::needless_pass_by_value, reason = "the controller calls it so")]
fn error_policy(
    pool: Arc<DeserializeGuard<BurstPool>>,
    error: &Error,
    _: Arc<ControllerContext>,
) -> Action {
    if let Some(delay) = error.drain_retry_after() {
        return Action::requeue(delay);
    }
    tracing::warn!(pool = pool.meta().name, %error, "reconciling a pool");
    Action::requeue(Duration::from_secs(5))
}

#[cfg(test)]
mod tests;
