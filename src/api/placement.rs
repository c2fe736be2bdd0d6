//! `spec.placements`: the parts of Azure in which pods run.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A part of an Azure region in which pods can run. It has one virtual node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.priority) && self.priority == 'Spot') || !has(self.subnetId)")
        .message("priority Spot cannot be combined with subnetId: ACI does not run spot containers in virtual networks; remove one of them")
)]
#[x_kube(
    validation = Rule::new("!(has(self.priority) && self.priority == 'Spot') || !has(self.sku) || self.sku == 'Standard'")
        .message("priority Spot needs sku Standard: ACI does not run confidential spot containers")
)]
#[x_kube(
    validation = Rule::new("!(has(self.priority) && self.priority == 'Spot') || !has(self.zones) || size(self.zones) == 0")
        .message("priority Spot cannot be combined with zones: ACI chooses where spot containers run; remove zones")
)]
#[x_kube(
    validation = Rule::new("!has(self.network) || !has(self.network.dns) || has(self.subnetId)")
        .message("network.dns needs subnetId: ACI accepts DNS settings only in a virtual network; add subnetId, or remove network.dns")
)]
#[x_kube(
    validation = Rule::new("!has(self.network) || !has(self.network.kubeProxy) || !self.network.kubeProxy || has(self.subnetId)")
        .message("network.kubeProxy needs subnetId: without a virtual network, pods on ACI cannot reach the pods of the cluster; add subnetId, or set kubeProxy to false")
)]
#[x_kube(
    validation = Rule::new("has(self.subnetId) == has(oldSelf.subnetId)")
        .message("subnetId cannot be added or removed; add another placement instead")
)]
pub struct Placement {
    /// The name of the placement, unique in the pool. It is a part of the node's
    /// name: 1 to 20 lowercase letters, digits and hyphens.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$')")
        .message("must be 1 to 20 lowercase letters, digits and hyphens, and begin and end with a letter or digit"))]
    pub name: String,
    /// The Azure region, such as westeurope. It cannot be changed, because
    /// container groups cannot move.
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed; add another placement instead"))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]{1,40}$')")
        .message("must be the name of a region as in Azure's resource IDs, such as westeurope"))]
    pub region: String,
    /// The resource ID of the subnet in which pods run. It must be delegated to
    /// ACI. Without a subnet, a pod with containerPorts gets a public IP address on
    /// which these ports are open to the internet; a placement with priority Spot
    /// refuses such pods. It cannot be added, changed or removed, because container
    /// groups cannot move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed; add another placement instead"))]
    #[x_kube(validation = Rule::new("self.matches('^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft[.]Network/virtualNetworks/[^/]+/subnets/[^/]+$')")
        .message("must be the resource ID of a subnet: /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Network/virtualNetworks/NAME/subnets/NAME"))]
    pub subnet_id: Option<String>,
    /// The availability zone in which pods run, at most one. Without it, Azure
    /// chooses. It cannot be combined with priority Spot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1), inner(length(max = 1)))]
    #[x_kube(validation = Rule::new("self.all(zone, zone.matches('^[1-9]$'))")
        .message("zones must contain the number of an availability zone, such as \"1\""))]
    pub zones: Vec<String>,
    /// The priority of the container groups. Regular: Azure does not evict them.
    /// Spot: they cost less, and Azure evicts them when it needs their capacity; it
    /// cannot be combined with subnetId, zones or sku Confidential. Defaults to
    /// Regular.
    #[serde(default)]
    pub priority: Priority,
    /// The SKU of the container groups. Standard: ordinary machines. Confidential:
    /// a trusted execution environment. Defaults to Standard.
    #[serde(default)]
    pub sku: Sku,
    /// The most that the pods of this placement may use together. The region's
    /// remaining quota applies if it is lower. Pods that do not fit are not
    /// granted. Lowering the capacity does not remove running pods.
    #[serde(default)]
    pub capacity: Capacity,
    /// What pods can use of the cluster's network, and how their usage is measured.
    #[serde(default)]
    pub network: Network,
    /// Whether the operator reads the configuration of images from their
    /// registries. Auto: for pods that need it, which have args without command,
    /// runAsNonRoot without runAsUser, or workingDir. Never: such pods cannot
    /// spill; set it if the operator cannot reach the registries. Defaults to Auto.
    #[serde(default)]
    pub read_images: ReadImages,
    /// Additional labels of the virtual node, such as
    /// topology.kubernetes.io/region. At most 20. With a topology label, the
    /// scheduler counts the node as a domain of that topology. Labels that
    /// burstpool sets itself have precedence. kubernetes.io/hostname is not
    /// allowed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20, "additionalProperties" = label_value()))]
    #[x_kube(validation = Rule::new("!('kubernetes.io/hostname' in self)")
        .message("kubernetes.io/hostname must not be set: the scheduler would count the virtual node as an empty domain of topology spreads over hostnames"))]
    pub labels: BTreeMap<String, String>,
}

