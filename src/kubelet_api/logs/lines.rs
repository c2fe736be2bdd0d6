//! Filters and formats the lines of a log.
//!
//! In: text with a timestamp in front of each line, if timestamps are needed. Out: the lines since the requested
//! time, with or without their timestamps, cut at the byte limit. Pure. A line without a timestamp is treated like
//! the line before it.
//!
//! A container runtime puts a timestamp on what it reads: it reads a line that is longer than its buffer in parts
//! (8,192 bytes in conmon, 16 KiB in containerd and Docker), and a line that is written in pieces as it comes. Such
//! parts are joined again. A timestamp that the program writes itself stays.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

use super::options::PodLogOptions;

/// Formats the lines of one log.
#[derive(Debug)]
pub struct LineFormatter {
    options: PodLogOptions,
    /// How many more bytes may be sent.
    remaining_bytes: usize,
    is_recent: bool,
}

impl LineFormatter {
    /// Formats according to these options.
    pub fn new(options: PodLogOptions) -> Self {
        Self {
            remaining_bytes: options.limit_bytes.unwrap_or(usize::MAX),
            is_recent: options.since.is_none(),
            options,
        }
    }

    /// Whether the byte limit is reached.
    pub fn is_full(&self) -> bool {
        self.remaining_bytes == 0
    }

    /// The lines of `text` that are wanted, formatted.
    pub fn format(&mut self, text: &str) -> Vec<u8> {
        let mut formatted = Vec::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            if !self.options.needs_timestamps() {
                formatted.extend_from_slice(line.as_bytes());
                continue;
            }
            let (stamp, rest) = split_timestamp(line);
            if let (Some(stamp), Some(since)) = (&stamp, self.options.since) {
                self.is_recent = stamp.at >= since;
            }
            if !self.is_recent {
                continue;
            }
            let rest = match stamp {
                Some(stamp) => {
                    if self.options.timestamps {
                        formatted.extend_from_slice(stamp.text.as_bytes());
                        formatted.push(b' ');
                    }
                    join_parts(&stamp, rest)
                }
                None => Cow::Borrowed(rest),
            };
            formatted.extend_from_slice(rest.as_bytes());
        }
        formatted.truncate(self.remaining_bytes);
        self.remaining_bytes -= formatted.len();
        formatted
    }
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> &str {
    let body = text.strip_suffix('\n').unwrap_or(text);
    if lines == 0 {
        return "";
    }
    let mut starts = body.rmatch_indices('\n').map(|(at, _)| at + 1);
    starts.nth(lines - 1).map_or(text, |at| &text[at..])
}

/// A timestamp as the service writes it.
#[derive(Clone, Copy)]
struct LogTimestamp<'a> {
    at: Timestamp,
    text: &'a str,
}

/// The buffer sizes of runtimes are multiples of this, in bytes.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// The most time between two parts of one line, if nothing else shows that they belong together.
const MAX_PART_GAP: Duration = Duration::from_secs(2);

impl<'a> LogTimestamp<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let at = text.parse().ok()?;
        Some(Self { at, text })
    }

    /// Whether the timestamp has fractions of a second, and its offset.
    fn layout(&self) -> (bool, &str) {
        let offset = self.text.rfind(['Z', '+', '-']).unwrap_or_default();
        (self.text.contains('.'), &self.text[offset..])
    }

    /// Whether `next`, found in a line after a part with this timestamp, begins the line's next part. `before` is
    /// the part between.
    fn is_continued_by(&self, next: &Self, before: &str) -> bool {
        if before.is_empty() || self.layout() != next.layout() || next.at < self.at {
            return false;
        }
        let is_full = before.len().is_multiple_of(READ_BUFFER_BYTES);
        // A program's own text has no timestamp directly after a letter or digit.
        let is_glued = before.ends_with(char::is_alphanumeric);
        let is_next = next.layout().0
            && next.at > self.at
            && next.at.duration_since(self.at) <= MAX_PART_GAP.try_into().unwrap_or_default();
        is_full || is_glued || is_next
    }
}

