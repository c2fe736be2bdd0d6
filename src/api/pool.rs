//! `BurstPool`: which part of Azure a cluster may burst to.

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
        .message("metadata.name must be 1 to 30 lowercase letters, numbers and hyphens and begin with a letter: it becomes part of node names"),
    validation = Rule::new("!has(self.spec.spill) || !has(self.spec.spill.maxReplicas) || type(self.spec.spill.maxReplicas) == int || !has(self.spec.workloads) || size(self.spec.workloads) == 0 || self.spec.workloads.exists(one, has(one.target))")
        .message("spec.spill.maxReplicas must be a number where no workload has a target: nothing says how many pods are desired, of which a percentage could be taken")
)]
#[serde(rename_all = "camelCase")]
pub struct BurstPoolSpec {
    /// Where in Azure container groups are created.
    pub azure: Azure,
    /// Where pods may be placed: one virtual node each, named burst-POOL-PLACEMENT.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub placements: Vec<Placement>,
    /// Which pods may spill. Without any, the nodes serve only pods that users place there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub workloads: Vec<Workload>,
    /// When pods spill, and how many.
    #[serde(default)]
    pub spill: Spill,
    /// What starts a burst before the nodes are full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub triggers: Vec<Trigger>,
    /// What happens when the peak is over.
    #[serde(default)]
    pub scale_in: ScaleIn,
    /// Active, or DryRun: everything is decided and shown, and nothing is written to pods that wait. Pods
    /// that are on the pool's nodes already run as ever.
    #[serde(default)]
    pub mode: Mode,
}

/// The subscription and resource group that container groups belong to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Azure {
    /// The subscription that pays; the operator's own (--subscription-id) if not given. It cannot be changed while
    /// the pool has pods on ACI: container groups cannot move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')")
        .message("must be a subscription's id, such as 00000000-0000-0000-0000-000000000000"))]
    pub subscription_id: Option<String>,
    /// The resource group, which must exist; the operator's own (--resource-group) if not given. It cannot be changed
    /// while the pool has pods on ACI: container groups cannot move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 90))]
    pub resource_group: Option<String>,
    /// Tags that every container group gets, beside burstpool's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 30))]
    pub tags: BTreeMap<String, String>,
}

/// A part of a region that pods can run in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.priority) && self.priority == 'Spot') || !has(self.subnetId)")
        .message("priority Spot cannot be combined with subnetId: ACI has no spot containers in virtual networks")
)]
#[x_kube(
    validation = Rule::new("!(has(self.priority) && self.priority == 'Spot') || !has(self.sku) || self.sku == 'Standard'")
        .message("priority Spot needs sku Standard: ACI has no confidential spot containers")
)]
#[x_kube(
    validation = Rule::new("!(has(self.priority) && self.priority == 'Spot') || !has(self.zones) || size(self.zones) == 0")
        .message("priority Spot cannot be combined with zones: ACI chooses where spot containers run; remove zones")
)]
#[x_kube(
    validation = Rule::new("!has(self.network) || !has(self.network.dns) || has(self.subnetId)")
        .message("network.dns needs subnetId: ACI takes DNS settings only in a virtual network; add subnetId, or remove network.dns")
)]
#[x_kube(
    validation = Rule::new("!has(self.network) || !has(self.network.kubeProxy) || !self.network.kubeProxy || has(self.subnetId)")
        .message("network.kubeProxy needs subnetId: without a virtual network no pod of the cluster can be reached; add subnetId, or set kubeProxy to false")
)]
#[x_kube(
    validation = Rule::new("has(self.subnetId) == has(oldSelf.subnetId)")
        .message("subnetId cannot be added or removed; add another placement instead")
)]
pub struct Placement {
    /// The placement's name, unique in the pool.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$')")
        .message("must be 1 to 20 lowercase letters, numbers and hyphens, and begin and end with a letter or number"))]
    pub name: String,
    /// The Azure region, such as westeurope. It cannot be changed: container groups cannot move.
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed; add another placement instead"))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]{1,40}$')")
        .message("must be a region's name as Azure writes it in resource ids, such as westeurope"))]
    pub region: String,
    /// The resource id of the subnet that pods are in, delegated to ACI; without it a pod that has
    /// containerPorts gets a public address where they are open to the internet. It cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed; add another placement instead"))]
    #[x_kube(validation = Rule::new("self.matches('^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft[.]Network/virtualNetworks/[^/]+/subnets/[^/]+$')")
        .message("must be a subnet's resource id: /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Network/virtualNetworks/NAME/subnets/NAME"))]
    pub subnet_id: Option<String>,
    /// The availability zone of the region that pods are in; any if not given. Spot takes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1), inner(length(max = 1)))]
    #[x_kube(validation = Rule::new("self.all(zone, zone.matches('^[1-9]$'))")
        .message("zones must have the number of a zone, such as \"1\""))]
    pub zones: Vec<String>,
    /// Regular, or Spot: cheaper, and evicted when Azure needs the room.
    #[serde(default)]
    pub priority: Priority,
    /// Standard, or Confidential: in a trusted execution environment.
    #[serde(default)]
    pub sku: Sku,
    /// How much of ACI this placement may use at most; what the region's quota leaves if that is less.
    #[serde(default)]
    pub capacity: Capacity,
    /// What of the cluster's network pods can use.
    #[serde(default)]
    pub network: Network,
    /// More labels of the virtual node, such as topology.kubernetes.io/region. With a topology label,
    /// the scheduler counts this node as a domain of that topology.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20, "additionalProperties" = label_value()))]
    #[x_kube(validation = Rule::new("!('kubernetes.io/hostname' in self)")
        .message("kubernetes.io/hostname must not be set: the scheduler would count the virtual node as an empty machine"))]
    pub labels: BTreeMap<String, String>,
}

