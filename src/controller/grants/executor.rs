//! Executes a plan: claim, count, reserve, then grant (decisions D1 and D1a).
//!
//! In: a [`BurstPlan`]. Out: writes to the pool's status and to pods; the answers go to
//! [`LeaderState`](crate::burst::LeaderState) and to the cache. Grants are only started here: they stay in
//! flight ([`InFlightGrants`](super::in_flight::InFlightGrants)). This module decides nothing; the next plan
//! covers what was not done.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::Status;
use serde_json::json;

use super::in_flight::GrantSender;
use super::leadership::{PoolLeaderState, leader};
use super::{ControllerContext, patches};
use crate::api::names::{GRANTED_UID_ANNOTATION, LEADER_FIELD_MANAGER, POOL_LABEL};
use crate::api::{BurstPool, Reservation};
use crate::burst::decision::{PodDecision, SlotState};
use crate::burst::facts::pod::provider_taint;
use crate::burst::leader_state::PodWrite;
use crate::burst::plan::{Precondition, RefusedSinceStamp};
use crate::burst::rules::expiry::GrantExpiry;
use crate::burst::{BurstPlan, PodFacts, PodReference, PodWriteResult};
use crate::controller::LEASE_NAME;
use crate::controller::cache::cluster::Snapshot;
use crate::k8s::backoff::doubled;
use crate::k8s::call;
use crate::k8s::refused::is_refused;
use crate::node::watched_pod::WatchedPod;

/// How many pods are read or patched at the same time.
pub(super) const MAX_CONCURRENT_CALLS: usize = 16;
/// The timeout of a call.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause after the API server refused a write of the pool's status. The first pause is
/// [`RETRY_INTERVAL`], and each further one is twice as long.
const MAX_STATUS_BACKOFF: Duration = Duration::from_secs(10);

/// The pause after a call that the API server did not answer, or rejected because of load.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Executes the plan of one pool.
pub(super) struct Executor {
    pub context: Arc<ControllerContext>,
    pub snapshot: Arc<Snapshot>,
    pub pool: Arc<BurstPool>,
    pub pool_name: String,
    pub grant_sender: GrantSender,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteOutcome {
    Written,
    /// The pool has another version, or does not exist.
    Conflict,
    /// The API server refused it before it processed it, so the write can never take effect.
    Refused,
    /// Unknown: the write may have taken effect, or may still do so.
    Unknown,
}

impl Executor {
    /// Executes `plan`. Returns `true` if another plan is needed at once.
    pub async fn execute(&self, plan: &BurstPlan, state: &mut PoolLeaderState) -> bool {
        match plan.precondition {
            Precondition::ClaimLeadership => {
                state.is_claimed =
                    self.holds_lease().await && self.write_reservations(plan, state).await;
                return state.is_claimed;
            }
            Precondition::CountPods => {
                state.is_counted = self.list_labelled_pods().await;
                return state.is_counted;
            }
            Precondition::Met => {}
        }
        state.in_flight.confirm_unanswered(self);
        // Dry-run mode writes nothing to pods. An unconfirmed write may still take effect and remove a reservation.
        let may_use_reservations =
            !plan.is_dry_run && !state.unconfirmed_write.is_pending(&self.pool);
        let (reserved, unreserved): (Vec<_>, Vec<_>) = plan
            .grants()
            .partition(|decision| may_use_reservations && decision.slot == SlotState::Reserved);
        // These grants need no further write of the pool, so they do not wait for it.
        self.send_grants(reserved, state);
        if plan.must_write_reservations && !self.write_reservations(plan, state).await {
            // Without its reservation a pod may not be granted: plan again first.
            return true;
        }
        let may_write = !plan.is_dry_run && (plan.must_write_reservations || may_use_reservations);
        if may_write {
            self.send_grants(unreserved, state);
        }
        self.look_up_reserved_pods(&plan.unwatched_reservations, state)
            .await;
        if plan.is_dry_run {
            return false;
        }
        if !may_write {
            self.resolve_unconfirmed_write(state).await;
            return true;
        }
        let released = self.release_reservations(&plan.releases, state).await;
        self.annotate_refused_since(&plan.refused_since_stamps, state)
            .await;
        self.rescue(&plan.never_started, state).await;
        self.expire(&plan.expiries, state).await;
        released
    }

