//! One connection to a pod's port.
//!
//! In: an address, a port and the client's bytes. Out: the pod's bytes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Timeout of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to a port of a pod; the error is a message for the client.
pub async fn dial(address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let connected =
        tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((address, port))).await;
    let why = match connected {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer: is there a route from the operator to the pod's network?".to_owned(),
    };
    Err(format!(
        "error forwarding port {port} to the pod's address {address}: {why}"
    ))
}

/// Copies bytes in both directions until the pod closes the connection or the client disconnects. `to_client`
/// returns false once the client no longer reads.
pub async fn copy_bidirectional<F: Future<Output = bool>>(
    stream: TcpStream,
    mut from_client: mpsc::Receiver<Bytes>,
    to_client: impl Fn(Bytes) -> F,
) {
    let (mut read, mut write) = stream.into_split();
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The pod may have closed the connection.
        let _ = write.shutdown().await;
        std::future::pending::<()>().await;
    };
    let down = async {
        loop {
            let mut bytes = BytesMut::with_capacity(32 << 10);
            match read.read_buf(&mut bytes).await {
                Ok(n) if n > 0 => {
                    if !to_client(bytes.freeze()).await {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
