//! The part of a pool's status about triggers and scaling. Pure.
//!
//! In: the states of triggers and scaled workloads, and the current status. Out: the new parts of the status.
//! Trigger states start from those in the status. For a workload that this leader has not evaluated yet, the
//! status stays as it is.

use std::collections::BTreeMap;

use super::ScalingState;
use super::other_autoscalers::OtherAutoscaler;
use crate::api::condition::{CONFLICT, ConditionStatus, STALLED, TRIGGERS_HEALTHY};
use crate::api::{BurstPool, ScaleStatus, TriggerStatus, WorkloadStatus};
use crate::trigger::TriggerState;

/// The states of a pool's triggers and scaled workloads.
#[derive(Clone, Debug, Default)]
pub(in crate::controller) struct TriggerStatusView {
    /// The triggers by name, in the pool's order, with their current state or that restored from the status.
    pub triggers: Vec<(String, TriggerState)>,
    /// The scaled workloads that have been evaluated, by name.
    pub scalings: BTreeMap<String, ScalingState>,
}

/// The update of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller) enum ConditionUpdate {
    /// Set it: status, reason and message.
    Set(ConditionStatus, &'static str, String),
    /// Remove it.
    Remove,
    /// Leave it as it is: this leader has not evaluated it yet.
    Keep,
}

impl TriggerStatusView {
    /// The triggers' entries in the pool's status.
    pub fn triggers(&self) -> Vec<TriggerStatus> {
        let triggers = self.triggers.iter();
        triggers
            .map(|(name, state)| state.to_status(name))
            .collect()
    }

    /// Adds the result of scaling to each workload; for a workload not evaluated yet, what the status has
    /// already.
    pub fn add_scale_status(&self, workloads: &mut [WorkloadStatus], pool: &BurstPool) {
        for workload in workloads {
            let scaling = self.scalings.get(&workload.name);
            let status = scaling.map(|scaling| &scaling.status);
            workload.scale = status
                .or_else(|| previous_scale_status(pool, &workload.name))
                .cloned();
        }
    }
}

/// The scaling of a workload in the current status, if the pool still scales the workload.
fn previous_scale_status<'a>(pool: &'a BurstPool, workload: &str) -> Option<&'a ScaleStatus> {
    scaled_workloads(pool).find(|scaled| *scaled == workload)?;
    let mut statuses = pool.status.as_ref()?.workloads.iter();
    let status = statuses.find(|status| status.name == workload)?;
    status.scale.as_ref()
}

/// Whether the pool's triggers and scales are evaluated: not while it is being deleted.
fn is_live(pool: &BurstPool) -> bool {
    pool.metadata.deletion_timestamp.is_none()
}

/// The names of the workloads that the pool scales.
fn scaled_workloads(pool: &BurstPool) -> impl Iterator<Item = &str> {
    let workloads = pool.spec.workloads.iter().filter(|_| is_live(pool));
    let scaled = workloads.filter(|workload| workload.scale.is_some() && workload.target.is_some());
    scaled.map(|workload| workload.name.as_str())
}

