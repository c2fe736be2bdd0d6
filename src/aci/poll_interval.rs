//! Poll intervals: when to read a container group again. Groups that are likely to change soon are read often,
//! others rarely.
//!
//! In: what the group is doing, for how long, and how long recent starts took. Out: the time until the next read.
//! Pure.

use std::time::Duration;

/// Smoothing factor of the estimate: each new start contributes 1/8.
const SMOOTHING_FACTOR: f64 = 8.0;
/// How long after the expected start to read the group: the request itself takes time, too.
const START_MARGIN: Duration = Duration::from_millis(150);
/// The shortest time between two reads of one group.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The longest time between two reads of a group that is starting or being deleted.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The mean time between two reads of a running group whose containers are restarted: about one read every two
/// minutes. Spreading makes the interval of each group 0.5 to 1.5 times as long.
const SERVICE_POLL_INTERVAL: Duration = Duration::from_secs(135);
/// The shortest time between two reads of a running group whose containers are expected to end.
const MIN_JOB_POLL_INTERVAL: Duration = Duration::from_secs(15);

/// The state of a group that determines how often to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollPhase {
    /// Created, but not all of its containers are running.
    Starting,
    /// Its containers are running, and are restarted when they end.
    Serving,
    /// Its containers are running, and are expected to end.
    Working,
    /// Azure is deleting it.
    Deleting,
}

/// How long container groups take to start in a region, estimated from the starts that were observed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StartLatencies {
    mean: Option<f64>,
    deviation: f64,
}

impl StartLatencies {
    /// Records that a group's containers were running `took` after its PUT.
    pub fn record(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        match self.mean {
            None => (self.mean, self.deviation) = (Some(took), took / 10.0),
            Some(mean) => {
                let error = took - mean;
                self.mean = Some(mean + error / SMOOTHING_FACTOR);
                self.deviation += (error.abs() - self.deviation) / SMOOTHING_FACTOR;
            }
        }
    }

    /// The mean duration of a start plus its mean deviation: most starts are done by then. `None` before the first
    /// start was observed.
    pub fn expected(&self) -> Option<Duration> {
        self.mean
            .map(|mean| Duration::from_secs_f64((mean + self.deviation).max(0.0)))
    }
}

/// How long to wait before the next read of a group that has been in `phase` for `since`. `share`, from 0 to 1, is
/// a constant of the group: it spreads the reads of running groups that started together.
pub fn until_next_read(
    phase: PollPhase,
    since: Duration,
    starts: &StartLatencies,
    share: f64,
) -> Duration {
    match phase {
        PollPhase::Serving => SERVICE_POLL_INTERVAL.mul_f64(0.5 + share.clamp(0.0, 1.0)),
        PollPhase::Working => (since / 4).clamp(MIN_JOB_POLL_INTERVAL, SERVICE_POLL_INTERVAL / 2),
        PollPhase::Deleting => (since / 2).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL),
        PollPhase::Starting => match starts.expected() {
            Some(expected) if since < expected => expected.saturating_sub(since) + START_MARGIN,
            // The start takes longer than most: the interval grows with the time that has passed.
            _ => (since / 5).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// How many reads it takes to see a start that takes `took`, and how late it is seen.
    fn reads(took: f64, starts: &StartLatencies) -> (usize, f64) {
        let (mut at, mut reads) = (Duration::ZERO, 0);
        loop {
            at += until_next_read(PollPhase::Starting, at, starts, 0.5);
            reads += 1;
            if at >= seconds(took) {
                return (reads, at.as_secs_f64() - took);
            }
        }
    }

    #[test]
    fn a_usual_start_is_seen_soon_at_the_first_read() {
        let mut starts = StartLatencies::default();
        for _ in 0..30 {
            starts.record(seconds(3.0));
        }
        let (count, late) = reads(3.0, &starts);
        assert!(count == 1 && late < 0.3, "{count} reads, {late} s late");
    }

    #[test]
    fn a_start_of_unknown_length_is_seen_within_a_fifth_of_it_or_half_a_second() {
        for took in [0.4, 3.0, 15.6, 42.8, 300.0] {
            let (count, late) = reads(took, &StartLatencies::default());
            assert!(
                late <= (took / 5.0).max(0.5) + 0.01,
                "{took}: {late} s late"
            );
            assert!(count < 60, "{took}: {count} reads");
        }
    }

    #[test]
    fn a_running_group_costs_half_a_read_per_minute_and_a_job_more() {
        let starts = StartLatencies::default();
        let a_minute = |share| {
            60.0 / until_next_read(PollPhase::Serving, seconds(1.0), &starts, share).as_secs_f64()
        };
        let average = (0..100)
            .map(|n| a_minute((f64::from(n) + 0.5) / 100.0))
            .sum::<f64>()
            / 100.0;
        assert!((0.45..0.5).contains(&average), "{average}");
        assert_eq!(
            until_next_read(PollPhase::Serving, seconds(1000.0), &starts, 0.5),
            seconds(135.0)
        );
        let working = |since| until_next_read(PollPhase::Working, seconds(since), &starts, 0.5);
        assert_eq!(working(1.0), seconds(15.0));
        assert_eq!(working(10_000.0), seconds(67.5));
    }

    #[test]
    fn the_estimate_follows_the_observed_starts() {
        let mut starts = StartLatencies::default();
        assert_eq!(starts.expected(), None);
        for _ in 0..50 {
            starts.record(seconds(15.0));
        }
        for _ in 0..50 {
            starts.record(seconds(5.0));
        }
        let expected = starts.expected().expect("it has seen some").as_secs_f64();
        assert!((4.9..6.0).contains(&expected), "{expected}");
    }
}
