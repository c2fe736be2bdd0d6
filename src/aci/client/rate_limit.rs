//! Local rate limiting: rejects requests while Azure has asked the client to wait, and tracks the remaining
//! budgets.
//!
//! In: the `Retry-After` of each 429, and the headers of each answer with the remaining budgets of ACI. Out: how
//! long a request must still wait, and how many requests may be sent. Requests are counted for each subscription
//! and class. Creates and deletes of container groups are also counted for each region, because ACI does so: a busy
//! region does not delay the others.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::aci::retry_after_header::MAX_RETRY_AFTER;

/// The wait after a 429 without `Retry-After`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The classes of requests that Azure counts separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestClass {
    /// GET.
    Reads,
    /// PUT of container groups.
    Creates,
    /// DELETE of container groups.
    Deletes,
    /// POST: exec, stop.
    Actions,
    /// GET of Azure Monitor's metrics. A separate class, so that a limit on metrics delays nothing else.
    Metrics,
}

impl RequestClass {
    /// The value of the label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Creates => "creates",
            Self::Deletes => "deletes",
            Self::Actions => "actions",
            Self::Metrics => "metrics",
        }
    }
}

/// The key of a counter: all requests with the same key share one limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimitKey {
    /// The ID of the subscription.
    pub subscription: String,
    /// The region, for classes that Azure counts by region.
    pub region: Option<String>,
    /// The class of the request.
    pub class: RequestClass,
}

impl RateLimitKey {
    /// The key of a request of `class` in `region`. The region is ignored for classes that are not counted by
    /// region.
    pub fn new(subscription: &str, region: Option<&str>, class: RequestClass) -> Self {
        let is_by_region = matches!(class, RequestClass::Creates | RequestClass::Deletes);
        Self {
            subscription: subscription.to_owned(),
            region: region.filter(|_| is_by_region).map(str::to_owned),
            class,
        }
    }
}

/// A window in which ACI counts creates, or deletes, of container groups: 5 minutes or one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateLimitWindow {
    /// 5 minutes.
    FiveMinutes,
    /// One hour.
    Hour,
}

impl RateLimitWindow {
    /// Both windows, each with the header that reports its remaining budget.
    pub const HEADERS: [(Self, &str); 2] = [
        (
            Self::FiveMinutes,
            "x-ms-ratelimit-remaining-subscription-resource-requests-pt5m",
        ),
        (
            Self::Hour,
            "x-ms-ratelimit-remaining-subscription-resource-requests-pt1h",
        ),
    ];

    fn length(self) -> Duration {
        match self {
            Self::FiveMinutes => Duration::from_secs(300),
            Self::Hour => Duration::from_secs(3600),
        }
    }
}

/// Answers to concurrent requests arrive in any order, so the remaining budget can appear to rise within a window,
/// but by no more than this. A larger rise means that a new window has begun.
const REORDER_TOLERANCE: u64 = 64;

/// A point in time, by the monotonic clock (for waiting) and by the wall clock (for display).
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    timestamp: Timestamp,
}

impl Deadline {
    fn after(wait: Duration) -> Self {
        let shown = Timestamp::now().saturating_add(wait);
        Self {
            at: Instant::now() + wait,
            timestamp: shown.unwrap_or(Timestamp::MAX),
        }
    }

    fn is_future(self) -> bool {
        Instant::now() < self.at
    }
}

/// The remaining budget of a window, valid until the window ends at the latest.
#[derive(Clone, Copy, Debug)]
struct RemainingBudget {
    remaining: u64,
    until: Deadline,
    /// Whether the start of the window was observed. If not, the window may end long before `until`.
    is_start_known: bool,
}

/// The waits that Azure has asked for, and the remaining budgets.
#[derive(Debug, Default)]
pub struct RetryAfterGate {
    blocked: Mutex<HashMap<RateLimitKey, Deadline>>,
    budgets: Mutex<HashMap<(RateLimitKey, RateLimitWindow), RemainingBudget>>,
}

