//! The inputs of the state machine of a container.
//!
//! In: a container of a pod, and its status. Out: its probes, its state, and what an earlier leader wrote. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus};

use super::spec::{ProbeKind, ProbeSpec, ProbeSpecError};

/// The probes of one container.
#[derive(Clone, Debug)]
pub struct ProbeSpecs {
    /// The startup probe.
    pub startup: Option<Arc<ProbeSpec>>,
    /// The readiness probe.
    pub readiness: Option<Arc<ProbeSpec>>,
}

impl ProbeSpecs {
    /// The probes of a container; `None` if it has none that the node runs. `at` is the container's field path.
    ///
    /// # Errors
    ///
    /// If the node cannot run one of them.
    pub fn of(container: &Container, at: &str) -> Result<Option<Self>, ProbeSpecError> {
        let spec = |kind| ProbeSpec::of(kind, container, at);
        let startup = spec(ProbeKind::Startup)?.map(Arc::new);
        let readiness = spec(ProbeKind::Readiness)?.map(Arc::new);
        let is_probed = startup.is_some() || readiness.is_some();
        Ok(is_probed.then_some(Self { startup, readiness }))
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
    /// What a container's status says; `None` if it does not run.
    pub fn of(status: &ContainerStatus) -> Option<Self> {
        match ProbedContainer::of(status) {
            ProbedContainer::NotRunning => None,
            ProbedContainer::Running { id, .. } => Some(Self {
                id,
                started: status.started.unwrap_or(status.ready),
                ready: status.ready,
            }),
        }
    }
}

/// Whether two container IDs may be those of one run: a run may be known without its ID.
pub(super) fn is_same_run(known: Option<&str>, id: Option<&str>) -> bool {
    known.is_none() || id.is_none() || known == id
}