/// How containers may be evicted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Not evicted.
    #[default]
    Regular,
    /// Evicted when Azure needs the room.
    Spot,
}

/// What containers run on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sku {
    /// Ordinary machines.
    #[default]
    Standard,
    /// Trusted execution environments.
    Confidential,
}

/// The most that a placement may use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// CPU of all pods together: a quantity of 0 or more, in cores.
    #[serde(deserialize_with = "cpu_or_default")]
    #[schemars(schema_with = "amount")]
    pub cpu: Quantity,
    /// Memory of all pods together: a quantity of 0 or more, in bytes.
    #[serde(deserialize_with = "memory_or_default")]
    #[schemars(schema_with = "amount")]
    pub memory: Quantity,
    /// How many pods.
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

/// A null is a field that is not set: definitions of earlier versions let it be stored.
fn cpu_or_default<'de, D: Deserializer<'de>>(stored: D) -> Result<Quantity, D::Error> {
    let stored: Option<Quantity> = Option::deserialize(stored)?;
    Ok(stored.unwrap_or_else(|| Capacity::default().cpu))
}

fn memory_or_default<'de, D: Deserializer<'de>>(stored: D) -> Result<Quantity, D::Error> {
    let stored: Option<Quantity> = Option::deserialize(stored)?;
    Ok(stored.unwrap_or_else(|| Capacity::default().memory))
}

/// A quantity that is not negative. Only its size can still be wrong, see `mistake`. Checked by plain
/// validation, as a CEL rule over a number or a text is too expensive. Explicitly not nullable: kube makes
/// every optional number-or-text nullable, and then the API server keeps a null where it would set the default.
fn amount(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": false,
        "minimum": 0,
        "maxLength": 32,
        "pattern": "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?[0-9]{1,2})?$",
    })
}

/// The value of a label, as the API server takes it on a node. What a key must look like, no schema can say.
fn label_value() -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    })
}

/// What of the cluster's network pods on ACI can use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Name servers that resolve the cluster's names, and the cluster's domain: pods with dnsPolicy
    /// ClusterFirst use them. Without, they use Azure's resolver, which does not know the cluster's
    /// names; the placement's message in the status says so. Needs subnetId.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Whether pods reach Services by their cluster IPs, through a kube-proxy that ACI runs beside each
    /// pod. It gets a token of a service account (--kube-proxy-service-account) that may read Services
    /// and their endpoints, and talks to the API server at --api-server-url. Needs subnetId.
    pub kube_proxy: bool,
    /// Whether ACI's realtime-metrics extension runs beside each pod that has a subnetId: it tells CPU and
    /// memory within seconds, on TCP port 18899 of the pod's address. Azure Monitor, minutes late, is
    /// asked where it does not answer.
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
    /// IPv4 addresses of name servers that the subnet can reach: 3 at most.
    #[schemars(length(min = 1, max = 3), inner(length(max = 15)))]
    #[x_kube(validation = Rule::new("self.all(server, server.matches('^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$'))")
        .message("network.dns.nameServers must be IPv4 addresses that the subnet can reach, such as 10.0.0.10"))]
    pub name_servers: Vec<String>,
    /// The cluster's domain, a DNS name.
    #[serde(default = "cluster_local")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')")
        .message("network.dns.clusterDomain must be a DNS name in lower case and without a dot at its end, such as cluster.local"))]
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
        // A new pool has a status, too: of no generation yet. The types cannot say it: the field is derived.
        let status = schema
            .properties
            .as_mut()
            .and_then(|all| all.get_mut("status"));
        status.expect("a pool has a status").default = Some(JSON(serde_json::json!({})));
    }
    serde_yaml::to_string(&crd)
}

#[cfg(test)]
mod tests {
    use super::Capacity;

    #[test]
    fn the_crd_file_is_what_the_types_say() {
        let printed = super::crd_yaml().expect("the definition serialises");
        let kept = include_str!("../../crds/burstpools.yaml");
        assert_eq!(
            kept, printed,
            "crds/burstpools.yaml is old: run `make crds`"
        );
    }

    /// The API server kept a null where an earlier definition made the field nullable.
    #[test]
    fn a_capacity_that_is_stored_as_null_is_one_that_is_not_set() {
        let stored = serde_json::json!({"cpu": null, "memory": null});
        let read: Capacity = serde_json::from_value(stored).expect("it is read");
        assert_eq!(read, Capacity::default());
    }

    /// The API server warns of a format that it does not know, but only whoever changes the definition.
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

    /// Whoever reads a pool into these types and writes it back writes a duration of 0 as kube does.
    #[test]
    fn where_no_time_is_allowed_the_rules_take_it_as_the_types_write_it() {
        let written = serde_json::to_value(kube::core::Duration::from(std::time::Duration::ZERO));
        assert_eq!(written.expect("it is written"), "0ns");
        let printed = super::crd_yaml().expect("the definition serialises");
        let rules = printed
            .lines()
            .filter(|line| line.contains("duration(self) <="));
        let with_zero = rules.filter(|line| !line.contains("duration(self) >="));
        let all: Vec<&str> = with_zero.collect();
        assert_eq!(all.len(), 5, "{all:#?}");
        for rule in all {
            assert!(rule.contains("(ns|ms|s|m|h)"), "{rule}");
        }
    }
}
