//! Rate limiter for reads of container groups. It uses at most half of what ARM allows, so that other clients of
//! the subscription keep the other half.
//!
//! In: callers that want to read. Out: permission to send one read, in the order of their arrival.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Half of the refill rate of ARM's read bucket: 25 per second (documented since 2024).
const READS_PER_SECOND: f64 = 12.5;
/// Half of the size of ARM's read bucket: 250.
const READ_BURST: f64 = 125.0;

/// A rate limiter that all readers share.
///
/// It implements the generic cell rate algorithm, whose state is a single instant. A caller may proceed if that
/// instant is less than `burst` intervals ahead of now.
#[derive(Debug)]
pub struct RateLimiter {
    interval: Duration,
    tolerance: Duration,
    /// When the next request would be due at the steady rate.
    next_arrival: Mutex<Option<Instant>>,
    /// The queue. The caller at its head holds this lock. The lock is fair, so callers proceed in the order of
    /// their arrival.
    queue: tokio::sync::Mutex<()>,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self::new(READS_PER_SECOND, READ_BURST)
    }
}

impl RateLimiter {
    /// Allows `per_second` requests per second, and `burst` requests at once after a pause.
    pub fn new(per_second: f64, burst: f64) -> Self {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let tolerance = interval.mul_f64((burst - 1.0).max(0.0));
        Self {
            interval,
            tolerance,
            next_arrival: Mutex::new(None),
            queue: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits in the queue until one request may be sent.
    pub async fn acquire(&self) {
        let _next = self.queue.lock().await;
        while let Err(earliest) = self.try_acquire() {
            tokio::time::sleep_until(earliest).await;
        }
    }

    /// Waits until one request may be sent, ahead of the queue: for a list request, which answers for many single
    /// reads.
    pub async fn acquire_priority(&self) {
        let earliest = {
            let mut steady = self.next_arrival();
            let at = steady.map_or_else(Instant::now, |at| at.max(Instant::now()));
            *steady = Some(at + self.interval);
            at.checked_sub(self.tolerance)
        };
        if let Some(earliest) = earliest {
            tokio::time::sleep_until(earliest).await;
        }
    }

    /// How long `turns` requests take at the steady rate.
    pub fn duration_of(&self, turns: u32) -> Duration {
        self.interval.saturating_mul(turns)
    }

    /// Takes permission for one request now, or returns the earliest time at which it can be taken.
    fn try_acquire(&self) -> Result<(), Instant> {
        let mut steady = self.next_arrival();
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

    fn next_arrival(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next_arrival.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_proceeds_at_once_and_then_the_steady_rate_applies() {
        let limiter = RateLimiter::default();
        let began = Instant::now();
        for _ in 0..125 {
            limiter.acquire().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..25 {
            limiter.acquire().await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((1.9..2.1).contains(&took), "{took}");
        tokio::time::advance(Duration::from_secs(60)).await;
        let later = Instant::now();
        for _ in 0..125 {
            limiter.acquire().await;
        }
        assert_eq!(
            later.elapsed(),
            Duration::ZERO,
            "the bucket is full again, and no fuller"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn requests_proceed_in_the_order_of_their_arrival() {
        let limiter = Arc::new(RateLimiter::new(10.0, 1.0));
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..5 {
            let (limiter, sender) = (limiter.clone(), sender.clone());
            tokio::spawn(async move {
                limiter.acquire().await;
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
    async fn a_priority_request_goes_before_the_queue_and_uses_the_rate() {
        let limiter = Arc::new(RateLimiter::new(10.0, 1.0));
        limiter.acquire().await;
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for name in ["first", "second"] {
            let (limiter, sender) = (limiter.clone(), sender.clone());
            tokio::spawn(async move {
                limiter.acquire().await;
                sender.send(name)
            });
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        limiter.acquire_priority().await;
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
