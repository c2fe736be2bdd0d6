//! The task of one trigger: observes its source, and publishes its state.
//!
//! In: the trigger's spec; the clock, Prometheus or the alerts that were received. Out: the trigger's state in
//! [`TriggerStates`](super::TriggerStates), its metrics, and a notification if the state changed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{TriggerContext, prometheus};
use crate::api::{Alert, Schedule, Trigger, TriggerKind};
use crate::trigger::{TriggerState, evaluation};

/// The longest wait between two evaluations of a schedule: the machine's clock may be set in between.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// The task of one trigger.
pub(super) struct TriggerTask {
    pub(super) context: Arc<TriggerContext>,
    pub(super) pool: String,
    pub(super) trigger: String,
    /// Cancelled when the trigger is removed or changed.
    pub(super) cancel: CancellationToken,
}

impl TriggerTask {
    pub(super) fn key(&self) -> (String, String) {
        (self.pool.clone(), self.trigger.clone())
    }

    pub(super) async fn run(&self, trigger: &Trigger) {
        match trigger.kind() {
            Ok(TriggerKind::Prometheus(spec, on_error)) => {
                let on_error = on_error.cloned().unwrap_or_default();
                prometheus::run(self, spec, &on_error).await;
            }
            Ok(TriggerKind::Schedule(spec)) => self.run_schedule(spec).await,
            Ok(TriggerKind::Alert(spec)) => self.run_alert(spec).await,
            Err(why) => self.publish(&TriggerState::invalid(why, &self.state(), Timestamp::now())),
        }
    }

    async fn run_schedule(&self, spec: &Schedule) {
        loop {
            let now = Timestamp::now();
            let (state, next) = evaluation::evaluate_schedule(spec, &self.state(), now);
            self.publish(&state);
            sleep_until(next, now).await;
        }
    }

    async fn run_alert(&self, spec: &Alert) {
        let mut changed = self.context.alerts.subscribe();
        loop {
            let now = Timestamp::now();
            let firing = self.context.alerts.get(&self.key());
            let before = self.state();
            let mut state = evaluation::evaluate_alert(spec, &firing, &before, now);
            if let Some(why) = self.context.alerts.receiver_error() {
                state = state.unreachable(why, before.unknown_since.unwrap_or(now));
            }
            self.publish(&state);
            tokio::select! {
                // `self` holds the sender, so the channel stays open.
                _ = changed.changed() => {}
                () = sleep_until(firing.next_expiry(now), now) => {}
            }
        }
    }

    /// The current state.
    pub(super) fn state(&self) -> TriggerState {
        let states = self.context.states.borrow();
        let state = states
            .get(&self.pool)
            .and_then(|pool_states| pool_states.get(&self.trigger));
        state.cloned().unwrap_or_default()
    }

    /// Publishes the state, unless the trigger has been removed: a late result would otherwise bring it back
    /// for good.
    pub(super) fn publish(&self, state: &TriggerState) {
        let (active, value) = (state.active, state.value);
        let before = self.state();
        let has_switched = before.active != active;
        let is_notable = has_switched
            || before.since != state.since
            || before.is_known() != state.is_known()
            || before.alerts != state.alerts
            || before.message != state.message
            || before.spec_error != state.spec_error;
        let mut is_over = false;
        self.context.states.send_if_modified(|states| {
            // The remover cancels the token before it takes this lock, so this check cannot miss a removal.
            is_over = self.cancel.is_cancelled();
            if is_over {
                return false;
            }
            let metrics = &self.context.metrics;
            metrics.set_trigger(&self.pool, &self.trigger, active, value);
            let pool_states = states.entry(self.pool.clone()).or_default();
            let previous = pool_states.insert(self.trigger.clone(), state.clone());
            previous.as_ref() != Some(state)
        });
        if is_over {
            return;
        }
        if has_switched {
            tracing::info!(
                pool = self.pool,
                trigger = self.trigger,
                active,
                "trigger changed"
            );
            self.context.cache.changed.notify_one();
        }
        if is_notable {
            self.context.status_changed.send_replace(());
        }
    }
}

/// Sleeps until `deadline`, but at most for [`RESYNC_INTERVAL`].
async fn sleep_until(deadline: Option<Timestamp>, now: Timestamp) {
    let remaining =
        deadline.and_then(|deadline| Duration::try_from(deadline.duration_since(now)).ok());
    // Timers count whole milliseconds: without the extra one, the sleep could end too early.
    let remaining = remaining.map(|remaining| remaining + Duration::from_millis(1));
    tokio::time::sleep(remaining.unwrap_or(RESYNC_INTERVAL).min(RESYNC_INTERVAL)).await;
}
