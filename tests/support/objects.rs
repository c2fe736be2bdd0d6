//! Nodes, pods and Deployments for tests, and questions about pods.
//!
//! In: names and sizes. Out: whole objects and plain answers. Pure.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Taint, Toleration},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A node whose kubelet kwok plays: the node and its pods are Ready within a second.
pub fn kwok_node(name: &str, cpu: &str, memory: &str, taints: &[Taint]) -> Node {
    let room = json!({
        "cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "100Gi",
    });
    from(json!({
        "metadata": {
            "name": name,
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": taints},
        "status": {"capacity": room, "allocatable": room},
    }))
}

/// A taint that keeps all pods off that do not tolerate it.
pub fn no_schedule(key: &str, value: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    }
}

/// A pod of one container with these requests.
pub fn pod(name: &str, cpu: &str, memory: &str, tolerations: &[Toleration]) -> Pod {
    from(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": pod_spec(cpu, memory, tolerations),
    }))
}

/// A Deployment of such pods, labelled `app: NAME`.
pub fn deployment(
    name: &str,
    replicas: i32,
    cpu: &str,
    memory: &str,
    tolerations: &[Toleration],
) -> Deployment {
    from(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": pod_spec(cpu, memory, tolerations),
            },
        },
    }))
}

fn pod_spec(cpu: &str, memory: &str, tolerations: &[Toleration]) -> Value {
    json!({
        "tolerations": tolerations,
        "containers": [{
            "name": "main",
            "image": "registry.example/main:1", // kwok pulls no images
            "resources": {"requests": {"cpu": cpu, "memory": memory}},
        }],
    })
}

/// The node to which the pod is bound.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Whether the scheduler has refused the pod for lack of resources: `PodScheduled=False,
/// Unschedulable`.
pub fn is_refused(pod: &Pod) -> bool {
    node_of(pod).is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|c| {
                c.type_ == "PodScheduled"
                    && c.status == "False"
                    && c.reason.as_deref() == Some("Unschedulable")
            })
}

/// Whether the node is Ready and pods can be bound to it: the scheduler skips a node until the node
/// controller has removed its own taints.
pub fn is_ready(node: &Node) -> bool {
    let held = |taint: &Taint| taint.key.starts_with("node.kubernetes.io/");
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    !taints.into_iter().any(held)
        && conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn from<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("written above as the type has it")
}

/// How many pods run at home, run on ACI, and have no node.
pub fn spread(pods: &[Pod]) -> (usize, usize, usize) {
    let runs = |pod: &&Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        phase == Some("Running")
    };
    let on =
        |pod: &&Pod, aci: bool| node_of(pod).is_some_and(|node| node.starts_with("burst-") == aci);
    let placed = |aci| pods.iter().filter(runs).filter(|pod| on(pod, aci)).count();
    let waiting = pods.iter().filter(|pod| node_of(pod).is_none());
    (placed(false), placed(true), waiting.count())
}

/// Whether a pod is ready.
pub fn is_pod_ready(pod: &Pod) -> bool {
    condition(pod, "Ready") == Some("True")
}

/// The status of a pod's condition.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a str> {
    let all = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    all.into_iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.status.as_str())
}
