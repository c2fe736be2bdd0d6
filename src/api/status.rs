//! `BurstPool.status`: the observed state of a pool, for users and for tools that wait for it.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state of the pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BurstPoolStatus {
    /// The generation of the spec that this status describes. It is -1 until the
    /// operator has evaluated the pool.
    #[serde(default = "none_yet", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions of the pool. Ready: the node of every placement is
    /// registered, and nothing has to be drained. NodesReady: every placement takes
    /// pods. Spilling: granted pods are on ACI or on their way there, or were
    /// within scaleIn.cooldown. CapacityLimited: pods wait for a limit, for
    /// capacity or for a placement that is closed. TriggersHealthy: the value of
    /// every trigger is known. Conflict: something else scales a target of the
    /// pool; Unknown if the operator cannot find out. Stalled: a user must edit the
    /// spec or the object that the message names; absent otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The state of each placement and its node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub placements: Vec<PlacementStatus>,
    /// The number of pods in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// The state of each workload and its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub workloads: Vec<WorkloadStatus>,
    /// The state of each trigger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub triggers: Vec<TriggerStatus>,
    /// Pods that count against the limits before their grant is visible: the
    /// operator may have granted them, or may grant them within a second. The
    /// operator writes this list before it sends a grant, so that a change of
    /// leader cannot exceed a limit. A reservation ends when the operator sees that
    /// the pod is granted, gone, on one of the cluster's own nodes, or at a later
    /// version without a grant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub reservations: Vec<Reservation>,
    /// The instance of the operator that decides for this pool, in its current term
    /// of leadership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// The generation before the first evaluation. Without it, Flux and other tools that use kstatus would treat a
/// resource with an empty status as healthy.
#[allow(clippy::unnecessary_wraps, reason = "the field's type")]
fn none_yet() -> Option<i64> {
    Some(-1)
}

/// The number of pods of a pool in each state. A pod counts in at most one of
/// them, except that running pods also count as spilled.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCounts {
    /// The number of pods that the scheduler has refused and that wait for a grant
    /// or for the cluster's own nodes.
    pub holding: i64,
    /// The number of granted pods that are not on a node yet.
    pub granted: i64,
    /// The number of granted pods on ACI.
    pub spilled: i64,
    /// The number of spilled pods that run.
    pub running: i64,
    /// The number of pods that the scheduler has refused and that ACI cannot run,
    /// and of pods whose grant has expired.
    pub refused: i64,
    /// The number of pods on the pool's nodes without a grant of this pool, because
    /// they tolerate the nodes' taint themselves. They count against no maximum.
    pub user_placed: i64,
}

/// The state of a workload and its pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// The name of the workload.
    pub name: String,
    /// The number of replicas that the target's scale requests. Absent if the
    /// workload has no target, or its scale cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<i64>,
    /// The number of replicas on the cluster's own nodes. Absent if the workload
    /// has no target, or its scale cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<i64>,
    /// The number of pods that the scheduler has refused and that wait for a grant
    /// or for the cluster's own nodes.
    pub holding: i64,
    /// The number of granted pods that are not on a node yet.
    pub granted: i64,
    /// The number of granted pods on ACI.
    pub spilled: i64,
    /// The number of pods that wait and that ACI cannot run, and of pods whose
    /// grant has expired.
    pub refused: i64,
    /// The maximum number of the workload's pods on ACI at once: the lower one of
    /// its own and the pool's maximum. It is 0 while its own maximum is a
    /// percentage and the desired replicas are unknown.
    pub limit: i64,
    /// The state of the workload's scaling. Absent if the workload has no scale
    /// block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleStatus>,
    /// Why pods wait or cannot run on ACI, and which selected pods belong to other
    /// workloads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The state of a workload's scaling.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleStatus {
    /// The number of replicas that the triggers propose, within minReplicas and
    /// maxReplicas, before behavior is applied. Absent while the operator cannot or
    /// must not scale the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<i64>,
    /// The trigger that proposes this number. Absent if all triggers are inactive,
    /// or if the replicas are kept because a trigger's value is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Why the target does not get the wanted number of replicas now, or why it is
    /// not scaled.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The state of a trigger.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerStatus {
    /// The name of the trigger.
    pub name: String,
    /// Whether the trigger is active.
    pub active: bool,
    /// The last known value of the Prometheus query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// When the trigger last became active or inactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Since when the trigger's value has been unknown: Prometheus gives none, or
    /// the operator cannot receive alerts. Absent while the value is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Time>,
    /// The alerts that fire and match the trigger, at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<FiringAlert>,
    /// Why the value is unknown or the spec is invalid, warnings of Prometheus,
    /// when a window opens or ends, or how many alerts fire.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An alert that fires.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FiringAlert {
    /// Alertmanager's fingerprint of the alert's labels, or a hash of them if the
    /// sender gives none.
    pub fingerprint: String,
    /// When the alert counts as resolved if Alertmanager does not send it again.
    pub expires: Time,
}

/// A pod that counts against the limits before its grant is visible.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The UID of the pod.
    pub uid: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// The name of the pod.
    pub name: String,
    /// The workload for which the pod was reserved.
    pub workload: String,
    /// The instance of the operator that reserved the pod, in its term of
    /// leadership at that time.
    pub holder: String,
    /// The resourceVersion of the pod when it was reserved. The operator grants
    /// this version only. When the pod has a later version and no grant, this
    /// reservation can no longer lead to a grant.
    #[serde(default)]
    pub resource_version: String,
}

/// The state of a placement and its node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementStatus {
    /// The name of the placement.
    pub name: String,
    /// The name of the placement's virtual node.
    pub node: String,
    /// Whether the placement takes pods. It is false while the placement is closed
    /// or its node is cordoned.
    pub ready: bool,
    /// The number of the placement's container groups in Azure, as far as the
    /// operator knows.
    pub groups: i64,
    /// Why the placement takes no pods, with Azure's message if Azure is the cause.
    /// While it takes pods: notes about public addresses, dnsPolicy ClusterFirst,
    /// quotas that cannot be read, and DaemonSets whose pods do not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