/// The updates of the conditions about triggers and scaling.
pub(in crate::controller) fn conditions(
    pool: &BurstPool,
    view: &TriggerStatusView,
) -> [(&'static str, ConditionUpdate); 3] {
    if !is_live(pool) {
        return [TRIGGERS_HEALTHY, CONFLICT, STALLED].map(|kind| (kind, ConditionUpdate::Remove));
    }
    let unknown = view.triggers.iter().filter(|(_, state)| !state.is_known());
    let unknown = unknown.map(|(name, state)| format!("{name}: {}", state.to_status(name).message));
    let healthy = match join_messages(unknown) {
        _ if pool.spec.triggers.is_empty() => ConditionUpdate::Remove,
        Some(why) => ConditionUpdate::Set(ConditionStatus::False, "ValueUnknown", why),
        None => {
            let message = "every trigger's value is known".to_owned();
            ConditionUpdate::Set(ConditionStatus::True, "Known", message)
        }
    };
    let errors = view.triggers.iter().filter_map(|(name, state)| {
        let error = state.spec_error.as_ref()?;
        Some(format!("trigger {name}: {error}"))
    });
    let errors = errors.chain(
        view.scalings
            .values()
            .filter_map(|scaling| scaling.spec_error.clone()),
    );
    let are_all_evaluated = scaled_workloads(pool).all(|name| view.scalings.contains_key(name));
    let stalled = match join_messages(errors) {
        Some(why) => ConditionUpdate::Set(ConditionStatus::True, "InvalidSpec", why),
        None if !are_all_evaluated => ConditionUpdate::Keep,
        None => ConditionUpdate::Remove,
    };
    [
        (TRIGGERS_HEALTHY, healthy),
        (CONFLICT, conflict_condition(pool, view)),
        (STALLED, stalled),
    ]
}

/// The `Conflict` condition: known other autoscalers take precedence over unknown ones.
fn conflict_condition(pool: &BurstPool, view: &TriggerStatusView) -> ConditionUpdate {
    if scaled_workloads(pool).next().is_none() {
        return ConditionUpdate::Remove;
    }
    let messages = |message_of: fn(&OtherAutoscaler) -> Option<&String>| {
        join_messages(view.scalings.iter().filter_map(|(name, scaling)| {
            let why = message_of(&scaling.other_autoscaler)?;
            Some(format!("workload {name}: {why}"))
        }))
    };
    let found = messages(|other| match other {
        OtherAutoscaler::Found(why) => Some(why),
        _ => None,
    });
    let unknown = messages(|other| match other {
        OtherAutoscaler::Unknown(why) => Some(why),
        _ => None,
    });
    let are_all_evaluated = scaled_workloads(pool).all(|name| view.scalings.contains_key(name));
    match (found, unknown) {
        (Some(why), _) => {
            ConditionUpdate::Set(ConditionStatus::True, "TargetHasAnotherScaler", why)
        }
        (None, Some(why)) => ConditionUpdate::Set(ConditionStatus::Unknown, "ScalersUnknown", why),
        (None, None) if !are_all_evaluated => ConditionUpdate::Keep,
        (None, None) => {
            let message = "no other autoscaler sets the replicas of a target".to_owned();
            ConditionUpdate::Set(ConditionStatus::False, "NoOtherScaler", message)
        }
    }
}

fn join_messages(parts: impl Iterator<Item = String>) -> Option<String> {
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn pool(spec: &serde_json::Value) -> BurstPool {
        let mut pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": "shop"},
            "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}]},
        });
        json_patch::merge(&mut pool["spec"], spec);
        serde_json::from_value(pool).expect("a pool")
    }

    fn set_conditions(
        pool: &BurstPool,
        view: &TriggerStatusView,
    ) -> Vec<(&'static str, ConditionStatus, String)> {
        let updates = conditions(pool, view).into_iter();
        updates
            .filter_map(|(kind, update)| match update {
                ConditionUpdate::Set(status, _, message) => Some((kind, status, message)),
                ConditionUpdate::Remove | ConditionUpdate::Keep => None,
            })
            .collect()
    }

    #[test]
    fn a_pool_without_triggers_and_scales_has_no_conditions_about_them() {
        assert_eq!(
            set_conditions(&pool(&json!({})), &TriggerStatusView::default()),
            []
        );
    }

    /// A pool with the trigger `hours`, which scales the workload `web`.
    fn scaled_pool() -> BurstPool {
        pool(&json!({
            "triggers": [{"name": "hours", "schedule": {"start": "x", "duration": "1h", "timeZone": "UTC"}}],
            "workloads": [{"name": "web",
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"},
                "scale": {"maxReplicas": 5, "triggers": ["hours"]}}],
        }))
    }

    #[test]
    fn unknown_values_conflicts_and_spec_errors_are_reported() {
        let pool = scaled_pool();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let invalid = TriggerState::invalid(
            "schedule.start: x".to_owned(),
            &TriggerState::default(),
            now,
        );
        let conflicting = ScalingState {
            other_autoscaler: OtherAutoscaler::Found("an autoscaler has it".to_owned()),
            ..ScalingState::default()
        };
        let view = TriggerStatusView {
            triggers: vec![("hours".to_owned(), invalid)],
            scalings: [("web".to_owned(), conflicting)].into(),
        };
        let conditions = set_conditions(&pool, &view);
        assert_eq!(
            conditions[0],
            (
                "TriggersHealthy",
                ConditionStatus::False,
                "hours: schedule.start: x".to_owned()
            )
        );
        assert_eq!(
            conditions[1],
            (
                "Conflict",
                ConditionStatus::True,
                "workload web: an autoscaler has it".to_owned()
            )
        );
        assert_eq!(
            conditions[2],
            (
                "Stalled",
                ConditionStatus::True,
                "trigger hours: schedule.start: x".to_owned()
            )
        );
    }

    #[test]
    fn other_autoscalers_of_a_target_are_a_conflict_if_they_are_known() {
        let pool = scaled_pool();
        let view_of = |other_autoscaler| TriggerStatusView {
            triggers: vec![("hours".to_owned(), TriggerState::default())],
            scalings: [(
                "web".to_owned(),
                ScalingState {
                    other_autoscaler,
                    ..ScalingState::default()
                },
            )]
            .into(),
        };
        let conditions = set_conditions(&pool, &view_of(OtherAutoscaler::NoneFound));
        assert_eq!(
            (conditions.len(), conditions[0].1, conditions[1].1),
            (2, ConditionStatus::True, ConditionStatus::False)
        );
        let unknown = view_of(OtherAutoscaler::Unknown(
            "the operator may not list them".to_owned(),
        ));
        let message = "workload web: the operator may not list them".to_owned();
        assert_eq!(
            set_conditions(&pool, &unknown)[1],
            ("Conflict", ConditionStatus::Unknown, message)
        );
    }

    #[test]
    fn scaling_that_is_not_evaluated_yet_keeps_its_status() {
        let mut pool = pool(&json!({"workloads": [{"name": "web",
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"},
            "scale": {"maxReplicas": 5, "triggers": ["hours"]}}]}));
        let web = json!({"name": "web", "scale": {"message": "as before"}});
        pool.status = Some(serde_json::from_value(json!({"workloads": [web]})).expect("a status"));
        let view = TriggerStatusView::default();
        let [_, conflict, stalled] = conditions(&pool, &view).map(|(_, update)| update);
        assert_eq!(
            (conflict, stalled),
            (ConditionUpdate::Keep, ConditionUpdate::Keep)
        );
        let scale = |pool: &BurstPool| {
            let mut workloads = pool.status.clone().unwrap_or_default().workloads;
            view.add_scale_status(&mut workloads, pool);
            workloads[0].scale.clone()
        };
        assert_eq!(scale(&pool).expect("a scale").message, "as before");

        pool.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let updates = conditions(&pool, &view).map(|(_, update)| update);
        assert!(
            updates
                .iter()
                .all(|update| *update == ConditionUpdate::Remove),
            "{updates:?}"
        );
        assert_eq!(scale(&pool), None);
    }
}
