//! Tests: a pool's status, and how Flux (kstatus) and Argo CD (the health script in config) read it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mlua::{Lua, LuaSerdeExt as _};
use serde_json::{Value, json};

use super::super::triggers;
use super::writer::StatusWriter;
use super::*;
use crate::api::PodCounts;

#[tokio::test]
async fn the_404_of_a_proxy_does_not_count_as_a_written_status() {
    let client = crate::node::fixtures::behind_a_proxy();
    let writer = StatusWriter::new(client, Arc::default());
    let pool = json!({
        "metadata": {"name": "shop"},
        "spec": {"azure": {}, "placements": [{"name": "weu", "region": "westeurope"}]},
    });
    let pool: BurstPool = serde_json::from_value(pool).expect("a pool");
    let written = writer.write(&pool, &BurstPoolStatus::default()).await;
    assert!(written.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_status_that_a_policy_denies_is_not_written_in_every_reconciliation() {
    let (client, sent) = crate::node::fixtures::denied();
    let writer = StatusWriter::new(client, Arc::default());
    let pool = json!({
        "metadata": {"name": "shop"},
        "spec": {"azure": {}, "placements": [{"name": "weu", "region": "westeurope"}]},
    });
    let pool: BurstPool = serde_json::from_value(pool).expect("a pool");
    let status = BurstPoolStatus::default();
    assert!(
        writer.write(&pool, &status).await.is_err(),
        "the denial is reported"
    );
    for _ in 0..100 {
        let written = writer.write(&pool, &status).await;
        written.expect("the write is paused");
    }
    assert_eq!(sent.load(Ordering::Relaxed), 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(writer.write(&pool, &status).await.is_err());
    writer.forget("shop");
    assert!(writer.write(&pool, &status).await.is_err());
    assert_eq!(sent.load(Ordering::Relaxed), 3);
}

const SCRIPT: &str = include_str!("../../../config/argocd/health.lua");

/// The algorithm of kstatus for kinds that it does not know (cli-utils `pkg/kstatus/status`): first deletion,
/// then the generation, then the conditions Reconciling, Stalled and Ready.
fn kstatus(pool: &Value) -> &'static str {
    let conditions = pool["status"]["conditions"].as_array();
    let condition_status = |kind: &str| {
        let mut conditions = conditions.into_iter().flatten();
        conditions
            .find(|condition| condition["type"] == kind)
            .and_then(|condition| condition["status"].as_str())
    };
    let (observed, generation) = (
        &pool["status"]["observedGeneration"],
        &pool["metadata"]["generation"],
    );
    if !pool["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if (!observed.is_null() && observed != generation)
        || condition_status("Reconciling") == Some("True")
    {
        "InProgress"
    } else if condition_status("Stalled") == Some("True") {
        "Failed"
    } else if matches!(condition_status("Ready"), Some("False" | "Unknown")) {
        "InProgress"
    } else {
        "Current"
    }
}

/// The result of Argo CD's health script: health and message.
fn argo(pool: &Value) -> (String, String) {
    let lua = Lua::new();
    let absent = mlua::serde::ser::Options::new().serialize_none_to_null(false);
    let absent = absent.serialize_unit_to_null(false);
    let pool = lua.to_value_with(pool, absent).expect("a table");
    lua.globals().set("obj", pool).expect("a global");
    let health: mlua::Table = lua.load(SCRIPT).eval().expect("the script runs");
    let text = |key: &str| health.get::<Option<String>>(key).expect("a text");
    (
        text("status").expect("a health status"),
        text("message").unwrap_or_default(),
    )
}

/// The inputs of the status of a pool of generation 2.
struct ConditionState {
    outcome: Result<(), InvalidSpec>,
    is_open: bool,
    is_cordoned: bool,
    missing: Vec<String>,
    leaving: Vec<String>,
    summary: Option<PlanSummary>,
}

impl Default for ConditionState {
    fn default() -> Self {
        Self {
            outcome: Ok(()),
            is_open: true,
            is_cordoned: false,
            missing: Vec::new(),
            leaving: Vec::new(),
            summary: Some(PlanSummary::default()),
        }
    }
}

impl ConditionState {
    fn pool(self) -> Value {
        let mut pool: BurstPool = serde_json::from_value(json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "shop", "generation": 2},
            "spec": {"azure": {}, "placements": [{"name": "weu", "region": "westeurope"}]},
        }))
        .expect("a pool");
        let placement = PlacementStatus {
            name: "weu".to_owned(),
            node: "burst-shop-weu".to_owned(),
            ready: self.is_open,
            groups: 0,
            message: "no quota".to_owned(),
        };
        let (outcome, leaving) = (&self.outcome, &self.leaving);
        let inputs = StatusInputs {
            outcome,
            nodes: &PlacementReport {
                placements: vec![placement],
                unregistered_nodes: self.missing,
                is_only_cordoned: self.is_cordoned,
            },
            left: leaving,
            summary: self.summary.as_ref(),
            trigger_status: &triggers::TriggerStatusView::default(),
        };
        let status = pool_status(&pool, &inputs);
        pool.status = Some(status);
        serde_json::to_value(pool).expect("JSON")
    }
}

