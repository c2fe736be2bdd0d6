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
    /// The triggers, in the form of the status.
    pub fn triggers(&self) -> Vec<TriggerStatus> {
        let all = self.triggers.iter();
        all.map(|(name, standing)| standing.to_status(name))
            .collect()
    }

    /// Adds the result of scaling to each workload; for a workload not evaluated yet, what the status has
    /// already.
    pub fn add_scale_status(&self, workloads: &mut [WorkloadStatus], pool: &BurstPool) {
        for workload in workloads {
            let told = self.scalings.get(&workload.name);
            let told = told.map(|scaling| &scaling.status);
            workload.scale = told
                .or_else(|| previous_scale_status(pool, &workload.name))
                .cloned();
        }
    }
}

/// The scaling of a workload in the current status, if the pool still scales the workload.
fn previous_scale_status<'a>(pool: &'a BurstPool, workload: &str) -> Option<&'a ScaleStatus> {
    scaled_workloads(pool).find(|scaled| *scaled == workload)?;
    let mut told = pool.status.as_ref()?.workloads.iter();
    told.find(|told| told.name == workload)?.scale.as_ref()
}

/// Whether the pool's triggers and scales are evaluated: not while it is being deleted.
fn is_live(pool: &BurstPool) -> bool {
    pool.metadata.deletion_timestamp.is_none()
}

/// The names of the workloads that the pool scales.
fn scaled_workloads(pool: &BurstPool) -> impl Iterator<Item = &str> {
    let all = pool.spec.workloads.iter().filter(|_| is_live(pool));
    let all = all.filter(|one| one.scale.is_some() && one.target.is_some());
    all.map(|one| one.name.as_str())
}

