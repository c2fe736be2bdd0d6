//! Parses the five fields of a crontab.
//!
//! In: text. Out: the minutes and days that it names, or an error that names the field. burstpool has its own
//! parser because the maintained crates use another time library, and because the important part, the nights on
//! which clocks change, is decided in `window`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::civil::Date;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The number of days of each month in a leap year.
const DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// The five fields of a crontab, as bit sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronSchedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day must match both day fields. This is the case if one of them begins with `*`.
    both_days: bool,
    /// Whether the hour field begins with `*`. The schedule then counts elapsed hours, not hours of the clock.
    pub is_every_hour: bool,
}

/// Why a text is not a valid crontab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError(pub String);

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CronSchedule {
    /// Whether it names times on this day.
    pub fn has_day(&self, date: Date) -> bool {
        let bit = |bits: u64, at: i8| u32::try_from(at).is_ok_and(|at| bits >> at & 1 == 1);
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let days = if self.both_days {
            day && weekday
        } else {
            day || weekday
        };
        bit(self.months, date.month()) && days
    }

    /// The hours and minutes that it names on a day, in order.
    pub fn times(&self) -> impl Iterator<Item = (i8, i8)> + '_ {
        let hours = (0..24i8).filter(|hour| self.hours >> hour & 1 == 1);
        hours.flat_map(|hour| {
            let minutes = (0..60i8).filter(|minute| self.minutes >> minute & 1 == 1);
            minutes.map(move |minute| (hour, minute))
        })
    }

    /// Whether it names any day at all.
    fn can_occur(&self) -> bool {
        let is_named = |month: &usize| self.months >> (month + 1) & 1 == 1;
        let has_day = |month: usize| self.days & ((1 << (DAYS[month] + 1)) - 1) != 0;
        let mut months = (0..12).filter(is_named);
        // If neither day field begins with `*`, a day of the week is enough.
        !self.both_days || months.any(has_day)
    }
}

impl FromStr for CronSchedule {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let text = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            text => text,
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(CronError(format!(
                "'{text}' has {} fields: a crontab has five, minute, hour, day of month, month and day of week",
                fields.len()
            )));
        };
        let mut weekdays = parse_field("day of week", weekday, 0..=7, &WEEKDAYS, 0)?;
        // Sunday is both 0 and 7.
        weekdays |= weekdays >> 7 & 1;
        let cron = Self {
            minutes: parse_field("minute", minute, 0..=59, &[], 0)?,
            hours: parse_field("hour", hour, 0..=23, &[], 0)?,
            days: parse_field("day of month", day, 1..=31, &[], 0)?,
            months: parse_field("month", month, 1..=12, &MONTHS, 1)?,
            weekdays,
            both_days: day.starts_with('*') || weekday.starts_with('*'),
            is_every_hour: hour.starts_with('*'),
        };
        if !cron.can_occur() {
            return Err(CronError(format!(
                "'{text}' never occurs: no month has that day"
            )));
        }
        Ok(cron)
    }
}

/// Parses one field to a bit set of numbers. `names` stand for the numbers from `first` on.
fn parse_field(
    field: &str,
    text: &str,
    range: RangeInclusive<u32>,
    names: &[&str],
    first: u32,
) -> Result<u64, CronError> {
    let invalid = |part: &str| {
        CronError(format!(
            "'{part}' is not a valid {field}: write numbers from {} to {}, ranges such as 1-5, and steps such as */15",
            range.start(),
            range.end()
        ))
    };
    let number = |part: &str| {
        let lower = part.to_ascii_lowercase();
        let named = names.iter().position(|name| *name == lower);
        let named = named
            .and_then(|at| u32::try_from(at).ok())
            .map(|at| at + first);
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = named.or_else(|| part.parse().ok().filter(|_| digits));
        number.filter(|number| range.contains(number))
    };
    let mut bits = 0u64;
    for part in text.split(',') {
        let (span, step) = match part.split_once('/') {
            Some((span, step)) => (span, step.parse().ok().filter(|step| *step > 0)),
            None => (part, Some(1)),
        };
        let step: usize = step.ok_or_else(|| invalid(part))?;
        let bounds = match span.split_once('-') {
            _ if span == "*" => Some((*range.start(), *range.end())),
            Some((from, to)) => number(from).zip(number(to)),
            None if part.contains('/') => number(span).map(|from| (from, *range.end())),
            None => number(span).map(|only| (only, only)),
        };
        let (from, to) = bounds
            .filter(|(from, to)| from <= to)
            .ok_or_else(|| invalid(part))?;
        for number in (from..=to).step_by(step) {
            bits |= 1 << number;
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str) -> CronSchedule {
        text.parse().expect("a crontab's fields")
    }

    fn date(text: &str) -> Date {
        text.parse().expect("a date")
    }

    #[test]
    fn fields_name_numbers_lists_ranges_steps_and_names() {
        let times = |text: &str| cron(text).times().collect::<Vec<_>>();
        assert_eq!(times("5 4 * * *"), [(4, 5)]);
        assert_eq!(times("0,30 4-5 * * *"), [(4, 0), (4, 30), (5, 0), (5, 30)]);
        assert_eq!(times("*/20 23 * * *"), [(23, 0), (23, 20), (23, 40)]);
        assert_eq!(times("50/5 0 * * *"), [(0, 50), (0, 55)]);
        assert_eq!(times("@hourly").len(), 24);
        assert_eq!(times("* * * * *").len(), 1440);
        // 2026-11-23 is a Monday.
        for (text, yes, no) in [
            ("0 0 * * 1-5", "2026-11-23", "2026-11-22"),
            ("0 0 * * MON,fri", "2026-11-27", "2026-11-26"),
            ("0 0 * * 7", "2026-11-22", "2026-11-21"),
            ("0 0 * * 0", "2026-11-22", "2026-11-23"),
            ("0 0 * nov *", "2026-11-01", "2026-12-01"),
            ("0 0 29 2 *", "2028-02-29", "2028-03-01"),
            // Both day fields are restricted: a match of either is enough, as in cron.
            ("0 0 13 * 1", "2026-11-13", "2026-11-14"),
            ("0 0 13 * 1", "2026-11-23", "2026-11-24"),
            ("0 0 */2 * 1", "2026-11-23", "2026-11-25"),
        ] {
            assert!(cron(text).has_day(date(yes)), "{text} on {yes}");
            assert!(!cron(text).has_day(date(no)), "{text} on {no}");
        }
    }

    #[test]
    fn an_invalid_crontab_is_refused_with_the_name_of_the_field() {
        for (text, expected) in [
            ("0 8 * *", "has 4 fields"),
            ("60 8 * * *", "'60' is not a valid minute"),
            ("0 24 * * *", "'24' is not a valid hour"),
            ("0 8 0 * *", "'0' is not a valid day of month"),
            ("0 8 * 13 *", "'13' is not a valid month"),
            ("0 8 * * 8", "'8' is not a valid day of week"),
            ("0 8 * * mo", "'mo' is not a valid day of week"),
            ("5-1 8 * * *", "'5-1' is not a valid minute"),
            ("*/0 8 * * *", "'*/0' is not a valid minute"),
            ("+5 8 * * *", "'+5' is not a valid minute"),
            ("0 8,, * * *", "'' is not a valid hour"),
            ("0 8 30 2 *", "never occurs"),
            ("0 8 31 4,6,9,11 *", "never occurs"),
        ] {
            let CronError(why) = text.parse::<CronSchedule>().expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        }
        assert!(
            "0 8 30 2 1".parse::<CronSchedule>().is_ok(),
            "it occurs on Mondays"
        );
    }
}
