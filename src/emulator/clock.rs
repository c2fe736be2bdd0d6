//! The emulator's clock: real time, real time made faster, or standing still.
//!
//! In: the host's clock and what a test or an operator says (`pause`, `advance`, `set_speed`).
//! Out: `now` for every decision in the emulator, and `sleep_until` for the few that wait.
//! Nothing else in the emulator reads time, so a test that pauses this clock sees no change that
//! it did not ask for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

/// A clock that runs `speed` times as fast as the host's and can be stopped.
#[derive(Debug)]
pub struct Clock {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    /// What the clock showed at `anchor`.
    shown: Timestamp,
    anchor: Instant,
    speed: f64,
    paused: bool,
}

impl Inner {
    fn now(&self) -> Timestamp {
        if self.paused {
            return self.shown;
        }
        later(self.shown, self.anchor.elapsed().mul_f64(self.speed))
    }

    fn rebase(&mut self) {
        self.shown = self.now();
        self.anchor = Instant::now();
    }
}

impl Clock {
    /// A running clock that shows what the host's showed `behind` ago. `speed` is clamped to
    /// 0.001..=100,000.
    pub fn new(speed: f64, behind: Duration) -> Self {
        let now = Timestamp::now();
        let inner = Inner {
            shown: now.saturating_sub(behind).unwrap_or(now),
            anchor: Instant::now(),
            speed: sane(speed),
            paused: false,
        };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
        }
    }

    /// What the clock shows.
    pub fn now(&self) -> Timestamp {
        self.lock().now()
    }

    /// How many emulated seconds pass in one of the host's.
    pub fn speed(&self) -> f64 {
        self.lock().speed
    }

    /// Whether the clock stands still.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// Stops the clock.
    pub fn pause(&self) {
        self.change(|inner| inner.paused = true);
    }

    /// Lets a stopped clock go on from what it shows.
    pub fn resume(&self) {
        self.change(|inner| inner.paused = false);
    }

    /// Sets the speed, from now on.
    pub fn set_speed(&self, speed: f64) {
        self.change(|inner| inner.speed = sane(speed));
    }

    /// Moves the clock forward by `by`, whether it runs or stands.
    pub fn advance(&self, by: Duration) {
        self.change(|inner| inner.shown = later(inner.shown, by));
    }

    /// Waits until the clock shows `at` or more.
    pub async fn sleep_until(&self, at: Timestamp) {
        let mut changed = self.changed.subscribe();
        loop {
            let (now, speed, paused) = {
                let inner = self.lock();
                (inner.now(), inner.speed, inner.paused)
            };
            let left = between(now, at);
            if left.is_zero() {
                return;
            }
            let host = if paused {
                Duration::MAX
            } else {
                left.div_f64(speed)
            };
            tokio::select! {
                () = tokio::time::sleep(host.max(Duration::from_millis(1))) => {}
                _ = changed.changed() => {}
            }
        }
    }

    fn change(&self, how: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        inner.rebase();
        how(&mut inner);
        drop(inner);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sane(speed: f64) -> f64 {
    if speed.is_finite() {
        speed.clamp(0.001, 100_000.0)
    } else {
        1.0
    }
}

/// `at` plus `by`, held at the greatest time there is.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// How long after `from` is `to`; zero if it is not after.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_at_its_speed_and_stands_when_paused() {
        let clock = Clock::new(10.0, Duration::ZERO);
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
    async fn a_sleeper_wakes_when_the_paused_clock_is_moved() {
        let clock = std::sync::Arc::new(Clock::new(1.0, Duration::ZERO));
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
