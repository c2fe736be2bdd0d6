//! Grants in flight. Each is sent on its own, while the next plans are made and reserved.
//!
//! In: decisions whose reservations are written. Out: the answers, which go to [`LeaderState`] before the next
//! plan. Until then a pod keeps its slot: it is neither granted again nor released.
//!
//! While grants of a pool are in flight, its UID and leadership term must not change. The pool is planned under
//! a new UID or term only after all of them have been answered. If the answer of a grant was lost, its Event is
//! written when a watch shows the pod with the grant.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::events::ResultNotifier;
use super::executor::{Executor, ExecutorParts, MAX_CONCURRENT_CALLS, RETRY_INTERVAL, grant_pod};
use super::leadership::leader;
use super::patches::{self, GrantContent};
use crate::api::{BurstPool, Mode};
use crate::burst::{LeaderState, PodDecision, PodWriteResult};
use crate::controller::cache::cluster::WaitingPod;
use crate::telemetry::{Metrics, ServerClock};

/// How many grants of a pool may be in flight. Further ones are planned again once some are answered.
const MAX_IN_FLIGHT: usize = 1000;

/// How long a watch may still show that a grant without an answer took effect. API servers give up on a request
/// after one minute, and a watch may be late.
const LOST_GRANT_TTL: SignedDuration = SignedDuration::from_secs(120);

/// The result of a grant.
struct GrantResult {
    decision: PodDecision,
    /// The grant time that the patch writes to the pod. No other grant has the same time, so it identifies this
    /// one.
    sent_at: Option<Timestamp>,
    answer: PodWriteResult,
    /// When the answer came, by the operator's monotonic clock.
    answered_at: Timestamp,
}

/// The grants of a pool that are in flight.
pub(super) struct InFlightGrants {
    result_sender: mpsc::Sender<GrantResult>,
    results: mpsc::Receiver<GrantResult>,
    send_permits: Arc<Semaphore>,
    count: usize,
    /// The grants without an answer, and the grant time that each would have written.
    unanswered: Vec<(PodDecision, Timestamp)>,
}

/// The tasks that send grants, and the token that stops them.
#[derive(Clone)]
pub(super) struct GrantSender {
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    pub(super) notifier: ResultNotifier,
}

impl Default for InFlightGrants {
    fn default() -> Self {
        let (result_sender, results) = mpsc::channel(MAX_IN_FLIGHT);
        Self {
            result_sender,
            results,
            send_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_CALLS)),
            count: 0,
            unanswered: Vec::new(),
        }
    }
}

