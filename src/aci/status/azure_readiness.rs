//! The readiness of a container whose readiness probe ACI runs, inferred from the container's events.
//!
//! ACI reports no result of a readiness probe. At each failure it writes an event `Unhealthy` and counts it, as a
//! kubelet does. If two reads of the group show the same number of failures, and at least one period and one timeout of
//! the probe lie between them, then a probe was sent and did not fail.
//!
//! In: the probe, and the container as a GET of its group shows it. Out: whether the container is ready, and when to
//! read the group again. Pure.
//!
//! The inference is coarse: a container becomes ready only at a read that comes at least one period and one timeout
//! after its start or its last failure, and loses its readiness only at the next read after enough failures. Azure may
//! also show an event late.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;

use crate::aci::response::{ContainerInstanceView, ContainerState};
use crate::k8s::time::later;

/// The shortest time between two reads for the sake of a probe.
const MIN_READ_INTERVAL: Duration = Duration::from_secs(5);

/// The readiness of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureReadiness {
    /// The run that was seen last: the number of restarts, and its start.
    run: Option<(i64, Option<Timestamp>)>,
    /// When the last read was answered.
    seen_at: Option<Timestamp>,
    /// The number of failures at the last read of the running container.
    failures: i64,
    /// Since when no failure was seen.
    no_failure_since: Timestamp,
    /// The failures in a row.
    consecutive_failures: i64,
    is_ready: bool,
}

impl AzureReadiness {
    /// The state before the first read. `was_ready` is whether the pod's status says that the container is ready:
    /// another leader has seen that.
    pub fn new(was_ready: bool) -> Self {
        Self {
            run: None,
            seen_at: None,
            failures: 0,
            no_failure_since: Timestamp::UNIX_EPOCH,
            consecutive_failures: 0,
            is_ready: was_ready,
        }
    }

    /// Whether the container is ready.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// When to read the group for the sake of the probe: when the next read may change the readiness. `None` while
    /// the container is ready and no probe has failed.
    pub fn next_read(&self, probe: &Probe, last_read: Timestamp) -> Option<Timestamp> {
        let is_settled = self.run.is_none() || (self.is_ready && self.consecutive_failures == 0);
        let decided = later(self.no_failure_since, time_to_succeed(probe));
        (!is_settled).then(|| decided.max(later(last_read, MIN_READ_INTERVAL)))
    }

    /// Takes what a GET that was answered at `read_at` shows of the container. `read_at` is by the operator's clock and
    /// the start of the container by Azure's. A run that the read before did not show began after that read, whatever
    /// the clocks say.
    pub fn observe(&mut self, probe: &Probe, view: &ContainerInstanceView, read_at: Timestamp) {
        let seen_at = self.seen_at.replace(read_at);
        let current = view.current_state.as_ref();
        let Some(current) = current.filter(|run| run.kind() == ContainerState::Running) else {
            self.run = None;
            self.is_ready = false;
            return;
        };
        let failures = failures(view);
        let run = (view.restart_count.unwrap_or_default(), current.start_time);
        if self.run != Some(run) {
            let is_first = self.run.is_none();
            self.run = Some(run);
            self.consecutive_failures = 0;
            if is_first && self.is_ready {
                (self.failures, self.no_failure_since) = (failures, read_at);
                return;
            }
            self.is_ready = false;
            let began = current
                .start_time
                .unwrap_or(read_at)
                .max(seen_at.unwrap_or(Timestamp::MIN));
            self.no_failure_since = later(began.min(read_at), initial_delay(probe));
        }
        // The list of events is bounded: old ones may disappear, and counts with them.
        let new_failures = (failures - self.failures).max(0);
        self.failures = failures;
        if new_failures > 0 {
            self.consecutive_failures += new_failures;
            self.no_failure_since = read_at;
            self.is_ready &=
                self.consecutive_failures < i64::from(probe.failure_threshold.unwrap_or(3).max(1));
        } else if read_at >= later(self.no_failure_since, time_to_succeed(probe)) {
            self.consecutive_failures = 0;
            self.is_ready = true;
        }
    }
}

/// How often the readiness probe has failed, as far as the events tell.
fn failures(view: &ContainerInstanceView) -> i64 {
    let failed = view.events.iter().filter(|event| {
        event.reason() == "Unhealthy" && event.message.to_lowercase().starts_with("readiness probe")
    });
    failed.map(|event| event.count.unwrap_or(1).max(1)).sum()
}

fn initial_delay(probe: &Probe) -> Duration {
    seconds(probe.initial_delay_seconds, 0)
}

