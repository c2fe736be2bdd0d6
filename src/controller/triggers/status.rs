//! What triggers and scaling say in a pool's status. Pure.

use std::collections::BTreeMap;

use super::Scaling;
use super::rivals::Rival;
use crate::api::condition::{CONFLICT, Is, STALLED, TRIGGERS_HEALTHY};
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
type Says = Option<(Is, &'static str, String)>;

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
    let triggers = told.triggers.iter();
    let unknown = triggers.filter(|(_, standing)| !standing.is_known());
    let unknown =
        unknown.map(|(name, standing)| format!("{name}: {}", standing.status(name).message));
    let healthy = match joined(unknown.collect()) {
        _ if pool.spec.triggers.is_empty() => None,
        Some(why) => Some((Is::False, "ValueUnknown", why)),
        None => Some((
            Is::True,
            "Known",
            "every trigger's value is known".to_owned(),
        )),
    };
    let wrong = told.triggers.iter().filter_map(|(name, standing)| {
        let mistake = standing.mistake.as_ref()?;
        Some(format!("trigger {name}: {mistake}"))
    });
    let wrong = wrong.chain(told.scalings.values().filter_map(|one| one.mistake.clone()));
    let stalled = joined(wrong.collect()).map(|why| (Is::True, "InvalidSpec", why));
    [
        (TRIGGERS_HEALTHY, healthy),
        (CONFLICT, conflict(pool, told)),
        (STALLED, stalled),
    ]
}

/// Who is known to set the replicas of a target comes before those of whom nobody knows.
fn conflict(pool: &BurstPool, told: &Told) -> Says {
    let mut scaled = pool.spec.workloads.iter().filter(|one| one.scale.is_some());
    scaled.next()?;
    let mut conflicts = Vec::new();
    let mut unknown = Vec::new();
    for (name, scaling) in &told.scalings {
        match &scaling.rival {
            Rival::Nobody => {}
            Rival::Somebody(who) => conflicts.push(format!("workload {name}: {who}")),
            Rival::Unknown(why) => unknown.push(format!("workload {name}: {why}")),
        }
    }
    Some(match (joined(conflicts), joined(unknown)) {
        (Some(who), _) => (Is::True, "TargetHasAnotherScaler", who),
        (None, Some(why)) => (Is::Unknown, "ScalersUnknown", why),
        (None, None) => (
            Is::False,
            "NoOtherScaler",
            "nobody else sets the replicas of a target".to_owned(),
        ),
    })
}

fn joined(parts: Vec<String>) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join("; "))
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

    fn said(pool: &BurstPool, told: &Told) -> Vec<(&'static str, Is, String)> {
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
            rival: Rival::Somebody("an autoscaler has it".to_owned()),
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
                Is::False,
                "hours: schedule.start: x".to_owned()
            )
        );
        assert_eq!(
            all[1],
            (
                "Conflict",
                Is::True,
                "workload web: an autoscaler has it".to_owned()
            )
        );
        assert_eq!(
            all[2],
            (
                "Stalled",
                Is::True,
                "trigger hours: schedule.start: x".to_owned()
            )
        );
        let mut known = Told {
            triggers: vec![("hours".to_owned(), Standing::default())],
            ..Told::default()
        };
        let all = said(&pool, &known);
        assert_eq!((all.len(), all[0].1, all[1].1), (2, Is::True, Is::False));

        let unknown = Scaling {
            rival: Rival::Unknown("the operator may not list them".to_owned()),
            ..Scaling::default()
        };
        known.scalings = [("web".to_owned(), unknown)].into();
        let words = "workload web: the operator may not list them".to_owned();
        assert_eq!(said(&pool, &known)[1], ("Conflict", Is::Unknown, words));
    }
}
