//! What is known about the readiness of a pod's containers, apart from whether they run.
//!
//! In: the results of the virtual node's own probes, and what the events of ACI's probes show. Out: a [`ReadinessReport`], an input of the pod's status.

use std::collections::BTreeMap;

/// What the probes say about one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerReadiness {
    /// Whether the startup probe has succeeded, if the container has one.
    pub has_started: bool,
    /// Whether the container has started and its readiness probe succeeds; without a readiness probe, whether it has
    /// started.
    pub is_ready: bool,
    /// Whether the node runs the readiness probe. If not, the container may have one that ACI runs.
    pub is_judged_by_node: bool,
    /// Why the last probe could not decide, if so.
    pub blocked: Option<BlockedProbe>,
}

/// Why a probe could not decide: the node does not reach the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedProbe {
    /// One word, in CamelCase.
    pub reason: &'static str,
    /// A sentence that names the port and the remedy.
    pub message: String,
}

/// The containers that have probes, by name.
pub type ReadinessReport = BTreeMap<String, ContainerReadiness>;
