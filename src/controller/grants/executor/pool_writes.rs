//! Writes of the pool's status: the leader and the reservations, as a fence (decision D1a).
//!
//! In: a plan. Out: a merge patch that names the pool's resource version. A write without an answer is recorded as
//! unconfirmed: it may still take effect.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::Patch;
use serde_json::json;

use super::pod_writes::leader_patch_params;
use super::{CALL_TIMEOUT, Executor, RETRY_INTERVAL};
use crate::api::BurstPool;
use crate::burst::BurstPlan;
use crate::controller::LEASE_NAME;
use crate::controller::grants::leadership::{PoolLeaderState, leader};
use crate::k8s::backoff::doubled;
use crate::k8s::call;

/// The longest pause after the API server rejected a write of the pool's status. The first pause is
/// [`RETRY_INTERVAL`], and each further one is twice as long.
const MAX_STATUS_BACKOFF: Duration = Duration::from_secs(10);

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    Written,
    /// The pool has another version, or does not exist.
    Conflict,
    /// The API server rejected it before it processed it, so the write can never take effect.
    Rejected,
    /// Unknown: the write may have taken effect, or may still do so.
    Unknown,
}

impl Executor {
    /// Whether this instance holds the leader's Lease, read from the API server. An instance that was suspended
    /// and does not know yet that it has lost the Lease must not claim a pool that its successor leads.
    pub(super) async fn holds_lease(&self) -> bool {
        let namespace = &self.parts.lease_namespace;
        let leases: Api<Lease> = Api::namespaced(self.parts.client.clone(), namespace);
        match tokio::time::timeout(CALL_TIMEOUT, leases.get(LEASE_NAME)).await {
            Ok(Ok(lease)) => {
                let holder = lease.spec.and_then(|spec| spec.holder_identity);
                holder.as_ref() == Some(&self.parts.identity)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read the leader's Lease");
                false
            }
            Err(_) => false,
        }
    }

    /// Writes the leader and the reservations into the pool's status, if the pool has not changed since it was
    /// planned. Returns whether they are written.
    pub(super) async fn write_reservations(
        &self,
        plan: &BurstPlan,
        state: &mut PoolLeaderState,
    ) -> bool {
        let mut pool = self.pool.clone();
        let mut written = self.patch_status(&pool, plan, &state.identity).await;
        if written == WriteOutcome::Conflict
            && let Some(current) = self.reread_if_same_inputs().await
        {
            pool = Arc::new(current);
            written = self.patch_status(&pool, plan, &state.identity).await;
        }
        match written {
            WriteOutcome::Written => {
                state.rejected_writes = 0;
                state
                    .leader_state
                    .record_reservations_written(self.parts.cache.clock.steady());
            }
            WriteOutcome::Conflict => {}
            WriteOutcome::Rejected => {
                // No grant is possible without this write: the pool waits, longer each time.
                let pause = doubled(RETRY_INTERVAL, state.rejected_writes, MAX_STATUS_BACKOFF);
                state.rejected_writes = state.rejected_writes.saturating_add(1);
                tokio::time::sleep(pause).await;
            }
            WriteOutcome::Unknown => {
                state.unconfirmed_write.set(&pool);
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        written == WriteOutcome::Written
    }

    /// Ends an unconfirmed write by reading the pool, when there is nothing to write that would end it.
    pub(super) async fn resolve_unconfirmed_write(&self, state: &mut PoolLeaderState) {
        tokio::time::sleep(RETRY_INTERVAL).await;
        if let Some(pool) = self.read_pool().await {
            state.unconfirmed_write.resolve_by_read(&pool);
        }
    }

    /// The current pool, if it differs from the planned one only in parts of its status that do not affect the
    /// plan. Such updates are written about once a second while pods are granted. The plan is then still valid.
    async fn reread_if_same_inputs(&self) -> Option<BurstPool> {
        let pool = self.read_pool().await?;
        has_same_plan_inputs(&self.pool, &pool).then_some(pool)
    }

    /// Reads the pool from the API server, and updates the cache.
    async fn read_pool(&self) -> Option<BurstPool> {
        let pools: Api<BurstPool> = Api::all(self.parts.client.clone());
        let pool = match tokio::time::timeout(CALL_TIMEOUT, pools.get(&self.pool_name)).await {
            Ok(Ok(pool)) => pool,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read the pool again");
                return None;
            }
            Err(_) => return None,
        };
        self.parts.cache.update_pool(pool.clone());
        Some(pool)
    }

    async fn patch_status(
        &self,
        pool: &BurstPool,
        plan: &BurstPlan,
        identity: &str,
    ) -> WriteOutcome {
        let pools: Api<BurstPool> = Api::all(self.parts.client.clone());
        let patch = json!({
            "metadata": {
                "resourceVersion": pool.metadata.resource_version,
            },
            "status": {"leader": identity, "reservations": plan.reservations},
        });
        let patch = Patch::Merge(&patch);
        let manager = leader_patch_params();
        let written = pools.patch_status(&self.pool_name, &manager, &patch);
        match tokio::time::timeout(CALL_TIMEOUT, written).await {
            Ok(Ok(pool)) => {
                self.parts.cache.update_pool(pool);
                WriteOutcome::Written
            }
            Ok(Err(kube::Error::Api(status)))
                if status.is_conflict() || call::is_object_not_found(&status) =>
            {
                WriteOutcome::Conflict
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot write reservations");
                failed_write_outcome(&error)
            }
            Err(_) => {
                tracing::warn!("no answer to a write of reservations");
                WriteOutcome::Unknown
            }
        }
    }
}

/// Whether a failed write may still take effect. Client errors are definite, 429 as well: the API server
/// rejects a request for which it has no capacity before it processes it. Only 408 means that the request timed
/// out during processing.
pub(super) fn failed_write_outcome(error: &kube::Error) -> WriteOutcome {
    match error {
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 408 => {
            WriteOutcome::Rejected
        }
        _ => WriteOutcome::Unknown,
    }
}

/// Whether two versions of a pool lead to the same plan: the same spec, the same leader and the same
/// reservations.
pub(super) fn has_same_plan_inputs(planned: &BurstPool, current: &BurstPool) -> bool {
    fn inputs(pool: &BurstPool) -> impl PartialEq + '_ {
        let (meta, status) = (&pool.metadata, pool.status.as_ref());
        let spec = (&meta.uid, meta.generation, &meta.deletion_timestamp);
        let reserved = status.map_or(&[][..], |status| &status.reservations);
        (spec, leader(pool), reserved)
    }
    inputs(planned) == inputs(current)
}
