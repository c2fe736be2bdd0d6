//! `BurstPool.status`: what the pool has to say, for people and for programs that wait for it.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the pool is doing.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BurstPoolStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: every placement's node is registered. NodesReady: every node takes pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Each placement's node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub placements: Vec<PlacementStatus>,
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
