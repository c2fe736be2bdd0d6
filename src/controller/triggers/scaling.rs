//! Scales a workload: writes the replicas of its target through `/scale`.
//!
//! In: the states of the triggers, the target's scale, and other autoscalers of the target. Out: one write for
//! each change, with the resource version that was read; an Event on the target that names the trigger; and the
//! workload's part of the status. `scale` makes the decisions.

mod decision;
mod replica_writer;
mod request;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::TriggerContext;
use super::other_autoscalers::{self, OtherAutoscaler};
use crate::api::{ScaleStatus, Target};
use crate::controller::cache::scales as scale_cache;
use crate::k8s::events;
use crate::scale::{DesiredReplicas, ReplicaStep, ScalingHistory};
use crate::trigger::ReplicaProposal;
use decision::{ScalingDecision, decide, decision_message};
pub(super) use request::{ScalingRequest, ensure};

/// How often a workload is evaluated if nothing changes: the interval of the `HorizontalPodAutoscaler`.
const RESYNC_INTERVAL: Duration = Duration::from_secs(15);
/// Debounce of changed trigger states.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How soon a workload is evaluated again after its write conflicted with another.
const CONFLICT_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of evaluating a workload's scaling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::controller) struct ScalingState {
    /// The workload's part of the status.
    pub status: ScaleStatus,
    /// Another autoscaler that sets the replicas.
    pub other_autoscaler: OtherAutoscaler,
    /// An error in the spec, as text.
    pub spec_error: Option<String>,
}

/// The scaling task of one workload.
struct WorkloadScaler {
    context: Arc<TriggerContext>,
    pool: String,
    workload: String,
    history: ScalingHistory,
    writer: replica_writer::ReplicaWriter,
    /// Cancelled when the spec no longer scales the workload.
    cancel: CancellationToken,
}

