//! One SPDY connection, on the server's side: a task that reads and a task that writes.
//!
//! In: a byte stream. Out: the streams that the peer opens. The peers use no flow control: a stream with a slow
//! reader stops the whole connection, as in Kubernetes itself. The server pings the peer, because a failed write is
//! the only sign of a lost peer while the connection is not read. A peer that is read and answers no pings for
//! [`SILENCE_TIMEOUT`] is gone, too.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use super::frame::reset;
use super::frame::{FrameDecoder, FrameEncoder, SpdyFrame, SpdyHeaders};
use crate::kubelet_api::upgrade::{PING_INTERVAL, SILENCE_TIMEOUT};

/// How many parts wait for a stream's reader before the connection is no longer read.
const MAX_QUEUED_PARTS: usize = 4;
/// The most open streams: a port-forward has two for each connection.
const MAX_STREAMS: usize = 256;
/// How long to wait for a peer to close the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connected peer may take to read the last frames, such as a command's exit code: a user may read the
/// output page by page.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);

/// A connection.
pub struct SpdySession {
    opened: mpsc::Receiver<SpdyStream>,
    out: mpsc::Sender<SpdyFrame>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    gone: CancellationToken,
}

/// A stream that the peer has opened.
pub struct SpdyStream {
    id: u32,
    headers: SpdyHeaders,
    parts: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<SpdyFrame>,
    reset: StreamReset,
}

/// Completes, with a value or an error, when the peer aborts the stream or disconnects.
pub type StreamReset = oneshot::Receiver<()>;

/// The writing half of a stream. Dropping it does not end the stream; [`StreamSender::finish`] does.
#[derive(Clone)]
pub struct StreamSender {
    id: u32,
    out: mpsc::Sender<SpdyFrame>,
}

impl SpdySession {
    /// Speaks SPDY over `io`.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(io);
        let (out, frames) = mpsc::channel(64);
        let (accept, opened) = mpsc::channel(16);
        let gone = CancellationToken::new();
        let writing = write_frames(write, frames);
        let ended = gone.clone().drop_guard();
        let writer = tokio::spawn(async move {
            writing.await;
            drop(ended);
        });
        let reading = FrameReader {
            out: out.clone(),
            accept,
            streams: HashMap::new(),
            last: 0,
        };
        let ended = gone.clone().drop_guard();
        let reader = tokio::spawn(async move {
            reading.read(read).await;
            drop(ended);
        });
        Self {
            opened,
            out,
            writer,
            reader,
            gone,
        }
    }

    /// The next stream that the peer opens; `None` once the connection is closed.
    pub async fn accept(&mut self) -> Option<SpdyStream> {
        self.opened.recv().await
    }

    /// Cancelled when the peer disconnects.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Sends GOAWAY after all frames that are queued, and closes the connection.
    pub async fn close(mut self) {
        let sent = async {
            // The peer may have disconnected.
            let _ = self.out.send(SpdyFrame::GoAway { last: 0, code: 0 }).await;
            // The writer ends after GOAWAY, unless the peer does not read.
            let _ = (&mut self.writer).await;
        };
        tokio::pin!(sent);
        tokio::select! {
            () = &mut sent => {}
            () = self.gone.cancelled() => drop(tokio::time::timeout(CLOSE_TIMEOUT, sent).await),
            () = tokio::time::sleep(DRAIN_TIMEOUT) => {}
        }
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.reader).await;
    }
}

impl Drop for SpdySession {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

impl SpdyStream {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The stream's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Accepts the stream. The peer sends data only after this.
    pub async fn accept(&self) {
        // The peer may have disconnected.
        let _ = self.out.send(SpdyFrame::Accepted { id: self.id }).await;
    }

    /// The stream's writing half.
    pub fn sender(&self) -> StreamSender {
        StreamSender {
            id: self.id,
            out: self.out.clone(),
        }
    }

    /// Both halves, and the signal that the peer aborts the stream.
    pub fn split(self) -> (mpsc::Receiver<Bytes>, StreamSender, StreamReset) {
        let sender = self.sender();
        (self.parts, sender, self.reset)
    }
}

impl StreamSender {
    /// Sends data; returns false once the connection is closed.
    pub async fn send(&self, part: Bytes) -> bool {
        let (id, fin) = (self.id, false);
        self.out
            .send(SpdyFrame::Data { id, fin, part })
            .await
            .is_ok()
    }

    /// Ends this half of the stream.
    pub async fn finish(&self) {
        let (id, fin, part) = (self.id, true, Bytes::new());
        // The peer may have disconnected.
        let _ = self.out.send(SpdyFrame::Data { id, fin, part }).await;
    }

