//! Frames survive encoding and decoding; invalid bytes cause errors.

use proptest::prelude::*;

use super::*;

/// How many invalid inputs to try.
const CASES: u32 = 40_000;

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn open(headers: SpdyHeaders) -> SpdyFrame {
    SpdyFrame::Open {
        id: 1,
        fin: false,
        headers,
    }
}

fn some_frames() -> Vec<SpdyFrame> {
    vec![
        open(vec![header("streamtype", "error")]),
        SpdyFrame::Accepted { id: 1 },
        SpdyFrame::Data {
            id: 1,
            fin: true,
            part: Bytes::from_static(b"hello"),
        },
        SpdyFrame::Ping { id: 7 },
        SpdyFrame::Reset {
            id: 1,
            code: reset::REFUSED_STREAM,
        },
        SpdyFrame::GoAway { last: 1, code: 0 },
        open(vec![header("port", "80"), header("requestid", "0")]),
    ]
}

fn wire(frames: &[SpdyFrame]) -> BytesMut {
    let (mut encoder, mut wire) = (FrameEncoder::default(), BytesMut::new());
    for frame in frames {
        encoder.encode(frame, &mut wire);
    }
    wire
}

/// All frames of `bytes`, decoded in parts of `size` bytes; the parts of data frames are joined.
fn decoded(bytes: &[u8], size: usize) -> Result<Vec<SpdyFrame>, Error> {
    let (mut decoder, mut arrived) = (FrameDecoder::default(), BytesMut::new());
    let mut frames: Vec<SpdyFrame> = Vec::new();
    for part in bytes.chunks(size) {
        arrived.put_slice(part);
        while let Some(frame) = decoder.decode(&mut arrived)? {
            match (frames.last_mut(), frame) {
                (
                    Some(SpdyFrame::Data { part, fin, .. }),
                    SpdyFrame::Data {
                        part: more,
                        fin: last,
                        ..
                    },
                ) if !*fin => {
                    *part = [part.as_ref(), more.as_ref()].concat().into();
                    *fin = last;
                }
                (_, frame) => frames.push(frame),
            }
        }
    }
    Ok(frames)
}

#[test]
fn frames_are_the_same_however_they_are_split() {
    let frames = some_frames();
    let bytes = wire(&frames);
    for size in 1..=bytes.len() {
        assert_eq!(decoded(&bytes, size).expect("frames"), frames, "{size}");
    }
}

#[test]
fn a_header_bomb_is_refused() {
    let bytes = wire(&[open(vec![header("a", &"x".repeat(1 << 20))])]);
    assert!(
        bytes.len() < MAX_CONTROL_BYTES,
        "it is small where it is packed"
    );
    assert!(matches!(
        decoded(&bytes, bytes.len()),
        Err(Error::TooLong(_))
    ));
}

#[test]
fn a_count_without_its_data_allocates_nothing() {
    let block = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert!(matches!(parse_headers(block), Err(Error::Malformed(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random bytes, random bytes after a valid head, and valid frames with one wrong byte.
    #[test]
    fn hostile_bytes_are_an_error_and_never_a_panic(
        shape in 0_u8..3,
        kind in 0_u16..11,
        flags: u8,
        length in 0_usize..64,
        tail in prop::collection::vec(any::<u8>(), 0..96),
        at: prop::sample::Index,
        wrong: u8,
    ) {
        let mut bytes = BytesMut::new();
        match shape {
            0 => bytes.put_slice(&tail),
            1 => {
                control(&mut bytes, kind, flags, length);
                bytes.put_slice(&tail);
            }
            _ => {
                bytes = wire(&[open(vec![header("streamtype", "data")]), SpdyFrame::Accepted { id: 1 }]);
                let at = at.index(bytes.len());
                bytes[at] ^= wrong;
            }
        }
        let (mut decoder, mut decoded_bytes) = (FrameDecoder::default(), 0);
        let total = bytes.len();
        while let Ok(Some(frame)) = decoder.decode(&mut bytes) {
            if let SpdyFrame::Data { part, .. } = frame {
                decoded_bytes += part.len();
            }
            prop_assert!(decoded_bytes <= total);
        }
    }
}
