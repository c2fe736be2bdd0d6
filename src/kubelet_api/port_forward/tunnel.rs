//! A byte stream inside of a websocket's binary messages.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use crate::kubelet_api::upgrade;

/// Gives `inner` the stream, until it ends or the client is gone.
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
        // Whoever reads may be gone.
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
        // The client may be gone.
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
