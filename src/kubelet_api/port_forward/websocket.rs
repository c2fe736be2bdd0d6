//! Port-forwards over a plain WebSocket.
//!
//! In: an upgraded connection, and the ports that the query names. Out: one connection to each port. Port number n
//! (from 0) has two channels: 2n for data, 2n + 1 for errors. The first message of each channel contains its port.
//! The forward ends if the client does not answer pings.

use std::net::IpAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::dial;
use crate::kubelet_api::upgrade::{self, PING_INTERVAL};

/// Forwards until the client disconnects or all connections have ended.
pub async fn forward(io: impl AsyncRead + AsyncWrite + Unpin, address: IpAddr, ports: &[u16]) {
    let (mut sink, mut source) = upgrade::websocket(io).await.split();
    let (out, mut messages) = mpsc::channel::<Bytes>(16);
    let (mut connections, mut inputs) = (JoinSet::new(), Vec::new());
    for (index, port) in (0_u8..).step_by(2).zip(ports.iter().copied()) {
        for channel in [index, index + 1] {
            let first = [&[channel][..], &port.to_le_bytes()].concat();
            if sink.send(Message::binary(first)).await.is_err() {
                return;
            }
        }
        let (input, from_client) = mpsc::channel(4);
        inputs.push(Some(input));
        connections.spawn(forward_port(address, port, index, from_client, out.clone()));
    }
    drop(out);
    tokio::select! {
        () = read_messages(&mut source, &mut inputs) => {}
        () = write_messages(&mut sink, &mut messages) => {}
    }
}

/// Passes the client's data to the ports until the client disconnects. An input is `None` once its port takes no more.
async fn read_messages<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut SplitStream<WebSocketStream<S>>,
    inputs: &mut [Option<mpsc::Sender<Bytes>>],
) {
    while let Some(message) = upgrade::next_message(source).await {
        let Message::Binary(data) = message else {
            continue;
        };
        let Some(channel) = data.first().filter(|channel| *channel % 2 == 0) else {
            continue;
        };
        let Some(input) = inputs.get_mut(usize::from(*channel / 2)) else {
            continue;
        };
        if let Some(to) = input
            && to.send(data.slice(1..)).await.is_err()
        {
            *input = None;
        }
    }
}

/// Sends the ports' data until all connections have ended, or the client has disconnected.
async fn write_messages<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    messages: &mut mpsc::Receiver<Bytes>,
) {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        let message = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => Message::Binary(message),
                None => break,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
    // The client may have disconnected.
    let _ = sink.close().await;
}

async fn forward_port(
    address: IpAddr,
    port: u16,
    channel: u8,
    from_client: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Bytes>,
) {
    let message = |channel: u8, bytes: &[u8]| {
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.put_slice(bytes);
        message.freeze()
    };
    match dial::dial(address, port).await {
        Ok(stream) => {
            let send = async |bytes: Bytes| out.send(message(channel, &bytes)).await.is_ok();
            dial::copy_bidirectional(stream, from_client, send).await;
        }
        // The client may have disconnected.
        Err(why) => drop(out.send(message(channel + 1, why.as_bytes())).await),
    }
}