impl WorkloadScaler {
    /// Evaluates at every change of the request or of the named triggers, and every [`RESYNC_INTERVAL`].
    async fn run(mut self, mut requests: watch::Receiver<ScalingRequest>) {
        let mut states = self.context.states.subscribe();
        loop {
            states.borrow_and_update();
            let request = requests.borrow_and_update().clone();
            let proposals = self.proposals(&request);
            let scaling = self.reconcile_once(&request).await;
            let interval = if scaling.is_some() {
                RESYNC_INTERVAL
            } else {
                CONFLICT_RETRY_INTERVAL
            };
            if let Some(scaling) = scaling {
                self.publish(&scaling);
            }
            // Wake up only for the triggers that this workload names: `states` has those of all pools. The senders
            // outlive this task.
            let proposals_change = async {
                while states.changed().await.is_ok() && self.proposals(&request) == proposals {}
            };
            tokio::select! {
                () = proposals_change => tokio::time::sleep(DEBOUNCE).await,
                _ = requests.changed() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    fn publish(&self, scaling: &ScalingState) {
        let changed = self.context.scalings.send_if_modified(|scalings| {
            // As with a trigger: a late result must not bring a removed workload back.
            if self.cancel.is_cancelled() {
                return false;
            }
            let pool_scalings = scalings.entry(self.pool.clone()).or_default();
            let previous = pool_scalings.insert(self.workload.clone(), scaling.clone());
            previous.as_ref() != Some(scaling)
        });
        if changed {
            let (pool, workload) = (&self.pool, &self.workload);
            tracing::debug!(pool, workload, ?scaling, "scaling");
            self.context.status_changed.send_replace(());
        }
    }

    /// Evaluates once, and writes if the replicas must change. Returns `None` if another evaluation is needed
    /// soon.
    async fn reconcile_once(&mut self, request: &ScalingRequest) -> Option<ScalingState> {
        let other = self.find_other_autoscaler(&request.target).await;
        let mut named = request.scale.triggers.iter();
        if let Some(unknown) = named.find(|name| !request.triggers.contains(name)) {
            let error = format!(
                "workload {}: scale.triggers names '{unknown}', which spec.triggers does not have: burstpool does not scale it",
                self.workload
            );
            return Some(ScalingState {
                status: status_with_message(&error),
                spec_error: Some(error),
                other_autoscaler: other,
            });
        }
        if let OtherAutoscaler::Found(why) | OtherAutoscaler::Unknown(why) = &other {
            if matches!(other, OtherAutoscaler::Found(_)) {
                // The other autoscaler has its own history.
                self.history = ScalingHistory::default();
            }
            return Some(ScalingState {
                status: status_with_message(why),
                other_autoscaler: other,
                spec_error: None,
            });
        }
        match self.scale_target(request).await {
            Ok(status) => status.map(self::scaling_with_status),
            Err(why) => Some(scaling_with_status(status_with_message(&why))),
        }
    }

    async fn find_other_autoscaler(&self, target: &Target) -> OtherAutoscaler {
        let pools = self.context.cache.all_pools();
        let pools = pools.iter().map(Arc::as_ref);
        if let Some(other) =
            other_autoscalers::find_earlier_pool(pools, &self.pool, &self.workload, target)
        {
            return OtherAutoscaler::Found(other);
        }
        match other_autoscalers::find_autoscaler(&self.context.client, target).await {
            Ok(Some(other)) => OtherAutoscaler::Found(other),
            Ok(None) => OtherAutoscaler::NoneFound,
            Err(why) => OtherAutoscaler::Unknown(why),
        }
    }

    /// Reads the scale, decides, and writes the result. Returns `None` if another write came first.
    async fn scale_target(
        &mut self,
        request: &ScalingRequest,
    ) -> Result<Option<ScaleStatus>, String> {
        let api = scale_cache::target_api(&self.context.client, &request.target).await?;
        let scale = scale_cache::get_scale(&api, &request.target).await?;
        let (proposals, now) = (self.proposals(request), Timestamp::now());
        let ScalingDecision {
            current,
            desired,
            step,
        } = decide(&request.scale, &proposals, &scale, &mut self.history, now);
        let bounded = desired
            .replicas
            .clamp(request.scale.min_replicas, request.scale.max_replicas);
        let mut status = ScaleStatus {
            wanted: Some(i64::from(bounded)),
            trigger: desired.trigger.clone(),
            message: decision_message(&desired, &step),
        };
        if step.replicas == current {
            return Ok(Some(status));
        }
        if request.is_dry_run {
            status.message = format!(
                "mode is DryRun: replicas would be set from {current} to {}",
                step.replicas
            );
            return Ok(Some(status));
        }
        if !self
            .writer
            .write_replicas(&api, &scale, step.replicas)
            .await?
        {
            return Ok(None);
        }
        self.history.record_change(current, step.replicas, now);
        tracing::info!(
            pool = self.pool,
            workload = self.workload,
            from = current,
            to = step.replicas,
            trigger = desired.trigger,
            "scaled"
        );
        self.publish_event(request, &scale, current, &desired, &step)
            .await;
        Ok(Some(status))
    }

    /// The proposals of the triggers that the workload names. A trigger without a state yet counts as unknown.
    fn proposals(&self, request: &ScalingRequest) -> Vec<(String, ReplicaProposal)> {
        let states = self.context.states.borrow();
        let pool_states = states.get(&self.pool);
        let proposal_of = |name: &String| {
            let state = pool_states.and_then(|pool_states| pool_states.get(name));
            (
                name.clone(),
                state.map_or(ReplicaProposal::Hold, |state| state.proposal),
            )
        };
        request.scale.triggers.iter().map(proposal_of).collect()
    }

    /// Publishes an Event on the target: the new replicas, and the trigger that asked for them.
    async fn publish_event(
        &self,
        request: &ScalingRequest,
        scale: &Scale,
        from: i32,
        desired: &DesiredReplicas,
        step: &ReplicaStep,
    ) {
        let cause = match &desired.trigger {
            Some(trigger) => format!(
                "trigger {trigger} of pool {} asks for {}",
                self.pool, desired.replicas
            ),
            None if desired.held_by.is_some() => "a trigger's value is not known".to_owned(),
            None => format!("all triggers of pool {} are quiet", self.pool),
        };
        let limit = step
            .limited_by
            .map(|limit| format!("; {limit}"))
            .unwrap_or_default();
        let event = Event {
            type_: EventType::Normal,
            reason: "Scaled".to_owned(),
            note: Some(format!(
                "Set replicas from {from} to {}: {cause}{limit}",
                step.replicas
            )),
            action: "Scale".to_owned(),
            secondary: Some(request.pool.clone()),
        };
        let target = &request.target;
        let object = ObjectReference {
            api_version: Some(target.api_version.clone()),
            kind: Some(target.kind.clone()),
            namespace: Some(target.namespace.clone()),
            name: Some(target.name.clone()),
            uid: scale.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let shared = &self.context;
        let published = events::publish(&shared.client, &shared.reporter, &event, &object);
        match tokio::time::timeout(CALL_TIMEOUT, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot write an Event"),
            Err(_) => tracing::warn!("cannot write an Event: the API server does not answer"),
        }
    }
}

fn status_with_message(message: &str) -> ScaleStatus {
    ScaleStatus {
        message: message.to_owned(),
        ..ScaleStatus::default()
    }
}

fn scaling_with_status(status: ScaleStatus) -> ScalingState {
    ScalingState {
        status,
        ..ScalingState::default()
    }
}
