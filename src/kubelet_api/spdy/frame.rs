//! Encodes and decodes SPDY frames.
//!
//! In: bytes of a connection, or frames. Out: the other. Pure. No count or length in a frame is trusted before the
//! data that it counts has arrived: otherwise a peer can make the process allocate memory (CVE-2026-35469).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use thiserror::Error;

use super::dictionary::DICTIONARY;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
/// The longest control frame in bytes: no valid header block is longer.
const MAX_CONTROL_BYTES: usize = 16 << 10;
/// The size of an uncompressed header block, in bytes.
const MAX_HEADERS_BYTES: usize = 64 << 10;
/// Data is passed on as it arrives, in parts of at most this size in bytes.
const MAX_PART_BYTES: usize = 32 << 10;
/// Stream ids have 31 bits.
const STREAM_ID_MASK: u32 = 0x7fff_ffff;

/// Names, in lower case, and values.
pub type SpdyHeaders = Vec<(String, String)>;

/// Status codes of [`SpdyFrame::Reset`].
pub mod reset {
    /// The stream violates the protocol.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// There are too many streams, or the stream's purpose is unknown.
    pub const REFUSED_STREAM: u32 = 3;
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpdyFrame {
    /// `SYN_STREAM`: opens a stream.
    Open {
        id: u32,
        fin: bool,
        headers: SpdyHeaders,
    },
    /// `SYN_REPLY`: accepts a stream.
    Accepted { id: u32 },
    /// `RST_STREAM`: aborts a stream.
    Reset { id: u32, code: u32 },
    /// PING, which is answered with the same frame.
    Ping { id: u32 },
    /// GOAWAY: the sender ends the connection.
    GoAway { last: u32, code: u32 },
    /// Data of a stream.
    Data { id: u32, fin: bool, part: Bytes },
    /// A frame that is decoded and ignored: the peers use no flow control.
    Ignored,
}

/// Why bytes cannot be decoded.
#[derive(Debug, Error)]
pub enum Error {
    /// A different version of SPDY.
    #[error("unsupported version {0} of SPDY")]
    Version(u16),
    /// An unknown type of frame.
    #[error("a frame of the unknown type {0}")]
    Kind(u16),
    /// Longer than the limit.
    #[error("a length of {0} bytes exceeds the limit")]
    TooLong(usize),
    /// Not as specified.
    #[error("{0}")]
    Malformed(&'static str),
    /// A header block that cannot be decompressed.
    #[error("decompressing headers: {0}")]
    Zlib(String),
}

/// Decodes frames. Headers share a compression state, so there is one decoder for each connection.
pub struct FrameDecoder {
    zlib: Decompress,
    /// The data frame that has not arrived completely: stream, bytes left, whether it is the stream's last.
    data: Option<(u32, usize, bool)>,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self {
            zlib: Decompress::new(true),
            data: None,
        }
    }
}

impl FrameDecoder {
    /// Removes the next frame from the front of `bytes`; `None` if it has not arrived completely.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<SpdyFrame>, Error> {
        if self.data.is_some() {
            return Ok(self.part(bytes));
        }
        let Some(mut head) = bytes.get(..8) else {
            return Ok(None);
        };
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = (second.to_be_bytes()[0], (second & 0x00ff_ffff) as usize);
        if first & !STREAM_ID_MASK == 0 {
            if first == 0 {
                return Err(Error::Malformed("data of stream zero"));
            }
            bytes.advance(8);
            self.data = Some((first, length, flags & FLAG_FIN != 0));
            return Ok(self.part(bytes));
        }
        if length > MAX_CONTROL_BYTES {
            return Err(Error::TooLong(length));
        }
        if bytes.len() < 8 + length {
            return Ok(None);
        }
        bytes.advance(8);
        let body = bytes.split_to(length).freeze();
        let [high, low, kind @ ..] = first.to_be_bytes();
        let version = u16::from_be_bytes([high & 0x7f, low]);
        if version != VERSION {
            return Err(Error::Version(version));
        }
        self.control(u16::from_be_bytes(kind), flags, body)
            .map(Some)
    }

