//! Runs the triggers: a task for each trigger, and one for each workload that they scale.
//!
//! In: the specs of pools, when they are reconciled; answers of Prometheus, the time, and requests from
//! Alertmanager. Out: [`TriggerStates`] (trigger states), which shorten the hold of `spill`; replicas, written
//! through `/scale` with an Event; and the triggers' part of the status.
//!
//! `trigger` and `scale` make all decisions; this module makes the calls. Each trigger has its own task, so
//! that an endpoint that hangs delays no other trigger.
//!
//! ```text
//! prometheus ◀─▶ HTTP ───┐                                         ┌─▶ spill (hold)
//! schedule ◀── clock ────┼─▶ trigger::evaluation ─▶ TriggerStates ─┼─▶ scaling ─▶ /scale, Events
//! alert_receiver ◀─ HTTP ┘                                         └─▶ status
//! ```

pub mod alert_receiver;
mod auth;
mod other_autoscalers;
mod prometheus;
mod scaling;
mod server_address;
mod status;
mod task;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::runtime::events::Reporter;
use kube::{Client, ResourceExt as _};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::grants::ClusterCache;
use crate::aci::client::AciClient as Azure;
use crate::api::{BurstPool, Trigger, TriggerKind, TriggerStatus};
use crate::telemetry::Metrics;
use crate::trigger::TriggerState;
use alert_receiver::FiringAlerts;
pub(super) use scaling::ScalingState;
pub(super) use status::{ConditionUpdate, TriggerStatusView, conditions};
use task::TriggerTask;

/// The states of the triggers, by pool and trigger name.
pub type TriggerStates = BTreeMap<String, BTreeMap<String, TriggerState>>;
/// The results of scaling, by pool and workload.
type ScalingStates = BTreeMap<String, BTreeMap<String, ScalingState>>;

/// The triggers of all pools.
pub struct TriggerTasks {
    context: Arc<TriggerContext>,
    pools: Mutex<HashMap<String, PoolTriggers>>,
}

/// What the tasks share.
struct TriggerContext {
    client: Client,
    azure: Azure,
    cache: Arc<ClusterCache>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
    alerts: FiringAlerts,
    /// The hosts of Azure Monitor.
    monitor_hosts: Vec<String>,
    /// Cancelled when this instance stops leading or shuts down: no task may then call or write.
    shutdown: CancellationToken,
    states: watch::Sender<TriggerStates>,
    scalings: watch::Sender<ScalingStates>,
    /// Notified of changes that a status should report at once. Changed values alone wait for the next status
    /// update.
    status_changed: watch::Sender<()>,
}

/// The tasks of a pool.
#[derive(Default)]
struct PoolTriggers {
    triggers: BTreeMap<String, (Trigger, CancellationToken)>,
    scalings: BTreeMap<String, (watch::Sender<scaling::ScalingRequest>, CancellationToken)>,
    tasks: TaskTracker,
}

/// What triggers need.
pub struct TriggerParts {
    /// The Kubernetes client, with retries.
    pub client: Client,
    /// The Azure client, whose identity authenticates to Azure Monitor.
    pub azure: Azure,
    /// The cache of the grant loop: notified when a trigger becomes active or inactive.
    pub cache: Arc<ClusterCache>,
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
    /// The identity of this instance of the operator.
    pub identity: String,
    /// The hosts to which `azureCredential` may send Azure's token; subdomains are included.
    pub monitor_hosts: Vec<String>,
}

impl TriggerTasks {
    /// No triggers yet.
    pub fn new(parts: TriggerParts) -> Self {
        let reporter = Reporter {
            controller: "burstpool".to_owned(),
            instance: Some(parts.identity),
        };
        let shared = TriggerContext {
            reporter,
            client: parts.client,
            azure: parts.azure,
            cache: parts.cache,
            metrics: parts.metrics,
            alerts: FiringAlerts::default(),
            monitor_hosts: parts.monitor_hosts,
            shutdown: CancellationToken::new(),
            states: watch::Sender::default(),
            scalings: watch::Sender::default(),
            status_changed: watch::Sender::default(),
        };
        Self {
            context: Arc::new(shared),
            pools: Mutex::default(),
        }
    }

    /// Whether any trigger of the pool is active.
    pub fn is_any_active(&self, pool: &str) -> bool {
        let states = self.context.states.borrow();
        let pool_states = states.get(pool).into_iter().flat_map(BTreeMap::values);
        pool_states.into_iter().any(|state| state.active)
    }

    /// Changes whenever a status should be written.
    pub(super) fn subscribe_status_changes(&self) -> watch::Receiver<()> {
        self.context.status_changed.subscribe()
    }

    /// Starts the tasks that the spec asks for, and ends those that it does not ask for.
    pub(super) async fn apply_spec(&self, pool: &BurstPool) {
        let name = pool.name_any();
        let mut pools = self.pools.lock().await;
        // Only at the first call: the status holds the state under an earlier leader; later, this instance's
        // own state is newer.
        let is_new = !pools.contains_key(&name);
        let running = pools.entry(name.clone()).or_default();
        running.triggers.retain(|trigger, (spec, cancel)| {
            let stays = pool.spec.triggers.contains(spec);
            if !stays {
                cancel.cancel();
                // An edit that keeps what the trigger observes must not end a peak.
                let mut others = pool.spec.triggers.iter();
                let other = others.find(|other| other.name == *trigger);
                if other.is_none_or(|other| !keeps_state(spec, other)) {
                    self.context.forget_trigger(&name, trigger);
                }
            }
            stays
        });
        for trigger in &pool.spec.triggers {
            if !running.triggers.contains_key(&trigger.name) {
                let statuses = pool.status.iter().filter(|_| is_new);
                let mut statuses = statuses.flat_map(|status| &status.triggers);
                let last_status = statuses.find(|status| status.name == trigger.name).cloned();
                let cancel =
                    self.context
                        .start_trigger(&name, trigger, last_status, &running.tasks);
                let task = (trigger.clone(), cancel);
                running.triggers.insert(trigger.name.clone(), task);
            }
        }
        scaling::ensure(pool, running, &self.context);
    }

