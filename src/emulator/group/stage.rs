//! The stages of a group's life cycle, the durations of its start, and the effects of a change on the
//! store.

use std::time::Duration;

use jiff::Timestamp;

use super::model::GroupBody;

/// The times of a new group's start, each counted from its PUT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageLatency {
    /// When pulling the images begins.
    pub pulling: Duration,
    /// When all images are pulled.
    pub pulled: Duration,
    /// When the containers run.
    pub started: Duration,
}

impl StageLatency {
    const fn of_millis(pulling: u64, pulled: u64, started: u64) -> Self {
        Self {
            pulling: Duration::from_millis(pulling),
            pulled: Duration::from_millis(pulled),
            started: Duration::from_millis(started),
        }
    }

    /// As recorded from the service: with a public address (2023-05-01), spot (2023-05-05), in a subnet
    /// (2023-02-07).
    pub fn recorded(body: &GroupBody) -> Self {
        match body.properties.as_ref() {
            Some(p) if p.is_in_subnet() => Self::of_millis(20_100, 28_100, 42_800),
            Some(p) if p.is_spot() => Self::of_millis(3_800, 6_800, 19_000),
            _ => Self::of_millis(4_300, 5_300, 15_600),
        }
    }

    /// The same times, scaled so that the containers run after `started`.
    #[must_use]
    pub fn scaled_to(self, started: Duration) -> Self {
        let factor = started.as_secs_f64() / self.started.as_secs_f64();
        Self {
            pulling: self.pulling.mul_f64(factor),
            pulled: self.pulled.mul_f64(factor),
            started,
        }
    }
}

/// The stages. `until` is the time at which a simulated stage ends; it is `None` for real groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupStage {
    /// Azure looks for a node and a network address.
    Allocating {
        /// The end of the stage.
        until: Option<Timestamp>,
    },
    /// The deployment failed for lack of capacity after the PUT had succeeded.
    WithoutCapacity {
        /// The time of the next attempt.
        until: Timestamp,
    },
    /// Images are being pulled.
    Pulling {
        /// The end of the stage.
        until: Option<Timestamp>,
    },
    /// Init containers run, one after the other.
    Initialising {
        /// The position of the running one.
        index: usize,
    },
    /// Containers are being started.
    Starting {
        /// The end of the stage.
        until: Option<Timestamp>,
    },
    /// All containers were started. They may end and restart.
    Running,
    /// The start exceeded the provisioning timeout, an init container failed for good, or the engine
    /// refused.
    Failed,
    /// The group is stopping.
    Stopping {
        /// The end of the stage.
        until: Option<Timestamp>,
    },
    /// The group is stopped: nothing runs, Azure bills nothing.
    Stopped,
    /// The group is being deleted.
    Deleting {
        /// The end of the stage.
        until: Option<Timestamp>,
    },
    /// The group is deleted.
    Gone,
}

/// The effect of a group's change on the rest of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageEffect {
    /// The operation that created, updated or started the group has ended.
    OperationEnded {
        /// Whether it succeeded.
        succeeded: bool,
    },
    /// The containers run for the first time in this deployment.
    Running {
        /// The time of the change.
        at: Timestamp,
    },
    /// The group is deleted.
    Gone {
        /// The time of the change.
        at: Timestamp,
    },
}
