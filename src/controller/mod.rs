//! The reconciler: every `BurstPool` becomes its virtual nodes, and is drained before it goes.
//!
//! In: `BurstPool`s as they are watched. Out: a running `pool::Running` for each, the pool's status,
//! and, when a pool is deleted, its pods evicted, its groups and nodes removed and the finalizer last. What
//! of it no spec names any more is drained all the same: `strays`.
//!
//! ```text
//! BurstPool ─▶ reconcile ─▶ pool (node tasks of each placement) ─▶ Azure, nodes, pods
//!                 └─▶ status (pure) ─▶ BurstPool.status            drain ─▶ evictions
//! Prometheus, clock, alerts ─▶ triggers ─▶ /scale, spill, status
//! pods, nodes, scales ─▶ spill (plans and grants) ─▶ pods
//!                          └─▶ Summary ─▶ status
//! ```

mod drain;
#[cfg(test)]
mod fixtures;
mod measure;
mod mistake;
mod pool;
pub mod spill;
mod status;
mod strays;
pub mod triggers;
mod unreadable;

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

use crate::aci::client::{Client as Azure, Scope};
use crate::aci::pace::Pace;
use crate::aci::translate::Identities;
use crate::api::BurstPool;
use crate::kubelet_api::Nodes;
use crate::node::environment::KubeProxy;
use crate::node::quota::Quotas;
use crate::node::watched::reported;
use crate::telemetry::Metrics;

pub use status::Refused as RefusedStatuses;

/// The finalizer of pools.
pub const FINALIZER: &str = "burstpool.io/drain";
/// The lease that the leader holds.
pub const LEASE: &str = "burstpool";
/// How often a pool is looked at although nothing changed: its status says what its nodes do.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How soon a pool is looked at again whose nodes are being registered.
const REGISTERED_SOON: Duration = Duration::from_millis(500);
/// How long changes of plans are collected before they are written into statuses, and how long that is not
/// done again.
const STATUS_PACE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// How long one reconciliation may take: Azure a minute for each LIST, and evictions of a thousand pods. What
/// is cut off there is begun again from what there is then.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why a pool was not reconciled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{what}")]
    Kubernetes {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The finalizer could not be set or removed.
    #[error("setting or removing the finalizer")]
    Finalizer(#[source] Box<finalizer::Error<Error>>),
    /// Something is left of a pool that is deleted: an error only because it keeps the finalizer.
    #[error("{} left: {}", left.len(), left.join(", "))]
    Draining {
        /// What is left, in words.
        left: Vec<String>,
        /// How soon it is looked at again.
        again: Duration,
    },
    /// Somebody did not answer.
    #[error("reconciling took longer than {} s", PATIENCE.as_secs())]
    Late(#[source] tokio::time::error::Elapsed),
}

impl Error {
    /// How soon a drain goes on, if that is all that is wrong.
    fn drains_again(&self) -> Option<Duration> {
        match self {
            Self::Draining { again, .. } => Some(*again),
            Self::Finalizer(error) => match &**error {
                finalizer::Error::CleanupFailed(error) => error.drains_again(),
                _ => None,
            },
            _ => None,
        }
    }

    /// What to say of a call that failed.
    fn kubernetes(what: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes { what, source }
    }
}

/// What every reconciliation needs.
pub struct Context {
    /// Kubernetes, with retries.
    pub client: Client,
    /// Kubernetes, without: an eviction that a budget holds back is answered 429, and is not to be
    /// tried for minutes inside a call.
    pub impatient: Client,
    /// Azure.
    pub azure: Azure,
    /// Where groups are, for pools that do not say.
    pub scope: Scope,
    /// The UID of the cluster's `kube-system` namespace: whose groups are ours.
    pub cluster: String,
    /// The address of the nodes.
    pub address: String,
    /// The kubelet API's port.
    pub port: i32,
    /// The minor version of Kubernetes that the nodes speak.
    pub kubernetes_minor: u32,
    /// How often groups are listed.
    pub sweep_every: Duration,
    /// What ACI's kube-proxy is given; nothing while nobody has said where the API server is reached.
    pub kube_proxy: Option<KubeProxy>,
    /// The namespaces whose pods may choose managed identities.
    pub identities: Identities,
    /// The nodes that the kubelet API serves.
    pub nodes: Nodes,
    /// The pace of reading in each subscription.
    pub paces: Mutex<HashMap<String, Arc<Pace>>>,
    /// The quotas of regions, which all pools' placements share.
    pub quotas: Quotas,
    /// Running pools by name.
    pub pools: Mutex<HashMap<String, pool::Running>>,
    /// No node is to be kept any more.
    pub over: CancellationToken,
    /// By pool, how writes of its status were refused.
    pub refused_statuses: RefusedStatuses,
    /// Who we are among the instances of the operator.
    pub identity: String,
    /// The namespace of the leader's lease.
    pub lease_namespace: String,
    /// What bursting looks at.
    pub stores: Arc<spill::Stores>,
    /// What says that there is a peak, and the replicas that follow.
    pub triggers: triggers::Triggers,
    /// Where alerts come in, if they do.
    pub alerts: Option<triggers::alerts::Settings>,
    /// What the last plans say, for statuses.
    pub summaries: watch::Sender<spill::Summaries>,
    /// What is counted and measured.
    pub metrics: Arc<Metrics>,
}

/// Reconciles until `cancel`; nodes, pods and groups stay as they are then.
pub async fn run(context: Arc<Context>, cancel: CancellationToken) {
    let pools: Api<DeserializeGuard<BurstPool>> = Api::all(context.client.clone());
    let config = controller::Config::default().concurrency(4);
    let (reader, writer) = reflector::store();
    // Not their statuses: we write those ourselves, some for every few grants.
    let wishes = watcher(pools, watcher::Config::default()).default_backoff();
    let wishes = reported("BurstPools to reconcile", wishes)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::finalizers),
            PredicateConfig::default(),
        );
    let reconciled = Controller::for_stream(wishes, reader)
        .with_config(config)
        .graceful_shutdown_on(cancel.clone().cancelled_owned())
        .reconcile_all_on(paced(futures::stream::select(
            changes(context.summaries.subscribe()),
            changes(context.triggers.notable()),
        )))
        .run(reconcile, retry, context.clone())
        .for_each(|result| async {
            match result {
                Ok(_) => {}
                Err(controller::Error::ObjectNotFound(pool)) => forget(&pool.name, &context).await,
                Err(error) => tracing::debug!(%error, "reconciling"),
            }
        });
    let alerts = async {
        match &context.alerts {
            Some(settings) => context.triggers.receive(settings, &cancel).await,
            None => context.triggers.receive_nothing(),
        }
    };
    // At once, and not when the last reconciliation has ended: who leads next keeps nodes and writes
    // replicas, too.
    let ends = async {
        cancel.cancelled().await;
        context.over.cancel();
        context.triggers.stop().await;
    };
    tokio::join!(
        reconciled,
        spill::run(context.clone(), cancel.clone()),
        cancel.run_until_cancelled(strays::drain_pools(&context)),
        alerts,
        ends
    );
    for (_, running) in context.pools.lock().await.drain() {
        running.stop().await;
    }
}

