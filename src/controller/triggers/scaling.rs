//! Scales a workload: writes the replicas of its target through `/scale`.
//!
//! In: the states of the triggers, the target's scale, and other autoscalers of the target. Out: one write for
//! each change, with the resource version that was read; an Event on the target that names the trigger; and the
//! workload's part of the status. `scale` makes the decisions.

mod replica_writer;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::other_autoscalers::{self, OtherAutoscaler};
use super::{PoolTriggers, TriggerContext};
use crate::api::{BurstPool, Mode, ScaleStatus, Target, WorkloadScale};
use crate::controller::cache::scales as scale_cache;
use crate::k8s::events;
use crate::scale::{self, DesiredReplicas, ReplicaStep, ScalingHistory, TriggerRequest};
use crate::trigger::ReplicaProposal;

/// How often a workload is evaluated if nothing changes: the interval of the `HorizontalPodAutoscaler`.
const RESYNC_INTERVAL: Duration = Duration::from_secs(15);
/// Debounce of changed trigger states.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How soon a workload is evaluated again after its write conflicted with another.
const CONFLICT_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a pool's spec asks for a workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScalingRequest {
    target: Target,
    scale: WorkloadScale,
    /// The names of the pool's triggers.
    triggers: Vec<String>,
    is_dry_run: bool,
    pool: ObjectReference,
}

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

/// Starts, changes and ends the tasks of a pool's workloads to match its spec.
pub(super) fn ensure(pool: &BurstPool, running: &mut PoolTriggers, shared: &Arc<TriggerContext>) {
    let asked = |name: &str| {
        let workload = pool.spec.workloads.iter().find(|one| one.name == name)?;
        Some(ScalingRequest {
            target: workload.target.clone()?,
            scale: workload.scale.clone()?,
            triggers: pool
                .spec
                .triggers
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            is_dry_run: pool.spec.mode == Mode::DryRun,
            pool: pool.object_ref(&()),
        })
    };
    let name = pool.name_any();
    running.scalings.retain(|workload, (known, cancel)| {
        let wanted = asked(workload);
        let stays = wanted
            .as_ref()
            .is_some_and(|one| one.target == known.borrow().target);
        match wanted {
            Some(wanted) if stays => {
                known.send_if_modified(|known| {
                    let changed = *known != wanted;
                    *known = wanted;
                    changed
                });
            }
            _ => {
                cancel.cancel();
                shared.scalings.send_modify(|all| {
                    if let Some(all) = all.get_mut(&name) {
                        all.remove(workload);
                    }
                });
            }
        }
        stays
    });
    for workload in &pool.spec.workloads {
        let is_new = !running.scalings.contains_key(&workload.name);
        if let Some(asked) = asked(&workload.name).filter(|_| is_new) {
            let (sender, receiver) = watch::channel(asked);
            let cancel = shared.shutdown.child_token();
            let one = WorkloadScaler {
                cancel: cancel.clone(),
                context: shared.clone(),
                pool: name.clone(),
                workload: workload.name.clone(),
                history: ScalingHistory::default(),
                writer: replica_writer::ReplicaWriter::new(),
            };
            let until = cancel.clone();
            running.tasks.spawn(async move {
                tokio::select! {
                    () = one.run(receiver) => {}
                    () = until.cancelled() => {}
                }
            });
            running
                .scalings
                .insert(workload.name.clone(), (sender, cancel));
        }
    }
}

/// The scaling task of one workload.
struct WorkloadScaler {
    context: Arc<TriggerContext>,
    pool: String,
    workload: String,
    history: ScalingHistory,
    writer: replica_writer::ReplicaWriter,
    /// Cancelled when the spec does not scale the workload any longer.
    cancel: CancellationToken,
}

