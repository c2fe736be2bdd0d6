//! What triggers and scaling say in a pool's status. Pure.

use std::collections::BTreeMap;

use super::Scaling;
use crate::api::condition::{CONFLICT, STALLED, TRIGGERS_HEALTHY};
use crate::api::{BurstPool, TriggerStatus, WorkloadStatus};
use crate::trigger::Standing;

/// What a pool's triggers and scaled workloads come to.
#[derive(Clone, Debug, Default)]
pub(in crate::controller) struct Told {
    /// The triggers by name, in the pool's order.
    pub triggers: Vec<(String, Standing)>,
    /// The scaled workloads by name.
    pub scalings: BTreeMap<String, Scaling>,
}

/// A condition's status, reason and message; nothing where there must be none.
type Says = Option<(bool, &'static str, String)>;

impl Told {
    /// The triggers, as a status has them.
    pub fn triggers(&self) -> Vec<TriggerStatus> {
        let all = self.triggers.iter();
        all.map(|(name, standing)| standing.status(name)).collect()
    }

    /// Adds to each workload what its scaling comes to.
    pub fn add_to(&self, workloads: &mut [WorkloadStatus]) {
        for workload in workloads {
            let scaling = self.scalings.get(&workload.name);
            workload.scale = scaling.map(|scaling| scaling.status.clone());
        }
    }
}

/// The conditions that are about triggers and scaling.
pub(in crate::controller) fn conditions(
    pool: &BurstPool,
    told: &Told,
) -> [(&'static str, Says); 3] {
    let joined = |parts: Vec<String>| (!parts.is_empty()).then(|| parts.join("; "));
    let triggers = told.triggers.iter();
    let unknown = triggers.filter(|(_, standing)| !standing.is_known());
    let unknown =
        unknown.map(|(name, standing)| format!("{name}: {}", standing.status(name).message));
    let healthy = match joined(unknown.collect()) {
        _ if pool.spec.triggers.is_empty() => None,
        Some(why) => Some((false, "ValueUnknown", why)),
        None => Some((true, "Known", "every trigger's value is known".to_owned())),
    };
    let conflicts = told.scalings.iter().filter_map(|(name, scaling)| {
        let rival = scaling.conflict.as_ref()?;
        Some(format!("workload {name}: {rival}"))
    });
    let scales = pool
        .spec
        .workloads
        .iter()
        .any(|workload| workload.scale.is_some());
    let conflict = match joined(conflicts.collect()) {
        _ if !scales => None,
        Some(why) => Some((true, "TargetHasAnotherScaler", why)),
        None => Some((
            false,
            "NoOtherScaler",
            "nobody else sets the replicas of a target".to_owned(),
        )),
    };
    let wrong = told.triggers.iter().filter_map(|(name, standing)| {
        let mistake = standing.mistake.as_ref()?;
        Some(format!("trigger {name}: {mistake}"))
    });
    let wrong = wrong.chain(told.scalings.values().filter_map(|one| one.mistake.clone()));
    let stalled = joined(wrong.collect()).map(|why| (true, "InvalidSpec", why));
    [
        (TRIGGERS_HEALTHY, healthy),
        (CONFLICT, conflict),
        (STALLED, stalled),
    ]
}

#[cfg(test)]
mod tests {
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

    fn said(pool: &BurstPool, told: &Told) -> Vec<(&'static str, bool, String)> {
        let all = conditions(pool, told).into_iter();
        all.filter_map(|(kind, says)| says.map(|(status, _, message)| (kind, status, message)))
            .collect()
    }

    #[test]
    fn a_pool_without_triggers_and_scales_has_no_conditions_of_them() {
        assert_eq!(said(&pool(&json!({})), &Told::default()), []);
    }

    #[test]
    fn what_is_not_known_conflicts_or_can_never_work_is_named() {
        let pool = pool(&json!({
            "triggers": [{"name": "hours", "schedule": {"start": "x", "duration": "1h", "timeZone": "UTC"}}],
            "workloads": [{"name": "web", "scale": {"maxReplicas": 5, "triggers": ["hours"]}}],
        }));
        let now = jiff::Timestamp::UNIX_EPOCH;
        let wrong = Standing::mistaken("schedule.start: x".to_owned(), &Standing::default(), now);
        let rival = Scaling {
            conflict: Some("an autoscaler has it".to_owned()),
            ..Scaling::default()
        };
        let told = Told {
            triggers: vec![("hours".to_owned(), wrong)],
            scalings: [("web".to_owned(), rival)].into(),
        };
        let all = said(&pool, &told);
        assert_eq!(
            all[0],
            (
                "TriggersHealthy",
                false,
                "hours: schedule.start: x".to_owned()
            )
        );
        assert_eq!(
            all[1],
            (
                "Conflict",
                true,
                "workload web: an autoscaler has it".to_owned()
            )
        );
        assert_eq!(
            all[2],
            (
                "Stalled",
                true,
                "trigger hours: schedule.start: x".to_owned()
            )
        );
        let known = Told {
            triggers: vec![("hours".to_owned(), Standing::default())],
            ..Told::default()
        };
        let all = said(&pool, &known);
        assert_eq!((all.len(), all[0].1, all[1].1), (2, true, false));
    }
}
