//! The probes of one container: the state machine.
//!
//! In: the container's states and the answers of its probes, each with its time. Out: the verdict, the next probe
//! and when it is due, and Events. Pure.
//!
//! ```text
//!             ┌──────────────── restarts (another container ID) ────────────────┐
//!             ▼                                                                 │
//! waiting ─▶ runs ─▶ startup probe ─succeeds─▶ started ─▶ readiness probe ⇄ ready, not ready
//!                        └─fails failureThreshold times─▶ failed ─succeeds─▶ started
//! ```
//!
//! At most one probe of a container is due: readiness is probed only once the container has started. Everything is
//! counted from zero in each life of the container; an answer that belongs to an earlier life is dropped.
//!
//! A life is a run of the container as far as the node knows it; [`life`] has when one begins and ends.

mod life;

use std::sync::Arc;

use jiff::Timestamp;

use super::event::ProbeEvent;
use super::outcome::{ProbeAnswer, ProbeContact, ProbeOutcome, ProbeUnreachable};
use super::probed::{ProbeSeed, ProbeSpecs, ProbedContainer};
use super::reachability::{PROBE_PATH_HOLD, ProbePath};
use super::verdict::{ProbeBlocked, ProbeStartup, ProbeVerdict};
use super::worker::{ProbeResult, ProbeWorker};
use crate::aci::probe::{ProbeKind, ProbeSpec};
use crate::k8s::time::later;

/// A probe to run now.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeRequest {
    /// Which probe.
    pub kind: ProbeKind,
    /// What to send.
    pub spec: Arc<ProbeSpec>,
    /// When it was sent.
    pub sent: Timestamp,
    /// The life of the container that it belongs to.
    life: u64,
}

/// An unanswered probe that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProbeGap {
    /// Since when the pod does not answer.
    since: Timestamp,
    /// Why that does not count.
    blocked: ProbeBlocked,
}

/// The state machine of one container.
#[derive(Clone, Debug)]
pub struct ContainerProbes {
    specs: ProbeSpecs,
    /// What an earlier leader wrote, until the first state of the container is known.
    seed: Option<ProbeSeed>,
    /// By which part of its period the first probe of a seeded container is delayed, from 0 to 1.
    jitter: f64,
    container: ProbedContainer,
    /// Counts the lives of the container.
    life: u64,
    /// Whether this life began under an earlier leader.
    is_seeded: bool,
    is_deleting: bool,
    startup: Option<ProbeWorker>,
    readiness: Option<ProbeWorker>,
    /// The last failure of the startup probe.
    startup_failure: String,
    /// When the probe was sent that is not answered yet.
    in_flight: Option<Timestamp>,
    /// When the pod last answered a probe of this life.
    answered: Option<Timestamp>,
    /// When the last probe of this life was sent that succeeded.
    succeeded: Option<Timestamp>,
    /// When the container was first seen not to run after it ran.
    stopped: Option<Timestamp>,
    gap: Option<ProbeGap>,
}

impl ContainerProbes {
    /// The probes of a container whose state is not known yet. `seed` is what the pod's status says if this leader
    /// has taken the pod over; then its first probe is delayed by the part `jitter` of its period, from 0 to 1.
    pub fn new(specs: ProbeSpecs, seed: Option<ProbeSeed>, jitter: f64) -> Self {
        Self {
            specs,
            seed,
            jitter,
            container: ProbedContainer::NotRunning,
            life: 0,
            is_seeded: false,
            is_deleting: false,
            startup: None,
            readiness: None,
            startup_failure: String::new(),
            in_flight: None,
            answered: None,
            succeeded: None,
            stopped: None,
            gap: None,
        }
    }

    /// When the next probe is due; `None` while one runs.
    pub fn probe_due(&self) -> Option<Timestamp> {
        match self.in_flight {
            Some(_) => None,
            None => self.active().and_then(|(_, worker)| worker.due()),
        }
    }

    /// When [`advance`](Self::advance) has something to do next: the verdict no longer holds.
    pub fn hold_ends(&self) -> Option<Timestamp> {
        let gap = self.gap.as_ref()?;
        let is_held = self.readiness.is_some() && self.is_ready();
        is_held.then(|| later(gap.since, PROBE_PATH_HOLD))
    }

    /// Whether a probe runs.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Gives up the probe that runs: the pod has another address now.
    pub fn abandon(&mut self) {
        if self.in_flight.take().is_some() {
            // Its answer no longer matters.
            self.life += 1;
        }
    }

    /// Ends a verdict that has been held for too long.
    pub fn advance(&mut self, now: Timestamp) {
        if self.hold_ends().is_some_and(|ends| ends <= now)
            && let Some(readiness) = &mut self.readiness
        {
            readiness.forget();
        }
    }

    /// The probe to run at `now`, if one is due. The caller gives its answer to [`record`](Self::record).
    pub fn start(&mut self, now: Timestamp) -> Option<ProbeRequest> {
        if self.in_flight.is_some() {
            return None;
        }
        let life = self.life;
        let (kind, worker) = self.active_mut()?;
        worker.due().filter(|due| *due <= now)?;
        worker.started(now);
        let spec = worker.spec.clone();
        self.in_flight = Some(now);
        Some(ProbeRequest {
            kind,
            spec,
            sent: now,
            life,
        })
    }

