//! Tables from the HPA's own tests (`horizontal_test.go` of Kubernetes 1.37, with their names there), and the
//! documentation's examples. Both are also run over time.

use serde_json::{Value, json};

use super::*;

/// The time of each case.
const NOW: i64 = 100_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn spec(min: i32, max: i32, behavior: &Value) -> WorkloadScale {
    let spec =
        json!({"minReplicas": min, "maxReplicas": max, "triggers": ["a"], "behavior": behavior});
    serde_json::from_value(spec).expect("a scale")
}

/// As `generateScalingRules`: pods per period, percent per period; 0 for no policy.
fn rules(pods: i32, pods_in: i32, percent: i32, percent_in: i32) -> Value {
    let mut policies = Vec::new();
    if pods > 0 {
        policies.push(json!({"type": "Pods", "value": pods, "periodSeconds": pods_in}));
    }
    if percent > 0 {
        policies.push(json!({"type": "Percent", "value": percent, "periodSeconds": percent_in}));
    }
    json!({"policies": policies})
}

fn up(rules: &Value) -> Value {
    json!({"scaleUp": rules})
}

fn down(rules: &Value) -> Value {
    json!({"scaleDown": rules})
}

/// As `generateEventsUniformDistribution`: changes spread over a number of seconds.
fn events(changes: &[i32], seconds: i64) -> Vec<(Timestamp, i32)> {
    let count = i64::try_from(changes.len()).expect("few");
    let each = (0i64..).zip(changes);
    each.map(|(n, change)| (at(NOW - seconds * (n + 1) / (count + 1)), *change))
        .collect()
}

struct StepCase(
    &'static str,
    (i32, i32),
    Value,
    i32,
    i32,
    i32,
    Option<&'static str>,
);

fn check(case: &StepCase, history: &ScalingHistory) {
    let StepCase(name, (min, max), behavior, current, desired, expected, limited_by) = case;
    let spec = spec(*min, *max, behavior);
    let step = apply_limits(&spec, history, *current, *desired, at(NOW));
    assert_eq!(
        (step.replicas, step.limited_by),
        (*expected, *limited_by),
        "{name}"
    );
}

const UP: Option<&str> = Some("limited by the scaleUp policies");
const DOWN: Option<&str> = Some("limited by the scaleDown policies");
const LIMITED: Option<&str> = Some("limited by maxReplicas");
const FEWEST: Option<&str> = Some("limited by minReplicas");

#[test]
#[rustfmt::skip]
fn bounds_and_policies_are_those_of_the_autoscalers_own_tests() {
    let none = json!({});
    for case in [
        StepCase("within range", (3, 8), none.clone(), 5, 7, 7, None),
        StepCase("desired < minReplicas", (2, 8), none.clone(), 3, 1, 2, FEWEST),
        StepCase("within range when minReplicas is 0", (0, 10), none.clone(), 1, 0, 0, None),
        StepCase("maxReplicas is the limit because maxReplicas < scaleUpLimit", (1, 10), none.clone(), 20, 1000, 10, LIMITED),
        StepCase("more than the maximum", (100, 150), none.clone(), 100, 1000, 150, LIMITED),
        StepCase("scaleUpLimit with user policies", (1, 2000), up(&rules(0, 0, 1, 60)), 3, 1000, 4, UP),
        StepCase("scaleUp with default behavior", (1, 1000), none.clone(), 10, 50, 20, UP),
        StepCase("scaleUp with default behavior, few", (1, 1000), none, 1, 50, 5, UP),
        StepCase("scaleUp with pods policy larger", (1, 1000), up(&rules(100, 60, 100, 60)), 10, 500, 110, UP),
        StepCase("scaleUp with percent policy larger", (1, 1000), up(&rules(2, 60, 100, 60)), 10, 500, 20, UP),
        StepCase("large pod policy", (1, 1000), up(&rules(100, 60, 0, 0)), 10, 50, 50, None),
        StepCase("scaleUp with pod policy limitation", (1, 1000), up(&rules(30, 60, 0, 0)), 10, 50, 40, UP),
        StepCase("scaleUp with percent policy limitation", (1, 1000), up(&rules(0, 0, 200, 60)), 10, 50, 30, UP),
        StepCase("scaleDown with percent and pod policy", (1, 1000), down(&rules(20, 60, 1, 60)), 100, 2, 80, DOWN),
        StepCase("scaleDown with pod and percent policy", (1, 1000), down(&rules(2, 60, 1, 60)), 100, 2, 98, DOWN),
        StepCase("scaleDown with large pod policy", (1, 1000), down(&rules(100, 60, 0, 0)), 10, 0, 1, FEWEST),
        StepCase("scaleDown with large percent policy", (5, 1000), down(&rules(0, 0, 100, 60)), 10, 2, 5, FEWEST),
        StepCase("scaleDown with pod policy limitation", (1, 1000), down(&rules(5, 60, 0, 0)), 10, 2, 5, DOWN),
        StepCase("scaleDown with percent policy limitation", (1, 1000), down(&rules(0, 0, 50, 60)), 10, 5, 5, None),
    ] {
        check(&case, &ScalingHistory::default());
    }
}

