//! Remote commands over a WebSocket.
//!
//! In: an upgraded connection. Out: [`CommandStreams`] for the command; the first byte of a message is the
//! number of its stream.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::terminal_size::ResizeReader;
use super::{CommandOutcome, CommandRequest, CommandStreams, OutputStream};
use crate::aci::shell::TerminalSize;
use crate::kubelet_api::upgrade::{self, PING_INTERVAL};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: the stream whose number follows has ended.
const CLOSE: u8 = 255;

/// How long to wait for the client's close message.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

pub async fn connect<F: Future<Output = CommandOutcome>>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    protocol: &str,
    wanted: &CommandRequest,
    run: impl FnOnce(CommandStreams) -> F,
) {
    let (mut sink, source) = upgrade::websocket(io).await.split();
    let (typed, stdin) = mpsc::channel(4);
    let (sizes, resize) = mpsc::channel(4);
    let (out, written) = mpsc::channel(16);
    let gone = tokio_util::sync::CancellationToken::new();
    let streams = CommandStreams {
        stdin,
        resize,
        output: out,
        client_gone: gone.clone(),
    };
    let typed = wanted.stdin.then_some(typed);
    let reading = read_messages(source, typed, sizes, protocol == "v5.channel.k8s.io");
    // An empty message on stdout shows the client that it is connected.
    if sink.send(Message::binary(vec![STDOUT])).await.is_err() {
        return;
    }
    let written = async {
        let connected = write_messages(&mut sink, written).await;
        if !connected {
            // The command may write nothing more, and the client's messages may not be read.
            gone.cancel();
        }
        connected
    };
    let finished = async {
        let (connected, outcome) = tokio::join!(written, run(streams));
        connected.then_some(outcome)
    };
    tokio::pin!(reading);
    let outcome = tokio::select! {
        outcome = finished => outcome,
        () = &mut reading => None,
    };
    gone.cancel();
    let Some(outcome) = outcome else { return };
    let error = outcome.error_stream_text(error_protocol(protocol));
    if send_end(&mut sink, &error).await.is_ok() {
        // Wait a moment for the client's close message.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, reading).await;
    }
}

/// Sends the message on the stream for errors, and closes.
async fn send_end<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    error: &str,
) -> tungstenite::Result<()> {
    let message = [&[ERROR][..], error.as_bytes()].concat();
    sink.send(Message::binary(message)).await?;
    // client-go treats any close code but this as an error, a missing one included.
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    sink.send(Message::Close(Some(close))).await
}

/// Without a protocol, errors are sent as text.
fn error_protocol(protocol: &str) -> &str {
    if protocol.is_empty() {
        "channel.k8s.io"
    } else {
        protocol
    }
}

/// Handles messages until the client disconnects.
async fn read_messages<S: AsyncRead + AsyncWrite + Unpin>(
    mut source: SplitStream<WebSocketStream<S>>,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    sizes: mpsc::Sender<TerminalSize>,
    can_close: bool,
) {
    let mut resizes = ResizeReader::default();
    while let Some(message) = upgrade::next_message(&mut source).await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            _ => continue,
        };
        match data.as_ref() {
            [CLOSE, STDIN] if can_close => stdin = None,
            [STDIN, rest @ ..] if !rest.is_empty() => {
                // If the command no longer reads, drop its input.
                if let Some(to) = &stdin
                    && to.send(data.slice(1..)).await.is_err()
                {
                    stdin = None;
                }
            }
            [RESIZE, rest @ ..] => {
                if let Some(size) = resizes.feed(rest) {
                    // Drop a size that the command does not take, or not fast enough.
                    let _ = sizes.try_send(size);
                }
            }
            _ => {}
        }
    }
}

/// Sends output until the command drops its end of the channel. Returns whether the client is still connected.
async fn write_messages<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut written: mpsc::Receiver<(OutputStream, Bytes)>,
) -> bool {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.reset();
    loop {
        let message = tokio::select! {
            part = written.recv() => match part {
                Some((to, part)) => {
                    let mut message = BytesMut::with_capacity(part.len() + 1);
                    message.put_u8(match to {
                        OutputStream::Stdout => STDOUT,
                        OutputStream::Stderr => STDERR,
                    });
                    message.put(part);
                    Message::Binary(message.freeze())
                }
                None => return true,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// Whether a session lasts for two hours in which its command and its client write nothing. A client that is
    /// there answers pings.
    async fn goes_on(is_there: bool) -> bool {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let client = async {
            if !is_there {
                return std::future::pending().await;
            }
            let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            // Reading answers pings.
            while let Some(Ok(_)) = client.next().await {}
        };
        let silent = |streams| async move {
            let _open: CommandStreams = streams;
            std::future::pending().await
        };
        let wanted = CommandRequest::default();
        let both = async {
            tokio::select! {
                () = client => {}
                () = connect(ours, "v5.channel.k8s.io", &wanted, silent) => {}
            }
        };
        let hours = Duration::from_secs(7200);
        tokio::time::timeout(hours, both).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_its_client_does_not_answer_pings() {
        assert!(goes_on(true).await);
        assert!(!goes_on(false).await);
    }
}
