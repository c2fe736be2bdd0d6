//! How a container group goes on without requests: allocating, pulling, initialising, starting, up, failed.
//!
//! In: the time, and whether the region has capacity. Out: the group's stage, and [`StageEffect`]s. The engine of
//! a real group calls the same transitions when its containers change.

use std::time::Duration;

use jiff::Timestamp;

use super::EmulatedGroup;
use crate::emulator::clock::later;
use crate::emulator::group::run::{DueChange, EmulatedRun, GroupRestartPolicy, add_event};
use crate::emulator::group::script::to_duration;
use crate::emulator::group::stage::{GroupStage, StageEffect};
use crate::emulator::group::validate;

/// How often a group without capacity is retried. The service retries until it is stopped or deleted.
const CAPACITY_RETRY: Duration = Duration::from_secs(60);
/// How long a simulated init container runs if its script does not say.
const INIT_RUN_DURATION: Duration = Duration::from_secs(1);

impl EmulatedGroup {
    /// When the group changes next without a request.
    pub fn next_at(&self) -> Option<Timestamp> {
        let stage_end = match &self.stage {
            GroupStage::Allocating { until }
            | GroupStage::Pulling { until }
            | GroupStage::Starting { until }
            | GroupStage::Stopping { until }
            | GroupStage::Deleting { until } => *until,
            GroupStage::WithoutCapacity { until } => Some(*until),
            GroupStage::Initialising { index } => self.init.get(*index).and_then(due_at),
            GroupStage::Running | GroupStage::Failed | GroupStage::Stopped | GroupStage::Gone => {
                None
            }
        };
        let run_change = match self.stage {
            GroupStage::Running => self.containers.iter().filter_map(due_at).min(),
            _ => None,
        };
        if self.is_real {
            stage_end.filter(|_| self.lacks_capacity)
        } else {
            stage_end.into_iter().chain(run_change).min()
        }
    }

    /// Advances the group to `now`. `capacity` tells whether the region has capacity.
    pub fn advance(&mut self, now: Timestamp, capacity: bool) -> Vec<StageEffect> {
        let mut effects = Vec::new();
        while let Some(at) = self.next_at().filter(|at| *at <= now) {
            self.step(at, capacity, &mut effects);
        }
        for run in &mut self.containers {
            run.write_log(now);
            run.probe_readiness(now);
        }
        effects
    }

    fn step(&mut self, at: Timestamp, capacity: bool, effects: &mut Vec<StageEffect>) {
        match self.stage.clone() {
            GroupStage::Allocating { .. } if self.lacks_capacity => {
                self.refuse_capacity(at, effects);
            }
            GroupStage::WithoutCapacity { .. } if !capacity => self.refuse_capacity(at, effects),
            GroupStage::WithoutCapacity { .. } => {
                self.lacks_capacity = false;
                self.stage = GroupStage::Allocating {
                    until: self.simulated_until(at, self.latency.pulling),
                };
            }
            GroupStage::Allocating { .. } => self.begin_pulling(at),
            GroupStage::Pulling { .. } => self.finish_pulling(at),
            GroupStage::Initialising { index } => self.init_due(at, index, effects),
            GroupStage::Starting { .. } => self.starting_due(at, effects),
            GroupStage::Running => self.runs_due(at),
            GroupStage::Stopping { .. } => self.finish_stopping(at),
            GroupStage::Deleting { .. } => self.finish_deleting(at, effects),
            GroupStage::Failed | GroupStage::Stopped | GroupStage::Gone => {}
        }
    }

    /// Pulling images begins.
    pub fn begin_pulling(&mut self, at: Timestamp) {
        for run in self.init.iter_mut().chain(&mut self.containers) {
            run.begin_pulling(at);
        }
        let pull = self.latency.pulled.saturating_sub(self.latency.pulling);
        self.stage = GroupStage::Pulling {
            until: self.simulated_until(at, pull),
        };
    }

    /// All images are pulled: start the init containers, or the containers if there are none.
    pub fn finish_pulling(&mut self, at: Timestamp) {
        let mut runs = self.init.iter_mut().chain(&mut self.containers);
        runs.by_ref()
            .filter(|run| !run.script.never_start)
            .for_each(|run| run.finish_pulling(at));
        if self.init.iter().any(|run| run.ended().is_none()) {
            self.stage = GroupStage::Initialising { index: 0 };
            if !self.is_real {
                self.start_init(at, 0);
            }
        } else {
            self.begin_starting(at);
        }
    }

