//! How fast container groups may be read: at most half of what ARM allows, so that everybody else of
//! the subscription keeps the other half.
//!
//! In: callers that want to read. Out: their turns, in the order in which they asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// ARM's read bucket refills by 25 a second (documented since 2024); we take half.
const PER_SECOND: f64 = 12.5;
/// ARM's read bucket holds 250; we take half.
const BURST: f64 = 125.0;

/// A pace that is kept by everybody who waits for it.
///
/// The generic cell rate algorithm: one instant says everything. A turn may be taken as long as it is
/// less than `burst` turns ahead of the steady pace.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    tolerance: Duration,
    /// When the next turn would be at the steady pace.
    steady: Mutex<Option<Instant>>,
    /// Held by whoever is next. It is fair, so turns go in the order in which they were asked for.
    line: tokio::sync::Mutex<()>,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(PER_SECOND, BURST)
    }
}

impl Pace {
    /// A pace of so many turns a second, of which so many may be taken at once after a pause.
    pub fn new(per_second: f64, burst: f64) -> Self {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let tolerance = interval.mul_f64((burst - 1.0).max(0.0));
        Self {
            interval,
            tolerance,
            steady: Mutex::new(None),
            line: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits for a turn, in line.
    pub async fn turn(&self) {
        let _next = self.line.lock().await;
        while let Err(earliest) = self.take() {
            tokio::time::sleep_until(earliest).await;
        }
    }

    /// Waits for a turn before everybody in line: for a request that answers for many of them.
    pub async fn turn_ahead(&self) {
        let earliest = {
            let mut steady = self.steady();
            let at = steady.map_or_else(Instant::now, |at| at.max(Instant::now()));
            *steady = Some(at + self.interval);
            at.checked_sub(self.tolerance)
        };
        if let Some(earliest) = earliest {
            tokio::time::sleep_until(earliest).await;
        }
    }

    /// How long so many turns take at the steady pace.
    pub fn time_of(&self, turns: u32) -> Duration {
        self.interval.saturating_mul(turns)
    }

    /// Takes a turn now, or says when one may be had at the earliest.
    fn take(&self) -> Result<(), Instant> {
        let mut steady = self.steady();
        let now = Instant::now();
        let at = steady.map_or(now, |at| at.max(now));
        match at.checked_sub(self.tolerance) {
            Some(earliest) if earliest > now => Err(earliest),
            _ => {
                *steady = Some(at + self.interval);
                Ok(())
            }
        }
    }

    fn steady(&self) -> MutexGuard<'_, Option<Instant>> {
        self.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_the_steady_pace_is_kept() {
        let pace = Pace::default();
        let began = Instant::now();
        for _ in 0..125 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..25 {
            pace.turn().await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((1.9..2.1).contains(&took), "{took}");
        tokio::time::advance(Duration::from_secs(60)).await;
        let later = Instant::now();
        for _ in 0..125 {
            pace.turn().await;
        }
        assert_eq!(
            later.elapsed(),
            Duration::ZERO,
            "the bucket is full again, and no fuller"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn turns_go_in_the_order_in_which_they_were_asked_for() {
        let pace = Arc::new(Pace::new(10.0, 1.0));
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..5 {
            let (pace, sender) = (pace.clone(), sender.clone());
            tokio::spawn(async move {
                pace.turn().await;
                sender.send(n)
            });
            tokio::task::yield_now().await;
        }
        drop(sender);
        let mut seen = Vec::new();
        while let Some(n) = order.recv().await {
            seen.push(n);
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_ahead_comes_before_those_in_line_and_counts_like_theirs() {
        let pace = Arc::new(Pace::new(10.0, 1.0));
        pace.turn().await;
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for name in ["first", "second"] {
            let (pace, sender) = (pace.clone(), sender.clone());
            tokio::spawn(async move {
                pace.turn().await;
                sender.send(name)
            });
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        pace.turn_ahead().await;
        sender.send("ahead").expect("it is received");
        drop(sender);
        let mut seen = Vec::new();
        while let Some(name) = order.recv().await {
            seen.push(name);
        }
        assert_eq!(seen, ["ahead", "first", "second"]);
        assert_eq!(began.elapsed(), Duration::from_millis(300));
    }
}
