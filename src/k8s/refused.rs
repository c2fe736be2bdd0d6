//! Writes that the API server refuses: an admission policy, a webhook or a missing right, until someone changes it.
//!
//! In: the answer to a write. Out: how long the same write is not sent again. Every write that is otherwise repeated
//! with each look or plan keeps one [`Refusals`], or counts its tries and asks [`pause`].

use std::time::Duration;

use kube::core::Status;
use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_secs(10);
/// The longest pause: what a policy refuses may be allowed a while later.
pub const LONGEST: Duration = Duration::from_secs(600);

/// The pause after a refusal that so many came before in a row: 10 s, twice as long each time, 10 minutes at most.
pub fn pause(before: u32) -> Duration {
    let pause = FIRST.saturating_mul(2_u32.saturating_pow(before.min(16)));
    pause.min(LONGEST)
}

/// Whether the API server refuses what was written, and will for as long as nothing else changes. Not that it does
/// not know the client (401), that the object is gone (404) or has changed (409), or that the API server is slow or
/// busy (408, 429).
pub fn is_refused(status: &Status) -> bool {
    (400..=499).contains(&status.code) && !matches!(status.code, 401 | 404 | 408 | 409 | 429)
}

/// How often one write was refused in a row, and until when it is not sent again.
#[derive(Clone, Copy, Debug)]
pub struct Refusals {
    longest: Duration,
    tries: u32,
    until: Option<Instant>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Refusals {
    /// None yet; no pause is longer than this.
    pub fn up_to(longest: Duration) -> Self {
        Self {
            longest,
            tries: 0,
            until: None,
        }
    }

    /// Whether the write may be sent.
    pub fn may_write(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Takes in the answer: only a refusal pauses the write, and anything else than a refusal ends the row.
    pub fn answered<T>(&mut self, answer: &kube::Result<T>, now: Instant) {
        match answer {
            Err(kube::Error::Api(status)) if is_refused(status) => {
                self.until = now.checked_add(pause(self.tries).min(self.longest));
                self.tries = self.tries.saturating_add(1);
            }
            _ => *self = Self::up_to(self.longest),
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
    fn only_what_is_refused_is_paused_longer_each_time_and_a_success_ends_that() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            refusals.answered(&answer(403), now);
            let until = refusals.until.expect("it is paused");
            assert!(!refusals.may_write(now) && refusals.may_write(until));
            pauses.push((until - now).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        for code in [401, 404, 408, 409, 429, 500, 503] {
            let mut other = Refusals::default();
            other.answered(&answer(code), now);
            assert!(other.may_write(now), "{code}");
        }
        for code in [400, 403, 413, 422] {
            let mut other = Refusals::default();
            other.answered(&answer(code), now);
            assert!(!other.may_write(now), "{code}");
        }
        let mut seldom = Refusals::up_to(Duration::from_secs(15));
        seldom.answered(&answer(403), now);
        seldom.answered(&answer(403), now);
        assert!(seldom.may_write(now + Duration::from_secs(15)));
        refusals.answered(&Ok(()), now);
        assert!(refusals.may_write(now));
    }
}
