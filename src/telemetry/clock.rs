//! A clock that follows the API server's time.
//!
//! In: when a request was sent and answered, by this process's monotonic clock, and the `Date` header of the
//! answer. Out: the API server's time ([`ServerClock::now`]), which the operator writes to objects of the cluster and
//! compares with times in them; and a monotonic time ([`ServerClock::steady`]), which no other clock changes and which
//! plans and holds use. The machine's clock and the API server's clock may be wrong by minutes, or may be set while
//! the process runs.
//!
//! The offset of the API server's clock is known only within bounds: `Date` has whole seconds, and the API server
//! wrote it at some time during the round trip. The bounds of all answers hold at the same time, so they become
//! narrower. Within the bounds, the clock uses the offset that is closest to the machine's clock.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// A larger difference between the clocks causes a warning, because it also affects certificates, tokens and
/// leases.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(5);

/// The resolution of `Date` and of times in Kubernetes objects: fractions are cut off.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(1);

/// A clock that follows the API server's.
#[derive(Debug)]
pub struct ServerClock {
    start: Instant,
    /// The machine's time at `start`.
    origin: Timestamp,
    /// An artificial error of the machine's clock, for tests.
    shift: SignedDuration,
    state: Mutex<OffsetState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct OffsetState {
    bounds: Option<OffsetBounds>,
    /// The estimated offset: how far the API server's clock is ahead.
    ahead: SignedDuration,
    /// Whether a warning about the skew has been logged.
    is_warned: bool,
}

/// The smallest and the largest possible offset: how far the API server's clock is ahead of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OffsetBounds {
    least: SignedDuration,
    most: SignedDuration,
}

impl Default for ServerClock {
    fn default() -> Self {
        Self::shifted(SignedDuration::ZERO)
    }
}

impl ServerClock {
    /// A clock that behaves as if the machine's clock were `shift` ahead of what it shows. For tests.
    pub fn shifted(shift: SignedDuration) -> Self {
        Self {
            start: Instant::now(),
            origin: later(Timestamp::now(), shift),
            shift,
            state: Mutex::default(),
        }
    }

    /// How long this clock has been running. Read it when a request is sent.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A time that advances with the monotonic clock, whatever other clocks do. Only differences between such times
    /// are meaningful.
    pub fn steady(&self) -> Timestamp {
        self.local(self.elapsed())
    }

    /// The API server's current time.
    pub fn now(&self) -> Timestamp {
        later(self.steady(), self.ahead())
    }

    /// How far the API server's clock is ahead of [`ServerClock::steady`] now.
    pub fn ahead(&self) -> SignedDuration {
        self.state.lock().ahead
    }

    /// The minimum age of a time that the API server wrote and truncated to whole seconds.
    pub fn age(&self, written: Timestamp) -> Duration {
        let state = *self.state.lock();
        // The smallest offset is used, and not the machine's clock, which may be ahead.
        let least = state.bounds.map_or(state.ahead, |bounds| bounds.least);
        let now = later(self.steady(), least.min(state.ahead));
        let age = now.duration_since(later(written, RESOLUTION));
        Duration::try_from(age).unwrap_or_default()
    }

    fn local(&self, elapsed: Duration) -> Timestamp {
        later(self.origin, signed(elapsed))
    }

    /// How far the machine's clock is ahead of the API server's.
    pub fn skew(&self) -> SignedDuration {
        later(Timestamp::now(), self.shift).duration_since(self.now())
    }

    /// The value of [`ServerClock::steady`] at the moment when the machine's clock showed `at`. It is wrong if the
    /// machine's clock was set since.
    pub fn of_machine(&self, at: Timestamp) -> Timestamp {
        let ago = Timestamp::now().duration_since(at);
        later(self.steady(), -ago)
    }

    /// Processes the `Date` header of an answer that has just arrived. `sent` is the value of [`ServerClock::elapsed`]
    /// when the request was sent.
    pub fn record_date(&self, sent: Duration, date: &str) {
        let Ok(date) = jiff::fmt::rfc2822::parse(date) else {
            return;
        };
        self.update_bounds(sent, self.elapsed(), date.timestamp());
        let skew = self.skew();
        let is_skewed = skew.abs() > MAX_SKEW;
        let has_changed = {
            let mut state = self.state.lock();
            std::mem::replace(&mut state.is_warned, is_skewed) != is_skewed
        };
        if has_changed && is_skewed {
            tracing::warn!(
                seconds = skew.as_secs(),
                "this machine's clock is ahead of the API server's (behind, if negative): synchronize it; \
                 burstpool uses the API server's time for holds"
            );
        }
    }

    fn update_bounds(&self, sent: Duration, answered: Duration, date: Timestamp) {
        let new = OffsetBounds {
            least: date.duration_since(self.local(answered)),
            most: later(date, RESOLUTION).duration_since(self.local(sent)),
        };
        let mut state = self.state.lock();
        let bounds = state
            .bounds
            .map_or(new, |earlier| earlier.combined_with(new));
        state.ahead = bounds.nearest(state.ahead);
        state.bounds = Some(bounds);
    }
}

impl OffsetBounds {
    /// Combines both bounds. If they contradict each other by at most a second, the clocks have drifted apart, and
    /// the end of `new` that is nearest to the old bounds is used. If they differ by more, a clock was set, and
    /// only `new` is used.
    fn combined_with(self, new: Self) -> Self {
        let overlap = Self {
            least: self.least.max(new.least),
            most: self.most.min(new.most),
        };
        if overlap.least <= overlap.most {
            return overlap;
        }
        if overlap.least - overlap.most > RESOLUTION {
            return new;
        }
        let end = if new.least > self.most {
            new.least
        } else {
            new.most
        };
        Self {
            least: end,
            most: end,
        }
    }

