//! Finds the new part of a log that is read repeatedly.
//!
//! In: the log, as far as the service keeps it. Out: what was not in the previous read. Pure. The service has no
//! offsets, and drops the beginning of a long log, so a read may begin anywhere within the previous one.

/// How many bytes of the end of a read are kept to find the position in the next one.
const MAX_TAIL_BYTES: usize = 64 << 10;
/// How many bytes of a log's beginning are searched for: enough to include the timestamp of a line.
const HEAD_BYTES: usize = 24;

/// The position up to which a log was read.
#[derive(Debug, Default)]
pub struct LogCursor {
    /// The length of the last read, in bytes.
    length: usize,
    /// The end of the last read.
    tail: String,
}

/// The new part of a log.
#[derive(Debug, PartialEq, Eq)]
pub enum LogDelta<'a> {
    /// This follows what was read before; it may be empty.
    Appended(&'a str),
    /// Nothing of the previous read is left: the log is another run's, or grew by more than the service keeps.
    Replaced(&'a str),
}

impl LogCursor {
    /// The new part of `log`. An incomplete last line is left for the next read, unless the log has ended.
    pub fn advance<'a>(&mut self, log: &'a str, has_ended: bool) -> LogDelta<'a> {
        let whole = match log.rfind('\n') {
            _ if has_ended => log,
            Some(at) => &log[..=at],
            None => "",
        };
        let new = match self.resume_offset(whole) {
            Some(offset) => LogDelta::Appended(&whole[offset..]),
            None => LogDelta::Replaced(whole),
        };
        self.length = whole.len();
        let mut from = whole.len().saturating_sub(MAX_TAIL_BYTES);
        while !whole.is_char_boundary(from) {
            from += 1;
        }
        whole[from..].clone_into(&mut self.tail);
        new
    }

    /// The position in `log` up to which it was read before; `None` if not found.
    fn resume_offset(&self, log: &str) -> Option<usize> {
        let from = self.length - self.tail.len();
        if log.get(from..self.length) == Some(&self.tail) {
            return Some(self.length);
        }
        let mut head = log.len().min(HEAD_BYTES);
        while !log.is_char_boundary(head) {
            head -= 1;
        }
        let head = &log[..head];
        if head.is_empty() {
            return None;
        }
        // The service dropped the beginning of the log: it now begins within the kept end, or contains it.
        let begins = self
            .tail
            .match_indices(head)
            .map(|(at, _)| &self.tail[at..]);
        if let Some(known) = begins.into_iter().find(|known| log.starts_with(*known)) {
            return Some(known.len());
        }
        let whole = self.tail.len() > 2 * HEAD_BYTES;
        whole
            .then(|| log.rfind(&self.tail))
            .flatten()
            .map(|at| at + self.tail.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(n: usize) -> String {
        format!("2026-11-24T10:00:00.{:03}Z line {n}\n", n % 1000)
    }

    #[test]
    fn an_incomplete_line_waits_for_its_end() {
        let mut cursor = LogCursor::default();
        assert_eq!(
            cursor.advance("1 a\n2 b", false),
            LogDelta::Appended("1 a\n")
        );
        assert_eq!(
            cursor.advance("1 a\n2 bc\n", false),
            LogDelta::Appended("2 bc\n")
        );
        assert_eq!(
            cursor.advance("1 a\n2 bc\n3", true),
            LogDelta::Appended("3")
        );
    }

    #[test]
    fn the_log_of_another_run_replaces_the_log() {
        let mut cursor = LogCursor::default();
        let (old, new) = (line(1) + &line(2), line(7));
        cursor.advance(&old, false);
        assert_eq!(cursor.advance(&new, false), LogDelta::Replaced(&new));
        assert_eq!(cursor.advance("", false), LogDelta::Replaced(""));
    }

    /// A log may grow by any amount between two reads, and any part of its beginning may be dropped: no line is lost
    /// or sent twice, as long as part of the previous read is left.
    fn follow(reads: &[(usize, usize)]) {
        let (mut cursor, mut log, mut streamed) =
            (LogCursor::default(), String::new(), String::new());
        let mut next = 0;
        for (lines, cut) in reads {
            let before = log.len();
            for _ in 0..*lines {
                log.push_str(&line(next));
                next += 1;
            }
            // Part of the previous read stays.
            let cut = before.saturating_sub(40).min(*cut);
            match cursor.advance(&log[cut..], false) {
                LogDelta::Appended(new) => streamed.push_str(new),
                LogDelta::Replaced(_) => unreachable!("the position is found"),
            }
            log.drain(..cut);
        }
        let expected: String = (0..next).map(line).collect();
        assert_eq!(streamed, expected);
    }

    #[test]
    fn a_log_that_is_cut_within_a_line_continues_at_its_position() {
        follow(&[(2, 0), (1, 1)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_line_is_lost_or_sent_twice(reads in prop::collection::vec((0_usize..400, 0_usize..9000), 1..20)) {
            follow(&reads);
        }
    }
}
