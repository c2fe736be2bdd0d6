//! Runs the probes of all pods of a node.
//!
//! In: pods, from their workers. Out: to each pod worker, a [`ProbeReport`] that changes and Events. One task waits
//! for the next probe that is due and starts it as a task of its own. A probe that is due while too many run waits,
//! in the order of the due times.
//!
//! Pods that do not answer must not delay the probes of those that do. At most
//! [`MAX_STARTING_PROBES`](super::MAX_STARTING_PROBES) probes of all nodes are in their first second at once; one that
//! takes longer leaves its place to the next, and at most [`MAX_RUNNING_PROBES`] of a node run,
//! [`MAX_PROBES_PER_POD`] of them of one pod. A probe ends with what it asks about:
//! when the pod is removed, gets another address, or its container ends.
//!
//! A leader that takes over finds all its pods running. Their first probes are spread over one period by a hash of
//! the pod's UID and the container's name, as a kubelet that has just started delays its probes by a random part of
//! the period. A container that starts later is probed at once.

mod state;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::ProbeRequest;
use super::outcome::{ProbeAnswer, ProbeOutcome, ProbeUnreachable};
use super::pod::{PodProbes, ProbedPod};
use super::prober::Prober;
use super::reachability::ProbePath;
use crate::telemetry;
use state::Key;
pub use state::MAX_PROBES_PER_POD;
pub(super) use state::ProbeManagerState;

/// How long a probe counts as starting.
const STARTING: Duration = Duration::from_secs(1);
/// How many probes of a node may run at once: a probe may have a timeout of hours.
pub const MAX_RUNNING_PROBES: usize = 4096;
/// How long a connection may take that only finds out whether the path works.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(5);

/// The probes of one node.
#[derive(Clone, Debug)]
pub struct ProbeManager {
    state: Arc<ProbeManagerState>,
}

/// A probe to send.
#[derive(Clone, Debug)]
pub(super) struct ProbeCall {
    key: Key,
    number: u64,
    /// The pod's address.
    pub address: IpAddr,
    /// A port of the pod that proves the path.
    pub beacon: Option<u16>,
    /// The address of another pod of the placement, which answered a probe before.
    pub witness: Option<SocketAddr>,
    /// The probe.
    pub request: ProbeRequest,
    /// How late the probe is.
    pub late: Duration,
}

impl ProbeManager {
    /// A manager without pods. `now` is the API server's time.
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(ProbeManagerState::new(now)),
        }
    }

    /// Adds a pod. Nothing is probed before the first [`PodProbes::update`].
    pub fn add(&self, pod: ProbedPod) -> PodProbes {
        let (id, report) = self.state.add(pod);
        PodProbes {
            id,
            manager: self.state.clone(),
            report,
        }
    }

    /// The state of the path from the node to its pods; `None` before a pod has answered or has failed to answer.
    pub fn path(&self) -> Option<ProbePath> {
        self.state.path()
    }

    /// Runs probes until `cancel`.
    pub async fn run(&self, prober: Prober, cancel: CancellationToken) {
        let start_permits = prober.start_permits();
        let send = move |call: ProbeCall| {
            let prober = prober.clone();
            async move { sent(&prober, &call).await }
        };
        cancel
            .run_until_cancelled(self.drive(send, &start_permits))
            .await;
    }

    /// Runs probes with `send`; each has one of the permits in its first second.
    pub(super) async fn drive<F>(
        &self,
        send: impl Fn(ProbeCall) -> F,
        start_permits: &Arc<Semaphore>,
    ) where
        F: Future<Output = ProbeAnswer> + Send + 'static,
    {
        let state = &self.state;
        // Dropping the set ends the probes.
        let mut running = JoinSet::new();
        // The permit that a due probe has waited for.
        let mut next_permit = None;
        loop {
            state.end_holds();
            while running.len() < MAX_RUNNING_PROBES {
                let permit = next_permit.take();
                let permit = permit.or_else(|| start_permits.clone().try_acquire_owned().ok());
                let Some(permit) = permit else { break };
                let Some(call) = state.start() else { break };
                telemetry::probes::record_lateness(call.late);
                let answer = answered(send(call.clone()));
                let sent = with_permit(answer, permit);
                let (key, number) = (call.key, call.number);
                let task = running.spawn(async move { (call, sent.await) });
                state.set_task(key, number, task);
            }
            let has_room = running.len() < MAX_RUNNING_PROBES;
            let due = async {
                sleep_until(state.next_probe().filter(|_| has_room)).await;
                start_permits.clone().acquire_owned().await
            };
            tokio::select! {
                Some(ended) = running.join_next() => {
                    // A probe that was aborted has no answer.
                    if let Ok((call, answer)) = ended {
                        state.record(&call, answer);
                    }
                }
                // The semaphore is never closed.
                permit = due => next_permit = permit.ok(),
                () = sleep_until(state.next_hold_end()) => {}
                () = state.changed.notified() => {}
            }
        }
    }
}

/// The answer of a probe, also if the prober panics.
async fn answered(sent: impl Future<Output = ProbeAnswer>) -> ProbeAnswer {
    let panicked = |_| {
        let why = "the probe panicked".to_owned();
        ProbeAnswer::without_contact(ProbeOutcome::Errored(why))
    };
    let answer = AssertUnwindSafe(sent).catch_unwind().await;
    answer.unwrap_or_else(panicked)
}

/// Waits until this time, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits for an answer, and returns the permit after the probe's first second.
async fn with_permit(
    answer: impl Future<Output = ProbeAnswer>,
    permit: OwnedSemaphorePermit,
) -> ProbeAnswer {
    tokio::pin!(answer);
    if let Ok(answer) = tokio::time::timeout(STARTING, &mut answer).await {
        return answer;
    }
    drop(permit);
    answer.await
}

/// Sends a probe. If the pod does not answer it, connects to the beacon and to another pod, to find out whether the
/// path is at fault.
async fn sent(prober: &Prober, call: &ProbeCall) -> ProbeAnswer {
    let spec = &call.request.spec;
    let mut answer = prober.probe(call.address, spec).await;
    let is_unreachable = matches!(
        answer.outcome,
        ProbeOutcome::Unreachable(ProbeUnreachable::Timeout(_) | ProbeUnreachable::NoRoute(_))
    );
    if is_unreachable {
        let beacon = call.beacon.map(|port| SocketAddr::new(call.address, port));
        let timeout = spec.timeout.min(CONTACT_TIMEOUT);
        let proof = async |address: Option<SocketAddr>| {
            let address = address?;
            let is_answered = prober.is_answered(address, timeout).await;
            is_answered.then(|| address.port())
        };
        let (of_pod, of_other) = tokio::join!(proof(beacon), proof(call.witness));
        answer.witness = of_other.or(of_pod);
    }
    answer
}

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;
