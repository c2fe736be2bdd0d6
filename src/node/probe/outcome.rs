//! What one probe showed.

use crate::k8s::events::truncate_note;

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
    /// The answer is incomplete, or the prober has a defect; the kubelet's message. It does not count.
    Errored(String),
}

impl ProbeOutcome {
    /// The same outcome with a message of at most 1,024 bytes: messages contain what the app has sent.
    pub(super) fn truncated(self) -> Self {
        match self {
            Self::Success { warning } => Self::Success {
                warning: warning.map(|text| truncate_note(&text)),
            },
            Self::Failure(text) => Self::Failure(truncate_note(&text)),
            Self::Errored(text) => Self::Errored(truncate_note(&text)),
            Self::Unreachable(unreachable) => Self::Unreachable(unreachable.truncated()),
        }
    }
}

/// Why a connection to the pod was not answered; the message is the kubelet's for a failed probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeUnreachable {
    /// No answer within the probe's timeout.
    Timeout(String),
    /// The network reports that there is no way to the address.
    NoRoute(String),
    /// The node itself could not try, for example because it has no free file descriptor. It says nothing about the
    /// path or the app.
    Local(String),
}

impl ProbeUnreachable {
    /// The kubelet's message.
    pub fn message(&self) -> &str {
        match self {
            Self::Timeout(message) | Self::NoRoute(message) | Self::Local(message) => message,
        }
    }

    /// The same reason with another message.
    pub(super) fn map(self, message: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Timeout(why) => Self::Timeout(message(why)),
            Self::NoRoute(why) => Self::NoRoute(message(why)),
            Self::Local(why) => Self::Local(message(why)),
        }
    }

    fn truncated(self) -> Self {
        self.map(|text| truncate_note(&text))
    }
}

/// Whether the pod's IP address answered during a probe. Any answer proves the path, also a refused connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeContact {
    /// It answered.
    Pod,
    /// It did not.
    None,
}

/// The result of one probe, and whether the pod answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The result.
    pub outcome: ProbeOutcome,
    /// Whether the pod answered.
    pub contact: ProbeContact,
    /// If the pod did not answer: a port at which the pod's group, or another pod of the placement, did meanwhile.
    pub witness: Option<u16>,
}

impl ProbeAnswer {
    /// The pod answered, and this is the result.
    pub fn from_pod(outcome: ProbeOutcome) -> Self {
        Self {
            outcome,
            contact: ProbeContact::Pod,
            witness: None,
        }
    }

    /// The pod did not answer, and this is the result.
    pub fn without_contact(outcome: ProbeOutcome) -> Self {
        Self {
            outcome,
            contact: ProbeContact::None,
            witness: None,
        }
    }
}