    fn send_grants(&self, grants: Vec<&PodDecision>, state: &mut PoolLeaderState) {
        for decision in grants {
            state
                .in_flight
                .send(decision, self, &mut state.leader_state);
        }
    }

    /// Whether this instance holds the leader's Lease, read from the API server. An instance that was suspended
    /// and does not know yet that it has lost the Lease must not claim a pool that its successor leads.
    async fn holds_lease(&self) -> bool {
        let namespace = &self.context.lease_namespace;
        let leases: Api<Lease> = Api::namespaced(self.context.client_no_retry.clone(), namespace);
        match tokio::time::timeout(CALL_TIMEOUT, leases.get(LEASE_NAME)).await {
            Ok(Ok(lease)) => {
                let holder = lease.spec.and_then(|spec| spec.holder_identity);
                holder.as_ref() == Some(&self.context.identity)
            }
            Ok(Err(error)) => {
                tracing::warn!(pool = self.pool_name, %error, "reading the leader's lease");
                false
            }
            Err(_) => false,
        }
    }

    /// Writes the leader and the reservations into the pool's status, if the pool has not changed since it was
    /// planned. Returns whether they are written.
    async fn write_reservations(&self, plan: &BurstPlan, state: &mut PoolLeaderState) -> bool {
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
                state.refused_writes = 0;
                state
                    .leader_state
                    .record_reservations_written(self.context.cache.clock.steady());
            }
            WriteOutcome::Conflict => {}
            WriteOutcome::Refused => {
                // No grant is possible without this write: the pool waits, longer each time.
                let pause = doubled(RETRY_INTERVAL, state.refused_writes, MAX_STATUS_BACKOFF);
                state.refused_writes = state.refused_writes.saturating_add(1);
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
    async fn resolve_unconfirmed_write(&self, state: &mut PoolLeaderState) {
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
        let pools: Api<BurstPool> = Api::all(self.context.client_no_retry.clone());
        let pool = match tokio::time::timeout(CALL_TIMEOUT, pools.get(&self.pool_name)).await {
            Ok(Ok(pool)) => pool,
            Ok(Err(error)) => {
                tracing::warn!(pool = self.pool_name, %error, "reading the pool again");
                return None;
            }
            Err(_) => return None,
        };
        self.context.cache.update_pool(pool.clone());
        Some(pool)
    }

    async fn patch_status(
        &self,
        pool: &BurstPool,
        plan: &BurstPlan,
        identity: &str,
    ) -> WriteOutcome {
        let pools: Api<BurstPool> = Api::all(self.context.client_no_retry.clone());
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
                self.context.cache.update_pool(pool);
                WriteOutcome::Written
            }
            Ok(Err(kube::Error::Api(status)))
                if status.is_conflict() || call::is_object_not_found(&status) =>
            {
                WriteOutcome::Conflict
            }
            Ok(Err(error)) => {
                tracing::warn!(pool = self.pool_name, %error, "writing reservations");
                failed_write_outcome(&error)
            }
            Err(_) => {
                tracing::warn!(pool = self.pool_name, "writing reservations: no answer");
                WriteOutcome::Unknown
            }
        }
    }

    /// Lists the pods with the pool's label in a consistent read from the API server, not from a cache. Returns
    /// whether that succeeded.
    async fn list_labelled_pods(&self) -> bool {
        // `WatchedPod` accepts every pod: one unusual pod must not stop the pool.
        let pods: Api<WatchedPod> = Api::all(self.context.client_no_retry.clone());
        let labelled = ListParams::default().labels(&format!("{POOL_LABEL}={}", self.pool_name));
        match tokio::time::timeout(CALL_TIMEOUT.saturating_mul(4), pods.list(&labelled)).await {
            Ok(Ok(pods)) => {
                for observed in pods.items {
                    self.context.cache.update_pod(observed.pod);
                }
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(pool = self.pool_name, %error, "counting the pool's pods");
                false
            }
            Err(_) => false,
        }
    }

