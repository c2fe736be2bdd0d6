//! Executes a plan: claim, count, reserve, then grant (decisions D1 and D1a).
//!
//! In: a [`BurstPlan`]. Out: writes to the pool's status and to pods; the answers go to
//! [`LeaderState`](crate::burst::LeaderState) and to the cache. Grants are only started here: they stay in
//! flight ([`InFlightGrants`](super::in_flight::InFlightGrants)). This module decides nothing; the next plan
//! covers what was not done.

mod pod_writes;
mod pool_writes;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

use super::in_flight::GrantSender;
use super::leadership::PoolLeaderState;
use super::patches;
use crate::api::names::POOL_LABEL;
use crate::api::{BurstPool, Reservation};
use crate::burst::decision::{PodDecision, RefusedSinceStamp, SlotState};
use crate::burst::leader_state::PodWrite;
use crate::burst::plan::Precondition;
use crate::burst::rules::expiry::GrantExpiry;
use crate::burst::{BurstPlan, PodFacts, PodReference, PodWriteResult};
use crate::controller::cache::cluster::{ClusterCache, Snapshot};
use crate::k8s::call;
use crate::node::watched_pod::WatchedPod;
use crate::telemetry::Metrics;

pub(super) use self::pod_writes::{answer_for_error, grant_pod};

/// How many pods are read or patched at the same time.
pub(super) const MAX_CONCURRENT_CALLS: usize = 16;
/// The timeout of a call.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a call that the API server did not answer, or rejected because of load.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What executing plans needs; the same for all pools.
pub struct ExecutorParts {
    /// The Kubernetes client, without retries: a later plan decides again about what is not answered.
    pub client: Client,
    /// The watched objects. Answers to writes and reads go there, before a watch delivers them.
    pub cache: Arc<ClusterCache>,
    /// The identity of this instance of the operator, as holder of the leader's Lease.
    pub identity: String,
    /// The namespace of the leader's Lease.
    pub lease_namespace: String,
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
}

/// Executes the plan of one pool.
pub(super) struct Executor {
    pub parts: Arc<ExecutorParts>,
    pub snapshot: Arc<Snapshot>,
    pub pool: Arc<BurstPool>,
    pub pool_name: String,
    pub grant_sender: GrantSender,
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

    /// Lists the pods with the pool's label in a consistent read from the API server, not from a cache. Returns
    /// whether that succeeded.
    async fn list_labelled_pods(&self) -> bool {
        // `WatchedPod` accepts every pod: one unusual pod must not stop the pool.
        let pods: Api<WatchedPod> = Api::all(self.parts.client.clone());
        let labelled = ListParams::default().labels(&format!("{POOL_LABEL}={}", self.pool_name));
        match tokio::time::timeout(CALL_TIMEOUT.saturating_mul(4), pods.list(&labelled)).await {
            Ok(Ok(pods)) => {
                for observed in pods.items {
                    self.parts.cache.update_pod(observed.pod);
                }
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot list the pool's pods");
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
            let client = self.parts.client.clone();
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
                self.parts.cache.update_pod(pod);
            }
        }
    }

    /// Invalidates grants in flight, so that their reservations can be removed. Returns `true` if there were
    /// any.
    async fn release_reservations(
        &self,
        releases: &[PodReference],
        state: &mut PoolLeaderState,
    ) -> bool {
        let clock = &self.parts.cache.clock;
        let patch = |pod: &Pod, id: &PodReference| {
            patches::release_patch(pod, &id.resource_version, clock.now())
        };
        let answers = self.patch_waiting(releases, |id| id, patch).await;
        for (pod, answer) in &answers {
            tracing::info!(
                pod = %format!("{}/{}", pod.namespace, pod.name),
                ?answer,
                "tried to release a reservation"
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
        let clock = &self.parts.cache.clock;
        let patch = |pod: &Pod, stamp: &RefusedSinceStamp| {
            patches::refused_since_patch(pod, &stamp.pod.resource_version, stamp.since)
        };
        // The leader state keeps a time that was not written; only a restart before the next try loses it.
        for (RefusedSinceStamp { pod, .. }, answer) in
            &self.patch_waiting(stamps, |stamp| &stamp.pod, patch).await
        {
            if let PodWriteResult::Denied(why) = answer {
                let pod = format!("{}/{}", pod.namespace, pod.name);
                tracing::warn!(%pod, %why, "cannot record since when a pod is unschedulable");
            }
            state
                .leader_state
                .record_write(pod, PodWrite::RefusedSince, answer, clock.steady());
        }
    }

    async fn expire(&self, expiries: &[GrantExpiry], state: &mut PoolLeaderState) {
        let clock = &self.parts.cache.clock;
        let patch = |pod: &Pod, expiry: &GrantExpiry| {
            patches::expire_patch(pod, &expiry.pod.resource_version, clock.now())
        };
        for (expiry, answer) in &self
            .patch_waiting(expiries, |expiry| &expiry.pod, patch)
            .await
        {
            let GrantExpiry { pod, why } = expiry;
            let name = format!("{}/{}", pod.namespace, pod.name);
            tracing::warn!(pod = %name, ?answer, %why, "tried to expire a grant");
            if *answer == PodWriteResult::Granted {
                self.grant_sender.notifier.notify_expired(expiry);
            }
            state
                .leader_state
                .record_write(pod, PodWrite::Expire, answer, clock.steady());
        }
    }
}

#[cfg(test)]
mod tests;
