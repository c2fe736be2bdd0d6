//! The header `Retry-After` of Azure and of registries.
//!
//! In: the headers of an answer, and the time. Out: how long to wait. RFC 9110, section 10.2.3, allows a number of seconds
//! or a date.

use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The longest wait that is accepted from Azure: one hour, the longest window of its rate limits.
pub(in crate::aci) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How long the answer asks to wait, at most `max`: clocks differ, and a date in the far future must not stop all
/// requests for good. `None` if the answer does not ask for it, or not in a valid form.
pub(in crate::aci) fn retry_after(
    headers: &HeaderMap,
    now: Timestamp,
    max: Duration,
) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        // A date of the past: no wait.
        Duration::try_from(date.duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date_and_is_limited() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().expect("a time");
        for (text, seconds) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("3600", Some(3600)),
            ("3601", Some(3600)),
            ("18446744073709551615", Some(3600)),
            ("Mon, 30 Nov 2026 12:01:30 GMT", Some(90)),
            ("Mon, 30 Nov 2026 11:00:00 GMT", Some(0)),
            ("Tue, 30 Nov 2027 12:00:00 GMT", Some(3600)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect(text));
            assert_eq!(
                retry_after(&headers, now, MAX_RETRY_AFTER),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), now, MAX_RETRY_AFTER), None);
    }
}
