//! CPU time as a counter that only grows, as a kubelet reports it.
//!
//! In: averages of minutes and cumulative readings, as they become known. Out: the CPU time since counting began,
//! and until when it is counted. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::aci::client::MinuteUsage;
use crate::aci::realtime_metrics::ContainerUsage;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// The initial value in seconds: metrics-server ignores a pod that has used nothing.
const INITIAL_CPU_SECONDS: f64 = 0.001;

/// What a run of a container has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuCounter {
    /// CPU time since counting began, in seconds.
    pub cpu_seconds: f64,
    /// CPU in thousandths of a core, in the last known interval.
    pub millicores: f64,
    /// Memory at that time, in bytes.
    pub memory_bytes: f64,
    /// The end of that interval.
    pub at: Timestamp,
}

impl CpuCounter {
    /// The counter after more minutes of the run that began at `started`; the counter of an earlier run starts
    /// again. A missing minute counts like the minute after it.
    pub fn after_minutes(
        before: Option<Self>,
        started: Timestamp,
        minutes: &[MinuteUsage],
    ) -> Option<Self> {
        let mut counter = before.filter(|counter| counter.at > started);
        for minute in minutes {
            let ends = minute
                .start
                .saturating_add(MINUTE)
                .unwrap_or(Timestamp::MAX);
            let from = counter.map_or(minute.start.max(started), |counter| counter.at);
            if ends <= from {
                continue;
            }
            let seconds = ends.duration_since(from).as_secs_f64();
            counter = Some(Self {
                cpu_seconds: counter.map_or(INITIAL_CPU_SECONDS, |counter| counter.cpu_seconds)
                    + minute.millicores / 1000.0 * seconds,
                millicores: minute.millicores,
                memory_bytes: minute.memory_bytes,
                at: ends,
            });
        }
        counter
    }

    /// The counter after a reading of what the run that began at `started` has used by now; `last` is the previous
    /// reading. The counter may have begun with the other source: only the difference between two readings is added
    /// to it.
    pub fn after_reading(
        before: Option<Self>,
        last: Option<ContainerUsage>,
        started: Timestamp,
        now: ContainerUsage,
    ) -> Option<Self> {
        let before = before.filter(|counter| counter.at > started);
        let last = last.filter(|last| {
            last.at >= started && last.at < now.at && last.cpu_seconds <= now.cpu_seconds
        });
        match (before, last) {
            (Some(before), Some(last)) if before.at < now.at => {
                let seconds = now.at.duration_since(last.at).as_secs_f64();
                let cores = (now.cpu_seconds - last.cpu_seconds) / seconds;
                let passed = now.at.duration_since(before.at).as_secs_f64();
                Some(Self {
                    cpu_seconds: before.cpu_seconds + cores * passed,
                    millicores: cores * 1000.0,
                    memory_bytes: now.memory_bytes,
                    at: now.at,
                })
            }
            // Without a previous reading the difference is known only after the next one.
            (Some(before), _) => Some(before),
            (None, _) => (now.at > started).then(|| Self {
                cpu_seconds: now.cpu_seconds.max(INITIAL_CPU_SECONDS),
                millicores: now.cpu_seconds * 1000.0 / now.at.duration_since(started).as_secs_f64(),
                memory_bytes: now.memory_bytes,
                at: now.at,
            }),
        }
    }

