//! The Events of probes.
//!
//! In: every Event that the kubelet would send. Out: those to write. A kubelet's Events go through client-go's
//! correlator (`tools/events/correlator` of client-go), which counts equal ones and lets a burst of 25 per object
//! through, then one each five minutes; otherwise a thousand pods that fail would write a hundred Events a second.
//! [`ProbeEventSeries`] counts those of one container, and [`ProbeEventBudget`] limits those of one pod. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::aci::probe::ProbeKind;
use crate::k8s::events::truncate_note;
use crate::k8s::time::later;

/// How many Events of a pod are written in a burst: client-go's `defaultSpamBurst`.
const SPAM_BURST: u32 = 25;
/// The time after which one more is written: client-go's `defaultSpamQPS`, 1/300.
const REFILL: Duration = Duration::from_secs(300);
/// How many different Events of a container are remembered. Their messages differ little, for example in status
/// codes.
const MAX_REMEMBERED: usize = 16;

/// The reason of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeEventReason {
    /// A probe failed, or could not be run.
    Unhealthy,
    /// A probe succeeded with a warning.
    ProbeWarning,
}

impl ProbeEventReason {
    /// The kubelet's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "Unhealthy",
            Self::ProbeWarning => "ProbeWarning",
        }
    }
}

/// An Event of type `Warning` about a container, as often as it has happened so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEvent {
    /// The reason.
    pub reason: ProbeEventReason,
    /// The kubelet's message.
    pub message: String,
    /// When it first happened.
    pub first: Timestamp,
    /// When it last happened.
    pub last: Timestamp,
    /// How often it has happened, at least 1.
    pub count: u32,
}

impl ProbeEvent {
    /// An Event that happened once, at `now`. The message is cut to 1,024 bytes, the limit of the API server.
    pub(super) fn new(reason: ProbeEventReason, message: &str, now: Timestamp) -> Self {
        Self {
            reason,
            message: truncate_note(message),
            first: now,
            last: now,
            count: 1,
        }
    }

    pub(super) fn failed(kind: ProbeKind, output: &str, now: Timestamp) -> Self {
        let message = format!("{kind} probe failed: {output}");
        Self::new(ProbeEventReason::Unhealthy, &message, now)
    }

    pub(super) fn errored(kind: ProbeKind, error: &str, now: Timestamp) -> Self {
        let message = format!("{kind} probe errored and resulted in failure state: {error}");
        Self::new(ProbeEventReason::Unhealthy, &message, now)
    }

    pub(super) fn warning(kind: ProbeKind, output: &str, now: Timestamp) -> Self {
        let message = format!("{kind} probe warning: {output}");
        Self::new(ProbeEventReason::ProbeWarning, &message, now)
    }
}

/// The Events of one container: counts equal ones.
#[derive(Clone, Debug, Default)]
pub struct ProbeEventSeries {
    /// The last different Events, oldest first.
    known: VecDeque<ProbeEvent>,
}

impl ProbeEventSeries {
    /// Counts an Event that has just happened. Returns it as often as it has happened so far.
    pub fn count(&mut self, event: ProbeEvent) -> ProbeEvent {
        let is_same =
            |known: &ProbeEvent| known.reason == event.reason && known.message == event.message;
        if let Some(known) = self.known.iter_mut().find(|known| is_same(known)) {
            known.count = known.count.saturating_add(1);
            known.last = event.last;
            return known.clone();
        }
        if self.known.len() == MAX_REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back(event.clone());
        event
    }
}

/// How many Events of one pod may be written. client-go limits them per object, which is the pod, not the container.
#[derive(Clone, Debug)]
pub struct ProbeEventBudget {
    /// How many may be written at once, and since when this number grows.
    left: u32,
    since: Option<Timestamp>,
}

impl Default for ProbeEventBudget {
    fn default() -> Self {
        Self {
            left: SPAM_BURST,
            since: None,
        }
    }
}

impl ProbeEventBudget {
    /// Whether an Event may be written at `now`; if so, it counts.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let mut since = self.since.unwrap_or(now);
        while self.left < SPAM_BURST && later(since, REFILL) <= now {
            self.left += 1;
            since = later(since, REFILL);
        }
        if self.left == SPAM_BURST {
            since = now;
        }
        self.since = Some(since);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    #[test]
    fn messages_are_the_kubelets() {
        let failed = ProbeEvent::failed(ProbeKind::Readiness, "HTTP ...", at(1));
        assert_eq!(failed.message, "Readiness probe failed: HTTP ...");
        assert_eq!(failed.reason.as_str(), "Unhealthy");
        let failed = ProbeEvent::failed(ProbeKind::Startup, "x", at(1));
        assert_eq!(failed.message, "Startup probe failed: x");
        let errored = ProbeEvent::errored(ProbeKind::Readiness, "unexpected EOF", at(1));
        let wanted = "Readiness probe errored and resulted in failure state: unexpected EOF";
        assert_eq!(errored.message, wanted);
        assert_eq!(errored.reason.as_str(), "Unhealthy");
        let warning = ProbeEvent::warning(ProbeKind::Readiness, "y", at(1));
        assert_eq!(warning.message, "Readiness probe warning: y");
        assert_eq!(warning.reason.as_str(), "ProbeWarning");
    }

    #[test]
    fn equal_events_are_counted_and_a_container_that_fails_for_hours_writes_few() {
        let (mut series, mut budget) = (ProbeEventSeries::default(), ProbeEventBudget::default());
        let fails = |second| ProbeEvent::failed(ProbeKind::Readiness, "x", at(second));
        let counted = (0..3600).map(|second| series.count(fails(second)));
        let written: Vec<ProbeEvent> = counted.filter(|event| budget.take(event.last)).collect();
        // 25 at once, and one each five minutes of the hour.
        assert_eq!(written.len(), 25 + 3600 / 300 - 1, "{written:?}");
        let last = written.last().expect("some");
        assert_eq!((last.first, last.last), (at(0), at(3300)));
        assert_eq!(last.count, 3301, "those that are not written count");
    }

    #[test]
    fn an_event_after_a_quiet_time_is_written_at_once_and_few_are_remembered() {
        let (mut series, mut budget) = (ProbeEventSeries::default(), ProbeEventBudget::default());
        let fails = |output: &str| ProbeEvent::failed(ProbeKind::Readiness, output, at(0));
        for n in 0..100 {
            assert_eq!(series.count(fails(&n.to_string())).count, 1);
            assert_eq!(budget.take(at(0)), n < 25);
        }
        assert!(series.known.len() <= MAX_REMEMBERED);
        let written = (0..100).filter(|_| budget.take(at(25 * 300)));
        assert_eq!(written.count(), 25);
    }

    #[test]
    fn a_message_is_no_longer_than_the_api_server_allows() {
        let event = ProbeEvent::failed(ProbeKind::Readiness, &"x".repeat(100_000), at(1));
        assert!(event.message.len() <= 1024, "{}", event.message.len());
    }
}