    /// Aborts the stream.
    pub async fn reset(&self, code: u32) {
        // The peer may have disconnected.
        let _ = self.out.send(SpdyFrame::Reset { id: self.id, code }).await;
    }
}

async fn write_frames(mut io: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<SpdyFrame>) {
    let (mut encoder, mut bytes) = (FrameEncoder::default(), BytesMut::new());
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.reset();
    // The server's pings have even ids.
    let mut ping = 0;
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
            _ = pings.tick() => {
                ping = (ping + 2) & 0x7fff_fffe;
                SpdyFrame::Ping { id: ping }
            }
        };
        let ends = |frame: &SpdyFrame| matches!(frame, SpdyFrame::GoAway { .. });
        let mut is_last = ends(&frame);
        encoder.encode(&frame, &mut bytes);
        while bytes.len() < 64 << 10
            && !is_last
            && let Ok(frame) = frames.try_recv()
        {
            is_last = ends(&frame);
            encoder.encode(&frame, &mut bytes);
        }
        if io.write_all_buf(&mut bytes).await.is_err() || io.flush().await.is_err() {
            return;
        }
        if is_last {
            break;
        }
    }
    // The peer may have disconnected.
    let _ = io.shutdown().await;
}

struct FrameReader {
    out: mpsc::Sender<SpdyFrame>,
    accept: mpsc::Sender<SpdyStream>,
    streams: HashMap<u32, StreamEntry>,
    last: u32,
}

/// The reading task's side of a stream that the peer has opened.
struct StreamEntry {
    /// `None` once the peer has ended its half.
    parts: Option<mpsc::Sender<Bytes>>,
    /// Dropped when the peer aborts the stream.
    reset: oneshot::Sender<()>,
}

impl StreamEntry {
    /// Whether any half of the stream is still in use.
    fn is_used(&self) -> bool {
        let is_read = self.parts.as_ref().is_some_and(|parts| !parts.is_closed());
        is_read || !self.reset.is_closed()
    }
}

impl FrameReader {
    async fn read(mut self, mut io: impl AsyncRead + Unpin) {
        let (mut decoder, mut bytes) = (FrameDecoder::default(), BytesMut::with_capacity(64 << 10));
        loop {
            let frame = match decoder.decode(&mut bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    match tokio::time::timeout(SILENCE_TIMEOUT, io.read_buf(&mut bytes)).await {
                        Ok(Ok(n)) if n > 0 => continue,
                        Ok(Ok(_)) => return tracing::debug!("a peer has closed the connection"),
                        Ok(Err(error)) => return tracing::debug!(%error, "a peer has disconnected"),
                        Err(_) => return tracing::debug!("a peer does not answer pings"),
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a peer does not speak SPDY");
                    let last = self.last;
                    // The peer may have disconnected.
                    let _ = self.out.send(SpdyFrame::GoAway { last, code: 1 }).await;
                    return;
                }
            };
            if !self.handle_frame(frame).await {
                return;
            }
        }
    }

    /// Handles a frame; returns whether to continue.
    async fn handle_frame(&mut self, frame: SpdyFrame) -> bool {
        match frame {
            SpdyFrame::Open { id, fin, headers } => {
                return self.open_stream(id, fin, headers).await;
            }
            SpdyFrame::Data { id, fin, part } => {
                let Some(stream) = self.streams.get_mut(&id) else {
                    return true;
                };
                if !part.is_empty()
                    && let Some(parts) = &stream.parts
                    && parts.send(part).await.is_err()
                {
                    // The reader is gone: drop the rest.
                    stream.parts = None;
                }
                if fin {
                    stream.parts = None;
                }
            }
            SpdyFrame::Reset { id, .. } => drop(self.streams.remove(&id)),
            // Odd ids are the client's pings; an even id is the answer to one of the server's.
            SpdyFrame::Ping { id } if id % 2 == 1 => {
                return self.out.send(SpdyFrame::Ping { id }).await.is_ok();
            }
            SpdyFrame::GoAway { .. } => {
                tracing::debug!("a peer ends the connection");
                return false;
            }
            SpdyFrame::Ping { .. } | SpdyFrame::Accepted { .. } | SpdyFrame::Ignored => {}
        }
        true
    }

    async fn open_stream(&mut self, id: u32, fin: bool, headers: SpdyHeaders) -> bool {
        let refused = if id.is_multiple_of(2) || id <= self.last {
            Some(reset::PROTOCOL_ERROR)
        } else {
            self.last = id;
            self.streams.retain(|_, stream| stream.is_used());
            (self.streams.len() >= MAX_STREAMS).then_some(reset::REFUSED_STREAM)
        };
        if let Some(code) = refused {
            return self.out.send(SpdyFrame::Reset { id, code }).await.is_ok();
        }
        let (read, parts) = mpsc::channel(MAX_QUEUED_PARTS);
        let (aborted, reset) = oneshot::channel();
        let entry = StreamEntry {
            parts: (!fin).then_some(read),
            reset: aborted,
        };
        self.streams.insert(id, entry);
        let opened = SpdyStream {
            id,
            headers,
            parts,
            out: self.out.clone(),
            reset,
        };
        self.accept.send(opened).await.is_ok()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
