//! The steps of a group's life, how long those of its start take, and what the store must know of them.

use std::time::Duration;

use jiff::Timestamp;

use super::model::GroupBody;

/// When a new group's images are pulled and its containers start, after the PUT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Until the first image is being pulled.
    pub pulling: Duration,
    /// Until the images are there.
    pub pulled: Duration,
    /// Until the containers run.
    pub started: Duration,
}

impl Latency {
    const fn of_millis(pulling: u64, pulled: u64, started: u64) -> Self {
        Self {
            pulling: Duration::from_millis(pulling),
            pulled: Duration::from_millis(pulled),
            started: Duration::from_millis(started),
        }
    }

    /// As recorded of the service: a public address (2023-05-01), spot (2023-05-05) and a subnet
    /// (2023-02-07).
    pub fn recorded(body: &GroupBody) -> Self {
        match body.properties.as_ref() {
            Some(p) if p.is_in_subnet() => Self::of_millis(20_100, 28_100, 42_800),
            Some(p) if p.is_spot() => Self::of_millis(3_800, 6_800, 19_000),
            _ => Self::of_millis(4_300, 5_300, 15_600),
        }
    }

    /// The same steps, scaled so that the containers run after `started`.
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

/// Where a group is in its life. `until` is when the step ends by itself; an engine's steps do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A node and the network are being found.
    Allocating {
        /// When that ends.
        until: Option<Timestamp>,
    },
    /// There was no capacity, late.
    WithoutCapacity {
        /// When it is tried again.
        until: Timestamp,
    },
    /// Images are pulled.
    Pulling {
        /// When that ends.
        until: Option<Timestamp>,
    },
    /// Init containers run, one after the other.
    Initialising {
        /// Which one.
        index: usize,
    },
    /// Containers are started.
    Starting {
        /// When that ends.
        until: Option<Timestamp>,
    },
    /// The containers live their lives.
    Up,
    /// It took longer than the provisioning timeout, or an init container failed for good.
    Failed,
    /// It is being stopped.
    Stopping {
        /// When that ends.
        until: Option<Timestamp>,
    },
    /// It was stopped: nothing runs, nothing is billed.
    Stopped,
    /// It is being deleted.
    Deleting {
        /// When that ends.
        until: Option<Timestamp>,
    },
    /// It is deleted.
    Gone,
}

/// What the store must know of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The operation that created or started the group ended, well or not.
    OperationEnded {
        /// Whether it succeeded.
        succeeded: bool,
    },
    /// The containers run for the first time.
    Running {
        /// Since when.
        at: Timestamp,
    },
    /// The group is gone.
    Gone {
        /// Since when.
        at: Timestamp,
    },
}