    fn start_init(&mut self, at: Timestamp, index: usize) {
        let run = &mut self.init[index];
        run.start(at);
        let runs_for = run.script.exit_after.map_or(INIT_RUN_DURATION, to_duration);
        run.due = Some((later(at, runs_for), DueChange::Exit(run.script.exit_code)));
    }

    fn init_due(&mut self, at: Timestamp, index: usize, effects: &mut Vec<StageEffect>) {
        match self.init[index].due {
            Some((_, DueChange::Exit(code))) => {
                self.finish_init_container(at, index, code, effects);
            }
            Some((_, DueChange::Start)) => self.start_init(at, index),
            None => {}
        }
    }

    /// An init container ended: start the next one, restart it, or fail the group.
    pub fn finish_init_container(
        &mut self,
        at: Timestamp,
        index: usize,
        code: i32,
        effects: &mut Vec<StageEffect>,
    ) {
        let retry = match self.policy() {
            GroupRestartPolicy::Never => GroupRestartPolicy::Never,
            _ => GroupRestartPolicy::OnFailure,
        };
        self.init[index].exit(at, code, retry);
        if code == 0 && index + 1 < self.init.len() {
            self.stage = GroupStage::Initialising { index: index + 1 };
            if !self.is_real {
                self.start_init(at, index + 1);
            }
        } else if code == 0 {
            self.begin_starting(at);
        } else if self.init[index].due.is_none() {
            self.fail(effects);
        }
    }

    /// Starting the containers begins.
    pub fn begin_starting(&mut self, at: Timestamp) {
        let rest = self.latency.started.saturating_sub(self.latency.pulled);
        self.stage = GroupStage::Starting {
            until: self.simulated_until(at, rest),
        };
        self.ip = Some(self.next_ip);
    }

    fn starting_due(&mut self, at: Timestamp, effects: &mut Vec<StageEffect>) {
        let deadline = later(self.deployed, self.timeout());
        if self.containers.iter().all(|run| !run.script.never_start) {
            self.finish_starting(at, effects);
        } else if at >= deadline {
            let message = "The container group did not start within the provisioning timeout.";
            add_event(&mut self.events, at, "Failed", message, true);
            self.fail(effects);
        } else {
            let mut able = self
                .containers
                .iter_mut()
                .filter(|run| !run.script.never_start);
            able.by_ref().for_each(|run| run.start(at));
            self.stage = GroupStage::Starting {
                until: Some(deadline),
            };
        }
    }

    /// All containers run.
    pub fn finish_starting(&mut self, at: Timestamp, effects: &mut Vec<StageEffect>) {
        if !self.is_real {
            for run in &mut self.containers {
                run.start(at);
            }
        }
        self.stage = GroupStage::Running;
        self.ip = Some(self.next_ip);
        if self.is_operation_open {
            effects.push(StageEffect::Running { at });
        }
        self.end_operation(true, effects);
    }

    fn runs_due(&mut self, at: Timestamp) {
        let policy = self.policy();
        for run in &mut self.containers {
            match run.due.filter(|(due, _)| *due <= at) {
                Some((_, DueChange::Exit(code))) => run.exit(at, code, policy),
                Some((_, DueChange::Start)) => run.start(at),
                None => {}
            }
        }
    }

    fn refuse_capacity(&mut self, at: Timestamp, effects: &mut Vec<StageEffect>) {
        let message = validate::no_capacity(&self.body, &self.region);
        add_event(
            &mut self.events,
            at,
            "InsufficientCapacity.",
            &message,
            true,
        );
        self.stage = GroupStage::WithoutCapacity {
            until: later(at, CAPACITY_RETRY),
        };
        self.end_operation(false, effects);
    }

    /// The deployment has failed for good.
    pub fn fail(&mut self, effects: &mut Vec<StageEffect>) {
        self.stage = GroupStage::Failed;
        self.end_operation(false, effects);
    }

    fn end_operation(&mut self, succeeded: bool, effects: &mut Vec<StageEffect>) {
        if std::mem::take(&mut self.is_operation_open) {
            effects.push(StageEffect::OperationEnded { succeeded });
        }
    }
}

fn due_at(run: &EmulatedRun) -> Option<Timestamp> {
    run.due.map(|(at, _)| at)
}
