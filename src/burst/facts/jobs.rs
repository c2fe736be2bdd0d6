//! Whether a Job replaces a pod that is evicted.
//!
//! In: the Job. Out: whether the eviction costs a failure, or why the Job would not replace the pod. Pure.
//! Follows the Job controller of Kubernetes 1.37: an evicted pod has the condition `DisruptionTarget`. Its
//! containers never ran, so only the condition rules of a `podFailurePolicy` can match.
//! <https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy>

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, PodFailurePolicyRule};

/// The condition of an evicted pod.
const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// The default of a Job's `backoffLimit`.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;
/// Conditions of a Job that creates no more pods.
const FINAL_CONDITIONS: [&str; 4] = ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"];

/// What the eviction of a pod costs its Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionCost {
    /// Nothing: the pod failure policy ignores disruptions.
    Nothing,
    /// One failure, and `backoffLimit` still allows it.
    Failure,
}

/// What the eviction of a pod costs `job`, if the Job replaces the pod.
///
/// # Errors
///
/// The reason why the Job does not replace the pod, worded to follow "it stays: ".
pub fn eviction_cost(job: &Job) -> Result<EvictionCost, String> {
    let (spec, status) = (job.spec.as_ref(), job.status.as_ref());
    if is_over(status) || job.metadata.deletion_timestamp.is_some() {
        return Err("its Job is over".to_owned());
    }
    let Some(spec) = spec else {
        return Err("its Job has no spec".to_owned());
    };
    if spec.suspend == Some(true) {
        return Err("its Job is suspended".to_owned());
    }
    let policy = spec.pod_failure_policy.as_ref();
    let mut rules = policy.into_iter().flat_map(|policy| &policy.rules);
    match rules.find(|rule| is_about_disruptions(rule)) {
        Some(rule) if rule.action == "Ignore" => return Ok(EvictionCost::Nothing),
        Some(rule) if rule.action != "Count" => {
            let action = &rule.action;
            return Err(format!(
                "the podFailurePolicy of its Job answers a disruption with {action}"
            ));
        }
        _ => {}
    }
    if spec.backoff_limit_per_index.is_some() {
        return Err("its Job would count a failure of its index (backoffLimitPerIndex)".to_owned());
    }
    let limit = spec.backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT);
    let failures = failures(spec, status);
    if failures < i64::from(limit) {
        Ok(EvictionCost::Failure)
    } else {
        Err(format!(
            "its Job has had {failures} failures and may have {limit} (backoffLimit): with another one it would fail"
        ))
    }
}

/// Whether the Job creates no more pods.
fn is_over(status: Option<&JobStatus>) -> bool {
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| {
        condition.status == "True" && FINAL_CONDITIONS.contains(&condition.type_.as_str())
    })
}

/// How many of the Job's pods have failed, including those that have failed, or will, and that the Job controller has
/// not counted yet.
fn failures(spec: &JobSpec, status: Option<&JobStatus>) -> i64 {
    let uncounted = status.and_then(|status| status.uncounted_terminated_pods.as_ref());
    let uncounted = uncounted.and_then(|pods| pods.failed.as_ref());
    let uncounted = i64::try_from(uncounted.map_or(0, Vec::len)).unwrap_or(i64::MAX);
    let leaving = status
        .and_then(|status| status.terminating)
        .filter(|_| counts_late(spec));
    let failed = status.and_then(|status| status.failed);
    i64::from(failed.unwrap_or(0)) + i64::from(leaving.unwrap_or(0)) + uncounted
}

/// Whether the Job controller counts a pod that is being deleted only once it has failed. Otherwise `failed` includes
/// the terminating pods already (Job controller, `isPodFailed` and `onlyReplaceFailedPods`).
fn counts_late(spec: &JobSpec) -> bool {
    let policy = spec.pod_replacement_policy.as_deref();
    policy == Some("Failed") || spec.pod_failure_policy.is_some()
}

