//! The Node object of a placement: labels, annotations, taints and status.
//!
//! In: [`NodeConfig`]. Out: whole objects. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::capacity::{NodeResourceStatus, NodeResources};
use super::last_placement::{self, LastPlacement};
use super::probe::ProbePath;
use crate::api::names::POOL_UID_ANNOTATION;

pub use crate::api::names::node_name as name;
pub use crate::api::names::{CLOSED_TAINT, LAST_RESORT_TAINT, POOL_LABEL, PROVIDER_TAINT};

/// Condition: whether Azure accepts pods.
pub const AZURE_CONDITION: &str = "AzureAvailable";
/// Condition: whether the probes of the node reach its pods. A node that runs no probes does not have it.
pub const PROBES_CONDITION: &str = "ProbesReach";
/// Label: the node's placement.
pub const PLACEMENT_LABEL: &str = "burstpool.io/placement";
/// The value of the label `type` of virtual nodes, which existing manifests select.
pub const NODE_TYPE: &str = "virtual-kubelet";

const PROBES_UNPROVEN: &str = "no pod has answered a probe yet: the network security group of the subnet must admit \
    the probed ports from the operator, and there must be a route between them";
const PROBES_BROKEN: &str = "pods have answered probes before, and none does any longer: check the network security \
    group of the subnet, and the route between the operator and the subnet";

/// Why a placement takes no pods at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// One word, in CamelCase.
    pub reason: String,
    /// A sentence, usually from Azure.
    pub message: String,
}

/// Everything that a Node object is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// The pool's name.
    pub pool: String,
    /// The pool's UID; empty if the pool is gone and its node, created by an earlier version, does not carry it.
    pub pool_uid: String,
    /// The placement, and where its container groups are.
    pub last_placement: LastPlacement,
    /// The address at which the API server reaches the kubelet API.
    pub address: String,
    /// The kubelet API's port.
    pub port: i32,
    /// What the node offers to the scheduler.
    pub offer: NodeResourceStatus,
    /// What could not be checked in the region, and why, although the node takes pods.
    pub region_notice: Option<String>,
    /// Why the region takes no pods, if it does not.
    pub region_unavailable: Option<Unavailable>,
    /// Why the placement takes no pods although the region does, if so: creates fail.
    pub creates_failing: Option<Unavailable>,
    /// Whether the node's probes reach its pods, if it runs any.
    pub probe_path: Option<ProbePath>,
    /// The Kubernetes minor version to report: that of the API server, at most the newest that the operator knows.
    pub kubernetes_minor: u32,
}

impl NodeConfig {
    /// The node's name.
    pub fn name(&self) -> String {
        name(&self.pool, &self.last_placement.placement.name)
    }

    /// Why the node takes no pods; a closed region comes first.
    pub fn unavailable(&self) -> Option<&Unavailable> {
        self.region_unavailable
            .as_ref()
            .or(self.creates_failing.as_ref())
    }
}

/// Labels that the node must have. Not `kubernetes.io/hostname`: the scheduler would count the node as an empty
/// domain of every topology spread (decision D14).
pub fn labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let fixed = [
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.azure.com/managed", "false"),
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/role", "agent"),
        // Kubernetes slows down or stops evictions in a zone with many failing nodes. When the operator is down,
        // its nodes must not count as failing.
        ("node.kubernetes.io/exclude-disruption", "true"),
        (
            "node.kubernetes.io/exclude-from-external-load-balancers",
            "true",
        ),
        (
            "node.kubernetes.io/instance-type",
            "azure-container-instances",
        ),
        ("type", NODE_TYPE),
        (POOL_LABEL, &config.pool),
        (PLACEMENT_LABEL, &config.last_placement.placement.name),
    ];
    let fixed = fixed
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut labels = config.last_placement.placement.labels.clone();
    labels.extend(fixed);
    labels
}

/// Annotations that the node must have: where metrics-server reads the node's metrics (all nodes of an operator
/// share one address), the last placement, which a later drain needs, and the pool's UID.
pub fn annotations(config: &NodeConfig) -> BTreeMap<String, String> {
    let path = format!("/metrics/resource/{}", config.name());
    let mut annotations = BTreeMap::from([
        ("metrics.k8s.io/resource-metrics-path".to_owned(), path),
        (
            last_placement::LAST_PLACEMENT_ANNOTATION.to_owned(),
            config.last_placement.to_json(),
        ),
    ]);
    if !config.pool_uid.is_empty() {
        annotations.insert(POOL_UID_ANNOTATION.to_owned(), config.pool_uid.clone());
    }
    annotations
}

