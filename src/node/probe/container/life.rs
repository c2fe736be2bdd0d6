//! The lives of a container: when one begins and ends, and what its probes know at its beginning.
//!
//! A leader that takes over knows what the pod's status says ([`ProbeSeed`]). If the container is still the same,
//! this is its first verdict; it changes only by as many results in a row as its thresholds say, all seen by the new
//! leader. This is what a kubelet does after a restart.
//!
//! Azure restarts a container in place, and the node may read that minutes later. If a probe that was sent well after
//! the restart has succeeded, it is the new run that has answered, so the verdict is carried into the new life
//! ([`RESTART_MARGIN`]).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::ContainerProbes;
use crate::aci::probe::{ProbeKind, ProbeSpec};
use crate::k8s::time::later;
use crate::node::probe::probed::{ProbeSeed, ProbedContainer, is_same_run};
use crate::node::probe::worker::{ProbeResult, ProbeWorker};

/// How long after the start of a run a probe must have been sent so that its success counts for this run: more than
/// the clocks of Azure and of the API server differ.
const RESTART_MARGIN: Duration = Duration::from_secs(30);

impl ContainerProbes {
    /// The container is in this state at `now`.
    pub fn observe(&mut self, container: ProbedContainer, now: Timestamp) {
        let seed = self.seed.take();
        let ProbedContainer::Running { id, started_at } = &container else {
            if self.is_running() {
                self.stopped = Some(now);
            }
            self.end_life();
            self.container = container;
            return;
        };
        if let ProbedContainer::Running { id: known, .. } = &self.container
            && is_same_run(known.as_deref(), id.as_deref())
        {
            self.learn(id.as_ref(), *started_at, now);
            return;
        }
        let seed = seed.filter(|seed| is_same_run(seed.id.as_deref(), id.as_deref()));
        let carried = started_at.and_then(|at| self.carried(at));
        let jitter = if carried.is_some() { 0.0 } else { self.jitter };
        let began = self.began(*started_at, now);
        self.container = container;
        self.begin_life(carried.or(seed).as_ref(), jitter, began, now);
    }

    /// A later answer of Azure has more of a run that is known: a LIST has neither its ID nor its start.
    fn learn(&mut self, id: Option<&String>, started_at: Option<Timestamp>, now: Timestamp) {
        let ProbedContainer::Running {
            id: known_id,
            started_at: known_start,
        } = &mut self.container
        else {
            return;
        };
        if known_id.is_none() {
            *known_id = id.cloned();
        }
        if known_start.is_none() && started_at.is_some() && !self.is_seeded {
            *known_start = started_at;
            let began = self.began(started_at, now);
            for worker in [&mut self.startup, &mut self.readiness]
                .into_iter()
                .flatten()
            {
                worker.count_delay_from(began, now);
            }
        }
    }

    /// From when the initial delay of a run counts. Azure's clock may be ahead of this one, and its start time may be
    /// that of a run before the last.
    fn began(&self, started_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let began = started_at.map_or(now, |at| at.min(now));
        self.stopped.map_or(began, |stopped| stopped.max(began))
    }

    /// The verdict that the run since `started_at` has earned before Azure reported this run.
    fn carried(&self, started_at: Timestamp) -> Option<ProbeSeed> {
        let is_of_this_run = |sent: Timestamp| later(started_at, RESTART_MARGIN) < sent;
        self.succeeded.filter(|sent| is_of_this_run(*sent))?;
        Some(ProbeSeed {
            id: None,
            started: self.is_started(),
            ready: self.is_ready(),
        })
    }

    /// The pod is being deleted. As the kubelet's, its startup probe ends with success, and its readiness probe goes
    /// on.
    pub fn delete(&mut self, now: Timestamp) {
        if !std::mem::replace(&mut self.is_deleting, true) {
            self.skip_startup(now);
        }
    }

    fn end_life(&mut self) {
        self.life += 1;
        (self.startup, self.readiness) = (None, None);
        (self.in_flight, self.gap) = (None, None);
        (self.answered, self.succeeded) = (None, None);
        self.startup_failure.clear();
    }

    fn begin_life(
        &mut self,
        seed: Option<&ProbeSeed>,
        jitter: f64,
        began: Timestamp,
        now: Timestamp,
    ) {
        self.end_life();
        self.is_seeded = seed.is_some();
        let jitter = if self.is_seeded { jitter } else { 0.0 };
        let worker = |kind, spec: &Arc<ProbeSpec>| {
            let due = later(now, spec.period.mul_f64(jitter)).max(later(began, spec.initial_delay));
            ProbeWorker::new(kind, spec.clone(), due)
        };
        let startup = self.specs.startup.as_ref();
        self.startup = startup.map(|spec| worker(ProbeKind::Startup, spec));
        let readiness = self.specs.readiness.as_ref();
        self.readiness = readiness.map(|spec| worker(ProbeKind::Readiness, spec));
        if let Some(seed) = seed {
            if seed.started {
                self.startup = self.startup.take().map(|w| w.seeded(ProbeResult::Success));
            }
            if seed.ready && self.is_started() {
                self.readiness = self
                    .readiness
                    .take()
                    .map(|w| w.seeded(ProbeResult::Success));
            }
        }
        if self.is_deleting {
            self.skip_startup(now);
        }
    }

    fn skip_startup(&mut self, now: Timestamp) {
        if self.is_running() && !self.is_started() {
            if let Some(startup) = &mut self.startup {
                startup.decide(ProbeResult::Success);
            }
            // An answer of the startup probe no longer matters.
            self.life += 1;
            (self.in_flight, self.gap) = (None, None);
            self.probe_readiness(now);
        }
    }
}