impl RetryAfterGate {
    /// How long requests with this key must still wait; `None` if they may be sent now.
    pub fn remaining_wait(&self, key: &RateLimitKey) -> Option<Duration> {
        let until = *self.blocked.lock().get(key)?;
        let left = until.at.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The time, by the host's clock, until which requests with this key must wait; `None` if they may be sent now.
    pub fn blocked_until(&self, key: &RateLimitKey) -> Option<Timestamp> {
        let until = self.blocked.lock().get(key).copied();
        until
            .filter(|until| until.is_future())
            .map(|until| until.timestamp)
    }

    /// Blocks requests with this key after a 429.
    pub fn block(&self, key: RateLimitKey, retry_after: Option<Duration>) {
        let until = Deadline::after(
            retry_after
                .unwrap_or(DEFAULT_RETRY_AFTER)
                .min(MAX_RETRY_AFTER),
        );
        // The budgets are forgotten: the next answer reports new ones.
        self.budgets.lock().retain(|(other, _), _| *other != key);
        let mut blocked = self.blocked.lock();
        let entry = blocked.entry(key).or_insert(until);
        if entry.at < until.at {
            *entry = until;
        }
    }

    /// Records the remaining budget of a window, as an answer to a request with this key reported it.
    pub fn record_budget(&self, key: &RateLimitKey, window: RateLimitWindow, left: u64) {
        let new = RemainingBudget {
            remaining: left,
            // The window began no later than this request.
            until: Deadline::after(window.length()),
            is_start_known: false,
        };
        let mut budgets = self.budgets.lock();
        let known = budgets.entry((key.clone(), window)).or_insert(new);
        if !known.until.is_future() || left > known.remaining.saturating_add(REORDER_TOLERANCE) {
            *known = RemainingBudget {
                is_start_known: true,
                ..new
            };
        } else {
            known.remaining = known.remaining.min(left);
        }
    }

    /// How many requests with this key may still be sent, and the latest time at which that budget is renewed;
    /// `None` if it is not known. If the start of a window was not observed, at least one request may be sent: its
    /// answer reports the actual budget.
    pub fn remaining_budget(&self, key: &RateLimitKey) -> Option<(u64, Timestamp)> {
        let budgets = self.budgets.lock();
        let known = RateLimitWindow::HEADERS
            .into_iter()
            .filter_map(|(window, _)| {
                let known = budgets.get(&(key.clone(), window))?;
                let min_left = u64::from(!known.is_start_known);
                let left = known.remaining.max(min_left);
                known
                    .until
                    .is_future()
                    .then_some((left, known.until.timestamp))
            });
        known.min_by_key(|(left, until)| (*left, std::cmp::Reverse(*until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_of_one_counter_wait_for_retry_after_and_no_other_requests_do() {
        let gate = RetryAfterGate::default();
        let counted =
            |subscription: &str, class| RateLimitKey::new(subscription, Some("weu"), class);
        let creates = counted("s", RequestClass::Creates);
        gate.block(creates.clone(), Some(Duration::from_secs(10)));
        gate.block(creates.clone(), Some(Duration::from_secs(1)));
        assert_eq!(gate.remaining_wait(&creates), Some(Duration::from_secs(10)));
        for other in [
            counted("s", RequestClass::Reads),
            counted("t", RequestClass::Creates),
            RateLimitKey::new("s", Some("neu"), RequestClass::Creates),
        ] {
            assert_eq!(gate.remaining_wait(&other), None, "{other:?}");
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(gate.remaining_wait(&creates), None);
        gate.block(counted("s", RequestClass::Reads), None);
        let elsewhere = RateLimitKey::new("s", Some("neu"), RequestClass::Reads);
        assert!(
            gate.remaining_wait(&elsewhere).is_some(),
            "reads are the subscription's"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_remaining_budget_is_known_until_its_window_ends() {
        let gate = RetryAfterGate::default();
        let creates = RateLimitKey::new("s", Some("weu"), RequestClass::Creates);
        let left = |gate: &RetryAfterGate| gate.remaining_budget(&creates).map(|(left, _)| left);
        assert_eq!(left(&gate), None);
        gate.record_budget(&creates, RateLimitWindow::Hour, 150);
        gate.record_budget(&creates, RateLimitWindow::FiveMinutes, 9);
        // Answers arrive in any order.
        gate.record_budget(&creates, RateLimitWindow::FiveMinutes, 7);
        gate.record_budget(&creates, RateLimitWindow::FiveMinutes, 8);
        assert_eq!(left(&gate), Some(7));
        let elsewhere = RateLimitKey::new("s", Some("neu"), RequestClass::Creates);
        assert_eq!(gate.remaining_budget(&elsewhere), None);
        tokio::time::advance(Duration::from_secs(200)).await;
        gate.record_budget(&creates, RateLimitWindow::FiveMinutes, 0);
        assert_eq!(left(&gate), Some(1), "it may have begun long ago");
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(left(&gate), Some(150), "a new window has begun");
        gate.record_budget(&creates, RateLimitWindow::FiveMinutes, 99);
        assert_eq!(left(&gate), Some(99));
        gate.record_budget(&creates, RateLimitWindow::FiveMinutes, 0);
        assert_eq!(left(&gate), Some(0), "its beginning was seen");
        gate.block(creates.clone(), Some(Duration::from_secs(30)));
        assert_eq!(left(&gate), None);
        gate.record_budget(&creates, RateLimitWindow::FiveMinutes, 99);
        gate.record_budget(&creates, RateLimitWindow::Hour, 3);
        assert_eq!(left(&gate), Some(3), "the hour's is the lesser");
    }
}