    fn part(&mut self, bytes: &mut BytesMut) -> Option<SpdyFrame> {
        let (id, left, fin) = self.data?;
        if left > 0 && bytes.is_empty() {
            return None;
        }
        let part = bytes
            .split_to(left.min(bytes.len()).min(MAX_PART_BYTES))
            .freeze();
        let left = left - part.len();
        self.data = (left > 0).then_some((id, left, fin));
        let fin = fin && left == 0;
        Some(SpdyFrame::Data { id, fin, part })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<SpdyFrame, Error> {
        let min_length = match kind {
            1 => 10,
            3 | 7 => 8,
            2 | 6 | 8 => 4,
            4 | 9 => 0,
            other => return Err(Error::Kind(other)),
        };
        if body.len() < min_length {
            return Err(Error::Malformed("a short control frame"));
        }
        Ok(match kind {
            1 => {
                let id = body.get_u32() & STREAM_ID_MASK;
                body.advance(6); // associated stream, priority, slot
                let headers = self.headers(&body)?;
                let fin = flags & FLAG_FIN != 0;
                SpdyFrame::Open { id, fin, headers }
            }
            2 => {
                let id = body.get_u32() & STREAM_ID_MASK;
                self.headers(&body)?;
                SpdyFrame::Accepted { id }
            }
            3 => SpdyFrame::Reset {
                id: body.get_u32() & STREAM_ID_MASK,
                code: body.get_u32(),
            },
            6 => SpdyFrame::Ping { id: body.get_u32() },
            7 => SpdyFrame::GoAway {
                last: body.get_u32() & STREAM_ID_MASK,
                code: body.get_u32(),
            },
            8 => {
                body.advance(4);
                self.headers(&body)?; // decompress them: the state is shared
                SpdyFrame::Ignored
            }
            _ => SpdyFrame::Ignored,
        })
    }

    fn headers(&mut self, mut packed: &[u8]) -> Result<SpdyHeaders, Error> {
        let mut plain = BytesMut::zeroed(MAX_HEADERS_BYTES);
        let mut filled = 0;
        while !packed.is_empty() {
            let (taken, given) = (self.zlib.total_in(), self.zlib.total_out());
            let room = &mut plain[filled..];
            let done = self.zlib.decompress(packed, room, FlushDecompress::Sync);
            packed = &packed[since(taken, self.zlib.total_in())..];
            filled += since(given, self.zlib.total_out());
            match done {
                Ok(Status::Ok) if filled < plain.len() => {}
                Ok(Status::BufError) if packed.is_empty() => {}
                Ok(_) => return Err(Error::TooLong(filled)),
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.zlib.set_dictionary(&DICTIONARY);
                    set.map_err(|error| Error::Zlib(error.to_string()))?;
                }
                Err(error) => return Err(Error::Zlib(error.to_string())),
            }
        }
        plain.truncate(filled);
        parse_headers(plain.freeze())
    }
}

fn since(before: u64, after: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

fn parse_headers(mut block: Bytes) -> Result<SpdyHeaders, Error> {
    fn number(block: &mut Bytes) -> Result<usize, Error> {
        let short = |_| Error::Malformed("a short header block");
        let number = block.try_get_u32().map_err(short)?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }
    fn text(block: &mut Bytes) -> Result<String, Error> {
        let length = number(block)?;
        if block.len() < length {
            return Err(Error::Malformed("a short header"));
        }
        let text = String::from_utf8(block.split_to(length).to_vec());
        text.map_err(|_| Error::Malformed("a header that is not text"))
    }
    let count = number(&mut block)?;
    let mut headers = SpdyHeaders::new();
    for _ in 0..count {
        headers.push((text(&mut block)?.to_ascii_lowercase(), text(&mut block)?));
    }
    Ok(headers)
}

/// Encodes frames; one for each connection, as with the decoder.
pub struct FrameEncoder {
    zlib: Compress,
}

impl Default for FrameEncoder {
    fn default() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&DICTIONARY)
            .expect("the dictionary fits the window");
        Self { zlib }
    }
}

impl FrameEncoder {
    /// Appends a frame to `out`.
    pub fn encode(&mut self, frame: &SpdyFrame, out: &mut BytesMut) {
        match frame {
            SpdyFrame::Open { id, fin, headers } => {
                let block = self.headers(headers);
                control(out, 1, u8::from(*fin), 10 + block.len());
                out.put_u32(*id);
                out.put_bytes(0, 6);
                out.put(block);
            }
            SpdyFrame::Accepted { id } => {
                let block = self.headers(&SpdyHeaders::new());
                control(out, 2, 0, 4 + block.len());
                out.put_u32(*id);
                out.put(block);
            }
            SpdyFrame::Reset { id, code } => {
                control(out, 3, 0, 8);
                out.put_u32(*id);
                out.put_u32(*code);
            }
            SpdyFrame::Ping { id } => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            SpdyFrame::GoAway { last, code } => {
                control(out, 7, 0, 8);
                out.put_u32(*last);
                out.put_u32(*code);
            }
            SpdyFrame::Data { id, fin, part } => {
                out.put_u32(*id);
                put_length(out, u8::from(*fin), part.len());
                out.put_slice(part);
            }
            SpdyFrame::Ignored => {}
        }
    }

    fn headers(&mut self, headers: &SpdyHeaders) -> Bytes {
        let length = |n: usize| u32::try_from(n).expect("headers are short");
        let mut plain = BytesMut::new();
        plain.put_u32(length(headers.len()));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(length(text.len()));
            plain.put_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        loop {
            let taken = self.zlib.total_in();
            self.zlib
                .compress_vec(&plain, &mut out, FlushCompress::Sync)
                .expect("compressing into memory does not fail");
            plain.advance(since(taken, self.zlib.total_in()));
            if plain.is_empty() && out.len() < out.capacity() {
                return out.into();
            }
            out.reserve(256);
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, length);
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length).expect("frames are short");
    out.put_u32((u32::from(flags) << 24) | length);
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
