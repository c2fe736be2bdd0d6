//! `BurstPool`: its spec, its placements in Azure, and the custom resource definition.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

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
        .message("spec.spill.maxReplicas must be a number if no workload has a target: a percentage refers to the desired replicas of the targets")
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

/// The schema of a quantity of 0 or more. `controller::mistake` checks its size. The schema has a pattern and no CEL
/// rule, because a CEL rule over a value that is a number or a string is too expensive. It is explicitly not
/// nullable: kube makes every optional field of this kind nullable, and the API server then keeps a null where it
/// would set the default.
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
/// `controller::mistake` checks them.
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
    use super::Capacity;

    #[test]
    fn the_crd_file_is_up_to_date() {
        let printed = super::crd_yaml().expect("the definition serialises");
        let stored = include_str!("../../crds/burstpools.yaml");
        assert_eq!(
            stored, printed,
            "crds/burstpools.yaml is old: run `make crds`"
        );
    }

    /// The API server keeps nulls that were stored while an earlier definition made the field nullable.
    #[test]
    fn a_capacity_that_is_stored_as_null_counts_as_not_set() {
        let stored = serde_json::json!({"cpu": null, "memory": null});
        let read: Capacity = serde_json::from_value(stored).expect("it is read");
        assert_eq!(read, Capacity::default());
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