impl WorkloadScaler {
    async fn run(mut self, mut asked: watch::Receiver<ScalingRequest>) {
        let mut readings = self.context.states.subscribe();
        loop {
            readings.borrow_and_update();
            let wanted = asked.borrow_and_update().clone();
            let known = self.proposals(&wanted);
            let scaling = self.reconcile_once(&wanted).await;
            let again = if scaling.is_some() {
                RESYNC_INTERVAL
            } else {
                CONFLICT_RETRY_INTERVAL
            };
            if let Some(scaling) = scaling {
                self.publish(&scaling);
            }
            // Wake up only for the triggers that this workload names: `readings` has those of all pools. The
            // senders outlive this task.
            let others = async {
                while readings.changed().await.is_ok() && self.proposals(&wanted) == known {}
            };
            tokio::select! {
                () = others => tokio::time::sleep(DEBOUNCE).await,
                _ = asked.changed() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    fn publish(&self, scaling: &ScalingState) {
        let changed = self.context.scalings.send_if_modified(|all| {
            // As with a trigger: a late result must not bring a removed workload back.
            if self.cancel.is_cancelled() {
                return false;
            }
            let pool = all.entry(self.pool.clone()).or_default();
            let old = pool.insert(self.workload.clone(), scaling.clone());
            old.as_ref() != Some(scaling)
        });
        if changed {
            let (pool, workload) = (&self.pool, &self.workload);
            tracing::debug!(pool, workload, ?scaling, "scaling");
            self.context.status_changed.send_replace(());
        }
    }

    /// Evaluates once, and writes if the replicas must change. Returns `None` if another evaluation is needed
    /// soon.
    async fn reconcile_once(&mut self, asked: &ScalingRequest) -> Option<ScalingState> {
        let rival = self.find_other_autoscaler(&asked.target).await;
        let mut named = asked.scale.triggers.iter();
        if let Some(unknown) = named.find(|name| !asked.triggers.contains(name)) {
            let mistake = format!(
                "workload {}: scale.triggers names '{unknown}', which spec.triggers does not have: nothing is written",
                self.workload
            );
            return Some(ScalingState {
                status: status_with_message(&mistake),
                spec_error: Some(mistake),
                other_autoscaler: rival,
            });
        }
        if let OtherAutoscaler::Found(why) | OtherAutoscaler::Unknown(why) = &rival {
            if matches!(rival, OtherAutoscaler::Found(_)) {
                // The other autoscaler has its own history.
                self.history = ScalingHistory::default();
            }
            return Some(ScalingState {
                status: status_with_message(why),
                other_autoscaler: rival,
                spec_error: None,
            });
        }
        match self.scale_target(asked).await {
            Ok(status) => status.map(self::scaling_with_status),
            Err(why) => Some(scaling_with_status(status_with_message(&why))),
        }
    }

    async fn find_other_autoscaler(&self, target: &Target) -> OtherAutoscaler {
        let pools = self.context.cache.all_pools();
        let pools = pools.iter().map(Arc::as_ref);
        if let Some(rival) =
            other_autoscalers::find_earlier_pool(pools, &self.pool, &self.workload, target)
        {
            return OtherAutoscaler::Found(rival);
        }
        match other_autoscalers::find_autoscaler(&self.context.client, target).await {
            Ok(Some(rival)) => OtherAutoscaler::Found(rival),
            Ok(None) => OtherAutoscaler::NoneFound,
            Err(why) => OtherAutoscaler::Unknown(why),
        }
    }

    /// Reads the scale, decides, and writes the result. Returns `None` if another write came first.
    async fn scale_target(
        &mut self,
        asked: &ScalingRequest,
    ) -> Result<Option<ScaleStatus>, String> {
        let api = scale_cache::target_api(&self.context.client, &asked.target).await?;
        let scale = scale_cache::get_scale(&api, &asked.target).await?;
        let (wishes, now) = (self.proposals(asked), Timestamp::now());
        let ScalingDecision {
            current,
            desired: wanted,
            step,
        } = decide(&asked.scale, &wishes, &scale, &mut self.history, now);
        let bounded = wanted
            .replicas
            .clamp(asked.scale.min_replicas, asked.scale.max_replicas);
        let mut told = ScaleStatus {
            wanted: Some(i64::from(bounded)),
            trigger: wanted.trigger.clone(),
            message: decision_message(&wanted, &step),
        };
        if step.replicas == current {
            return Ok(Some(told));
        }
        if asked.is_dry_run {
            told.message = format!(
                "mode is DryRun: replicas would be set from {current} to {}",
                step.replicas
            );
            return Ok(Some(told));
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
            trigger = wanted.trigger,
            "scaled"
        );
        self.publish_event(asked, &scale, current, &wanted, &step)
            .await;
        Ok(Some(told))
    }

    /// The proposals of the triggers that the workload names. A trigger without a state yet counts as unknown.
    fn proposals(&self, asked: &ScalingRequest) -> Vec<(String, ReplicaProposal)> {
        let readings = self.context.states.borrow();
        let standings = readings.get(&self.pool);
        let wish = |name: &String| {
            let standing = standings.and_then(|standings| standings.get(name));
            (
                name.clone(),
                standing.map_or(ReplicaProposal::Hold, |standing| standing.proposal),
            )
        };
        asked.scale.triggers.iter().map(wish).collect()
    }

    /// Publishes an Event on the target: the new replicas, and the trigger that asked for them.
    async fn publish_event(
        &self,
        asked: &ScalingRequest,
        scale: &Scale,
        from: i32,
        wanted: &DesiredReplicas,
        step: &ReplicaStep,
    ) {
        let who = match &wanted.trigger {
            Some(trigger) => format!(
                "trigger {trigger} of pool {} asks for {}",
                self.pool, wanted.replicas
            ),
            None if wanted.held_by.is_some() => "a trigger's value is not known".to_owned(),
            None => format!("all triggers of pool {} are quiet", self.pool),
        };
        let why = step
            .limited_by
            .map(|held| format!("; {held}"))
            .unwrap_or_default();
        let event = Event {
            type_: EventType::Normal,
            reason: "Scaled".to_owned(),
            note: Some(format!(
                "Set replicas from {from} to {}: {who}{why}",
                step.replicas
            )),
            action: "Scale".to_owned(),
            secondary: Some(asked.pool.clone()),
        };
        let target = &asked.target;
        let about = ObjectReference {
            api_version: Some(target.api_version.clone()),
            kind: Some(target.kind.clone()),
            namespace: Some(target.namespace.clone()),
            name: Some(target.name.clone()),
            uid: scale.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let shared = &self.context;
        let told = events::publish(&shared.client, &shared.reporter, &event, &about);
        match tokio::time::timeout(CALL_TIMEOUT, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "writing an Event"),
            Err(_) => tracing::warn!("writing an Event: the API server does not answer"),
        }
    }
}

/// The decision for a target.
struct ScalingDecision {
    /// The current `spec.replicas`.
    current: i32,
    /// What the triggers ask for.
    desired: DesiredReplicas,
    /// The replicas to be set now.
    step: ReplicaStep,
}

/// Decides from the target's `spec.replicas`, not from `status.replicas`, which is higher while a rollout
/// surges and lower while pods are missing. A scale without replicas counts as 0: the API server omits a 0, and
/// returns an error if the target itself has no replicas field.
fn decide(
    spec: &WorkloadScale,
    wishes: &[(String, ReplicaProposal)],
    scale: &Scale,
    history: &mut ScalingHistory,
    now: Timestamp,
) -> ScalingDecision {
    let current = scale.spec.as_ref().and_then(|spec| spec.replicas);
    let current = current.unwrap_or(0);
    let asks = wishes.iter().map(|(trigger, wish)| TriggerRequest {
        trigger,
        proposal: *wish,
    });
    let asks: Vec<TriggerRequest<'_>> = asks.collect();
    let wanted = scale::desired_replicas(spec, &asks, current);
    let step = scale::step(spec, history, current, wanted.replicas, now);
    ScalingDecision {
        current,
        desired: wanted,
        step,
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

/// The status message about a decision.
fn decision_message(wanted: &DesiredReplicas, step: &ReplicaStep) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(trigger) = &wanted.held_by {
        parts.push(format!(
            "the value of trigger {trigger} is not known: nothing is taken away"
        ));
    }
    if let Some(trigger) = &wanted.without_replicas {
        parts.push(format!(
            "trigger {trigger} is active and says nothing of replicas: set its threshold or replicas"
        ));
    }
    parts.extend(step.limited_by.map(str::to_owned));
    parts.join("; ")
}

#[cfg(test)]
mod tests;
