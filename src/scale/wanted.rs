//! How many replicas the triggers ask for.
//!
//! In: their wishes, the replicas that the target is to have (`spec.replicas`), the tolerances. Out: the
//! greatest wish, and the trigger that has it.

use super::replicas;
use crate::api::WorkloadScale;
use crate::trigger::Wish;

/// How far a value may be from what the replicas can bear, if the spec does not say.
const TOLERANCE: f64 = 0.1;

/// What one trigger asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The trigger's name.
    pub trigger: &'a str,
    /// What it wishes.
    pub wish: Wish,
}

/// What all of them ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// So many, which may be beyond the bounds.
    pub replicas: i32,
    /// The trigger that asks for them; none while all are quiet.
    pub trigger: Option<String>,
    /// A trigger that says nothing of replicas.
    pub unsaid: Option<String>,
    /// A trigger whose value is not known, for which nothing is taken away.
    pub keeps: Option<String>,
}

/// The greatest of the wishes; the fewest replicas while all are quiet. `current` is the target's
/// `spec.replicas`.
pub fn wanted(spec: &WorkloadScale, asks: &[Ask<'_>], current: i32) -> Wanted {
    let tolerances = Tolerances::of(spec);
    let mut all = Wanted {
        replicas: spec.min_replicas,
        ..Wanted::default()
    };
    let mut take = |trigger: &str, replicas: i32| {
        if all.trigger.is_none() || replicas > all.replicas {
            all.replicas = replicas;
            all.trigger = Some(trigger.to_owned());
        }
    };
    for ask in asks {
        match ask.wish {
            Wish::Quiet => {}
            Wish::Unsaid => all.unsaid = Some(ask.trigger.to_owned()),
            Wish::Keep => all.keeps = Some(ask.trigger.to_owned()),
            Wish::Replicas(replicas) => take(ask.trigger, replicas),
            Wish::PerReplica { value, threshold } => {
                take(
                    ask.trigger,
                    tolerances.per_replica(value, threshold, current),
                );
            }
        }
    }
    // One whose value is not known might ask for more: as with an autoscaler of which one metric fails,
    // the others may only add.
    if all.keeps.is_some() && all.replicas < current {
        all.replicas = current;
        all.trigger = None;
    }
    all
}

/// How far a value may be from what the replicas can bear.
struct Tolerances {
    up: f64,
    down: f64,
}

impl Tolerances {
    fn of(spec: &WorkloadScale) -> Self {
        let behavior = &spec.behavior;
        let of = |rules: &crate::api::ScalingRules| {
            let text = rules.tolerance.as_ref().map(|quantity| quantity.0.as_str());
            text.and_then(fraction).unwrap_or(TOLERANCE)
        };
        Self {
            up: of(&behavior.scale_up),
            down: of(&behavior.scale_down),
        }
    }

    /// As many replicas as bear the value, unless `current` ones nearly do: then nothing changes.
    ///
    /// This is `GetExternalPerPodMetricReplicas` of the autoscaler but for one fault: the autoscaler compares
    /// with `status.replicas`, and within the tolerance answers with them. While a rollout surges these are
    /// more than `spec.replicas`, and the surge becomes the new size of a workload whose load is the same.
    fn per_replica(&self, value: f64, threshold: f64, current: i32) -> i32 {
        let ratio = value / (threshold * f64::from(current));
        if 1.0 - self.down <= ratio && ratio <= 1.0 + self.up {
            return current;
        }
        replicas(rounded_up(value / threshold))
    }
}

/// Rounds up, but not for what only the arithmetic of floats has added: a query's sum of 2,000 may be
/// 2,000.0000000000005. The autoscaler counts in thousandths and does not see that either.
fn rounded_up(number: f64) -> f64 {
    let nearest = number.round();
    let is_noise = (number - nearest).abs() <= number.abs() * 1e-9;
    if is_noise { nearest } else { number.ceil() }
}

/// A quantity from 0 to 1, as the resource's pattern has it: a decimal number, or thousandths.
fn fraction(text: &str) -> Option<f64> {
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

    fn per_replica(value: f64, threshold: f64) -> Wish {
        Wish::PerReplica { value, threshold }
    }

    fn replicas_for(behavior: &Value, value: f64, threshold: f64, current: i32) -> i32 {
        let ask = Ask {
            trigger: "a",
            wish: per_replica(value, threshold),
        };
        wanted(&spec(behavior), &[ask], current).replicas
    }

    #[test]
    fn a_value_is_divided_by_what_a_replica_bears_as_in_the_autoscalers_own_tests() {
        // replica_calculator_test.go (1.37): TestReplicaCalcExternalPerPodMetric, up, down, within the
        // tolerance, and an overflow.
        for (value, threshold, current, expected) in [
            (8600.0, 2150.0, 3, 4),
            (8600.0, 2867.0, 5, 3),
            (8600.0, 2900.0, 3, 3),
            (f64::MAX, 1.0, 1, i32::MAX),
            // The documentation's example: twice the value, twice the replicas, and half of it.
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
    fn replicas_that_nearly_bear_the_value_stay() {
        let usual = json!({});
        // 10 replicas bear 1000: 900 and 1100 are within a tenth, one more is not.
        assert_eq!(replicas_for(&usual, 1100.0, 100.0, 10), 10);
        assert_eq!(replicas_for(&usual, 1101.0, 100.0, 10), 12);
        assert_eq!(replicas_for(&usual, 901.0, 100.0, 10), 10);
        assert_eq!(replicas_for(&usual, 899.0, 100.0, 10), 9);
        let own = json!({"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "500m"}});
        assert_eq!(replicas_for(&own, 1001.0, 100.0, 10), 11);
        assert_eq!(replicas_for(&own, 501.0, 100.0, 10), 10);
        assert_eq!(replicas_for(&own, 499.0, 100.0, 10), 5);
    }

    #[test]
    fn what_only_floats_have_added_is_no_replica() {
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
    fn the_greatest_wish_counts_and_says_whose_it_is() {
        let spec = spec(&json!({}));
        let ask = |trigger, wish| Ask { trigger, wish };
        let asks = [
            ask("requests", per_replica(1520.0, 100.0)),
            ask("hours", Wish::Replicas(20)),
            ask("pager", Wish::Quiet),
        ];
        let all = wanted(&spec, &asks, 8);
        assert_eq!((all.replicas, all.trigger.as_deref()), (20, Some("hours")));
        let quiet = wanted(&spec, &[ask("pager", Wish::Quiet)], 8);
        assert_eq!(
            (quiet.replicas, quiet.trigger),
            (2, None),
            "all are quiet: the fewest"
        );
        let few = wanted(&spec, &[ask("hours", Wish::Replicas(1))], 8);
        assert_eq!((few.replicas, few.trigger.as_deref()), (1, Some("hours")));
        let unsaid = wanted(&spec, &[ask("hours", Wish::Unsaid)], 8);
        assert_eq!(
            (unsaid.replicas, unsaid.unsaid.as_deref()),
            (2, Some("hours"))
        );
    }

    #[test]
    fn while_one_value_is_not_known_the_others_may_only_add() {
        let spec = spec(&json!({}));
        let with = |wish, current| {
            let ask = |trigger, wish| Ask { trigger, wish };
            let asks = [ask("requests", Wish::Keep), ask("hours", wish)];
            let all = wanted(&spec, &asks, current);
            (all.replicas, all.keeps.is_some())
        };
        assert_eq!(with(Wish::Replicas(5), 12), (12, true));
        assert_eq!(with(Wish::Replicas(20), 12), (20, true));
        assert_eq!(with(Wish::Quiet, 12), (12, true));
        assert_eq!(with(Wish::Quiet, 0), (2, true));
    }
}
