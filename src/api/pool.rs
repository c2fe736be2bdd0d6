//! `BurstPool`: which part of Azure a cluster may burst to.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use std::collections::BTreeMap;

use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use serde::{Deserialize, Serialize};

/// Where this cluster's workloads may spill to.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "burstpool.io",
    version = "v1alpha1",
    kind = "BurstPool",
    plural = "burstpools",
    shortname = "bp",
    category = "burstpool",
    derive = "PartialEq",
    doc = "A BurstPool lets workloads of this cluster spill onto Azure Container Instances (ACI) when the cluster's own nodes are full.",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$')")
        .message("metadata.name must be 1 to 30 lowercase letters, numbers and hyphens and begin with a letter: it becomes part of node names")
)]
#[serde(rename_all = "camelCase")]
pub struct BurstPoolSpec {
    /// Where in Azure container groups are created.
    pub azure: Azure,
    /// Where pods may be placed: one virtual node each, named burst-POOL-PLACEMENT.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub placements: Vec<Placement>,
}

/// The subscription and resource group that container groups belong to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Azure {
    /// The subscription that pays; the operator's own if not given.
    #[schemars(length(max = 36))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')")
        .message("must be a subscription's id, such as 00000000-0000-0000-0000-000000000000"))]
    pub subscription_id: Option<String>,
    /// The resource group; it must exist.
    #[schemars(length(min = 1, max = 90))]
    pub resource_group: String,
    /// Tags that every container group gets, beside burstpool's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// A part of a region that pods can run in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The placement's name, unique in the pool.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$')")
        .message("must be 1 to 20 lowercase letters, numbers and hyphens, and begin and end with a letter or number"))]
    pub name: String,
    /// The Azure region, such as westeurope. It cannot be changed: container groups cannot move.
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed; add another placement instead"))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]{1,40}$')").message("must be a region's name as Azure writes it in resource ids, such as westeurope"))]
    pub region: String,
}

/// The custom resource definition as YAML.
pub fn crd_yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&BurstPool::crd())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_crd_file_is_what_the_types_say() {
        let printed = super::crd_yaml().expect("the definition serialises");
        let kept = include_str!("../../crds/burstpools.yaml");
        assert_eq!(
            kept, printed,
            "crds/burstpools.yaml is old: run `make crds`"
        );
    }
}
