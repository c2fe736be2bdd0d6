//! A container's log, cut to the service's limits.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::view::time;
use crate::emulator::clock::ShownClock;

/// How many bytes the service keeps of a running container's log (quotas page, 2025-11).
pub const RUNNING_LIMIT: usize = 4 << 20;
/// How many bytes it keeps of a stopped container's log.
pub const STOPPED_LIMIT: usize = 16 << 10;
/// How many lines it keeps of a stopped container's log.
pub const STOPPED_LINES: usize = 1000;

/// How many bytes of a line the container runtime reads at once. With timestamps, each such part gets
/// its own (observed with conmon; containerd and Docker read 16 KiB).
const READ_CHUNK_BYTES: usize = 8 << 10;

/// Log lines with their times, oldest first.
#[derive(Clone, Debug, Default)]
pub struct ContainerLog {
    lines: VecDeque<(Timestamp, String)>,
    bytes: usize,
    written: usize,
}

impl ContainerLog {
    /// Adds a line. Drops the oldest lines beyond [`RUNNING_LIMIT`].
    pub fn push(&mut self, at: Timestamp, line: impl Into<String>) {
        let line = line.into();
        self.bytes += line.len() + 1;
        self.written += 1;
        self.lines.push_back((at, line));
        self.shrink(RUNNING_LIMIT, usize::MAX);
    }

    /// Cuts the log to what the service keeps of a stopped container.
    pub fn stop(&mut self) {
        self.shrink(STOPPED_LIMIT, STOPPED_LINES);
    }

    /// The last `tail` lines (all if `None`). If `times` is given, a time precedes each line, and each
    /// part of a long line.
    pub fn text(&self, tail: Option<usize>, times: Option<&ShownClock>) -> String {
        let skip = tail.map_or(0, |tail| self.lines.len().saturating_sub(tail));
        let mut text = String::new();
        for (at, line) in self.lines.iter().skip(skip) {
            for part in parts(line) {
                if let Some(shown_clock) = times {
                    text.push_str(&time(shown_clock.shown(*at)));
                    text.push(' ');
                }
                text.push_str(part);
            }
            text.push('\n');
        }
        last_bytes(text, RUNNING_LIMIT)
    }

    /// How many lines were ever added.
    pub fn written(&self) -> usize {
        self.written
    }

    /// The lines after the first `position`, unless they have been dropped.
    pub fn since(&self, position: usize) -> String {
        // A log that is shorter than before belongs to a new run: return all of it.
        let count = self.written.checked_sub(position).unwrap_or(self.written);
        self.text(Some(count), None)
    }

    fn shrink(&mut self, bytes: usize, lines: usize) {
        while self.bytes > bytes || self.lines.len() > lines {
            let Some((_, line)) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= line.len() + 1;
        }
    }
}

/// The parts in which the runtime reads a line. An empty line is one part.
fn parts(line: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), line);
    while rest.len() > READ_CHUNK_BYTES {
        let mut end = READ_CHUNK_BYTES;
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, remaining) = rest.split_at(end);
        parts.push(part);
        rest = remaining;
    }
    parts.push(rest);
    parts
}

/// The last `limit` bytes of `text`, cut at a character boundary.
pub fn last_bytes(text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let mut from = text.len() - limit;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::clock::{EmulatorClock, ShownTime};

    fn emulated() -> ShownClock {
        let behind = std::time::Duration::ZERO;
        EmulatorClock::new(1.0, ShownTime::EmulatedTime { behind }).shown_clock()
    }

    #[test]
    fn a_running_log_keeps_4_mb_and_a_stopped_one_1000_lines_in_16_kb() {
        let mut log = ContainerLog::default();
        for _ in 0..5000 {
            log.push(Timestamp::UNIX_EPOCH, "x".repeat(1023));
        }
        assert_eq!(log.text(None, None).len(), RUNNING_LIMIT);
        log.stop();
        assert_eq!(log.text(None, None).len(), STOPPED_LIMIT);
        let mut short = ContainerLog::default();
        for n in 0..2000 {
            short.push(Timestamp::UNIX_EPOCH, n.to_string());
        }
        short.stop();
        assert_eq!(short.text(None, None).lines().count(), STOPPED_LINES);
        assert_eq!(
            short.text(Some(1), Some(&emulated())),
            "1970-01-01T00:00:00Z 1999\n"
        );
    }

    #[test]
    fn a_long_line_has_a_time_in_front_of_each_part() {
        let mut log = ContainerLog::default();
        log.push(Timestamp::UNIX_EPOCH, "x".repeat(READ_CHUNK_BYTES) + "yz");
        log.push(Timestamp::UNIX_EPOCH, "");
        let x = "x".repeat(READ_CHUNK_BYTES);
        assert_eq!(log.text(None, None), format!("{x}yz\n\n"));
        let at = "1970-01-01T00:00:00Z ";
        assert_eq!(
            log.text(None, Some(&emulated())),
            format!("{at}{x}{at}yz\n{at}\n")
        );
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(last_bytes("aé".to_owned(), 1), "");
        assert_eq!(last_bytes("aé".to_owned(), 2), "é");
    }
}