    /// Reads, by name, reserved pods that no watch has delivered.
    async fn look_up_reserved_pods(
        &self,
        reservations: &[Reservation],
        state: &mut PoolLeaderState,
    ) {
        let found = futures::stream::iter(reservations).map(async |reservation| {
            let client = self.context.client_no_retry.clone();
            let pods: Api<Pod> = Api::namespaced(client, &reservation.namespace);
            let found = call::find(CALL_TIMEOUT, &pods, &reservation.name).await;
            Some((reservation, found.ok()?))
        });
        let found: Vec<_> = found.buffer_unordered(MAX_CONCURRENT_CALLS).collect().await;
        for (reservation, found) in found.into_iter().flatten() {
            let facts = found.as_ref().and_then(PodFacts::from_pod);
            state
                .leader_state
                .record_lookup(reservation, facts.as_ref());
            if let Some(pod) = found {
                self.context.cache.update_pod(pod);
            }
        }
    }

    /// Sends each pending pod of `targets` the patch that `patch` makes for it. Returns the targets with the API
    /// server's answers; a pod that is no longer pending counts as a conflict.
    async fn patch_waiting<'t, T: Sync>(
        &self,
        targets: &'t [T],
        id: fn(&T) -> &PodReference,
        patch: impl Fn(&Pod, &T) -> Patch<()> + Sync,
    ) -> Vec<(&'t T, PodWriteResult)> {
        let sent = futures::stream::iter(targets).map(async |target| {
            let id = id(target);
            let Some(pod) = self.snapshot.waiting_pod(&id.uid) else {
                return (target, PodWriteResult::Conflict);
            };
            let patch = patch(&pod, target);
            (target, patch_pod(&self.context, id, &patch).await)
        });
        sent.buffer_unordered(MAX_CONCURRENT_CALLS).collect().await
    }

    /// Invalidates grants in flight, so that their reservations can be removed. Returns `true` if there were
    /// any.
    async fn release_reservations(
        &self,
        releases: &[PodReference],
        state: &mut PoolLeaderState,
    ) -> bool {
        let clock = &self.context.cache.clock;
        let patch = |pod: &Pod, id: &PodReference| {
            patches::release_patch(pod, &id.resource_version, clock.now())
        };
        let answers = self.patch_waiting(releases, |id| id, patch).await;
        for (pod, answer) in &answers {
            tracing::info!(
                pool = self.pool_name,
                pod = %format!("{}/{}", pod.namespace, pod.name),
                ?answer,
                "releasing a reservation"
            );
            state
                .leader_state
                .record_write(pod, PodWrite::Release, answer, clock.steady());
        }
        !answers.is_empty()
    }

    async fn annotate_refused_since(
        &self,
        stamps: &[RefusedSinceStamp],
        state: &mut PoolLeaderState,
    ) {
        let clock = &self.context.cache.clock;
        let patch = |pod: &Pod, stamp: &RefusedSinceStamp| {
            patches::refused_since_patch(pod, &stamp.pod.resource_version, stamp.since)
        };
        // The leader state keeps a time that was not written; only a restart before the next try loses it.
        for (RefusedSinceStamp { pod, .. }, answer) in
            &self.patch_waiting(stamps, |stamp| &stamp.pod, patch).await
        {
            if let PodWriteResult::Denied(why) = answer {
                let pod = format!("{}/{}", pod.namespace, pod.name);
                tracing::warn!(pool = self.pool_name, %pod, %why, "recording since when a pod is refused");
            }
            state
                .leader_state
                .record_write(pod, PodWrite::RefusedSince, answer, clock.steady());
        }
    }

    async fn expire(&self, expiries: &[GrantExpiry], state: &mut PoolLeaderState) {
        let clock = &self.context.cache.clock;
        let patch = |pod: &Pod, expiry: &GrantExpiry| {
            patches::expire_patch(pod, &expiry.pod.resource_version, clock.now())
        };
        for (expiry, answer) in &self
            .patch_waiting(expiries, |expiry| &expiry.pod, patch)
            .await
        {
            let GrantExpiry { pod, why } = expiry;
            let name = format!("{}/{}", pod.namespace, pod.name);
            tracing::warn!(pool = self.pool_name, pod = %name, ?answer, %why, "expiring a grant");
            if *answer == PodWriteResult::Granted {
                self.grant_sender.notifier.notify_expired(expiry);
            }
            state
                .leader_state
                .record_write(pod, PodWrite::Expire, answer, clock.steady());
        }
    }
}

