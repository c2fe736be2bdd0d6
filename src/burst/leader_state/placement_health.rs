//! The health of a placement, as a circuit breaker: failed creates close it, and one probe pod opens it again.
//!
//! In: the results of creating and starting container groups. Out: a [`PlacementAvailability`]: open, closed for a time that
//! doubles, or half-open. Failures of a single pod (its spec, image or volumes) do not count against the
//! placement. The state is only in memory: after a restart, the next failures close the placement again.

use std::time::Duration;

use jiff::Timestamp;

use crate::aci::failure::FailureClass;
use crate::k8s::backoff::doubled;
use crate::k8s::time::later;

/// The number of temporary failures in a row that closes a placement.
const FAILURE_THRESHOLD: u32 = 3;
/// The first closed time. ACI's capacity and quota do not recover faster.
const INITIAL_BACKOFF: Duration = Duration::from_secs(30);
/// How long a probe pod has to start or fail. A pod that does neither, for example because a `ConfigMap` is
/// missing, proves nothing, and the next pod is sent.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest closed time.
const MAX_BACKOFF: Duration = Duration::from_secs(600);

/// The results of a placement's creates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementHealth {
    /// Temporary failures in a row while it is open.
    consecutive_failures: u32,
    /// How many times in a row it has been closed.
    times_closed: u32,
    closed_until: Option<Timestamp>,
    last_failure: String,
}

/// Whether a placement takes pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementAvailability {
    /// It takes as many pods as fit.
    Open,
    /// It takes one pod, as a probe.
    OneProbe,
    /// It takes no pods.
    Closed {
        /// Until when. `None` if that is not known.
        until: Option<Timestamp>,
        /// The reason.
        why: String,
    },
}

/// How much a failure counts against the placement.
enum FailureWeight {
    None,
    Counted,
    Immediate,
}

impl PlacementHealth {
    /// Records that the containers of a container group started.
    pub fn record_success(&mut self, now: Timestamp) {
        // While the placement is closed, the create began before that: it does not prove that creates work now.
        if self.closed_until.is_none_or(|until| until <= now) {
            *self = Self::default();
        }
    }

    /// Records that a container group could not be created or started, with Azure's message.
    pub fn record_failure(&mut self, class: FailureClass, message: &str, now: Timestamp) {
        let is_closed = self.closed_until.is_some_and(|until| now < until);
        let closes = match failure_weight(class) {
            FailureWeight::None => return,
            FailureWeight::Immediate => true,
            FailureWeight::Counted => {
                self.times_closed > 0 || self.consecutive_failures + 1 >= FAILURE_THRESHOLD
            }
        };
        message.clone_into(&mut self.last_failure);
        if is_closed {
            return;
        }
        self.consecutive_failures += 1;
        if closes {
            self.closed_until = Some(later(
                now,
                doubled(INITIAL_BACKOFF, self.times_closed, MAX_BACKOFF),
            ));
            self.times_closed += 1;
            self.consecutive_failures = 0;
        }
    }

    /// Whether the placement takes pods at `now`.
    pub fn availability(&self, now: Timestamp) -> PlacementAvailability {
        match self.closed_until {
            None => PlacementAvailability::Open,
            Some(until) if now < until => PlacementAvailability::Closed {
                until: Some(until),
                why: self.last_failure.clone(),
            },
            Some(_) => PlacementAvailability::OneProbe,
        }
    }

    /// Since when the placement is half-open. `None` if it is open or closed.
    pub fn probing_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.closed_until.filter(|until| *until <= now)
    }

    /// Azure's message for the failure that closed the placement, until a create succeeds.
    pub fn failure_message(&self) -> Option<&str> {
        (self.times_closed > 0).then_some(self.last_failure.as_str())
    }
}

fn failure_weight(class: FailureClass) -> FailureWeight {
    match class {
        FailureClass::Capacity | FailureClass::Quota | FailureClass::AzureConfig => {
            FailureWeight::Immediate
        }
        FailureClass::ProvisioningFailed | FailureClass::Transient => FailureWeight::Counted,
        // These pass without a failure of the placement, or the pod itself is the cause.
        FailureClass::Throttled
        | FailureClass::Transitioning
        | FailureClass::Image
        | FailureClass::Mount
        | FailureClass::Unknown
        | FailureClass::InvalidRequest
        | FailureClass::NotFound => FailureWeight::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::fixtures::at;

    fn closed_until(backend: &PlacementHealth, now: i64) -> Option<i64> {
        match backend.availability(at(now)) {
            PlacementAvailability::Closed { until, .. } => until.map(Timestamp::as_second),
            _ => None,
        }
    }

    #[test]
    fn missing_capacity_closes_at_once_and_each_failed_probe_doubles_the_time() {
        let mut backend = PlacementHealth::default();
        let mut now = 0;
        for pause in [30, 60, 120, 240, 480, 600, 600] {
            backend.record_failure(FailureClass::Capacity, "no room", at(now));
            assert_eq!(closed_until(&backend, now), Some(now + pause));
            now += pause;
            assert_eq!(
                backend.availability(at(now)),
                PlacementAvailability::OneProbe
            );
        }
        backend.record_success(at(now));
        assert_eq!(backend, PlacementHealth::default(), "one success opens it");
    }

    #[test]
    fn many_failures_at_once_are_one() {
        let mut backend = PlacementHealth::default();
        for _ in 0..60 {
            backend.record_failure(FailureClass::Quota, "quota", at(5));
        }
        assert_eq!(closed_until(&backend, 5), Some(35));
        assert_eq!(backend.failure_message(), Some("quota"));
    }

    #[test]
    fn errors_that_may_pass_close_only_when_there_are_three_in_a_row() {
        let mut backend = PlacementHealth::default();
        for second in [1, 2] {
            backend.record_failure(FailureClass::Transient, "503", at(second));
            assert_eq!(
                backend.availability(at(second)),
                PlacementAvailability::Open
            );
        }
        backend.record_success(at(3));
        backend.record_failure(FailureClass::Transient, "503", at(4));
        assert_eq!(backend.availability(at(4)), PlacementAvailability::Open);
        backend.record_failure(FailureClass::ProvisioningFailed, "stuck", at(5));
        backend.record_failure(FailureClass::Transient, "503", at(6));
        assert_eq!(closed_until(&backend, 6), Some(36));
        backend.record_failure(FailureClass::Transient, "503", at(36));
        assert_eq!(
            closed_until(&backend, 36),
            Some(96),
            "a failed probe is enough"
        );
    }

    #[test]
    fn what_is_wrong_with_one_pod_does_not_close_the_placement() {
        let mut backend = PlacementHealth::default();
        for class in [
            FailureClass::InvalidRequest,
            FailureClass::Image,
            FailureClass::Mount,
            FailureClass::Throttled,
        ] {
            for _ in 0..10 {
                backend.record_failure(class, "its own", at(1));
            }
        }
        assert_eq!(backend.availability(at(1)), PlacementAvailability::Open);
    }

    #[test]
    fn a_success_that_was_begun_before_does_not_open_it() {
        let mut backend = PlacementHealth::default();
        backend.record_failure(FailureClass::Capacity, "no room", at(0));
        backend.record_success(at(1));
        assert_eq!(closed_until(&backend, 1), Some(30));
    }
}
