//! A byte stream inside the binary messages of a WebSocket.
//!
//! In: an upgraded connection. Out: a stream that carries SPDY for the port-forward.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use crate::kubelet_api::upgrade;

/// Runs `inner` with the stream until it ends or the client disconnects.
pub async fn through<F: Future<Output = ()>>(
    io: TokioIo<Upgraded>,
    inner: impl FnOnce(DuplexStream) -> F,
) {
    let (mut sink, mut source) = upgrade::websocket(io).await.split();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (mut read, mut write) = tokio::io::split(theirs);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            let written = match message {
                Message::Binary(bytes) => write.write_all(&bytes).await.is_ok(),
                Message::Close(_) => false,
                _ => true,
            };
            if !written {
                break;
            }
        }
        // The reader may be gone.
        let _ = write.shutdown().await;
    };
    let outward = async {
        loop {
            let mut bytes = BytesMut::with_capacity(32 << 10);
            let bytes: Bytes = match read.read_buf(&mut bytes).await {
                Ok(n) if n > 0 => bytes.freeze(),
                _ => break,
            };
            if sink.send(Message::Binary(bytes)).await.is_err() {
                break;
            }
        }
        // The client may have disconnected.
        let _ = sink.close().await;
    };
    let carried = async {
        tokio::join!(inner(ours), outward);
    };
    tokio::select! {
        () = carried => {}
        () = async { inward.await; std::future::pending().await } => {}
    }
}
