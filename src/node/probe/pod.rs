//! The pod worker's handle on the probes of its pod.
//!
//! In: the pod's probes, and each change of its containers, its IP address and its deletion. Out: the verdicts and
//! Events. Dropping the handle ends the probes.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::event::ProbeEvent;
use super::manager::ProbeManagerState;
use super::probed::{ProbeSeed, ProbeSpecs, ProbedContainer};
use super::verdict::ProbeReport;

/// The probes of a pod, when its worker starts.
#[derive(Clone, Debug, Default)]
pub struct ProbedPod {
    /// The pod's UID: it spreads the probes of a leader that has taken over.
    pub uid: String,
    /// The containers that have probes: the name, the probes, and what the pod's status says of the container if it
    /// runs.
    pub containers: Vec<(String, ProbeSpecs, Option<ProbeSeed>)>,
    /// A port at which the group answers whatever the app does: that of Azure's realtime metrics. It proves the path
    /// to a pod whose app does not answer.
    pub beacon: Option<u16>,
}

/// The state of a pod that is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbedPodState {
    /// The pod's IP address. While it is `None`, no probes are sent and the verdicts stay.
    pub address: Option<IpAddr>,
    /// Whether the pod has a deletion timestamp.
    pub is_deleting: bool,
    /// The containers by name; those without probes are ignored.
    pub containers: Vec<(String, ProbedContainer)>,
}

/// The probes of one pod.
#[derive(Debug)]
pub struct PodProbes {
    pub(super) id: u64,
    pub(super) manager: Arc<ProbeManagerState>,
    pub(super) report: watch::Receiver<ProbeReport>,
}

impl PodProbes {
    /// The pod is in this state now. The report has changed accordingly when this returns. Repeating a state changes
    /// nothing.
    pub fn update(&self, state: &ProbedPodState) {
        self.manager.update(self.id, state);
    }

    /// The current verdicts; marks them as seen.
    pub fn report(&mut self) -> ProbeReport {
        self.report.borrow_and_update().clone()
    }

    /// Waits until there is a verdict that was not seen yet, or an Event to take.
    pub async fn changed(&mut self) {
        if self.report.changed().await.is_err() {
            // The manager lives as long as this handle; without a change there is nothing to do.
            std::future::pending::<()>().await;
        }
    }

    /// Takes the Events to write, oldest first, each with the name of its container. An Event that happened again
    /// has a higher count, and replaces the one with the same reason, message and time `first`.
    pub fn take_events(&self) -> Vec<(String, ProbeEvent)> {
        self.manager.take_events(self.id)
    }
}

impl Drop for PodProbes {
    fn drop(&mut self) {
        self.manager.remove(self.id);
    }
}