fn is_about_disruptions(rule: &PodFailurePolicyRule) -> bool {
    let mut patterns = rule.on_pod_conditions.iter().flatten();
    patterns.any(|pattern| {
        // The API server defaults the status to "True".
        pattern.type_ == DISRUPTION_TARGET && pattern.status.as_deref().unwrap_or("True") == "True"
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: &Value, status: &Value) -> Result<EvictionCost, String> {
        let mut job = json!({"metadata": {}, "spec": {"template": {}}, "status": status});
        json_patch::merge(&mut job["spec"], spec);
        eviction_cost(&serde_json::from_value(job).expect("a Job"))
    }

    #[test]
    fn a_job_makes_another_pod_as_long_as_it_may_have_another_failure() {
        for (limit, status, is_made) in [
            (json!(null), json!({}), true),
            (json!(null), json!({"failed": 5}), true),
            (json!(null), json!({"failed": 6}), false),
            (json!(0), json!({}), false),
            (json!(1), json!({}), true),
            (json!(1), json!({"failed": 1}), false),
            (
                json!(1),
                json!({"uncountedTerminatedPods": {"failed": ["u"]}}),
                false,
            ),
        ] {
            let cost = of(&json!({"backoffLimit": limit}), &status);
            let expected = is_made.then_some(EvictionCost::Failure);
            assert_eq!(cost.ok(), expected, "{limit} {status}");
        }
    }

    #[test]
    fn a_pod_that_is_being_deleted_counts_once() {
        let rules = json!({"rules": [{"action": "Count", "onPodConditions": []}]});
        for (spec, status, is_made) in [
            // The Job controller has counted the terminating pod as failed.
            (json!({}), json!({"failed": 1, "terminating": 1}), true),
            (json!({}), json!({"failed": 1, "terminating": 2}), true),
            (json!({}), json!({"failed": 2, "terminating": 1}), false),
            (
                json!({"podReplacementPolicy": "TerminatingOrFailed"}),
                json!({"failed": 1, "terminating": 1}),
                true,
            ),
            // It counts it once it has failed.
            (
                json!({"podReplacementPolicy": "Failed"}),
                json!({"failed": 1, "terminating": 1}),
                false,
            ),
            (
                json!({"podFailurePolicy": rules}),
                json!({"failed": 1, "terminating": 1}),
                false,
            ),
        ] {
            let mut two = json!({"backoffLimit": 2});
            json_patch::merge(&mut two, &spec);
            let cost = of(&two, &status);
            let expected = is_made.then_some(EvictionCost::Failure);
            assert_eq!(cost.ok(), expected, "{spec} {status}");
        }
    }

    #[test]
    fn a_job_that_is_over_suspended_or_counts_by_index_makes_none() {
        for kind in FINAL_CONDITIONS {
            let condition =
                |status: &str| json!({"conditions": [{"type": kind, "status": status}]});
            assert!(of(&json!({}), &condition("True")).is_err(), "{kind}");
            assert!(of(&json!({}), &condition("False")).is_ok(), "{kind}");
        }
        assert!(of(&json!({"suspend": true}), &json!({})).is_err());
        assert!(of(&json!({"backoffLimitPerIndex": 1}), &json!({})).is_err());
    }

    #[test]
    fn a_failure_policy_decides_by_its_first_rule_about_disruptions() {
        let disrupted = |action: &str| json!({"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        let code = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}});
        let other = json!({"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue", "status": "True"}]});
        let not = json!({"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "False"}]});
        for (rules, cost) in [
            (vec![disrupted("Ignore")], Some(EvictionCost::Nothing)),
            (
                vec![code.clone(), other.clone(), not, disrupted("Ignore")],
                Some(EvictionCost::Nothing),
            ),
            (vec![disrupted("FailJob"), disrupted("Ignore")], None),
            (vec![disrupted("FailIndex")], None),
            (vec![disrupted("Count")], None),
            (vec![code, other], None),
        ] {
            let spec = json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}});
            assert_eq!(of(&spec, &json!({})).ok(), cost, "{spec}");
        }
    }
}