/// A pool is gone that was to be looked at again: somebody removed its finalizer, and it was not drained. Its
/// nodes are `strays`.
async fn forget(pool: &str, context: &Context) {
    context.triggers.remove(pool).await;
    context.metrics.forget_pool(pool);
    context.refused_statuses.forget(pool);
}

/// A word whenever something else is said.
fn changes<T: Send + Sync + 'static>(
    said: watch::Receiver<T>,
) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(said, |mut said| async move {
        said.changed().await.ok()?;
        Some(((), said))
    })
}

/// The same words, but at most one a second: what comes meanwhile is in the next.
fn paced(words: impl Stream<Item = ()> + Send + 'static) -> impl Stream<Item = ()> + Send {
    let begin = (Box::pin(words), Instant::now());
    futures::stream::unfold(begin, |(mut words, next)| async move {
        words.next().await?;
        let (collects, pause) = STATUS_PACE;
        tokio::time::sleep_until(next.max(Instant::now() + collects)).await;
        while let Some(Some(())) = words.next().now_or_never() {}
        Some(((), (words, Instant::now() + pause)))
    })
}

async fn reconcile(
    pool: Arc<DeserializeGuard<BurstPool>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    // No read of Kubernetes' client ends by itself, and while one waits the pool is not looked at.
    let reconciled = tokio::time::timeout(PATIENCE, async {
        match &pool.0 {
            Ok(pool) => finalized(pool, &context).await,
            Err(pool) => {
                unreadable::keep(pool, &context).await?;
                Ok(Action::requeue(LOOK_AGAIN))
            }
        }
    });
    reconciled.await.map_err(Error::Late)?
}

async fn finalized(pool: &BurstPool, context: &Context) -> Result<Action, Error> {
    context.metrics.readable(&pool.name_any());
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

async fn apply(pool: &BurstPool, context: &Context) -> Result<Action, Error> {
    context.triggers.ensure(pool).await;
    let found = strays::adopt(pool, context).await?;
    let outcome = pool::ensure(pool, &found, context).await;
    let removed = pool::removed(pool, context).await;
    let leaving = drain::placements(&pool.name_any(), &removed, context).await?;
    let nodes = pool::report(pool, context).await;
    let again = if !leaving.is_empty() {
        pool::drain_again(&pool.name_any(), &leaving, context).await
    } else if nodes.missing.is_empty() {
        LOOK_AGAIN
    } else {
        REGISTERED_SOON
    };
    let summary = context.summaries.borrow().get(&pool.name_any()).cloned();
    let told = context.triggers.told(pool);
    let status = status::of(pool, &outcome, &nodes, &leaving, summary.as_ref(), &told);
    measure::pool(pool, &status, context);
    status::write(pool, &status, context).await?;
    Ok(Action::requeue(again))
}

/// An error keeps the finalizer where it is, so one that only says "not yet" is no failure.
async fn clean_up(pool: &BurstPool, context: &Context) -> Result<Action, Error> {
    context.triggers.remove(&pool.name_any()).await;
    let left = drain::pool(pool, context).await?;
    if left.is_empty() {
        measure::forget(pool, context);
        return Ok(Action::await_change());
    }
    let again = pool::drain_again(&pool.name_any(), &left, context).await;
    let nodes = pool::report(pool, context).await;
    let quiet = triggers::Told::default();
    let status = status::of(pool, &Ok(()), &nodes, &left, None, &quiet);
    status::write(pool, &status, context).await?;
    Err(Error::Draining { left, again })
}

#[allow(clippy::needless_pass_by_value, reason = "the controller calls it so")]
fn retry(pool: Arc<DeserializeGuard<BurstPool>>, error: &Error, _: Arc<Context>) -> Action {
    if let Some(again) = error.drains_again() {
        return Action::requeue(again);
    }
    tracing::warn!(pool = pool.meta().name, %error, "reconciling a pool");
    Action::requeue(Duration::from_secs(5))
}

#[cfg(test)]
mod tests;
