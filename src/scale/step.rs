//! How many replicas to set now: stabilization, policies and bounds, as in `horizontal.go` of Kubernetes 1.37.
//!
//! In: the replicas that the triggers ask for, the present replicas, the [`ScalingHistory`], and the time. Out: a
//! [`ReplicaStep`]. As in the HPA, the history is lost on a restart. A new history begins with the present replicas,
//! so nothing is scaled in for the length of the stabilization window.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::{PolicyType, ScalingPolicy, ScalingRules, SelectPolicy, WorkloadScale};

/// The default of `scaleDown.stabilizationWindowSeconds`, in seconds. The highest recommendation in it counts.
const DEFAULT_DOWNSCALE_WINDOW_SECONDS: i32 = 300;
/// The period of the default policies, in seconds.
const DEFAULT_PERIOD_SECONDS: i32 = 15;

/// Earlier recommendations and changes of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalingHistory {
    recommended: Vec<(Timestamp, i32)>,
    added: Vec<(Timestamp, i32)>,
    removed: Vec<(Timestamp, i32)>,
}

impl ScalingHistory {
    /// Records that the replicas were changed.
    pub fn record_change(&mut self, from: i32, to: i32, now: Timestamp) {
        if to > from {
            self.added.push((now, to - from));
        } else {
            self.removed.push((now, from - to));
        }
        // The CRD limits a policy's period to 30 minutes.
        let horizon = seconds_before(now, 1800);
        self.added.retain(|(time, _)| *time > horizon);
        self.removed.retain(|(time, _)| *time > horizon);
    }

    /// The replicas at the beginning of a policy's period.
    fn replicas_at_period_start(
        &self,
        policy: &ScalingPolicy,
        current: i32,
        now: Timestamp,
    ) -> i32 {
        let period_start = seconds_before(now, policy.period_seconds);
        let sum = |changes: &[(Timestamp, i32)]| -> i32 {
            let recent = changes.iter().filter(|(time, _)| *time > period_start);
            recent.map(|(_, change)| change).sum()
        };
        current - sum(&self.added) + sum(&self.removed)
    }
}

/// How many replicas to set, and what limits them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStep {
    /// The replicas to set.
    pub replicas: i32,
    /// Why this is not the number that the triggers ask for. `None` if it is.
    pub limited_by: Option<&'static str>,
}

/// Computes the replicas to set now, if the target's `spec.replicas` is `current` and the triggers ask for
/// `desired`.
pub fn step(
    spec: &WorkloadScale,
    history: &mut ScalingHistory,
    current: i32,
    desired: i32,
    now: Timestamp,
) -> ReplicaStep {
    if history.recommended.is_empty() {
        history.recommended.push((now, current));
    }
    let limited = |replicas, reason| ReplicaStep {
        replicas,
        limited_by: Some(reason),
    };
    if current == 0 && spec.min_replicas > 0 {
        return limited(0, "0 replicas are set, which switches scaling off");
    }
    if current > spec.max_replicas {
        return limited(spec.max_replicas, "there are more than maxReplicas");
    }
    if current < spec.min_replicas {
        return limited(spec.min_replicas, "there are fewer than minReplicas");
    }
    let stable = stabilize(spec, history, current, desired, now);
    let mut step = apply_limits(spec, history, current, stable, now);
    if step.limited_by.is_none() && stable != desired {
        step.limited_by = Some(if desired >= current {
            "triggers asked for fewer within scaleUp.stabilizationWindowSeconds"
        } else {
            "triggers asked for more within scaleDown.stabilizationWindowSeconds"
        });
    }
    step
}

/// Applies the stabilization windows: the lowest recent recommendation limits scaling up, the highest scaling
/// down.
fn stabilize(
    spec: &WorkloadScale,
    history: &mut ScalingHistory,
    current: i32,
    desired: i32,
    now: Timestamp,
) -> i32 {
    let behavior = &spec.behavior;
    let up = seconds_before(
        now,
        behavior.scale_up.stabilization_window_seconds.unwrap_or(0),
    );
    let down = behavior.scale_down.stabilization_window_seconds;
    let down = seconds_before(now, down.unwrap_or(DEFAULT_DOWNSCALE_WINDOW_SECONDS));
    let (mut lowest, mut highest) = (desired, desired);
    for (at, recommended) in &history.recommended {
        if *at > up {
            lowest = lowest.min(*recommended);
        }
        if *at > down {
            highest = highest.max(*recommended);
        }
    }
    history
        .recommended
        .retain(|(at, _)| *at >= up || *at >= down);
    history.recommended.push((now, desired));
    current.max(lowest).min(highest)
}

