//! The time as the API server tells it.
//!
//! In: when a request was sent and answered by this process's monotonic clock, and the `Date` of the answer. Out: the
//! API server's time ([`Clock::now`]), which is written to the cluster's objects and compared with what they say; and a
//! time that no other clock changes ([`Clock::steady`]), by which plans are made and holds are measured. The machine's
//! clock, and the API server's, may be minutes off, or be set while the process runs.
//!
//! How far the API server's clock is ahead of ours is known only within bounds: `Date` tells whole seconds, and was
//! written at some time during the round trip. The bounds of all answers hold together, so they narrow. Within the bounds,
//! the machine's clock is believed as far as it can be right.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Beyond this difference of the clocks there is a warning: certificates, tokens and leases suffer from it, too.
const SKEWED: SignedDuration = SignedDuration::from_secs(5);

/// What `Date`, and the times of Kubernetes' objects, are cut to.
const WHOLE: SignedDuration = SignedDuration::from_secs(1);

/// A clock that follows the API server's.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    /// The machine's time then.
    origin: Timestamp,
    /// How far the machine's clock is taken to be off, in tests.
    shift: SignedDuration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    bounds: Option<Bounds>,
    /// How far the API server's clock is taken to be ahead.
    ahead: SignedDuration,
    is_told: bool,
}

/// How far the API server's clock is ahead of this one, at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    least: SignedDuration,
    most: SignedDuration,
}

impl Default for Clock {
    fn default() -> Self {
        Self::shifted(SignedDuration::ZERO)
    }
}

impl Clock {
    /// A clock on a machine whose own is so far ahead of what it says: for tests.
    pub fn shifted(shift: SignedDuration) -> Self {
        Self {
            began: Instant::now(),
            origin: later(Timestamp::now(), shift),
            shift,
            state: Mutex::default(),
        }
    }

    /// How long this clock has run: to be asked when a request is sent.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A time that goes as the monotonic clock does, whatever other clocks say: only spans between such times mean
    /// anything.
    pub fn steady(&self) -> Timestamp {
        self.local(self.elapsed())
    }

    /// The API server's time.
    pub fn now(&self) -> Timestamp {
        later(self.steady(), self.ahead())
    }

    /// How far the API server's clock is ahead of [`Clock::steady`] at this moment.
    pub fn ahead(&self) -> SignedDuration {
        self.lock().ahead
    }

    /// How long ago, at least, the API server wrote a time that it cut to whole seconds.
    pub fn age(&self, written: Timestamp) -> Duration {
        let state = *self.lock();
        // Nothing is assumed for the machine's sake: it may be ahead.
        let least = state.bounds.map_or(state.ahead, |bounds| bounds.least);
        let now = later(self.steady(), least.min(state.ahead));
        let age = now.duration_since(later(written, WHOLE));
        Duration::try_from(age).unwrap_or_default()
    }

    fn local(&self, elapsed: Duration) -> Timestamp {
        later(self.origin, signed(elapsed))
    }

    /// How far the machine's clock is ahead of the cluster's.
    pub fn skew(&self) -> SignedDuration {
        later(Timestamp::now(), self.shift).duration_since(self.now())
    }

    /// What [`Clock::steady`] said when the machine's clock said `at`, unless that was set since.
    pub fn of_machine(&self, at: Timestamp) -> Timestamp {
        let ago = Timestamp::now().duration_since(at);
        later(self.steady(), -ago)
    }

    /// A request that was sent at `sent` by this clock's [`Clock::elapsed`] was answered now; its header `Date`.
    pub fn heard(&self, sent: Duration, date: &str) {
        let Ok(date) = jiff::fmt::rfc2822::parse(date) else {
            return;
        };
        self.learn(sent, self.elapsed(), date.timestamp());
        let skew = self.skew();
        let is_skewed = skew.abs() > SKEWED;
        let is_news = {
            let mut state = self.lock();
            std::mem::replace(&mut state.is_told, is_skewed) != is_skewed
        };
        if is_news && is_skewed {
            tracing::warn!(
                seconds = skew.as_secs(),
                "this machine's clock is ahead of the API server's (behind, if negative): synchronize it; \
                 the API server's time is used for holds"
            );
        }
    }

