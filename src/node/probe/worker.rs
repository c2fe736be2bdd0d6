//! One probe of one container: when it is due, and what its results mean.
//!
//! In: results, in order. Out: the decided result. Pure. It follows `worker.doProbe` of
//! `pkg/kubelet/prober/worker.go`: results that are equal in a row are counted, and a result is decided when its
//! threshold is reached; until then the last decided result stands. Once a startup probe has succeeded, it is on hold
//! until there is a new container. The kubelet also holds one that has failed for good, because it kills the container
//! then. Here ACI's liveness probe decides about that, and may succeed: so the probe goes on, and can still succeed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::aci::probe::{ProbeKind, ProbeSpec};
use crate::k8s::time::later;

/// A result of a probe that counts, or the decided result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeResult {
    /// Not decided yet.
    Unknown,
    /// Success.
    Success,
    /// Failure.
    Failure,
}

/// One probe of one container.
#[derive(Clone, Debug)]
pub(super) struct ProbeWorker {
    /// The probe.
    pub spec: Arc<ProbeSpec>,
    kind: ProbeKind,
    /// The decided result.
    result: ProbeResult,
    /// The last result that counted, and how many were equal to it in a row.
    last: ProbeResult,
    run: u32,
    is_on_hold: bool,
    /// Whether a probe was started in this life.
    is_begun: bool,
    /// When the next probe is due.
    due: Timestamp,
}

impl ProbeWorker {
    /// A worker for a new life of the container; its first probe is due at `due`.
    pub fn new(kind: ProbeKind, spec: Arc<ProbeSpec>, due: Timestamp) -> Self {
        let result = match kind {
            ProbeKind::Startup => ProbeResult::Unknown,
            ProbeKind::Readiness => ProbeResult::Failure,
        };
        Self {
            spec,
            kind,
            result,
            last: ProbeResult::Unknown,
            run: 0,
            is_on_hold: false,
            is_begun: false,
            due,
        }
    }

    /// The same worker with a result that an earlier leader decided.
    pub fn seeded(mut self, result: ProbeResult) -> Self {
        self.decide(result);
        self
    }

    /// The decided result.
    pub fn result(&self) -> ProbeResult {
        self.result
    }

    /// When the next probe is due; `None` while the worker is on hold.
    pub fn due(&self) -> Option<Timestamp> {
        (!self.is_on_hold).then_some(self.due)
    }

    /// Makes the next probe due at `at`.
    pub fn schedule(&mut self, at: Timestamp) {
        self.due = at;
    }

    /// The initial delay counts from `began`: if no probe was started yet, the first is due when it is over.
    pub fn count_delay_from(&mut self, began: Timestamp, now: Timestamp) {
        if !self.is_begun {
            self.due = later(began, self.spec.initial_delay).max(now);
        }
    }

    /// A probe starts at `now`. As with the kubelet's ticker, the next is due one period after this one was due. If
    /// the node is late by a whole period, the time in between is skipped.
    pub fn started(&mut self, now: Timestamp) {
        self.is_begun = true;
        let next = later(self.due, self.period());
        self.due = if next > now {
            next
        } else {
            later(now, self.period())
        };
    }

    /// Counts a result.
    pub fn count(&mut self, result: ProbeResult) {
        if self.is_on_hold {
            return;
        }
        self.run = if self.last == result { self.run + 1 } else { 1 };
        self.last = result;
        let threshold = match result {
            ProbeResult::Failure => self.spec.failure_threshold,
            ProbeResult::Success | ProbeResult::Unknown => self.spec.success_threshold,
        };
        if self.run >= threshold {
            self.decide(result);
        }
    }

    /// Sets the decided result, whatever was counted.
    pub fn decide(&mut self, result: ProbeResult) {
        self.result = result;
        if self.kind == ProbeKind::Startup && result != ProbeResult::Unknown {
            self.is_on_hold = result == ProbeResult::Success;
            self.run = 0;
        }
    }

    /// Makes the verdict a failure that any success threshold may end: nothing is known of the container.
    pub fn forget(&mut self) {
        self.result = ProbeResult::Failure;
        (self.last, self.run) = (ProbeResult::Unknown, 0);
    }

    fn period(&self) -> Duration {
        self.spec.period
    }
}
