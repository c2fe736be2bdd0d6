//! Whether a placement starts what it is given: closed after failures, opened again by one probe.
//!
//! In: how creates ended, as they end. Out: a [`Door`]: open, closed until a time that doubles, or
//! half-open. What is wrong with one pod (its spec, its image, its volumes) says nothing of the
//! placement. Kept in memory: after a restart the next failures say it again.

use std::time::Duration;

use jiff::Timestamp;

use super::hold::later;
use crate::aci::failure::Class;

/// So many failures in a row, of the kind that may pass by itself, close a placement.
const SOFT: u32 = 3;
/// How long it is closed first; ACI's capacity and quota do not come back faster than that.
const FIRST: Duration = Duration::from_secs(30);
/// How long one pod shows whether it works again: one that neither starts nor fails until then, as for want
/// of a `ConfigMap`, shows nothing, and another is sent.
pub const PROBE: Duration = Duration::from_secs(120);
/// How long it is closed at most.
const LONGEST: Duration = Duration::from_secs(600);

/// What is known of a placement's creates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Failures in a row while it is open.
    soft: u32,
    /// How often it has been closed in a row.
    closed: u32,
    until: Option<Timestamp>,
    why: String,
}

/// Whether a placement may be given pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// As many as fit.
    Open,
    /// One, to see whether it works again.
    HalfOpen,
    /// None.
    Closed {
        /// Until when, if that is known.
        until: Option<Timestamp>,
        /// Why.
        why: String,
    },
}

/// How bad a failure is for the placement.
enum Weight {
    None,
    Soft,
    Hard,
}

impl Backend {
    /// A group of a pod was created, or did not fail to start.
    pub fn succeeded(&mut self, now: Timestamp) {
        // While closed, it was begun before: it says nothing of now.
        if self.until.is_none_or(|until| until <= now) {
            *self = Self::default();
        }
    }

    /// A group could not be created or started.
    pub fn failed(&mut self, class: Class, message: &str, now: Timestamp) {
        let is_closed = self.until.is_some_and(|until| now < until);
        let closes = match weight(class) {
            Weight::None => return,
            Weight::Hard => true,
            Weight::Soft => self.closed > 0 || self.soft + 1 >= SOFT,
        };
        message.clone_into(&mut self.why);
        if is_closed {
            return;
        }
        self.soft += 1;
        if closes {
            let longer = 2_u32.saturating_pow(self.closed.min(16));
            self.until = Some(later(now, FIRST.saturating_mul(longer).min(LONGEST)));
            self.closed += 1;
            self.soft = 0;
        }
    }

    /// Whether it may be given pods now.
    pub fn door(&self, now: Timestamp) -> Door {
        match self.until {
            None => Door::Open,
            Some(until) if now < until => Door::Closed {
                until: Some(until),
                why: self.why.clone(),
            },
            Some(_) => Door::HalfOpen,
        }
    }

    /// Since when it may be tried again with one pod, if it is.
    pub fn half_open_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| *until <= now)
    }

    /// Azure's words, while it has not worked again since.
    pub fn trouble(&self) -> Option<&str> {
        (self.closed > 0).then_some(self.why.as_str())
    }
}

fn weight(class: Class) -> Weight {
    match class {
        Class::Capacity | Class::Quota | Class::Config => Weight::Hard,
        Class::Stuck | Class::Transient => Weight::Soft,
        // Waiting, or the pod's own fault.
        Class::Throttled
        | Class::Transitioning
        | Class::Image
        | Class::Mount
        | Class::Unknown
        | Class::Permanent
        | Class::Gone => Weight::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::fixtures::at;

    fn closed_until(backend: &Backend, now: i64) -> Option<i64> {
        match backend.door(at(now)) {
            Door::Closed { until, .. } => until.map(Timestamp::as_second),
            _ => None,
        }
    }

    #[test]
    fn missing_capacity_closes_at_once_and_each_failed_probe_doubles_the_time() {
        let mut backend = Backend::default();
        let mut now = 0;
        for pause in [30, 60, 120, 240, 480, 600, 600] {
            backend.failed(Class::Capacity, "no room", at(now));
            assert_eq!(closed_until(&backend, now), Some(now + pause));
            now += pause;
            assert_eq!(backend.door(at(now)), Door::HalfOpen);
        }
        backend.succeeded(at(now));
        assert_eq!(backend, Backend::default(), "one success opens it");
    }

    #[test]
    fn many_failures_at_once_are_one() {
        let mut backend = Backend::default();
        for _ in 0..60 {
            backend.failed(Class::Quota, "quota", at(5));
        }
        assert_eq!(closed_until(&backend, 5), Some(35));
        assert_eq!(backend.trouble(), Some("quota"));
    }

    #[test]
    fn errors_that_may_pass_close_only_when_there_are_three_in_a_row() {
        let mut backend = Backend::default();
        for second in [1, 2] {
            backend.failed(Class::Transient, "503", at(second));
            assert_eq!(backend.door(at(second)), Door::Open);
        }
        backend.succeeded(at(3));
        backend.failed(Class::Transient, "503", at(4));
        assert_eq!(backend.door(at(4)), Door::Open);
        backend.failed(Class::Stuck, "stuck", at(5));
        backend.failed(Class::Transient, "503", at(6));
        assert_eq!(closed_until(&backend, 6), Some(36));
        backend.failed(Class::Transient, "503", at(36));
        assert_eq!(
            closed_until(&backend, 36),
            Some(96),
            "a failed probe is enough"
        );
    }

    #[test]
    fn what_is_wrong_with_one_pod_does_not_close_the_placement() {
        let mut backend = Backend::default();
        for class in [
            Class::Permanent,
            Class::Image,
            Class::Mount,
            Class::Throttled,
        ] {
            for _ in 0..10 {
                backend.failed(class, "its own", at(1));
            }
        }
        assert_eq!(backend.door(at(1)), Door::Open);
    }

    #[test]
    fn a_success_that_was_begun_before_does_not_open_it() {
        let mut backend = Backend::default();
        backend.failed(Class::Capacity, "no room", at(0));
        backend.succeeded(at(1));
        assert_eq!(closed_until(&backend, 1), Some(30));
    }
}
