//! A container group's life cycle: allocating, pulling, initialising, up, stopped, gone.
//!
//! In: requests (`stop`, `restart`, `start`, `delete`), the time, and whether the region has capacity.
//! Out: the group's state, and [`StageEffect`]s for the store. A simulated group is a value that knows the
//! time of its next change (`next_at`); a reader first advances it to the present (`advance`). It needs
//! no task and no timer, so thousands of groups cost nothing and a paused clock pauses all groups. A
//! real group has no scheduled changes; the engine calls the same transitions when its containers
//! change.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::id::GroupId;
use super::model::{Container, GroupBody};
use super::run::{ContainerEvent, DueChange, EmulatedRun, GroupRestartPolicy, add_event};
use super::script::{ContainerScript, to_duration};
use super::stage::{GroupStage, StageEffect, StageLatency};
use crate::emulator::clock::later;

/// How long after its PUT a group fails for lack of capacity (from a user's report of 2025-04).
const CAPACITY_FAILS_AFTER: Duration = Duration::from_secs(25);
/// How often a group without capacity is retried. The service retries until it is stopped or deleted.
const CAPACITY_RETRY: Duration = Duration::from_secs(60);
/// How long a simulated stop takes, and a delete of a group that is deploying or stopping.
const STOP_DURATION: Duration = Duration::from_secs(5);
/// How long a simulated init container runs if its script does not say.
const INIT_RUN_DURATION: Duration = Duration::from_secs(1);
/// The service's default for `provisioningTimeoutInSeconds`.
pub const PROVISIONING_TIMEOUT: Duration = Duration::from_secs(1800);

/// A container group.
#[derive(Clone, Debug)]
pub struct EmulatedGroup {
    /// Its ARM id.
    pub id: GroupId,
    /// The request body, including secrets.
    pub body: GroupBody,
    /// Its region, normalized: lower case without blanks.
    pub region: String,
    /// When the current deployment began.
    pub deployed: Timestamp,
    /// The operation that deploys or deletes it.
    pub operation: Uuid,
    /// Its position in the life cycle.
    pub stage: GroupStage,
    /// Its init containers.
    pub init: Vec<EmulatedRun>,
    /// Its containers.
    pub containers: Vec<EmulatedRun>,
    /// Events of the group as a whole.
    pub events: Vec<ContainerEvent>,
    /// Its IP address. `None` until the containers start, and when it is stopped.
    pub ip: Option<Ipv4Addr>,
    /// The address that the group gets when its containers start.
    pub next_ip: Ipv4Addr,
    /// Whether a container engine runs it. Otherwise the emulator simulates it.
    pub is_real: bool,
    /// Whether the deployment fails for lack of capacity.
    pub lacks_capacity: bool,
    /// How long each step of its start takes, if simulated.
    pub latency: StageLatency,
    /// How many deployments and restarts the group has had. Reports about older ones are ignored.
    pub generation: u64,
    /// Whether the end of the current operation still has to be reported.
    pub is_operation_open: bool,
}

impl EmulatedGroup {
    /// Starts a deployment at `at`, as after a PUT.
    pub fn deploy(&mut self, at: Timestamp, operation: Uuid) {
        let properties = self.body.properties.clone().unwrap_or_default();
        // Scripts apply only to simulated containers.
        let is_real = self.is_real;
        let run = |c: &Container| {
            EmulatedRun::new(
                c,
                if is_real {
                    ContainerScript::default()
                } else {
                    ContainerScript::of(c)
                },
            )
        };
        let runs = |list: &[Container]| -> Vec<EmulatedRun> { list.iter().map(run).collect() };
        self.init = runs(properties.init_containers());
        self.containers = runs(properties.containers());
        self.events.clear();
        self.ip = None;
        self.deployed = at;
        self.operation = operation;
        self.is_operation_open = true;
        self.generation += 1;
        let wait = if self.lacks_capacity {
            CAPACITY_FAILS_AFTER
        } else {
            self.latency.pulling
        };
        self.stage = GroupStage::Allocating {
            until: self.simulated_until(at, wait),
        };
    }

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
        let message = super::validate::no_capacity(&self.body, &self.region);
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