    /// What a pool's status reports about triggers and scaling.
    pub(super) fn status_view(&self, pool: &BurstPool) -> TriggerStatusView {
        let name = pool.name_any();
        let states = self.context.states.borrow();
        let pool_states = states.get(&name);
        let specs = pool.spec.triggers.iter();
        let triggers = specs.filter_map(|trigger| {
            let state = pool_states?.get(&trigger.name)?;
            Some((trigger.name.clone(), state.clone()))
        });
        let scalings = self.context.scalings.borrow();
        TriggerStatusView {
            triggers: triggers.collect(),
            scalings: scalings.get(&name).cloned().unwrap_or_default(),
        }
    }

    /// Ends the tasks of a pool that is being deleted or is gone, and forgets their states.
    pub(super) async fn remove(&self, pool: &str) {
        let Some(running) = self.pools.lock().await.remove(pool) else {
            return;
        };
        let triggers: Vec<String> = running.triggers.keys().cloned().collect();
        running.stop().await;
        for trigger in &triggers {
            self.context.forget_trigger(pool, trigger);
        }
        self.context
            .states
            .send_modify(|states| drop(states.remove(pool)));
        self.context
            .scalings
            .send_modify(|scalings| drop(scalings.remove(pool)));
    }

    /// Ends all tasks, and prevents new ones.
    pub(super) async fn stop(&self) {
        self.context.shutdown.cancel();
        for (_, running) in self.pools.lock().await.drain() {
            running.stop().await;
        }
    }

    /// Records that no alerts can arrive, because no listen address is configured.
    pub(super) fn disable_receiver(&self) {
        let why = "the operator runs without --alerts-listen: no alert reaches it";
        self.context.alerts.set_receiver_error(Some(why.to_owned()));
    }

    /// Receives alerts until `cancel`.
    pub(super) async fn run_receiver(
        &self,
        settings: &alert_receiver::ReceiverSettings,
        cancel: &CancellationToken,
    ) {
        alert_receiver::serve(settings, &self.context, cancel).await;
    }
}

impl PoolTriggers {
    /// Ends the tasks and waits for them.
    async fn stop(self) {
        let triggers = self.triggers.into_values().map(|(_, cancel)| cancel);
        let scalings = self.scalings.into_values().map(|(_, cancel)| cancel);
        for cancel in triggers.chain(scalings) {
            cancel.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl TriggerContext {
    /// Starts a trigger's task. It begins with the state that this instance has for the trigger, or else with
    /// `last_status`, the state in the pool's status.
    fn start_trigger(
        self: &Arc<Self>,
        pool: &str,
        trigger: &Trigger,
        last_status: Option<TriggerStatus>,
        tasks: &TaskTracker,
    ) -> CancellationToken {
        let cancel = self.shutdown.child_token();
        let task = TriggerTask {
            context: self.clone(),
            pool: pool.to_owned(),
            trigger: trigger.name.clone(),
            cancel: cancel.clone(),
        };
        let status = last_status.unwrap_or_else(|| TriggerStatus {
            name: trigger.name.clone(),
            ..TriggerStatus::default()
        });
        self.states.send_if_modified(|states| {
            let pool_states = states.entry(task.pool.clone()).or_default();
            let restored = || TriggerState::from_status(&status);
            pool_states
                .entry(trigger.name.clone())
                .or_insert_with(restored);
            true
        });
        let (until, trigger) = (cancel.clone(), trigger.clone());
        if let Ok(TriggerKind::Alert(_)) = trigger.kind() {
            self.alerts.register(&task.key(), &task.state().alerts);
        }
        tasks.spawn(async move {
            tokio::select! {
                () = task.run(&trigger) => {}
                () = until.cancelled() => {}
            }
        });
        cancel
    }

    /// Forgets a trigger that was removed.
    fn forget_trigger(&self, pool: &str, trigger: &str) {
        self.alerts.forget(&(pool.to_owned(), trigger.to_owned()));
        self.states.send_modify(|states| {
            if let Some(pool_states) = states.get_mut(pool) {
                pool_states.remove(trigger);
            }
        });
        self.metrics.forget_trigger(pool, trigger);
        self.cache.changed.notify_one();
    }
}

/// Whether a changed trigger keeps its state: it has the same kind and, for alerts, the same labels.
fn keeps_state(before: &Trigger, now: &Trigger) -> bool {
    match (before.kind(), now.kind()) {
        (Ok(TriggerKind::Prometheus(..)), Ok(TriggerKind::Prometheus(..)))
        | (Ok(TriggerKind::Schedule(_)), Ok(TriggerKind::Schedule(_))) => true,
        (Ok(TriggerKind::Alert(before)), Ok(TriggerKind::Alert(now))) => {
            before.match_labels == now.match_labels
        }
        (
            Ok(TriggerKind::Prometheus(..) | TriggerKind::Schedule(_) | TriggerKind::Alert(_))
            | Err(_),
            _,
        ) => false,
    }
}

#[cfg(test)]
mod tests;
