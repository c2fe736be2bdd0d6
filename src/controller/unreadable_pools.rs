//! A stored pool that this version cannot read: a newer version wrote it, or older CRD rules accepted a value.
//!
//! In: the pool's metadata, and why the rest cannot be read. Out: its node tasks, which continue as they are or
//! with the settings that the nodes record, so that its pods keep running; and the reason in its status, as an
//! Event, in the log and in the metrics.
//!
//! The operator drains nothing of such a pool, not even when it is deleted: only its spec says for certain
//! which container groups it has, and where.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DynamicObject, Patch};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::events::{Event, EventType, Reporter};
use kube::{Api, Client, Resource as _};
use serde_json::{Value, json};
use thiserror::Error;

use super::placements;
use super::placements::pool_nodes::PoolNodes;
use super::placements::registry::PlacementRegistry;
use super::status::writer::{StatusWriter, apply_patch};
use crate::api::BurstPool;
use crate::api::condition::{self, READY, STALLED};
use crate::k8s::call;
use crate::k8s::events;
use crate::telemetry::Metrics;

/// The reason of both conditions, and of the Event.
pub(super) const REASON: &str = "Unreadable";
/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Fields of a pool's status that another field manager writes.
const LEADER_FIELDS: [&str; 2] = ["reservations", "leader"];

/// Why the reconciliation of an unreadable pool failed.
#[derive(Debug, Error)]
pub(super) enum UnreadablePoolError {
    /// Its nodes could not be read.
    #[error(transparent)]
    Nodes(#[from] placements::Error),
    /// Reading the pool as an untyped object failed.
    #[error("cannot read pool {pool} as an untyped object")]
    ReadPool {
        /// The pool's name.
        pool: String,
        /// Why the call failed.
        #[source]
        source: kube::Error,
    },
    /// Writing the pool's status failed.
    #[error("cannot write the status of pool {pool}, which cannot be decoded")]
    WriteStatus {
        /// The pool's name.
        pool: String,
        /// Why the call failed.
        #[source]
        source: kube::Error,
    },
}

/// Keeps the nodes of unreadable pools running, and reports why the pools cannot be read.
pub(super) struct UnreadablePools {
    /// The Kubernetes client, with retries.
    pub client: Client,
    /// The identity of this instance of the operator, for Events.
    pub identity: String,
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
    /// The nodes of pools.
    pub nodes: PoolNodes,
    /// The running tasks of placements.
    pub registry: Arc<PlacementRegistry>,
    /// Knows which statuses the API server rejects.
    pub status_writer: Arc<StatusWriter>,
}

impl UnreadablePools {
    /// Keeps the pool's nodes running, and reports why the pool cannot be read.
    pub async fn reconcile(&self, pool: &InvalidObject) -> Result<(), UnreadablePoolError> {
        let name = pool.metadata.name.clone().unwrap_or_default();
        if self.metrics.set_unreadable(&name) {
            crate::telemetry::record_unreadable(&BurstPool::kind(&()), &name, &pool.error);
        }
        if !self.registry.is_tracked(&name).await {
            for node in self.nodes.list(&name).await? {
                self.registry.resume_from_node(node).await;
            }
        }
        self.publish_status(&name).await
    }

    /// Writes the reason into the pool's status, and publishes it as an Event, unless the status has it already.
    async fn publish_status(&self, name: &str) -> Result<(), UnreadablePoolError> {
        let kind = ApiResource::erase::<BurstPool>(&());
        let pools: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let pool = || name.to_owned();
        let live = call::find(CALL_TIMEOUT, &pools, name).await;
        let live = live.map_err(|source| UnreadablePoolError::ReadPool {
            pool: pool(),
            source,
        })?;
        let Some(live) = live else { return Ok(()) };
        let Some(message) = decode_error(&live) else {
            // The pool can be read now; the watch will deliver it.
            return Ok(());
        };
        let Some(status) = unreadable_status(&live, &message, Timestamp::now()) else {
            return Ok(());
        };
        if !self.status_writer.may_write(name) {
            return Ok(());
        }
        self.publish_event(&live, message).await;
        let (params, patch) = apply_patch(&status);
        let patch = Patch::Apply(&patch);
        let written = pools.patch_status(name, &params, &patch);
        let written = call::with_timeout(CALL_TIMEOUT, written).await;
        self.status_writer.record_answer(name, &written);
        let written = written.map(drop);
        written.map_err(|source| UnreadablePoolError::WriteStatus {
            pool: pool(),
            source,
        })
    }