    /// A probe was answered at `now`. `path` says what it means if the pod did not answer. Returns the Events that
    /// the kubelet sends.
    pub fn record(
        &mut self,
        request: &ProbeRequest,
        answer: ProbeAnswer,
        path: ProbePath,
        now: Timestamp,
    ) -> Option<ProbeEvent> {
        if request.life != self.life || self.in_flight.take().is_none() {
            return None;
        }
        let kind = request.kind;
        if answer.contact == ProbeContact::Pod {
            (self.answered, self.gap) = (Some(now), None);
        }
        match answer.outcome.truncated() {
            ProbeOutcome::Success { warning } => {
                (self.gap, self.succeeded) = (None, Some(request.sent));
                self.count(kind, ProbeResult::Success, now);
                warning.map(|warning| ProbeEvent::warning(kind, &warning, now))
            }
            ProbeOutcome::Failure(message) => Some(self.fail(kind, &message, now)),
            ProbeOutcome::Errored(error) => Some(ProbeEvent::errored(kind, &error, now)),
            ProbeOutcome::Unreachable(unreachable) => {
                self.not_answered(request, &unreachable, path, now)
            }
        }
    }

    /// The pod did not answer: that is its failure only if the path is proven.
    fn not_answered(
        &mut self,
        request: &ProbeRequest,
        unreachable: &ProbeUnreachable,
        path: ProbePath,
        now: Timestamp,
    ) -> Option<ProbeEvent> {
        let port = request.spec.handler.port();
        let (since, blocked) = match (unreachable, path) {
            (ProbeUnreachable::Local(why), _) => (request.sent, ProbeBlocked::node(port, why)),
            (_, ProbePath::Proven) => {
                return Some(self.fail(request.kind, unreachable.message(), now));
            }
            (_, ProbePath::Unproven) => (request.sent, ProbeBlocked::unproven(port)),
            (_, ProbePath::Broken { since }) => {
                (since.min(request.sent), ProbeBlocked::broken(port))
            }
        };
        // The path is the placement's; this pod may have answered later than the others.
        let since = self.answered.map_or(since, |answered| since.max(answered));
        let since = self.gap.as_ref().map_or(since, |gap| gap.since.min(since));
        self.gap = Some(ProbeGap { since, blocked });
        self.advance(now);
        None
    }

    /// What the pod's status says of the container.
    pub fn verdict(&self) -> ProbeVerdict {
        ProbeVerdict {
            started: self.is_started(),
            ready: self.is_ready(),
            startup: self.startup_state(),
            blocked: self.gap.as_ref().map(|gap| gap.blocked.clone()),
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.container, ProbedContainer::Running { .. })
    }

    fn is_started(&self) -> bool {
        let is_success = |worker: &ProbeWorker| worker.result() == ProbeResult::Success;
        self.is_running() && self.startup.as_ref().is_none_or(is_success)
    }

    fn is_ready(&self) -> bool {
        let is_success = |worker: &ProbeWorker| worker.result() == ProbeResult::Success;
        self.is_started() && self.readiness.as_ref().is_none_or(is_success)
    }

    fn startup_state(&self) -> ProbeStartup {
        let failed = self.startup.as_ref().map(ProbeWorker::result);
        if self.is_started() {
            ProbeStartup::Succeeded
        } else if self.is_running() && failed == Some(ProbeResult::Failure) {
            ProbeStartup::Failed {
                message: self.startup_failure.clone(),
            }
        } else {
            ProbeStartup::Pending
        }
    }

    /// The probe that is run in the present state.
    fn active(&self) -> Option<(ProbeKind, &ProbeWorker)> {
        if !self.is_running() {
            None
        } else if self.is_started() {
            Some((ProbeKind::Readiness, self.readiness.as_ref()?))
        } else {
            Some((ProbeKind::Startup, self.startup.as_ref()?))
        }
    }

    fn active_mut(&mut self) -> Option<(ProbeKind, &mut ProbeWorker)> {
        let (kind, _) = self.active()?;
        let worker = match kind {
            ProbeKind::Startup => self.startup.as_mut(),
            ProbeKind::Readiness => self.readiness.as_mut(),
        };
        Some((kind, worker?))
    }

    fn fail(&mut self, kind: ProbeKind, message: &str, now: Timestamp) -> ProbeEvent {
        self.gap = None;
        if kind == ProbeKind::Startup {
            message.clone_into(&mut self.startup_failure);
        }
        self.count(kind, ProbeResult::Failure, now);
        ProbeEvent::failed(kind, message, now)
    }

    fn count(&mut self, kind: ProbeKind, result: ProbeResult, now: Timestamp) {
        let was_started = self.is_started();
        let worker = match kind {
            ProbeKind::Startup => self.startup.as_mut(),
            ProbeKind::Readiness => self.readiness.as_mut(),
        };
        if let Some(worker) = worker {
            worker.count(result);
        }
        if !was_started && self.is_started() {
            self.probe_readiness(now);
        }
    }

    /// The container has just started: its readiness is probed at once, or when the initial delay is over.
    fn probe_readiness(&mut self, now: Timestamp) {
        if let Some(readiness) = &mut self.readiness {
            let due = readiness.due().map_or(now, |due| due.max(now));
            readiness.schedule(due);
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