/// Taints that the node must have.
pub fn taints(config: &NodeConfig) -> Vec<Taint> {
    let taint = |key: &str, value: Option<&str>, effect: &str| Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.to_owned(),
        time_added: None,
    };
    let mut taints = vec![
        taint(PROVIDER_TAINT, Some(&config.pool), "NoSchedule"),
        taint(LAST_RESORT_TAINT, None, "PreferNoSchedule"),
    ];
    if config.unavailable().is_some() {
        taints.push(taint(CLOSED_TAINT, None, "NoSchedule"));
    }
    taints
}

/// The whole node, as the operator creates it.
pub fn node(config: &NodeConfig, now: Timestamp) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(config.name()),
            labels: Some(labels(config)),
            annotations: Some(annotations(config)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(taints(config)),
            ..NodeSpec::default()
        }),
        status: Some(status(config, None, now)),
    }
}

/// The node's status. A condition whose status does not change keeps its transition time from `old`.
pub fn status(config: &NodeConfig, old: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let address = |kind: &str| NodeAddress {
        address: config.address.clone(),
        type_: kind.to_owned(),
    };
    NodeStatus {
        addresses: Some(vec![address("InternalIP")]),
        allocatable: Some(quantities(&config.offer.allocatable)),
        capacity: Some(quantities(&config.offer.capacity)),
        conditions: Some(conditions(config, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: config.port }),
        }),
        declared_features: declared_features(config),
        node_info: Some(node_info(config)),
        ..NodeStatus::default()
    }
}

/// The declared feature that lets the API server pass websockets through to the kubelet API, from 1.36 on. Older
/// servers do not know the field and translate to SPDY.
fn declared_features(config: &NodeConfig) -> Option<Vec<String>> {
    let knows = config.kubernetes_minor >= 36;
    knows.then(|| vec!["ExtendWebSocketsToKubelet".to_owned()])
}

fn quantities(amount: &NodeResources) -> BTreeMap<String, Quantity> {
    [
        ("cpu", format!("{}m", amount.cpu_milli)),
        ("memory", amount.memory_bytes.to_string()),
        ("pods", amount.pods.to_string()),
        ("ephemeral-storage", amount.storage_bytes().to_string()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect()
}

fn node_info(config: &NodeConfig) -> NodeSystemInfo {
    let version = format!(
        "v1.{}.0-burstpool-{}",
        config.kubernetes_minor,
        env!("CARGO_PKG_VERSION")
    );
    NodeSystemInfo {
        architecture: "amd64".to_owned(),
        container_runtime_version: "aci://2025-09-01".to_owned(),
        kube_proxy_version: version.clone(),
        kubelet_version: version,
        operating_system: "linux".to_owned(),
        os_image: format!(
            "Azure Container Instances in {}",
            config.last_placement.placement.region
        ),
        ..NodeSystemInfo::default()
    }
}

/// Ready is always True: if Azure cannot be reached, the node is closed, but `NotReady` would make Kubernetes evict
/// the pods that run.
fn conditions(config: &NodeConfig, old: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let old = old
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let condition = |kind: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind && c.status == status);
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: before
                .and_then(|c| c.last_transition_time.clone())
                .or(Some(Time(now))),
        }
    };
    let azure = match config.unavailable() {
        None => condition(AZURE_CONDITION, true, "Available", "Azure takes pods"),
        Some(closed) => condition(AZURE_CONDITION, false, &closed.reason, &closed.message),
    };
    let not_applicable = "a virtual node has none of its own";
    let probes = config.probe_path.map(|path| match path {
        ProbePath::Proven => condition(PROBES_CONDITION, true, "PodsAnswer", "pods answer probes"),
        ProbePath::Unproven => condition(PROBES_CONDITION, false, "PathUnproven", PROBES_UNPROVEN),
        ProbePath::Broken { .. } => condition(PROBES_CONDITION, false, "PathBroken", PROBES_BROKEN),
    });
    let mut conditions = vec![
        condition("Ready", true, "BurstpoolRunning", "burstpool is running"),
        condition("MemoryPressure", false, "VirtualNode", not_applicable),
        condition("DiskPressure", false, "VirtualNode", not_applicable),
        condition("PIDPressure", false, "VirtualNode", not_applicable),
        condition("NetworkUnavailable", false, "VirtualNode", not_applicable),
        azure,
    ];
    conditions.extend(probes);
    conditions
}