    /// The offset within the bounds that is nearest to `ahead`; the smallest offset if `ahead` is below the bounds,
    /// or more than a second above them.
    fn nearest(self, ahead: SignedDuration) -> SignedDuration {
        if ahead > self.most && ahead - self.most <= RESOLUTION {
            self.most
        } else if ahead > self.most || ahead < self.least {
            self.least
        } else {
            ahead
        }
    }
}

fn later(time: Timestamp, offset: SignedDuration) -> Timestamp {
    time.saturating_add(offset).unwrap_or(time)
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: i64) -> SignedDuration {
        SignedDuration::from_millis(ms)
    }

    /// The offset after a list of answers, each `(sent, answered)` in milliseconds since the clock started. The
    /// server is ahead by `ahead` milliseconds, and writes `Date` in whole seconds halfway through the round trip.
    fn offset_after(ahead: i64, answers: &[(u64, u64)]) -> SignedDuration {
        let clock = ServerClock::default();
        for (sent, answered) in answers {
            let server_time =
                i64::try_from(u64::midpoint(*sent, *answered)).expect("small") + ahead;
            let date = later(clock.origin, ms(server_time));
            let date = Timestamp::from_second(date.as_second()).expect("in range");
            clock.update_bounds(
                Duration::from_millis(*sent),
                Duration::from_millis(*answered),
                date,
            );
        }
        clock.state.lock().ahead
    }

    #[test]
    fn a_clock_that_may_be_correct_is_not_corrected() {
        for ahead in [-20, 0, 20] {
            assert_eq!(offset_after(ahead, &[(0, 60)]), ms(0), "{ahead} ms");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_corrected_within_the_round_trip_and_never_too_far_ahead() {
        let each_100_ms: Vec<(u64, u64)> = (0..50).map(|n| (n * 100, n * 100 + 10)).collect();
        for seconds in [-3600, -90, -3, 3, 90, 3600] {
            let once = offset_after(seconds * 1000, &[(0, 10)]);
            let off = once - ms(seconds * 1000);
            assert!(
                off <= ms(10) && off >= ms(-1010),
                "{seconds} s: off by {off}"
            );
            let off = offset_after(seconds * 1000, &each_100_ms) - ms(seconds * 1000);
            assert!(
                off <= ms(10) && off >= ms(-120),
                "{seconds} s: off by {off}"
            );
        }
    }

    #[test]
    fn a_slow_answer_has_wide_bounds_and_a_set_clock_replaces_the_old_bounds() {
        let slow = offset_after(90_000, &[(0, 20_000)]);
        assert!(slow >= ms(78_000) && slow <= ms(90_000), "{slow}");
        let clock = ServerClock::default();
        for ahead in [90, -30] {
            let date = later(clock.origin, SignedDuration::from_secs(ahead));
            clock.update_bounds(Duration::ZERO, Duration::from_millis(5), date);
            let off = clock.state.lock().ahead - SignedDuration::from_secs(ahead);
            assert!(off.abs() < ms(1100), "{ahead}: {off}");
        }
    }

    #[test]
    fn clocks_that_drift_apart_are_followed_without_jumps() {
        let clock = ServerClock::default();
        // The clock drifts by a hundred parts per million for five days, with one answer each minute.
        let mut before = None;
        for minute in 0..7200_i64 {
            let elapsed = Duration::from_secs(60 * minute.unsigned_abs());
            let drift = ms(6 * minute);
            let date = later(clock.local(elapsed), drift);
            let date = Timestamp::from_second(date.as_second()).expect("in range");
            clock.update_bounds(elapsed, elapsed + Duration::from_millis(5), date);
            let off = clock.state.lock().ahead - drift;
            let jump = before.map_or(ms(0), |before| off - before);
            before = Some(off);
            assert!(off.abs() <= ms(1010), "minute {minute}: off by {off}");
            assert!(jump.abs() <= ms(1010), "minute {minute}: jumps by {jump}");
        }
    }

    #[test]
    fn the_age_of_a_server_time_is_never_overestimated() {
        for ahead in [-90, 0, 90] {
            let clock = ServerClock::shifted(SignedDuration::from_secs(-ahead));
            let server_time = Timestamp::now();
            let date = Timestamp::from_second(server_time.as_second()).expect("in range");
            clock.update_bounds(clock.elapsed(), clock.elapsed(), date);
            let age = clock.age(date - Duration::from_secs(60));
            let (min, max) = (Duration::from_secs(58), Duration::from_secs(61));
            assert!(min <= age && age <= max, "{ahead}: {age:?}");
            assert_eq!(
                clock.age(server_time + Duration::from_secs(60)),
                Duration::ZERO
            );
        }
    }

    #[test]
    fn a_skew_is_measured_after_the_first_answer() {
        let clock = ServerClock::shifted(SignedDuration::from_secs(90));
        let skew = clock.skew().as_secs();
        assert!(
            (-1..=1).contains(&skew),
            "no answer has arrived yet: {skew}"
        );
        let date =
            jiff::fmt::rfc2822::to_string(&Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC));
        clock.record_date(clock.elapsed(), &date.expect("a date"));
        let skew = clock.skew().as_secs();
        assert!((88..=92).contains(&skew), "{skew}");
        clock.record_date(clock.elapsed(), "no date");
        clock.record_date(clock.elapsed(), "Thu, 01 Jan 2026 00:00:00 GMT");
        assert!(clock.skew().as_secs() > 1000);
    }
}
