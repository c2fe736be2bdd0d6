//! Reconciles one pool: its triggers, its nodes, its drain and its status.
//!
//! In: a pool as the watch delivers it. Out: when to reconcile it again. A deleted pool keeps its finalizer until it
//! is drained.

use std::sync::Arc;
use std::time::Duration;

use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, finalizer};
use kube::{Api, Resource as _, ResourceExt as _};
use thiserror::Error;
use tracing::Instrument as _;

use super::context::ControllerContext;
use super::placements;
use super::status::writer::StatusWriteError;
use super::status::{self, StatusInputs};
use super::triggers::TriggerStatusView;
use super::unreadable_pools::UnreadablePoolError;
use super::{FINALIZER, metrics};
use crate::api::BurstPool;
use crate::telemetry::error_chain;

/// How often a pool is reconciled if nothing changes: its status reports the state of its nodes.
const RESYNC_INTERVAL: Duration = Duration::from_secs(10);
/// How soon a pool is reconciled again while some of its nodes are not registered yet.
const REGISTRATION_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How soon a pool is reconciled again after an error.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The deadline of one reconciliation. It allows for LIST calls to Azure of one minute each, and for evictions
/// of a thousand pods. After a timeout the next reconciliation starts again from the current state.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a reconciliation of a pool failed.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// The pool's placements could not be read or drained.
    #[error(transparent)]
    Placements(#[from] placements::Error),
    /// The pool's status could not be written.
    #[error(transparent)]
    Status(#[from] StatusWriteError),
    /// The reconciliation of a pool that cannot be read failed.
    #[error(transparent)]
    UnreadablePool(#[from] UnreadablePoolError),
    /// The pool could not be reconciled, or its finalizer not be set or removed.
    #[error("cannot reconcile the pool or change its finalizer")]
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
}

/// Reconciles a pool.
pub(super) async fn reconcile(
    pool: Arc<DeserializeGuard<BurstPool>>,
    context: Arc<ControllerContext>,
) -> Result<Action, Error> {
    // Reads of the Kubernetes client have no timeout of their own. Without this one, a call that hangs would
    // block the pool.
    let reconciled = tokio::time::timeout(RECONCILE_TIMEOUT, async {
        match &pool.0 {
            Ok(pool) => reconcile_with_finalizer(pool, &context).await,
            Err(pool) => {
                context.unreadable_pools.reconcile(pool).await?;
                Ok(Action::requeue(RESYNC_INTERVAL))
            }
        }
    });
    let span = tracing::error_span!("reconcile", pool = pool.meta().name);
    reconciled.instrument(span).await.map_err(Error::Timeout)?
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
    let (name, registry) = (pool.name_any(), &context.registry);
    context.triggers.apply_spec(pool).await;
    context.pool_nodes.drain_unlisted(pool).await?;
    let existing_nodes = context.pool_nodes.of_placements_not_running(pool).await?;
    let outcome = registry.apply_spec(pool, &existing_nodes).await;
    let removed = registry.removed_placements(pool).await;
    let left = context.drain.drain_and_remove_each(&removed).await?;
    let nodes = registry.report(pool).await;
    let requeue_after = if !left.is_empty() {
        registry.next_drain_delay(&name, &left).await
    } else if nodes.unregistered_nodes.is_empty() {
        RESYNC_INTERVAL
    } else {
        REGISTRATION_POLL_INTERVAL
    };
    let summary = context.plan_summaries.borrow().get(&name).cloned();
    let inputs = StatusInputs {
        outcome: &outcome,
        nodes: &nodes,
        left: &left,
        summary: summary.as_ref(),
        trigger_status: &context.triggers.status_view(pool),
    };
    let status = status::pool_status(pool, &inputs);
    metrics::record_pool(pool, &status, &context.metrics);
    context.status_writer.write(pool, &status).await?;
    Ok(Action::requeue(requeue_after))
}

/// Drains a deleted pool. Returns an error until the pool is drained, because only an error keeps the finalizer:
/// [`Error::Draining`] means "not yet" and is not a failure.
async fn clean_up(pool: &BurstPool, context: &ControllerContext) -> Result<Action, Error> {
    let name = pool.name_any();
    context.triggers.remove(&name).await;
    let left = context.deleted_pools.drain_pool(pool).await?;
    if left.is_empty() {
        metrics::forget_pool(pool, &context.metrics);
        context.status_writer.forget(&name);
        return Ok(Action::await_change());
    }
    let retry_after = context.registry.next_drain_delay(&name, &left).await;
    let inputs = StatusInputs {
        outcome: &Ok(()),
        nodes: &context.registry.report(pool).await,
        left: &left,
        summary: None,
        trigger_status: &TriggerStatusView::default(),
    };
    let status = status::pool_status(pool, &inputs);
    context.status_writer.write(pool, &status).await?;
    Err(Error::Draining { left, retry_after })
}

/// Logs an error, unless a drain only continues, and returns when to reconcile the pool again.
#[allow(clippy::needless_pass_by_value, reason = "the controller calls it so")]
pub(super) fn error_policy(
    pool: Arc<DeserializeGuard<BurstPool>>,
    error: &Error,
    _: Arc<ControllerContext>,
) -> Action {
    if let Some(delay) = error.drain_retry_after() {
        return Action::requeue(delay);
    }
    let error = error_chain(error);
    tracing::warn!(pool = pool.meta().name, error, "cannot reconcile a pool");
    Action::requeue(RETRY_INTERVAL)
}
