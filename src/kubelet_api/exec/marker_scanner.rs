//! Finds a marker in a terminal's output.
//!
//! In: bytes as they arrive. Out: the bytes before the marker, and the text right after it, up to `;`. Pure. The
//! marker may arrive in any number of parts, so the end of the output is held back while it may be the beginning of
//! a marker.

use bytes::{Bytes, BytesMut};

/// The longest text after a marker, in bytes.
const MAX_PAYLOAD_BYTES: usize = 256;

/// Looks for one marker.
pub struct MarkerScanner {
    mark: Vec<u8>,
    buffer: BytesMut,
    is_found: bool,
}

impl MarkerScanner {
    /// Looks for this marker.
    pub fn new(mark: &[u8]) -> Self {
        Self {
            mark: mark.to_vec(),
            buffer: BytesMut::new(),
            is_found: false,
        }
    }

    /// The bytes before the marker, and the text after it once that is complete. What follows stays in the sieve.
    pub fn feed(&mut self, bytes: &[u8]) -> (Bytes, Option<String>) {
        self.buffer.extend_from_slice(bytes);
        let mut before = Bytes::new();
        if !self.is_found {
            let found = find_marker(&self.buffer, &self.mark);
            let free = found.unwrap_or_else(|| self.buffer.len() - self.partial_match_length());
            before = self.buffer.split_to(free).freeze();
            if found.is_some() {
                drop(self.buffer.split_to(self.mark.len()));
                self.is_found = true;
            }
        }
        (before, self.payload())
    }

    /// The bytes that are held back: call this at the end of the output, or after a marker.
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }

    fn payload(&mut self) -> Option<String> {
        let end = self.buffer.iter().position(|byte| *byte == b';');
        let end = end.or((self.buffer.len() > MAX_PAYLOAD_BYTES).then_some(MAX_PAYLOAD_BYTES));
        let end = end.filter(|_| self.is_found)?;
        let said = self.buffer.split_to(end);
        // The `;`.
        drop(self.buffer.split_to(1));
        Some(String::from_utf8_lossy(&said).into_owned())
    }

    /// How many bytes at the end may be the beginning of the marker.
    fn partial_match_length(&self) -> usize {
        let longest = self.buffer.len().min(self.mark.len() - 1);
        let begins = |n: &usize| self.buffer.ends_with(&self.mark[..*n]);
        (1..=longest).rev().find(begins).unwrap_or_default()
    }
}

/// Removes a marker wherever and however often it occurs.
pub struct MarkerFilter {
    mark: Vec<u8>,
    scanner: MarkerScanner,
}

impl MarkerFilter {
    /// Removes this marker, with the text up to `;` after it.
    pub fn new(mark: &[u8]) -> Self {
        Self {
            mark: mark.to_vec(),
            scanner: MarkerScanner::new(mark),
        }
    }

    /// The other bytes, and how many markers were removed.
    pub fn feed(&mut self, bytes: &[u8]) -> (Bytes, usize) {
        let (mut through, mut said) = self.scanner.feed(bytes);
        let mut times = 0;
        while said.is_some() {
            times += 1;
            let fresh = MarkerScanner::new(&self.mark);
            let rest = std::mem::replace(&mut self.scanner, fresh).into_rest();
            let (more, again) = self.scanner.feed(&rest);
            through = [through, more].concat().into();
            said = again;
        }
        (through, times)
    }

    /// The bytes that are held back: call this at the end of the output.
    pub fn into_rest(self) -> Bytes {
        self.scanner.into_rest()
    }
}

fn find_marker(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == mark[0]) {
        if bytes[from + at..].starts_with(mark) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the sizes of the parts, and however much of the output looks like the marker.
        #[test]
        fn all_before_a_mark_comes_through_and_the_mark_does_not(
            before in prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c']), 0..200),
            size in 1_usize..50,
        ) {
            let mark = b"abacabab0";
            let stream = [&before[..], mark, b"137;after"].concat();
            let (mut sieve, mut through, mut said) = (MarkerScanner::new(mark), Vec::new(), None);
            for part in stream.chunks(size) {
                if said.is_some() {
                    break;
                }
                let (bytes, now) = sieve.feed(part);
                through.extend_from_slice(&bytes);
                said = now;
            }
            prop_assert_eq!(through, before);
            prop_assert_eq!(said.as_deref(), Some("137"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Also inside another marker.
        #[test]
        fn a_mark_is_taken_out_wherever_it_comes(
            parts in prop::collection::vec(prop::collection::vec(prop::sample::select(b"abc;".to_vec()), 0..20), 1..10),
            size in 1_usize..50,
        ) {
            let stream = parts.join(&b"abacabab0;"[..]);
            let mut strainer = MarkerFilter::new(b"abacabab0");
            let (mut through, mut times) = (Vec::new(), 0);
            for part in stream.chunks(size) {
                let (bytes, more) = strainer.feed(part);
                through.extend_from_slice(&bytes);
                times += more;
            }
            through.extend_from_slice(&strainer.into_rest());
            prop_assert_eq!(through, parts.concat());
            prop_assert_eq!(times, parts.len() - 1);
        }
    }

    #[test]
    fn what_looks_like_a_mark_and_is_none_is_the_rest() {
        let mut sieve = MarkerScanner::new(b"mark");
        assert_eq!(sieve.feed(b"a ma"), (Bytes::from_static(b"a "), None));
        assert_eq!(sieve.into_rest(), "ma");
    }
}