/// A line's timestamp, and the rest of the line.
fn split_timestamp(line: &str) -> (Option<LogTimestamp<'_>>, &str) {
    let (first, rest) = line.split_once(' ').unwrap_or((line.trim_end(), "\n"));
    match LogTimestamp::parse(first) {
        Some(stamp) => (Some(stamp), rest),
        None => (None, line),
    }
}

/// A line without the timestamps in front of its later parts.
fn join_parts<'a>(first: &LogTimestamp<'_>, line: &'a str) -> Cow<'a, str> {
    const DATE: usize = "2026-11-24".len();
    let (mut whole, mut part, mut from) = (String::new(), 0, 0);
    let mut stamp = *first;
    while let Some(found) = line[from..].find('T') {
        let at = from + found;
        from = at + 1;
        let begin = at.checked_sub(DATE).filter(|begin| *begin >= part);
        let Some(rest) = begin.and_then(|begin| line.get(begin..)) else {
            continue;
        };
        let begin = at - DATE;
        let Some((text, _)) = rest.split_once(' ') else {
            break;
        };
        let next = LogTimestamp::parse(text);
        if let Some(next) = next.filter(|next| stamp.is_continued_by(next, &line[part..begin])) {
            whole.push_str(&line[part..begin]);
            part = begin + text.len() + 1;
            from = part;
            stamp = next;
        }
    }
    if part == 0 {
        return Cow::Borrowed(line);
    }
    whole.push_str(&line[part..]);
    Cow::Owned(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str =
        "1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z b c\nno time\n1970-01-01T00:00:03.5Z \n";

    fn formatted(options: PodLogOptions) -> String {
        String::from_utf8(LineFormatter::new(options).format(LOG)).expect("text")
    }

    #[test]
    fn timestamps_are_shown_if_requested() {
        // Timestamps were not requested, so what looks like one is the program's.
        assert_eq!(formatted(PodLogOptions::default()), LOG);
        let timestamps = true;
        let options = PodLogOptions {
            timestamps,
            ..PodLogOptions::default()
        };
        assert_eq!(formatted(options), LOG);
    }

    #[test]
    fn old_lines_are_left_out_and_bytes_are_counted() {
        let since = Timestamp::from_second(2).ok();
        let options = PodLogOptions {
            since,
            ..PodLogOptions::default()
        };
        assert_eq!(formatted(options), "b c\nno time\n\n");
        let limit_bytes = Some(3);
        let mut lines = LineFormatter::new(PodLogOptions {
            limit_bytes,
            ..options
        });
        assert_eq!(lines.format(LOG), b"b c");
        assert!(lines.is_full() && lines.format(LOG).is_empty());
    }

    #[test]
    fn a_tail_counts_an_incomplete_last_line() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a\nb\n", 5), "a\nb\n");
        assert_eq!(tail("a\nb\n", 0), "");
    }

    #[test]
    fn parts_of_a_line_are_joined_and_timestamps_of_the_program_stay() {
        let timed = |log: &str| {
            let timestamps = true;
            let options = PodLogOptions {
                timestamps,
                ..PodLogOptions::default()
            };
            String::from_utf8(LineFormatter::new(options).format(log)).expect("text")
        };
        let second = "2026-11-30T03:40:02Z";
        let later = "2026-11-30T03:40:02.5Z";
        let nanos = "2026-11-30T03:40:02.123456789Z";
        let long = "é".repeat(4096);
        for (log, wanted) in [
            (
                format!("{second} {long}{second} {long}{second} tail\n"),
                format!("{second} {long}{long}tail\n"),
            ),
            (
                format!("{second} 18{second} 60\n{second} next\n"),
                format!("{second} 1860\n{second} next\n"),
            ),
            (format!("{nanos} a, {later} b\n"), format!("{nanos} a, b\n")),
        ] {
            assert_eq!(timed(&log), wanted);
        }
        for own in [
            format!("{second} [{second} INFO] it is T or {second}\n"),
            format!("{second} {second} INFO\n"),
            format!("{second} until 2027-11-30T03:40:02Z or so\n"),
            format!("{second} \"time\":\"{nanos}\" Té\n"),
            format!("{later} at {nanos} it began\n"),
            format!("{nanos} until 2026-11-30T04:40:02.5Z or so\n"),
            format!("{second} 18{nanos} 60\n"),
        ] {
            assert_eq!(timed(&own), own);
        }
    }
}