/// Whether the operator reads the configuration of images.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadImages {
    /// For pods that need it.
    #[default]
    Auto,
    /// For no pods.
    Never,
}

/// Whether Azure may evict container groups.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Azure does not evict them.
    #[default]
    Regular,
    /// Azure evicts them when it needs their capacity.
    Spot,
}

/// The machines that container groups run on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sku {
    /// Ordinary machines.
    #[default]
    Standard,
    /// Trusted execution environments.
    Confidential,
}

/// The most that the pods of a placement may use together.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// The CPU of all pods together, in cores: a quantity of 0 or more. ACI counts
    /// whole cores, at least one for each pod. Defaults to 100.
    #[serde(deserialize_with = "cpu_or_default")]
    #[schemars(schema_with = "amount")]
    pub cpu: Quantity,
    /// The memory of all pods together, in bytes: a quantity of 0 or more. Defaults
    /// to 400Gi.
    #[serde(deserialize_with = "memory_or_default")]
    #[schemars(schema_with = "amount")]
    pub memory: Quantity,
    /// The number of pods, from 0 to 5000. Defaults to 100.
    #[schemars(range(min = 0, max = 5000))]
    pub pods: i64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            cpu: Quantity("100".to_owned()),
            memory: Quantity("400Gi".to_owned()),
            pods: 100,
        }
    }
}

/// Reads null as a field that is not set: definitions of earlier versions allowed null to be stored.
fn cpu_or_default<'de, D: Deserializer<'de>>(stored: D) -> Result<Quantity, D::Error> {
    let stored: Option<Quantity> = Option::deserialize(stored)?;
    Ok(stored.unwrap_or_else(|| Capacity::default().cpu))
}

fn memory_or_default<'de, D: Deserializer<'de>>(stored: D) -> Result<Quantity, D::Error> {
    let stored: Option<Quantity> = Option::deserialize(stored)?;
    Ok(stored.unwrap_or_else(|| Capacity::default().memory))
}

/// The schema of a quantity of 0 or more. `controller::placements::validation` checks its size. The schema has a
/// pattern and no CEL rule, because a CEL rule over a value that is a number or a string is too expensive. It is
/// explicitly not nullable: kube makes every optional field of this kind nullable, and the API server then keeps a
/// null where it would set the default.
fn amount(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": false,
        "minimum": 0,
        "maxLength": 32,
        "pattern": "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?[0-9]{1,2})?$",
    })
}

/// The schema of a label's value, as the API server accepts it on a node. A schema cannot restrict the keys of a map;
/// `controller::placements::validation` checks them.
fn label_value() -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    })
}

/// What pods on ACI can use of the cluster's network, and how their usage is
/// measured.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// The cluster's DNS, for pods with dnsPolicy ClusterFirst. Without it, these
    /// pods use Azure's resolver, which cannot resolve the cluster's names; the
    /// placement's message in the status says so. Requires subnetId.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Whether pods can reach Services by cluster IP. If true, ACI runs a
    /// kube-proxy beside each pod. The kube-proxy connects to the API server at
    /// --api-server-url, with a token of the service account
    /// --kube-proxy-service-account, which may read Services and their endpoints.
    /// Requires subnetId. Defaults to false.
    pub kube_proxy: bool,
    /// Whether ACI's realtime-metrics extension runs beside each pod. It reports
    /// CPU and memory within seconds, on TCP port 18899 of the pod's address. Pods
    /// without a subnet, pods with sku Confidential and pods that use this port
    /// themselves do not have it. Where it does not answer, the operator reads
    /// Azure Monitor, whose values are minutes old. Defaults to true.
    pub realtime_metrics: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            dns: None,
            kube_proxy: false,
            realtime_metrics: true,
        }
    }
}

/// The cluster's DNS as pods on ACI reach it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// The IPv4 addresses of 1 to 3 name servers that resolve the cluster's names.
    /// The subnet must be able to reach them.
    #[schemars(length(min = 1, max = 3), inner(length(max = 15)))]
    #[x_kube(validation = Rule::new("self.all(server, server.matches('^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$'))")
        .message("network.dns.nameServers must be IPv4 addresses that the subnet can reach, such as 10.0.0.10"))]
    pub name_servers: Vec<String>,
    /// The domain of the cluster's names, a DNS name in lowercase. Defaults to
    /// cluster.local.
    #[serde(default = "cluster_local")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')")
        .message("network.dns.clusterDomain must be a DNS name in lowercase without a trailing dot, such as cluster.local"))]
    pub cluster_domain: String,
}

fn cluster_local() -> String {
    "cluster.local".to_owned()
}

#[cfg(test)]
mod tests {
    use super::Capacity;

    /// The API server keeps nulls that were stored while an earlier definition made the field nullable.
    #[test]
    fn a_capacity_that_is_stored_as_null_counts_as_not_set() {
        let stored = serde_json::json!({"cpu": null, "memory": null});
        let read: Capacity = serde_json::from_value(stored).expect("it is read");
        assert_eq!(read, Capacity::default());
    }
}
