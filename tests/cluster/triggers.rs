//! Triggers and scaling on a real cluster.
//!
//! This table lists the scenarios and the tests that show them. Pure tests are in `src/trigger`,
//! `src/scale` and `burst::tests`, the others in this directory.
//!
//! | scenario | shown by |
//! | --- | --- |
//! | activation threshold | `trigger::evaluation::tests::a_value_that_equals_the_activation_threshold_does_not_activate` |
//! | an empty vector is unknown; each unusual answer | `trigger::query_response::tests::each_answer_without_a_value_has_its_own_message_and_none_is_zero`, `..::a_warning_is_reported_with_the_value_or_with_the_error` |
//! | Prometheus down for 30 s, 10 m, 2 h | `trigger::evaluation::tests::during_an_outage_the_last_decision_is_kept_and_no_replicas_are_removed`, `..::an_outage_continues_across_a_restart_of_the_operator`; with a real one `triggers_prometheus::load_raises_replicas_that_spill_at_once_and_go_first_and_an_outage_moves_nothing` |
//! | a trigger without any value so far | `trigger::evaluation::tests::a_trigger_that_was_never_known_is_inactive_and_removes_no_replicas`, `scale::desired::tests::while_one_value_is_unknown_the_others_may_only_add_replicas` |
//! | credentials for Prometheus | `triggers_auth::each_kind_of_credential_works_changes_without_a_restart_and_is_never_shown`, `..::azure_monitor_is_asked_as_the_operator_itself_with_the_token_of_the_moment`; workload identity and similar: `login` of the emulator's tests, `controller::triggers::auth::tests` |
//! | an alert is resolved, or flaps | `triggers_alert::an_alert_scales_and_spills_until_it_is_resolved_also_across_a_restart`, with a real Alertmanager `triggers_alertmanager::an_alert_of_a_real_alertmanager_spills_without_hold_and_repeats_restore_it`, `..::of_two_operators_behind_one_address_the_one_that_leads_gets_every_alert`; `trigger::alert::tests`, `scale::step::tests::a_flapping_value_does_not_flap_replicas` |
//! | schedule windows at daylight saving changes | `trigger::window::tests`: Berlin, New York, Lord Howe, Apia |
//! | a duration longer than the period | `trigger::window::tests::an_hourly_window_of_over_an_hour_is_always_open_even_at_clock_changes` |
//! | an invalid schedule | `what_a_trigger_may_be_is_checked_at_apply_time`, `triggers_beside_others::an_endpoint_that_hangs_delays_no_other_trigger_and_each_status_has_the_reason` |
//! | a restart inside a window | `trigger::evaluation::tests::a_restart_does_not_change_the_state_of_a_schedule`, `triggers_beside_others::a_schedule_scales_also_after_a_restart_and_undoes_a_manual_change` |
//! | several triggers | `scale::desired::tests::the_greatest_proposal_counts_and_names_its_trigger`, `..::while_one_value_is_unknown_the_others_may_only_add_replicas` |
//! | an endpoint that hangs | `triggers_beside_others::an_endpoint_that_hangs_delays_no_other_trigger_and_each_status_has_the_reason` |
//! | a burst before the cluster's own nodes are full | `burst::tests::granting::while_a_trigger_is_active_the_hold_is_the_shorter_one_and_no_limit_is_exceeded`, `triggers_prometheus::load_raises_..` |
//! | the operator writes no objects of others | `triggers_beside_others::nothing_is_written_while_another_autoscaler_or_an_older_pool_has_the_target`; an HPA from creation to deletion: `grants_own_nodes`; according to the audit log: `triggers_rights::..`, `install::..` |
//! | replicas from zero to many and back | `triggers_prometheus::a_workload_goes_from_zero_to_many_and_back_and_nothing_is_left_of_it` |
//!
//! `triggers_rights::scaling_needs_one_role_uses_all_of_it_and_writes_once_for_each_change` shows that
//! each change of replicas is one write, with exactly the rights of `config/scaling`.

