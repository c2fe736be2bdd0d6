//! `spec.workloads`, `spec.spill` and `spec.scaleIn`: which pods may spill, when, how many, and how a peak ends.

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

use super::loss::{AcceptedLoss, LossSet};
use super::max_replicas::MaxReplicas;
use super::scale::WorkloadScale;

/// A workload whose pods may spill: the pods of a target, or the pods that a
/// selector selects. A pod that several workloads select belongs to the first
/// one in the list; a pod that several pools select belongs to the oldest pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.target) != has(self.selector)")
        .message("exactly one of target and selector must be set")
)]
#[x_kube(
    validation = Rule::new("!has(self.selector) || !has(self.spill) || !has(self.spill.maxReplicas) || type(self.spill.maxReplicas) == int")
        .message("spill.maxReplicas must be a number if selector is set: a percentage refers to the desired replicas of a target")
)]
#[x_kube(
    validation = Rule::new("!has(self.scale) || has(self.target)")
        .message("scale needs target: only a target has replicas to set; add target, or remove scale")
)]
pub struct Workload {
    /// The name of the workload, unique in the pool: 1 to 63 lowercase letters,
    /// digits and hyphens.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("must be 1 to 63 lowercase letters, digits and hyphens, and begin and end with a letter or digit"))]
    pub name: String,
    /// The object whose pods may spill: a Deployment, a StatefulSet, or another
    /// object with a scale subresource. Exactly one of target and selector must be
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Selects the pods that may spill, for pods without a target, such as those of
    /// Jobs and CronJobs. Exactly one of target and selector must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodsSelector>,
    /// Overrides of the pool's spill settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spill: Option<SpillOverride>,
    /// The workload's share of the pool's slots when there are too few, from 1 to
    /// 1000. With weights 3 and 1, the first workload gets three of four slots.
    /// Defaults to 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub weight: u32,
    /// Sets the target's replicas by the pool's triggers, through the target's
    /// scale subresource. Requires target. If a HorizontalPodAutoscaler, a
    /// ScaledObject, an older pool or an earlier workload scales the same target,
    /// the operator writes nothing, and the condition Conflict is True. Without a
    /// scale block, the operator does not change the replicas.
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

/// An object with a scale subresource, which contains the desired replicas and
/// the selector of the pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The API group and version of the object, such as apps/v1.
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// The kind of the object, such as Deployment.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The namespace of the object.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Selects pods by their own labels and the labels of their namespaces; a pod
/// must match both.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodsSelector {
    /// Selects namespaces by their labels. An empty selector selects all
    /// namespaces. Every namespace has its name in the label
    /// kubernetes.io/metadata.name.
    pub namespace_selector: LabelSelector,
    /// Selects pods by their labels. An empty selector selects all pods.
    pub pod_selector: LabelSelector,
}

/// Overrides of the pool's spill settings for one workload.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SpillOverride {
    /// How long the scheduler must have refused a pod before it may spill. From 0s
    /// to 24h. Defaults to the pool's spill.after. While one of the pool's triggers
    /// is active, the pool's spill.afterWhenTriggered applies if it is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 15s or 1m30s"))]
    pub after: Option<Span>,
    /// The maximum number of the workload's pods on ACI at once: a number from 0 to
    /// 5000, or a percentage from 0% to 100% of the target's desired replicas,
    /// rounded up. Further pods wait. With selector, it must be a number. The
    /// pool's own maximum also applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<MaxReplicas>,
    /// What pods of the workload may lose on ACI, instead of the pool's
    /// spill.accept, of which it may only contain values. An empty list: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accept: Option<Vec<AcceptedLoss>>,
}

/// When pods may spill, how many, and how fast.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Spill {
    /// How long the scheduler must have refused a pod before it may spill. Raise it
    /// to let a node autoscaler go first. From 0s to 24h. Defaults to 15s.
    #[serde(default = "spill_after")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 15s or 1m30s"))]
    pub after: Span,
    /// How long the scheduler must have refused a pod before it may spill, while
    /// one of the pool's triggers is active. If the workload's or the pool's after
    /// is shorter, that time applies. From 0s to 24h. Defaults to 0s.
    // The pattern allows `ns` because kube writes a duration of 0 as `0ns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 0s or 5s"))]
    pub after_when_triggered: Option<Span>,
    /// The maximum number of pods on ACI at once, of all workloads together: a
    /// number from 0 to 5000, or a percentage from 0% to 100% of the desired
    /// replicas of all targets, rounded up. Further pods wait. Lowering it does not
    /// remove running pods. Defaults to 100.
    #[serde(default = "spill_max")]
    pub max_replicas: MaxReplicas,
    /// How fast pods may spill.
    #[serde(default)]
    pub rate: Rate,
    /// What pods may lose on ACI. A pod that asks for something that ACI does not
    /// keep cannot spill, unless the list contains its name; a pod that then
    /// spills has the annotation burstpool.io/not-kept. emptyDirMemory: an emptyDir
    /// in memory is on disk. fileModes: files of volumes have the mode that ACI
    /// gives them. fsGroup: processes and volumes do not get that group.
    /// readOnlyRootFilesystem: the root file system is writable. seccomp: a profile
    /// of the type Localhost is not applied. shareProcessNamespace: containers do
    /// not see each other's processes. sidecarOrder: a native sidecar starts and ends
    /// together with the containers. subPathHidesDirectory: a file that is mounted by
    /// subPath hides what the image has in the file's directory. Defaults to none. A
    /// change applies to pods that are granted afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accept: Vec<AcceptedLoss>,
}

impl Spill {
    /// What pods of `workload` may lose: its own list, as far as the pool has its values, or else the pool's list.
    pub fn accepted_losses(&self, workload: &Workload) -> LossSet {
        let own = workload.spill.as_ref().and_then(|own| own.accept.as_ref());
        let pool = self.accept.iter().copied();
        pool.filter(|loss| own.is_none_or(|own| own.contains(loss)))
            .collect()
    }
}

impl Default for Spill {
    fn default() -> Self {
        Self {
            after: spill_after(),
            after_when_triggered: None,
            max_replicas: spill_max(),
            rate: Rate::default(),
            accept: Vec::new(),
        }
    }
}

/// A number of pods in a period of time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// The maximum number of grants in any period of the length per. Further pods
    /// wait. From 1 to 5000. Defaults to 60.
    #[serde(default = "rate_pods")]
    #[schemars(range(min = 1, max = 5000), extend("format" = "int32"))]
    pub pods: u32,
    /// The length of the period. From 1s to 1h. Defaults to 60s.
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

/// Which pods are removed first after a peak, and when the peak is over.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleIn {
    /// The value of the annotation controller.kubernetes.io/pod-deletion-cost of
    /// pods on ACI. If it is below 0, a ReplicaSet that is scaled in removes these
    /// pods before those on the cluster's own nodes. A pod that has the annotation
    /// already keeps its value. A change applies to pods that are bound afterwards.
    /// Defaults to -1000.
    #[serde(default = "deletion_cost")]
    pub deletion_cost: i32,
    /// How long the pool must have no granted pods, neither on ACI nor on their way
    /// there, before the peak is over and the condition Spilling becomes False.
    /// From 0s to 24h. Defaults to 300s.
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

/// Whether the operator carries out its decisions about a pool.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The operator carries out its decisions.
    #[default]
    Active,
    /// The operator shows its decisions, and writes neither to pending pods nor to
    /// the replicas of targets.
    DryRun,
}