impl InFlightGrants {
    /// Sends a grant for the pod version that is reserved, unless [`MAX_IN_FLIGHT`] grants are in flight. Records
    /// it in `leader_state` now; [`InFlightGrants::drain_results`] records its answer.
    pub(super) fn send(
        &mut self,
        decision: &PodDecision,
        executor: &Executor,
        leader_state: &mut LeaderState,
    ) {
        // Each grant reserves a place in the channel for its answer before it is sent, so that no answer is
        // lost or blocked.
        let Ok(result_permit) = self.result_sender.clone().try_reserve_owned() else {
            return;
        };
        leader_state.record_patch_sent(&decision.pod);
        self.count += 1;
        let grant = GrantRequest {
            parts: executor.parts.clone(),
            pool: executor.pool.clone(),
            pod: executor.snapshot.waiting.get(&decision.pod.uid).cloned(),
            decision: decision.clone(),
            notifier: executor.grant_sender.notifier.clone(),
        };
        let answer_guard = AnswerGuard {
            permit: Some(result_permit),
            changed: executor.parts.cache.changed.clone(),
            clock: executor.parts.cache.clock.clone(),
            decision: decision.clone(),
            sent_at: None,
            answer: PodWriteResult::Lost,
        };
        let permits = self.send_permits.clone();
        let GrantSender { tasks, cancel, .. } = executor.grant_sender.clone();
        let sending = cancel.run_until_cancelled_owned(async move {
            // The semaphore is never closed.
            let permit = permits.acquire().await;
            let sent_at = grant.parts.cache.clock.now();
            let answer = grant.execute(sent_at).await;
            if answer == PodWriteResult::Lost {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            drop(permit);
            if answer == PodWriteResult::Gone {
                // The cache still has the pod for a moment, and the loop would send the grant again at once.
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            answer_guard.complete(answer, sent_at);
        });
        tasks.spawn(sending.in_current_span());
    }

    /// Records in `leader_state` the answers that came since the last call.
    pub(super) fn drain_results(&mut self, leader_state: &mut LeaderState) {
        while let Ok(result) = self.results.try_recv() {
            self.count -= 1;
            if let Some(sent_at) = result
                .sent_at
                .filter(|_| result.answer == PodWriteResult::Lost)
            {
                self.unanswered.push((result.decision.clone(), sent_at));
            }
            if let PodWriteResult::Unmarked(why) = &result.answer {
                leader_state.record_unmarkable(
                    &result.decision.workload,
                    why.clone(),
                    result.answered_at,
                );
            }
            leader_state.record_grant_answer(
                &result.decision.pod,
                result.answer,
                result.answered_at,
            );
        }
    }

    /// Publishes the Events of grants whose answers were lost, if the snapshot shows that they took effect.
    pub(super) fn confirm_unanswered(&mut self, executor: &Executor) {
        let now = executor.parts.cache.clock.now();
        self.unanswered.retain(|(decision, sent_at)| {
            let labelled = executor.snapshot.labelled.get(&decision.pod.uid);
            let granted_at = labelled.and_then(|pod| pod.grant.as_ref()?.granted_at);
            let took_effect = granted_at == Some(*sent_at);
            if took_effect {
                executor.grant_sender.notifier.notify_granted(decision);
                count_losses(&executor.parts.metrics, &executor.pool_name, decision);
            }
            // A grant with another time may be an older one.
            !took_effect && now.duration_since(*sent_at) < LOST_GRANT_TTL
        });
    }

    /// Whether no grant is in flight, as far as [`InFlightGrants::drain_results`] has recorded answers.
    pub(super) fn is_idle(&self) -> bool {
        self.count == 0
    }
}

/// Guard: sends an answer when it is dropped, however the grant ends. Otherwise the grant would stay in flight
/// for good.
struct AnswerGuard {
    /// The reserved place in the channel, until the answer is sent.
    permit: Option<mpsc::OwnedPermit<GrantResult>>,
    changed: Arc<Notify>,
    clock: Arc<ServerClock>,
    decision: PodDecision,
    sent_at: Option<Timestamp>,
    answer: PodWriteResult,
}

impl AnswerGuard {
    fn complete(mut self, answer: PodWriteResult, sent_at: Timestamp) {
        self.answer = answer;
        self.sent_at = Some(sent_at);
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        let result = GrantResult {
            decision: self.decision.clone(),
            sent_at: self.sent_at,
            answer: self.answer.clone(),
            answered_at: self.clock.steady(),
        };
        if let Some(permit) = self.permit.take() {
            // If the pool's state has been dropped, there is no receiver.
            drop(permit.send(result));
        }
        self.changed.notify_one();
    }
}

/// One grant, with only as much of its plan as it needs.
struct GrantRequest {
    parts: Arc<ExecutorParts>,
    pool: Arc<BurstPool>,
    pod: Option<WaitingPod>,
    decision: PodDecision,
    notifier: ResultNotifier,
}

/// Counts what a granted pod loses on ACI.
fn count_losses(metrics: &Metrics, pool: &str, decision: &PodDecision) {
    for loss in decision.not_kept().iter() {
        metrics.count_loss(pool, loss.name());
    }
}

impl GrantRequest {
    async fn execute(&self, now: Timestamp) -> PodWriteResult {
        let (id, name) = (&self.decision.pod, self.pool.name_any());
        let answer = match self.pod.as_ref().and_then(WaitingPod::pod) {
            Some(_) if !self.is_still_wanted(&name) => PodWriteResult::Unsent,
            Some(pod) => {
                let grant = GrantContent {
                    pool: &name,
                    workload: &self.decision.workload,
                    not_kept: self.decision.not_kept(),
                    now,
                };
                let patch = patches::grant_patch(&pod, &id.resource_version, grant);
                grant_pod(&self.parts, id, &patch, grant).await
            }
            None => PodWriteResult::Conflict,
        };
        tracing::info!(
            pod = %format!("{}/{}", id.namespace, id.name),
            ?answer,
            "sent a grant"
        );
        self.parts
            .metrics
            .count_grant(&name, metric_outcome(&answer));
        match &answer {
            PodWriteResult::Granted => {
                count_losses(&self.parts.metrics, &name, &self.decision);
                self.notifier.notify_granted(&self.decision);
            }
            PodWriteResult::Unmarked(why) => self.notifier.notify_incomplete(&self.decision, why),
            _ => {}
        }
        answer
    }

    /// Whether the pool still exists with the same leader, is not being deleted, is not in dry-run mode, and still
    /// accepts what the pod loses. A grant may have waited long for a permit of the semaphore.
    fn is_still_wanted(&self, name: &str) -> bool {
        self.parts.cache.pool(name).is_some_and(|pool| {
            pool.uid() == self.pool.uid()
                && pool.metadata.deletion_timestamp.is_none()
                && pool.spec.mode != Mode::DryRun
                && leader(&pool) == leader(&self.pool)
                && self.is_accepted_by(&pool)
        })
    }

    /// Whether `pool` accepts everything that the pod loses.
    fn is_accepted_by(&self, pool: &BurstPool) -> bool {
        let mut workloads = pool.spec.workloads.iter();
        let workload = workloads.find(|workload| workload.name == self.decision.workload);
        let accepted = workload.map(|workload| pool.spec.spill.accepted_losses(workload));
        let accepts = |loss| accepted.as_ref().is_some_and(|all| all.contains(loss));
        self.decision.not_kept().iter().all(accepts)
    }
}

/// The value of the metric's label for an answer.
fn metric_outcome(answer: &PodWriteResult) -> &'static str {
    match answer {
        PodWriteResult::Granted => "granted",
        PodWriteResult::Conflict => "conflict",
        PodWriteResult::Gone => "gone",
        PodWriteResult::Denied(_) => "denied",
        PodWriteResult::Unmarked(_) => "unmarked",
        PodWriteResult::Lost => "lost",
        PodWriteResult::Unsent => "unsent",
    }
}

#[cfg(test)]
mod tests;
