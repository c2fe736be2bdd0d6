//! Tests: triggers that start, change and end.

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

/// Waits until the state of the pool's only trigger satisfies `is_so`.
async fn until(triggers: &TriggerTasks, is_so: impl Fn(&TriggerState) -> bool) {
    let mut readings = triggers.context.states.subscribe();
    let seen = readings.wait_for(|all| {
        let mut standings = all.get("shop").into_iter().flat_map(BTreeMap::values);
        standings.next().is_some_and(&is_so)
    });
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()), "it never is");
}

#[tokio::test]
async fn a_trigger_of_other_alerts_than_before_begins_anew() {
    let triggers = triggers();
    let key = ("shop".to_owned(), "pager".to_owned());
    let fires = json!({"fingerprint": "f", "expires": "2999-01-01T00:00:00Z"});
    let fires = serde_json::from_value(fires).expect("an alert");
    triggers.context.alerts.register(&key, &[fires]);
    triggers.ensure(&pager("Noisy")).await;
    until(&triggers, |standing| standing.active).await;

    let mut other = pager("Saturated");
    let told = triggers.status_view(&other).triggers();
    other.status = Some(crate::api::BurstPoolStatus {
        triggers: told,
        ..Default::default()
    });
    triggers.ensure(&other).await;
    until(&triggers, |standing| !standing.active).await;
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
async fn a_trigger_that_no_alert_can_reach_says_so() {
    let triggers = triggers();
    triggers.disable_receiver();
    triggers.ensure(&pager("Noisy")).await;
    until(&triggers, |standing| !standing.is_known()).await;
    let told = triggers.status_view(&pager("Noisy")).triggers();
    let why = &told[0].message;
    assert!(why.contains("--alerts-listen"), "{why}");
    triggers.context.alerts.set_receiver_error(None);
    until(&triggers, TriggerState::is_known).await;
    triggers.stop().await;
}

#[tokio::test]
async fn no_trigger_begins_after_the_end() {
    let triggers = triggers();
    triggers.stop().await;
    let always = json!({"start": "* * * * *", "duration": "1h", "timeZone": "UTC"});
    let always = pool(&json!({"name": "always", "schedule": always}));
    triggers.ensure(&always).await;
    let mut pools = triggers.pools.lock().await;
    pools.remove("shop").expect("it is kept").stop().await;
    drop(pools);
    assert!(!triggers.is_any_active("shop"));
}

#[tokio::test]
async fn a_trigger_that_is_no_more_is_not_active_by_an_answer_that_comes_late() {
    let triggers = triggers();
    let one = TriggerTask {
        context: triggers.context.clone(),
        pool: "shop".to_owned(),
        trigger: "requests".to_owned(),
        cancel: CancellationToken::new(),
    };
    let active = TriggerState {
        active: true,
        ..TriggerState::default()
    };
    one.publish(&active);
    assert!(triggers.is_any_active("shop"));

    one.cancel.cancel();
    one.context.forget_trigger(&one.pool, &one.trigger);
    one.publish(&active);
    assert!(
        !triggers.is_any_active("shop"),
        "its hold is short for ever"
    );
}
