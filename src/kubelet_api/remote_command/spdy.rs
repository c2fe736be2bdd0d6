//! Remote commands over SPDY.
//!
//! In: an upgraded connection. Out: [`CommandStreams`] for the command, from one SPDY stream each for stdin, stdout,
//! stderr, errors and terminal sizes.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::{CommandOutcome, CommandRequest, CommandStreams, OutputStream, terminal_size};
use crate::kubelet_api::spdy::session::{SpdySession, SpdyStream, StreamSender, reset};

/// How long the client may take to open its streams.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

pub async fn connect<F: Future<Output = CommandOutcome>>(
    io: TokioIo<Upgraded>,
    protocol: &str,
    wanted: &CommandRequest,
    run: impl FnOnce(CommandStreams) -> F,
) {
    let mut session = SpdySession::new(io);
    let names = stream_names(protocol, wanted);
    let opened = tokio::time::timeout(OPEN_TIMEOUT, open_streams(&mut session, &names)).await;
    let Ok(Some(mut opened)) = opened else {
        return session.close().await;
    };
    let sender = |name: &str| opened.get(name).map(SpdyStream::sender);
    let (stdout, stderr, error) = (sender("stdout"), sender("stderr"), sender("error"));
    let (out, written) = mpsc::channel(16);
    let (sizes, resize) = mpsc::channel(4);
    let stdin = opened
        .remove("stdin")
        .map_or_else(closed_channel, |s| s.split().0);
    let parts = opened
        .remove("resize")
        .map_or_else(closed_channel, |s| s.split().0);
    let gone = session.gone();
    // From here on no stream is accepted: a stream that the client opens now waits forever.
    let streams = CommandStreams {
        stdin,
        resize,
        output: out,
        client_gone: gone.clone(),
    };
    let finished = async {
        let copied = copy_output(written, stdout.as_ref(), stderr.as_ref());
        let ((), outcome) = tokio::join!(copied, run(streams));
        outcome
    };
    let outcome = tokio::select! {
        outcome = finished => outcome,
        () = async { terminal_size::forward_sizes(parts, sizes).await; std::future::pending().await } => return,
        () = gone.cancelled() => return session.close().await,
    };
    for stream in [stdout, stderr].into_iter().flatten() {
        stream.finish().await;
    }
    if let Some(error) = error {
        finish_error(&error, outcome.error_stream_text(protocol)).await;
    }
    session.close().await;
}

async fn finish_error(stream: &StreamSender, text: String) {
    if !text.is_empty() {
        stream.send(text.into()).await;
    }
    stream.finish().await;
}

fn closed_channel() -> mpsc::Receiver<Bytes> {
    mpsc::channel(1).1
}

fn stream_names(protocol: &str, wanted: &CommandRequest) -> Vec<&'static str> {
    let can_resize = !matches!(protocol, "channel.k8s.io" | "v2.channel.k8s.io");
    let streams = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", wanted.tty && can_resize),
    ];
    let wanted = streams.into_iter().filter(|(_, is_wanted)| *is_wanted);
    wanted.map(|(name, _)| name).collect()
}

/// Waits for all streams; `None` if the client disconnects before.
async fn open_streams(
    session: &mut SpdySession,
    names: &[&'static str],
) -> Option<HashMap<String, SpdyStream>> {
    let mut opened = HashMap::new();
    while opened.len() < names.len() {
        let stream = session.accept().await?;
        match stream.header("streamtype").map(str::to_owned) {
            Some(name) if names.contains(&&*name) && !opened.contains_key(&name) => {
                stream.accept().await;
                opened.insert(name, stream);
            }
            _ => stream.sender().reset(reset::REFUSED_STREAM).await,
        }
    }
    Some(opened)
}

/// Sends output until the command drops its end of the channel.
async fn copy_output(
    mut written: mpsc::Receiver<(OutputStream, Bytes)>,
    stdout: Option<&StreamSender>,
    stderr: Option<&StreamSender>,
) {
    while let Some((to, part)) = written.recv().await {
        let to = match to {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr.or(stdout),
        };
        if let Some(to) = to
            && !to.send(part).await
        {
            return;
        }
    }
}
