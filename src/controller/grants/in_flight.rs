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
mod tests {
    use serde_json::json;

    use super::super::fixtures::{
        ScriptedServer, apply_patch, decision, executor, pool, term_counter,
    };
    use super::super::leadership::PoolLeaderState;
    use super::*;
    use crate::api::LossSet;
    use crate::api::names::GRANTED_AT_ANNOTATION;
    use crate::burst::decision::SlotState;
    use crate::burst::leader_state::PatchOutcome;
    use crate::burst::{BurstPlan, PodFacts, PodOutcome};

    #[tokio::test]
    async fn another_term_of_a_pool_is_planned_only_when_no_grant_is_in_flight() {
        let (own_pool, other_pool) = (pool("1", "us-1"), pool("1", "them-1"));
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        // The pod has changed and does not wait now.
        let executor = executor(&own_pool, &[], &ScriptedServer::new().1);
        let decision = decision("web-1", SlotState::Reserved);
        state
            .in_flight
            .send(&decision, &executor, &mut state.leader_state);
        assert_eq!(
            state.leader_state.patch_outcome(&decision.pod),
            PatchOutcome::Pending
        );
        assert!(
            state.drain_results(&own_pool),
            "others may be granted meanwhile"
        );
        assert!(!state.drain_results(&other_pool));

        executor.parts.cache.changed.notified().await;
        assert!(state.drain_results(&other_pool));
        assert!(state.in_flight.is_idle());
    }

    #[tokio::test]
    async fn cancelled_and_unwanted_grants_are_answered() {
        let own_pool = pool("1", "us-1");
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let executor = executor(&own_pool, &["web-1"], &ScriptedServer::new().1);
        executor.grant_sender.cancel.cancel();
        let decision = decision("web-1", SlotState::Reserved);
        state
            .in_flight
            .send(&decision, &executor, &mut state.leader_state);
        executor.parts.cache.changed.notified().await;
        assert!(state.drain_results(&own_pool) && state.in_flight.is_idle());
        assert_eq!(
            state.leader_state.patch_outcome(&decision.pod),
            PatchOutcome::Unknown
        );

        let grant = |pool: BurstPool| GrantRequest {
            parts: executor.parts.clone(),
            pool: Arc::new(pool),
            pod: None,
            decision: decision.clone(),
            notifier: executor.grant_sender.notifier.clone(),
        };
        assert!(grant(own_pool).is_still_wanted("shop"));
        assert!(!grant(pool("1", "them-1")).is_still_wanted("shop"));
        assert!(!grant(pool("1", "us-1")).is_still_wanted("another"));
    }

    #[tokio::test]
    async fn a_grant_is_not_sent_if_the_pool_no_longer_accepts_what_the_pod_loses() {
        let accepting = |losses: &[&str]| {
            let mut pool = pool("1", "us-1");
            let web =
                json!({"name": "web", "selector": {"namespaceSelector": {}, "podSelector": {}}});
            pool.spec.workloads = vec![serde_json::from_value(web).expect("a workload")];
            pool.spec.spill = serde_json::from_value(json!({"accept": losses})).expect("limits");
            pool
        };
        let planned_with = accepting(&["fsGroup", "seccomp"]);
        let mut decision = decision("web-1", SlotState::Reserved);
        decision.outcome = PodOutcome::Grant {
            placement: "a".to_owned(),
            not_kept: LossSet::from_annotation("fsGroup"),
        };
        for (now, is_wanted) in [
            (planned_with.clone(), true),
            (accepting(&["fsGroup"]), true),
            (accepting(&["seccomp"]), false),
            (accepting(&[]), false),
            (pool("1", "us-1"), false),
        ] {
            // The pool in the cache is newer than that of the plan.
            let executor = executor(&now, &["web-1"], &ScriptedServer::new().1);
            let grant = GrantRequest {
                parts: executor.parts.clone(),
                pool: Arc::new(planned_with.clone()),
                pod: None,
                decision: decision.clone(),
                notifier: executor.grant_sender.notifier.clone(),
            };
            assert_eq!(grant.is_still_wanted("shop"), is_wanted, "{:?}", now.spec);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_without_an_answer_gets_one_event_when_its_pod_shows_it() {
        let own_pool = pool("1", "us-1");
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let (mut server, client) = ScriptedServer::new();
        let mut executor = executor(&own_pool, &["done", "undone", "again"], &client);
        let mut labelled = std::collections::HashMap::new();
        for name in ["done", "undone", "again"] {
            let decision = decision(name, SlotState::Reserved);
            state
                .in_flight
                .send(&decision, &executor, &mut state.leader_state);
            let mut call = server.expect(&format!("PATCH pods/{name}")).await;
            if name == "again" {
                // The pod gets the grant of another writer.
                let annotations = &mut call.body[3]["value"];
                annotations[GRANTED_AT_ANNOTATION] = "2026-01-01T00:00:00Z".into();
            }
            let pod = apply_patch(name, &call.body);
            if name != "undone" {
                let facts = PodFacts::from_pod(&pod).expect("a pod");
                labelled.insert(name.to_owned(), Arc::new(facts));
            }
            drop(call);
            executor.parts.cache.changed.notified().await;
            assert!(state.drain_results(&own_pool));
        }
        executor.execute(&BurstPlan::default(), &mut state).await;
        assert_eq!(server.events().await, Vec::<String>::new());
        let mut snapshot = (*executor.snapshot).clone();
        snapshot.labelled = labelled;
        executor.snapshot = Arc::new(snapshot);
        for _ in 0..2 {
            executor.execute(&BurstPlan::default(), &mut state).await;
            assert_eq!(server.events().await, ["Granted done"]);
        }
    }
}
