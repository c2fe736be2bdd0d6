//! Peaks do not flap: each begins with a grant, and ends when the cooldown has passed and not before, whoever
//! leads.
//!
//! In: what the plans of those say who lead, and what they saw. A peak that a plan tells of is one that users
//! are told of.

use std::time::Duration;

use jiff::Timestamp;

use crate::burst::hold::later;
use crate::burst::plan::Peak;

/// How much later than its cooldown says a peak may end: nobody plans at every moment.
const LATE: Duration = Duration::from_secs(180);

/// The peak, as leaders' plans tell it.
pub struct Peaks {
    is_peak: bool,
    /// How many began.
    pub begun: u64,
    /// How much had happened when the last grant was done, and when the last end was seen.
    granted: u64,
    ended: u64,
    /// When a leader's plan last saw pods on ACI, or on their way there.
    seen: Timestamp,
    /// Since when there is a new leader.
    led: Timestamp,
}

/// What a leader's plan was made of and says.
pub struct Planned {
    pub peak: Peak,
    /// Whether pods are seen on ACI, or on their way there.
    pub is_busy: bool,
    /// How much had happened when that was seen.
    pub count: u64,
    pub cooldown: Duration,
    pub now: Timestamp,
}

impl Peaks {
    pub fn new(now: Timestamp) -> Self {
        Self {
            is_peak: false,
            begun: 0,
            granted: 0,
            ended: 0,
            seen: now,
            led: now,
        }
    }

    /// A grant was done, and so much has happened.
    pub fn granted(&mut self, count: u64) {
        self.granted = count;
    }

    /// Somebody else leads: it goes on with the peak that the pool's status tells of, if that is seen.
    pub fn taken_over(&mut self, is_told: bool, now: Timestamp) {
        // What is not seen yet cannot be gone on with.
        self.is_peak &= is_told;
        self.led = now;
    }

    /// Who leads has planned.
    pub fn planned(&mut self, plan: &Planned) {
        let is_peak = plan.peak != Peak::None;
        if plan.is_busy {
            self.seen = plan.now;
        }
        assert_eq!(plan.peak == Peak::On, plan.is_busy, "{:?}", plan.peak);
        if is_peak && !self.is_peak {
            assert!(
                self.granted > self.ended,
                "a peak begins, and no pod was granted since the last one"
            );
            self.begun += 1;
        }
        let over = later(self.seen, plan.cooldown);
        if !is_peak && self.is_peak {
            assert!(over <= plan.now, "the peak ends before its cooldown");
            self.ended = plan.count;
        }
        if is_peak && !plan.is_busy {
            // Who takes over counts the cooldown anew.
            let last = later(self.led.max(self.seen), plan.cooldown);
            assert!(plan.now <= later(last, LATE), "the peak does not end");
        }
        self.is_peak = is_peak;
    }
}
