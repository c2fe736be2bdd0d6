//! Tests: the state of triggers, and outages of Prometheus.

use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn spec(activation: &str) -> Prometheus {
    let spec = json!({"serverAddress": "http://p", "query": "q", "threshold": "100",
        "activationThreshold": activation});
    serde_json::from_value(spec).expect("a spec")
}

#[allow(clippy::unnecessary_wraps, reason = "a query may fail")]
fn metric(value: f64) -> Result<MetricValue, String> {
    Ok(MetricValue {
        value,
        warning: None,
    })
}

fn after(before: &TriggerState, value: Result<MetricValue, String>, second: i64) -> TriggerState {
    let on_error = OnError::default();
    let value = value.map_err(QueryError::Unknown);
    evaluate_prometheus(&spec("5"), &on_error, before, value, at(second))
}

#[test]
fn a_value_that_equals_the_activation_threshold_does_not_activate() {
    let quiet = after(&TriggerState::default(), metric(5.0), 0);
    assert_eq!(
        (quiet.active, quiet.proposal, quiet.value),
        (false, ReplicaProposal::Inactive, Some(5.0))
    );
    let active = after(&quiet, metric(5.000_001), 15);
    assert_eq!((active.active, active.since), (true, Some(at(15))));
    assert!(
        matches!(active.proposal, ReplicaProposal::PerReplica { threshold, .. } if threshold > 99.9)
    );
    let still = after(&active, metric(7.0), 30);
    assert_eq!(
        still.since,
        Some(at(15)),
        "`since` changes only with `active`"
    );
}

#[test]
fn during_an_outage_the_last_decision_is_kept_and_no_replicas_are_removed() {
    let outage = || Err("no answer".to_owned());
    let active = after(&TriggerState::default(), metric(700.0), 0);
    // 30 s, and just under 5 minutes.
    for second in [15, 45, 314] {
        let kept = (15..=second)
            .step_by(15)
            .fold(active.clone(), |before, second| {
                after(&before, outage(), second)
            });
        assert_eq!(
            (kept.active, kept.proposal, kept.value),
            (true, ReplicaProposal::Hold, Some(700.0))
        );
        assert_eq!(
            (kept.unknown_since, kept.since),
            (Some(at(15)), Some(at(0)))
        );
        assert!(kept.message.contains("no answer") && kept.message.contains("is kept until"));
        assert!(!kept.is_known());
    }
    // 10 minutes and 2 hours.
    let first = after(&active, outage(), 15);
    for second in [315, 600, 7200] {
        let over = after(&first, outage(), second);
        assert_eq!(
            (over.active, over.proposal),
            (false, ReplicaProposal::Inactive),
            "{second}"
        );
        assert!(over.message.contains("Inactive"), "{}", over.message);
        let recovered = after(&over, metric(700.0), second + 15);
        assert_eq!(
            (recovered.active, recovered.unknown_since),
            (true, None),
            "it recovers"
        );
    }
}

#[test]
fn a_spec_error_is_reported_and_the_last_decision_is_kept() {
    let active = after(&TriggerState::default(), metric(700.0), 0);
    let state_at = |second| {
        let result = Err(QueryError::InvalidSpec("annotate it".to_owned()));
        evaluate_prometheus(&spec("5"), &OnError::default(), &active, result, at(second))
    };
    let kept = state_at(15);
    assert_eq!((kept.active, kept.proposal), (true, ReplicaProposal::Hold));
    assert!(!kept.is_known());
    let why = kept.spec_error.as_deref().expect("an error");
    assert!(
        why.contains("annotate it") && why.contains("is kept until"),
        "{why}"
    );
    let recovered = after(&kept, metric(700.0), 30);
    assert_eq!((recovered.active, recovered.spec_error), (true, None));
}

#[test]
fn a_long_outage_can_count_as_a_peak() {
    let on_error = OnError {
        then: Then::Active,
        ..OnError::default()
    };
    let down = |before: &TriggerState, second| {
        evaluate_prometheus(
            &spec("5"),
            &on_error,
            before,
            Err(QueryError::Unknown("down".to_owned())),
            at(second),
        )
    };
    let quiet = after(&TriggerState::default(), metric(1.0), 0);
    let kept = down(&quiet, 10);
    assert!(!kept.active);
    let over = down(&kept, 310);
    assert_eq!((over.active, over.proposal), (true, ReplicaProposal::Hold));
}

#[test]
fn a_trigger_that_was_never_known_is_inactive_and_removes_no_replicas() {
    let unknown = after(&TriggerState::default(), Err("down".to_owned()), 0);
    assert_eq!(
        (unknown.active, unknown.proposal),
        (false, ReplicaProposal::Hold)
    );
}

#[test]
fn an_outage_continues_across_a_restart_of_the_operator() {
    let active = after(&TriggerState::default(), metric(700.0), 0);
    let down = after(&active, Err("down".to_owned()), 15);
    let restored = TriggerState::from_status(&down.to_status("requests"));
    let kept = after(&restored, Err("down".to_owned()), 200);
    assert_eq!((kept.active, kept.unknown_since), (true, Some(at(15))));
    let over = after(&restored, Err("down".to_owned()), 320);
    assert!(!over.active);
}

#[test]
fn a_trigger_with_an_invalid_spec_is_never_active_and_reports_the_error() {
    let invalid = evaluate_prometheus(
        &spec("many"),
        &OnError::default(),
        &TriggerState::default(),
        Ok(metric(1e9).expect("a value")),
        at(0),
    );
    assert!(!invalid.active && !invalid.is_known());
    let why = invalid.spec_error.expect("an error");
    assert!(why.contains("activationThreshold"), "{why}");
    let spec: Schedule =
        serde_json::from_value(json!({"start": "0 8 30 2 *", "duration": "1h", "timeZone": "UTC"}))
            .expect("a schedule");
    let (invalid, next) = evaluate_schedule(&spec, &TriggerState::default(), at(0));
    assert!(!invalid.active && next.is_none());
    assert_eq!(
        invalid.proposal,
        ReplicaProposal::Hold,
        "an error in the spec removes no replicas"
    );
    let why = invalid.to_status("hours").message;
    assert!(
        why.contains("schedule.start") && why.contains("never occurs"),
        "{why}"
    );
}

#[test]
fn a_restart_does_not_change_the_state_of_a_schedule() {
    let spec: Schedule = serde_json::from_value(
        json!({"start": "0 8 * * *", "duration": "10h", "timeZone": "UTC", "replicas": 20}),
    )
    .expect("a schedule");
    let opened = evaluate_schedule(&spec, &TriggerState::default(), at(8 * 3600)).0;
    let later = at(11 * 3600);
    let unrestarted = evaluate_schedule(&spec, &opened, later);
    let restored = TriggerState::from_status(&opened.to_status("hours"));
    let restarted = evaluate_schedule(&spec, &restored, later);
    assert_eq!(restarted, unrestarted);
    assert_eq!(restarted.0.proposal, ReplicaProposal::Replicas(20));
    assert_eq!(
        (restarted.0.since, restarted.1),
        (Some(at(8 * 3600)), Some(at(18 * 3600)))
    );
    let (closed, next) = evaluate_schedule(&spec, &opened, at(18 * 3600));
    assert_eq!((closed.active, next), (false, Some(at(32 * 3600))));
}
