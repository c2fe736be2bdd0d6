//! Arithmetic with times of Kubernetes objects that cannot overflow.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `at` plus `by`; [`Timestamp::MAX`] if that overflows.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// `at` moved by `offset`, which may be negative; `at` itself if that overflows.
pub fn shifted(at: Timestamp, offset: SignedDuration) -> Timestamp {
    at.saturating_add(offset).unwrap_or(at)
}
