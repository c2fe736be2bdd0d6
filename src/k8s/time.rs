//! Arithmetic with times of Kubernetes objects that cannot overflow.

use std::time::Duration;

use jiff::Timestamp;

/// `at` plus `by`; [`Timestamp::MAX`] if that overflows.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
