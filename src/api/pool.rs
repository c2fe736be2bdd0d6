//! `BurstPool`: its spec, and the custom resource definition.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use serde::{Deserialize, Serialize};

use super::placement::Placement;
use super::spill::{Mode, ScaleIn, Spill, Workload};
use super::status::BurstPoolStatus;
use super::trigger::Trigger;

/// The desired state of the pool: which workloads may spill, when, and where in
/// Azure their pods run.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "burstpool.io",
    version = "v1alpha1",
    kind = "BurstPool",
    plural = "burstpools",
    shortname = "bp",
    category = "burstpool",
    derive = "PartialEq",
    status = "BurstPoolStatus",
    doc = "A BurstPool lets workloads of this cluster spill onto Azure Container Instances (ACI) when the cluster's own nodes are full.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Spilled",
        type_ = "integer",
        json_path = ".status.pods.spilled"
    ),
    printcolumn(
        name = "Holding",
        type_ = "integer",
        json_path = ".status.pods.holding"
    ),
    printcolumn(
        name = "Max",
        type_ = "string",
        json_path = ".spec.spill.maxReplicas"
    ),
    printcolumn(
        name = "Trigger",
        type_ = "string",
        json_path = ".status.triggers[?(@.active==true)].name"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Limited",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='CapacityLimited')].status",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$')")
        .message("metadata.name must be 1 to 30 lowercase letters, digits and hyphens, begin with a letter, and end with a letter or digit: it is part of node names"),
    validation = Rule::new("!has(self.spec.spill) || !has(self.spec.spill.maxReplicas) || type(self.spec.spill.maxReplicas) == int || !has(self.spec.workloads) || size(self.spec.workloads) == 0 || self.spec.workloads.exists(one, has(one.target))")
        .message("spec.spill.maxReplicas must be a number if no workload has a target: a percentage refers to the desired replicas of the targets"),
    validation = Rule::new("!has(self.spec.workloads) || self.spec.workloads.all(one, !has(one.spill) || !has(one.spill.accept) || one.spill.accept.all(loss, has(self.spec.spill) && has(self.spec.spill.accept) && loss in self.spec.spill.accept))")
        .message("spec.workloads[].spill.accept may contain only what spec.spill.accept contains: add the value there, or remove it from the workload")
)]
#[serde(rename_all = "camelCase")]
pub struct BurstPoolSpec {
    /// The Azure subscription and resource group of the container groups.
    pub azure: AzureSpec,
    /// The parts of Azure in which pods may run, 1 to 8. Each placement has one
    /// virtual node, named burst-POOL-PLACEMENT. Removing a placement evicts its
    /// pods and deletes its container groups and its node.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub placements: Vec<Placement>,
    /// The workloads whose pods may spill, at most 64. If there are none, the
    /// virtual nodes only run pods that users place there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub workloads: Vec<Workload>,
    /// When pods may spill, how many, and how fast.
    #[serde(default)]
    pub spill: Spill,
    /// Signals of a load peak, at most 16: Prometheus queries, schedules and
    /// alerts. While one of them is active, pods are held for
    /// spill.afterWhenTriggered instead of spill.after, and workloads with a scale
    /// block can get more replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub triggers: Vec<Trigger>,
    /// Which pods are removed first after a peak, and when the peak is over.
    #[serde(default)]
    pub scale_in: ScaleIn,
    /// Whether the operator carries out its decisions. Active: it does. DryRun: it
    /// shows its decisions in the status and in Events, but writes neither to
    /// pending pods nor to the replicas of targets; pods on the pool's nodes run as
    /// in mode Active. Defaults to Active.
    #[serde(default)]
    pub mode: Mode,
}

/// The subscription and resource group of a pool's container groups.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AzureSpec {
    /// The ID of the subscription in which container groups are created and billed.
    /// Defaults to the operator's --subscription-id; one of the two must be set.
    /// Container groups cannot move: if this changes while the pool has pods or
    /// container groups on ACI, the pool is Stalled until it is changed back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')")
        .message("must be the ID of a subscription, such as 00000000-0000-0000-0000-000000000000"))]
    pub subscription_id: Option<String>,
    /// The name of the resource group in which container groups are created. It
    /// must exist. Defaults to the operator's --resource-group; one of the two must
    /// be set. Container groups cannot move: if this changes while the pool has
    /// pods or container groups on ACI, the pool is Stalled until it is changed
    /// back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 90))]
    pub resource_group: Option<String>,
    /// Tags of the container groups, in addition to burstpool's own. At most 30. A
    /// change applies to container groups that are created afterwards.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 30))]
    pub tags: BTreeMap<String, String>,
}

/// The custom resource definition as YAML.
pub fn crd_yaml() -> Result<String, serde_yaml::Error> {
    let mut crd = BurstPool::crd();
    let versions = crd.spec.versions.iter_mut();
    let schemas =
        versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    for schema in schemas {
        // Gives a new pool an empty status, in which the API server sets the default of `observedGeneration`. The
        // types cannot contain this default, because kube derives the field `status`.
        let status = schema
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("status"));
        status.expect("a pool has a status").default = Some(JSON(serde_json::json!({})));
    }
    serde_yaml::to_string(&crd)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_crd_file_is_up_to_date() {
        let printed = super::crd_yaml().expect("the definition serialises");
        let stored = include_str!("../../crds/burstpools.yaml");
        assert_eq!(
            stored, printed,
            "crds/burstpools.yaml is old: run `make crds`"
        );
    }

    /// The API server warns about an unknown format, but only the user who applies the definition sees the warning.
    #[test]
    fn the_crd_has_only_formats_that_the_api_server_knows() {
        let printed = super::crd_yaml().expect("the definition serialises");
        let formats = printed
            .lines()
            .filter_map(|line| line.trim().strip_prefix("format: "));
        let known = ["int32", "int64", "double", "date-time"];
        let unknown: Vec<&str> = formats.filter(|format| !known.contains(format)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    /// A client that reads a pool into these types and writes it back writes a duration of 0 as `0ns`, as kube does.
    #[test]
    fn rules_that_allow_zero_accept_the_format_that_the_types_write() {
        let written = serde_json::to_value(kube::core::Duration::from(std::time::Duration::ZERO));
        assert_eq!(written.expect("it is written"), "0ns");
        let printed = super::crd_yaml().expect("the definition serialises");
        let rules = printed
            .lines()
            .filter(|line| line.contains("duration(self) <="));
        let with_zero = rules.filter(|line| !line.contains("duration(self) >="));
        let rules: Vec<&str> = with_zero.collect();
        assert_eq!(rules.len(), 5, "{rules:#?}");
        for rule in rules {
            assert!(rule.contains("(ns|ms|s|m|h)"), "{rule}");
        }
    }
}