#[test]
#[rustfmt::skip]
fn a_percentage_is_exact() {
    // With floating point, 100 * 1.1 is slightly above 110, and 10 * (1 - 0.9) slightly below 1.
    for case in [
        StepCase("10 percent more", (1, 1000), up(&rules(0, 0, 10, 60)), 100, 500, 110, UP),
        StepCase("10 percent more, rounded up", (1, 1000), up(&rules(0, 0, 10, 60)), 101, 500, 112, UP),
        StepCase("90 percent fewer", (0, 1000), down(&rules(0, 0, 90, 60)), 10, 0, 1, DOWN),
        StepCase("90 percent fewer, rounded down", (0, 1000), down(&rules(0, 0, 90, 60)), 19, 0, 1, DOWN),
    ] {
        check(&case, &ScalingHistory::default());
    }
}

#[test]
#[rustfmt::skip]
fn changes_within_a_policys_period_count_as_in_the_autoscalers_own_tests() {
    let few = || events(&[1, 5, 9], 120);
    let many = || events(&[8, 12, 9, 11], 120);
    for (added, removed, case) in [
        (few(), vec![], StepCase("large pod policy", (1, 200), up(&rules(300, 60, 0, 0)), 100, 500, 200, LIMITED)),
        (few(), vec![], StepCase("large percent policy", (1, 200), up(&rules(0, 0, 10000, 60)), 100, 500, 200, LIMITED)),
        (few(), vec![], StepCase("currentReplicas limitation", (1, 1000), up(&rules(5, 120, 0, 0)), 100, 500, 100, UP)),
        (few(), vec![], StepCase("scaleUp with pod policy", (1, 1000), up(&rules(150, 120, 0, 0)), 100, 500, 235, UP)),
        (few(), vec![], StepCase("scaleUp with percent policy", (1, 1000), up(&rules(0, 0, 200, 120)), 100, 500, 255, UP)),
        (events(&[4], 120), events(&[2], 120), StepCase("up and down events", (1, 1000), up(&rules(0, 0, 300, 300)), 6, 24, 16, UP)),
        (vec![], few(), StepCase("scaleDown with default policy", (1, 1000), json!({}), 10, 5, 5, None)),
        (vec![], few(), StepCase("MinReplicas with large pod policy", (1, 1000), down(&rules(115, 120, 0, 0)), 100, 0, 1, FEWEST)),
        (vec![], few(), StepCase("MinReplicas limitation", (5, 1000), down(&rules(130, 120, 0, 0)), 100, 0, 5, FEWEST)),
        (vec![], few(), StepCase("100 percent is always to 0", (5, 1000), down(&rules(0, 0, 100, 120)), 100, 2, 5, FEWEST)),
        (vec![], few(), StepCase("scaleDown with pod policy", (1, 1000), down(&rules(5, 120, 0, 0)), 100, 2, 100, DOWN)),
        (vec![], events(&[2, 4, 6], 120), StepCase("scaleDown with percent policy", (1, 1000), down(&rules(0, 0, 50, 120)), 100, 0, 56, DOWN)),
        (events(&[2], 120), events(&[4], 120), StepCase("down and up events", (1, 1000), down(&rules(0, 0, 50, 180)), 10, 1, 6, DOWN)),
        (vec![], events(&[10, 10, 10], 120), StepCase("events prevent scale down", (1, 1000), down(&rules(0, 0, 10, 120)), 100, 0, 100, DOWN)),
        (vec![], events(&[10, 10, 10], 120), StepCase("events still allow more", (1, 1000), down(&rules(0, 0, 1000, 120)), 10, 5, 5, None)),
        (many(), vec![], StepCase("two policies for up", (1, 1000), up(&rules(1000, 120, 100, 60)), 100, 200, 200, None)),
        (vec![], many(), StepCase("two policies for down", (1, 1000), down(&rules(1000, 120, 100, 60)), 100, 5, 5, None)),
    ] {
        let history = ScalingHistory { recommended: vec![], added, removed };
        check(&case, &history);
    }
}