use serde_json::{Value, json};

use crate::custom_resource::{apply, explained, pool, refused, with, workload};
use crate::support::Cluster;

fn prometheus(changes: &Value) -> Value {
    let mut spec =
        json!({"serverAddress": "http://prometheus.monitoring:9090", "query": "sum(up)"});
    json_patch::merge(&mut spec, changes);
    json!([{"name": "a", "prometheus": spec}])
}

fn schedule(changes: &Value) -> Value {
    let mut spec = json!({"start": "0 8 * * 1-5", "duration": "10h", "timeZone": "Europe/Berlin"});
    json_patch::merge(&mut spec, changes);
    json!([{"name": "a", "schedule": spec}])
}

fn alert(changes: &Value) -> Value {
    let mut spec = json!({"matchLabels": {"alertname": "WebSaturated"}});
    json_patch::merge(&mut spec, changes);
    json!([{"name": "a", "alert": spec}])
}

fn scale(changes: &Value) -> Value {
    let mut scale = json!({"minReplicas": 2, "maxReplicas": 5, "triggers": ["a"]});
    json_patch::merge(&mut scale, changes);
    workload(&json!({"scale": scale}))
}

/// Changes of a valid trigger by its kind, or of a workload's `scale`, that are rejected, and a part of the message.
const REJECTED: [(&str, &str, &str); 24] = [
    (
        "prometheus",
        r#"{"serverAddress": "prometheus:9090"}"#,
        "such as http://prometheus.monitoring:9090",
    ),
    (
        "prometheus",
        r#"{"serverAddress": "http://me:pass@prometheus"}"#,
        "without credentials",
    ),
    (
        "prometheus",
        r#"{"query": ""}"#,
        "spec.triggers[0].prometheus.query",
    ),
    (
        "prometheus",
        r#"{"threshold": "0"}"#,
        "must be a number above 0",
    ),
    (
        "prometheus",
        r#"{"threshold": "many"}"#,
        "must be a number above 0",
    ),
    (
        "prometheus",
        r#"{"activationThreshold": "NaN"}"#,
        "must be a number",
    ),
    ("prometheus", r#"{"timeout": "2m"}"#, "from 100ms to 1m"),
    ("prometheus", r#"{"interval": "10ms"}"#, "from 1s to 1h"),
    (
        "prometheus",
        r#"{"azureCredential": true}"#,
        "begins with https://",
    ),
    (
        "prometheus",
        r#"{"azureCredential": true, "serverAddress": "https://a", "authSecretRef": {"namespace": "a", "name": "b"}}"#,
        "cannot be combined",
    ),
    ("schedule", r#"{"start": "0 8 * *"}"#, "five fields"),
    ("schedule", r#"{"start": "every day"}"#, "five fields"),
    ("schedule", r#"{"duration": "0s"}"#, "from 1s to 744h"),
    ("schedule", r#"{"timeZone": "Local"}"#, "IANA name"),
    ("schedule", r#"{"timeZone": ""}"#, "timeZone"),
    (
        "alert",
        r#"{"matchLabels": {"alertname": null}}"#,
        "matchLabels",
    ),
    (
        "scale",
        r#"{"minReplicas": 6}"#,
        "scale.minReplicas must not be above",
    ),
    ("scale", r#"{"triggers": []}"#, "scale.triggers"),
    (
        "scale",
        r#"{"behavior": {"scaleUp": {"tolerance": "2"}}}"#,
        "tolerance",
    ),
    (
        "scale",
        r#"{"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 60}]}}}"#,
        "value",
    ),
    (
        "scale",
        r#"{"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}}"#,
        "periodSeconds",
    ),
    (
        "workload",
        r#"{"target": null, "selector": {"namespaceSelector": {}, "podSelector": {}},
            "scale": {"maxReplicas": 5, "triggers": ["a"]}}"#,
        "scale needs target",
    ),
    (
        "spill",
        r#"{"afterWhenTriggered": "soon"}"#,
        "such as 0s or 5s",
    ),
    (
        "triggers",
        r#"[{"name": "a"}]"#,
        "exactly one of prometheus, schedule and alert",
    ),
];

/// A pool with a value of [`REJECTED`].
fn rejected(kind: &str, changes: &Value) -> Value {
    let (field, value) = match kind {
        "prometheus" => ("triggers", prometheus(changes)),
        "schedule" => ("triggers", schedule(changes)),
        "alert" => ("triggers", alert(changes)),
        "scale" => ("workloads", scale(changes)),
        "workload" => ("workloads", workload(changes)),
        field => (field, changes.clone()),
    };
    with(&format!("/spec/{field}"), value)
}

/// One trigger of each kind with all its fields, and some with unusual values.
fn triggers_with_every_field() -> Value {
    let all = [
        prometheus(
            &json!({"threshold": "0.5", "activationThreshold": "-1", "timeout": "500ms", "interval": "1m",
                "authSecretRef": {"namespace": "monitoring", "name": "prometheus"}}),
        ),
        schedule(
            &json!({"start": "*/15 8-18 1,15 JAN-MAR mon", "replicas": 20, "timeZone": "America/Argentina/Buenos_Aires"}),
        ),
        schedule(&json!({"start": "@daily", "timeZone": "Etc/GMT+5"})),
        alert(&json!({"replicas": 10, "expireAfter": "1h"})),
        prometheus(
            &json!({"azureCredential": true, "serverAddress": "https://shop-x1.westeurope.prometheus.monitor.azure.com"}),
        ),
    ];
    let named = all.into_iter().zip(["a", "b", "c", "d", "e"]);
    let named = named.map(|(one, name)| {
        let mut one = one[0].clone();
        one["name"] = name.into();
        one
    });
    let mut triggers: Value = named.collect();
    triggers[0]["onError"] = json!({"keepFor": "10m", "then": "Active"});
    triggers
}

#[tokio::test]
async fn what_a_trigger_may_be_is_checked_at_apply_time() {
    let cluster = Cluster::shared().await;
    cluster
        .install_crds()
        .await
        .expect("the resource is served");
    let mut full = pool("triggered");
    full["spec"]["spill"] = json!({"after": "1m", "afterWhenTriggered": "5s"});
    full["spec"]["workloads"] = scale(&json!({"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 30, "selectPolicy": "Min", "tolerance": "50m",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]},
        "scaleDown": {"tolerance": "0.2"},
    }}));
    full["spec"]["triggers"] = triggers_with_every_field();
    let accepted = apply(cluster, &full);
    let said = String::from_utf8_lossy(&accepted.stderr).into_owned();
    assert!(accepted.status.success(), "{said}");
    let listed = cluster.kubectl().args(["get", "bp", "triggered"]).output();
    let listed = listed.expect("kubectl").stdout;
    assert!(String::from_utf8_lossy(&listed).contains("TRIGGER"));
    let field = "burstpool.spec.triggers.onError";
    explained(cluster, field, "A missing series is not").await;

    let none = json!({});
    let both = json!([{"name": "a", "schedule": schedule(&none)[0]["schedule"], "alert": alert(&none)[0]["alert"]}]);
    let mut forgiving = schedule(&none);
    forgiving[0]["onError"] = json!({});
    let twice = json!([alert(&none)[0], alert(&none)[0]]);
    let composed = [
        (both, "exactly one of prometheus, schedule and alert"),
        (forgiving, "onError can only be set with prometheus"),
        (twice, "spec.triggers"),
    ];
    let composed = composed.map(|(triggers, words)| (with("/spec/triggers", triggers), words));
    let changed = REJECTED.map(|(kind, changes, words)| {
        let changes = serde_json::from_str(changes).expect(changes);
        (rejected(kind, &changes), words)
    });
    for (wrong, words) in composed.iter().chain(&changed) {
        let said = refused(cluster, wrong);
        assert!(said.contains(words), "{words}: {said}");
    }
}