fn peak(limited: Option<&str>, is_dry_run: bool) -> ConditionState {
    let counts = PodCounts {
        holding: 2,
        spilled: 3,
        ..PodCounts::default()
    };
    let summary = PlanSummary {
        counts,
        peak: PeakState::Active,
        limit_message: limited.map(str::to_owned),
        is_dry_run,
        ..PlanSummary::default()
    };
    ConditionState {
        summary: Some(summary),
        ..ConditionState::default()
    }
}

#[test]
fn bursting_is_healthy_and_only_an_invalid_spec_is_degraded() {
    let mistake = ConditionState {
        outcome: Err(InvalidSpec(
            "spec.azure.resourceGroup is not set".to_owned(),
        )),
        ..ConditionState::default()
    };
    let draining = ConditionState {
        leaving: vec!["default/web".to_owned()],
        ..ConditionState::default()
    };
    let closed = ConditionState {
        is_open: false,
        ..ConditionState::default()
    };
    let unregistered = ConditionState {
        missing: vec!["burst-shop-weu".to_owned()],
        ..ConditionState::default()
    };
    let begun = ConditionState {
        summary: None,
        ..ConditionState::default()
    };
    for (what, state, flux, health) in [
        ("just begun", begun, "Current", "Healthy"),
        ("quiet", ConditionState::default(), "Current", "Healthy"),
        ("a peak", peak(None, false), "Current", "Healthy"),
        (
            "a limit",
            peak(Some("50 of 50"), false),
            "Current",
            "Healthy",
        ),
        ("a dry run", peak(None, true), "Current", "Healthy"),
        ("Azure is down", closed, "Current", "Healthy"),
        (
            "a node is missing",
            unregistered,
            "InProgress",
            "Progressing",
        ),
        ("a placement goes", draining, "InProgress", "Progressing"),
        ("a mistake", mistake, "Failed", "Degraded"),
    ] {
        let pool = state.pool();
        assert_eq!(
            (kstatus(&pool), argo(&pool).0.as_str()),
            (flux, health),
            "{what}"
        );
    }
}

#[test]
fn the_ready_condition_reports_whether_nodes_take_pods() {
    let ready_message = |state: ConditionState| {
        let pool: BurstPool = serde_json::from_value(state.pool()).expect("a pool");
        let conditions = pool.status.expect("a status").conditions;
        let ready = conditions
            .into_iter()
            .find(|condition| condition.type_ == READY);
        ready.expect("a Ready condition").message
    };
    let open = ready_message(ConditionState::default());
    assert_eq!(open, "every node is registered and takes pods");
    let closed = ready_message(ConditionState {
        is_open: false,
        ..ConditionState::default()
    });
    assert!(closed.contains("take no pods: weu"), "{closed}");
}