/// How long without a failure proves that as many probes have succeeded as `successThreshold` says.
fn time_to_succeed(probe: &Probe) -> Duration {
    let successes = probe.success_threshold.unwrap_or(1).max(1).unsigned_abs();
    let period = seconds(probe.period_seconds, 10);
    period * successes + seconds(probe.timeout_seconds, 1)
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let value = value.and_then(|value| u64::try_from(value).ok());
    Duration::from_secs(value.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn probe() -> Probe {
        Probe::default()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// A container that was started at second 0, and whose probe has failed this often.
    fn running(restarts: i64, failures: i64) -> ContainerInstanceView {
        let mut events = json!([{"name": "Started", "count": 9, "message": "Started container"},
            {"name": "Unhealthy", "count": 7, "message": "Liveness probe failed: a"}]);
        if failures > 0 {
            let failed = json!({"name": "Unhealthy", "count": failures, "message": "Readiness probe failed: b"});
            events.as_array_mut().expect("a list").push(failed);
        }
        let view = json!({"restartCount": restarts, "events": events,
            "currentState": {"state": "Running", "startTime": "1970-01-01T00:00:00Z"}});
        serde_json::from_value(view).expect("a view")
    }

    /// The readiness after each read: its second, and the number of failures that it shows.
    fn after(was_ready: bool, reads: &[(i64, i64)]) -> Vec<bool> {
        let mut readiness = AzureReadiness::new(was_ready);
        let read = |(second, failures): &(i64, i64)| {
            readiness.observe(&probe(), &running(0, *failures), at(*second));
            readiness.is_ready()
        };
        reads.iter().map(read).collect()
    }

    #[test]
    fn a_container_is_ready_when_a_probe_was_sent_and_none_has_failed_since() {
        // The period is 10 s and the timeout 1 s.
        assert_eq!(
            after(false, &[(2, 0), (10, 0), (11, 0)]),
            [false, false, true]
        );
        assert_eq!(
            after(false, &[(15, 1), (25, 1), (26, 1), (40, 1)]),
            [false, false, true, true]
        );
        assert_eq!(
            after(false, &[(15, 1), (25, 2), (35, 3), (46, 3)]),
            [false, false, false, true]
        );
    }

    #[test]
    fn a_ready_container_loses_its_readiness_after_as_many_failures_as_the_threshold_says() {
        assert_eq!(
            after(false, &[(20, 0), (90, 2), (95, 3)]),
            [true, true, false]
        );
        assert_eq!(after(false, &[(20, 0), (150, 13)]), [true, false]);
        // A success between the failures.
        assert_eq!(
            after(false, &[(20, 0), (90, 2), (110, 2), (120, 4)]),
            [true; 4]
        );
    }

    #[test]
    fn another_leader_goes_on_with_what_the_status_says() {
        assert_eq!(
            after(true, &[(90, 50), (95, 51), (100, 52), (110, 53)]),
            [true, true, true, false]
        );
        assert_eq!(
            after(false, &[(90, 50), (100, 50), (101, 50)]),
            [false, false, true]
        );
    }

    #[test]
    fn a_restarted_container_is_not_ready_before_a_probe_was_sent() {
        let mut readiness = AzureReadiness::new(true);
        readiness.observe(&probe(), &running(0, 2), at(50));
        let mut second = running(1, 2);
        let state = second.current_state.as_mut().expect("a state");
        state.start_time = Some(at(60));
        readiness.observe(&probe(), &second, at(65));
        assert!(!readiness.is_ready());
        assert_eq!(readiness.next_read(&probe(), at(65)), Some(at(71)));
        assert_eq!(readiness.next_read(&probe(), at(70)), Some(at(75)));
        readiness.observe(&probe(), &second, at(71));
        assert!(readiness.is_ready());
        assert_eq!(readiness.next_read(&probe(), at(71)), None);
        readiness.observe(&probe(), &ContainerInstanceView::default(), at(80));
        assert!(!readiness.is_ready(), "it does not run");
    }

    #[test]
    fn clocks_that_differ_make_a_container_ready_neither_early_nor_late() {
        for ahead in [-300, 300] {
            let mut readiness = AzureReadiness::new(false);
            readiness.observe(&probe(), &ContainerInstanceView::default(), at(998));
            let mut view = running(0, 0);
            let state = view.current_state.as_mut().expect("a state");
            state.start_time = Some(at(1000 + ahead));
            let ready = [1001, 1008, 1012].map(|second| {
                readiness.observe(&probe(), &view, at(second));
                readiness.is_ready()
            });
            assert_eq!(ready, [false, false, true], "{ahead}");
        }
    }

    #[test]
    fn the_numbers_of_the_probe_decide() {
        let probe: Probe =
            serde_json::from_value(json!({"initialDelaySeconds": 30, "periodSeconds": 4,
            "timeoutSeconds": 2, "successThreshold": 3, "failureThreshold": 1}))
            .expect("a probe");
        let mut readiness = AzureReadiness::new(false);
        let mut ready = |second, failures| {
            readiness.observe(&probe, &running(0, failures), at(second));
            readiness.is_ready()
        };
        // Three periods and a timeout after the initial delay.
        assert_eq!(
            [ready(43, 0), ready(44, 0), ready(50, 1)],
            [false, true, false]
        );
    }

    proptest! {
        // However the reads lie, a container that was ready is not ready before `failureThreshold` more failures.
        #[test]
        fn readiness_is_never_lost_with_fewer_failures_than_the_threshold(
            was_ready: bool, steps in prop::collection::vec((1_i64..40, 0_i64..3), 1..40),
        ) {
            let mut readiness = AzureReadiness::new(was_ready);
            let (mut second, mut failures, mut since_ready) = (100, 5, 0);
            let mut is_first = true;
            for (step, failed) in steps {
                second += step;
                failures += failed;
                let before = readiness.is_ready();
                readiness.observe(&probe(), &running(0, failures), at(second));
                // The failures before the first read are the last leader's.
                since_ready = if before && !is_first { since_ready + failed } else { 0 };
                if before && !readiness.is_ready() {
                    prop_assert!(since_ready >= 3, "{since_ready}");
                }
                is_first = false;
            }
        }
    }
}