/// Applies the policies and the bounds.
fn apply_limits(
    spec: &WorkloadScale,
    history: &ScalingHistory,
    current: i32,
    desired: i32,
    now: Timestamp,
) -> ReplicaStep {
    let behavior = &spec.behavior;
    let (limit, reason) = match desired.cmp(&current) {
        Ordering::Greater => {
            let allowed = up_limit(&behavior.scale_up, history, current, now).max(current);
            if spec.max_replicas > allowed {
                (allowed, "limited by the scaleUp policies")
            } else {
                (spec.max_replicas, "limited by maxReplicas")
            }
        }
        Ordering::Less => {
            let allowed = down_limit(&behavior.scale_down, history, current, now).min(current);
            if spec.min_replicas < allowed {
                (allowed, "limited by the scaleDown policies")
            } else {
                (spec.min_replicas, "limited by minReplicas")
            }
        }
        Ordering::Equal => (desired, ""),
    };
    let is_beyond = if desired > current {
        desired > limit
    } else {
        desired < limit
    };
    ReplicaStep {
        replicas: if is_beyond { limit } else { desired },
        limited_by: is_beyond.then_some(reason),
    }
}

/// The most replicas that the scale-up policies allow.
fn up_limit(rules: &ScalingRules, history: &ScalingHistory, current: i32, now: Timestamp) -> i32 {
    let defaults = [
        policy(PolicyType::Pods, 4),
        policy(PolicyType::Percent, 100),
    ];
    let proposals = policies_or_default(rules, &defaults).iter().map(|policy| {
        let start = history.replicas_at_period_start(policy, current, now);
        match policy.kind {
            PolicyType::Pods => start.saturating_add(policy.value),
            // Rounded up. Otherwise a small number of replicas would never grow.
            PolicyType::Percent => percent(start, 100 + i64::from(policy.value), 99),
        }
    });
    let limit = match rules.select_policy {
        SelectPolicy::Disabled => None,
        SelectPolicy::Max => proposals.max(),
        SelectPolicy::Min => proposals.min(),
    };
    limit.unwrap_or(current)
}

/// The fewest replicas that the scale-down policies allow.
fn down_limit(rules: &ScalingRules, history: &ScalingHistory, current: i32, now: Timestamp) -> i32 {
    let defaults = [policy(PolicyType::Percent, 100)];
    let proposals = policies_or_default(rules, &defaults).iter().map(|policy| {
        let start = history.replicas_at_period_start(policy, current, now);
        match policy.kind {
            PolicyType::Pods => start.saturating_sub(policy.value),
            PolicyType::Percent => percent(start, 100 - i64::from(policy.value), 0),
        }
    });
    let limit = match rules.select_policy {
        SelectPolicy::Disabled => None,
        SelectPolicy::Max => proposals.min(),
        SelectPolicy::Min => proposals.max(),
    };
    limit.unwrap_or(current)
}

/// `percent` percent of `start`, in exact integer arithmetic. `remainder` 99 rounds up, 0 rounds down.
fn percent(start: i32, percent: i64, remainder: i64) -> i32 {
    let hundredths = i64::from(start) * percent + remainder;
    i32::try_from(hundredths.div_euclid(100)).unwrap_or(i32::MAX)
}

const fn policy(kind: PolicyType, value: i32) -> ScalingPolicy {
    ScalingPolicy {
        kind,
        value,
        period_seconds: DEFAULT_PERIOD_SECONDS,
    }
}

fn policies_or_default<'a>(
    rules: &'a ScalingRules,
    defaults: &'a [ScalingPolicy],
) -> &'a [ScalingPolicy] {
    if rules.policies.is_empty() {
        defaults
    } else {
        &rules.policies
    }
}

/// The time `seconds` before `now`.
fn seconds_before(now: Timestamp, seconds: i32) -> Timestamp {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(seconds))
        .unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
