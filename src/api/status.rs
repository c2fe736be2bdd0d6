//! `BurstPool.status`: what the pool has to say, for people and for programs that wait for it.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the pool is doing.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BurstPoolStatus {
    /// The generation of the spec that this status is about; -1 until the operator has looked at the pool.
    #[serde(default = "none_yet", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: every placement's node is registered. NodesReady: every node takes pods. Spilling: pods are on
    /// ACI, or were a moment ago. CapacityLimited: pods wait for a limit or for room. TriggersHealthy:
    /// every trigger's value is known. Conflict: somebody else sets a target's replicas. Stalled: the spec
    /// must be edited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Each placement's node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub placements: Vec<PlacementStatus>,
    /// How many pods are in which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// Each workload's pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub workloads: Vec<WorkloadStatus>,
    /// Each trigger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub triggers: Vec<TriggerStatus>,
    /// Pods that may have been granted already, or may be within a second: they count until their grant is
    /// seen, or they are home or gone. Written before a grant is sent, so that no change of leader can
    /// exceed a limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub reservations: Vec<Reservation>,
    /// Which instance of the operator decides for this pool, in its present term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// No generation: Flux and others (kstatus) take a resource that says nothing at all for one that is well.
#[allow(clippy::unnecessary_wraps, reason = "the field's type")]
fn none_yet() -> Option<i64> {
    Some(-1)
}

/// How many pods of a pool are in which state; each pod is in one of them at most.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCounts {
    /// Refused by the scheduler and waiting to be granted, or for room at home.
    pub holding: i64,
    /// Granted, and not yet on a node.
    pub granted: i64,
    /// Granted, and on ACI.
    pub spilled: i64,
    /// Of these, how many run.
    pub running: i64,
    /// Refused by the scheduler, and ACI cannot take them.
    pub refused: i64,
    /// On ACI because a user placed them there.
    pub user_placed: i64,
}

/// What a workload's pods are doing.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// The workload's name.
    pub name: String,
    /// How many pods it shall have; absent where nobody says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<i64>,
    /// How many of its pods are on the cluster's own nodes; absent where nobody says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<i64>,
    /// How many wait to be granted, or for room at home.
    pub holding: i64,
    /// How many are granted, and not yet on a node.
    pub granted: i64,
    /// How many are granted, and on ACI.
    pub spilled: i64,
    /// How many wait although ACI cannot take them.
    pub refused: i64,
    /// How many may be on ACI at once.
    pub limit: i64,
    /// What its scale block comes to, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleStatus>,
    /// What there is to know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What the scaling of a workload comes to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleStatus {
    /// How many replicas the triggers ask for, within minReplicas and maxReplicas, before the behavior
    /// is looked at; absent while nothing may be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<i64>,
    /// Which trigger asks for them; absent while all are quiet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Why that is not what the target has, if it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a trigger says.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerStatus {
    /// The trigger's name.
    pub name: String,
    /// Whether it is active.
    pub active: bool,
    /// The last value of its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Since when it is active, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Since when nobody knows its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Time>,
    /// The alerts that fire.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<FiringAlert>,
    /// What there is to know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An alert that fires.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FiringAlert {
    /// Alertmanager's fingerprint of its labels.
    pub fingerprint: String,
    /// Until when that is believed if it is not sent again.
    pub expires: Time,
}

/// A pod that may have been granted.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The pod's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The workload that it counts for.
    pub workload: String,
    /// The instance of the operator that reserved it, in the term in which it did.
    pub holder: String,
    /// The pod's resourceVersion when it was reserved. No grant is sent for another one: once the pod
    /// has a later one, and no grant, none can come of this reservation any more.
    #[serde(default)]
    pub resource_version: String,
}

/// What a placement is doing.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementStatus {
    /// The placement's name.
    pub name: String,
    /// Its virtual node.
    pub node: String,
    /// Whether it takes pods.
    pub ready: bool,
    /// How many container groups it has in Azure.
    pub groups: i64,
    /// Why it takes none, in Azure's words where they are Azure's; while it takes pods, what dnsPolicy
    /// ClusterFirst means here if the placement has no network.dns.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
