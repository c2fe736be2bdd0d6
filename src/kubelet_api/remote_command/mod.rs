//! A command's streams between a client and whoever runs the command, whatever carries them.
//!
//! In: an upgraded connection. Out: [`Streams`], which know no protocol; and at the end, after all output,
//! the [`Outcome`] goes back in the protocol's words.

mod outcome;
mod size;
mod spdy;
mod websocket;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::upgrade::{Agreed, Carrier, Spoken};
pub use outcome::Outcome;
pub use size::Size;

/// The protocols of remote commands.
pub const SPOKEN: Spoken = Spoken {
    spdy: &[
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v3.channel.k8s.io",
        "v2.channel.k8s.io",
        "channel.k8s.io",
    ],
    websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"],
};

/// What is to be run, and which streams it has.
#[allow(clippy::struct_excessive_bools, reason = "they are a query's")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether it reads.
    pub stdin: bool,
    /// Whether its output is wanted.
    pub stdout: bool,
    /// Whether its errors are wanted apart; a terminal has one stream.
    pub stderr: bool,
    /// Whether it runs in a terminal.
    pub tty: bool,
}

impl Wanted {
    /// Reads a query, in a kubelet's words.
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

    /// Whether there is any stream.
    pub fn has_streams(&self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// To standard output.
    Stdout,
    /// To standard error; to standard output where that is not apart.
    Stderr,
}

/// What a command is connected to.
pub struct Streams {
    /// What it reads; at once at its end if nothing is.
    pub stdin: mpsc::Receiver<Bytes>,
    /// The client's terminal as it is sized.
    pub resize: mpsc::Receiver<Size>,
    /// What it writes.
    pub out: mpsc::Sender<(Out, Bytes)>,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
}

/// Connects a command with its client: `run` is given the streams, and its outcome is told.
pub async fn connect<F: Future<Output = Outcome>>(
    io: TokioIo<Upgraded>,
    agreed: &Agreed,
    wanted: &Wanted,
    run: impl FnOnce(Streams) -> F,
) {
    match agreed.carrier {
        Carrier::Spdy => spdy::connect(io, &agreed.protocol, wanted, run).await,
        Carrier::Websocket => websocket::connect(io, &agreed.protocol, wanted, run).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_a_terminal_has_no_errors_apart() {
        let wanted =
            Wanted::parse("command=sh&command=-c&command=a+b%26&input=1&output=1&error=1&tty=1");
        assert_eq!(wanted.command, ["sh", "-c", "a b&"]);
        assert!(wanted.stdin && wanted.stdout && wanted.tty && !wanted.stderr);
        assert!(!Wanted::parse("command=sh&output=0").has_streams());
    }
}