    /// The sum of two containers, at the earlier of their times.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            millicores: self.millicores + other.millicores,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            at: self.at.min(other.at),
        }
    }

    /// The counter of a whole node: the previous value plus what the `known` containers use now, multiplied by the
    /// time since. A sum of the containers' counters would fall when a pod ends, and jump when a pod's use becomes
    /// known.
    #[must_use]
    pub fn node_total(before: Option<Self>, known: &[Self], now: Timestamp) -> Self {
        let millicores: f64 = known.iter().map(|counter| counter.millicores).sum();
        let (counted, since) = before.map_or((INITIAL_CPU_SECONDS, now), |before| {
            (before.cpu_seconds, before.at)
        });
        let at = now.max(since);
        Self {
            cpu_seconds: counted + millicores / 1000.0 * at.duration_since(since).as_secs_f64(),
            millicores,
            memory_bytes: known.iter().map(|counter| counter.memory_bytes).sum(),
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn minute(begins: i64, millicores: f64) -> MinuteUsage {
        MinuteUsage {
            start: at(begins),
            millicores,
            memory_bytes: 1024.0,
        }
    }

    fn grown(before: Option<CpuCounter>, started: i64, minutes: &[MinuteUsage]) -> (f64, i64) {
        let counter = CpuCounter::after_minutes(before, at(started), minutes).expect("a counter");
        (
            (counter.cpu_seconds * 1000.0).round(),
            counter.at.as_second(),
        )
    }

    #[test]
    fn a_repeated_minute_counts_once_and_a_missing_one_like_the_next() {
        let first = [minute(60, 500.0), minute(120, 1000.0)];
        assert_eq!(grown(None, 0, &first), (90_001.0, 180));
        let counter = CpuCounter::after_minutes(None, at(0), &first);
        assert_eq!(grown(counter, 0, &first), (90_001.0, 180));
        let more = [minute(120, 1000.0), minute(300, 100.0)];
        assert_eq!(grown(counter, 0, &more), (108_001.0, 360));
    }

    #[test]
    fn usage_before_the_run_began_belongs_to_another_run() {
        let minutes = [minute(0, 1000.0), minute(60, 1000.0), minute(120, 1000.0)];
        assert_eq!(grown(None, 90, &minutes), (90_001.0, 180));
        let before = CpuCounter::after_minutes(None, at(0), &minutes[..1]);
        assert_eq!(grown(before, 90, &minutes), (90_001.0, 180));
        assert_eq!(CpuCounter::after_minutes(before, at(90), &[]), None);
    }

    fn reading(second: i64, cpu_seconds: f64) -> ContainerUsage {
        ContainerUsage {
            at: at(second),
            cpu_seconds,
            memory_bytes: 2048.0,
        }
    }

    #[test]
    fn readings_add_the_difference_between_them() {
        let first =
            CpuCounter::after_reading(None, None, at(0), reading(10, 5.0)).expect("a counter");
        assert_eq!((first.cpu_seconds, first.millicores), (5.0, 500.0));
        let second =
            CpuCounter::after_reading(Some(first), Some(reading(10, 5.0)), at(0), reading(20, 8.0));
        let second = second.expect("a counter");
        assert_eq!((second.cpu_seconds, second.millicores), (8.0, 300.0));
        // The same reading again, and a lower one.
        for now in [reading(20, 8.0), reading(30, 1.0)] {
            let again = CpuCounter::after_reading(Some(second), Some(reading(20, 8.0)), at(0), now);
            assert_eq!(again, Some(second));
        }
        // Another run.
        let next = CpuCounter::after_reading(
            Some(second),
            Some(reading(20, 8.0)),
            at(25),
            reading(35, 1.0),
        );
        assert_eq!(next.map(|next| next.cpu_seconds), Some(1.0));
        assert_eq!(
            CpuCounter::after_reading(None, None, at(40), reading(35, 1.0)),
            None
        );
    }

    #[test]
    fn a_counter_continues_when_its_source_changes() {
        let monitor = CpuCounter::after_minutes(None, at(0), &[minute(60, 500.0)]);
        let before = monitor.expect("a counter").cpu_seconds;
        // The reading includes CPU time from before the minutes that Azure Monitor was asked for.
        let (one, other) = (reading(300, 4000.0), reading(310, 4010.0));
        assert_eq!(
            CpuCounter::after_reading(monitor, None, at(0), one),
            monitor
        );
        let realtime =
            CpuCounter::after_reading(monitor, Some(one), at(0), other).expect("a counter");
        assert!((realtime.cpu_seconds - before - 190.0).abs() < 1e-9);
        // And back: of the minutes, only the time after the counter counts.
        let minutes = [minute(120, 9000.0), minute(300, 1000.0)];
        let back = CpuCounter::after_minutes(Some(realtime), at(0), &minutes).expect("a counter");
        assert!((back.cpu_seconds - realtime.cpu_seconds - 50.0).abs() < 1e-9);
    }

    #[test]
    fn the_counter_of_a_node_neither_falls_when_a_pod_ends_nor_jumps_when_one_is_known() {
        let pod = |cpu_seconds, millicores| CpuCounter {
            cpu_seconds,
            millicores,
            memory_bytes: 1024.0,
            at: at(60),
        };
        let first = CpuCounter::node_total(None, &[pod(500.0, 500.0)], at(100));
        let both = [pod(510.0, 500.0), pod(9000.0, 1000.0)];
        let second = CpuCounter::node_total(Some(first), &both, at(120));
        assert!((second.cpu_seconds - first.cpu_seconds - 30.0).abs() < 1e-9);
        assert!((second.memory_bytes - 2048.0).abs() < 1e-9);
        let last = CpuCounter::node_total(Some(second), &[], at(180));
        assert_eq!(
            (last.cpu_seconds, last.memory_bytes),
            (second.cpu_seconds, 0.0)
        );
        // The clock is set back.
        assert_eq!(CpuCounter::node_total(Some(last), &both, at(0)).at, at(180));
    }

    #[test]
    fn an_idle_container_has_used_something() {
        let idle = CpuCounter::after_minutes(None, at(0), &[minute(60, 0.0)]).expect("a counter");
        assert!(idle.cpu_seconds * 1e9 >= 1.0);
    }
}