#[test]
fn select_policy_can_choose_the_least_change_or_none() {
    let choose = |policy: &str, mut rules: Value| {
        rules["selectPolicy"] = policy.into();
        rules
    };
    let case = |behavior, desired, expected, limited_by| {
        let case = StepCase(
            "selected",
            (1, 1000),
            behavior,
            10,
            desired,
            expected,
            limited_by,
        );
        check(&case, &ScalingHistory::default());
    };
    case(up(&choose("Min", rules(2, 60, 100, 60))), 50, 12, UP);
    case(down(&choose("Min", rules(2, 60, 50, 60))), 1, 8, DOWN);
    case(up(&choose("Disabled", json!({}))), 50, 10, UP);
    case(down(&choose("Disabled", json!({}))), 1, 10, DOWN);
}

#[test]
#[rustfmt::skip]
fn recommendations_are_stabilized_as_in_the_autoscalers_own_tests() {
    for (name, up, down, recommended, current, desired, expected) in [
        ("empty recommendations", 0, 0, vec![], 100, 5, 5),
        ("simple scale down stabilization", 0, 180, vec![(120, 4), (60, 5)], 100, 3, 5),
        ("simple scale up stabilization", 300, 0, vec![(120, 4), (60, 5)], 1, 7, 4),
        ("no scale down stabilization", 300, 0, vec![(120, 1), (60, 2)], 100, 3, 3),
        ("no scale up stabilization", 0, 300, vec![(120, 4), (60, 5)], 1, 3, 3),
        ("obsolete ones, down", 0, 0, vec![(600, 10), (540, 9)], 100, 3, 3),
        ("obsolete ones, up", 0, 0, vec![(600, 10), (540, 9)], 1, 100, 100),
        ("one of them obsolete, down", 0, 180, vec![(600, 10), (60, 4), (120, 5), (540, 9)], 100, 3, 5),
        ("one of them obsolete, up", 300, 0, vec![(6000, 10), (60, 6), (120, 5), (180, 9)], 1, 100, 5),
        ("do not scale up when it goes down", 300, 300, vec![(6000, 2), (180, 3)], 2, 1, 2),
        ("do not scale down when it goes up", 300, 300, vec![(6000, 2), (180, 1)], 2, 3, 2),
    ] {
        let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": up}, "scaleDown": {"stabilizationWindowSeconds": down}});
        let recommended = recommended.into_iter().map(|(ago, replicas)| (at(NOW - ago), replicas));
        let mut history = ScalingHistory { recommended: recommended.collect(), ..ScalingHistory::default() };
        let stabilized = stabilize(&spec(1, 1000, &behavior), &mut history, current, desired, at(NOW));
        assert_eq!(stabilized, expected, "{name}");
    }
}

