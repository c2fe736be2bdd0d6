//! The emulator's clock: it runs at the host's speed, runs faster or slower, or stands still.
//!
//! In: the host's clock, and commands from a test or an operator (`pause`, `advance`, `set_speed`).
//! Out: `now` for every decision in the emulator, `sleep_until` for the few tasks that wait, and a
//! [`ShownClock`], which converts emulated times into the times that clients see.
//!
//! By default the speed only shortens waits. Clients compare the times in responses with their own
//! clocks, so the emulator must not show them a time in their future. Nothing else in the emulator
//! reads time. A test that pauses this clock therefore sees no change that it did not cause.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many speed changes a [`ShownClock`] remembers. For times before the oldest one, it uses the oldest
/// speed.
const SPEEDS_KEPT: usize = 64;

/// Which times the emulator shows to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShownTime {
    /// The host's time, at every speed. [`EmulatorClock::advance`] moves it, and [`EmulatorClock::pause`] stops it.
    #[default]
    HostTime,
    /// The emulator's own time. It starts `behind` the host's time and runs at the emulator's speed.
    EmulatedTime {
        /// How far the emulated time is behind the host's time at the start.
        behind: Duration,
    },
}

/// A clock that runs `speed` times as fast as the host's clock and can be paused.
#[derive(Debug)]
pub struct EmulatorClock {
    inner: Mutex<ClockState>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct ClockState {
    /// The emulated time at `anchor`.
    at_anchor: Timestamp,
    anchor: Instant,
    speed: f64,
    paused: bool,
    shown_clock: ShownClock,
}

impl ClockState {
    fn now(&self) -> Timestamp {
        if self.paused {
            return self.at_anchor;
        }
        later(self.at_anchor, self.anchor.elapsed().mul_f64(self.speed))
    }

    fn rebase(&mut self) {
        self.at_anchor = self.now();
        self.anchor = Instant::now();
    }
}

/// Converts emulated times into the times that clients see. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShownClock {
    /// When each speed took effect, oldest first. Empty if clients see emulated times.
    spans: Arc<Vec<SpeedSpan>>,
}

#[derive(Clone, Copy, Debug)]
struct SpeedSpan {
    emulated: Timestamp,
    shown: Timestamp,
    speed: f64,
}

impl ShownClock {
    fn new(shows: ShownTime, now: Timestamp, speed: f64) -> Self {
        let first = SpeedSpan {
            emulated: now,
            shown: now,
            speed,
        };
        let spans = match shows {
            ShownTime::HostTime => vec![first],
            ShownTime::EmulatedTime { .. } => Vec::new(),
        };
        Self {
            spans: Arc::new(spans),
        }
    }

    /// The time that clients see for the emulated time `at`.
    pub fn shown(&self, at: Timestamp) -> Timestamp {
        let of_time = self.spans.iter().rev().find(|span| span.emulated <= at);
        let Some(span) = of_time.or(self.spans.first()) else {
            return at;
        };
        let passed = at.duration_since(span.emulated).as_secs_f64() / span.speed;
        let passed = SignedDuration::try_from_secs_f64(passed);
        let shown = span.shown.saturating_add(passed.unwrap_or_default());
        shown.unwrap_or(span.shown)
    }

    fn set_speed(&mut self, now: Timestamp, speed: f64) {
        let shown = self.shown(now);
        let spans = Arc::make_mut(&mut self.spans);
        if spans.is_empty() {
            return;
        }
        if spans.len() >= SPEEDS_KEPT {
            spans.remove(0);
        }
        spans.push(SpeedSpan {
            emulated: now,
            shown,
            speed,
        });
    }
}

