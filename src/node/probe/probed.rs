//! The inputs of the state machine of a container.
//!
//! In: a container of a pod, and its status. Out: its probes, its state, and what an earlier leader wrote. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

#[cfg(test)]
use crate::aci::probe::ProbeKind;
use crate::aci::probe::ProbeSpec;
use crate::aci::translate::node_probes;

/// The probes of one container.
#[derive(Clone, Debug)]
pub struct ProbeSpecs {
    /// The startup probe.
    pub startup: Option<Arc<ProbeSpec>>,
    /// The readiness probe.
    pub readiness: Option<Arc<ProbeSpec>>,
}

impl ProbeSpecs {
    /// The probes of a container; `None` if it has none that the node runs. `in_subnet` is whether the pod's group is
    /// in a subnet, and `is_probed_by_azure` whether ACI runs the readiness probe.
    pub fn of(container: &Container, in_subnet: bool, is_probed_by_azure: bool) -> Option<Self> {
        let (startup, readiness) = node_probes(container, in_subnet);
        let readiness = readiness.filter(|_| !is_probed_by_azure);
        Self::from_specs(startup, readiness)
    }

    /// These probes; `None` if there are none.
    pub(super) fn from_specs(
        startup: Option<ProbeSpec>,
        readiness: Option<ProbeSpec>,
    ) -> Option<Self> {
        let is_probed = startup.is_some() || readiness.is_some();
        is_probed.then(|| Self {
            startup: startup.map(Arc::new),
            readiness: readiness.map(Arc::new),
        })
    }

    /// All probes of a container, also those that the node would not run.
    #[cfg(test)]
    pub(super) fn decoded(container: &Container) -> Option<Self> {
        let spec = |kind| ProbeSpec::of(kind, container, "c").expect("a valid probe");
        Self::from_specs(spec(ProbeKind::Startup), spec(ProbeKind::Readiness))
    }
}

/// The state of a container that is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbedContainer {
    /// It runs.
    Running {
        /// Its container ID, which is another after each restart; `None` while Azure has not reported the run. A
        /// run without an ID counts as the same as one with any ID.
        id: Option<String>,
        /// When it was started, if that is known.
        started_at: Option<Timestamp>,
    },
    /// It waits, or has ended.
    NotRunning,
}

impl ProbedContainer {
    /// The state that a container's status shows.
    pub fn of(status: &ContainerStatus) -> Self {
        let state = status.state.as_ref();
        match state.and_then(|state| state.running.as_ref()) {
            Some(running) => Self::Running {
                id: status.container_id.clone(),
                started_at: running.started_at.as_ref().map(|at| at.0),
            },
            None => Self::NotRunning,
        }
    }
}

/// What the pod's status says of a running container when a leader takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSeed {
    /// The container ID, if the status has it.
    pub id: Option<String>,
    /// `started`.
    pub started: bool,
    /// `ready`.
    pub ready: bool,
}

impl ProbeSeed {
    /// What the pod's status says of a container; `None` if it does not run.
    ///
    /// If the operator was down, the node controller of Kubernetes has set the pod's `Ready` to False and has left
    /// the containers as they were. Such a pod has lost its traffic, so its containers are not ready before a probe
    /// says so.
    pub fn of(pod: &Pod, status: &ContainerStatus) -> Option<Self> {
        match ProbedContainer::of(status) {
            ProbedContainer::NotRunning => None,
            ProbedContainer::Running { id, .. } => Some(Self {
                id,
                started: status.started.unwrap_or(status.ready),
                ready: status.ready && !is_marked_not_ready(pod),
            }),
        }
    }
}

/// Whether `Ready` of the pod is False although its containers are ready and nothing else gates it.
fn is_marked_not_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let conditions: Vec<_> = conditions.flatten().collect();
    let is = |kind: &str, value: &str| {
        let mut of_kind = conditions
            .iter()
            .filter(|condition| condition.type_ == kind);
        of_kind.any(|condition| condition.status == value)
    };
    let gates = pod.spec.iter().flat_map(|spec| &spec.readiness_gates);
    let has_gates = gates.flatten().next().is_some();
    is("ContainersReady", "True") && is("Ready", "False") && !has_gates
}

/// Whether two container IDs may be those of one run: a run may be known without its ID.
pub(super) fn is_same_run(known: Option<&str>, id: Option<&str>) -> bool {
    known.is_none() || id.is_none() || known == id
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_kubernetes_has_marked_not_ready_is_not_ready_before_a_probe_says_so() {
        let container = json!({"name": "web", "image": "", "imageID": "", "restartCount": 0, "ready": true,
            "started": true, "containerID": "aci://1", "state": {"running": {}}});
        let status: ContainerStatus = serde_json::from_value(container).expect("a status");
        for (containers_ready, ready, gates, is_ready) in [
            ("True", "True", json!([]), true),
            ("True", "False", json!([]), false),
            ("True", "Unknown", json!([]), true),
            ("False", "False", json!([]), true),
            (
                "True",
                "False",
                json!([{"conditionType": "a.example/b"}]),
                true,
            ),
        ] {
            let pod = json!({"spec": {"containers": [], "readinessGates": gates}, "status": {"conditions": [
                {"type": "ContainersReady", "status": containers_ready}, {"type": "Ready", "status": ready},
            ]}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let seed = ProbeSeed::of(&pod, &status).expect("it runs");
            assert_eq!(
                (seed.started, seed.ready),
                (true, is_ready),
                "{containers_ready}, {ready}, {gates}"
            );
        }
        let waiting = ContainerStatus::default();
        assert_eq!(ProbeSeed::of(&Pod::default(), &waiting), None);
    }
}
