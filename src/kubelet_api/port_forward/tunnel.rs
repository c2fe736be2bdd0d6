//! A byte stream inside the binary messages of a WebSocket.
//!
//! In: an upgraded connection. Out: a stream that carries SPDY for the port-forward. It ends if the client does not
//! answer pings.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use crate::kubelet_api::upgrade::{self, PING_INTERVAL};

/// How long `inner` may take to end after the client has disconnected: its output is lost.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `inner` with the stream until it ends or the client disconnects.
pub async fn run_through<F: Future<Output = ()>>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    inner: impl FnOnce(DuplexStream) -> F,
) {
    let (mut sink, mut source) = upgrade::websocket(io).await.split();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (mut read, mut write) = tokio::io::split(theirs);
    let inward = async {
        while let Some(message) = upgrade::next_message(&mut source).await {
            if let Message::Binary(bytes) = message {
                // If `inner` has ended, the client may still be reading the last bytes from it.
                let _ = write.write_all(&bytes).await;
            }
        }
        // The reader may be gone.
        let _ = write.shutdown().await;
    };
    let mut pings = tokio::time::interval(PING_INTERVAL);
    let outward = async {
        loop {
            let mut bytes = BytesMut::with_capacity(32 << 10);
            let message = tokio::select! {
                read = read.read_buf(&mut bytes) => match read {
                    Ok(n) if n > 0 => Message::Binary(bytes.freeze()),
                    _ => break,
                },
                _ = pings.tick() => Message::Ping(Bytes::new()),
            };
            if sink.send(message).await.is_err() {
                break;
            }
        }
        // The client may have disconnected.
        let _ = sink.close().await;
    };
    let copied = async {
        tokio::join!(inner(ours), outward);
    };
    tokio::select! {
        () = copied => {}
        () = async { inward.await; tokio::time::sleep(DRAIN_TIMEOUT).await } => {}
    }
}
