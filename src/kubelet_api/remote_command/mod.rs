//! The streams of a remote command (exec or attach), over SPDY or a WebSocket.
//!
//! In: an upgraded connection. Out: [`CommandStreams`], which do not depend on the protocol. At the end, after
//! all output, the [`CommandOutcome`] is sent in the format of the protocol version.

mod outcome;
mod spdy;
mod terminal_size;
mod websocket;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::upgrade::{NegotiatedProtocol, StreamTransport, SupportedProtocols};
use crate::aci::shell::TerminalSize;
pub use outcome::CommandOutcome;

/// The supported subprotocols of remote commands.
pub const PROTOCOLS: SupportedProtocols = SupportedProtocols {
    spdy: &[
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v3.channel.k8s.io",
        "v2.channel.k8s.io",
        "channel.k8s.io",
    ],
    websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"],
};

/// The command to run, and its streams.
#[allow(clippy::struct_excessive_bools, reason = "they are a query's")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandRequest {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether to connect stdin.
    pub stdin: bool,
    /// Whether to connect stdout.
    pub stdout: bool,
    /// Whether to connect stderr separately; never with a terminal, which has one stream.
    pub stderr: bool,
    /// Whether the command runs in a terminal.
    pub tty: bool,
}

impl CommandRequest {
    /// Reads the query of a kubelet request.
    pub fn parse(query: &str) -> Self {
        let mut wanted = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let is_on = matches!(&*value, "1" | "true");
            match &*key {
                "command" => wanted.command.push(value.into_owned()),
                "input" | "stdin" => wanted.stdin = is_on,
                "output" | "stdout" => wanted.stdout = is_on,
                "error" | "stderr" => wanted.stderr = is_on,
                "tty" => wanted.tty = is_on,
                _ => {}
            }
        }
        wanted.stderr &= !wanted.tty;
        wanted
    }

    /// Whether any stream is connected.
    pub fn has_streams(&self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// The destination of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error; sent as standard output if the client has no separate stream.
    Stderr,
}

/// What a command is connected to.
pub struct CommandStreams {
    /// Its input; closed at once if stdin is not connected.
    pub stdin: mpsc::Receiver<Bytes>,
    /// Sizes of the client's terminal.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Its output.
    pub output: mpsc::Sender<(OutputStream, Bytes)>,
    /// Cancelled when the client disconnects.
    pub client_gone: CancellationToken,
}

/// Connects a command with its client: `run` gets the streams, and its outcome is sent to the client.
pub async fn connect<F: Future<Output = CommandOutcome>>(
    io: TokioIo<Upgraded>,
    negotiated: &NegotiatedProtocol,
    wanted: &CommandRequest,
    run: impl FnOnce(CommandStreams) -> F,
) {
    match negotiated.transport {
        StreamTransport::Spdy => spdy::connect(io, &negotiated.protocol, wanted, run).await,
        StreamTransport::Websocket => {
            websocket::connect(io, &negotiated.protocol, wanted, run).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_parsed_and_a_terminal_has_no_separate_stderr() {
        let wanted = CommandRequest::parse(
            "command=sh&command=-c&command=a+b%26&input=1&output=1&error=1&tty=1",
        );
        assert_eq!(wanted.command, ["sh", "-c", "a b&"]);
        assert!(wanted.stdin && wanted.stdout && wanted.tty && !wanted.stderr);
        assert!(!CommandRequest::parse("command=sh&output=0").has_streams());
    }
}
