//! What the node reports of a container's probes.

use std::collections::BTreeMap;

/// What the pod's status says of a container. Both are false while the container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeVerdict {
    /// `containerStatuses[].started`: the startup probe has succeeded, or there is none.
    pub started: bool,
    /// `containerStatuses[].ready`: it has started, and its readiness probe says so or there is none.
    pub ready: bool,
    /// The state of the startup probe.
    pub startup: ProbeStartup,
    /// Why the last probe could not decide, if the pod did not answer; the verdict above is an older one.
    pub blocked: Option<ProbeBlocked>,
}

/// The state of a container's startup probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeStartup {
    /// The container does not run, or the probe is not decided yet.
    Pending,
    /// It has succeeded, or there is none.
    Succeeded,
    /// It has failed as often as its failure threshold says. A kubelet would kill the container now and restart it
    /// by its restart policy. The node cannot restart one container of a group: ACI's liveness probe, which begins at
    /// this time, does. If that succeeds, the container runs on: the probe goes on too, and may still succeed.
    Failed {
        /// The last failure in the kubelet's words.
        message: String,
    },
}

/// The node does not reach the pod, and the app may not be the reason. The messages name the port and the remedy, and
/// are the same as long as the reason is, because the pod's condition shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeBlocked {
    /// No pod of the placement has answered at this port yet: the path may never have worked.
    Unproven {
        /// For the pod's condition.
        message: String,
    },
    /// Pods of the placement have answered before, and do not any longer.
    Broken {
        /// For the pod's condition.
        message: String,
    },
    /// The node itself cannot open connections.
    Node {
        /// For the pod's condition.
        message: String,
    },
}

impl ProbeBlocked {
    pub(super) fn unproven(port: u16) -> Self {
        let message = format!(
            "the node gets no answer from port {port} of the pod, and has not yet had one from this port of any pod \
             of the placement: add a rule to the network security group of the subnet that admits TCP port {port} \
             from the operator, and check the route between them"
        );
        Self::Unproven { message }
    }

    pub(super) fn broken(port: u16) -> Self {
        let message = format!(
            "the node no longer gets an answer from port {port} of the pod, nor from any other pod of the \
             placement: check that the network security group of the subnet still admits TCP port {port} from the \
             operator, and the route between them"
        );
        Self::Broken { message }
    }

    pub(super) fn node(port: u16, why: &str) -> Self {
        let message = format!("the node cannot open a connection to port {port} of the pod: {why}");
        Self::Node { message }
    }

    /// The message for the pod's condition.
    pub fn message(&self) -> &str {
        match self {
            Self::Unproven { message } | Self::Broken { message } | Self::Node { message } => {
                message
            }
        }
    }
}

/// The verdicts of a pod's containers by container name.
pub type ProbeReport = BTreeMap<String, ProbeVerdict>;
