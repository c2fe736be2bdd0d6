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
    marker: Vec<u8>,
    buffer: BytesMut,
    is_found: bool,
}

impl MarkerScanner {
    /// Looks for this marker.
    pub fn new(marker: &[u8]) -> Self {
        Self {
            marker: marker.to_vec(),
            buffer: BytesMut::new(),
            is_found: false,
        }
    }

    /// The bytes before the marker, and the text after it once that is complete. What follows stays in the scanner.
    pub fn feed(&mut self, bytes: &[u8]) -> (Bytes, Option<String>) {
        self.buffer.extend_from_slice(bytes);
        let mut before = Bytes::new();
        if !self.is_found {
            let found = find_marker(&self.buffer, &self.marker);
            let free = found.unwrap_or_else(|| self.buffer.len() - self.partial_match_length());
            before = self.buffer.split_to(free).freeze();
            if found.is_some() {
                drop(self.buffer.split_to(self.marker.len()));
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
        let payload = self.buffer.split_to(end);
        // The `;`.
        drop(self.buffer.split_to(1));
        Some(String::from_utf8_lossy(&payload).into_owned())
    }

    /// How many bytes at the end may be the beginning of the marker.
    fn partial_match_length(&self) -> usize {
        let longest = self.buffer.len().min(self.marker.len() - 1);
        let begins = |n: &usize| self.buffer.ends_with(&self.marker[..*n]);
        (1..=longest).rev().find(begins).unwrap_or_default()
    }
}

/// Removes a marker wherever and however often it occurs.
pub struct MarkerFilter {
    marker: Vec<u8>,
    scanner: MarkerScanner,
}

impl MarkerFilter {
    /// Removes this marker, with the text up to `;` after it.
    pub fn new(marker: &[u8]) -> Self {
        Self {
            marker: marker.to_vec(),
            scanner: MarkerScanner::new(marker),
        }
    }

    /// The other bytes, and how many markers were removed.
    pub fn feed(&mut self, bytes: &[u8]) -> (Bytes, usize) {
        let (mut output, mut payload) = self.scanner.feed(bytes);
        let mut count = 0;
        while payload.is_some() {
            count += 1;
            let fresh = MarkerScanner::new(&self.marker);
            let rest = std::mem::replace(&mut self.scanner, fresh).into_rest();
            let (more, next_payload) = self.scanner.feed(&rest);
            output = [output, more].concat().into();
            payload = next_payload;
        }
        (output, count)
    }

    /// The bytes that are held back: call this at the end of the output.
    pub fn into_rest(self) -> Bytes {
        self.scanner.into_rest()
    }
}

fn find_marker(bytes: &[u8], marker: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == marker[0]) {
        if bytes[from + at..].starts_with(marker) {
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

        /// For all sizes of the parts, and even if much of the output looks like the marker.
        #[test]
        fn the_output_before_a_marker_is_returned_without_the_marker(
            before in prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c']), 0..200),
            size in 1_usize..50,
        ) {
            let marker = b"abacabab0";
            let stream = [&before[..], marker, b"137;after"].concat();
            let (mut scanner, mut output, mut payload) = (MarkerScanner::new(marker), Vec::new(), None);
            for part in stream.chunks(size) {
                if payload.is_some() {
                    break;
                }
                let (bytes, now) = scanner.feed(part);
                output.extend_from_slice(&bytes);
                payload = now;
            }
            prop_assert_eq!(output, before);
            prop_assert_eq!(payload.as_deref(), Some("137"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Also inside another marker.
        #[test]
        fn markers_are_removed_wherever_they_occur(
            parts in prop::collection::vec(prop::collection::vec(prop::sample::select(b"abc;".to_vec()), 0..20), 1..10),
            size in 1_usize..50,
        ) {
            let stream = parts.join(&b"abacabab0;"[..]);
            let mut filter = MarkerFilter::new(b"abacabab0");
            let (mut output, mut count) = (Vec::new(), 0);
            for part in stream.chunks(size) {
                let (bytes, more) = filter.feed(part);
                output.extend_from_slice(&bytes);
                count += more;
            }
            output.extend_from_slice(&filter.into_rest());
            prop_assert_eq!(output, parts.concat());
            prop_assert_eq!(count, parts.len() - 1);
        }
    }

    #[test]
    fn the_beginning_of_a_marker_at_the_end_is_the_rest() {
        let mut scanner = MarkerScanner::new(b"mark");
        assert_eq!(scanner.feed(b"a ma"), (Bytes::from_static(b"a "), None));
        assert_eq!(scanner.into_rest(), "ma");
    }
}
