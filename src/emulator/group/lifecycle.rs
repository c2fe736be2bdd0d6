//! A container group's life cycle: allocating, pulling, initialising, up, stopped, gone.
//!
//! In: requests (`stop`, `restart`, `start`, `delete`), the time, and whether the region has capacity.
//! Out: the group's state, and [`StageEffect`]s for the store. A simulated group is a value that knows the
//! time of its next change (`next_at`); a reader first advances it to the present (`advance`). It needs
//! no task and no timer, so thousands of groups cost nothing and a paused clock pauses all groups. A
//! real group has no scheduled changes; the engine calls the same transitions when its containers
//! change.

mod progress;

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::id::GroupId;
use super::model::{Container, GroupBody};
use super::run::{ContainerEvent, EmulatedRun, GroupRestartPolicy};
use super::script::ContainerScript;
use super::stage::{GroupStage, StageEffect, StageLatency};
use crate::emulator::clock::later;

/// How long after its PUT a group fails for lack of capacity (from a user's report of 2025-04).
const CAPACITY_FAILS_AFTER: Duration = Duration::from_secs(25);
/// How long a simulated stop takes, and a delete of a group that is deploying or stopping.
const STOP_DURATION: Duration = Duration::from_secs(5);
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