/// Whether a failed write may still take effect. Client errors are definite, 429 as well: the API server
/// rejects a request for which it has no capacity before it processes it. Only 408 means that the request timed
/// out during processing.
fn failed_write_outcome(error: &kube::Error) -> WriteOutcome {
    match error {
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 408 => {
            WriteOutcome::Refused
        }
        _ => WriteOutcome::Unknown,
    }
}

/// Patches a pod, and updates the cache with the answer.
async fn patch_pod(
    context: &ControllerContext,
    id: &PodReference,
    patch: &Patch<()>,
) -> PodWriteResult {
    match send_patch(context, id, patch).await {
        Ok(pod) => {
            context.cache.update_pod(pod);
            PodWriteResult::Granted
        }
        Err(answer) => answer,
    }
}

/// Patches a pod with a grant of `pool`. The answer shows what mutating admission policies and webhooks left of
/// the patch.
pub(super) async fn grant_pod(
    context: &ControllerContext,
    id: &PodReference,
    patch: &Patch<()>,
    pool: &str,
) -> PodWriteResult {
    let pod = match send_patch(context, id, patch).await {
        Ok(pod) => pod,
        Err(answer) => return answer,
    };
    let facts = PodFacts::from_pod(&pod);
    context.cache.update_pod(pod);
    match facts {
        Some(facts) if !facts.is_granted_by(pool) => incomplete_grant(&facts, pool),
        _ => PodWriteResult::Granted,
    }
}

/// The result of a grant that the API server applied only in part.
fn incomplete_grant(facts: &PodFacts, pool: &str) -> PodWriteResult {
    let removed = |what: &str| {
        format!(
            "a mutating admission policy or webhook removed {what} from the grant: exempt from it what \
             burstpool's service account writes"
        )
    };
    if facts.node_constraints.tolerates(&provider_taint(pool)) {
        let marks = format!("the label {POOL_LABEL} or the annotation {GRANTED_UID_ANNOTATION}");
        PodWriteResult::Unmarked(removed(&marks))
    } else {
        PodWriteResult::Denied(removed("the toleration"))
    }
}

async fn send_patch(
    context: &ControllerContext,
    id: &PodReference,
    patch: &Patch<()>,
) -> Result<Pod, PodWriteResult> {
    let pods: Api<Pod> = Api::namespaced(context.client_no_retry.clone(), &id.namespace);
    let manager = leader_patch_params();
    let sent = pods.patch(&id.name, &manager, patch);
    match tokio::time::timeout(CALL_TIMEOUT, sent).await {
        Ok(Ok(pod)) => Ok(pod),
        Ok(Err(kube::Error::Api(status))) => Err(answer_for_error(*status)),
        Ok(Err(_)) | Err(_) => Err(PodWriteResult::Lost),
    }
}

/// Whether two versions of a pool lead to the same plan: the same spec, the same leader and the same
/// reservations.
fn has_same_plan_inputs(planned: &BurstPool, current: &BurstPool) -> bool {
    fn inputs(pool: &BurstPool) -> impl PartialEq + '_ {
        let (meta, status) = (&pool.metadata, pool.status.as_ref());
        let spec = (&meta.uid, meta.generation, &meta.deletion_timestamp);
        let reserved = status.map_or(&[][..], |status| &status.reservations);
        (spec, leader(pool), reserved)
    }
    inputs(planned) == inputs(current)
}

fn leader_patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(LEADER_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Converts the error of a patch. A 404 from a proxy says nothing about the pod.
pub(super) fn answer_for_error(status: Status) -> PodWriteResult {
    match status.code {
        404 if call::is_object_not_found(&status) => PodWriteResult::Gone,
        404 => PodWriteResult::Lost,
        409 => PodWriteResult::Conflict,
        _ if is_refused(&status) => PodWriteResult::Denied(status.message),
        _ => PodWriteResult::Lost,
    }
}

#[cfg(test)]
mod tests;
