//! How long to wait before a failed call or write is repeated.

use std::time::Duration;

/// The pause after a failure that follows `before` consecutive failures: `first`, doubled for each of them, at most
/// `longest`.
pub fn doubled(first: Duration, before: u32, longest: Duration) -> Duration {
    let factor = 2_u32.saturating_pow(before.min(16));
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_as_long_as_the_previous_up_to_the_longest() {
        let (first, longest) = (Duration::from_secs(10), Duration::from_secs(600));
        let pauses = [0, 1, 2, 5, 6, 7, u32::MAX].map(|before| doubled(first, before, longest));
        assert_eq!(
            pauses.map(|pause| pause.as_secs()),
            [10, 20, 40, 320, 600, 600, 600]
        );
    }
}
