//! Lines with their times, as they are wanted.
//!
//! In: text in which each line has its time in front. Out: the lines that are young enough, with or without
//! their times, cut off after so many bytes. Pure. A line without a time is one with the line before it.

use jiff::Timestamp;

use super::options::Options;

/// Shapes the lines of one log.
#[derive(Debug)]
pub struct Lines {
    options: Options,
    /// How many bytes may still be told.
    left: usize,
    is_young: bool,
}

impl Lines {
    /// As these options say.
    pub fn new(options: Options) -> Self {
        Self {
            left: options.limit.unwrap_or(usize::MAX),
            is_young: options.since.is_none(),
            options,
        }
    }

    /// Whether no more may be told.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    /// The lines of `text` as they are wanted.
    pub fn shape(&mut self, text: &str) -> Vec<u8> {
        let mut shaped = Vec::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let (at, rest) = timed(line);
            if let (Some(at), Some(since)) = (at, self.options.since) {
                self.is_young = at >= since;
            }
            if self.is_young {
                let wanted = if self.options.timestamps { line } else { rest };
                shaped.extend_from_slice(wanted.as_bytes());
            }
        }
        shaped.truncate(self.left);
        self.left -= shaped.len();
        shaped
    }
}

/// The last lines of `text`.
pub fn tail(text: &str, lines: usize) -> &str {
    let body = text.strip_suffix('\n').unwrap_or(text);
    if lines == 0 {
        return "";
    }
    let mut starts = body.rmatch_indices('\n').map(|(at, _)| at + 1);
    starts.nth(lines - 1).map_or(text, |at| &text[at..])
}

fn timed(line: &str) -> (Option<Timestamp>, &str) {
    let (first, rest) = line.split_once(' ').unwrap_or((line.trim_end(), "\n"));
    match first.parse() {
        Ok(at) => (Some(at), rest),
        Err(_) => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str =
        "1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z b c\nno time\n1970-01-01T00:00:03.5Z \n";

    fn shaped(options: Options) -> String {
        String::from_utf8(Lines::new(options).shape(LOG)).expect("text")
    }

    #[test]
    fn times_are_shown_or_not() {
        assert_eq!(shaped(Options::default()), "a\nb c\nno time\n\n");
        let timestamps = true;
        let options = Options {
            timestamps,
            ..Options::default()
        };
        assert_eq!(shaped(options), LOG);
    }

    #[test]
    fn old_lines_are_left_out_and_bytes_are_counted() {
        let since = Timestamp::from_second(2).ok();
        let options = Options {
            since,
            ..Options::default()
        };
        assert_eq!(shaped(options), "b c\nno time\n\n");
        let limit = Some(3);
        let mut lines = Lines::new(Options { limit, ..options });
        assert_eq!(lines.shape(LOG), b"b c");
        assert!(lines.is_full() && lines.shape(LOG).is_empty());
    }

    #[test]
    fn a_tail_is_so_many_lines_whether_the_last_is_whole_or_not() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a\nb\n", 5), "a\nb\n");
        assert_eq!(tail("a\nb\n", 0), "");
    }
}
