//! What one probe showed.

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The probe succeeded; the kubelet's warning, if there is one.
    Success {
        /// For the Event `ProbeWarning`.
        warning: Option<String>,
    },
    /// The probe failed; the kubelet's message.
    Failure(String),
    /// The connection to the pod was not answered. It depends on the path to the pod what this means.
    Unreachable(ProbeUnreachable),
    /// The probe could not be run, or its answer is incomplete; the kubelet's message. It does not count.
    Errored(String),
}

/// Why a connection to the pod was not answered; the message is the kubelet's for a failed probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeUnreachable {
    /// No answer within the probe's timeout.
    Timeout(String),
    /// The network reports that there is no way to the address.
    NoRoute(String),
}

impl ProbeUnreachable {
    /// The kubelet's message.
    pub fn message(&self) -> &str {
        match self {
            Self::Timeout(message) | Self::NoRoute(message) => message,
        }
    }
}

/// Whether the pod's IP address answered during a probe. Any answer proves the path, also a refused connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeContact {
    /// It answered.
    Pod,
    /// It did not, or the probe went to another host.
    None,
}

/// The result of one probe, and whether the pod answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The result.
    pub outcome: ProbeOutcome,
    /// Whether the pod answered.
    pub contact: ProbeContact,
}

impl ProbeAnswer {
    /// The pod answered, and this is the result.
    pub fn from_pod(outcome: ProbeOutcome) -> Self {
        Self {
            outcome,
            contact: ProbeContact::Pod,
        }
    }

    /// The pod did not answer, and this is the result.
    pub fn without_contact(outcome: ProbeOutcome) -> Self {
        Self {
            outcome,
            contact: ProbeContact::None,
        }
    }
}
