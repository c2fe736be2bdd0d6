//! The clocks of an instance: its own, which may be wrong by any amount, and its estimate of the API server's.
//!
//! The model's time is the API server's.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::burst::rules::hold;
use crate::burst::rules::hold::PriorRefusal;
use crate::k8s::time::shifted;

/// An instance's clocks.
pub struct InstanceClocks {
    /// How far its own clock is ahead of the API server's.
    skew: SignedDuration,
    /// How far the API server's clock is ahead of the instance's estimate: HTTP dates are in whole seconds.
    error: SignedDuration,
}

impl InstanceClocks {
    /// The largest error of an instance's estimate.
    pub const EXACT: Duration = Duration::from_millis(1010);

    /// The clocks of a new process.
    pub fn new(rng: &mut StdRng) -> Self {
        let skew = match rng.random_range(0..4) {
            0 => rng.random_range(-90_000..90_000),
            1 => rng.random_range(-7_200_000..7_200_000),
            _ => 0,
        };
        Self {
            skew: SignedDuration::from_millis(skew),
            error: SignedDuration::from_millis(rng.random_range(0..1010)),
        }
    }

    /// Another response makes the estimate a little better or worse.
    pub fn learn(&mut self, rng: &mut StdRng) {
        if rng.random_bool(0.01) {
            self.error = SignedDuration::from_millis(rng.random_range(0..1010));
        }
    }

    /// Whether its clock is wrong by more than 5 seconds.
    pub fn are_skewed(&self) -> bool {
        self.skew.abs() > SignedDuration::from_secs(5)
    }

    /// Its own clock at `time`.
    pub fn own(&self, time: Timestamp) -> Timestamp {
        shifted(time, self.skew)
    }

    /// How far it estimates the API server's clock to be ahead of its own.
    pub fn ahead(&self) -> SignedDuration {
        -self.skew - self.error
    }

    /// Its estimate of the API server's clock at `time`.
    pub fn api_server(&self, time: Timestamp) -> Timestamp {
        shifted(self.own(time), self.ahead())
    }

    /// Since when, by its own clock, a pod is refused that the instance sees for the first time. The API server
    /// wrote the refusal at `written`.
    pub fn unseen(&self, transition: Timestamp, written: Timestamp, now: Timestamp) -> Timestamp {
        let age = self.api_server(now).duration_since(written);
        let age = Duration::try_from(age).unwrap_or_default();
        hold::refused_at(transition, PriorRefusal::Unseen(age), self.own(now))
    }
}