impl EmulatorClock {
    /// Starts a clock. Clamps `speed` to 0.001..=100,000; a speed that is not finite becomes 1.
    pub fn new(speed: f64, shows: ShownTime) -> Self {
        let (host, speed) = (Timestamp::now(), clamp_speed(speed));
        let now = match shows {
            ShownTime::HostTime => host,
            ShownTime::EmulatedTime { behind } => host.saturating_sub(behind).unwrap_or(host),
        };
        let inner = ClockState {
            at_anchor: now,
            anchor: Instant::now(),
            speed,
            paused: false,
            shown_clock: ShownClock::new(shows, now, speed),
        };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
        }
    }

    /// The emulated time.
    pub fn now(&self) -> Timestamp {
        self.inner.lock().now()
    }

    /// Converts emulated times up to now into the times that clients see.
    pub fn shown_clock(&self) -> ShownClock {
        self.inner.lock().shown_clock.clone()
    }

    /// How many emulated seconds pass in one second of the host.
    pub fn speed(&self) -> f64 {
        self.inner.lock().speed
    }

    /// Whether the clock is paused.
    pub fn is_paused(&self) -> bool {
        self.inner.lock().paused
    }

    /// Pauses the clock.
    pub fn pause(&self) {
        self.change(|inner| inner.paused = true);
    }

    /// Resumes a paused clock from the time at which it stands.
    pub fn resume(&self) {
        self.change(|inner| inner.paused = false);
    }

    /// Changes the speed from now on. Clamped as in [`EmulatorClock::new`].
    pub fn set_speed(&self, speed: f64) {
        self.change(|inner| {
            inner.speed = clamp_speed(speed);
            inner.shown_clock.set_speed(inner.at_anchor, inner.speed);
        });
    }

    /// Moves the emulated time forward by `by`, also while the clock is paused.
    pub fn advance(&self, by: Duration) {
        self.change(|inner| inner.at_anchor = later(inner.at_anchor, by));
    }

    /// Waits until the emulated time is `at` or later.
    pub async fn sleep_until(&self, at: Timestamp) {
        let mut changed = self.changed.subscribe();
        loop {
            let (now, speed, paused) = {
                let inner = self.inner.lock();
                (inner.now(), inner.speed, inner.paused)
            };
            let remaining = between(now, at);
            if remaining.is_zero() {
                return;
            }
            let host = if paused {
                Duration::MAX
            } else {
                remaining.div_f64(speed)
            };
            tokio::select! {
                () = tokio::time::sleep(host.max(Duration::from_millis(1))) => {}
                _ = changed.changed() => {}
            }
        }
    }

    fn change(&self, how: impl FnOnce(&mut ClockState)) {
        let mut inner = self.inner.lock();
        inner.rebase();
        how(&mut inner);
        drop(inner);
        self.changed.send_replace(());
    }
}

fn clamp_speed(speed: f64) -> f64 {
    if speed.is_finite() {
        speed.clamp(0.001, 100_000.0)
    } else {
        1.0
    }
}

/// `at` plus `by`, capped at [`Timestamp::MAX`].
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The duration from `from` to `to`; zero if `to` is earlier.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_at_its_speed_and_stands_when_paused() {
        let clock = EmulatorClock::new(10.0, ShownTime::HostTime);
        let start = clock.now();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(between(start, clock.now()), Duration::from_secs(20));
        clock.pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(between(start, clock.now()), Duration::from_secs(20));
        clock.advance(Duration::from_secs(5));
        assert_eq!(between(start, clock.now()), Duration::from_secs(25));
        clock.resume();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(between(start, clock.now()), Duration::from_secs(35));
    }

    #[tokio::test(start_paused = true)]
    async fn shown_time_runs_at_the_hosts_speed_whatever_the_emulated_speed() {
        let clock = EmulatorClock::new(10.0, ShownTime::HostTime);
        let (start, mut passed) = (clock.now(), 0);
        assert_eq!(clock.shown_clock().shown(start), start);
        let mut looked = vec![];
        for speed in [10.0, 1000.0, 0.5, 1.0].into_iter().cycle().take(100) {
            clock.set_speed(speed);
            tokio::time::advance(Duration::from_secs(2)).await;
            passed += 2;
            let now = clock.now();
            let since = |at| between(start, at).as_millis();
            // Speeds are floating-point fractions of seconds: the conversion may lose a nanosecond.
            assert!(since(clock.shown_clock().shown(now)).abs_diff(passed * 1000) <= 1);
            looked.push((now, passed));
        }
        // Times before a speed change must still convert to the same values.
        let shown_clock = clock.shown_clock();
        for (at, passed) in looked.split_off(60) {
            let since = between(start, shown_clock.shown(at)).as_millis();
            assert!(since.abs_diff(passed * 1000) <= 1, "{since} {passed}");
        }
        let emulated = EmulatorClock::new(
            10.0,
            ShownTime::EmulatedTime {
                behind: Duration::from_secs(60),
            },
        );
        emulated.set_speed(20.0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(emulated.shown_clock().shown(emulated.now()), emulated.now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_wakes_when_the_paused_clock_is_moved() {
        let clock = std::sync::Arc::new(EmulatorClock::new(1.0, ShownTime::HostTime));
        clock.pause();
        let at = later(clock.now(), Duration::from_secs(60));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(at).await }
        });
        clock.advance(Duration::from_secs(61));
        sleeper.await.expect("the sleeper ends");
    }
}