    /// Publishes the reason as an Event on the pool.
    async fn publish_event(&self, pool: &DynamicObject, message: String) {
        let event = Event {
            type_: EventType::Warning,
            reason: REASON.to_owned(),
            note: Some(message),
            action: "Reading".to_owned(),
            secondary: None,
        };
        let reporter = Reporter {
            controller: "burstpool".to_owned(),
            instance: Some(self.identity.clone()),
        };
        let regarding = pool.object_ref(&ApiResource::erase::<BurstPool>(&()));
        let published = events::publish(&self.client, &reporter, &event, &regarding);
        if let Err(error) = call::with_timeout(CALL_TIMEOUT, published).await {
            let pool = pool.metadata.name.as_deref();
            tracing::debug!(pool, %error, "cannot write an Event");
        }
    }
}

/// The field that cannot be read, why, and the remedy; `None` if the pool can be read. Pure.
fn decode_error(live: &DynamicObject) -> Option<String> {
    let live = serde_json::to_value(live).expect("an object is JSON");
    let read: Result<BurstPool, _> = serde_path_to_error::deserialize(live);
    let error = read.err()?;
    Some(format!(
        "{}: {}: burstpool {} cannot read this value: correct it, or run the version that wrote it; until \
         then the pool's nodes and pods stay as they are",
        error.path(),
        error.inner(),
        env!("CARGO_PKG_VERSION")
    ))
}

/// The status with the reason added; `None` if it has the reason already. All other fields stay. Pure.
fn unreadable_status(live: &DynamicObject, message: &str, now: Timestamp) -> Option<Value> {
    let live_status = &live.data["status"];
    let mut status = live_status.as_object().cloned().unwrap_or_default();
    let conditions = status.remove("conditions");
    let conditions = conditions.iter().filter_map(Value::as_array).flatten();
    // Conditions that cannot be read are dropped.
    let conditions = conditions.filter_map(|value| serde_json::from_value(value.clone()).ok());
    let mut conditions: Vec<Condition> = conditions.collect();
    let generation = live.metadata.generation;
    for (kind, is_true) in [(READY, false), (STALLED, true)] {
        let condition = condition::build(kind, is_true, REASON, message, generation, now);
        condition::set(&mut conditions, condition);
    }
    status.insert("conditions".to_owned(), json!(conditions));
    status.insert("observedGeneration".to_owned(), json!(generation));
    if live_status.as_object() == Some(&status) {
        return None;
    }
    for field in LEADER_FIELDS {
        status.remove(field);
    }
    Some(Value::Object(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn stored(mode: &str) -> DynamicObject {
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "shop", "generation": 3},
            "spec": {"azure": {}, "mode": mode, "placements": [{"name": "weu", "region": "westeurope"}]},
            "status": {
                "observedGeneration": 2,
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "Registered", "message": "",
                        "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "Novel", "status": "Often"},
                ],
                "placements": [{"name": "weu", "node": "burst-shop-weu", "ready": true, "groups": 4}],
                "reservations": [{"uid": "u"}],
                "leader": "we",
            },
        });
        serde_json::from_value(pool).expect("an object")
    }

    #[test]
    fn an_unreadable_field_is_named_with_its_value_and_the_remedy() {
        let message = decode_error(&stored("Paused")).expect("it cannot be read");
        for part in ["spec.mode: ", "Paused", "Active", "correct it"] {
            assert!(message.contains(part), "{message}");
        }
        let mut unfit = stored("Active");
        unfit.data["spec"]["placements"][0]["capacity"] = json!({"pods": "many"});
        let message = decode_error(&unfit).expect("it cannot be read");
        assert!(
            message.starts_with("spec.placements[0].capacity.pods: "),
            "{message}"
        );
    }

    #[test]
    fn the_status_gets_the_reason_once_and_keeps_its_other_fields() {
        let mut live = stored("Paused");
        let status = unreadable_status(&live, "why", at(9)).expect("it is new");
        assert_eq!(status["observedGeneration"], 3);
        assert_eq!(status["placements"][0]["groups"], 4);
        assert!(status.get("reservations").is_none() && status.get("leader").is_none());
        let conditions = status["conditions"].as_array().expect("a list");
        let published: Vec<_> = conditions
            .iter()
            .map(|condition| {
                (
                    &condition["type"],
                    &condition["status"],
                    &condition["reason"],
                    &condition["message"],
                )
            })
            .map(|(kind, status_value, reason, why)| {
                [kind, status_value, reason, why].map(Value::as_str)
            })
            .collect();
        assert_eq!(
            published,
            [
                [Some(READY), Some("False"), Some(REASON), Some("why")],
                [Some(STALLED), Some("True"), Some(REASON), Some("why")],
            ]
        );
        live.data["status"] = status;
        assert_eq!(unreadable_status(&live, "why", at(10)), None);
        assert!(unreadable_status(&live, "another", at(10)).is_some());
    }
}
