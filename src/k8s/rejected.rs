//! Back-off for writes that the API server rejects because of an admission policy, a webhook or a missing
//! permission.
//!
//! In: the answer to a write. Out: how long not to repeat the write. Every write that would otherwise be repeated
//! in each reconciliation has its own [`WriteBackoff`], or counts its attempts and calls [`pause`].

use std::time::Duration;

use kube::core::Status;
use tokio::time::Instant;

use super::backoff::doubled;

/// The first pause.
const INITIAL_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause. It is limited because a policy or permission may change at any time.
pub const MAX_PAUSE: Duration = Duration::from_secs(600);

/// The pause after a rejection, given the number of consecutive rejections before it: 10 s, doubled each time, at most
/// 10 minutes.
pub fn pause(before: u32) -> Duration {
    doubled(INITIAL_PAUSE, before, MAX_PAUSE)
}

/// Whether the API server rejects the write, and will reject it again unless something changes. It excludes missing
/// authentication (401), an object that is gone (404) or has changed (409), and a slow or busy API server (408,
/// 429).
pub fn is_rejected(status: &Status) -> bool {
    (400..=499).contains(&status.code) && !matches!(status.code, 401 | 404 | 408 | 409 | 429)
}

/// The number of consecutive rejections of one write, and the time until which it is not repeated.
#[derive(Clone, Copy, Debug)]
pub struct WriteBackoff {
    max_pause: Duration,
    tries: u32,
    until: Option<Instant>,
}

impl Default for WriteBackoff {
    fn default() -> Self {
        Self::up_to(MAX_PAUSE)
    }
}

impl WriteBackoff {
    /// No rejections yet. No pause is longer than `max_pause`.
    pub fn up_to(max_pause: Duration) -> Self {
        Self {
            max_pause,
            tries: 0,
            until: None,
        }
    }

    /// Whether the write may be sent now.
    pub fn may_write(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Records the answer to a write. A rejection pauses the write; any other answer resets the count.
    pub fn answered<T>(&mut self, answer: &kube::Result<T>, now: Instant) {
        match answer {
            Err(kube::Error::Api(status)) if is_rejected(status) => {
                self.until = now.checked_add(pause(self.tries).min(self.max_pause));
                self.tries = self.tries.saturating_add(1);
            }
            _ => *self = Self::up_to(self.max_pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> kube::Result<()> {
        let status = Status::failure("no", "").with_code(code);
        Err(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_rejection_pauses_longer_each_time_and_a_success_resets_the_pause() {
        let now = Instant::now();
        let mut rejected = WriteBackoff::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            rejected.answered(&answer(403), now);
            let until = rejected.until.expect("it is paused");
            assert!(!rejected.may_write(now) && rejected.may_write(until));
            pauses.push((until - now).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        for code in [401, 404, 408, 409, 429, 500, 503] {
            let mut backoff = WriteBackoff::default();
            backoff.answered(&answer(code), now);
            assert!(backoff.may_write(now), "{code}");
        }
        for code in [400, 403, 413, 422] {
            let mut backoff = WriteBackoff::default();
            backoff.answered(&answer(code), now);
            assert!(!backoff.may_write(now), "{code}");
        }
        let mut capped = WriteBackoff::up_to(Duration::from_secs(15));
        capped.answered(&answer(403), now);
        capped.answered(&answer(403), now);
        assert!(capped.may_write(now + Duration::from_secs(15)));
        rejected.answered(&Ok(()), now);
        assert!(rejected.may_write(now));
    }
}
