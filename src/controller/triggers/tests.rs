//! Tests: triggers that start, change and end.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::controller::fixtures::triggers;

fn pool(trigger: &Value) -> BurstPool {
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": "shop"},
        "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}],
            "triggers": [trigger]},
    });
    serde_json::from_value(pool).expect("a pool")
}

fn pager(alert: &str) -> BurstPool {
    pool(&json!({"name": "pager", "alert": {"matchLabels": {"alertname": alert}}}))
}

/// Waits until the state of the pool's only trigger satisfies `is_expected`.
async fn wait_for_state(triggers: &TriggerTasks, is_expected: impl Fn(&TriggerState) -> bool) {
    let mut receiver = triggers.context.states.subscribe();
    let changed = receiver.wait_for(|states| {
        let mut pool_states = states.get("shop").into_iter().flat_map(BTreeMap::values);
        pool_states.next().is_some_and(&is_expected)
    });
    let changed = tokio::time::timeout(Duration::from_secs(60), changed).await;
    assert!(
        changed.is_ok_and(|changed| changed.is_ok()),
        "the state does not become the expected one"
    );
}

#[tokio::test]
async fn a_trigger_whose_match_labels_change_starts_without_alerts() {
    let triggers = triggers();
    let key = ("shop".to_owned(), "pager".to_owned());
    let alert = json!({"fingerprint": "f", "expires": "2999-01-01T00:00:00Z"});
    let alert = serde_json::from_value(alert).expect("an alert");
    triggers.context.alerts.register(&key, &[alert]);
    triggers.apply_spec(&pager("Noisy")).await;
    wait_for_state(&triggers, |state| state.active).await;

    let mut other = pager("Saturated");
    let statuses = triggers.status_view(&other).triggers();
    other.status = Some(crate::api::BurstPoolStatus {
        triggers: statuses,
        ..Default::default()
    });
    triggers.apply_spec(&other).await;
    wait_for_state(&triggers, |state| !state.active).await;
    assert!(
        !triggers
            .context
            .alerts
            .get(&key)
            .is_any_firing(Timestamp::now())
    );
    triggers.stop().await;
}

#[tokio::test]
async fn an_alert_trigger_reports_that_the_receiver_is_off() {
    let triggers = triggers();
    triggers.disable_receiver();
    triggers.apply_spec(&pager("Noisy")).await;
    wait_for_state(&triggers, |state| !state.is_known()).await;
    let statuses = triggers.status_view(&pager("Noisy")).triggers();
    let why = &statuses[0].message;
    assert!(why.contains("--alerts-listen"), "{why}");
    triggers.context.alerts.set_receiver_error(None);
    wait_for_state(&triggers, TriggerState::is_known).await;
    triggers.stop().await;
}

/// The rules of the resource definition exclude it, but the definition of another version may be installed.
#[tokio::test]
async fn a_trigger_of_no_kind_or_of_two_kinds_reports_the_error() {
    let schedule = json!({"start": "* * * * *", "duration": "1h", "timeZone": "UTC"});
    let alert = json!({"matchLabels": {"alertname": "Noisy"}});
    for trigger in [
        json!({"name": "none"}),
        json!({"name": "two", "schedule": schedule, "alert": alert}),
    ] {
        let triggers = triggers();
        triggers.apply_spec(&pool(&trigger)).await;
        wait_for_state(&triggers, |state| state.spec_error.is_some()).await;
        assert!(!triggers.is_any_active("shop"));
        let statuses = triggers.status_view(&pool(&trigger)).triggers();
        let why = &statuses[0].message;
        assert!(why.contains("exactly one of prometheus"), "{why}");
        triggers.stop().await;
    }
}

#[test]
fn an_edited_trigger_keeps_its_state_if_it_observes_the_same() {
    let trigger = |spec: Value| -> Trigger {
        let mut trigger = json!({"name": "peak"});
        json_patch::merge(&mut trigger, &spec);
        serde_json::from_value(trigger).expect("a trigger")
    };
    let prometheus =
        |query: &str| trigger(json!({"prometheus": {"serverAddress": "http://p", "query": query}}));
    let schedule = |start: &str| {
        trigger(json!({"schedule": {"start": start, "duration": "1h", "timeZone": "UTC"}}))
    };
    let alert = |name: &str, replicas: i32| {
        let labels = json!({"alertname": name});
        trigger(json!({"alert": {"matchLabels": labels, "replicas": replicas}}))
    };
    for (before, now, expected) in [
        (prometheus("a"), prometheus("b"), true),
        (schedule("@daily"), schedule("@hourly"), true),
        (alert("Noisy", 1), alert("Noisy", 2), true),
        (alert("Noisy", 1), alert("Saturated", 1), false),
        (prometheus("a"), schedule("@daily"), false),
        (schedule("@daily"), alert("Noisy", 1), false),
        (alert("Noisy", 1), prometheus("a"), false),
        (trigger(json!({})), trigger(json!({})), false),
    ] {
        assert_eq!(keeps_state(&before, &now), expected, "{before:?} {now:?}");
    }
}

#[tokio::test]
async fn no_trigger_starts_after_the_shutdown() {
    let triggers = triggers();
    triggers.stop().await;
    let schedule = json!({"start": "* * * * *", "duration": "1h", "timeZone": "UTC"});
    let schedule = pool(&json!({"name": "always", "schedule": schedule}));
    triggers.apply_spec(&schedule).await;
    let mut pools = triggers.pools.lock().await;
    pools.remove("shop").expect("it is kept").stop().await;
    drop(pools);
    assert!(!triggers.is_any_active("shop"));
}

#[tokio::test]
async fn a_late_result_does_not_activate_a_removed_trigger() {
    let triggers = triggers();
    let task = TriggerTask {
        context: triggers.context.clone(),
        pool: "shop".to_owned(),
        trigger: "requests".to_owned(),
        cancel: CancellationToken::new(),
    };
    let active = TriggerState {
        active: true,
        ..TriggerState::default()
    };
    task.publish(&active);
    assert!(triggers.is_any_active("shop"));

    task.cancel.cancel();
    task.context.forget_trigger(&task.pool, &task.trigger);
    task.publish(&active);
    assert!(
        !triggers.is_any_active("shop"),
        "the hold would stay short for good"
    );
}