/// The updates of the conditions about triggers and scaling.
pub(in crate::controller) fn conditions(
    pool: &BurstPool,
    told: &TriggerStatusView,
) -> [(&'static str, ConditionUpdate); 3] {
    if !is_live(pool) {
        return [TRIGGERS_HEALTHY, CONFLICT, STALLED].map(|kind| (kind, ConditionUpdate::Remove));
    }
    let unknown = told.triggers.iter().filter(|(_, one)| !one.is_known());
    let unknown = unknown.map(|(name, one)| format!("{name}: {}", one.to_status(name).message));
    let healthy = match join_messages(unknown) {
        _ if pool.spec.triggers.is_empty() => ConditionUpdate::Remove,
        Some(why) => ConditionUpdate::Set(ConditionStatus::False, "ValueUnknown", why),
        None => {
            let words = "every trigger's value is known".to_owned();
            ConditionUpdate::Set(ConditionStatus::True, "Known", words)
        }
    };
    let wrong = told.triggers.iter().filter_map(|(name, standing)| {
        let mistake = standing.spec_error.as_ref()?;
        Some(format!("trigger {name}: {mistake}"))
    });
    let wrong = wrong.chain(
        told.scalings
            .values()
            .filter_map(|one| one.spec_error.clone()),
    );
    let is_looked_at = scaled_workloads(pool).all(|one| told.scalings.contains_key(one));
    let stalled = match join_messages(wrong) {
        Some(why) => ConditionUpdate::Set(ConditionStatus::True, "InvalidSpec", why),
        None if !is_looked_at => ConditionUpdate::Keep,
        None => ConditionUpdate::Remove,
    };
    [
        (TRIGGERS_HEALTHY, healthy),
        (CONFLICT, conflict_condition(pool, told)),
        (STALLED, stalled),
    ]
}

/// The `Conflict` condition: known other autoscalers take precedence over unknown ones.
fn conflict_condition(pool: &BurstPool, told: &TriggerStatusView) -> ConditionUpdate {
    if scaled_workloads(pool).next().is_none() {
        return ConditionUpdate::Remove;
    }
    let said = |of: fn(&OtherAutoscaler) -> Option<&String>| {
        join_messages(told.scalings.iter().filter_map(|(name, scaling)| {
            let words = of(&scaling.other_autoscaler)?;
            Some(format!("workload {name}: {words}"))
        }))
    };
    let somebody = said(|rival| match rival {
        OtherAutoscaler::Found(who) => Some(who),
        _ => None,
    });
    let unknown = said(|rival| match rival {
        OtherAutoscaler::Unknown(why) => Some(why),
        _ => None,
    });
    let is_looked_at = scaled_workloads(pool).all(|name| told.scalings.contains_key(name));
    match (somebody, unknown) {
        (Some(who), _) => {
            ConditionUpdate::Set(ConditionStatus::True, "TargetHasAnotherScaler", who)
        }
        (None, Some(why)) => ConditionUpdate::Set(ConditionStatus::Unknown, "ScalersUnknown", why),
        (None, None) if !is_looked_at => ConditionUpdate::Keep,
        (None, None) => {
            let words = "nobody else sets the replicas of a target".to_owned();
            ConditionUpdate::Set(ConditionStatus::False, "NoOtherScaler", words)
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

    fn said(
        pool: &BurstPool,
        told: &TriggerStatusView,
    ) -> Vec<(&'static str, ConditionStatus, String)> {
        let all = conditions(pool, told).into_iter();
        all.filter_map(|(kind, says)| match says {
            ConditionUpdate::Set(is, _, message) => Some((kind, is, message)),
            ConditionUpdate::Remove | ConditionUpdate::Keep => None,
        })
        .collect()
    }

    #[test]
    fn a_pool_without_triggers_and_scales_has_no_conditions_of_them() {
        assert_eq!(said(&pool(&json!({})), &TriggerStatusView::default()), []);
    }

    #[test]
    fn what_is_not_known_conflicts_or_can_never_work_is_named() {
        let pool = pool(&json!({
            "triggers": [{"name": "hours", "schedule": {"start": "x", "duration": "1h", "timeZone": "UTC"}}],
            "workloads": [{"name": "web",
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"},
                "scale": {"maxReplicas": 5, "triggers": ["hours"]}}],
        }));
        let now = jiff::Timestamp::UNIX_EPOCH;
        let wrong = TriggerState::invalid(
            "schedule.start: x".to_owned(),
            &TriggerState::default(),
            now,
        );
        let rival = ScalingState {
            other_autoscaler: OtherAutoscaler::Found("an autoscaler has it".to_owned()),
            ..ScalingState::default()
        };
        let told = TriggerStatusView {
            triggers: vec![("hours".to_owned(), wrong)],
            scalings: [("web".to_owned(), rival)].into(),
        };
        let all = said(&pool, &told);
        assert_eq!(
            all[0],
            (
                "TriggersHealthy",
                ConditionStatus::False,
                "hours: schedule.start: x".to_owned()
            )
        );
        assert_eq!(
            all[1],
            (
                "Conflict",
                ConditionStatus::True,
                "workload web: an autoscaler has it".to_owned()
            )
        );
        assert_eq!(
            all[2],
            (
                "Stalled",
                ConditionStatus::True,
                "trigger hours: schedule.start: x".to_owned()
            )
        );
        let seen = |rival| TriggerStatusView {
            triggers: vec![("hours".to_owned(), TriggerState::default())],
            scalings: [(
                "web".to_owned(),
                ScalingState {
                    other_autoscaler: rival,
                    ..ScalingState::default()
                },
            )]
            .into(),
        };
        let all = said(&pool, &seen(OtherAutoscaler::NoneFound));
        assert_eq!(
            (all.len(), all[0].1, all[1].1),
            (2, ConditionStatus::True, ConditionStatus::False)
        );
        let unknown = seen(OtherAutoscaler::Unknown(
            "the operator may not list them".to_owned(),
        ));
        let words = "workload web: the operator may not list them".to_owned();
        assert_eq!(
            said(&pool, &unknown)[1],
            ("Conflict", ConditionStatus::Unknown, words)
        );
    }

    #[test]
    fn of_a_scaling_that_nobody_has_looked_at_yet_the_status_says_what_it_said() {
        let mut pool = pool(&json!({"workloads": [{"name": "web",
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"},
            "scale": {"maxReplicas": 5, "triggers": ["hours"]}}]}));
        let web = json!({"name": "web", "scale": {"message": "as before"}});
        pool.status = Some(serde_json::from_value(json!({"workloads": [web]})).expect("a status"));
        let told = TriggerStatusView::default();
        let [_, conflict, stalled] = conditions(&pool, &told).map(|(_, says)| says);
        assert_eq!(
            (conflict, stalled),
            (ConditionUpdate::Keep, ConditionUpdate::Keep)
        );
        let scale = |pool: &BurstPool| {
            let mut workloads = pool.status.clone().unwrap_or_default().workloads;
            told.add_scale_status(&mut workloads, pool);
            workloads[0].scale.clone()
        };
        assert_eq!(scale(&pool).expect("a scale").message, "as before");

        pool.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let ends = conditions(&pool, &told).map(|(_, says)| says);
        assert!(
            ends.iter().all(|says| *says == ConditionUpdate::Remove),
            "{ends:?}"
        );
        assert_eq!(scale(&pool), None);
    }
}
