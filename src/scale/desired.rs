//! How many replicas the triggers ask for.
//!
//! In: the triggers' proposals, the target's desired replicas (`spec.replicas`), and the tolerances. Out: the
//! greatest proposal, and the trigger that made it.

use super::to_replicas;
use crate::api::WorkloadScale;
use crate::trigger::ReplicaProposal;

/// The default tolerance, as in the HPA: no change while the load per replica is within 10% of the threshold.
const DEFAULT_TOLERANCE: f64 = 0.1;

/// What one trigger asks for.
#[derive(Clone, Copy, Debug)]
pub struct TriggerRequest<'a> {
    /// The trigger's name.
    pub trigger: &'a str,
    /// Its proposal.
    pub proposal: ReplicaProposal,
}

/// What all triggers of a workload ask for together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredReplicas {
    /// The number of replicas. It may be outside of `minReplicas` and `maxReplicas`.
    pub replicas: i32,
    /// The trigger that asks for them. `None` if no trigger does, or if the present replicas are kept.
    pub trigger: Option<String>,
    /// An active trigger whose spec contains no replicas.
    pub without_replicas: Option<String>,
    /// A trigger whose value is unknown. Because of it, the workload is not scaled in.
    pub held_by: Option<String>,
}

/// The greatest proposal, or `minReplicas` if there is none. `current` is the target's `spec.replicas`.
pub fn desired_replicas(
    spec: &WorkloadScale,
    requests: &[TriggerRequest<'_>],
    current: i32,
) -> DesiredReplicas {
    let tolerances = Tolerances::from_spec(spec);
    let mut desired = DesiredReplicas {
        replicas: spec.min_replicas,
        ..DesiredReplicas::default()
    };
    let mut propose = |trigger: &str, replicas: i32| {
        if desired.trigger.is_none() || replicas > desired.replicas {
            desired.replicas = replicas;
            desired.trigger = Some(trigger.to_owned());
        }
    };
    for request in requests {
        match request.proposal {
            ReplicaProposal::Inactive => {}
            ReplicaProposal::ActiveOnly => {
                desired.without_replicas = Some(request.trigger.to_owned());
            }
            ReplicaProposal::Hold => desired.held_by = Some(request.trigger.to_owned()),
            ReplicaProposal::Replicas(replicas) => propose(request.trigger, replicas),
            ReplicaProposal::PerReplica { value, threshold } => {
                propose(
                    request.trigger,
                    tolerances.per_replica(value, threshold, current),
                );
            }
        }
    }
    // A trigger with an unknown value might ask for more. As in an HPA with a failing metric, the other
    // triggers may only add replicas.
    if desired.held_by.is_some() && desired.replicas < current {
        desired.replicas = current;
        desired.trigger = None;
    }
    desired
}

/// How far the load per replica may be above or below the threshold without a change, as a fraction.
struct Tolerances {
    up: f64,
    down: f64,
}

impl Tolerances {
    fn from_spec(spec: &WorkloadScale) -> Self {
        let behavior = &spec.behavior;
        let tolerance = |rules: &crate::api::ScalingRules| {
            let text = rules.tolerance.as_ref().map(|quantity| quantity.0.as_str());
            text.and_then(parse_fraction).unwrap_or(DEFAULT_TOLERANCE)
        };
        Self {
            up: tolerance(&behavior.scale_up),
            down: tolerance(&behavior.scale_down),
        }
    }

    /// The replicas that the value needs at `threshold` per replica, or `current` if that is within the
    /// tolerance.
    ///
    /// This is the HPA's `GetExternalPerPodMetricReplicas` without one fault. The HPA compares with
    /// `status.replicas`, and within the tolerance returns that number. While a rollout surges, it is higher
    /// than `spec.replicas`, so the surge becomes the new size of a workload whose load has not changed.
    fn per_replica(&self, value: f64, threshold: f64, current: i32) -> i32 {
        let ratio = value / (threshold * f64::from(current));
        if 1.0 - self.down <= ratio && ratio <= 1.0 + self.up {
            return current;
        }
        to_replicas(round_up(value / threshold))
    }
}

/// Rounds up, except for rounding errors of floating point numbers: a query's sum of 2,000 may arrive as
/// 2,000.0000000000005. The HPA counts in thousandths, so it does not see such errors either.
fn round_up(number: f64) -> f64 {
    let nearest = number.round();
    let is_noise = (number - nearest).abs() <= number.abs() * 1e-9;
    if is_noise { nearest } else { number.ceil() }
}

/// Parses a quantity from 0 to 1 in the CRD's pattern: a decimal number, or thousandths with the suffix `m`.
fn parse_fraction(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths
            .parse::<f64>()
            .ok()
            .map(|number| number / 1000.0),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(behavior: &Value) -> WorkloadScale {
        let spec =
            json!({"minReplicas": 2, "maxReplicas": 40, "triggers": ["a"], "behavior": behavior});
        serde_json::from_value(spec).expect("a scale")
    }

    fn per_replica(value: f64, threshold: f64) -> ReplicaProposal {
        ReplicaProposal::PerReplica { value, threshold }
    }

    fn replicas_for(behavior: &Value, value: f64, threshold: f64, current: i32) -> i32 {
        let request = TriggerRequest {
            trigger: "a",
            proposal: per_replica(value, threshold),
        };
        desired_replicas(&spec(behavior), &[request], current).replicas
    }

    #[test]
    fn a_value_is_divided_by_the_threshold_as_in_the_autoscalers_own_tests() {
        // From replica_calculator_test.go (1.37), TestReplicaCalcExternalPerPodMetric: up, down, within the
        // tolerance, and an overflow.
        for (value, threshold, current, expected) in [
            (8600.0, 2150.0, 3, 4),
            (8600.0, 2867.0, 5, 3),
            (8600.0, 2900.0, 3, 3),
            (f64::MAX, 1.0, 1, i32::MAX),
            // The documentation's example: twice the value gives twice the replicas, and half the value half of
            // them.
            (200.0, 100.0, 1, 2),
            (50.0, 50.0, 2, 1),
            (0.0, 100.0, 4, 0),
            (1.0, 100.0, 0, 1),
        ] {
            let found = replicas_for(&json!({}), value, threshold, current);
            assert_eq!(found, expected, "{value} / {threshold} with {current}");
        }
    }

    #[test]
    fn replicas_within_the_tolerance_stay() {
        let default = json!({});
        // 10 replicas take 1000. 900 and 1100 are within the tolerance of 10%; one more or less is not.
        assert_eq!(replicas_for(&default, 1100.0, 100.0, 10), 10);
        assert_eq!(replicas_for(&default, 1101.0, 100.0, 10), 12);
        assert_eq!(replicas_for(&default, 901.0, 100.0, 10), 10);
        assert_eq!(replicas_for(&default, 899.0, 100.0, 10), 9);
        let custom = json!({"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "500m"}});
        assert_eq!(replicas_for(&custom, 1001.0, 100.0, 10), 11);
        assert_eq!(replicas_for(&custom, 501.0, 100.0, 10), 10);
        assert_eq!(replicas_for(&custom, 499.0, 100.0, 10), 5);
    }

    #[test]
    fn a_rounding_error_adds_no_replica() {
        let sum = 0.1 + 0.2;
        assert!(sum / 0.1 > 3.0);
        assert_eq!(replicas_for(&json!({}), sum, 0.1, 1), 3);
        assert_eq!(
            replicas_for(&json!({}), 2_000.000_000_000_000_5, 100.0, 10),
            20
        );
        assert_eq!(replicas_for(&json!({}), 2000.01, 100.0, 10), 21);
    }

    #[test]
    fn the_greatest_proposal_counts_and_names_its_trigger() {
        let spec = spec(&json!({}));
        let request = |trigger, proposal| TriggerRequest { trigger, proposal };
        let requests = [
            request("requests", per_replica(1520.0, 100.0)),
            request("hours", ReplicaProposal::Replicas(20)),
            request("pager", ReplicaProposal::Inactive),
        ];
        let desired = desired_replicas(&spec, &requests, 8);
        assert_eq!(
            (desired.replicas, desired.trigger.as_deref()),
            (20, Some("hours"))
        );
        let quiet = desired_replicas(&spec, &[request("pager", ReplicaProposal::Inactive)], 8);
        assert_eq!(
            (quiet.replicas, quiet.trigger),
            (2, None),
            "without a proposal, minReplicas counts"
        );
        let few = desired_replicas(&spec, &[request("hours", ReplicaProposal::Replicas(1))], 8);
        assert_eq!((few.replicas, few.trigger.as_deref()), (1, Some("hours")));
        let without_replicas =
            desired_replicas(&spec, &[request("hours", ReplicaProposal::ActiveOnly)], 8);
        assert_eq!(
            (
                without_replicas.replicas,
                without_replicas.without_replicas.as_deref()
            ),
            (2, Some("hours"))
        );
    }

    #[test]
    fn while_one_value_is_unknown_the_others_may_only_add_replicas() {
        let spec = spec(&json!({}));
        let desired_with = |proposal, current| {
            let request = |trigger, proposal| TriggerRequest { trigger, proposal };
            let requests = [
                request("requests", ReplicaProposal::Hold),
                request("hours", proposal),
            ];
            let desired = desired_replicas(&spec, &requests, current);
            (desired.replicas, desired.held_by.is_some())
        };
        assert_eq!(desired_with(ReplicaProposal::Replicas(5), 12), (12, true));
        assert_eq!(desired_with(ReplicaProposal::Replicas(20), 12), (20, true));
        assert_eq!(desired_with(ReplicaProposal::Inactive, 12), (12, true));
        assert_eq!(desired_with(ReplicaProposal::Inactive, 0), (2, true));
    }
}
