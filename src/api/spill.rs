//! Which pods may spill, when and how many.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use kube::core::Duration as Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit::MaxReplicas;
use super::scale::WorkloadScale;

/// Pods that may spill: those of a target, or those that a selector selects. A pod that two workloads
/// could have belongs to the first in the list; one that two pools could have to the older pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.target) != has(self.selector)")
        .message("exactly one of target and selector must be set")
)]
#[x_kube(
    validation = Rule::new("!has(self.selector) || !has(self.spill) || !has(self.spill.maxReplicas) || type(self.spill.maxReplicas) == int")
        .message("spill.maxReplicas must be a number where selector is set: nothing says how many pods are desired, of which a percentage could be taken")
)]
#[x_kube(
    validation = Rule::new("!has(self.scale) || has(self.target)")
        .message("scale needs target: only a target has replicas; add target, or remove scale")
)]
pub struct Workload {
    /// The workload's name, unique in the pool.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("must be 1 to 63 lowercase letters, numbers and hyphens, and begin and end with a letter or number"))]
    pub name: String,
    /// A Deployment, StatefulSet or anything else with a scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Any pods: those of Jobs and CronJobs, or bare ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodsSelector>,
    /// What is otherwise than in the pool's spill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spill: Option<SpillOverride>,
    /// The workload's share when the pool is short: with weights 3 and 1, three of four.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub weight: u32,
    /// The target's replicas, by the pool's triggers; nobody's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<WorkloadScale>,
}

fn one() -> u32 {
    1
}

fn spill_after() -> Span {
    Duration::from_secs(15).into()
}

fn spill_max() -> MaxReplicas {
    MaxReplicas::Count(100)
}

fn rate_pods() -> u32 {
    60
}

fn rate_per() -> Span {
    Duration::from_secs(60).into()
}

fn deletion_cost() -> i32 {
    -1000
}

fn cooldown() -> Span {
    Duration::from_secs(300).into()
}

/// An object with a scale subresource, which says how many replicas are desired and which pods they
/// are.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its group and version, such as apps/v1.
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// Its kind, such as Deployment.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Pods by their labels and their namespaces' labels. An empty selector selects everything.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodsSelector {
    /// Namespaces by their labels; kubernetes.io/metadata.name is a namespace's name.
    pub namespace_selector: LabelSelector,
    /// Pods by their labels.
    pub pod_selector: LabelSelector,
}

/// What a workload has otherwise than its pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SpillOverride {
    /// How long the scheduler must have refused a pod before it may spill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 15s or 1m30s"))]
    pub after: Option<Span>,
    /// How many of the workload's pods may be on ACI at once: a number, or a percentage of the
    /// replicas that its target desires, rounded up. The pool's own maximum holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<MaxReplicas>,
}

/// When pods spill, and how many.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Spill {
    /// How long the scheduler must have refused a pod before it may spill. Raise it to let a node
    /// autoscaler go first.
    #[serde(default = "spill_after")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 15s or 1m30s"))]
    pub after: Span,
    /// The same while one of the pool's triggers is active, for every workload that has no shorter time
    /// of its own; 0s if not given.
    // kube writes a duration of 0 as 0ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 0s or 5s"))]
    pub after_when_triggered: Option<Span>,
    /// How many pods may be on ACI at once, of all workloads together: a number, or a percentage of
    /// the replicas that their targets desire, rounded up. A maximum that is lowered takes nothing
    /// back.
    #[serde(default = "spill_max")]
    pub max_replicas: MaxReplicas,
    /// How fast pods may spill.
    #[serde(default)]
    pub rate: Rate,
}

impl Default for Spill {
    fn default() -> Self {
        Self {
            after: spill_after(),
            after_when_triggered: None,
            max_replicas: spill_max(),
            rate: Rate::default(),
        }
    }
}

/// A number of pods in a time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// How many pods may be granted in any span of the length of per.
    #[serde(default = "rate_pods")]
    #[schemars(range(min = 1, max = 5000), extend("format" = "int32"))]
    pub pods: u32,
    /// How long that span is.
    #[serde(default = "rate_per")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')")
        .message("must be a duration from 1s to 1h, such as 1m"))]
    pub per: Span,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            pods: rate_pods(),
            per: rate_per(),
        }
    }
}

/// What happens when the peak is over.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleIn {
    /// The pod-deletion-cost of pods on ACI: with less than 0, a ReplicaSet that is scaled in removes
    /// them before those at home.
    #[serde(default = "deletion_cost")]
    pub deletion_cost: i32,
    /// How long no pod may have been on ACI, or on its way there, before the peak is said to be over.
    #[serde(default = "cooldown")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 5m"))]
    pub cooldown: Span,
}

impl Default for ScaleIn {
    fn default() -> Self {
        Self {
            deletion_cost: deletion_cost(),
            cooldown: cooldown(),
        }
    }
}

/// Whether a pool acts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What is decided is done.
    #[default]
    Active,
    /// What is decided is shown, and nothing is written to pods.
    DryRun,
}
