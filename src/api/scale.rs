//! How many replicas a workload gets, and how fast that changes: the shape and the defaults of the
//! HorizontalPodAutoscaler's `behavior`.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The replicas of a workload that has no autoscaler. They are written through its scale subresource,
/// and only if no HorizontalPodAutoscaler, ScaledObject or other pool has the same target.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("scale.minReplicas must not be above scale.maxReplicas")
)]
pub struct WorkloadScale {
    /// The fewest replicas: those while all triggers are quiet.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 5000))]
    pub min_replicas: i32,
    /// The most replicas.
    #[schemars(range(min = 1, max = 5000))]
    pub max_replicas: i32,
    /// The pool's triggers that ask for replicas; what asks for the most gets them.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 63)))]
    pub triggers: Vec<String>,
    /// How fast replicas change.
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

/// How fast replicas change, as a HorizontalPodAutoscaler has it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    /// How replicas are added. By default at once, by the higher of 4 pods and 100 percent in 15 seconds.
    pub scale_up: ScalingRules,
    /// How replicas are removed. By default down to the most that was asked for in 300 seconds.
    pub scale_down: ScalingRules,
}

/// How replicas change in one direction.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingRules {
    /// For how many seconds what was asked for counts still: of all that time, up the lowest and down the
    /// highest. 0 up and 300 down if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: Option<i32>,
    /// Which of the policies holds.
    pub select_policy: SelectPolicy,
    /// How much may change in a time; up 4 Pods or 100 Percent and down 100 Percent in 15 seconds if not
    /// given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub policies: Vec<ScalingPolicy>,
    /// How far the value may be from what the replicas can bear before they change; 0.1 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tolerance")]
    pub tolerance: Option<Quantity>,
}

/// A quantity from 0 to 1: a plain one would allow negative ones, too.
fn tolerance(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "How far the value may be from what the replicas can bear before they change; 0.1 if not given.",
        "type": "string",
        "nullable": true,
        "maxLength": 16,
        "pattern": "^(0([.][0-9]+)?|1([.]0+)?|[0-9]{1,3}m)$",
    })
}

/// Which of several policies holds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The one that allows the most change.
    #[default]
    Max,
    /// The one that allows the least change.
    Min,
    /// None: nothing changes in this direction.
    Disabled,
}

/// How much may change in a time.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// Pods, or a percentage of the replicas at the time's beginning.
    #[serde(rename = "type")]
    pub kind: PolicyType,
    /// How many.
    #[schemars(range(min = 1, max = 100_000))]
    pub value: i32,
    /// In how many seconds.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: i32,
}

/// What a policy counts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyType {
    /// Pods.
    Pods,
    /// Percent of the replicas at the time's beginning.
    Percent,
}