    /// Begins to stop the group. Like the service, does nothing if all containers have already ended.
    pub fn stop(&mut self, at: Timestamp) {
        if self.ended().is_none() && self.stage != GroupStage::Stopped {
            self.stage = GroupStage::Stopping {
                until: self.simulated_until(at, STOP_DURATION),
            };
        }
    }

    /// The group has stopped.
    pub fn finish_stopping(&mut self, at: Timestamp) {
        for run in self.init.iter_mut().chain(&mut self.containers) {
            run.kill(at);
        }
        self.ip = None;
        self.lacks_capacity = false;
        self.stage = GroupStage::Stopped;
    }

    /// Begins to restart all containers, with images pulled again. Does nothing for a group without
    /// capacity, which has no containers.
    pub fn restart(&mut self, at: Timestamp) {
        if self.lacks_capacity {
            return;
        }
        for run in &mut self.containers {
            run.prepare_restart(at);
        }
        self.generation += 1;
        self.begin_pulling(at);
    }

    /// Begins to delete the group. Returns whether it is gone at once.
    pub fn delete(&mut self, at: Timestamp, operation: Uuid, slowly: bool) -> bool {
        self.operation = operation;
        self.is_operation_open = false;
        if slowly || self.is_in_motion() {
            self.stage = GroupStage::Deleting {
                until: self.simulated_until(at, STOP_DURATION),
            };
            return false;
        }
        self.stage = GroupStage::Gone;
        true
    }

    /// The group is gone.
    pub fn finish_deleting(&mut self, at: Timestamp, effects: &mut Vec<StageEffect>) {
        self.stage = GroupStage::Gone;
        effects.push(StageEffect::Gone { at });
    }

    /// Whether an operation is in progress. The service then rejects most other requests.
    pub fn is_in_motion(&self) -> bool {
        !matches!(
            self.stage,
            GroupStage::Running
                | GroupStage::Failed
                | GroupStage::Stopped
                | GroupStage::WithoutCapacity { .. }
        )
    }

    /// Whether the whole group is stopped, deleted, or on the way there.
    pub fn is_ending(&self) -> bool {
        matches!(
            self.stage,
            GroupStage::Stopping { .. }
                | GroupStage::Stopped
                | GroupStage::Deleting { .. }
                | GroupStage::Gone
        )
    }

    /// Whether the group counts against the core quota. It does not when it is stopped or all
    /// containers have ended.
    pub fn holds_cores(&self) -> bool {
        self.stage != GroupStage::Stopped && self.ended().is_none()
    }

    /// `None` until every container has ended for good; then whether all exited with 0.
    pub fn ended(&self) -> Option<bool> {
        if self.stage != GroupStage::Running {
            return None;
        }
        let codes: Option<Vec<i32>> = self.containers.iter().map(EmulatedRun::ended).collect();
        codes.map(|codes| codes.iter().all(|code| *code == 0))
    }

    /// The restart policy; the service's default is `Always`.
    pub fn policy(&self) -> GroupRestartPolicy {
        let name = self
            .body
            .properties
            .as_ref()
            .and_then(|p| p.restart_policy.as_deref());
        GroupRestartPolicy::of(name).unwrap_or(GroupRestartPolicy::Always)
    }

    fn timeout(&self) -> Duration {
        let custom = self
            .body
            .properties
            .as_ref()
            .and_then(|p| p.provisioning_timeout_in_seconds);
        custom
            .and_then(|s| u64::try_from(s).ok())
            .map_or(PROVISIONING_TIMEOUT, Duration::from_secs)
    }

    fn simulated_until(&self, at: Timestamp, wait: Duration) -> Option<Timestamp> {
        (!self.is_real || self.lacks_capacity).then(|| later(at, wait))
    }
}

fn due_at(run: &EmulatedRun) -> Option<Timestamp> {
    run.due.map(|(at, _)| at)
}
