//! The sizes of the client's terminal.
//!
//! In: a sequence of JSON objects that may be split anywhere. Out: sizes.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::aci::shell::TerminalSize;

/// An incomplete object longer than this is dropped, in bytes.
const MAX_OBJECT_BYTES: usize = 1024;

/// Collects sizes from parts.
#[derive(Default)]
pub struct ResizeReader(Vec<u8>);

impl ResizeReader {
    /// Adds a part; returns the last size that is complete now.
    pub fn feed(&mut self, part: &[u8]) -> Option<TerminalSize> {
        self.0.extend_from_slice(part);
        let mut objects = serde_json::Deserializer::from_slice(&self.0).into_iter::<TerminalSize>();
        let mut last = None;
        while let Some(Ok(size)) = objects.next() {
            last = Some(size);
        }
        let used = objects.byte_offset();
        self.0.drain(..used);
        if self.0.len() > MAX_OBJECT_BYTES {
            self.0.clear();
        }
        last
    }
}

/// Decodes sizes until the parts end.
pub async fn forward_sizes(mut parts: mpsc::Receiver<Bytes>, sizes: mpsc::Sender<TerminalSize>) {
    let mut reader = ResizeReader::default();
    while let Some(part) = parts.recv().await {
        if let Some(size) = reader.feed(&part)
            && sizes.send(size).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_in_any_parts_and_invalid_data_is_limited() {
        let mut sizes = ResizeReader::default();
        let (width, height) = (120, 40);
        assert_eq!(
            sizes.feed(br#"{"Width":1,"Height":2}{"Wid"#),
            Some(TerminalSize {
                width: 1,
                height: 2
            })
        );
        assert_eq!(
            sizes.feed(br#"th":120,"Height":40}"#),
            Some(TerminalSize { width, height })
        );
        for _ in 0..100 {
            assert_eq!(sizes.feed(&[b'x'; 100]), None);
        }
        assert!(sizes.0.len() <= MAX_OBJECT_BYTES);
    }
}