#[test]
fn a_pool_is_ready_when_its_nodes_are_registered_and_a_cordon_has_its_own_reason() {
    let status_and_reason = |state: ConditionState, kind: &str| {
        let pool = state.pool();
        let conditions = pool["status"]["conditions"].as_array().cloned();
        let mut conditions = conditions.into_iter().flatten();
        let condition = conditions
            .find(|condition| condition["type"] == kind)
            .expect("it is there");
        (condition["status"].clone(), condition["reason"].clone())
    };
    let missing = ConditionState {
        missing: vec!["burst-shop-weu".to_owned()],
        ..ConditionState::default()
    };
    assert_eq!(
        status_and_reason(missing, READY),
        (json!("False"), json!("NotRegistered"))
    );
    assert_eq!(
        status_and_reason(ConditionState::default(), READY),
        (json!("True"), json!("Registered"))
    );
    for (is_cordoned, reason) in [(true, "Cordoned"), (false, "Closed")] {
        let closed = ConditionState {
            is_open: false,
            is_cordoned,
            ..ConditionState::default()
        };
        assert_eq!(
            status_and_reason(closed, NODES_READY),
            (json!("False"), json!(reason))
        );
    }
}

#[test]
fn pools_without_an_observed_generation_and_deleted_pools_are_in_progress() {
    let mut new = ConditionState::default().pool();
    // A status without fields, as the API server stores it, and the first status that a leader writes.
    for status in [json!({}), json!({"leader": "we"})] {
        let status: BurstPoolStatus = serde_json::from_value(status).expect("a status");
        new["status"] = serde_json::to_value(status).expect("JSON");
        assert_eq!(
            (kstatus(&new), argo(&new).0.as_str()),
            ("InProgress", "Progressing")
        );
    }

    let mut changed = ConditionState::default().pool();
    changed["metadata"]["generation"] = json!(3);
    assert_eq!(
        (kstatus(&changed), argo(&changed).0.as_str()),
        ("InProgress", "Progressing")
    );

    let leaving = ConditionState {
        leaving: vec!["default/web".to_owned()],
        ..ConditionState::default()
    };
    let mut going = leaving.pool();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let (health, message) = argo(&going);
    assert_eq!(
        (kstatus(&going), health.as_str()),
        ("Terminating", "Progressing")
    );
    assert!(message.contains("default/web"), "{message}");
}

#[test]
fn a_corrected_spec_is_not_stalled() {
    let mistake = ConditionState {
        outcome: Err(InvalidSpec(
            "spec.azure.resourceGroup is not set".to_owned(),
        )),
        ..ConditionState::default()
    };
    let pool: BurstPool = serde_json::from_value(mistake.pool()).expect("a pool");
    let stalled = |status: &BurstPoolStatus| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == STALLED)
    };
    assert!(pool.status.as_ref().is_some_and(stalled));
    let trigger_status = triggers::TriggerStatusView::default();
    let no_inputs = StatusInputs {
        outcome: &Ok(()),
        nodes: &PlacementReport::default(),
        left: &[],
        summary: None,
        trigger_status: &trigger_status,
    };
    assert!(!stalled(&pool_status(&pool, &no_inputs)));
    // The same before the scaling of a target has been evaluated.
    let mut scaled = serde_json::to_value(&pool).expect("JSON");
    scaled["spec"]["workloads"] = json!([{"name": "web",
        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"},
        "scale": {"maxReplicas": 5, "triggers": ["hours"]}}]);
    let scaled: BurstPool = serde_json::from_value(scaled).expect("a pool");
    assert!(!stalled(&pool_status(&scaled, &no_inputs)));
    // The same if the pool could not be read.
    let mut unreadable = scaled;
    let conditions = &mut unreadable.status.as_mut().expect("a status").conditions;
    let mut conditions_mut = conditions.iter_mut();
    let condition = conditions_mut
        .find(|condition| condition.type_ == STALLED)
        .expect("it is stalled");
    unreadable_pools::REASON.clone_into(&mut condition.reason);
    assert!(!stalled(&pool_status(&unreadable, &no_inputs)));
}
