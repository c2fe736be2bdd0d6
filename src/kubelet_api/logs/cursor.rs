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
            Some(place) => LogDelta::Appended(&whole[place..]),
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
    fn a_line_that_is_not_whole_waits_for_its_end() {
        let mut grown = LogCursor::default();
        assert_eq!(
            grown.advance("1 a\n2 b", false),
            LogDelta::Appended("1 a\n")
        );
        assert_eq!(
            grown.advance("1 a\n2 bc\n", false),
            LogDelta::Appended("2 bc\n")
        );
        assert_eq!(grown.advance("1 a\n2 bc\n3", true), LogDelta::Appended("3"));
    }

    #[test]
    fn another_runs_log_is_another() {
        let mut grown = LogCursor::default();
        let (old, new) = (line(1) + &line(2), line(7));
        grown.advance(&old, false);
        assert_eq!(grown.advance(&new, false), LogDelta::Replaced(&new));
        assert_eq!(grown.advance("", false), LogDelta::Replaced(""));
    }

    /// However a log grows between two reads, and however much of its beginning is dropped: no line is lost or sent
    /// twice, as long as part of the previous read is left.
    fn follow(looks: &[(usize, usize)]) {
        let (mut grown, mut log, mut told) = (LogCursor::default(), String::new(), String::new());
        let mut next = 0;
        for (lines, cut) in looks {
            let before = log.len();
            for _ in 0..*lines {
                log.push_str(&line(next));
                next += 1;
            }
            // Part of the previous read stays.
            let cut = before.saturating_sub(40).min(*cut);
            match grown.advance(&log[cut..], false) {
                LogDelta::Appended(new) => told.push_str(new),
                LogDelta::Replaced(_) => unreachable!("the place was not found"),
            }
            log.drain(..cut);
        }
        let all: String = (0..next).map(line).collect();
        assert_eq!(told, all);
    }

    #[test]
    fn a_log_that_is_cut_off_inside_of_a_line_goes_on_where_it_was() {
        follow(&[(2, 0), (1, 1)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_lost_or_told_twice(looks in prop::collection::vec((0_usize..400, 0_usize..9000), 1..20)) {
            follow(&looks);
        }
    }
}
