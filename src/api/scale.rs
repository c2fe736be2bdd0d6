//! `spec.workloads[].scale`: how many replicas a workload gets, and how fast they change. The fields and defaults
//! of `behavior` are those of a HorizontalPodAutoscaler.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The scaling of a workload that has no autoscaler. The operator writes the
/// replicas through the target's scale subresource, unless a
/// HorizontalPodAutoscaler, a ScaledObject, an older pool or an earlier
/// workload scales the same target.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("scale.minReplicas must not be above scale.maxReplicas")
)]
pub struct WorkloadScale {
    /// The minimum number of replicas, from 0 to 5000. The target has this number
    /// while all of its triggers are inactive. If it is above 0 and the target has
    /// 0 replicas, scaling is off until a user sets replicas again. Defaults to 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 5000))]
    pub min_replicas: i32,
    /// The maximum number of replicas. From 1 to 5000, and not below minReplicas.
    #[schemars(range(min = 1, max = 5000))]
    pub max_replicas: i32,
    /// The names of the pool's triggers that propose replicas, 1 to 8. The largest
    /// proposal applies. If spec.triggers lacks one of the names, the operator
    /// writes nothing, and the pool is Stalled.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 63)))]
    pub triggers: Vec<String>,
    /// How fast replicas change, as in a HorizontalPodAutoscaler.
    #[serde(default)]
    pub behavior: Behavior,
}

impl Default for WorkloadScale {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 1,
            triggers: Vec::new(),
            behavior: Behavior::default(),
        }
    }
}

fn one() -> i32 {
    1
}

/// How fast replicas change, as in a HorizontalPodAutoscaler.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    /// How replicas are added. By default immediately, at most 4 pods or 100
    /// percent in 15 seconds, whichever is more.
    pub scale_up: ScalingRules,
    /// How replicas are removed. By default immediately, down to the highest number
    /// that was proposed within the last 300 seconds.
    pub scale_down: ScalingRules,
}

/// How replicas change in one direction.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingRules {
    /// How long earlier proposals of replicas still count, in seconds. Replicas are
    /// added up to the lowest proposal in this time, and removed down to the
    /// highest. From 0 to 3600. Defaults to 0 for scaleUp and to 300 for scaleDown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: Option<i32>,
    /// Which of several policies applies. Max: the one that allows the largest
    /// change. Min: the one that allows the smallest change. Disabled: none, and
    /// replicas do not change in this direction. Defaults to Max.
    pub select_policy: SelectPolicy,
    /// How much the replicas may change in a period, at most 8 policies. Defaults
    /// to 4 Pods and 100 Percent in 15 seconds for scaleUp, and to 100 Percent in
    /// 15 seconds for scaleDown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub policies: Vec<ScalingPolicy>,
    /// How far the load per replica may be from the trigger's threshold without a
    /// change of replicas, as a fraction from 0 to 1. Applies to Prometheus
    /// triggers. Defaults to 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tolerance")]
    pub tolerance: Option<Quantity>,
}

/// The schema of a quantity from 0 to 1. The schema of kube's type would also accept negative ones.
fn tolerance(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "How far the load per replica may be from the trigger's threshold without a change of replicas, as a fraction from 0 to 1. Applies to Prometheus triggers. Defaults to 0.1.",
        "type": "string",
        "nullable": true,
        "maxLength": 16,
        "pattern": "^(0([.][0-9]+)?|1([.]0+)?|[0-9]{1,3}m)$",
    })
}

/// Which of several policies applies.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: replicas do not change in this direction.
    Disabled,
}

/// How much the replicas may change in a period.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// The unit of value. Pods: a number of pods. Percent: a percentage of the
    /// replicas at the beginning of the period.
    #[serde(rename = "type")]
    pub kind: PolicyType,
    /// The maximum change in the period, in the unit of type. From 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub value: i32,
    /// The length of the period, in seconds. From 1 to 1800.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: i32,
}

/// The unit of a policy's value.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyType {
    /// A number of pods.
    Pods,
    /// A percentage of the replicas at the beginning of the period.
    Percent,
}