/// The replicas at each of the given seconds, if the triggers ask for the given number then and each decision is
/// carried out.
fn replicas_over_time(spec: &WorkloadScale, initial: i32, desired: &[(i64, i32)]) -> Vec<i32> {
    let (mut history, mut current) = (ScalingHistory::default(), initial);
    let replicas = desired.iter().map(|(second, desired)| {
        let now = at(NOW + second);
        let next = step(spec, &mut history, current, *desired, now).replicas;
        if next != current {
            history.record_change(current, next, now);
        }
        current = next;
        current
    });
    replicas.collect()
}

#[test]
fn replicas_double_every_fifteen_seconds_and_stay_for_five_minutes() {
    let default = spec(1, 100, &json!({}));
    let peak = [(0, 50), (15, 50), (30, 50), (45, 50), (60, 50)];
    assert_eq!(replicas_over_time(&default, 1, &peak), [5, 10, 20, 40, 50]);
    let after_peak = [(0, 50), (1, 1), (150, 1), (299, 1), (300, 1)];
    assert_eq!(
        replicas_over_time(&default, 50, &after_peak),
        [50, 50, 50, 50, 1]
    );
}

#[test]
fn the_documentations_slow_scale_down_removes_ten_percent_a_minute() {
    // "Example: limit scale down rate": 10 percent and 5 pods a minute, whichever is less.
    let slow = json!({"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
        {"type": "Percent", "value": 10, "periodSeconds": 60},
        {"type": "Pods", "value": 5, "periodSeconds": 60},
    ]}});
    let minutes: Vec<(i64, i32)> = (0..7).map(|n| (n * 61, 10)).collect();
    // 10 percent are more than 5 pods until fewer than 50 are left; from 45, 4.5 pods are removed.
    assert_eq!(
        replicas_over_time(&spec(10, 100, &slow), 80, &minutes),
        [75, 70, 65, 60, 55, 50, 45]
    );
    let more: Vec<(i64, i32)> = (0..3).map(|n| (n * 61, 10)).collect();
    assert_eq!(
        replicas_over_time(&spec(10, 100, &slow), 45, &more),
        [40, 36, 32]
    );
}

#[test]
fn a_flapping_value_does_not_flap_replicas() {
    let default = spec(2, 100, &json!({}));
    let flaps: Vec<(i64, i32)> = (0..40)
        .map(|n| (n * 15, if n % 2 == 0 { 6 } else { 2 }))
        .collect();
    let replicas = replicas_over_time(&default, 2, &flaps);
    assert!(
        replicas.iter().all(|replicas| *replicas == 6),
        "{replicas:?}"
    );
}

#[test]
fn a_manual_change_is_overwritten_as_an_hpa_would() {
    let default = spec(2, 10, &json!({}));
    let after = |current| {
        let mut history = ScalingHistory::default();
        step(&default, &mut history, 4, 4, at(NOW));
        step(&default, &mut history, current, 4, at(NOW + 15))
    };
    assert_eq!(after(8).replicas, 4);
    assert_eq!(after(3).replicas, 4);
    assert_eq!(after(50).replicas, 10);
    assert_eq!(after(1).replicas, 2);
    let at_zero = after(0);
    assert_eq!(at_zero.replicas, 0);
    assert!(
        at_zero
            .limited_by
            .is_some_and(|why| why.contains("switches scaling off"))
    );
    let mut history = ScalingHistory::default();
    let from_zero = step(&spec(0, 10, &json!({})), &mut history, 0, 3, at(NOW));
    assert_eq!(
        from_zero.replicas, 3,
        "with minReplicas 0 a trigger may scale up from 0"
    );
}

#[test]
fn after_a_restart_nothing_is_scaled_in_for_the_length_of_the_window() {
    let default = spec(2, 10, &json!({}));
    let restarted = [(0, 2), (150, 2), (299, 2), (300, 2)];
    assert_eq!(replicas_over_time(&default, 8, &restarted), [8, 8, 8, 2]);
    let mut history = ScalingHistory::default();
    let limited_by = step(&default, &mut history, 8, 2, at(NOW)).limited_by;
    assert!(limited_by.is_some_and(|why| why.contains("scaleDown.stabilizationWindowSeconds")));
}
