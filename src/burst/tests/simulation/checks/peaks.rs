//! Checks that peaks do not flap: each begins with a grant, and ends when the cooldown is over and not before,
//! even if the leader changes.
//!
//! In: the plans of the leaders, and what they saw. A peak in a plan is the peak in the pool's status.

use std::time::Duration;

use jiff::Timestamp;

use crate::burst::plan::PeakState;
use crate::k8s::time::later;

/// How much later than its cooldown a peak may end, because the operator does not plan continuously.
const LATE: Duration = Duration::from_secs(180);

/// The peak, according to the leaders' plans.
pub struct PeakCheck {
    is_peak: bool,
    /// How many peaks began.
    pub begun: u64,
    /// The number of changes at the last grant, and at the last end of a peak.
    granted: u64,
    ended: u64,
    /// When a leader's plan last saw pods on ACI, or on their way there.
    seen: Timestamp,
    /// When the present leader took over.
    led: Timestamp,
}

/// The input and the result of a leader's plan.
pub struct Planned {
    pub peak: PeakState,
    /// Whether it saw pods on ACI, or on their way there.
    pub is_busy: bool,
    /// The number of changes at that time.
    pub count: u64,
    pub cooldown: Duration,
    pub now: Timestamp,
}

impl PeakCheck {
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

    /// Records a grant, with the number of changes so far.
    pub fn granted(&mut self, count: u64) {
        self.granted = count;
    }

    /// Another instance leads. It continues the peak in the pool's status, if it sees it.
    pub fn taken_over(&mut self, is_told: bool, now: Timestamp) {
        // It cannot continue a peak that it does not see yet. If the last leader crashed before it wrote the end
        // of the peak, the peak continues.
        self.is_peak = is_told;
        self.led = now;
    }

    /// The leader has planned.
    pub fn planned(&mut self, plan: &Planned) {
        let is_peak = plan.peak != PeakState::None;
        if plan.is_busy {
            self.seen = plan.now;
        }
        assert_eq!(
            plan.peak == PeakState::Active,
            plan.is_busy,
            "{:?}",
            plan.peak
        );
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
            // A new leader counts the cooldown from its start.
            let last = later(self.led.max(self.seen), plan.cooldown);
            assert!(plan.now <= later(last, LATE), "the peak does not end");
        }
        self.is_peak = is_peak;
    }
}