    fn learn(&self, sent: Duration, answered: Duration, date: Timestamp) {
        let new = Bounds {
            least: date.duration_since(self.local(answered)),
            most: later(date, WHOLE).duration_since(self.local(sent)),
        };
        let mut state = self.lock();
        let bounds = state.bounds.map_or(new, |known| known.with(new));
        state.ahead = bounds.nearest(state.ahead);
        state.bounds = Some(bounds);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bounds {
    /// Both. Where they contradict each other by little, the clocks drift apart, and the end of `new` that is nearest
    /// holds. Where they do by much, a clock was set, and `new` holds alone.
    fn with(self, new: Self) -> Self {
        let both = Self {
            least: self.least.max(new.least),
            most: self.most.min(new.most),
        };
        if both.least <= both.most {
            return both;
        }
        if both.least - both.most > WHOLE {
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

    /// What is within these bounds and nearest to `ahead`; the least where that is far off.
    fn nearest(self, ahead: SignedDuration) -> SignedDuration {
        if ahead > self.most && ahead - self.most <= WHOLE {
            self.most
        } else if ahead > self.most || ahead < self.least {
            self.least
        } else {
            ahead
        }
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
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

    /// What a clock says of each answer `(sent, answered, its Date)`, all in milliseconds since the clock began; `Date`
    /// tells whole seconds of a server that is ahead by `ahead`.
    fn corrected(ahead: i64, answers: &[(u64, u64)]) -> SignedDuration {
        let clock = Clock::default();
        for (sent, answered) in answers {
            let truly = i64::try_from(u64::midpoint(*sent, *answered)).expect("small") + ahead;
            let date = later(clock.origin, ms(truly));
            let date = Timestamp::from_second(date.as_second()).expect("in range");
            clock.learn(
                Duration::from_millis(*sent),
                Duration::from_millis(*answered),
                date,
            );
        }
        clock.lock().ahead
    }

    #[test]
    fn a_clock_that_may_be_right_is_not_corrected() {
        for ahead in [-20, 0, 20] {
            assert_eq!(corrected(ahead, &[(0, 60)]), ms(0), "{ahead} ms");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_corrected_within_the_round_trip_and_never_too_far_ahead() {
        let each_100_ms: Vec<(u64, u64)> = (0..50).map(|n| (n * 100, n * 100 + 10)).collect();
        for seconds in [-3600, -90, -3, 3, 90, 3600] {
            let once = corrected(seconds * 1000, &[(0, 10)]);
            let off = once - ms(seconds * 1000);
            assert!(
                off <= ms(10) && off >= ms(-1010),
                "{seconds} s: off by {off}"
            );
            let off = corrected(seconds * 1000, &each_100_ms) - ms(seconds * 1000);
            assert!(
                off <= ms(10) && off >= ms(-120),
                "{seconds} s: off by {off}"
            );
        }
    }

    #[test]
    fn an_answer_that_took_long_tells_little_and_one_of_a_clock_that_was_set_counts_alone() {
        let slow = corrected(90_000, &[(0, 20_000)]);
        assert!(slow >= ms(78_000) && slow <= ms(90_000), "{slow}");
        let clock = Clock::default();
        for ahead in [90, -30] {
            let date = later(clock.origin, SignedDuration::from_secs(ahead));
            clock.learn(Duration::ZERO, Duration::from_millis(5), date);
            let off = clock.lock().ahead - SignedDuration::from_secs(ahead);
            assert!(off.abs() < ms(1100), "{ahead}: {off}");
        }
    }

    #[test]
    fn clocks_that_drift_apart_are_followed_without_jumps() {
        let clock = Clock::default();
        // It is wrong by a hundred parts in a million for five days, and asked every minute.
        let mut before = None;
        for minute in 0..7200_i64 {
            let elapsed = Duration::from_secs(60 * minute.unsigned_abs());
            let drift = ms(6 * minute);
            let date = later(clock.local(elapsed), drift);
            let date = Timestamp::from_second(date.as_second()).expect("in range");
            clock.learn(elapsed, elapsed + Duration::from_millis(5), date);
            let off = clock.lock().ahead - drift;
            let jump = before.map_or(ms(0), |before| off - before);
            before = Some(off);
            assert!(off.abs() <= ms(1010), "minute {minute}: off by {off}");
            assert!(jump.abs() <= ms(1010), "minute {minute}: jumps by {jump}");
        }
    }

    #[test]
    fn what_the_api_server_wrote_is_at_least_so_old() {
        for ahead in [-90, 0, 90] {
            let clock = Clock::shifted(SignedDuration::from_secs(-ahead));
            let truly = Timestamp::now();
            let date = Timestamp::from_second(truly.as_second()).expect("in range");
            clock.learn(clock.elapsed(), clock.elapsed(), date);
            let age = clock.age(date - Duration::from_secs(60));
            let (least, most) = (Duration::from_secs(58), Duration::from_secs(61));
            assert!(least <= age && age <= most, "{ahead}: {age:?}");
            assert_eq!(clock.age(truly + Duration::from_secs(60)), Duration::ZERO);
        }
    }

    #[test]
    fn a_machine_that_is_ahead_is_said_to_be() {
        let clock = Clock::shifted(SignedDuration::from_secs(90));
        let skew = clock.skew().as_secs();
        assert!(
            (-1..=1).contains(&skew),
            "nothing is known of it yet: {skew}"
        );
        let date =
            jiff::fmt::rfc2822::to_string(&Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC));
        clock.heard(clock.elapsed(), &date.expect("a date"));
        let skew = clock.skew().as_secs();
        assert!((88..=92).contains(&skew), "{skew}");
        clock.heard(clock.elapsed(), "no date");
        clock.heard(clock.elapsed(), "Thu, 01 Jan 2026 00:00:00 GMT");
        assert!(clock.skew().as_secs() > 1000);
    }
}
